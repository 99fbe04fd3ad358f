//! A look at the second set of a blue-green rollout, before it gets any traffic.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::reconcile::Smoke;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read at most.
const LONGEST: usize = 64 << 10;

/// Where a preview is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Front {
    /// Through the proxy of this machine, by the name of the host.
    Proxy(SocketAddr),
    /// By the address of the release's Service, in the cluster that the daemon runs in.
    Service,
}

/// Asks the preview; says why it did not answer with success, if it did not.
pub(crate) async fn smoke(front: Option<Front>, asked: &Smoke) -> Result<(), String> {
    let answered = tokio::time::timeout(PATIENCE, ask(front, asked)).await;
    answered.unwrap_or_else(|_| Err(format!("`{}` was silent for {} s", asked.path, PATIENCE.as_secs())))
}

async fn ask(front: Option<Front>, asked: &Smoke) -> Result<(), String> {
    let (place, host) = match front {
        Some(Front::Proxy(address)) => (address.to_string(), asked.host.clone()),
        Some(Front::Service) => match asked.service.as_deref().and_then(|text| text.parse::<IpAddr>().ok()) {
            Some(address) => (SocketAddr::new(address, asked.port).to_string(), asked.host.clone()),
            None => return Err("its Service has no address in the cluster".to_owned()),
        },
        None => return Err("nothing is configured by which a preview can be reached".to_owned()),
    };
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what} {place}: {error}");
    let stream = TcpStream::connect(&place).await.map_err(|error| failed("cannot connect to", &error))?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| failed("cannot speak to", &error))?;
    let driving = tokio::spawn(connection);
    let request = http::Request::get(&asked.path).header("host", host).header("user-agent", "backstay-smoke");
    let request = request.header("connection", "close").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| format!("`{}` cannot be asked for: {error}", asked.path))?;
    let answer = sender.send_request(request).await.map_err(|error| failed("no answer from", &error));
    let status = match answer {
        Ok(answer) => {
            let status = answer.status();
            // A long answer is an answer.
            let _ = Limited::new(answer.into_body(), LONGEST).collect().await;
            Ok(status)
        }
        Err(error) => Err(error),
    };
    driving.abort();
    match status? {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(format!("`{}` answered {status}", asked.path)),
    }
}
