//! An experiment between two releases that are both welcome: which one is better, if either.
//!
//! Two banks of harm, one each way, with half of α each: the chance to name a winner where there is none is at most α.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::measure::{NoData, Sample, Side};
use super::spec::{Compare, InvalidSpec, Metric, Mode, Otherwise, Spec, Step};
use super::verdict::{Judge, Verdict, Why};
use crate::model::Timestamp;

/// How an experiment is decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExperimentSpec {
    /// What is measured, by name. Limits and margins do not count.
    pub metrics: BTreeMap<String, Metric>,
    /// The candidate's share of the traffic, in (0, 1).
    pub weight: f64,
    /// The chance to name a winner where there is none; in (0, 0.1].
    pub alpha: f64,
    /// How long it runs at least, so that every hour or day of the week is in it.
    pub at_least: SignedDuration,
    /// How long it runs at most.
    pub at_most: SignedDuration,
}

/// Which release won.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It goes on.
    Running,
    /// One release is better.
    Won(Side),
    /// The time is over, and neither is shown to be better.
    Draw,
}

/// The state of an experiment, for its report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which release won.
    pub outcome: Outcome,
    /// The metric that decided.
    pub metric: Option<String>,
    /// One sentence without a full stop.
    pub sentence: String,
    /// The figures; harm is evidence that the candidate is worse.
    pub figures: Figures,
    /// Evidence that the candidate is better.
    pub better: f64,
}

/// Judges one experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    spec: ExperimentSpec,
    began: Timestamp,
    worse: Judge,
    better: Judge,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Saved {
    began: Timestamp,
    worse: String,
    better: String,
}

// === impl Experiment ===

impl Experiment {
    /// Begins.
    pub fn new(spec: ExperimentSpec, now: Timestamp) -> Result<Self, InvalidSpec> {
        let both = spec.judged();
        Ok(Self { worse: Judge::new(both.clone(), now)?, better: Judge::new(both, now)?, spec, began: now })
    }

    /// Goes on with a saved state; without one that can be read, it is a new start, and the report says so.
    pub fn restore(spec: ExperimentSpec, saved: Option<&str>, now: Timestamp) -> Result<Self, InvalidSpec> {
        let both = spec.judged();
        let saved = saved.and_then(|saved| serde_json::from_str::<Saved>(saved).ok());
        let (began, worse, better) = match &saved {
            Some(saved) => (saved.began, Some(saved.worse.as_str()), Some(saved.better.as_str())),
            None => (now, None, None),
        };
        let worse = Judge::restore(both.clone(), worse, 0, now)?;
        Ok(Self { worse, better: Judge::restore(both, better, 0, now)?, spec, began })
    }

    /// The state to keep.
    pub fn saved(&self) -> Result<String, serde_json::Error> {
        let (worse, better) = (self.worse.saved()?, self.better.saved()?);
        serde_json::to_string(&Saved { began: self.began, worse, better })
    }

    /// Forgets what the instances of stable did, one by one; all that was bet and won stays.
    pub fn forget_instances(&mut self) {
        self.worse.forget_instances();
        self.better.forget_instances();
    }

    /// Takes in one interval of one metric.
    pub fn observe(&mut self, name: &str, sample: Result<&Sample, NoData>, now: Timestamp) {
        self.worse.observe(name, sample.clone(), now);
        let other = sample.map(|sample| Sample {
            arms: sample.arms.clone().swapped(),
            warming: None,
            instances: vec![],
            failing: None,
            ..sample.clone()
        });
        self.better.observe(name, other.as_ref().map_err(Clone::clone), now);
    }

    /// Says where it stands.
    pub fn report(&mut self, now: Timestamp) -> Report {
        let (worse, better) = (self.worse.decide(now, &[]), self.better.decide(now, &[]));
        // A time that is still to come was written by a clock that was wrong.
        self.began = self.began.min(now);
        let age = now.duration_since(self.began);
        let shown =
            |decision: &super::verdict::Decision| decision.verdict == Verdict::Abort && decision.why == Why::Harm;
        let (outcome, metric, sentence) = if age < self.spec.at_least {
            (Outcome::Running, None, "the experiment runs at least until its time has come".to_owned())
        } else if shown(&worse) {
            (Outcome::Won(Side::Stable), worse.metric, worse.sentence)
        } else if shown(&better) {
            let metric = better.metric.unwrap_or_default();
            let sentence = format!("{metric}: the candidate is better than stable over the same time");
            (Outcome::Won(Side::Candidate), Some(metric), sentence)
        } else if age >= self.spec.at_most {
            (Outcome::Draw, None, "the time is over, and neither release is shown to be better".to_owned())
        } else {
            (Outcome::Running, None, "neither release is shown to be better yet".to_owned())
        };
        let sentence = worse.note.map_or(sentence.clone(), |note| format!("{sentence}; {note}"));
        // What was shown once stays shown; requests are counted on.
        let figures = Figures { harm: worse.figures.harm, ..self.worse.figures(now) };
        Report { outcome, metric, sentence, figures, better: better.figures.harm }
    }
}

// === impl ExperimentSpec ===

impl ExperimentSpec {
    /// One way of the comparison, with half of α.
    fn judged(&self) -> Spec {
        let bare = |metric: &Metric| {
            let tolerate = Some(super::binary::Line::EQUAL);
            let compare = Some(Compare { margin: None, tolerate });
            // Failing flat out is for rollouts: it would add to α.
            Metric { limit: None, compare, failures: false, ..metric.clone() }
        };
        let metrics = self.metrics.iter().map(|(name, metric)| (name.clone(), bare(metric))).collect();
        let step = Step {
            weight: self.weight.min(1.0 - 1e-9),
            hold_for: self.at_least,
            deadline: Some(self.at_most),
            samples: None,
            limits: BTreeMap::new(),
        };
        Spec {
            metrics,
            steps: vec![step],
            alpha: self.alpha / 2.0,
            on_no_data: Otherwise::Hold,
            on_undecided: Otherwise::Hold,
            mode: Mode::Rollout,
            ..Spec::default()
        }
    }
}
