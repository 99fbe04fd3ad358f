//! Copies of requests, to a release whose answers nobody sees.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

use super::headers::MIRROR;
use crate::proxy::figures;
use crate::proxy::live::Copy;
use crate::proxy::serve::Proxy;
use crate::proxy::table::{Address, Protocol};

/// Sends the copy once the body of the request is known; beyond the limit of open copies it is left out.
///
/// A copy says so in `Backstay-Mirror`. What it does to memory that both releases share is the declaration's affair.
pub(super) fn send(
    proxy: &Arc<Proxy>,
    copy: Copy,
    (method, uri, mut headers): (Method, Uri, HeaderMap),
    body: oneshot::Receiver<Vec<Bytes>>,
) {
    let Ok(permit) = proxy.mirrors.clone().try_acquire_owned() else { return };
    headers.remove(http::header::TRANSFER_ENCODING);
    headers.insert(MIRROR, HeaderValue::from_static("1"));
    let patience = proxy.limits.first_byte;
    proxy.tasks.spawn(async move {
        let _permit = permit;
        let sent = async {
            let body = body.await.ok()?.concat();
            if !body.is_empty() || headers.contains_key(http::header::CONTENT_LENGTH) {
                headers.insert(http::header::CONTENT_LENGTH, body.len().into());
            }
            let mut request = Request::new(Full::new(Bytes::from(body)));
            (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
            copy.figures.read().count(figures::second(), |counts| counts.mirrored += 1);
            let instance = &copy.open.0.instance;
            match &instance.address {
                Address::Unix(path) => {
                    exchange(UnixStream::connect(path).await.ok()?, request, instance.protocol).await
                }
                Address::Tcp(address) => {
                    exchange(TcpStream::connect(address).await.ok()?, request, instance.protocol).await
                }
            }
        };
        // Nobody waits for the answer, and its absence is the mirrored release's own affair.
        let _ = tokio::time::timeout(patience, sent).await;
    });
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, protocol: Protocol) -> Option<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    if protocol == Protocol::H2c {
        return None;
    }
    let (mut send, drive) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let answer = async {
        let mut body = send.send_request(request).await.ok()?.into_body();
        while let Some(frame) = body.frame().await {
            frame.ok()?;
        }
        Some(())
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answered = &mut answer => answered,
        _ = drive => answer.await,
    }
}
