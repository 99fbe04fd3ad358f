//! A rollout as people and programs are shown it.

mod metric;
mod text;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Serialize;
use serde_json::Value;

use crate::desired::rollout::{Field, Segment, Step, Strategy, Until};
use crate::judge::{Decision, Figures, Outcome, Report, Side as Arm, Verdict};
use crate::model::Timestamp;
use crate::record::AgentRecord;
use crate::rollout::{Instances, Phase, Reason, Rollout, Split, Wait};
use metric::Judged;

pub(in crate::cli) use metric::{MetricShown, Word};
pub(in crate::cli) use text::{Wide, lines, sentence};

/// What is known of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Shown {
    /// `canary`, `blueGreen`, `abTest` or `rolling`.
    pub(in crate::cli) strategy: &'static str,
    /// Where it is, in one word.
    pub(in crate::cli) phase: &'static str,
    /// The same, as it reads after "the rollout is ".
    #[serde(skip)]
    told: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) step: Option<StepShown>,
    /// All steps, in a few letters each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<String>,
    /// Who gets the candidate, where it is no part of all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<String>,
    /// Stable (of blueGreen: what is active) first.
    pub(in crate::cli) sides: [SideShown; 2],
    /// Since when it is where it is; absent: it has not begun yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// When its time has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// When its time may have come.
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest: Option<Timestamp>,
    /// When it ought to be decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    /// Reads after "waiting for ".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) waiting_for: Option<String>,
    /// A clock alone is waited for.
    #[serde(skip)]
    by_clock: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    approvals: Option<Approvals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<Requests>,
    /// Each metric, by the last figures.
    pub(in crate::cli) metrics: Vec<MetricShown>,
    /// What the judge said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) judge: Option<Said>,
    /// Why it goes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) reason: Option<String>,
    /// What follows when it is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<String>,
    /// The release that waits until this rollout has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A step of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct StepShown {
    /// From 1.
    pub(in crate::cli) number: usize,
    pub(in crate::cli) of: usize,
}

/// One of the two releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct SideShown {
    /// `stable` or `candidate`.
    pub(in crate::cli) side: &'static str,
    /// Of blueGreen: whether it has the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
    pub(in crate::cli) release: String,
    /// The percentage of the traffic that is asked for; absent: nobody counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) weight: Option<u8>,
    /// The one that is in force, by what the route says.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<u8>,
    /// Instances that are ready, and that there shall be.
    instances: Count,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    workers: BTreeMap<String, Count>,
    health: &'static str,
}

/// Instances of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Count {
    /// Absent: nobody has looked yet.
    ready: Option<u32>,
    wanted: u32,
}

/// Who agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Approvals {
    needed: u32,
    by: Vec<String>,
}

/// Requests that were judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Requests {
    candidate: u64,
    stable: u64,
    /// Of the candidate in this step.
    in_step: u64,
    /// That the step asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    needed: Option<u64>,
}

/// What the judge said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Said {
    /// `advance`, `promote`, `hold`, `abort`; of an experiment `running`, `candidate`, `stable`, `draw`.
    pub(in crate::cli) verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
    pub(in crate::cli) sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

/// What the judge left beside the rollout. Anything that cannot be read is as if it were not there.
#[derive(Debug, Default)]
struct Evidence {
    decision: Option<Decision>,
    report: Option<Report>,
}

/// The rollout of a record: what is known of it, or why this version cannot read it; nothing: there is none.
pub(in crate::cli) fn shown(record: &AgentRecord, now: Timestamp) -> Option<Result<Shown, String>> {
    let saved = record.rollout.as_ref()?;
    let read = Rollout::read(saved).map_err(|error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    });
    Some(read.map(|rollout| Shown::of(&rollout, &Evidence::read(saved.evidence.as_deref()), now)))
}

// === impl Evidence ===

impl Evidence {
    fn read(saved: Option<&str>) -> Self {
        let kept: Value = saved.and_then(|saved| serde_json::from_str(saved).ok()).unwrap_or_default();
        Self { decision: part(&kept, "decision"), report: part(&kept, "report") }
    }
}

fn part<T: serde::de::DeserializeOwned>(kept: &Value, key: &str) -> Option<T> {
    serde_json::from_value(kept.get(key)?.clone()).ok()
}

// === impl Shown ===

impl Shown {
    fn of(rollout: &Rollout, evidence: &Evidence, now: Timestamp) -> Self {
        let phase = rollout.phase();
        let reason = match phase {
            Phase::Aborting { reason, .. } | Phase::Aborted { reason, .. } => Some(reason),
            Phase::Waiting
            | Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Step { .. }
            | Phase::Experiment { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. }
            | Phase::Done { .. } => None,
        };
        // What sent it back is what the judge said last, whatever was kept beside it.
        let judged = match reason {
            Some(Reason::Judged(decision)) => Some(&**decision),
            Some(_) | None => evidence.decision.as_ref(),
        };
        // An experiment that was won is watched by a judge of its own, who has the later word.
        let report = evidence.report.as_ref().filter(|_| judged.is_none());
        let figures = judged.map(|decision| &decision.figures).or(report.map(|report| &report.figures));
        let said = judged.map(Said::from).or_else(|| report.map(Said::from));
        let steps = steps(rollout);
        let step = match phase {
            Phase::Step { at, .. } => Some(StepShown { number: at + 1, of: steps.len() }),
            Phase::Waiting
            | Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Experiment { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. }
            | Phase::Done { .. }
            | Phase::Aborting { .. }
            | Phase::Aborted { .. } => None,
        };
        let wait = rollout.wait(now);
        let times = Times::of(rollout);
        Self {
            strategy: strategy(&rollout.spec().strategy),
            phase: word(phase),
            told: phase.word(),
            step,
            steps: steps.iter().map(in_few_letters).collect(),
            segment: segment(&rollout.spec().strategy),
            sides: sides(rollout),
            since: times.since,
            until: times.until,
            earliest: times.earliest,
            deadline: times.deadline,
            by_clock: matches!(wait, Some(Wait::Time { .. })),
            waiting_for: wait.map(|wait| wait.to_string()),
            approvals: (rollout.approvals() > 0).then(|| Approvals {
                needed: rollout.approvals(),
                by: rollout.approved().iter().map(ToString::to_string).collect(),
            }),
            requests: figures.and_then(|figures| requests(figures, current(rollout))),
            metrics: figures
                .map_or_else(Vec::new, |figures| metric::shown(rollout, &Judged { figures, decision: judged, report })),
            judge: said,
            reason: reason.map(ToString::to_string),
            then: reason.and_then(then),
            next: rollout.next().map(|next| next.to_string()),
        }
    }
}

/// The steps of a canary on its way forward.
fn steps(rollout: &Rollout) -> &[Step] {
    match &rollout.spec().strategy {
        Strategy::Canary(canary) if rollout.way() == crate::rollout::Way::Forward => &canary.steps,
        Strategy::Canary(_) | Strategy::Rolling | Strategy::BlueGreen(_) | Strategy::AbTest(_) => &[],
    }
}

/// The step that a canary is at.
fn current(rollout: &Rollout) -> Option<&Step> {
    if let Phase::Step { at, .. } = rollout.phase() { steps(rollout).get(*at) } else { None }
}

fn strategy(strategy: &Strategy) -> &'static str {
    match strategy {
        Strategy::Rolling => "rolling",
        Strategy::Canary(_) => "canary",
        Strategy::BlueGreen(_) => "blueGreen",
        Strategy::AbTest(_) => "abTest",
    }
}

/// As its name is for programs.
fn word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Starting => "starting",
        Phase::Smoke { .. } => "smoke",
        Phase::Mirror { .. } => "mirror",
        Phase::Step { .. } => "step",
        Phase::Experiment { .. } => "experiment",
        Phase::Promoting => "promoting",
        Phase::Baking { .. } => "baking",
        Phase::Keeping { .. } => "keeping",
        Phase::Done { .. } => "done",
        Phase::Aborting { .. } => "aborting",
        Phase::Aborted { .. } => "aborted",
    }
}

fn in_few_letters(step: &Step) -> String {
    match step {
        Step::Weight { weight, .. } => format!("{weight} %"),
        Step::Pause { lasts: None } => "pause".to_owned(),
        Step::Pause { lasts: Some(lasts) } => format!("pause {lasts:#}"),
        Step::Gate { name } => format!("gate {name}"),
        Step::Replicas { count: 1 } => "1 instance".to_owned(),
        Step::Replicas { count } => format!("{count} instances"),
    }
}

fn segment(strategy: &Strategy) -> Option<String> {
    let Strategy::AbTest(test) = strategy else { return None };
    let named = |field: &Field| match field {
        Field::Header(name) => format!("the header `{name}`"),
        Field::Cookie(name) => format!("the cookie `{name}`"),
    };
    Some(match &test.by {
        Segment::Hash { field, share } => format!("{share} % of the users, by the hash of {}", named(field)),
        Segment::Value(value) => format!("requests with {} = `{}`", named(&value.field), value.value),
    })
}

/// What follows when the traffic is back, in one sentence.
fn then(reason: &Reason) -> Option<String> {
    let after = reason.aftermath();
    let fate = if after.quarantine {
        Some("the candidate is quarantined")
    } else if after.hold {
        Some("the candidate is held back while Git asks for it")
    } else {
        None
    };
    match (fate, after.tell_git) {
        (Some(fate), true) => Some(format!("{fate}, and Git is told")),
        (Some(fate), false) => Some(fate.to_owned()),
        (None, true) => Some("Git is told".to_owned()),
        (None, false) => None,
    }
}

/// The most that any metric counted: each counts the requests that it can.
fn requests(figures: &Figures, step: Option<&Step>) -> Option<Requests> {
    let most = |of: fn(&crate::judge::MetricFigures) -> u64| figures.metrics.values().map(of).max();
    let needed = match step {
        Some(Step::Weight { until: Until::Samples { samples, .. }, .. }) => Some(*samples),
        Some(Step::Weight { .. } | Step::Pause { .. } | Step::Gate { .. } | Step::Replicas { .. }) | None => None,
    };
    let candidate = most(|metric| metric.candidate.as_ref().map_or(0, |arm| arm.n))?;
    let stable = most(|metric| metric.stable.as_ref().map_or(0, |arm| arm.n))?;
    let in_step = most(|metric| metric.in_step)?;
    (candidate + stable > 0).then_some(Requests { candidate, stable, in_step, needed })
}

// === the two sides ===

fn sides(rollout: &Rollout) -> [SideShown; 2] {
    let wanted = rollout.wanted();
    let ready = rollout.ready();
    let split = |split: Split, arm: Arm| {
        split.weights().map(|weights| match arm {
            Arm::Candidate => weights.candidate,
            Arm::Stable => weights.stable,
        })
    };
    let routed = wanted.in_place.is_none();
    let has_traffic = wanted.routes.split == Split::CANDIDATE;
    let green = matches!(rollout.spec().strategy, Strategy::BlueGreen(_));
    let side = |arm: Arm| {
        let (side, release, wants, has) = match arm {
            Arm::Candidate => {
                let has = ready.map(|ready| &ready.candidate);
                ("candidate", rollout.candidate(), &wanted.instances.candidate, has)
            }
            Arm::Stable => ("stable", rollout.stable(), &wanted.instances.stable, ready.map(|ready| &ready.stable)),
        };
        let instances = Count { ready: has.map(|has| has.agent), wanted: wants.agent };
        SideShown {
            side,
            active: green.then_some(has_traffic == (arm == Arm::Candidate)),
            release: release.to_string(),
            weight: split(wanted.routes.split, arm).filter(|_| routed),
            in_force: rollout.in_force().filter(|_| routed).and_then(|routes| split(routes.split, arm)),
            instances,
            workers: workers(wants, has),
            health: instances.health(),
        }
    };
    let mut both = [side(Arm::Stable), side(Arm::Candidate)];
    if green && has_traffic {
        both.reverse();
    }
    both
}

fn workers(wants: &Instances, has: Option<&Instances>) -> BTreeMap<String, Count> {
    let count = |(name, wanted): (&crate::model::WorkerName, &u32)| {
        let ready = has.map(|has| has.workers.get(name).copied().unwrap_or(0));
        (name.to_string(), Count { ready, wanted: *wanted })
    };
    wants.workers.iter().map(count).collect()
}

// === impl Count ===

impl Count {
    fn health(self) -> &'static str {
        match self {
            Self { ready: None, .. } => "unknown",
            Self { ready: Some(0), wanted: 0 } => "none",
            Self { ready: Some(_), wanted: 0 } => "leaving",
            Self { ready: Some(0), .. } => "not ready",
            Self { ready: Some(ready), wanted } if ready < wanted => "not all ready",
            Self { .. } => "ready",
        }
    }
}

// === times ===

#[derive(Default)]
struct Times {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    earliest: Option<Timestamp>,
    deadline: Option<Timestamp>,
}

impl Times {
    fn of(rollout: &Rollout) -> Self {
        let after = |since: Option<Timestamp>, lasts: SignedDuration| since.and_then(|at| at.checked_add(lasts).ok());
        let spec = rollout.spec();
        match rollout.phase() {
            Phase::Waiting | Phase::Starting | Phase::Smoke { .. } | Phase::Promoting | Phase::Aborting { .. } => {
                Self::default()
            }
            Phase::Mirror { since } => {
                let lasts = if let Strategy::Canary(canary) = &spec.strategy { canary.mirror } else { None };
                Self { since: *since, until: lasts.and_then(|lasts| after(*since, lasts)), ..Self::default() }
            }
            Phase::Step { since, .. } => match current(rollout) {
                Some(Step::Weight { until: Until::Time(lasts), .. }) => Self {
                    since: *since,
                    earliest: after(*since, *lasts),
                    deadline: lasts.checked_mul(3).and_then(|most| after(*since, most)),
                    ..Self::default()
                },
                Some(Step::Weight { until: Until::Samples { at_most, .. }, .. }) => {
                    Self { since: *since, deadline: after(*since, *at_most), ..Self::default() }
                }
                Some(Step::Pause { lasts: Some(lasts) }) => {
                    Self { since: *since, until: after(*since, *lasts), ..Self::default() }
                }
                Some(Step::Pause { lasts: None } | Step::Gate { .. } | Step::Replicas { .. }) | None => {
                    Self { since: *since, ..Self::default() }
                }
            },
            Phase::Experiment { since, .. } => match &spec.strategy {
                Strategy::AbTest(test) => Self {
                    since: *since,
                    earliest: after(*since, test.at_least),
                    deadline: after(*since, test.at_most),
                    ..Self::default()
                },
                Strategy::Rolling | Strategy::Canary(_) | Strategy::BlueGreen(_) => {
                    Self { since: *since, ..Self::default() }
                }
            },
            Phase::Baking { since } => {
                Self { since: Some(*since), until: after(Some(*since), spec.rollback.bake), ..Self::default() }
            }
            Phase::Keeping { since } => {
                let keep = if let Strategy::BlueGreen(declared) = &spec.strategy {
                    declared.keep_old
                } else {
                    SignedDuration::ZERO
                };
                let keep = keep.max(spec.rollback.bake);
                Self { since: Some(*since), until: after(Some(*since), keep), ..Self::default() }
            }
            Phase::Done { at } | Phase::Aborted { at, .. } => Self { since: Some(*at), ..Self::default() },
        }
    }
}

// === impl Said ===

impl From<&Decision> for Said {
    fn from(decision: &Decision) -> Self {
        let verdict = match decision.verdict {
            Verdict::Advance => "advance",
            Verdict::Promote => "promote",
            Verdict::Hold => "hold",
            Verdict::Abort => "abort",
        };
        let note = decision.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
        Self {
            verdict,
            metric: decision.metric.clone(),
            sentence: format!("{}{note}", decision.sentence),
            at: Some(decision.at),
        }
    }
}

impl From<&Report> for Said {
    fn from(report: &Report) -> Self {
        let verdict = match report.outcome {
            Outcome::Running => "running",
            Outcome::Won(Arm::Candidate) => "candidate",
            Outcome::Won(Arm::Stable) => "stable",
            Outcome::Draw => "draw",
        };
        Self { verdict, metric: report.metric.clone(), sentence: report.sentence.clone(), at: None }
    }
}

#[cfg(test)]
pub(in crate::cli) mod samples;
#[cfg(test)]
mod tests;
