//! How many instances each side has at a weight.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::desired::{Settings, TargetKind};
use crate::model::WorkerName;

/// Something for both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sides<T> {
    /// Of the candidate.
    pub candidate: T,
    /// Of stable.
    pub stable: T,
}

/// Instances of the agent and of its workers: wanted or ready ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instances {
    /// That take traffic.
    pub agent: u32,
    /// Of each worker.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<WorkerName, u32>,
}

/// How traffic is split between the sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Carrier {
    /// By weights of a route or a proxy: any percentage, whatever the number of instances.
    Routed,
    /// By the number of ready instances behind one address.
    Counted,
    /// Not at all: the target replaces instances in place.
    InPlace,
}

/// The candidate's part of `all` instances at a weight in percent: rounded, halves up; of more than one, each side has at
/// least one between 1 and 99 %. The rule of Argo Rollouts.
pub fn rounded(all: u32, weight: u8) -> u32 {
    let weight = u64::from(weight.min(100));
    let part = u32::try_from((u64::from(all) * weight + 50) / 100).unwrap_or(all);
    if all > 1 && (1..=99).contains(&weight) { part.clamp(1, all - 1) } else { part }
}

// === impl Carrier ===

impl Carrier {
    /// How traffic is split between two releases of an agent with such settings: on a host by its proxy, on Kubernetes by
    /// the Gateway that its route names, and without one by the number of pods.
    pub fn of(target: TargetKind, settings: &Settings) -> Self {
        match target {
            TargetKind::Host => Self::Routed,
            TargetKind::Kubernetes if settings.gateway().is_some() => Self::Routed,
            TargetKind::Kubernetes => Self::Counted,
        }
    }
}

// === impl Instances ===

impl Instances {
    /// Whether these are as many as `wanted`, of each kind.
    pub fn cover(&self, wanted: &Self) -> bool {
        let workers = wanted.workers.iter().all(|(name, count)| self.workers.get(name).is_some_and(|has| has >= count));
        self.agent >= wanted.agent && (workers || wanted.workers.values().all(|count| *count == 0))
    }

    /// What each side shall have at a weight, of so many all in all.
    ///
    /// Behind a route stable stays whole, so that the way back waits for nobody, and what serves has one instance at
    /// least. By number, the sides share them; a single one is joined by a second. Workers have no traffic: they are
    /// shared in every case. A candidate without weight, and without `least`, has nothing.
    pub fn at(&self, weight: u8, carrier: Carrier, least: u32) -> Sides<Self> {
        let workers = |part: fn(u32, u8) -> u32| -> BTreeMap<WorkerName, u32> {
            self.workers.iter().map(|(name, all)| (name.clone(), part(*all, weight))).collect()
        };
        let serves = u32::from(weight > 0 && self.agent > 0);
        let candidate = rounded(self.agent, weight).max(serves).max(least);
        let stable = match carrier {
            Carrier::Counted if weight < 100 => (self.agent - rounded(self.agent, weight).min(self.agent)).max(1),
            Carrier::Routed | Carrier::Counted | Carrier::InPlace => self.agent,
        };
        Sides {
            candidate: Self { agent: candidate, workers: workers(rounded) },
            stable: Self { agent: stable.min(self.agent), workers: workers(|all, weight| all - rounded(all, weight)) },
        }
    }

    /// None of each kind.
    #[must_use]
    pub fn none(&self) -> Self {
        Self { agent: 0, workers: self.workers.keys().map(|name| (name.clone(), 0)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_rounded_as_argo_rounds_them() {
        for (all, weight, part) in [
            (3, 5, 1),
            (10, 5, 1),
            (10, 25, 3),
            (10, 24, 2),
            (10, 99, 9),
            (10, 100, 10),
            (10, 0, 0),
            (2, 50, 1),
            (3, 50, 2),
            (1, 5, 0),
            (1, 50, 1),
            (0, 50, 0),
            (200, 1, 2),
            (10_000, 33, 3300),
        ] {
            assert_eq!(rounded(all, weight), part, "{weight} % of {all}");
        }
    }

    #[test]
    fn behind_a_route_stable_stays_whole() {
        let worker: WorkerName = "indexer".parse().expect("a name");
        let all = Instances { agent: 4, workers: BTreeMap::from([(worker.clone(), 3)]) };
        let sides = all.at(25, Carrier::Routed, 0);
        assert_eq!((sides.candidate.agent, sides.stable.agent), (1, 4));
        assert_eq!((sides.candidate.workers[&worker], sides.stable.workers[&worker]), (1, 2));
        let counted = all.at(25, Carrier::Counted, 0);
        assert_eq!((counted.candidate.agent, counted.stable.agent), (1, 3));
        assert_eq!(all.at(0, Carrier::Routed, 2).candidate.agent, 2);
        let single = Instances { agent: 1, workers: BTreeMap::new() };
        let counted = single.at(5, Carrier::Counted, 0);
        assert_eq!((counted.candidate.agent, counted.stable.agent), (1, 1));
    }
}
