//! All that was seen of one agent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{GroupKind, LiveObject, ObjectRef};

/// What was seen of the objects that are an agent's by label or inventory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveState {
    /// By identity, pods and replica sets included.
    pub objects: BTreeMap<ObjectRef, Arc<LiveObject>>,
    /// Kinds that could not be listed whole, with why: nothing of them is known to be gone.
    pub unseen: BTreeMap<GroupKind, String>,
    /// Whether the first list of every kind is there.
    pub synced: bool,
}

// === impl LiveState ===

impl LiveState {
    /// The objects of one kind.
    pub fn of_kind<'a>(&'a self, group: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Arc<LiveObject>> {
        self.objects
            .iter()
            .filter(move |(object, _)| object.group == group && object.kind == kind)
            .map(|(_, live)| live)
    }

    /// Kinds of `objects` that were not seen whole.
    pub fn unseen_among<'a>(&self, objects: impl IntoIterator<Item = &'a ObjectRef>) -> BTreeSet<GroupKind> {
        let kinds: BTreeSet<_> = objects.into_iter().map(ObjectRef::group_kind).collect();
        kinds.into_iter().filter(|kind| self.unseen.contains_key(kind)).collect()
    }
}
