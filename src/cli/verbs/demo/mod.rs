//! `backstay demo [--dir DIR] [--exit]`

mod acts;
mod canary;
mod files;
mod held;
mod layout;
mod load;
#[cfg(test)]
mod load_tests;
mod repository;
mod setup;
mod words;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use self::acts::{IMPATIENT, Stage};
use self::files::EXAMPLE;
use self::held::Held;
use self::layout::Layout;
use self::repository::Checkout;
use self::setup::{Ports, Programs};
use self::words::Report;
use crate::cli::{CliError, Exit, Format, Out};
use crate::sys::FolderLock;

/// Longest wait for daemon and proxy to begin.
const BEGIN: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// An empty or missing folder, or one of an earlier demo, which begins anew
    /// [default: `backstay/demo` in `XDG_DATA_HOME`, or in `~/.local/share`]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// End everything when all was shown
    #[arg(long)]
    exit: bool,

    /// Only end what an earlier demo left running
    #[arg(long, conflicts_with = "exit")]
    stop: bool,
}

pub(in crate::cli) fn run(args: &Args, out: &mut Out) -> Result<Exit, CliError> {
    let dir = layout::folder(args.dir.as_deref())?;
    if args.stop {
        return stop(&dir, out);
    }
    let programs = Programs::find()?;
    let layout = Layout::take(&dir)?;
    if held::runs(&layout) {
        out.say("a demo runs here: it is ended, and begins anew");
        held::end(&layout)?;
    }
    layout.empty()?;
    // Nobody else looks for ports until these are taken.
    let turn = setup::turn()?;
    let ports = Ports::find(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(Exit::Broken, "cannot start").because(error))?;
    let played = runtime.block_on(async {
        tokio::select! {
            played = play(&layout, &ports, turn, &programs, out) => played,
            () = interrupted() => Err(CliError::new(Exit::No, "the demo was interrupted")),
        }
    });
    let report = match played {
        Ok(report) => report,
        Err(error) => return Err(ended_early(error, &layout)),
    };
    if out.format == Format::Json {
        out.json(&report)?;
    }
    if args.exit {
        held::end(&layout)?;
        tell(out, &["Everything was ended: nothing of the demo runs any more.".to_owned()])?;
        if args.dir.is_none() {
            layout.remove()?;
        }
    } else {
        tell(out, &words::after(&layout, &ports, &programs))?;
    }
    match report.failed() {
        0 => Ok(Exit::Done),
        failed => Err(CliError::new(Exit::No, format!("{failed} requests failed, and none should"))),
    }
}

/// Ends what an earlier demo left running.
fn stop(dir: &std::path::Path, out: &mut Out) -> Result<Exit, CliError> {
    if !dir.exists() {
        return Err(
            CliError::usage(format!("there is no demo in `{}`", dir.display())).hint("name its folder with `--dir`")
        );
    }
    let layout = Layout::take(dir)?;
    held::end(&layout)?;
    out.line("nothing of the demo runs any more")?;
    Ok(Exit::Done)
}

/// All acts, each told as it ends.
async fn play(
    layout: &Layout,
    ports: &Ports,
    turn: FolderLock,
    programs: &Programs,
    out: &mut Out,
) -> Result<Report, CliError> {
    tell(out, &words::before(layout, ports))?;
    let account = setup::account();
    let checkout = Checkout::create(&layout.repository(), &layout.work(), EXAMPLE, &account)?;
    checkout.change(&[IMPATIENT], "development: give up after eight seconds")?;
    setup::prepare(layout, ports, programs)?;
    let proxy = Held::start("proxy", &["proxy"], layout, programs)?;
    let daemon = Held::start("daemon", &["run"], layout, programs)?;
    listens(out, &proxy, "the proxy", ports.proxy).await?;
    listens(out, &daemon, "the daemon", ports.daemon).await?;
    drop(turn);
    let stage = Stage::new(layout, ports, daemon, checkout)?;

    tell(out, &words::first_begins())?;
    let first = stage.first(out).await?;
    tell(out, &words::first(&first))?;
    tell(out, &words::good_begins())?;
    let good = stage.good(out).await?;
    tell(out, &words::good(&good))?;
    tell(out, &words::unready_begins())?;
    let unready = stage.unready(out).await?;
    tell(out, &words::unready(&unready))?;
    tell(out, &words::reverted_begins())?;
    let reverted = stage.reverted(out).await?;
    tell(out, &words::reverted(&reverted))?;
    tell(out, &words::killed_begins())?;
    let killed = stage.killed(out, &reverted.release).await?;
    tell(out, &words::killed(&killed))?;
    tell(out, &words::canary_begins())?;
    stage.stepwise(out).await?;
    tell(out, &words::canary_goes_out())?;
    let canary = stage.canary(out).await?;
    tell(out, &words::canary(&canary))?;
    tell(out, &words::again_begins())?;
    let again = stage.again(out, &canary.release).await?;
    tell(out, &words::again(&again))?;
    Ok(Report { first, good, unready, reverted, killed, canary, again })
}

/// Says lines as they come: data, unless the data is JSON.
fn tell(out: &mut Out, lines: &[String]) -> Result<(), CliError> {
    for line in lines {
        match out.format {
            Format::Json => out.say(line),
            Format::Text | Format::Markdown => out.line(line)?,
        }
    }
    out.flush()
}

/// Waits until a process of the demo, and nobody else, listens on a port.
async fn listens(out: &Out, held: &Held, what: &str, port: u16) -> Result<(), CliError> {
    let begun = Instant::now();
    let mut progress = out.progress(format!("starting {what}"));
    while !held.listens(port) {
        if begun.elapsed() > BEGIN {
            return Err(CliError::new(Exit::Broken, format!("{what} does not listen on port {port}"))
                .hint(format!("what it wrote lies in `{}`", held.log().display())));
        }
        progress.tick(&format!("starting {what}"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Returns on SIGINT or SIGTERM.
async fn interrupted() {
    let signals =
        signal(SignalKind::interrupt()).and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    match signals {
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Then a signal ends the program at once.
        Err(_) => std::future::pending().await,
    }
}

/// Ends everything, and says where to look.
fn ended_early(error: CliError, layout: &Layout) -> CliError {
    if let Err(left) = held::end(layout) {
        return left;
    }
    let logs = format!(
        "nothing of the demo runs any more; what its processes wrote lies in `{}` and `{}`",
        layout.keepers().join("*/logs").display(),
        layout.state().join("host/logs").display()
    );
    match error.way_out().map(str::to_owned) {
        Some(hint) => error.hint(format!("{hint}; {logs}")),
        None => error.hint(logs),
    }
}
