//! How many requests it takes: expected growth of the evidence, for `plan` and for what is missing.
//!
//! An estimate, not a promise: the growth of each bet per request of the candidate is taken as steady, with its variance
//! for the unlucky case. It meets what simulation finds within about an eighth.

use serde::{Deserialize, Serialize};

use super::bank::ln_sum;
use super::binary::{Common, Line, OneArm, TwoArms};
use super::latency::{nearest, raised};
use super::limit::{harm_bets, safe_bets, share};
use super::mean::{Means, Side};
use super::measure::{Count, Histogram, MOST};
use super::spec::{Kind, Metric, Spec};

/// Requests from which an expectation is read off; counts in it are rounded.
const MANY: f64 = 1e7;
/// Standard deviations from the mean for half of the cases (the first time above a height comes before the mean is there),
/// and for nineteen of twenty.
const HALF: f64 = -0.35;
const MOST_CASES: f64 = 1.3;
/// More requests than anybody has.
const NEVER: f64 = 1e12;

/// What is known of a metric before anything is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Baseline {
    /// The share of bad events, in (0, 1).
    Rate(f64),
    /// The mean of a value and its standard deviation.
    Mean {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        deviation: f64,
    },
    /// Durations of stable.
    Latency(Histogram),
}

/// How many requests of the candidate it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// In half of all cases it is enough.
    pub half: u64,
    /// In nineteen of twenty cases it is enough.
    pub most: u64,
}

/// What one step needs of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepNeed {
    /// The number of the step, from 0.
    pub step: usize,
    /// The metric.
    pub metric: String,
    /// To show no harm within the margin, where there is none; nothing: it cannot be shown.
    pub no_harm: Option<Need>,
    /// To show harm that is as large as the margin of the step; nothing: it cannot be shown.
    pub harm: Option<Need>,
}

/// Growth of each bet's logarithm per request of the candidate: its mean and its variance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Growth(Vec<(f64, f64)>);

/// How many requests each step needs of each metric whose baseline is known.
pub fn needs<'b>(spec: &Spec, baseline: impl Fn(&str) -> Option<&'b Baseline>) -> Vec<StepNeed> {
    let mut needs = vec![];
    for (step, at) in spec.steps.iter().enumerate() {
        for (name, metric) in &spec.metrics {
            let Some(baseline) = baseline(name) else { continue };
            let line = metric.margin_line(spec.next_weight(step)).filter(|_| spec.compares(step));
            let (safe, harmful) = match line {
                Some(line) => compared(metric, baseline, at.weight, line),
                None => limited(spec, step, name, metric, baseline),
            };
            // Earlier steps leave a part of the evidence of no harm.
            let carried = if step == 0 { 0.0 } else { 0.5 };
            let no_harm = safe.and_then(|growth| growth.need(1.0, (1.0 - carried) * (1.0 / spec.beta).ln()));
            let ln_needed = (1.0 / spec.alpha).ln() + f64_len(spec.metrics.len()).ln();
            let harm = harmful.and_then(|growth| growth.need(0.5, ln_needed));
            needs.push(StepNeed { step, metric: name.clone(), no_harm, harm });
        }
    }
    needs
}

/// Growth of the evidence in a comparison, of no harm where there is none, and of harm where it is on the line.
fn compared(metric: &Metric, baseline: &Baseline, weight: f64, line: Line) -> (Option<Growth>, Option<Growth>) {
    let harm_line = metric.harm_line().unwrap_or(Line::EQUAL);
    match (metric.kind, baseline) {
        (Kind::Binary { common }, Baseline::Rate(rate)) => {
            let rate = if metric.higher_is_better { 1.0 - rate } else { *rate };
            let worse = (line.ratio * rate + line.delta).min(1.0);
            let safe = Growth::two_arms((rate, rate), weight, line, safe_bets(metric.kind), common);
            (Some(safe), Some(Growth::two_arms((worse, rate), weight, harm_line, harm_bets(metric.kind), common)))
        }
        (Kind::Latency { quantile }, Baseline::Latency(histogram)) => {
            let Some(boundary) = nearest(histogram, quantile) else { return (None, None) };
            let slow = histogram.above(boundary).rate().unwrap_or(0.0);
            let above = raised(histogram.boundaries(), boundary, line.ratio);
            let above = above.and_then(|above| histogram.above(above).rate());
            let bets = safe_bets(metric.kind);
            let safe = above.map(|above| Growth::two_arms((above, slow), weight, Line::EQUAL, bets, false));
            // Durations longer by the factor: what was above u/factor is above u.
            let lowest = histogram.boundaries().get(boundary).map_or(0.0, |u| u / line.ratio);
            let slower = histogram.boundaries().iter().rposition(|at| *at <= lowest);
            let slower = slower.map_or(1.0, |at| histogram.above(at).rate().unwrap_or(1.0));
            let harm = Growth::two_arms((slower, slow), weight, harm_line, harm_bets(metric.kind), false);
            (safe, Some(harm))
        }
        (Kind::Mean, Baseline::Mean { mean, deviation }) => {
            let mean = if metric.higher_is_better { -mean } else { *mean };
            let bets = harm_bets(metric.kind);
            let safe = Growth::means((mean, mean), *deviation, weight, line, Side::NoHarm, bets);
            let worse = line.ratio * mean + line.delta;
            (safe, Growth::means((worse, mean), *deviation, weight, harm_line, Side::Harm, bets))
        }
        (Kind::Binary { .. } | Kind::Latency { .. } | Kind::Mean, _) => (None, None),
    }
}

/// Growth of the evidence about a limit: of no harm for a candidate as stable is, of harm for one at twice the limit.
fn limited(
    spec: &Spec,
    step: usize,
    name: &str,
    metric: &Metric,
    baseline: &Baseline,
) -> (Option<Growth>, Option<Growth>) {
    let Some(limit) = spec.limit(step, name).filter(|_| !spec.forbids(step, name)) else { return (None, None) };
    let rate = match (metric.kind, baseline) {
        (Kind::Binary { .. }, Baseline::Rate(rate)) => Some(if metric.higher_is_better { 1.0 - rate } else { *rate }),
        (Kind::Latency { .. }, Baseline::Latency(histogram)) => {
            super::latency::at_or_below(histogram.boundaries(), limit).and_then(|at| histogram.above(at).rate())
        }
        (Kind::Binary { .. } | Kind::Latency { .. } | Kind::Mean, _) => None,
    };
    let Some(rate) = rate else { return (None, None) };
    let allowed = share(metric.kind, limit);
    let safe = Growth::one_arm(rate, allowed, safe_bets(metric.kind));
    (Some(safe), Some(Growth::one_arm((2.0 * allowed).min(1.0), allowed, harm_bets(metric.kind))))
}

// === impl Growth ===

impl Growth {
    /// Two arms with these rates, where the candidate has `weight` of the traffic.
    pub(super) fn two_arms(rates: (f64, f64), weight: f64, line: Line, bets: &[f64], common: bool) -> Self {
        let stable = MANY * (1.0 - weight).max(1e-3) / weight.max(1e-6);
        let q_s = if rates.1 >= 0.1 && common && line.delta < 0.9 { Some(rates.1) } else { None };
        let gain = |candidate: Count, stable: Count, bet: f64| match q_s {
            Some(q_s) => Common::new(candidate, stable, line, q_s).gain(bet),
            None => TwoArms::new(candidate, stable, line).gain(bet),
        };
        Self::of(bets, (MANY, rates.0), (stable, rates.1), gain)
    }

    /// One arm with this rate against a limit of it.
    pub(super) fn one_arm(rate: f64, limit: f64, bets: &[f64]) -> Self {
        Self::of(bets, (MANY, rate), (MANY, 0.0), |candidate, _, bet| OneArm::new(candidate, limit).gain(bet))
    }

    /// Means, in blocks of twenty or more.
    pub(super) fn means(
        means: (f64, f64),
        deviation: f64,
        weight: f64,
        line: Line,
        side: Side,
        bets: &[f64],
    ) -> Option<Self> {
        let weight = weight.clamp(1e-6, 1.0 - 1e-6);
        let (n_c, n_s) = (20.0_f64.max(20.0 * weight / (1.0 - weight)), 20.0_f64.max(20.0 * (1.0 - weight) / weight));
        let variance = deviation * deviation;
        let at = |off: f64| Means::new((means.0 + off, n_c), (means.1, n_s), (variance, variance), line, side);
        let apart = (variance / n_c + line.ratio * line.ratio * variance / n_s).sqrt();
        let (low, middle, high) = (at(-apart)?, at(0.0)?, at(apart)?);
        // Two standard errors to both sides stand for the whole distribution (Gauss and Hermite, three points).
        let (far_low, far_high) = (at(-apart * 3.0_f64.sqrt())?, at(apart * 3.0_f64.sqrt())?);
        let growth = |bet: &f64| {
            let mean = (far_low.gain(*bet) + far_high.gain(*bet)) / 6.0 + middle.gain(*bet) * 2.0 / 3.0;
            let slope = (high.gain(*bet) - low.gain(*bet)) / 2.0;
            (mean / n_c, slope * slope / n_c)
        };
        Some(Self(bets.iter().map(growth).collect()))
    }

    /// Reads the growth off one large block: gains are linear in all counts.
    fn of(bets: &[f64], candidate: (f64, f64), stable: (f64, f64), gain: impl Fn(Count, Count, f64) -> f64) -> Self {
        let count = |n: f64, events: f64| Count::read(n.min(1e15), events.min(n)).unwrap_or_default();
        let events = (candidate.0 * candidate.1, stable.0 * stable.1);
        let (ours, theirs) = (count(candidate.0, events.0), count(stable.0, events.1));
        // How much a tenth of the requests turning bad would change.
        let tenth = (candidate.0 / 10.0, stable.0 / 10.0);
        let more = |n: f64, events: f64, tenth: f64| if events + tenth <= n { tenth } else { -tenth };
        let (more_ours, more_theirs) = (more(candidate.0, events.0, tenth.0), more(stable.0, events.1, tenth.1));
        let growth = |bet: &f64| {
            let at = gain(ours, theirs, *bet);
            let per_ours = (gain(count(candidate.0, events.0 + more_ours), theirs, *bet) - at) / more_ours;
            let per_theirs = (gain(ours, count(stable.0, events.1 + more_theirs), *bet) - at) / more_theirs;
            let variance = |events: f64, rate: f64, per: f64| events * (1.0 - rate) * per * per;
            let spread = variance(events.0, candidate.1, per_ours) + variance(events.1, stable.1, per_theirs);
            (at / MANY, spread / MANY)
        };
        Self(bets.iter().map(growth).collect())
    }

    /// Requests until a fresh bank with that part of the money reaches a total.
    pub(super) fn need(&self, money: f64, ln_needed: f64) -> Option<Need> {
        let start = vec![(money / f64_len(self.0.len())).ln(); self.0.len()];
        Some(Need {
            half: self.until(&start, ln_needed, HALF, 1.0)?,
            most: self.until(&start, ln_needed, MOST_CASES, 1.0)?,
        })
    }

    /// Requests until bets with that wealth reach a total, `unlucky` standard deviations from the mean, where all gains are
    /// divided by φ.
    pub(super) fn until(&self, ln_wealth: &[f64], ln_needed: f64, unlucky: f64, phi: f64) -> Option<u64> {
        let reached = |n: f64| {
            let grown: Vec<f64> = ln_wealth
                .iter()
                .zip(&self.0)
                .map(|(wealth, (mean, variance))| wealth + (n * mean - unlucky * (n * variance).sqrt()) / phi)
                .collect();
            ln_sum(&grown, f64::NEG_INFINITY) >= ln_needed
        };
        let mut high = 1.0;
        while !reached(high) {
            high *= 2.0;
            if high > NEVER {
                return None;
            }
        }
        let mut low = high / 2.0;
        while high - low > 1.0 {
            let middle = f64::midpoint(low, high);
            if reached(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in [1, 10^12]")]
        Some((high.ceil() as u64).min(MOST))
    }
}

fn f64_len(len: usize) -> f64 {
    super::bank::real(len.max(1))
}
