//! The figures behind a verdict, for people and for the ledger.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bank::SafetyBank;
use super::binary::Line;
use super::interval;
use super::latency::{at_or_below, raised};
use super::limit::{safe_bets, share};
use super::mean::Side;
use super::measure::{Arms, Count, Measured};
use super::need::Growth;
use super::spec::{Kind, Metric, Spec};
use super::track::{Learned, Track};
use super::verdict::Judge;
use crate::model::Timestamp;

/// No evidence is written larger than this.
const MOST: f64 = 1e300;
/// Values of an arm before the difference of means has an interval.
const ENOUGH: f64 = 50.0;

/// What a verdict was decided by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// All evidence of harm together.
    pub harm: f64,
    /// From where on it is shown.
    pub harm_needed: f64,
    /// From where on no harm is shown, for each metric.
    pub no_harm_needed: f64,
    /// Since when the step runs.
    pub since: Timestamp,
    /// The number of the step, from 0.
    pub step: usize,
    /// By metric.
    pub metrics: BTreeMap<String, MetricFigures>,
}

/// The figures of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricFigures {
    /// Of the candidate, since the start.
    pub candidate: Option<ArmFigures>,
    /// Of stable, over the same time.
    pub stable: Option<ArmFigures>,
    /// The difference of the means and its interval.
    pub difference: Option<(f64, (f64, f64))>,
    /// Requests of the candidate in this step.
    pub in_step: u64,
    /// Evidence that it is worse than stable.
    pub harm: Option<f64>,
    /// Evidence that it breaks its limit.
    pub over_limit: Option<f64>,
    /// Evidence that it is within the margin of this step.
    pub no_harm: Option<f64>,
    /// Evidence that it keeps the limit of this step.
    pub within_limit: Option<f64>,
    /// Both releases are over the limit, so that it says nothing.
    pub muted: bool,
    /// By how much evidence is lowered because stable's instances differ.
    pub guard: f64,
    /// Why the last measurement is none.
    pub no_data: Option<String>,
    /// When the last measurement ended.
    pub measured: Option<Timestamp>,
}

/// The figures of one arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmFigures {
    /// Requests, or values.
    pub n: u64,
    /// Bad events, or requests that are slow: above `slow_above`.
    pub x: Option<u64>,
    /// What counts as slow.
    pub slow_above: Option<f64>,
    /// The rate or the mean.
    pub value: Option<f64>,
    /// Where the rate or the quantile is, at all times together; an open end is nothing.
    pub interval: Option<(Option<f64>, Option<f64>)>,
}

pub(super) fn figures(judge: &Judge, ln_total: f64, muted: &[&str], now: Timestamp) -> Figures {
    let spec = judge.spec();
    let of = |(name, metric, track): (&str, &Metric, &Track)| {
        (name.to_owned(), MetricFigures::of(spec, judge.step(), metric, track, muted.contains(&name), now))
    };
    Figures {
        harm: bounded(ln_total),
        harm_needed: 1.0 / spec.alpha,
        no_harm_needed: 1.0 / spec.beta,
        since: judge.since(),
        step: judge.step(),
        metrics: judge.tracks().map(of).collect(),
    }
}

// === impl Figures ===

impl Figures {
    /// Whether the evidence of harm is larger than any that is written.
    pub fn is_beyond_measure(&self) -> bool {
        self.harm >= MOST
    }
}

// === impl MetricFigures ===

impl MetricFigures {
    fn of(spec: &Spec, step: usize, metric: &Metric, track: &Track, muted: bool, now: Timestamp) -> Self {
        let arm = |measured: &Measured| ArmFigures::of(measured, metric, track, spec.alpha);
        let stale = track.last_end().is_some_and(|end| now.duration_since(end) > metric.stale_after);
        Self {
            candidate: track.total.as_ref().map(|total| arm(&total.candidate)),
            stable: track.total.as_ref().map(|total| arm(&total.stable)),
            difference: difference(track, metric, spec.alpha),
            in_step: track.in_step,
            harm: track.harm.as_ref().map(|bank| bounded(bank.ln_e())),
            over_limit: track.limit.as_ref().map(|limit| bounded(limit.harm.ln_e())),
            no_harm: track.safe.get(step).map(|bank| bounded(bank.ln_e())),
            within_limit: track.limit.as_ref().and_then(|limit| limit.safe.get(step)).map(|bank| bounded(bank.ln_e())),
            muted,
            guard: track.phi(),
            no_data: track.problem.as_ref().map(ToString::to_string).or_else(|| stale.then(|| "stale".to_owned())),
            measured: track.last_end(),
        }
    }
}

// === impl ArmFigures ===

impl ArmFigures {
    fn of(measured: &Measured, metric: &Metric, track: &Track, alpha: f64) -> Self {
        let n = measured.n();
        match measured {
            Measured::Binary(count) => {
                let (low, high) = interval::rate(*count, alpha);
                let interval = Some((Some(low), Some(high)));
                Self { n, x: Some(count.x()), slow_above: None, value: count.rate(), interval }
            }
            Measured::Mean(moments) => {
                let value = moments.mean().map(|mean| if metric.higher_is_better { -mean } else { mean });
                Self { n, x: None, slow_above: None, value, interval: None }
            }
            Measured::Latency(histogram) => {
                let boundary = track.learned().latencies().and_then(super::latency::Latencies::chosen);
                let slow = boundary.map(|boundary| histogram.above(boundary));
                let quantile = if let Kind::Latency { quantile } = metric.kind { quantile } else { 0.5 };
                Self {
                    n,
                    x: slow.map(Count::x),
                    slow_above: boundary.and_then(|boundary| histogram.boundaries().get(boundary).copied()),
                    value: slow.and_then(Count::rate),
                    interval: Some(interval::quantile(histogram, quantile, alpha)),
                }
            }
        }
    }
}

fn difference(track: &Track, metric: &Metric, alpha: f64) -> Option<(f64, (f64, f64))> {
    let Learned::Mean { spread, difference } = track.learned() else { return None };
    if spread.candidate.n() < ENOUGH || spread.stable.n() < ENOUGH {
        return None;
    }
    let (middle, half) = difference.interval(alpha)?;
    let middle = if metric.higher_is_better { -middle } else { middle };
    Some((middle, (middle - half, middle + half)))
}

fn bounded(ln_e: f64) -> f64 {
    ln_e.exp().min(MOST)
}

/// Whether the buckets are too coarse to show that a candidate is within a factor.
pub(super) fn is_coarse(track: &Track, line: Line) -> bool {
    let Some(latencies) = track.learned().latencies() else { return false };
    let Some((boundary, past)) = latencies.chosen().zip(latencies.past()) else { return false };
    raised(past.stable.boundaries(), boundary, line.ratio).is_none()
}

/// About how many requests of the candidate a comparison still needs, if it is as good as stable.
pub(super) fn more_compared(spec: &Spec, step: usize, metric: &Metric, track: &Track, line: Line) -> Option<u64> {
    let bank = track.safe.get(step)?;
    let weight = spec.steps.get(step)?.weight;
    let bets = safe_bets(metric.kind);
    let growth = match (track.learned(), track.total.as_ref()?) {
        (Learned::Binary(_), Arms { candidate: Measured::Binary(candidate), stable: Measured::Binary(stable) }) => {
            let rate = smoothed(candidate.plus(*stable));
            Growth::two_arms((rate, rate), weight, line, bets, metric.kind == Kind::Binary { common: true })
        }
        (Learned::Latency(latencies), _) => {
            let (boundary, past) = latencies.chosen().zip(latencies.past())?;
            let above = raised(past.stable.boundaries(), boundary, line.ratio)?;
            let rates = (smoothed(past.stable.above(above)), smoothed(past.stable.above(boundary)));
            Growth::two_arms(rates, weight, Line::EQUAL, bets, false)
        }
        (Learned::Mean { spread, .. }, _) => {
            let (mean, variance) = (spread.stable.mean()?, spread.stable.variance()?);
            Growth::means((mean, mean), variance.sqrt(), weight, line, Side::NoHarm, bets)?
        }
        (Learned::Binary(_), _) => return None,
    };
    more(&growth, bank, spec, track)
}

/// About how many requests of the candidate a limit still needs, if it goes on as it is.
pub(super) fn more_limited(spec: &Spec, metric: &Metric, track: &Track, bank: &SafetyBank, limit: f64) -> Option<u64> {
    let count = match &track.total.as_ref()?.candidate {
        Measured::Binary(count) => *count,
        Measured::Latency(histogram) => histogram.above(at_or_below(histogram.boundaries(), limit)?),
        Measured::Mean(_) => return None,
    };
    let growth = Growth::one_arm(smoothed(count), share(metric.kind, limit), safe_bets(metric.kind));
    more(&growth, bank, spec, track)
}

fn more(growth: &Growth, bank: &SafetyBank, spec: &Spec, track: &Track) -> Option<u64> {
    growth.until(bank.ln_wealth(), -spec.beta.ln(), 0.0, track.phi())
}

fn smoothed(count: Count) -> f64 {
    (count.x_real() + 0.5) / (count.n_real() + 1.0)
}
