//! A look at the second set of a blue-green rollout, before it gets any traffic.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::reconcile::Smoke;
use crate::rollout::Smoked;

/// How long a look takes at most, from the connection to the answer.
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

/// Asks the preview. Where no connection comes about, nothing is known of who would answer.
pub(crate) async fn smoke(front: Option<&Front>, asked: &Smoke) -> Smoked {
    let place = match place(front, asked) {
        Ok(place) => place,
        Err(why) => return Smoked::Unreached(why.to_owned()),
    };
    let end = Instant::now() + PATIENCE;
    let stream = match timeout_at(end, TcpStream::connect(place)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Smoked::Unreached(format!("cannot connect to {place}: {error}")),
        Err(_) => return Smoked::Unreached(format!("cannot connect to {place} within {} s", PATIENCE.as_secs())),
    };
    match timeout_at(end, ask(stream, place, asked)).await {
        Ok(Ok(())) => Smoked::Answers,
        Ok(Err(why)) => Smoked::Fails(why),
        Err(_) => Smoked::Fails(format!("`{}` was silent for {} s", asked.path, PATIENCE.as_secs())),
    }
}

fn place(front: Option<&Front>, asked: &Smoke) -> Result<SocketAddr, &'static str> {
    match front {
        Some(Front::Proxy(address)) => Ok(*address),
        Some(Front::Service) => {
            let address = asked.service.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
            Ok(SocketAddr::new(address.ok_or("its Service has no address in the cluster")?, asked.port))
        }
        None => Err("no `[proxy]` of backstay.toml says where this machine's proxy listens"),
    }
}

/// Why it did not answer with success, if it did not.
async fn ask(stream: TcpStream, place: SocketAddr, asked: &Smoke) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what} {place}: {error}");
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| failed("cannot speak to", &error))?;
    let driving = tokio::spawn(connection);
    let request = http::Request::get(&asked.path).header("host", &asked.host).header("user-agent", "backstay-smoke");
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
