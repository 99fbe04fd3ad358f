//! Connections: bounded in number, size and time, and ended with the daemon.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::{App, router};
use crate::daemon::Serving;

/// How much one caller, and all of them together, may ask of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Header lines.
    pub headers: usize,
    /// Time from the first byte of a head to its last.
    pub head_time: Duration,
    /// Time from the end of the head to the answer, the body included.
    pub request: Duration,
    /// Time in which a caller takes no byte of its answer.
    pub stall: Duration,
    /// Connections at a time; more wait.
    pub connections: usize,
    /// Time for open requests to end when the daemon stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1024 * 1024,
            head: 32 * 1024,
            headers: 64,
            head_time: Duration::from_secs(10),
            request: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            connections: 512,
            grace: Duration::from_secs(5),
        }
    }
}

/// Serves `app` on `listener` until `stop`; then open requests end, and everything is joined.
///
/// # Errors
///
/// When the listener cannot accept any more, for another reason than one connection or a lack of descriptors.
pub async fn serve(listener: TcpListener, app: App, limits: Limits, stop: CancellationToken) -> io::Result<()> {
    let service = TowerToHyperService::new(router(&app, &limits));
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_headers(limits.headers)
        .max_buf_size(limits.head.max(8 * 1024));
    let ended = loop {
        let accepted = tokio::select! { biased;
            () = stop.cancelled() => break Ok(()),
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let mut stream = TimeoutStream::new(stream);
                stream.set_write_timeout(Some(limits.stall));
                let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service.clone());
                let connection = graceful.watch(connection);
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    drop(slot);
                });
            }
            Err(error) => break Err(error),
        }
    };
    // The listener is closed first, so that callers go elsewhere at once.
    drop(listener);
    let mut all = pin!(async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    });
    if tokio::time::timeout(limits.grace, &mut all).await.is_err() {
        tracing::warn!("open requests were cut: they did not end in {:?}", limits.grace);
    }
    ended
}

/// [`serve`] within the usual limits.
pub fn start(listener: TcpListener, app: App, stop: CancellationToken) -> Serving {
    Box::pin(serve(listener, app, Limits::default(), stop))
}

type Slot = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(tokio::net::TcpStream, Slot)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small: none waits for a later one.
                let _ = stream.set_nodelay(true);
                return Ok((stream, slot));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if is_out_of_descriptors(&error) => {
                tracing::warn!(%error, "no more connections can be accepted for now");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// `EMFILE` and `ENFILE`.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}
