//! Finds keepers by the folders of their instances, and tells which of them are who was launched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::file;
use super::spec::Spec;
use super::wire::{Identity, Status};
use crate::sys::{self, LockError, ProcessId, Word};

pub(super) const LOCK: &str = "lock";
pub(super) const KEEPER: &str = "keeper.json";
pub(super) const STATE: &str = "state.json";
pub(super) const PIPE: &str = "log";
/// Bytes of what a keeper writes of itself.
const LONGEST: u64 = 64 << 10;

/// One folder of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The folder. Its name is the instance.
    pub folder: PathBuf,
    /// Who is there.
    pub standing: Standing,
}

/// Who is in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The keeper that was launched: instance, nonce, boot and process are as they should be, and it holds the lock.
    Running(Identity),
    /// Nobody, since the machine started. An agent that its keeper has left behind may run: a new keeper takes it over, or
    /// [`end_orphans`] ends it.
    Dead {
        /// That agent's first process.
        agent: Option<ProcessId>,
        /// What was last known.
        last: Option<Status>,
    },
    /// Nobody: the last keeper was of another boot, and with the machine everything has ended.
    OtherBoot {
        /// What was last known.
        last: Option<Status>,
    },
    /// Somebody holds the folder who is not explained. One that is just beginning looks like that for a moment.
    Unexplained {
        /// Why.
        why: String,
        /// Who it says it is.
        keeper: Option<Identity>,
    },
}

/// Looks at all folders of instances beneath `root`, with the nonces of the launches that are meant, by instance.
pub fn find(root: &Path, intents: &BTreeMap<String, String>) -> io::Result<Vec<Found>> {
    let mut found = vec![];
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let intent = intents.get(&name).map(|nonce| (name.as_str(), nonce.as_str()));
            found.push(Found { standing: look(&entry.path(), intent)?, folder: entry.path() });
        }
    }
    found.sort_by(|one, other| one.folder.cmp(&other.folder));
    Ok(found)
}

/// Looks at one folder. `intent` is the instance and the nonce of the launch that is meant.
pub fn look(folder: &Path, intent: Option<(&str, &str)>) -> io::Result<Standing> {
    let boot = sys::boot_id()?;
    let keeper: Option<Identity> = parse(&folder.join(KEEPER));
    let last = state(folder);
    if !is_held(folder)? {
        let of_this_boot = |other: &str| other == boot;
        if keeper.as_ref().is_some_and(|keeper| !of_this_boot(&keeper.boot)) {
            return Ok(Standing::OtherBoot { last });
        }
        let agent = last.as_ref().filter(|last| of_this_boot(&last.boot)).and_then(|last| last.agent);
        let lives = |agent: &ProcessId| sys::process(agent.pid).is_ok_and(|found| found == Some(*agent));
        return Ok(Standing::Dead { agent: agent.filter(lives), last });
    }
    let Some(identity) = keeper else {
        let why = format!("`{}` is held by a keeper that has not said who it is", folder.display());
        return Ok(Standing::Unexplained { why, keeper });
    };
    let named = |instance: &str, nonce: &str| format!("instance `{instance}`, launch `{nonce}`");
    let is = named(&identity.instance, &identity.nonce);
    let why = match intent {
        None => Some(format!("{is}, was not meant to run")),
        Some((instance, nonce)) if (instance, nonce) != (&identity.instance, &identity.nonce) => {
            Some(format!("{} was meant to run, not {is}", named(instance, nonce)))
        }
        Some(_) if identity.boot != boot => Some(format!("{is}, is of another boot, and yet the folder is held")),
        Some(_) if sys::process(identity.process.pid)? != Some(identity.process) => {
            Some(format!("{is}, does not run, and yet the folder is held"))
        }
        Some(_) => None,
    };
    Ok(match why {
        Some(why) => Standing::Unexplained { why, keeper: Some(identity) },
        None => Standing::Running(identity),
    })
}

/// Ends what is left of an agent whose keeper has died: SIGTERM, after `grace` SIGKILL, until nothing is found.
///
/// Returns the processes that are still there ten seconds later. An error if a keeper holds the folder.
pub fn end_orphans(folder: &Path, grace: Duration) -> Result<Vec<ProcessId>, LockError> {
    let refused = |source: io::Error| LockError::Refused { folder: folder.to_owned(), source };
    let lock = sys::lock_folder(folder, LOCK)?;
    let boot = sys::boot_id().map_err(refused)?;
    let last = state(folder).filter(|last| last.boot == boot);
    let mark = match (Spec::read(folder), &last) {
        (Ok(spec), _) => Some(spec.mark()),
        (Err(_), Some(last)) => Some(format!("BACKSTAY_INSTANCE={}:{}", last.instance, last.nonce)),
        (Err(_), None) => None,
    };
    let agent = last.and_then(|last| last.agent);
    let kill_at = Instant::now() + grace;
    let mut told = BTreeSet::new();
    let left = loop {
        let left = orphans(agent, mark.as_deref()).map_err(refused)?;
        let now = Instant::now();
        if left.is_empty() || now > kill_at + Duration::from_secs(10) {
            break left;
        }
        for process in &left {
            if now >= kill_at {
                let _ = sys::signal(*process, Word::Kill);
            } else if told.insert(*process) {
                let _ = sys::signal(*process, Word::Term);
                let _ = sys::signal(*process, Word::Cont);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    drop(lock);
    Ok(left.into_iter().collect())
}

fn orphans(agent: Option<ProcessId>, mark: Option<&str>) -> io::Result<BTreeSet<ProcessId>> {
    let mut left: BTreeSet<ProcessId> = BTreeSet::new();
    if let Some(agent) = agent
        && sys::process(agent.pid)? == Some(agent)
    {
        left.insert(agent);
        left.extend(sys::descendants(agent.pid)?);
    }
    if let Some(mark) = mark {
        left.extend(sys::marked(mark)?);
    }
    Ok(left)
}

/// Where the agent stood when that was last written down; none if it was not, or not as a keeper would.
pub fn state(folder: &Path) -> Option<Status> {
    parse(&folder.join(STATE))
}

/// An error with all that is behind it, on one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        text.push_str(": ");
        text.push_str(&error.to_string());
        behind = error.source();
    }
    text
}

/// Whether a keeper holds the lock. The look itself holds it for a moment, which a keeper that begins waits for.
fn is_held(folder: &Path) -> io::Result<bool> {
    if !fs::exists(folder.join(LOCK))? {
        return Ok(false);
    }
    match sys::lock_folder(folder, LOCK) {
        Ok(_) => Ok(false),
        Err(LockError::Held(_)) => Ok(true),
        Err(LockError::Refused { source, .. }) => Err(source),
        Err(error @ LockError::Network { .. }) => Err(io::Error::other(error.to_string())),
    }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&file::read(path, LONGEST).ok()?).ok()
}
