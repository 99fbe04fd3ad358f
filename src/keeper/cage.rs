//! The cage: a step between the keeper and what it starts. The keeper's own program sets limits on itself, then becomes the command.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::spec::Spec;
use crate::sys::{self, Limit};

/// Bytes of the reason why a command could not be started.
const REASON: u64 = 4096;
/// What a cage leaves with when the command could not be started; why is told to the keeper.
const NOT_STARTED: u8 = 127;

/// What a cage is told, as its one argument. It holds no variables: other accounts may read arguments.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    keeper: u32,
    command: Vec<String>,
    umask: u32,
    limits: BTreeMap<Limit, u64>,
    cgroup: Option<PathBuf>,
    dies_with_keeper: bool,
}

/// A process that was started in its cage.
pub(super) struct Born {
    pub(super) pid: u32,
    birth: UnixStream,
}

/// Starts a command as the agent of this spec: its environment, folder, limits, session and cgroup.
///
/// Must be called from the thread that lives as long as the keeper.
pub(super) fn start(
    spec: &Spec,
    command: Vec<String>,
    mark: Option<(&str, String)>,
    dies_with_keeper: bool,
    (stdout, stderr): (Stdio, Stdio),
) -> io::Result<Born> {
    let (birth, told) = UnixStream::pair()?;
    let order = Order {
        keeper: std::process::id(),
        command,
        umask: spec.umask,
        limits: spec.limits.clone(),
        cgroup: spec.cgroup.clone(),
        dies_with_keeper,
    };
    // This very program, also when its file was replaced.
    let mut cage = Command::new("/proc/self/exe");
    cage.arg0("backstay-keeper").arg("cage").arg(serde_json::to_string(&order)?);
    cage.env_clear().envs(spec.environment()?).envs(mark).current_dir(&spec.working_dir);
    let child = cage.stdin(Stdio::from(OwnedFd::from(told))).stdout(stdout).stderr(stderr).spawn()?;
    birth.set_nonblocking(true)?;
    Ok(Born { pid: child.id(), birth })
}

/// What runs as `backstay-keeper cage ORDER`: does not return if the command was started.
pub(super) fn enter(order: &str) -> ExitCode {
    let Ok(told) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::from(NOT_STARTED) };
    let why = become_command(order);
    let _ = UnixStream::from(told).write_all(why.as_bytes());
    ExitCode::from(NOT_STARTED)
}

/// Becomes the command, or says why not.
fn become_command(order: &str) -> String {
    let order: Order = match serde_json::from_str(order) {
        Ok(order) => order,
        Err(error) => return format!("the cage was told something else: {error}"),
    };
    if let Err(error) = close(&order) {
        return error;
    }
    let Some((program, args)) = order.command.split_first() else { return "there is no command".to_owned() };
    let error = Command::new(program).args(args).exec();
    format!("cannot start `{program}`: {error}")
}

/// Everything that is set before the command runs. The limits come last: they may be too low for a program that starts.
fn close(order: &Order) -> Result<(), String> {
    let cannot = |what: &str, error: &io::Error| format!("cannot {what}: {error}");
    if order.dies_with_keeper {
        sys::die_with_parent(order.keeper).map_err(|error| cannot("be tied to the keeper", &error))?;
    }
    sys::new_session().map_err(|error| cannot("begin a session", &error))?;
    sys::set_mask(order.umask);
    if let Some(cgroup) = &order.cgroup {
        let deed = format!("enter the cgroup `{}`", cgroup.display());
        sys::cgroup_enter(cgroup).map_err(|error| cannot(&deed, &error))?;
    }
    // Standard input was the way to the keeper. What is left of that way ends with the command's start.
    let null = OpenOptions::new().read(true).open("/dev/null");
    let null = null.and_then(|null| sys::replace_stdin(&null));
    null.map_err(|error| cannot("open `/dev/null`", &error))?;
    for (limit, most) in &order.limits {
        sys::set_limit(*limit, *most).map_err(|error| cannot(&format!("set the limit {limit:?} to {most}"), &error))?;
    }
    Ok(())
}

// === impl Born ===

impl Born {
    /// Why the command was not started, once the process has ended; none if it was.
    pub(super) fn why_not(&mut self) -> Option<String> {
        let mut why = vec![];
        let _ = Read::by_ref(&mut self.birth).take(REASON).read_to_end(&mut why);
        (!why.is_empty()).then(|| String::from_utf8_lossy(&why).into_owned())
    }
}
