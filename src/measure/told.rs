//! What is said where there is no measurement, and what a count may be.

use crate::desired::rollout::{Metric, Source};
use crate::judge::{Arms, NoData, Totals};
use crate::rollout::Measurement;

/// Letters of somebody else's text that a reason quotes.
const MAX_QUOTE: usize = 200;
/// No true count or sum is larger (2^53).
const MOST: f64 = 9_007_199_254_740_992.0;

/// No measurement, for a reason of the provider's.
pub(super) fn because(why: impl Into<String>) -> NoData {
    NoData::Provider(why.into())
}

/// The same reason for both releases, in the kind that the metric is of.
pub(super) fn nothing(metric: &Metric, why: &NoData) -> Measurement {
    match metric.source {
        Source::Value(_) => Measurement::Value(Arms { candidate: Err(why.clone()), stable: Err(why.clone()) }),
        Source::Preset(_) | Source::Rate { .. } => {
            Measurement::Counters(Arms { candidate: Err(why.clone()), stable: Err(why.clone()) })
        }
    }
}

/// Somebody else's text, short and without what a terminal would obey.
pub(super) fn quote(text: &str) -> String {
    let mut short: String = text.trim().chars().take(MAX_QUOTE).flat_map(char::escape_debug).collect();
    if text.trim().chars().count() > MAX_QUOTE {
        short.push('…');
    }
    short
}

/// A count or sum as a counter can have it.
pub(super) fn counted(value: f64) -> Result<f64, NoData> {
    if value.is_nan() {
        Err(NoData::NotANumber)
    } else if value < 0.0 {
        Err(NoData::Negative)
    } else if value > MOST {
        Err(NoData::Absurd)
    } else {
        Ok(value)
    }
}

/// A value as a gauge can have it.
pub(super) fn valued(value: f64) -> Result<f64, NoData> {
    if value.is_nan() {
        Err(NoData::NotANumber)
    } else if value.abs() > MOST {
        Err(NoData::Absurd)
    } else {
        Ok(value)
    }
}

/// Cumulative buckets, by their upper bound in seconds, as durations in milliseconds.
///
/// # Errors
///
/// Where there is no bucket without a bound, where counts fall, or where one is no count.
pub(super) fn latency(mut buckets: Vec<(f64, f64)>) -> Result<Totals, NoData> {
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) || buckets.len() < 2 {
        return Err(because("the histogram has no buckets with and without a bound"));
    }
    let mut counts = vec![];
    let mut before = 0.0;
    for (_, cumulative) in &buckets {
        let cumulative = counted(*cumulative)?;
        if cumulative < before {
            return Err(NoData::Contradiction("the buckets of the histogram fall".to_owned()));
        }
        counts.push(cumulative - before);
        before = cumulative;
    }
    let bounded = &buckets[..buckets.len() - 1];
    // What is written in decimal seconds is the same number in decimal milliseconds.
    let boundaries = bounded.iter().map(|(seconds, _)| (seconds * 1e9).round() / 1e6).collect();
    Ok(Totals::Latency { boundaries, counts })
}

/// The same shape with nothing counted.
pub(super) fn emptied(totals: &Totals) -> Totals {
    match totals {
        Totals::Binary { .. } => Totals::Binary { n: 0.0, x: 0.0 },
        Totals::Mean { squares, .. } => Totals::Mean { n: 0.0, sum: 0.0, squares: squares.map(|_| 0.0) },
        Totals::Latency { boundaries, counts } => {
            Totals::Latency { boundaries: boundaries.clone(), counts: vec![0.0; counts.len()] }
        }
    }
}
