//! What the HTTP server needs of the daemon, and how it is started without the one knowing the other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::config::HookSecrets;
use super::{Metrics, Status};

/// What the server shows, and whom it wakes.
#[derive(Clone)]
pub struct App {
    /// Whether the daemon is ready.
    pub status: Status,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The secrets of the doors that exist.
    pub secrets: HookSecrets,
    /// Brings the next look at Git forward. It must return at once, and may be called as often as anybody likes.
    pub hint: Arc<dyn Fn() + Send + Sync>,
}

/// Serves until it is stopped.
pub type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Starts serving on a listener, until the token is cancelled.
pub type Serve = fn(TcpListener, App, CancellationToken) -> Serving;
