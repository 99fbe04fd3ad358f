//! A candidate that fails flat out, and the circuit breaker: rules that need hardly any statistics.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::measure::{Count, real};

/// How many of the last requests the circuit breaker looks at.
const BREAKER: u64 = 20;

/// Whether the last `run` requests of the candidate, all failed, cannot be chance.
///
/// `seen` is how many requests the candidate has had, `stable` what stable did lately. Were the candidate no worse, a run
/// that ends at its n-th request would be that long with a chance of at most α/(10·n·(n + 1)), which adds up to α/10 over
/// all n. Silent where stable fails throughout.
pub fn is_flat_out(run: u64, seen: u64, stable: Count, alpha: f64) -> bool {
    let p = if stable.n() == 0 { 0.01 } else { ((stable.x_real() + 3.0) / (stable.n_real() + 3.0)).max(0.01) };
    if p >= 1.0 || seen == 0 {
        return false;
    }
    let n = real(seen);
    let enough = ((10.0 * n * (n + 1.0) / alpha).ln() / -p.ln()).ceil().max(3.0);
    real(run) >= enough
}

/// The candidate's requests, newest last, as far as the rules need them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recent {
    seen: u64,
    run: u64,
    last: VecDeque<Count>,
}

// === impl Recent ===

impl Recent {
    /// Adds an interval. Within it the order is not known, so a run goes on only where all requests failed, unless
    /// whoever measured says how many failed in a row up to the end.
    pub fn add(&mut self, count: Count, failing: Option<u64>) {
        if count.n() == 0 {
            return;
        }
        self.seen = self.seen.saturating_add(count.n());
        self.run = if count.x() == count.n() {
            self.run.saturating_add(count.n())
        } else {
            failing.unwrap_or(0).min(count.x())
        };
        self.last.push_back(count);
        while self.held() - self.last.front().map_or(0, |first| first.n()) >= BREAKER {
            self.last.pop_front();
        }
    }

    /// Requests so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// How many of the last ones failed in a row.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// What the circuit breaker sees, where more than half of at least the last 20 requests failed.
    pub fn broken(&self) -> Option<Count> {
        let all = self.last.iter().fold(Count::default(), |sum, count| sum.plus(*count));
        (all.n() >= BREAKER && all.x_real() > all.n_real() / 2.0).then_some(all)
    }

    fn held(&self) -> u64 {
        self.last.iter().map(|count| count.n()).sum()
    }
}
