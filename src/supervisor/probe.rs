//! Probes: whether an instance answers, as its pod template declares it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::keeper::client::Client;
use crate::keeper::wire::How;
use crate::proxy::Address;

/// Bytes of an answer that are read at most.
const LONGEST: usize = 64 << 10;

/// A probe, ready to be made.
#[derive(Debug, Clone)]
pub(super) struct Check {
    way: Way,
    pub(super) delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) failures: u32,
    pub(super) successes: u32,
}

#[derive(Debug, Clone)]
enum Way {
    Http {
        path: String,
        host: Option<String>,
        headers: Vec<(String, String)>,
    },
    Connect,
    Exec(Vec<String>),
    /// Of a kind that a host does not have.
    Unknown,
}

/// Counts what probes found until it decides something.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    good: u32,
    bad: u32,
}

// === impl Check ===

impl Check {
    pub(super) fn of(probe: &Probe) -> Self {
        let seconds = |field: Option<i32>, default: u64| {
            Duration::from_secs(field.and_then(|n| u64::try_from(n).ok()).unwrap_or(default))
        };
        let count = |field: Option<i32>, default: u32| {
            field.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)
        };
        let way = if let Some(get) = &probe.http_get {
            let headers = get.http_headers.iter().flatten();
            Way::Http {
                path: get.path.clone().unwrap_or_else(|| "/".to_owned()),
                host: get.host.clone(),
                headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
            }
        } else if probe.tcp_socket.is_some() {
            Way::Connect
        } else if let Some(exec) = &probe.exec {
            Way::Exec(exec.command.clone().unwrap_or_default())
        } else {
            Way::Unknown
        };
        Self {
            way,
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_millis(100)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_millis(100)),
            failures: count(probe.failure_threshold, 3),
            successes: count(probe.success_threshold, 1),
        }
    }

    /// Makes the probe once.
    pub(super) async fn passes(&self, address: Option<&Address>, folder: &Path, epoch: u64) -> bool {
        let made = async {
            match (&self.way, address) {
                (Way::Http { path, host, headers }, Some(address)) => {
                    get(address, path, host.as_deref(), headers).await
                }
                (Way::Connect, Some(Address::Tcp(at))) => TcpStream::connect(at).await.is_ok(),
                (Way::Connect, Some(Address::Unix(path))) => UnixStream::connect(path).await.is_ok(),
                (Way::Exec(command), _) => exec(folder.to_owned(), epoch, command.clone(), self.timeout).await,
                (Way::Http { .. } | Way::Connect, None) | (Way::Unknown, _) => false,
            }
        };
        // The keeper ends a command in time by itself; this waits for its answer.
        let patience = self.timeout + Duration::from_millis(500);
        tokio::time::timeout(patience, made).await.unwrap_or(false)
    }
}

/// The port that a probe, or a container, is declared with.
pub(super) fn port(port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(_) => None,
    }
}

/// Where a leased port is.
pub(super) fn local(port: u16) -> Address {
    Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

async fn get(address: &Address, path: &str, host: Option<&str>, headers: &[(String, String)]) -> bool {
    match address {
        Address::Tcp(at) => match TcpStream::connect(at).await {
            // Within the range of ephemeral ports a connect can meet itself.
            Ok(stream) if stream.local_addr().ok() != stream.peer_addr().ok() => ask(stream, path, host, headers).await,
            Ok(_) | Err(_) => false,
        },
        Address::Unix(socket) => match UnixStream::connect(socket).await {
            Ok(stream) => ask(stream, path, host, headers).await,
            Err(_) => false,
        },
    }
}

async fn ask<S>(stream: S, path: &str, host: Option<&str>, headers: &[(String, String)]) -> bool
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await else {
        return false;
    };
    let driving = tokio::spawn(connection);
    let mut request = http::Request::get(path).header("host", host.unwrap_or("localhost"));
    request = request.header("user-agent", "backstay-probe").header("connection", "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answered = async {
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await.ok()?;
        let status = answer.status().as_u16();
        let body = http_body_util::Limited::new(answer.into_body(), LONGEST).collect().await;
        // A long answer is an answer.
        let _ = body;
        Some((200..400).contains(&status))
    };
    let passed = answered.await.unwrap_or(false);
    driving.abort();
    passed
}

async fn exec(folder: PathBuf, epoch: u64, command: Vec<String>, timeout: Duration) -> bool {
    let asked = tokio::task::spawn_blocking(move || {
        let mut keeper = Client::connect(&folder, Some(epoch)).ok()?;
        let probed = keeper.probe(command, timeout).ok()?;
        Some(probed.how == How::Code(0) && !probed.timed_out)
    });
    asked.await.ok().flatten().unwrap_or(false)
}

// === impl Tally ===

impl Tally {
    /// Takes in what a probe found; says what is decided by it, if that is.
    pub(super) fn count(&mut self, check: &Check, passed: bool) -> Option<bool> {
        if passed {
            self.good = self.good.saturating_add(1);
            self.bad = 0;
        } else {
            self.bad = self.bad.saturating_add(1);
            self.good = 0;
        }
        if self.good >= check.successes {
            Some(true)
        } else if self.bad >= check.failures {
            Some(false)
        } else {
            None
        }
    }
}
