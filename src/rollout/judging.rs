//! The judge of a rollout on its way: what it wants to be measured, what it knows, and what it says.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::course::{allowed, bake, experiment, judged};
use super::pack::{pack, unpack};
use super::{Event, Measurement, Measurements, Phase, Rollout};
use crate::desired::rollout::Metric;
use crate::judge::{
    Arms, Counters, Decision, Experiment, Failure, InvalidSpec, Judge, Measured, Moments, NoData, Report, Sample,
    Verdict,
};
use crate::model::Timestamp;

/// Bytes of what the judge knows, packed; beyond, it forgets what single instances did, which it learns again.
const MOST_KEPT: usize = 512 * 1024;

/// Judges what a rollout is at: its steps, its watch after the promotion, or its experiment.
///
/// Plain values; what it knows is [`saved`](Self::saved) beside the rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Judging {
    course: Course,
    metrics: BTreeMap<String, Metric>,
    counters: BTreeMap<String, Counters>,
    /// Up to when a metric was asked for that gives values.
    values: BTreeMap<String, Timestamp>,
    asked: BTreeMap<String, Timestamp>,
    warm_up: SignedDuration,
    decision: Option<Decision>,
    /// Where the experiment stood last; it stays while the winner is watched.
    report: Option<Report>,
}

/// What is judged.
#[derive(Debug, Clone, PartialEq)]
enum Course {
    Steps(Judge),
    Bake(Judge),
    Experiment(Box<Bounded>),
}

/// An experiment within its limits.
#[derive(Debug, Clone, PartialEq)]
struct Bounded {
    experiment: Experiment,
    /// Looks for what is not allowed, whoever would win.
    limits: Judge,
}

/// The same as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Steps,
    Bake,
    Experiment,
}

/// What is kept of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    course: Kind,
    state: String,
    /// Of an experiment, what is known of its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
}

// === impl Kind ===

impl Kind {
    /// What a phase is judged by; nothing where it is not.
    fn of(rollout: &Rollout) -> Option<Self> {
        match rollout.phase() {
            // While the rest of its instances starts, the candidate has what its last step gave it.
            Phase::Step { .. } | Phase::Promoting if rollout.gives() && !rollout.goes_back() => Some(Self::Steps),
            Phase::Baking { .. } => Some(Self::Bake),
            Phase::Experiment { since: Some(_), .. } => Some(Self::Experiment),
            Phase::Waiting
            | Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Step { .. }
            | Phase::Experiment { since: None, .. }
            | Phase::Promoting
            | Phase::Keeping { .. }
            | Phase::Done { .. }
            | Phase::Aborting { .. }
            | Phase::Aborted { .. } => None,
        }
    }
}

// === impl Course ===

impl Course {
    /// Packed, with what is known of the limits of an experiment.
    fn saved(&self) -> Result<(String, Option<String>), serde_json::Error> {
        Ok(match self {
            Self::Steps(judge) | Self::Bake(judge) => (pack(&judge.saved()?), None),
            Self::Experiment(bounded) => (pack(&bounded.experiment.saved()?), Some(pack(&bounded.limits.saved()?))),
        })
    }

    fn without_instances(&self) -> Self {
        let mut course = self.clone();
        match &mut course {
            Self::Steps(judge) | Self::Bake(judge) => judge.forget_instances(),
            Self::Experiment(bounded) => {
                bounded.experiment.forget_instances();
                bounded.limits.forget_instances();
            }
        }
        course
    }
}

// === impl Judging ===

impl Judging {
    /// The judge for what `rollout` is at: `known` goes on where it fits, then what was `saved`, else it begins anew.
    ///
    /// Nothing where nothing is judged: no phase for it, or no metric.
    ///
    /// # Errors
    ///
    /// When the declaration makes no sense to the judge.
    pub fn of(
        rollout: &Rollout,
        known: Option<Self>,
        saved: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Self>, InvalidSpec> {
        let Some(kind) = Kind::of(rollout) else { return Ok(None) };
        let mut judging = match known.filter(|known| known.kind() == kind) {
            Some(known) => known,
            None => match Self::begin(rollout, kind, saved, now)? {
                Some(fresh) => fresh,
                None => return Ok(None),
            },
        };
        if let (Course::Steps(judge), Some((step, since))) = (&mut judging.course, rollout.judged_step())
            && (judge.step() != step || judge.since() < since || judge.since() > now)
        {
            judge.enter(step, since);
            judging.decision = None;
        }
        Ok(Some(judging))
    }

    fn begin(rollout: &Rollout, kind: Kind, saved: Option<&str>, now: Timestamp) -> Result<Option<Self>, InvalidSpec> {
        let spec = rollout.spec();
        // Another course than the one that was kept begins anew; what cannot be read does so, too, and the judge says it.
        let read = |packed: &str| unpack(packed).unwrap_or_default();
        let (state, known_limits, decision, report) = match saved.map(serde_json::from_str::<Saved>) {
            None => (None, None, None, None),
            Some(Err(_)) => (Some(String::new()), None, None, None),
            Some(Ok(saved)) if saved.course == kind => {
                (Some(read(&saved.state)), saved.limits.as_deref().map(read), saved.decision, saved.report)
            }
            Some(Ok(saved)) => (None, None, None, saved.report),
        };
        let state = state.as_deref();
        let judge = |spec, state: Option<&str>, step| match state {
            Some(state) => Judge::restore(spec, Some(state), step, now),
            None => Judge::new(spec, now),
        };
        let (course, metrics) = match kind {
            Kind::Steps => {
                let Some(judged) = judged(spec) else { return Ok(None) };
                let step = if matches!(rollout.phase(), Phase::Promoting) {
                    judged.steps.len() - 1
                } else {
                    rollout.judged_step().map_or(0, |(step, _)| step)
                };
                (Course::Steps(judge(judged, state, step)?), spec.analysis.clone())
            }
            Kind::Bake => {
                let (declared, judged) = bake(spec);
                (Course::Bake(judge(judged, state, 0)?), declared)
            }
            Kind::Experiment => {
                let (Some(judged), Some((mut metrics, limits))) = (experiment(spec), allowed(spec)) else {
                    return Ok(None);
                };
                let compared = spec.analysis.iter().filter(|(name, _)| judged.metrics.contains_key(*name));
                metrics.extend(compared.map(|(name, metric)| (name.clone(), metric.clone())));
                let experiment = match state {
                    Some(state) => Experiment::restore(judged, Some(state), now),
                    None => Experiment::new(judged, now),
                };
                let bounded = Bounded { experiment: experiment?, limits: judge(limits, known_limits.as_deref(), 0)? };
                (Course::Experiment(Box::new(bounded)), metrics)
            }
        };
        let (counters, values, asked) = Default::default();
        Ok(Some(Self { course, metrics, counters, values, asked, warm_up: spec.warm_up, decision, report }))
    }

    fn kind(&self) -> Kind {
        match &self.course {
            Course::Steps(_) => Kind::Steps,
            Course::Bake(_) => Kind::Bake,
            Course::Experiment(_) => Kind::Experiment,
        }
    }

    /// What is to be measured now, each metric as often as it says and `usual` where it does not; those that are asked for
    /// count as asked.
    pub fn asks(&mut self, usual: SignedDuration, now: Timestamp) -> BTreeMap<String, Metric> {
        let is_due = |name: &str, metric: &Metric| {
            let every = metric.interval.map_or(usual, |interval| interval.max(usual));
            self.asked.get(name).is_none_or(|asked| now.duration_since(*asked) >= every)
        };
        let due: BTreeMap<_, _> = self
            .metrics
            .iter()
            .filter(|(name, metric)| is_due(name, metric))
            .map(|(name, metric)| (name.clone(), metric.clone()))
            .collect();
        self.asked.extend(due.keys().map(|name| (name.clone(), now)));
        due
    }

    /// Takes in what was measured.
    pub fn take(&mut self, measured: Measurements, now: Timestamp) {
        let Measurements { at, metrics } = measured;
        for (name, measurement) in metrics {
            if !self.metrics.contains_key(&name) {
                continue;
            }
            let sample = match measurement {
                Measurement::Counters(Arms { candidate, stable }) => {
                    let fresh = || Counters::new(self.warm_up);
                    self.counters.entry(name.clone()).or_insert_with(fresh).read(at, candidate, stable)
                }
                Measurement::Value(arms) => value(self.values.insert(name.clone(), at), at, &arms),
            };
            let sample = sample.as_ref().map_err(Clone::clone);
            match &mut self.course {
                Course::Steps(judge) | Course::Bake(judge) => judge.observe(&name, sample, now),
                Course::Experiment(bounded) => {
                    bounded.experiment.observe(&name, sample.clone(), now);
                    bounded.limits.observe(&name, sample, now);
                }
            }
        }
    }

    /// What it says now.
    pub fn says(&mut self, failures: &[Failure], now: Timestamp) -> Event {
        match &mut self.course {
            Course::Steps(judge) | Course::Bake(judge) => {
                let decision = judge.decide(now, failures);
                self.decision = Some(decision.clone());
                Event::Judged(Box::new(decision))
            }
            Course::Experiment(bounded) => {
                let decision = bounded.limits.decide(now, failures);
                if decision.verdict == Verdict::Abort {
                    self.decision = Some(decision.clone());
                    return Event::Judged(Box::new(decision));
                }
                let report = bounded.experiment.report(now);
                self.report = Some(report.clone());
                Event::Experiment(Box::new(report))
            }
        }
    }

    /// What it decided last; of an experiment nothing, but that its candidate does what is not allowed.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// What to keep beside the rollout.
    ///
    /// # Guarantees
    ///
    /// Whatever is declared and measured, it fits a record with room to spare, and all evidence is in it.
    ///
    /// # Errors
    ///
    /// None that can be met: the state has no maps but those with texts for keys.
    pub fn saved(&self) -> Result<String, serde_json::Error> {
        let (mut state, mut limits) = self.course.saved()?;
        if state.len() + limits.as_ref().map_or(0, String::len) > MOST_KEPT {
            (state, limits) = self.course.without_instances().saved()?;
        }
        let (decision, report) = (self.decision.clone(), self.report.clone());
        serde_json::to_string(&Saved { course: self.kind(), state, limits, decision, report })
    }

    /// Where the experiment of a rollout stood last, by what was [`saved`](Self::saved).
    pub fn last_report(saved: &str) -> Option<Report> {
        serde_json::from_str::<Saved>(saved).ok()?.report
    }
}

/// One value of each arm, for the time since the last one.
fn value(since: Option<Timestamp>, at: Timestamp, arms: &Arms<Result<f64, NoData>>) -> Result<Sample, NoData> {
    let measured = |value: &Result<f64, NoData>| {
        let value = value.clone()?;
        Moments::read(1.0, value, Some(value * value)).map(Measured::Mean)
    };
    let arms = Arms { candidate: measured(&arms.candidate)?, stable: measured(&arms.stable)? };
    let Some(start) = since.filter(|start| *start < at) else {
        return Err(NoData::Provider("the first value is the one that later times are counted from".to_owned()));
    };
    Ok(Sample { start, end: at, arms, warming: None, instances: vec![], failing: None })
}
