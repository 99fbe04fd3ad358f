//! One connection of a client: which protocol it speaks, its requests, its end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::Proxy;
use super::inlet::{Inlet, Line};
use crate::proxy::forward::{self, Answer, Client};

/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a replaced proxy waits for the next request of an idle connection, to end it with an answer.
const LINGER: Duration = Duration::from_secs(10);

/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 256;

/// Serves one connection until it ends, or until the proxy drains and its last answer was given.
pub(super) async fn serve<S>(proxy: Arc<Proxy>, mut stream: S, client: Client)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = proxy.limits.patience;
    let Ok(Some(first)) = tokio::time::timeout(patience.head, first(&mut stream)).await else { return };
    let line = Arc::new(Line::default());
    if first.starts_with(PREFACE) {
        let inlet = Inlet::http2(stream, &first, line.clone(), patience);
        return Box::pin(two(proxy, inlet, line, client)).await;
    }
    let (head, lines) = (proxy.limits.head_bytes, proxy.limits.headers);
    let inlet = Inlet::http1(stream, &first, line.clone(), patience, head, lines);
    drop(first);
    // Boxed: a connection holds the room of its own protocol alone.
    Box::pin(one(proxy, inlet, line, client)).await;
}

/// Reads until it is known whether this is HTTP/2; none when nothing comes.
async fn first<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let mut first = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut first).await.ok()? == 0 {
            return (!first.is_empty()).then_some(first);
        }
        if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
            return Some(first);
        }
    }
}

async fn one<S>(proxy: Arc<Proxy>, inlet: Inlet<S>, line: Arc<Line>, client: Client)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(proxy.limits.headers)
        .max_buf_size(proxy.limits.head_bytes.max(16 * 1024));
    let draining = proxy.draining.clone();
    let service = service_fn(move |request| called(proxy.clone(), client.clone(), line.clone(), request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(inlet), service).with_upgrades());
    // A connection that breaks is the client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = draining.cancelled() => {}
    }
    // Whoever sends a request now is answered, with the word to come again: an idle connection that is closed at once
    // would lose the request that is just on its way.
    if tokio::time::timeout(LINGER, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn two<S>(proxy: Arc<Proxy>, inlet: Inlet<S>, line: Arc<Line>, client: Client)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(proxy.tasks.clone());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(proxy.limits.head_bytes).unwrap_or(u32::MAX));
    let draining = proxy.draining.clone();
    let service = service_fn(move |request| {
        line.began();
        called(proxy.clone(), client.clone(), line.clone(), request)
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(inlet), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = draining.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

type Called = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

/// Boxed, so that a connection that waits or streams does not hold the room that a request needs.
fn called(proxy: Arc<Proxy>, client: Client, line: Arc<Line>, request: Request<Incoming>) -> Called {
    Box::pin(async move {
        let counted = Ended(Some(line.clone()));
        let response = forward::answer(&proxy, &client, &line, request).await;
        Ok(response.map(|answer| counted.into_answer(answer)))
    })
}

/// Tells the connection that a request ended, also when nobody waits for its answer any more.
struct Ended(Option<Arc<Line>>);

impl Ended {
    fn into_answer(mut self, answer: Answer) -> Answer {
        match self.0.take() {
            Some(line) => answer.on(line),
            None => answer,
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(line) = &self.0 {
            line.ended();
        }
    }
}
