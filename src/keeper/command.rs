//! What the program `backstay-keeper` is told on its command line.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::spec::Spec;
use super::wire::{Identity, VERSION};
use super::{cage, hold};
use crate::sys;

/// How long a keeper has to begin.
const BEGIN: Duration = Duration::from_secs(10);
/// Bytes of a line about it.
const LINE: u64 = 64 << 10;

const USAGE: &str = "\
Holds one agent process of a host. Backstay starts it; people need it to look only.

backstay-keeper start FOLDER     starts a keeper for the instance in FOLDER, detached, and tells how that went
backstay-keeper hold FOLDER      is that keeper, in the foreground (for systemd)
backstay-keeper version [FOLDER] tells its version, and with FOLDER whether it could hold that instance
";

/// How a keeper began: the one line that it writes to its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Begun {
    /// It holds the folder.
    Ready(Identity),
    /// It ended, and why.
    Failed(String),
}

/// What a program tells of itself before a keeper becomes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    pub(super) keeper: String,
    pub(super) protocol: u32,
    /// The forms of what a keeper hands over that it understands.
    pub(super) carried: Vec<u32>,
}

/// Runs the program. Anything but the four commands, or a failure, is told on standard error with status 2 or 1.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = args.into_iter().skip(1).collect::<Vec<_>>();
    let args = args.iter().map(|arg| arg.to_str().unwrap_or_default()).collect::<Vec<_>>();
    match args.as_slice() {
        ["start", folder] => start(Path::new(folder)),
        ["hold", folder] => hold::hold(Path::new(folder)),
        ["cage", order] => cage::enter(order),
        ["version"] => version(),
        ["version", folder] => match Spec::read(Path::new(folder)) {
            Ok(_) => version(),
            Err(error) => fail(&super::folder::told(&error), 1),
        },
        ["--help" | "-h" | "help"] => {
            let _ = io::stdout().write_all(USAGE.as_bytes());
            ExitCode::SUCCESS
        }
        _ => fail(USAGE, 2),
    }
}

fn version() -> ExitCode {
    let version =
        Version { keeper: env!("CARGO_PKG_VERSION").to_owned(), protocol: VERSION, carried: vec![hold::FORM] };
    let text = serde_json::to_string(&version).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn fail(why: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "{}", why.trim_end());
    ExitCode::from(code)
}

/// The short-lived parent of a keeper: with its end the keeper is nobody's child.
fn start(folder: &Path) -> ExitCode {
    let begun = begin(folder).unwrap_or_else(|error| Begun::Failed(format!("cannot start a keeper: {error}")));
    let _ = writeln!(io::stdout(), "{}", serde_json::to_string(&begun).unwrap_or_default());
    match begun {
        Begun::Ready(_) => ExitCode::SUCCESS,
        Begun::Failed(_) => ExitCode::FAILURE,
    }
}

fn begin(folder: &Path) -> io::Result<Begun> {
    sys::keep_descriptors()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("hold").arg(folder).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let line = line_of(&mut child, BEGIN);
    let begun = match &line {
        Ok(line) if line.is_empty() => Begun::Failed("the keeper ended at once".to_owned()),
        Ok(line) => serde_json::from_slice(line).unwrap_or_else(|error| Begun::Failed(error.to_string())),
        Err(error) => Begun::Failed(format!("the keeper has not begun: {error}")),
    };
    if matches!(begun, Begun::Failed(_)) {
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok(begun)
}

/// The first line that a child writes, in a time; empty if it ends without one.
pub(super) fn line_of(child: &mut Child, time: Duration) -> io::Result<Vec<u8>> {
    let Some(output) = child.stdout.take() else { return Ok(vec![]) };
    let until = Instant::now() + time;
    rustix::fs::fcntl_setfl(&output, rustix::fs::OFlags::NONBLOCK)?;
    let mut reader = BufReader::new(output.take(LINE));
    let mut line = vec![];
    loop {
        match reader.read_until(b'\n', &mut line) {
            Ok(_) => return Ok(line),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        let left = Timespec::try_from(left).unwrap_or_default();
        poll(&mut [PollFd::from_borrowed_fd(reader.get_ref().get_ref().as_fd(), PollFlags::IN)], Some(&left))?;
    }
}
