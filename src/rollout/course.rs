//! What is declared, in the words of the judge.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::desired::RolloutSpec;
use crate::desired::rollout::{AbTest, Measure, Metric, Otherwise, Preset, Segment, Source, Step, Strategy, Until};
use crate::judge;

/// Intervals of a metric that may be missing before it is stale.
const MISSING: i32 = 4;

/// How the steps of a canary are judged; nothing where none has a weight. Durations are in milliseconds.
///
/// The judge's steps are those with a weight alone: [`Rollout::judged_step`](super::Rollout::judged_step) numbers them.
pub fn judged(spec: &RolloutSpec) -> Option<judge::Spec> {
    let Strategy::Canary(canary) = &spec.strategy else { return None };
    let steps: Vec<_> = canary.steps.iter().filter_map(step).collect();
    (!steps.is_empty()).then(|| judge::Spec {
        metrics: metrics(&spec.analysis),
        steps,
        on_no_data: otherwise(spec.on_no_data),
        on_undecided: otherwise(spec.on_undecided),
        mode: judge::Mode::Rollout,
        ..judge::Spec::default()
    })
}

/// How a promoted release is watched: by the limits that are declared; where none is, by errors of at most 5 % and a 99th
/// percentile of the latency of at most two seconds.
///
/// The metrics as they are declared, and as they are judged.
pub fn bake(spec: &RolloutSpec) -> (BTreeMap<String, Metric>, judge::Spec) {
    let mut watched = uncompared(spec, |metric| metric.limit.is_some());
    if spec.default_analysis || watched.is_empty() {
        let metric = |preset, limit| Metric { limit: Some(limit), ..Metric::preset(preset) };
        watched = BTreeMap::from([
            ("errors".to_owned(), metric(Preset::ErrorRate, 0.05)),
            ("p99".to_owned(), metric(Preset::LatencyP99, 2000.0)),
        ]);
    }
    let step = judge::Step {
        weight: 1.0,
        hold_for: spec.rollback.bake,
        deadline: None,
        samples: None,
        limits: BTreeMap::new(),
    };
    let metrics = metrics(&watched);
    (watched, judge::Spec { metrics, steps: vec![step], mode: judge::Mode::Bake, ..judge::Spec::default() })
}

/// How an experiment is decided; nothing where none is declared.
pub fn experiment(spec: &RolloutSpec) -> Option<judge::ExperimentSpec> {
    let Strategy::AbTest(test) = &spec.strategy else { return None };
    let compared = spec.analysis.iter().filter(|(_, metric)| metric.compare);
    let compared: BTreeMap<_, _> = compared.map(|(name, metric)| (name.clone(), metric.clone())).collect();
    Some(judge::ExperimentSpec {
        metrics: metrics(&compared),
        weight: share(test),
        alpha: judge::Spec::default().alpha,
        at_least: test.at_least,
        at_most: test.at_most,
    })
}

/// What ends an experiment at once, whoever would win it: its limits, and requests that fail one after another.
///
/// The metrics as they are declared, and as they are judged; nothing where no experiment is declared.
pub(super) fn allowed(spec: &RolloutSpec) -> Option<(BTreeMap<String, Metric>, judge::Spec)> {
    let Strategy::AbTest(test) = &spec.strategy else { return None };
    let mut watched = uncompared(spec, |metric| metric.limit.is_some() || counts_failures(metric));
    if !watched.values().any(counts_failures) {
        watched.entry("errors".to_owned()).or_insert_with(|| Metric::preset(Preset::ErrorRate));
    }
    let step = judge::Step {
        weight: share(test),
        hold_for: test.at_most,
        deadline: None,
        samples: None,
        limits: BTreeMap::new(),
    };
    let judged = judge::Spec { metrics: metrics(&watched), steps: vec![step], ..judge::Spec::default() };
    Some((watched, judged))
}

/// Metrics that are looked at by themselves, without stable.
fn uncompared(spec: &RolloutSpec, which: impl Fn(&Metric) -> bool) -> BTreeMap<String, Metric> {
    let chosen = spec.analysis.iter().filter(|(_, metric)| which(metric));
    chosen.map(|(name, metric)| (name.clone(), Metric { compare: false, margin: None, ..metric.clone() })).collect()
}

/// Whether its events are failed requests.
fn counts_failures(metric: &Metric) -> bool {
    matches!(metric.source, Source::Preset(preset) if preset.is_failures())
}

/// The candidate's part of the traffic; of a segment nobody knows it, and it counts as half.
fn share(test: &AbTest) -> f64 {
    match test.by {
        Segment::Hash { share, .. } => f64::from(share) / 100.0,
        Segment::Value(_) => 0.5,
    }
}

fn metrics(declared: &BTreeMap<String, Metric>) -> BTreeMap<String, judge::Metric> {
    declared.iter().map(|(name, declared)| (name.clone(), metric(declared))).collect()
}

fn metric(declared: &Metric) -> judge::Metric {
    let kind = match declared.source.measure() {
        Measure::Rate { common } => judge::Kind::Binary { common },
        Measure::Mean => judge::Kind::Mean,
        Measure::Duration { quantile } => judge::Kind::Latency { quantile },
    };
    let line = |margin: f64| match kind {
        judge::Kind::Binary { .. } => judge::Line { ratio: 1.0, delta: margin },
        judge::Kind::Mean | judge::Kind::Latency { .. } => judge::Line { ratio: margin, delta: 0.0 },
    };
    let compare = declared.compare.then(|| judge::Compare { margin: declared.margin.map(line), tolerate: None });
    let patient = declared.interval.and_then(|interval| interval.checked_mul(MISSING));
    let fresh = judge::Metric::new(kind);
    judge::Metric {
        higher_is_better: declared.higher_is_better,
        limit: declared.limit,
        compare,
        required: declared.required,
        failures: counts_failures(declared),
        stale_after: patient.map_or(fresh.stale_after, |patient| patient.max(fresh.stale_after)),
        ..fresh
    }
}

fn step(step: &Step) -> Option<judge::Step> {
    let Step::Weight { weight, until, limits } = step else { return None };
    let (hold_for, deadline, samples) = match until {
        Until::Time(lasts) => (*lasts, None, None),
        Until::Samples { samples, at_most } => (SignedDuration::ZERO, Some(*at_most), Some(*samples)),
    };
    let limits = limits.clone();
    Some(judge::Step { weight: f64::from(*weight) / 100.0, hold_for, deadline, samples, limits })
}

fn otherwise(declared: Otherwise) -> judge::Otherwise {
    match declared {
        Otherwise::Hold => judge::Otherwise::Hold,
        Otherwise::Abort => judge::Otherwise::Abort,
        Otherwise::Advance => judge::Otherwise::Advance,
    }
}
