//! Durations: which requests count as slow, and what is compared.
//!
//! A quantile is compared by counting what is above a boundary near stable's quantile. The boundary is chosen from past
//! intervals alone, which costs no validity; at stable's own quantile and ratio one, the null hypothesis is exactly that
//! the candidate's quantile is not above stable's, and drift that both share cancels.

use serde::{Deserialize, Serialize};

use super::measure::{Arms, Count, Histogram};
use crate::model::Timestamp;

/// Requests of stable before a boundary is chosen.
const ENOUGH: u64 = 200;
/// Seconds for which the choice stands.
const STANDS: i64 = 60;

/// What the past says about the durations of both releases, and the boundary chosen from it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latencies {
    /// Nothing before the first block.
    past: Option<Arms<Histogram>>,
    chosen: Option<usize>,
    since: Option<Timestamp>,
}

// === impl Latencies ===

impl Latencies {
    /// The durations of both releases so far.
    pub fn past(&self) -> Option<&Arms<Histogram>> {
        self.past.as_ref()
    }

    /// The number of the boundary above which a request is slow.
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Adds a block that was bet on. Other boundaries than before begin a new past.
    pub fn add(&mut self, block: &Arms<Histogram>) {
        let joined = self.past.take().and_then(|past| {
            let candidate = past.candidate.plus(&block.candidate)?;
            Some(Arms { candidate, stable: past.stable.plus(&block.stable)? })
        });
        if joined.is_none() {
            (self.chosen, self.since) = (None, None);
        }
        self.past = Some(joined.unwrap_or_else(|| block.clone()));
    }

    /// Chooses the boundary anew where the last choice has stood for a minute.
    pub fn choose(&mut self, quantile: f64, now: Timestamp) {
        let Some(past) = &self.past else { return };
        let stands = self.since.is_some_and(|since| now.duration_since(since).as_secs() < STANDS);
        if stands || past.stable.n() < ENOUGH {
            return;
        }
        self.chosen = nearest(&past.stable, quantile);
        self.since = Some(now);
    }

    /// Whether a block has the boundaries that the choice was made among.
    pub fn fits(&self, block: &Histogram) -> bool {
        self.past.as_ref().is_none_or(|past| past.stable.boundaries() == block.boundaries())
    }
}

/// The boundary whose share of slower requests is nearest to 1 − q in logarithm; the lower one of two that are as near.
pub fn nearest(stable: &Histogram, quantile: f64) -> Option<usize> {
    let wanted = (1.0 - quantile).ln();
    let mut best: Option<(usize, f64)> = None;
    for boundary in 0..stable.boundaries().len() {
        let above = stable.above(boundary);
        let Some(share) = above.rate().filter(|share| *share > 0.0) else { continue };
        let apart = (share.ln() - wanted).abs();
        if apart.is_finite() && best.is_none_or(|(_, nearest)| apart < nearest - 1e-12) {
            best = Some((boundary, apart));
        }
    }
    best.map(|(boundary, _)| boundary)
}

/// What to compare for harm: requests slower than the boundary.
pub fn slower(block: &Arms<Histogram>, boundary: usize) -> Arms<Count> {
    Arms { candidate: block.candidate.above(boundary), stable: block.stable.above(boundary) }
}

/// What to compare to show that the candidate is not slower by more than `factor`: stable's requests above the boundary u,
/// the candidate's above the largest boundary in (u, factor·u]. Nothing where the buckets are too coarse for that.
pub fn within(block: &Arms<Histogram>, boundary: usize, factor: f64) -> Option<Arms<Count>> {
    let raised = raised(block.candidate.boundaries(), boundary, factor)?;
    Some(Arms { candidate: block.candidate.above(raised), stable: block.stable.above(boundary) })
}

/// The largest boundary in (u, factor·u].
pub(super) fn raised(boundaries: &[f64], boundary: usize, factor: f64) -> Option<usize> {
    let most = boundaries.get(boundary)? * factor;
    (boundary + 1..boundaries.len()).take_while(|at| boundaries[*at] <= most * (1.0 + 1e-9)).last()
}

/// The first boundary at or above a limit: what is above it is too slow for sure.
pub(super) fn at_or_above(boundaries: &[f64], limit: f64) -> Option<usize> {
    boundaries.iter().position(|boundary| *boundary >= limit * (1.0 - 1e-9))
}

/// The last boundary at or below a limit: what is below it is fast enough for sure.
pub(super) fn at_or_below(boundaries: &[f64], limit: f64) -> Option<usize> {
    boundaries.iter().rposition(|boundary| *boundary <= limit * (1.0 + 1e-9))
}
