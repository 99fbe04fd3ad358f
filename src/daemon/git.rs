//! The config repository as all environments share it: one mirror, one poller, and what each environment follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::config::Config;
use crate::model::{CommitId, EnvironmentName, Revision};
use crate::source::{
    Hinter, Mirror, MovePolicy, Poller, Rewind, SignError, SignersError, SourceError, SourceStatus, SystemClock, Track,
    Verify, Wishes,
};

/// The config repository, kept current by a thread of its own.
pub(crate) struct Git {
    pub(crate) mirror: Arc<Mirror>,
    poller: Poller,
    wishes: Mutex<BTreeMap<EnvironmentName, Wish>>,
    rewind: Rewind,
    /// What decides whether a commit may be used.
    pub(crate) verifier: Arc<dyn Verify>,
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
    /// The mirror cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Nothing could be verified.
    #[error(transparent)]
    Signers(#[from] SignersError),
    /// What is written back could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

// === impl GitError ===

impl GitError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Source(error) => error.hint(),
            Self::Signers(_) | Self::Sign(_) => None,
        }
    }
}

// === impl Git ===

impl Git {
    /// Opens the mirror and starts the poller.
    pub(crate) fn start(config: &Config, seed: u64) -> Result<Self, GitError> {
        let source = config.source.remote();
        let verifier = config.source.verifier()?;
        let rewind = source.rewind;
        let mirror = Arc::new(Mirror::open(config.state.folder.join("source"), source)?);
        let poller = Poller::start(Arc::clone(&mirror), Wishes::default(), seed, Arc::new(SystemClock))?;
        Ok(Self { mirror, poller, wishes: Mutex::default(), rewind, verifier })
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
        let policy = MovePolicy { rewind: self.rewind, accepted: BTreeSet::new() };
        let mut all = Wishes { policy, ..Wishes::default() };
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
