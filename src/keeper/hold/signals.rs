//! Signals to the keeper, as something that `poll` sees.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// Wakes the loop on an ended child and on a wish that the keeper stop.
pub(super) struct Signals {
    wake: UnixStream,
    stop: Arc<AtomicBool>,
}

// === impl Signals ===

impl Signals {
    /// From here on SIGTERM and SIGINT are wishes, and SIGHUP is nothing.
    pub(super) fn new() -> io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        for signal in [SIGTERM, SIGINT, SIGCHLD, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { wake, stop })
    }

    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Empties the wake-up, and tells whether a stop was wished since the last time.
    pub(super) fn take(&mut self) -> bool {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
        self.stop.swap(false, Ordering::Relaxed)
    }
}
