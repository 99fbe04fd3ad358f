//! `backstay run [--once]`

use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::{CliError, Exit, Format, Globals, Out};
use crate::daemon::config::{Config, Period};
use crate::daemon::{App, Daemon, Serve, Settled, telemetry};
use crate::sys;

/// Between two times that free memory is given back: a deploy of many agents needs far more than what stands then.
const GIVE_BACK: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Converge, and end: 0 when everything is Ready, 1 when something is not and nothing goes on
    #[arg(long)]
    once: bool,

    /// With `--once`: how long to wait
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = str::parse::<Period>, requires = "once")]
    timeout: Period,
}

pub(in crate::cli) fn run(args: &Args, globals: &Globals, server: Serve, out: &mut Out) -> Result<Exit, CliError> {
    let config = globals.needed_config()?;
    telemetry::start(&config.log)?;
    sys::few_heaps();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(Exit::Broken, "cannot start").because(error))?;
    let ended = runtime.block_on(async {
        let daemon = Daemon::new(&config).await?;
        let stop = stop_by_signal()?;
        if args.once {
            once(daemon, &config, args.timeout, stop, out).await
        } else {
            serve(daemon, &config, server, stop).await
        }
    });
    // What still reads Git is not waited for: it holds nothing that a crash would not.
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended
}

/// Runs the daemon and its server until somebody stops it; the first to end ends the other.
async fn serve(daemon: Daemon, config: &Config, server: Serve, stop: CancellationToken) -> Result<Exit, CliError> {
    let listen = config.http.listen.0;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        CliError::new(Exit::Broken, format!("cannot listen on {listen}"))
            .because(error)
            .hint("choose another with `[http] listen` or BACKSTAY_HTTP_LISTEN")
    })?;
    let hinter = daemon.hinter();
    let app = App {
        status: daemon.status(),
        metrics: daemon.metrics(),
        secrets: config.webhooks.secrets()?,
        hint: std::sync::Arc::new(move || hinter.hint()),
    };
    tracing::info!(%listen, version = env!("CARGO_PKG_VERSION"), "backstay runs");
    let mut tasks: JoinSet<Result<(), CliError>> = JoinSet::new();
    let stopped = stop.clone();
    tasks.spawn(async move { Ok(daemon.run(stopped).await?) });
    tell("READY=1");
    let watched = stop.clone();
    tasks.spawn(async move {
        live(watched).await;
        Ok(())
    });
    let stopped = stop.clone();
    tasks.spawn(async move {
        give_back(stopped).await;
        Ok(())
    });
    let stopped = stop.clone();
    tasks.spawn(async move {
        let served = server(listener, app, stopped).await;
        served.map_err(|error| CliError::new(Exit::Broken, "the HTTP server ended").because(error))
    });
    let mut first = None;
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(CliError::new(Exit::Broken, "a task ended").because(error)));
        // Whoever ends first says why; the others only follow.
        if !stop.is_cancelled() && ended.is_ok() {
            first = Some(Err(CliError::new(Exit::Broken, "a task ended by itself")));
        } else if first.is_none() && ended.is_err() {
            first = Some(ended);
        }
        stop.cancel();
        tell("STOPPING=1");
    }
    first.unwrap_or(Ok(())).map(|()| Exit::Done)
}

/// Tells systemd that the runtime still turns, as often as it wants to hear it, until `stop`.
async fn live(stop: CancellationToken) {
    let Some(period) = sys::watchdog() else { return stop.cancelled().await };
    let mut every = tokio::time::interval(period);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        tell("WATCHDOG=1");
    }
}

/// Gives free memory back to the system from time to time, until `stop`.
async fn give_back(stop: CancellationToken) {
    let mut every = tokio::time::interval(GIVE_BACK);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        sys::give_back_memory();
    }
}

/// Tells systemd; without it nothing happens.
fn tell(state: &str) {
    if let Err(error) = sys::notify(state) {
        tracing::warn!(%error, "cannot tell systemd `{state}`");
    }
}

/// Runs the daemon until every environment has settled.
async fn once(
    daemon: Daemon,
    config: &Config,
    timeout: Period,
    stop: CancellationToken,
    out: &mut Out,
) -> Result<Exit, CliError> {
    let settled = daemon.settled();
    let mut watched = settled.clone();
    let mut running = JoinSet::new();
    let stopped = stop.clone();
    running.spawn(daemon.run(stopped));
    let all = join_all(watched.iter_mut().map(|one| one.wait_for(|settled| *settled != Settled::No)));
    let in_time = tokio::select! {
        _ = all => true,
        () = tokio::time::sleep(timeout.0) => false,
        () = stop.cancelled() => false,
        Some(ended) = running.join_next() => {
            ended.map_err(|error| CliError::new(Exit::Broken, "the daemon ended").because(error))??;
            return Err(CliError::new(Exit::Broken, "the daemon ended by itself"));
        }
    };
    let ends: Vec<_> = settled.iter().map(|one| *one.borrow()).collect();
    let interrupted = stop.is_cancelled();
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| CliError::new(Exit::Broken, "the daemon ended").because(error))??;
    }
    let word = |end: &Settled| match end {
        Settled::Ready => "ready",
        Settled::Stuck => "not ready",
        Settled::No => "still going on",
    };
    let named = config.target.iter().map(|target| &target.environment).zip(&ends);
    match out.format {
        Format::Json => {
            let each = named.map(|(environment, end)| (environment.to_string(), word(end).into())).collect();
            out.json(&serde_json::Value::Object(each))?;
        }
        Format::Text | Format::Markdown => {
            for (environment, end) in named {
                out.line(format!("{environment} {}", word(end)))?;
            }
        }
    }
    if !in_time {
        let why = if interrupted {
            "stopped before everything settled".to_owned()
        } else {
            format!("still going on after {:?}", timeout.0)
        };
        return Err(CliError::new(Exit::Waiting, why).hint("`backstay status` shows what is waited for"));
    }
    if ends.iter().all(|end| *end == Settled::Ready) {
        return Ok(Exit::Done);
    }
    out.hint("`backstay status` shows why");
    Ok(Exit::No)
}

/// Cancelled by SIGTERM or SIGINT; a second one ends the process at once, which costs nothing but the lease.
fn stop_by_signal() -> Result<CancellationToken, CliError> {
    let cannot = |error| CliError::new(Exit::Broken, "cannot listen for signals").because(error);
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate()).map_err(cannot)?, signal(SignalKind::interrupt()).map_err(cannot)?);
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stopping.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(Exit::Broken as i32);
    });
    Ok(stop)
}
