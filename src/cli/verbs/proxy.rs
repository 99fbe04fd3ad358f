//! `backstay proxy`

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::{CliError, Exit, Globals};
use crate::daemon::{config, telemetry};
use crate::proxy::{self, ListenOn, ServeError, Settings};
use crate::sys;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Address and port for clients; may be given more than once [default: `[proxy] listen`]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<ListenOn>,

    /// Address and port of `/metrics` and `/healthz` [default: `[proxy] metrics`]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<ListenOn>,

    /// The socket by which the daemon speaks to it [default: `[proxy] control`]
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,

    /// An account that may speak there, beside the proxy's own and root; may be given more than once
    #[arg(long, value_name = "NAME")]
    control_user: Vec<String>,

    /// The routing table [default: `[proxy] table`]
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// A file for one line of JSON per request, or `stdout` [default: `[proxy] access_log`]
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
}

/// What the proxy reads of a `backstay.toml`: the rest is the daemon's, and may name files that only it can read.
#[derive(Default, Deserialize)]
struct Sections {
    #[serde(default)]
    proxy: Settings,
    #[serde(default)]
    log: config::Log,
}

pub(in crate::cli) fn run(args: &Args, globals: &Globals) -> Result<Exit, CliError> {
    let Sections { mut proxy, log } = match &globals.config {
        Some(path) => read(path)?,
        None if Path::new(config::DEFAULT_PATH).exists() => read(Path::new(config::DEFAULT_PATH))?,
        None => Sections::default(),
    };
    if !args.listen.is_empty() {
        proxy.listen.clone_from(&args.listen);
    }
    proxy.metrics = args.metrics.or(proxy.metrics);
    proxy.access_log = args.access_log.clone().or(proxy.access_log);
    if let Some(control) = &args.control {
        proxy.control.clone_from(control);
    }
    if let Some(table) = &args.table {
        proxy.table.clone_from(table);
    }
    for name in &args.control_user {
        let uid = sys::uid(name).ok_or_else(|| CliError::usage(format!("this machine has no account `{name}`")))?;
        proxy.control_uids.push(uid);
    }
    telemetry::start(&log)?;
    Ok(proxy::run(&proxy).map(|()| Exit::Done)?)
}

fn read(path: &Path) -> Result<Sections, CliError> {
    let file = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::usage(format!("cannot read the configuration `{file}`")).because(error))?;
    toml::from_str(&text)
        .map_err(|error| CliError::usage(format!("the section `[proxy]` of `{file}` is not valid")).because(error))
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        let (exit, hint) = match &error {
            ServeError::Settings(_) => (Exit::Usage, None),
            ServeError::NoListener => (Exit::Usage, Some("say `--listen ADDRESS:PORT`, or `[proxy] listen`")),
            ServeError::Taken { .. } => (Exit::Refused, Some("two proxies need sockets and tables of their own")),
            ServeError::Tls(_) => (Exit::Broken, Some("look at `[proxy.tls]`")),
            ServeError::Listen { .. } => (Exit::Broken, Some("is the address this machine's, and free?")),
            ServeError::Log { .. } | ServeError::Handover(_) | ServeError::Start(_) => (Exit::Broken, None),
        };
        let own = Self::new(exit, error.to_string());
        let own = hint.into_iter().fold(own, Self::hint);
        match std::error::Error::source(&error) {
            Some(_) => own.because(error),
            None => own,
        }
    }
}
