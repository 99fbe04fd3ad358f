//! `backstay healthcheck`: for a container's own health check, which has no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::{CliError, Exit, Globals, Out};
use crate::daemon::config::Listen;

/// Time for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Address and port of the daemon [default: `http.listen` of the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,

    /// Ask whether it is ready, not only whether it is alive
    #[arg(long)]
    ready: bool,
}

pub(in crate::cli) async fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let address = if let Some(address) = args.address {
        address
    } else {
        let Listen(listen) = globals.config()?.map_or_else(Default::default, |config| config.http).listen;
        reachable(listen)
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let no = |why: String| {
        let message = format!("{address} is not {}: {why}", if args.ready { "ready" } else { "alive" });
        CliError::new(Exit::No, message)
    };
    let answer = tokio::time::timeout(PATIENCE, get(address, path)).await;
    let (status, body) = answer
        .map_err(|_| no(format!("no answer within {} s", PATIENCE.as_secs())))?
        .map_err(|error| no(error.to_string()))?;
    if status == 200 {
        out.line(format!("{address} is {}", if args.ready { "ready" } else { "alive" }))?;
        return Ok(Exit::Done);
    }
    Err(no(format!("it answers {status}: {}", body.trim().replace('\n', "; "))))
}

/// Where something that listens on `listen` is reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    status.map(|status| (status, body.to_owned())).ok_or_else(|| std::io::Error::other("it does not speak HTTP"))
}
