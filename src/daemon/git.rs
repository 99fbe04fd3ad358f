//! The config repository as all environments share it: one mirror, one poller, and what each environment follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::config::{self, Config, ConfigError};
use crate::model::{CommitId, EnvironmentName, Revision};
use crate::source::{
    Auth, Hinter, InvalidUrl, Mirror, MovePolicy, Poller, Rewind, Secret, SourceConfig, SourceError, SourceStatus,
    SshKey, SystemClock, Track, Wishes,
};

/// The config repository, kept current by a thread of its own.
pub(crate) struct Git {
    pub(crate) mirror: Arc<Mirror>,
    poller: Poller,
    wishes: Mutex<BTreeMap<EnvironmentName, Wish>>,
    rewind: Rewind,
}

/// What one environment wants to know of the remote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// What it follows, with the revision that was accepted last.
    pub(crate) tracks: Vec<(Track, Option<Revision>)>,
    pub(crate) pins: BTreeSet<CommitId>,
    /// Commits that a person accepted, whatever way leads there.
    pub(crate) accepted: BTreeSet<CommitId>,
}

/// The config repository cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Its address is wrong.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// A secret cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The mirror cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
}

// === impl GitError ===

impl GitError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Url(_) => None,
            Self::Config(error) => error.hint(),
            Self::Source(error) => error.hint(),
        }
    }
}

/// How the source is reached, as the configuration has it.
pub(crate) fn source(config: &Config) -> Result<SourceConfig, GitError> {
    let from = &config.source;
    let mut source = SourceConfig::new(from.url.url().parse()?);
    source.branch.clone_from(&from.branch);
    source.interval = from.interval.0;
    source.limits.whole = from.timeout.0;
    source.ca_file.clone_from(&from.ca_file);
    source.rewind = match from.rewind {
        config::Rewind::Refuse => Rewind::Refuse,
        config::Rewind::Accept => Rewind::Accept,
    };
    let from_file = |file: &Option<std::path::PathBuf>, given: &Option<config::Secret>| match (file, given) {
        (_, Some(given)) => Some(Secret::Value(given.expose().to_owned())),
        (Some(file), None) => Some(Secret::File(file.clone())),
        (None, None) => None,
    };
    let token = from_file(&from.token_file, &from.token);
    let password = from_file(&from.password_file, &from.password);
    source.auth = match (token, password, &from.ssh_key, &from.known_hosts) {
        (Some(token), _, _, _) => Auth::Token(token),
        (None, Some(password), _, _) => {
            Auth::Basic { username: from.username.clone().unwrap_or_else(|| "git".to_owned()), password }
        }
        (None, None, Some(key), Some(known_hosts)) => {
            Auth::Ssh(SshKey { key: key.clone(), passphrase: None, known_hosts: known_hosts.clone() })
        }
        (None, None, _, _) => Auth::None,
    };
    Ok(source)
}

// === impl Git ===

impl Git {
    /// Opens the mirror and starts the poller.
    pub(crate) fn start(config: &Config, seed: u64) -> Result<Self, GitError> {
        let source = source(config)?;
        let rewind = source.rewind;
        let mirror = Arc::new(Mirror::open(config.state.folder.join("source"), source)?);
        let poller = Poller::start(Arc::clone(&mirror), Wishes::default(), seed, Arc::new(SystemClock))?;
        Ok(Self { mirror, poller, wishes: Mutex::default(), rewind })
    }

    pub(crate) fn branch(&self) -> &str {
        &self.mirror.config().branch
    }

    pub(crate) fn hinter(&self) -> Hinter {
        self.poller.hinter()
    }

    pub(crate) fn status(&self) -> watch::Receiver<Arc<SourceStatus>> {
        self.poller.status()
    }

    /// Asks for a look now; gives the round that will have begun after this call.
    pub(crate) fn look(&self) -> u64 {
        self.poller.look()
    }

    /// Changes what an environment wants to know; gives the round that answers it, if it is another wish.
    pub(crate) fn wish(&self, environment: &EnvironmentName, wish: Wish) -> Option<u64> {
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if wishes.get(environment) == Some(&wish) {
            return None;
        }
        wishes.insert(environment.clone(), wish);
        let mut all = Wishes::default();
        all.policy = MovePolicy { rewind: self.rewind, accepted: BTreeSet::new() };
        for (environment, wish) in &*wishes {
            for (track, last) in &wish.tracks {
                all.tracks.insert(key(environment, track), (track.clone(), last.clone()));
            }
            all.pins.extend(wish.pins.iter().cloned());
            all.policy.accepted.extend(wish.accepted.iter().cloned());
        }
        self.poller.wish(all);
        Some(self.poller.look())
    }
}

/// The name of a track of one environment, in wishes and in what they came to.
pub(crate) fn key(environment: &EnvironmentName, track: &Track) -> String {
    format!("{environment}/{}", track.key())
}
