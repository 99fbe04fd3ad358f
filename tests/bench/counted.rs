//! Requests that were counted.

use std::collections::BTreeMap;

/// How many requests of each kind: `create configmaps`, `update agentreleases/status`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted(pub(crate) BTreeMap<String, usize>);

// === impl Counted ===

impl Counted {
    fn having(&self, wanted: impl Fn(&str, &str) -> bool) -> usize {
        let counts = self.0.iter().filter(|(what, _)| what.split_once(' ').is_some_and(|(verb, of)| wanted(verb, of)));
        counts.map(|(_, count)| count).sum()
    }

    /// Writes, of the lease too.
    pub(crate) fn writes(&self) -> usize {
        self.having(|verb, _| matches!(verb, "create" | "update" | "patch" | "delete"))
    }

    /// Writes that are neither the lease's nor the environment's.
    pub(crate) fn other_writes(&self) -> usize {
        let apart = |of: &str| of == "leases" || of.starts_with("agentenvironments");
        self.having(|verb, of| matches!(verb, "create" | "update" | "patch" | "delete") && !apart(of))
    }

    /// All but watches and what belongs to the lease.
    pub(crate) fn but_watches_and_lease(&self) -> usize {
        self.having(|verb, of| verb != "watch" && of != "leases")
    }

    /// All of them.
    pub(crate) fn all(&self) -> usize {
        self.0.values().sum()
    }
}
