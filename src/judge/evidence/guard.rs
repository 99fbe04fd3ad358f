//! The guard against instances that differ: evidence is divided by how much stable's own instances disagree.
//!
//! A candidate on two of twenty machines can look bad because its machines are. φ is the dispersion of the instances of
//! stable (Pearson's χ² over its degrees of freedom), at least one. Dividing a logarithmic gain by φ ≥ 1 keeps validity,
//! by Jensen's inequality; that it repairs unequal instances is an approximation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bank::real;
use super::latency::Latencies;
use super::mean::{Spread, dispersion};
use super::measure::{Count, Histogram, Measured};

/// Instances before the guard says anything.
pub(super) const INSTANCES: usize = 5;
/// Instances that are remembered; later ones are not.
const MOST_INSTANCES: usize = 200;

/// Buckets of all of their durations together: what is remembered is saved.
const MOST_BUCKETS: usize = 4_000;

/// What one instance did since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Seen {
    Binary(Count),
    Mean(Spread),
    Latency(Histogram),
}

/// What the instances of stable did since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Guard {
    instances: BTreeMap<String, Seen>,
}

// === impl Guard ===

impl Guard {
    /// Adds what an instance did; of another kind than before, it replaces what was known.
    pub fn add(&mut self, instance: &str, did: &Measured) {
        let most = match did {
            Measured::Latency(histogram) => MOST_INSTANCES.min(MOST_BUCKETS / histogram.counts().len().max(1)),
            Measured::Binary(_) | Measured::Mean(_) => MOST_INSTANCES,
        };
        if self.instances.len() >= most && !self.instances.contains_key(instance) {
            return;
        }
        let before = self.instances.remove(instance);
        let seen = match (before, did) {
            (Some(Seen::Binary(before)), Measured::Binary(did)) => Seen::Binary(before.plus(*did)),
            (_, Measured::Binary(did)) => Seen::Binary(*did),
            (before, Measured::Mean(did)) => {
                let mut spread = if let Some(Seen::Mean(spread)) = before { spread } else { Spread::default() };
                spread.add(did);
                Seen::Mean(spread)
            }
            (Some(Seen::Latency(before)), Measured::Latency(did)) => {
                Seen::Latency(before.plus(did).unwrap_or_else(|| did.clone()))
            }
            (_, Measured::Latency(did)) => Seen::Latency(did.clone()),
        };
        self.instances.insert(instance.to_owned(), seen);
    }

    /// The factor φ, at least one; for durations by what is above the boundary of that number.
    pub fn phi(&self, boundary: Option<usize>) -> f64 {
        let counts: Vec<Count> = self
            .instances
            .values()
            .filter_map(|seen| match seen {
                Seen::Binary(count) => Some(*count),
                Seen::Latency(histogram) => boundary.map(|boundary| histogram.above(boundary)),
                Seen::Mean(_) => None,
            })
            .filter(|count| count.n() > 0)
            .collect();
        let spreads = self.instances.values().filter_map(|seen| match seen {
            Seen::Mean(spread) => Some(spread),
            Seen::Binary(_) | Seen::Latency(_) => None,
        });
        phi(&counts).max(dispersion(spreads).unwrap_or(1.0))
    }

    /// The factor φ of a latency metric, at the boundary that it looks at.
    pub(super) fn phi_of(&self, latencies: Option<&Latencies>) -> f64 {
        if self.instances.len() < INSTANCES {
            return 1.0;
        }
        self.phi(latencies.and_then(Latencies::chosen))
    }
}

/// The factor φ of counts: from five instances and twice as many events on, otherwise one.
pub fn phi(instances: &[Count]) -> f64 {
    let all = instances.iter().fold(Count::default(), |sum, count| sum.plus(*count));
    let Some(p) = all.rate() else { return 1.0 };
    if instances.len() < INSTANCES || all.x_real() < 2.0 * real(instances.len()) {
        return 1.0;
    }
    let chi: f64 = instances
        .iter()
        .map(|count| {
            let apart = count.x_real() - count.n_real() * p;
            apart * apart / (count.n_real() * p * (1.0 - p))
        })
        .sum();
    let phi = chi / real(instances.len() - 1);
    if phi.is_finite() { phi.max(1.0) } else { 1.0 }
}
