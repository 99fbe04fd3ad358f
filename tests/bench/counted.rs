//! Requests that were counted.

use std::collections::BTreeMap;

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) count: usize,
    /// Seconds from when the API server received them until it had answered, all together; of a watch none.
    pub(crate) seconds: f64,
}

/// The requests of each kind: `create configmaps`, `update agentreleases/status`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted(pub(crate) BTreeMap<String, Tally>);

// === impl Counted ===

impl Counted {
    fn having(&self, wanted: impl Fn(&str, &str) -> bool) -> usize {
        let counts = self.0.iter().filter(|(what, _)| what.split_once(' ').is_some_and(|(verb, of)| wanted(verb, of)));
        counts.map(|(_, tally)| tally.count).sum()
    }

    /// Writes, of the lease too.
    pub(crate) fn writes(&self) -> usize {
        self.having(|verb, _| matches!(verb, "create" | "update" | "patch" | "delete"))
    }

    /// Writes that are neither the lease's nor the one of the environment that begins an epoch.
    pub(crate) fn other_writes(&self) -> usize {
        let writes = |verb: &str| matches!(verb, "create" | "update" | "patch" | "delete");
        let environment = self.having(|verb, of| writes(verb) && of.starts_with("agentenvironments"));
        let apart = self.having(|verb, of| writes(verb) && of == "leases") + environment.min(1);
        self.writes() - apart
    }

    /// All but watches and what belongs to the lease.
    pub(crate) fn but_watches_and_lease(&self) -> usize {
        self.having(|verb, of| verb != "watch" && of != "leases")
    }

    /// All of them.
    pub(crate) fn all(&self) -> usize {
        self.0.values().map(|tally| tally.count).sum()
    }

    /// Seconds that the API server worked on them, one beside the other.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.values().map(|tally| tally.seconds).sum()
    }
}
