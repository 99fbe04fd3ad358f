//! The process: its sockets, its parts, how it is replaced and how it ends.

pub(crate) mod access;
mod connection;
mod framing;
mod handover;
mod inlet;
mod lanes;
mod listen;
mod notify;
mod run;
mod tls;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::run::run;
pub use self::tls::TlsError;

pub(crate) use self::inlet::{Line, Patience};
pub(crate) use self::lanes::{lanes, own_lane};

use self::access::Log;
use super::live::Switch;
use super::settings::{InvalidSettings, Settings};

/// Copies for mirrors that may be open at a time.
const MIRRORS: usize = 256;

/// What all connections share.
pub(crate) struct Proxy {
    pub(crate) switch: Arc<Switch>,
    pub(crate) limits: Bounds,
    pub(crate) trusted_hops: usize,
    pub(crate) access: Option<Log>,
    /// Connections of clients, and what goes on for them.
    pub(crate) tasks: Tasks,
    /// Cancelled when no new connection is taken any more.
    pub(crate) draining: CancellationToken,
    pub(crate) mirrors: Arc<Semaphore>,
}

/// The limits as they are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) head_bytes: usize,
    pub(crate) headers: usize,
    pub(crate) body: u64,
    pub(crate) patience: Patience,
    pub(crate) connect: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) silence: Duration,
}

/// Tasks that are waited for before the process ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks(TaskTracker);

/// The proxy cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {on}")]
    Listen {
        /// The address, or the path.
        on: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody could reach it.
    #[error("the proxy has nothing to listen on")]
    NoListener,
    /// Another proxy lives there.
    #[error("another proxy answers on `{}`", path.display())]
    Taken {
        /// Its control socket.
        path: PathBuf,
    },
    /// The access log cannot be written.
    #[error("cannot write the access log `{}`", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The proxy before does not hand over.
    #[error("cannot take over from the proxy that runs")]
    Handover(#[source] io::Error),
    /// The system refuses threads, signals or timers.
    #[error("cannot start")]
    Start(#[source] io::Error),
}

// === impl Proxy ===

impl Proxy {
    fn new(switch: Arc<Switch>, settings: &Settings) -> Result<Self, ServeError> {
        let access = settings
            .access_log
            .as_ref()
            .map(|path| Log::open(path).map_err(|source| ServeError::Log { path: path.clone(), source }));
        Ok(Self {
            switch,
            limits: Bounds::of(settings),
            trusted_hops: settings.trusted_hops.into(),
            access: access.transpose()?,
            tasks: Tasks::default(),
            draining: CancellationToken::new(),
            mirrors: Arc::new(Semaphore::new(MIRRORS)),
        })
    }
}

// === impl Bounds ===

impl Bounds {
    fn of(settings: &Settings) -> Self {
        let limits = &settings.limits;
        Self {
            head_bytes: usize::try_from(limits.head_bytes).unwrap_or(usize::MAX),
            headers: usize::try_from(limits.headers).unwrap_or(usize::MAX),
            body: limits.body_bytes,
            patience: Patience { head: limits.head.0, idle: limits.idle.0, stall: limits.stall.0 },
            connect: limits.connect.0,
            first_byte: limits.answer.0,
            silence: limits.silence.0,
        }
    }
}

// === impl Tasks ===

impl Tasks {
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn(task)
    }

    fn spawn_on<F>(&self, runtime: &Handle, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn_on(task, runtime);
    }

    /// Ends when no task is left; none is begun by others then.
    async fn ended(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// hyper begins its tasks here, so that they are waited for too.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
