//! `backstay run`: the daemon.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{CliError, Exit, Globals, Out};
use crate::daemon::config::Period;
use crate::daemon::{Daemon, DaemonError, Settled, telemetry};
use crate::web;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Converge once, and end: 0 all is Ready, 1 something is not, 4 it took too long
    #[arg(long)]
    once: bool,

    /// How long `--once` may take
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = str::parse::<Period>, requires = "once")]
    timeout: Period,
}

/// Runs on a runtime of its own, with all cores.
pub(in crate::cli) fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(Exit::Broken, "cannot run on this system").because(error))?;
    runtime.block_on(serve(args, globals, out))
}

async fn serve(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let config = globals.needed_config()?;
    telemetry::start(&config.log)?;
    let secrets = config.webhooks.secrets()?;
    let daemon = Daemon::new(&config).await?;
    let stop = CancellationToken::new();
    let mut settled = daemon.settled();
    let server = if args.once { None } else { Some(listen(&config, &daemon, secrets, stop.clone()).await?) };
    let running = tokio::spawn(daemon.run(stop.clone()));
    let stopped = stopped().await?;
    let mut exit = Exit::Done;
    let mut running = running;
    let ended = tokio::select! {
        ended = &mut running => Some(ended),
        () = stopped.cancelled() => None,
        all = converged(&mut settled), if args.once => {
            exit = if all { Exit::Done } else { Exit::No };
            None
        }
        () = tokio::time::sleep(args.timeout.0), if args.once => {
            exit = Exit::Waiting;
            None
        }
    };
    stop.cancel();
    let ended = match ended {
        Some(ended) => ended,
        None => running.await,
    };
    if let Some(server) = server {
        let served =
            server.await.map_err(|error| CliError::new(Exit::Broken, "the HTTP server ended").because(error))?;
        served.map_err(|error| CliError::new(Exit::Broken, "the HTTP server ended").because(error))?;
    }
    ended.map_err(|error| CliError::new(Exit::Broken, "the daemon ended").because(error))??;
    if args.once {
        out.say(match exit {
            Exit::Done => "everything is as Git asks for, and Ready",
            Exit::Waiting => "it has not converged in time: `backstay status` says what it waits for",
            Exit::No | Exit::Usage | Exit::Refused | Exit::Broken => {
                "not all of it is Ready: `backstay status` says why"
            }
        });
    }
    Ok(exit)
}

type Serving = tokio::task::JoinHandle<std::io::Result<()>>;

async fn listen(
    config: &crate::daemon::config::Config,
    daemon: &Daemon,
    secrets: crate::daemon::config::HookSecrets,
    stop: CancellationToken,
) -> Result<Serving, CliError> {
    let address = config.http.listen.0;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        CliError::new(Exit::Broken, format!("cannot listen on {address}"))
            .because(error)
            .hint("`http.listen` names another address; perhaps the daemon runs already")
    })?;
    let hinter = daemon.hinter();
    let app =
        web::App { status: daemon.status(), metrics: daemon.metrics(), secrets, hint: Arc::new(move || hinter.hint()) };
    tracing::info!(%address, "serving");
    Ok(tokio::spawn(web::serve(listener, app, web::Limits::default(), stop)))
}

/// Cancelled by the first SIGTERM or SIGINT.
async fn stopped() -> Result<CancellationToken, CliError> {
    let broken = |error: std::io::Error| CliError::new(Exit::Broken, "cannot listen for signals").because(error);
    let mut term = signal(SignalKind::terminate()).map_err(broken)?;
    let mut int = signal(SignalKind::interrupt()).map_err(broken)?;
    let token = CancellationToken::new();
    let stopped = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::info!("stopping");
        stopped.cancel();
    });
    Ok(token)
}

/// Waits until nothing goes on in any environment; says whether all is Ready.
async fn converged(settled: &mut [tokio::sync::watch::Receiver<Settled>]) -> bool {
    loop {
        let now: Vec<_> = settled.iter().map(|settled| *settled.borrow()).collect();
        if now.iter().all(|settled| *settled != Settled::No) {
            return now.iter().all(|settled| *settled == Settled::Ready);
        }
        let changes = settled.iter_mut().map(|settled| Box::pin(settled.changed()));
        let (changed, _, _) = futures::future::select_all(changes).await;
        if changed.is_err() {
            // Its task ended, which the caller sees on its own.
            std::future::pending::<()>().await;
        }
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        let exit = match &error {
            DaemonError::Person(_) => Exit::Usage,
            DaemonError::Git(_) | DaemonError::Connect { .. } | DaemonError::Journal(_) | DaemonError::Ended(_) => {
                Exit::Broken
            }
        };
        let hint = match &error {
            DaemonError::Git(error) => error.hint(),
            DaemonError::Person(_) | DaemonError::Connect { .. } | DaemonError::Journal(_) | DaemonError::Ended(_) => {
                None
            }
        };
        let message = match &error {
            DaemonError::Ended(why) => format!("the daemon ended: {why}"),
            other => other.to_string(),
        };
        let told = Self::new(exit, message).because(error);
        match hint {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }
}
