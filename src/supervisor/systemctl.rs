//! Asks systemd, by its own command. Blocks, for a bounded time.

use std::io::{self, PipeReader, Read as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

const PROGRAM: &str = "systemctl";
/// How long a unit may take to start: what its file allows, and what systemd needs beside that.
const START: Duration = Duration::from_secs(40);
/// How long it may take to end once its keeper is gone.
const STOP: Duration = Duration::from_mins(1);
/// For an answer that costs nothing.
const ASK: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const ANSWER: usize = 4096;

/// systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It cannot be asked.
    #[error("cannot run `{PROGRAM}`: {0}")]
    Program(#[from] io::Error),
    /// It takes too long; what it began may go on.
    #[error("systemd does not {deed} `{unit}` within {} s", time.as_secs())]
    Late { deed: &'static str, unit: String, time: Duration },
    /// It says no.
    #[error("systemd says: {0}")]
    Said(String),
}

/// Starts a unit, and waits until it says that it is ready. One that runs stays as it is.
pub(super) fn start(unit: &str) -> Result<(), Failed> {
    ask("start", &[], unit, START).map(drop)
}

/// Stops a unit, and waits until nothing of it is left.
pub(super) fn stop(unit: &str) -> Result<(), Failed> {
    ask("stop", &[], unit, STOP).map(drop)
}

/// Whether anything of a unit runs. Anybody may ask; a unit that there is not does not run.
pub(super) fn runs(unit: &str) -> Result<bool, Failed> {
    let state = ask("show", &["--property=ActiveState", "--value"], unit, ASK)?;
    Ok(!matches!(state.trim(), "inactive" | "failed"))
}

/// Runs the command, and gives what it said.
fn ask(deed: &'static str, options: &[&str], unit: &str, time: Duration) -> Result<String, Failed> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(PROGRAM);
    command.args(["--no-ask-password", "--no-pager", deed]).args(options).args(["--", unit]);
    // It would tell systemd its own end in this process's name.
    command.env_remove("NOTIFY_SOCKET");
    let mut child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // It holds the writing end, whose last close is the end of the answer.
    drop(command);
    let said = read(reader, time);
    if said.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    match said {
        Ok(said) if status.success() => Ok(said),
        Ok(said) => Err(Failed::Said(said.split_whitespace().collect::<Vec<_>>().join(" "))),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(Failed::Late { deed, unit: unit.to_owned(), time })
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads until the end, for that long at most.
fn read(mut reader: PipeReader, time: Duration) -> io::Result<String> {
    let until = Instant::now() + time;
    let mut said = vec![];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Timespec::try_from(left).unwrap_or_default();
        if poll(&mut [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)], Some(&left))? == 0 {
            continue;
        }
        let mut bytes = [0; 1024];
        match reader.read(&mut bytes)? {
            0 => return Ok(String::from_utf8_lossy(&said).into_owned()),
            count if said.len() < ANSWER => said.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            _ => {}
        }
    }
}

// === impl Failed ===

impl Failed {
    /// Whether this account may not do it.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Said(why) if ["authentication required", "Access denied"].iter().any(|no| why.contains(no)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn an_answer_is_read_to_its_end_and_not_waited_for_without_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"inactive\n").unwrap();
        let silent = read(reader.try_clone().unwrap(), Duration::from_millis(50)).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        writer.write_all(b"active\n").unwrap();
        drop(writer);
        assert_eq!(read(reader, Duration::from_mins(1)).unwrap(), "active\n");
    }

    #[test]
    fn a_refusal_is_told_from_other_troubles() {
        let said = |why: &str| Failed::Said(why.to_owned()).is_refusal();
        assert!(said("Failed to start a@b.service: Interactive authentication required."));
        assert!(said("Failed to start a@b.service: Access denied"));
        assert!(!said("Job for a@b.service failed because the control process exited with error code."));
    }
}
