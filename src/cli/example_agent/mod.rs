//! `backstay example-agent`: an agent that needs no model, for the example repository, demonstrations and tests.
//!
//! It reads its release folder as any agent's code does, answers `POST /chat` by the rules in its prompts, and shows
//! which release it is. What its release's config says under `demo` makes it misbehave on purpose: `{"crash": true}`
//! ends it at start, `{"notReady": true}` keeps it unready, `{"startupDelayMs": n}` makes it ready late, and
//! `{"chunkDelayMs": n}` slows the streamed replies, and `{"failEvery": n}` fails one question of n.
//!
//! | request | reply |
//! | --- | --- |
//! | `POST /chat {"message": …, "customer": …}` | `{"reply": …, "release": "r-…"}`; by server-sent events with `?stream=true` or `Accept: text/event-stream` |
//! | `GET /release` | id, digest, the prompts' digests, tools and models |
//! | `GET /health/live`, `GET /health/ready` | 200, or 503 |
//! | `GET /metrics` | OpenMetrics text |

mod http;
mod metrics;
mod release;
mod rules;

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use crate::model::ReleaseId;
use http::Agent;
use release::Folder;

/// What `backstay example-agent` is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder with the release
    #[arg(long, env = "BACKSTAY_AGENT_DIR", value_name = "DIR", default_value = "/etc/backstay/agent")]
    pub dir: PathBuf,

    /// Release that the folder must hold
    #[arg(long, env = "BACKSTAY_RELEASE", value_name = "ID")]
    pub release: Option<String>,

    /// Address and port, or `unix:` and a path, to listen on in place of `LISTEN_HOST` and `PORT`
    #[arg(long, env = "BACKSTAY_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<Listen>,

    /// Address to listen on
    #[arg(long, env = "LISTEN_HOST", value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub host: IpAddr,

    /// Port to listen on; 8000 unless it is a worker, which has none
    #[arg(long, env = "PORT", value_name = "PORT")]
    pub port: Option<u16>,

    /// Log level: error, warning, info or debug
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// Work without traffic: no /chat, and no HTTP at all without a port
    #[arg(long)]
    pub worker: bool,
}

/// Where an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What was opened there.
#[derive(Debug)]
pub enum Listener {
    /// An address and a port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Why the example agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of the release folder is missing or cannot be read.
    #[error("cannot read `{}` of the release", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A part of the release folder is not what it should be.
    #[error("`{}` of the release is not the JSON that is expected", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A prompt has other content than the release says.
    #[error("the prompt `{0}` is not the one that `release.json` names")]
    Prompt(String),
    /// The folder holds another release than the one that was asked for.
    #[error("`{}` holds the release {found}, {expected} is expected", dir.display())]
    Other {
        /// The folder.
        dir: PathBuf,
        /// What it holds.
        found: ReleaseId,
        /// What `BACKSTAY_RELEASE` names.
        expected: String,
    },
    /// The release asks for a crash.
    #[error("the release's config asks for a crash (`demo.crash`)")]
    Crash,
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Listen,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The listener or the signals failed.
    #[error("cannot serve")]
    Serve(#[source] io::Error),
}

/// Runs the agent until SIGTERM or SIGINT, and then answers what is being asked.
pub async fn run(args: Args) -> Result<(), Error> {
    log(&args.log_level);
    let stop = CancellationToken::new();
    let listener = match args.address() {
        Some(address) => Some(address.open().await.map_err(|source| Error::Listen { address, source })?),
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Serve)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Serve)?;
    let serving = serve(args, listener, stop.clone());
    let stopping = async {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
        }
        stop.cancel();
    };
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        () = stopping => {}
    }
    serving.await
}

/// Runs the agent on a listener, or without one, until `stop`, and then answers what is being asked.
pub async fn serve(args: Args, listener: Option<Listener>, stop: CancellationToken) -> Result<(), Error> {
    let folder = Folder::read(&args.dir, args.release.as_deref())?;
    let release = folder.id;
    if folder.demo.crash {
        return Err(Error::Crash);
    }
    let Some(listener) = listener else {
        tracing::info!(%release, "working");
        stop.cancelled().await;
        return Ok(());
    };
    let router = http::router(Arc::new(Agent::new(folder)), args.worker);
    let stopped = async move { stop.cancelled().await };
    let served = match listener {
        Listener::Tcp(listener) => {
            let address = listener.local_addr().map_err(Error::Serve)?;
            tracing::info!(%release, %address, worker = args.worker, "listening");
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        }
        Listener::Unix(listener) => {
            tracing::info!(%release, worker = args.worker, "listening on a Unix socket");
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        }
    };
    served.map_err(Error::Serve)
}

/// Human on a terminal, JSON otherwise; nothing changes where a subscriber is there already.
fn log(level: &str) {
    let level = match level.to_ascii_lowercase().as_str() {
        "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        _ => LevelFilter::INFO,
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    let _ = if io::stderr().is_terminal() { subscriber.try_init() } else { subscriber.json().try_init() };
}

// === impl Args ===

impl Args {
    /// Where it listens: a worker without a port listens nowhere.
    fn address(&self) -> Option<Listen> {
        let port = self.port.or_else(|| (!self.worker).then_some(8000));
        self.listen.clone().or_else(|| port.map(|port| Listen::Tcp(SocketAddr::new(self.host, port))))
    }
}

// === impl Listen ===

impl Listen {
    async fn open(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Self::Unix(path) => UnixListener::bind(path).map(Listener::Unix),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("after `unix:` comes an absolute path".to_owned()),
            None => text.parse().map(Self::Tcp).map_err(|_| "it is no `ADDRESS:PORT` and no `unix:/PATH`".to_owned()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn address(line: &[&str]) -> Option<Listen> {
        <Line as clap::Parser>::parse_from([&["agent"], line].concat()).args.address()
    }

    #[test]
    fn where_it_listens() {
        for (line, expected) in [
            (&["--host", "127.0.0.1", "--port", "81"][..], Some("127.0.0.1:81")),
            (&["--listen", "[::1]:82", "--port", "81"], Some("[::1]:82")),
            (&["--worker", "--port", "83"], Some("0.0.0.0:83")),
            (&["--listen", "unix:/run/a/s", "--port", "81"], Some("unix:/run/a/s")),
            (&["--worker"], None),
            (&[], Some("0.0.0.0:8000")),
        ] {
            assert_eq!(address(line), expected.map(|text| text.parse().unwrap()), "{line:?}");
        }
        assert!("unix:s".parse::<Listen>().is_err() && "8000".parse::<Listen>().is_err());
    }

    #[tokio::test]
    async fn it_listens_on_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = format!("unix:{}", path.display()).parse::<Listen>().unwrap().open().await.unwrap();
        assert!(matches!(listener, Listener::Unix(_)));
        assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
    }
}
