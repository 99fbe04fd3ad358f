//! Whether the daemon is ready, as its tasks report it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::EnvironmentName;

/// Shared between the daemon's tasks, which set it, and the HTTP server, which shows it.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    git: bool,
    ledgers: BTreeMap<EnvironmentName, bool>,
}

/// What readiness still waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingFor {
    /// The first look at the config repository.
    Git,
    /// The ledger of an environment cannot be reached.
    Ledger(EnvironmentName),
}

// === impl Status ===

impl Status {
    /// Expects the ledgers of these environments; none of them is reachable yet.
    pub fn serving(environments: impl IntoIterator<Item = EnvironmentName>) -> Self {
        let ledgers = environments.into_iter().map(|environment| (environment, false)).collect();
        Self(Arc::new(Mutex::new(Seen { git: false, ledgers })))
    }

    /// The first look at Git is done: it stays so, since what was seen is served on while Git is away.
    pub fn git_seen(&self) {
        self.with(|seen| seen.git = true);
    }

    /// Whether the ledger of `environment` can be reached.
    pub fn ledger(&self, environment: &EnvironmentName, reachable: bool) {
        self.with(|seen| seen.ledgers.insert(environment.clone(), reachable));
    }

    /// What readiness still waits for; empty: ready.
    pub fn waiting(&self) -> Vec<WaitingFor> {
        self.with(|seen| {
            let git = (!seen.git).then_some(WaitingFor::Git);
            let away = seen.ledgers.iter().filter(|(_, reachable)| !**reachable);
            git.into_iter().chain(away.map(|(environment, _)| WaitingFor::Ledger(environment.clone()))).collect()
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Git => f.write_str("waiting for the first look at the config repository"),
            Self::Ledger(environment) => write!(f, "waiting for the ledger of `{environment}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_git_seen_once_and_every_ledger_reachable() {
        let name: EnvironmentName = "production".parse().expect("a name");
        let status = Status::serving([name.clone()]);
        assert_eq!(status.waiting(), [WaitingFor::Git, WaitingFor::Ledger(name.clone())]);
        status.git_seen();
        status.ledger(&name, true);
        assert_eq!(status.waiting(), []);
        status.ledger(&name, false);
        assert_eq!(status.waiting()[0].to_string(), "waiting for the ledger of `production`");
    }
}
