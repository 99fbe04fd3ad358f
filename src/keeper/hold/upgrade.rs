//! The keeper becomes another program: the same process, the same children, the same lock, socket and pipe.
//!
//! Standard input, output and error are the only descriptors that another program finds by itself; they carry the lock, the socket and
//! the pipe across. What else there is to know goes in a variable, which needs no room on a disk.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::serve::Server;
use super::{Course, Keeper};
use crate::keeper::command::Version;
use crate::keeper::folder::LOCK;
use crate::keeper::wire::{Answer, How, LogStatus, Phase, Probed, Status};
use crate::sys::{self, FolderLock, LockError};

/// The variable.
const CARRIED: &str = "BACKSTAY_KEEPER_CARRIED";
/// The form of what it holds, which both programs must know.
pub(in crate::keeper) const FORM: u32 = 1;

/// What the next program must know.
#[derive(Serialize, Deserialize)]
pub(super) struct Carried {
    form: u32,
    pub(super) status: Status,
    log: LogStatus,
    /// Milliseconds until the next start, in phase `waiting`.
    wait_ms: Option<u64>,
}

/// What the program before this one has left, if there was one in this process.
pub(super) fn carried() -> Option<Carried> {
    let text = std::env::var(CARRIED).ok()?;
    serde_json::from_str(&text).ok().filter(|carried: &Carried| carried.form == FORM)
}

/// Whether this process was another program before.
pub(super) fn was_another() -> bool {
    std::env::var_os(CARRIED).is_some()
}

/// The lock, from standard input.
pub(super) fn lock(path: &Path) -> Result<FolderLock, LockError> {
    let refused = |source| LockError::Refused { folder: path.to_owned(), source };
    let held = io::stdin().as_fd().try_clone_to_owned().map_err(refused)?;
    FolderLock::inherited(held, path, LOCK)
}

/// The socket, from standard output.
pub(super) fn listener() -> io::Result<Server> {
    Server::try_from(io::stdout().as_fd().try_clone_to_owned()?)
}

/// Lets go of standard input and output: what they were is held elsewhere now, and is not for children to inherit.
pub(super) fn release_stdio() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = sys::replace_stdin(&null);
        let _ = sys::replace_stdout(&null);
    }
}

impl Keeper {
    /// Becomes a program that has told its version, if it understands what it would be left.
    pub(super) fn upgrade(&mut self, program: &str, caller: u64, told: &Probed) {
        let version: Option<Version> = serde_json::from_str(told.output.trim_end()).ok();
        let why = match version {
            Some(version) if told.how == How::Code(0) && version.carried.contains(&FORM) => match &self.course {
                Course::Ending(_) | Course::Over => "the agent is being stopped".to_owned(),
                Course::Running | Course::Waiting(_) | Course::Ended => {
                    let error = self.become_program(program);
                    format!("cannot become `{program}`: {error}")
                }
            },
            Some(version) => {
                format!("`{program}` ({}) cannot go on from version {}", version.keeper, self.identity.keeper)
            }
            None => format!("`{program}` is no keeper, or does not start"),
        };
        self.server.answer(caller, &Answer::Refused { why, epoch: None });
    }

    /// Returns only if it could not be done; then all is as before, but for commands beside the agent, which were ended.
    fn become_program(&mut self, program: &str) -> io::Error {
        self.drop_jobs();
        let now = Instant::now();
        let wait = match &self.course {
            Course::Waiting(until) => Some(until.saturating_duration_since(now)),
            Course::Running | Course::Ended | Course::Ending(_) | Course::Over => None,
        };
        let carried = Carried {
            form: FORM,
            status: self.status.clone(),
            log: self.sink.status().clone(),
            wait_ms: wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        let carried = match serde_json::to_string(&carried) {
            Ok(carried) => carried,
            Err(error) => return error.into(),
        };
        let handed = sys::replace_stdin(self.lock.file()).and_then(|()| sys::replace_stdout(self.server.listener()));
        let error = match handed {
            Ok(()) => Command::new(program)
                .arg0("backstay-keeper")
                .arg("hold")
                .arg(self.here.path())
                .env_clear()
                .env(CARRIED, carried)
                .exec(),
            Err(error) => error,
        };
        release_stdio();
        error
    }

    /// Goes on where the program before this one was.
    pub(super) fn resume(&mut self, carried: Carried, now: Instant) {
        self.sink.count_from(carried.log);
        let wait = carried.wait_ms.map(Duration::from_millis);
        self.status = carried.status;
        match (self.status.phase, self.status.agent, wait) {
            (Phase::Waiting, _, Some(wait)) => self.wait(wait, now),
            (Phase::Running, Some(agent), _) if self.status.adopted => {
                if !self.adopt(agent) {
                    self.take_over(None, now);
                }
            }
            (Phase::Running, Some(agent), _) => self.keep_on(agent),
            (Phase::Ended, _, _) => self.course = Course::Ended,
            _ => self.take_over(None, now),
        }
    }
}
