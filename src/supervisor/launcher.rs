//! Who starts keepers: this process, each as a process of its own, or systemd, each as a unit.
//!
//! Everything here blocks, for a bounded time.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::instance::Trouble;
use super::systemctl;
use super::unit::{self, UNITS};
use crate::keeper::client::{self, Client, ClientError};
use crate::keeper::folder::{self, Standing, told};
use crate::keeper::spec::{FILE, Spec};
use crate::model::AgentName;
use crate::sys;

/// How long a keeper that is in the way may take to go.
const CLEAR: Duration = Duration::from_mins(1);

/// What a person can do about a stranger in an instance's folder.
const WAY_OUT: &str = "`fuser -v` with the file `lock` in there shows who it is: end that process";

/// The launch that a spec is of.
pub(super) fn launch_of(spec: &Spec) -> client::Launch {
    client::Launch { instance: spec.instance.clone(), nonce: spec.nonce.clone() }
}

/// Who starts keepers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launcher {
    /// This process: keepers have its account, and detach themselves.
    Fork {
        /// The program of keepers.
        keeper: PathBuf,
    },
    /// systemd: a unit for each instance, of an agent that root has enrolled.
    Systemd {
        /// The program of keepers, as root has enrolled it.
        keeper: PathBuf,
    },
}

// === impl Launcher ===

impl Launcher {
    /// The folder in which the keeper of an instance is reached; `folder` is the one in which it is told what to run.
    pub(super) fn place(&self, folder: &Path) -> PathBuf {
        match self {
            Self::Fork { .. } => folder.to_owned(),
            Self::Systemd { .. } => unit::place(&folder.file_name().unwrap_or_default().to_string_lossy()),
        }
    }

    /// Opens what agents read of `state`, where they have accounts of their own. The names in it are digests, which nobody guesses.
    pub(super) fn open(&self, state: &Path) -> io::Result<()> {
        if let Self::Systemd { .. } = self {
            for name in ["releases", "artifacts"] {
                let path = state.join(name);
                fs::create_dir_all(&path)?;
                fs::set_permissions(&path, Permissions::from_mode(0o711))?;
            }
        }
        Ok(())
    }

    /// Starts the keeper of a folder, unless the one that is meant runs.
    pub(super) fn start(&self, folder: &Path, spec: &Spec) -> Result<(), Trouble> {
        match self {
            Self::Fork { keeper } => self.start_process(keeper, folder, spec),
            Self::Systemd { .. } => self.start_unit(folder, spec),
        }
    }

    /// Has the keeper of a folder go on as the program that is installed now, where that is another one. Its agent does not notice.
    pub(super) fn renew(&self, folder: &Path, spec: &Spec) -> Result<(), ClientError> {
        let (Self::Fork { keeper: installed } | Self::Systemd { keeper: installed }) = self;
        let keeper = Client::connect_to(&self.place(folder), Some(spec.epoch), &launch_of(spec))?;
        if keeper.is_outdated(installed) {
            let before = keeper.identity().keeper.clone();
            let after = keeper.upgrade(installed, spec.epoch)?;
            tracing::info!(folder = %folder.display(), %before, after = %after.identity().keeper, "its keeper is upgraded");
        }
        Ok(())
    }

    /// Ends whatever was started for a folder, and the folder.
    pub(super) fn end(&self, folder: &Path, epoch: u64, patience: Duration) -> Result<(), String> {
        if !folder.exists() {
            return Ok(());
        }
        let place = self.place(folder);
        let asked = Client::connect(&place, Some(epoch)).and_then(|mut keeper| keeper.stop(None, patience));
        match (self, asked) {
            (Self::Fork { .. }, Ok(_) | Err(ClientError::Unreachable { .. })) => end_processes(folder)?,
            (Self::Fork { .. }, Err(error)) => return Err(told(&error)),
            (Self::Systemd { .. }, asked) => {
                // The keeper has the account of its agent: where it does not do it, its unit does.
                if let Err(error) = asked {
                    tracing::debug!(error = %told(&error), "the keeper was not asked to stop");
                }
                end_unit(folder)?;
            }
        }
        sys::remove_tree(folder).map_err(|error| format!("cannot remove `{}`: {error}", folder.display()))
    }

    fn start_process(&self, program: &Path, folder: &Path, spec: &Spec) -> Result<(), Trouble> {
        let failed = |what: &str, why: String| Trouble::machine(format!("cannot {what} `{}`: {why}", folder.display()));
        make(folder, 0o700).map_err(|error| failed("make", error.to_string()))?;
        let standing = folder::look(folder, Some((&spec.instance, &spec.nonce)));
        match standing.map_err(|error| failed("look at", error.to_string()))? {
            // What its file says, it says itself as well. One that is slow to answer is asked again by whoever follows it.
            Standing::Running(_) => match Client::connect_to(folder, None, &launch_of(spec)) {
                Err(error @ (ClientError::Another { .. } | ClientError::Nonsense { .. })) => {
                    return Err(failed("trust who answers in", format!("{}; {WAY_OUT}", told(&error))));
                }
                Ok(_) | Err(_) => return Ok(()),
            },
            // The keeper of an earlier Pod of this name, or one that is just beginning.
            Standing::Unexplained { why, .. } => self
                .end_in_the_way(folder, spec)
                .map_err(|error| failed("clear", format!("{why}; {error}; {WAY_OUT}")))?,
            Standing::Dead { .. } if Spec::read(folder).is_ok_and(|old| old.nonce != spec.nonce) => {
                self.end_in_the_way(folder, spec).map_err(|error| failed("clear", error))?;
            }
            Standing::Dead { .. } | Standing::OtherBoot { .. } => {}
        }
        spec.write(folder).map_err(|error| failed("write into", told(&error)))?;
        match client::start(program, folder) {
            Ok(_) => Ok(()),
            Err(error @ ClientError::Program { .. }) => Err(Trouble::machine(told(&error))),
            Err(error) => Err(Trouble::machine(format!("its keeper does not begin: {}", told(&error)))),
        }
    }

    fn start_unit(&self, folder: &Path, spec: &Spec) -> Result<(), Trouble> {
        let failed = |what: &str, why: String| Trouble::machine(format!("cannot {what} `{}`: {why}", folder.display()));
        let agent = agent_of(spec).map_err(Trouble::machine)?;
        if !Path::new(UNITS).join(unit::template(&agent)).exists() {
            return Err(Trouble::not_enrolled(&agent));
        }
        match Client::connect(&self.place(folder), None) {
            Ok(keeper) if keeper.identity().nonce == spec.nonce => return Ok(()),
            Ok(_) => self.end_in_the_way(folder, spec).map_err(|error| failed("clear", error))?,
            Err(_) => {}
        }
        // Its unit sees this folder alone of all, and nobody else gets as far as here.
        make(folder, 0o755).map_err(|error| failed("make", error.to_string()))?;
        spec.write(folder).map_err(|error| failed("write into", told(&error)))?;
        let readable = fs::set_permissions(folder.join(FILE), Permissions::from_mode(0o644));
        readable.map_err(|error| failed("write into", error.to_string()))?;
        link_logs(folder, spec).map_err(|error| failed("link the logs of", error.to_string()))?;
        match systemctl::start(&unit::unit(&agent, &spec.instance)) {
            Ok(()) => Ok(()),
            Err(error) if error.is_refusal() => Err(Trouble::not_allowed(&agent, &error.to_string())),
            Err(error) => Err(Trouble::machine(format!("its unit does not start: {error}"))),
        }
    }

    fn end_in_the_way(&self, folder: &Path, spec: &Spec) -> Result<(), String> {
        self.end(folder, spec.epoch, CLEAR)?;
        make(folder, 0o700).map_err(|error| error.to_string())
    }
}

/// What is left of an agent whose keeper is gone.
fn end_processes(folder: &Path) -> Result<(), String> {
    let left = folder::end_orphans(folder, Duration::from_secs(5)).map_err(|error| told(&error))?;
    if left.is_empty() { Ok(()) } else { Err(format!("{} of its processes live on", left.len())) }
}

/// Shows the instance's logs among those of the machine. They are its account's own: root reads them.
fn link_logs(folder: &Path, spec: &Spec) -> io::Result<()> {
    let Some(state) = folder.parent().and_then(Path::parent) else { return Ok(()) };
    let logs = state.join("logs").join(&spec.agent);
    fs::create_dir_all(&logs)?;
    match std::os::unix::fs::symlink(unit::logs(&spec.instance), logs.join(&spec.instance)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The unit itself, whose whole cgroup goes with it.
fn end_unit(folder: &Path) -> Result<(), String> {
    let unit = match Spec::read(folder) {
        Ok(spec) => unit::unit(&agent_of(&spec)?, &spec.instance),
        // Nothing was started in a folder that has no spec yet.
        Err(error) if !folder.join(FILE).exists() => {
            tracing::debug!(error = %told(&error), "there is nothing to end");
            return Ok(());
        }
        Err(error) => return Err(told(&error)),
    };
    let ended = systemctl::runs(&unit).and_then(|runs| if runs { systemctl::stop(&unit) } else { Ok(()) });
    ended.map_err(|error| error.to_string())
}

/// The agent of a process: a worker runs in its agent's unit.
fn agent_of(spec: &Spec) -> Result<AgentName, String> {
    let name = spec.agent.split("--").next().unwrap_or_default();
    name.parse().map_err(|error| format!("`{}` has no unit: {error}", spec.instance))
}

/// Makes a folder with that mode, whatever this process's mask is.
fn make(folder: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(mode))
}

// === impl Trouble ===

impl Trouble {
    fn not_enrolled(agent: &AgentName) -> Self {
        Self::machine(format!("the agent is not enrolled on this machine: `backstay host enrol {agent}` as root"))
    }

    fn not_allowed(agent: &AgentName, why: &str) -> Self {
        Self::machine(format!(
            "the agent is not enrolled for this account ({why}): `backstay host enrol {agent}` as root"
        ))
    }
}
