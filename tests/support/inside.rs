//! A daemon in this process, on a runtime that can be dropped as a crash drops it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use backstay::daemon::config::Config;
use backstay::daemon::{Between, Daemon, DaemonError};
use backstay::ledger::{Clock, SystemClock};
use backstay::model::Timestamp;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

/// What is said on the threads of one scene.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static HERE: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// A daemon that runs.
pub(crate) struct Running {
    runtime: Option<tokio::runtime::Runtime>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    hinter: backstay::source::Hinter,
    ended: Arc<Mutex<Option<String>>>,
}

/// The machine's clock, as one has it that is set so much ahead.
#[derive(Default)]
pub(crate) struct Ahead {
    usual: SystemClock,
    by: SignedDuration,
}

// === impl Ahead ===

impl Ahead {
    pub(crate) fn by(by: SignedDuration) -> Self {
        Self { by, ..Self::default() }
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.usual.now().saturating_add(self.by).expect("a time")
    }

    fn monotonic(&self) -> Duration {
        self.usual.monotonic()
    }
}

// === impl Log ===

impl Log {
    /// From now on what is said on a thread goes to the log of its scene.
    pub(crate) fn listen() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let filter = tracing_subscriber::EnvFilter::new("warn,backstay=debug");
            let here = || HERE.with_borrow(|log| log.clone().unwrap_or_default());
            let listening = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(here);
            let _ = listening.try_init();
        });
    }

    /// The last of what was said.
    pub(crate) fn last(&self) -> String {
        let log = self.0.lock().expect("no panic");
        let text = String::from_utf8_lossy(&log);
        let skip = text.lines().count().saturating_sub(60);
        text.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// === impl Running ===

impl Running {
    /// Starts a daemon, with something between it and its own host, and by this clock.
    pub(crate) async fn start(config: Config, log: &Log, between: Between, clock: Ahead) -> Result<Self, DaemonError> {
        let log = log.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || HERE.set(Some(log.clone())))
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let handle = runtime.handle().clone();
        let clock = Arc::new(clock);
        let made = handle.spawn(async move { Daemon::with(&config, &between, clock).await }).await.expect("no panic");
        let daemon = match made {
            Ok(daemon) => daemon,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let (stop, hinter) = (CancellationToken::new(), daemon.hinter());
        let (stopped, ended) = (stop.clone(), Arc::default());
        let end: Arc<Mutex<Option<String>>> = Arc::clone(&ended);
        let task = handle.spawn(async move {
            let result = daemon.run(stopped).await;
            *end.lock().expect("no panic") = Some(format!("{result:?}"));
        });
        Ok(Self { runtime: Some(runtime), stop, task, hinter, ended })
    }

    /// Brings its next look at Git forward.
    pub(crate) fn hint(&self) {
        self.hinter.hint();
    }

    /// What it ended with, if it ended by itself.
    pub(crate) fn ended(&self) -> Option<String> {
        self.ended.lock().expect("no panic").clone()
    }

    /// Drops it where it stands: nothing of it runs on.
    pub(crate) fn crash(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// The same; returns once what it has begun of blocking work is over, too.
    pub(crate) async fn crash_whole(mut self) {
        if let Some(runtime) = self.runtime.take() {
            let over = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)));
            over.await.expect("no panic");
        }
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(20), &mut self.task).await;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
