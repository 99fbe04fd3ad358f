//! What the proxy measures of each release.

mod histogram;
mod release;
mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub use histogram::{Counted, Histogram};
pub(crate) use release::Figures;
pub use release::{Counts, KEPT_SECONDS, Second};

use crate::model::{AgentName, ReleaseId};

/// The figures of one release, shared by all who count.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Figures>);

/// The figures of all releases that had requests since the start.
///
/// A release that left the table is forgotten when nothing of it happened for [`KEPT_SECONDS`].
#[derive(Debug, Default)]
pub(crate) struct Registry {
    releases: Mutex<BTreeMap<(AgentName, ReleaseId), Arc<Shared>>>,
}

// === impl Shared ===

impl Shared {
    /// The figures, for a moment.
    pub(crate) fn read(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Registry ===

impl Registry {
    /// The figures of one release.
    pub(crate) fn of(&self, agent: &AgentName, release: &ReleaseId) -> Arc<Shared> {
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        releases.entry((agent.clone(), *release)).or_default().clone()
    }

    /// All of them, sorted; the second before this one is ended.
    pub(crate) fn all(&self) -> Vec<(AgentName, ReleaseId, Arc<Shared>)> {
        let releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        let now = second();
        let all = releases.iter().map(|((agent, release), shared)| {
            shared.read().turn(now);
            (agent.clone(), *release, shared.clone())
        });
        all.collect()
    }

    /// Forgets the releases that nobody else holds and that have no second left.
    pub(crate) fn sweep(&self) {
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        let now = second();
        releases.retain(|_, shared| {
            let mut figures = shared.read();
            figures.turn(now);
            Arc::strong_count(shared) > 1 || !figures.since(0).is_empty()
        });
    }
}

/// Seconds since 1970.
pub(crate) fn second() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
