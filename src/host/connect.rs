//! A client of a host's API that another process serves on a Unix socket.

use std::io;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::net::UnixStream;

/// A client of what is served at `socket`: a connection for each request, made as the account of this process.
///
/// Nothing is connected yet; see [`answers`].
pub fn client(socket: &Path) -> kube::Client {
    let socket: Arc<Path> = socket.into();
    let service = tower::service_fn(move |request: Request<Body>| {
        let socket = Arc::clone(&socket);
        async move { exchange(&socket, request).await }
    });
    kube::Client::new(service, "default")
}

/// Whether somebody takes connections at `socket`; the error says why not.
pub async fn answers(socket: &Path) -> io::Result<()> {
    connect(socket).await.map(drop)
}

async fn exchange(socket: &Path, mut request: Request<Body>) -> io::Result<Response<Incoming>> {
    let stream = connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
    // Ends with the answer's body, or when that is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the host's API ended early");
        }
    });
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
    sender.send_request(request).await.map_err(other)
}

fn other(error: hyper::Error) -> io::Error {
    io::Error::other(error)
}

/// A path may be longer than an address of a socket: it is reached by its folder then.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let reached = super::serve::reached(socket)?;
    UnixStream::connect(reached.path()).await
}
