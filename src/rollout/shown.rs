//! What people are shown of a rollout beside its phase.

use std::collections::BTreeSet;

use super::{Instances, Person, Rollout, Routes, Sides, Way};

impl Rollout {
    /// Forward or back.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Instances that are ready; nothing: nobody has looked yet.
    pub fn ready(&self) -> Option<&Sides<Instances>> {
        self.was_seen.then_some(&self.ready)
    }

    /// What the route said last; nothing: it said nothing, or there is none.
    pub fn in_force(&self) -> Option<Routes> {
        self.in_force
    }

    /// People who must agree.
    pub fn approvals(&self) -> u32 {
        self.approvals
    }

    /// Those who agreed.
    pub fn approved(&self) -> &BTreeSet<Person> {
        &self.approved
    }
}
