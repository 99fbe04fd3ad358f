//! What is judged, and by which limits, margins and steps.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::binary::Line;

/// Steps of one rollout, and metrics of one analysis: no more.
const MOST: usize = 100;

/// How a rollout is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// What is measured, by name.
    pub metrics: BTreeMap<String, Metric>,
    /// The steps, in order; at least one.
    pub steps: Vec<Step>,
    /// The chance that a candidate which is no worse is aborted, over the whole rollout; in (0, 0.05].
    pub alpha: f64,
    /// The chance that harm beyond the margin passes as none, for each metric; in (0, 0.5].
    pub beta: f64,
    /// Requests of the candidate that a step sees at least, unless it says so itself.
    pub min_samples: u64,
    /// What a required metric without data means.
    pub on_no_data: Otherwise,
    /// What a step means that is undecided at its deadline.
    pub on_undecided: Otherwise,
    /// What is asked.
    pub mode: Mode,
}

/// What is asked of the judge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Whether a candidate beside stable may go on.
    #[default]
    Rollout,
    /// Whether a release that holds all traffic must go back: limits and hard rules alone.
    Bake,
}

/// What happens where the evidence does not decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Otherwise {
    /// It waits.
    #[default]
    Hold,
    /// It goes back.
    Abort,
    /// It goes on.
    Advance,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metric {
    /// Of which kind its measurements are.
    pub kind: Kind,
    /// Events are good ones, or values are better when they are higher.
    #[serde(default)]
    pub higher_is_better: bool,
    /// The most that is allowed (the least, where higher is better): a rate, a mean, or a duration in the unit of the
    /// boundaries.
    #[serde(default)]
    pub limit: Option<f64>,
    /// How it is compared with stable over the same time.
    #[serde(default)]
    pub compare: Option<Compare>,
    /// Its part in the common evidence of harm, relative to the others.
    #[serde(default = "one")]
    pub weight: f64,
    /// Nothing advances without it.
    #[serde(default = "yes")]
    pub required: bool,
    /// Its events are failed requests: a candidate that fails flat out is seen by it.
    #[serde(default)]
    pub failures: bool,
    /// How old its last measurement may be.
    #[serde(default = "stale_after")]
    pub stale_after: SignedDuration,
}

/// Of which kind measurements are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Requests with events that happen or do not.
    #[serde(rename_all = "camelCase")]
    Binary {
        /// The events are frequent (more than one in ten), and each request counts for itself: saves requests.
        common: bool,
    },
    /// Values with a mean.
    Mean,
    /// Durations, of which a quantile is looked at.
    Latency {
        /// In (0, 1).
        quantile: f64,
    },
}

/// How a metric is compared with stable over the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compare {
    /// What the whole traffic may lose: to advance, the candidate must show that it costs no more. For latency the ratio
    /// is a factor on the duration. Nothing: only harm is looked for.
    #[serde(default)]
    pub margin: Option<Line>,
    /// What is no harm yet. Default: nothing for events, a ratio of 1.05 for means; for latency the ratio of slow
    /// requests, 1.25.
    #[serde(default)]
    pub tolerate: Option<Line>,
}

/// One step of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The candidate's share of the traffic, in (0, 1]. At 1 there is nothing to compare with.
    pub weight: f64,
    /// How long it takes at least.
    pub hold_for: SignedDuration,
    /// When it is undecided for too long; default: three times as long, and never where it may take no time at all.
    #[serde(default)]
    pub deadline: Option<SignedDuration>,
    /// Requests of the candidate that it sees at least.
    #[serde(default)]
    pub samples: Option<u64>,
    /// Limits in this step, by metric.
    #[serde(default)]
    pub limits: BTreeMap<String, f64>,
}

/// What is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// A field is outside its bounds.
    #[error("cannot judge by {0}: {1}")]
    Field(String, &'static str),
}

// === impl Spec ===

impl Default for Spec {
    fn default() -> Self {
        Self {
            metrics: BTreeMap::new(),
            steps: vec![],
            alpha: 0.01,
            beta: 0.05,
            min_samples: 50,
            on_no_data: Otherwise::Hold,
            on_undecided: Otherwise::Hold,
            mode: Mode::Rollout,
        }
    }
}

impl Spec {
    /// Checks all fields.
    pub fn check(&self) -> Result<(), InvalidSpec> {
        let wrong = |field: &str, how| Err(InvalidSpec::Field(field.to_owned(), how));
        let share = |value: f64| value > 0.0 && value <= 0.5;
        if !(share(self.alpha) && self.alpha <= 0.05) {
            return wrong("alpha", "it must be above 0 and at most 0.05");
        }
        if !share(self.beta) {
            return wrong("beta", "it must be above 0 and at most 0.5");
        }
        if self.steps.is_empty() || self.steps.len() > MOST {
            return wrong("steps", "there must be one to a hundred");
        }
        if self.metrics.is_empty() || self.metrics.len() > MOST {
            return wrong("metrics", "there must be one to a hundred");
        }
        for (name, metric) in &self.metrics {
            if let Some(how) = metric.wrong(self) {
                return wrong(&format!("metric `{name}`"), how);
            }
        }
        for (at, step) in self.steps.iter().enumerate() {
            if let Some(how) = step.wrong(self) {
                return wrong(&format!("step {}", at + 1), how);
            }
        }
        Ok(())
    }

    /// The weight that follows a step: what is decided there is whether to go to it.
    pub fn next_weight(&self, step: usize) -> f64 {
        self.steps.get(step + 1).map_or(1.0, |next| next.weight)
    }

    /// The limit of a metric in a step, as the most that is allowed of what is counted as bad.
    pub fn limit(&self, step: usize, name: &str) -> Option<f64> {
        let metric = self.metrics.get(name)?;
        let of_step = self.steps.get(step).and_then(|step| step.limits.get(name)).copied();
        of_step.or(metric.limit).map(|limit| metric.as_bad(limit))
    }

    /// Whether nothing at all is allowed of a metric in a step: then a single event decides.
    pub fn forbids(&self, step: usize, name: &str) -> bool {
        let binary = self.metrics.get(name).is_some_and(|metric| matches!(metric.kind, Kind::Binary { .. }));
        binary && self.limit(step, name).is_some_and(|limit| limit <= 0.0)
    }

    /// Whether a metric has a limit in any step that there is evidence for or against.
    pub(super) fn is_limited(&self, name: &str) -> bool {
        (0..self.steps.len()).any(|step| self.limit(step, name).is_some() && !self.forbids(step, name))
    }

    /// Whether a step compares the candidate with stable.
    pub(super) fn compares(&self, step: usize) -> bool {
        self.mode == Mode::Rollout && self.steps.get(step).is_some_and(|step| step.weight < 1.0)
    }
}

// === impl Metric ===

impl Metric {
    /// A required metric of that kind without limit and comparison.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            higher_is_better: false,
            limit: None,
            compare: None,
            weight: 1.0,
            required: true,
            failures: false,
            stale_after: stale_after(),
        }
    }

    /// A limit as the most that is allowed of what is counted as bad.
    fn as_bad(&self, limit: f64) -> f64 {
        match (self.higher_is_better, self.kind) {
            (false, _) => limit,
            (true, Kind::Binary { .. }) => 1.0 - limit,
            (true, Kind::Mean | Kind::Latency { .. }) => -limit,
        }
    }

    /// The line that separates harm from none.
    pub fn harm_line(&self) -> Option<Line> {
        let ratio = match self.kind {
            Kind::Binary { .. } => 1.0,
            Kind::Mean => 1.05,
            Kind::Latency { .. } => 1.25,
        };
        let tolerate = self.compare?.tolerate.unwrap_or(Line { ratio, delta: 0.0 });
        Some(self.turned(tolerate))
    }

    /// The line within which a step shows that there is no harm, before the weight that follows it.
    pub fn margin_line(&self, next_weight: f64) -> Option<Line> {
        Some(self.turned(self.compare?.margin?).for_weight(next_weight))
    }

    /// Values of which more is better are judged with the other sign: a loss by a factor becomes the part that is left.
    fn turned(&self, line: Line) -> Line {
        if self.higher_is_better && self.kind == Kind::Mean { Line { ratio: 1.0 / line.ratio, ..line } } else { line }
    }

    fn wrong(&self, spec: &Spec) -> Option<&'static str> {
        let limits = |limit: f64| match self.kind {
            Kind::Binary { .. } => (0.0..1.0).contains(&self.as_bad(limit)),
            Kind::Mean => limit.is_finite(),
            Kind::Latency { .. } => limit > 0.0 && limit.is_finite(),
        };
        let line = |line: Line| {
            let sane = (1.0..=1e6).contains(&line.ratio) && line.delta >= 0.0 && line.delta.is_finite();
            sane && (!matches!(self.kind, Kind::Latency { .. }) || line.delta == 0.0)
        };
        if !(self.weight > 0.0 && self.weight <= 1e6) {
            return Some("its weight must be above 0 and at most a million");
        }
        if let Kind::Latency { quantile } = self.kind
            && !(quantile > 0.0 && quantile < 1.0)
        {
            return Some("its quantile must be between 0 and 1");
        }
        if matches!(self.kind, Kind::Latency { .. }) && self.higher_is_better {
            return Some("higher latency is never better");
        }
        if self.failures && (!matches!(self.kind, Kind::Binary { .. }) || self.higher_is_better) {
            return Some("only bad events can be failures");
        }
        if !self.limit.is_none_or(limits) {
            return Some("its limit is out of range");
        }
        if self.stale_after <= SignedDuration::ZERO {
            return Some("no measurement is that fresh");
        }
        let Some(compare) = self.compare else {
            let limited = self.limit.is_some() || spec.steps.iter().any(|step| !step.limits.is_empty());
            return (!limited).then_some("it has neither a limit nor a comparison");
        };
        if !(compare.margin.is_none_or(line) && compare.tolerate.is_none_or(line)) {
            return Some("its margins must be a ratio of at least 1 and, but for latency, a difference of at least 0");
        }
        let nothing = |line: Line| line.ratio <= 1.0 && line.delta <= 0.0;
        compare.margin.is_some_and(nothing).then_some("no number of requests shows that nothing at all is lost")
    }
}

// === impl Step ===

impl Step {
    /// When the step is over if it stays undecided.
    pub fn deadline(&self) -> SignedDuration {
        let threefold = || self.hold_for.checked_mul(3).filter(|threefold| !threefold.is_zero());
        self.deadline.or_else(threefold).unwrap_or(SignedDuration::MAX)
    }

    fn wrong(&self, spec: &Spec) -> Option<&'static str> {
        if !(self.weight > 0.0 && self.weight <= 1.0) {
            return Some("its weight must be above 0 and at most 1");
        }
        if self.hold_for.is_negative() || self.deadline.is_some_and(|deadline| deadline.is_negative()) {
            return Some("its time is negative");
        }
        for (name, limit) in &self.limits {
            let Some(metric) = spec.metrics.get(name) else { return Some("it limits a metric that is not there") };
            let alone = Metric { limit: Some(*limit), compare: None, ..metric.clone() };
            if let Some(how) = alone.wrong(spec) {
                return Some(how);
            }
        }
        None
    }
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn stale_after() -> SignedDuration {
    SignedDuration::from_secs(60)
}
