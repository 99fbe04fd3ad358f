//! Threads for clients: each with a runtime of its own, so that a request never changes its thread.
//!
//! A connection of a client stays on the lane that it was given, and has its connections to instances there. So nothing
//! of a request wakes another processor, which costs more than all that is done for it.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::Tasks;

/// One for each processor that this process may use.
static COUNT: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

thread_local! {
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// How many lanes there are.
pub(crate) fn lanes() -> usize {
    *COUNT
}

/// The lane of this thread; the first where it is none's.
pub(crate) fn own_lane() -> usize {
    OWN.get()
}

/// All lanes of a process.
pub(super) struct Lanes {
    all: Vec<Lane>,
    stop: CancellationToken,
}

/// One of them.
struct Lane {
    runtime: Handle,
    thread: Option<JoinHandle<()>>,
    open: Arc<AtomicUsize>,
}

/// A connection of a lane, counted while it lives.
struct Counted(Arc<AtomicUsize>);

// === impl Lanes ===

impl Lanes {
    /// Begins them all.
    pub(super) fn begin() -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut all = Vec::new();
        for index in 0..lanes() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, stopped) = (runtime.handle().clone(), stop.clone());
            let thread = std::thread::Builder::new().name(format!("lane-{index}")).spawn(move || {
                OWN.set(index);
                runtime.block_on(stopped.cancelled());
            })?;
            all.push(Lane { runtime: handle, thread: Some(thread), open: Arc::default() });
        }
        Ok(Self { all, stop })
    }

    /// Runs a connection on the lane that has the fewest.
    pub(super) fn spawn<F>(&self, tasks: &Tasks, connection: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(lane) = self.all.iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed)) else { return };
        lane.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&lane.open));
        tasks.spawn_on(&lane.runtime, async move {
            let _counted = counted;
            connection.await;
        });
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.all.iter_mut().filter_map(|lane| lane.thread.take()) {
            // One that panicked is gone as well.
            let _ = thread.join();
        }
    }
}

// === impl Counted ===

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
