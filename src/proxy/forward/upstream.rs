//! Connections to instances: kept for the next request, driven by the request that uses them.
//!
//! A connection is polled by whoever waits for its answer and by nobody else: no task of its own wakes for it, what the
//! client does not take is not read, and a client that leaves takes its connection along. An idle one is looked at again
//! when it is taken out: one that the instance has closed is not used.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::body::Sending;
use crate::proxy::serve::{Tasks, lanes, own_lane};
use crate::proxy::table::Address;

/// How long an idle connection is kept: below the limit of every server that an agent may be (Node closes after 5 s).
pub(crate) const KEPT: Duration = Duration::from_secs(1);

/// Idle connections to one instance.
const MOST: usize = 256;

/// A stream to an instance that counts what is written.
pub(super) struct Counted {
    stream: Stream,
    written: Arc<AtomicU64>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One HTTP/1.1 connection to an instance.
pub(super) struct Connection {
    send: http1::SendRequest<Sending>,
    drive: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    written: Arc<AtomicU64>,
    over: bool,
}

/// Connections that wait, and since when: the one that waits longest first.
type Idle = Vec<(Instant, Connection)>;

/// What there is of connections to one instance.
pub(crate) struct Pool {
    /// Of each lane.
    idle: Box<[Mutex<Idle>]>,
    h2: Mutex<Option<http2::SendRequest<Sending>>>,
}

// === impl Connection ===

impl Connection {
    /// Connects to an instance that speaks HTTP/1.1.
    pub(super) async fn open(address: &Address, patience: Duration) -> io::Result<Self> {
        let written = Arc::new(AtomicU64::new(0));
        let stream = connect(address, patience).await?;
        let io = TokioIo::new(Counted { stream, written: written.clone() });
        let mut builder = http1::Builder::new();
        builder.max_buf_size(64 * 1024);
        let (send, drive) = builder.handshake(io).await.map_err(io::Error::other)?;
        Ok(Self { send, drive: Box::pin(drive.with_upgrades()), written, over: false })
    }

    /// Bytes that were written to it so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Sends one request and waits for the head of its answer.
    pub(super) async fn exchange(&mut self, request: Request<Sending>) -> hyper::Result<Response<Incoming>> {
        let mut answer = std::pin::pin!(self.send.try_send_request(request));
        let (drive, over) = (&mut self.drive, &mut self.over);
        poll_fn(|cx| {
            if !*over && drive.as_mut().poll(cx).is_ready() {
                *over = true;
            }
            answer.as_mut().poll(cx).map_err(hyper::client::conn::TrySendError::into_error)
        })
        .await
    }

    /// Moves the connection on; to be called by whoever reads an answer's body.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.over && self.drive.as_mut().poll(cx).is_ready() {
            self.over = true;
        }
    }

    /// Ends when the connection does, which after an upgrade is at once.
    pub(super) async fn finish(mut self) {
        if !self.over {
            let _ = self.drive.as_mut().await;
        }
    }

    /// Whether another request can be sent.
    fn usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.over && self.send.is_ready()
    }
}

// === impl Pool ===

impl Default for Pool {
    fn default() -> Self {
        Self { idle: (0..lanes()).map(|_| Mutex::default()).collect(), h2: Mutex::default() }
    }
}

impl Pool {
    /// The connections that this thread may use.
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle[own_lane()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last and is still open.
    pub(super) fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.idle().pop()?;
            if since.elapsed() < KEPT && connection.usable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn put(&self, mut connection: Connection) {
        if connection.usable() {
            let mut idle = self.idle();
            if idle.len() < MOST.div_ceil(lanes()) {
                idle.push((Instant::now(), connection));
            }
        }
    }

    /// Closes what was idle for too long.
    pub(crate) fn sweep(&self) {
        for idle in &self.idle {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            let first = idle.iter().position(|(since, _)| since.elapsed() < KEPT).unwrap_or(idle.len());
            drop(idle.drain(..first));
        }
    }

    /// The one connection to an instance that speaks HTTP/2, and whether it stood before.
    pub(super) async fn h2(
        &self,
        address: &Address,
        patience: Duration,
        tasks: &Tasks,
    ) -> io::Result<(http2::SendRequest<Sending>, bool)> {
        let standing = self.h2.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(mut send) = standing
            && poll_fn(|cx| Poll::Ready(matches!(send.poll_ready(cx), Poll::Ready(Ok(()))))).await
        {
            return Ok((send, true));
        }
        let io = TokioIo::new(Counted { stream: connect(address, patience).await?, written: Arc::default() });
        let made = http2::Builder::new(tasks.clone()).handshake(io).await;
        let (send, drive) = made.map_err(io::Error::other)?;
        tasks.spawn(async move {
            // How it ended is known to the requests on it.
            let _ = drive.await;
        });
        *self.h2.lock().unwrap_or_else(PoisonError::into_inner) = Some(send.clone());
        Ok((send, false))
    }
}

async fn connect(address: &Address, patience: Duration) -> io::Result<Stream> {
    let connecting = async {
        match address {
            Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // A port inside the ephemeral range that nobody listens on can be connected to itself.
                if stream.local_addr()? == stream.peer_addr()? {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    };
    tokio::time::timeout(patience, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

// === impl Counted ===

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Counted {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.written.fetch_add(*count as u64, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        };
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
