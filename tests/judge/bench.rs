//! A rollout on a bench: a specification, and seconds of traffic with given counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::judge::{
    Arms, Compare, Count, Decision, Histogram, Judge, Kind, Line, Measured, Metric, Moments, NoData, Sample, Spec, Step,
};
use jiff::{SignedDuration, Timestamp};

pub(crate) const ERRORS: Kind = Kind::Binary { common: false };

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(crate) fn binary(n: u64, x: u64) -> Measured {
    Measured::Binary(Count::new(n, x).unwrap())
}

pub(crate) fn moments(n: u32, mean: f64, deviation: f64) -> Measured {
    let n = f64::from(n);
    Measured::Mean(Moments::read(n, n * mean, Some(n * (mean * mean + deviation * deviation))).unwrap())
}

pub(crate) fn durations(counts: [u64; 6]) -> Measured {
    Measured::Latency(Histogram::new(Arc::from([100.0, 200.0, 400.0, 800.0, 1600.0]), counts.to_vec()).unwrap())
}

/// One second of both arms.
pub(crate) fn second(at_second: i64, candidate: Measured, stable: Measured) -> Sample {
    Sample {
        start: at(at_second),
        end: at(at_second + 1),
        arms: Arms { candidate, stable },
        warming: None,
        instances: vec![],
        failing: None,
    }
}

pub(crate) fn compared(kind: Kind, ratio: f64, delta: f64) -> Metric {
    let margin = Some(Line { ratio, delta });
    Metric { compare: Some(Compare { margin, tolerate: None }), ..Metric::new(kind) }
}

pub(crate) fn limited(kind: Kind, limit: f64) -> Metric {
    Metric { limit: Some(limit), ..Metric::new(kind) }
}

pub(crate) fn step(weight: f64, seconds: i64) -> Step {
    let hold_for = SignedDuration::from_secs(seconds);
    Step { weight, hold_for, deadline: None, samples: None, limits: BTreeMap::new() }
}

/// Steps of 20 % and 50 %, a minute each.
pub(crate) fn spec<const N: usize>(metrics: [(&str, Metric); N]) -> Spec {
    let metrics = metrics.into_iter().map(|(name, metric)| (name.to_owned(), metric)).collect();
    Spec { metrics, steps: vec![step(0.2, 60), step(0.5, 60)], ..Spec::default() }
}

/// A judge with a clock.
pub(crate) struct Bench {
    pub(crate) judge: Judge,
    pub(crate) clock: i64,
}

impl Bench {
    pub(crate) fn new(spec: Spec) -> Self {
        Self { judge: Judge::new(spec, at(0)).unwrap(), clock: 0 }
    }

    /// One second in which a metric is measured so.
    pub(crate) fn measure(&mut self, name: &str, candidate: Measured, stable: Measured) -> &mut Self {
        let sample = second(self.clock, candidate, stable);
        self.sample(name, Ok(&sample))
    }

    pub(crate) fn sample(&mut self, name: &str, sample: Result<&Sample, NoData>) -> &mut Self {
        self.clock += 1;
        self.judge.observe(name, sample, at(self.clock));
        self
    }

    /// So many seconds alike, of a metric with events: requests and events of the candidate, then of stable.
    pub(crate) fn run(&mut self, seconds: u32, name: &str, [n_c, x_c, n_s, x_s]: [u64; 4]) -> &mut Self {
        for _ in 0..seconds {
            self.measure(name, binary(n_c, x_c), binary(n_s, x_s));
        }
        self
    }

    pub(crate) fn decide(&mut self) -> Decision {
        self.judge.decide(at(self.clock), &[])
    }

    pub(crate) fn enter(&mut self, step: usize) -> &mut Self {
        self.judge.enter(step, at(self.clock));
        self
    }
}
