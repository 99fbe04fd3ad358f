//! Records of rollouts in every phase, as the core and the judge make them: for tests of what is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;

use crate::desired::Frozen;
use crate::desired::rollout::{
    AbTest, BlueGreen, Canary, Field, Metric, Preset, RolloutSpec, Segment, Strategy, Winner,
};
use crate::judge::{
    Arms, Count, Decision, Experiment, Histogram, Judge, Measured, Moments, NoData, Report, Sample, Verdict, Why,
};
use crate::model::{Digest, ReleaseId, Timestamp};
use crate::record::{AgentRecord, Cause, Operation, OperationId, OperationKind, RolloutRecord, Standing};
use crate::rollout::{
    Beginning, Carrier, Deed, Event, Instances, Outside, Person, Rollout, Sides, Smoked, Way, experiment, judged,
};

const START: &str = "2026-07-01T12:00:00Z";
/// Boundaries of durations, in milliseconds.
const BOUNDARIES: [f64; 6] = [100.0, 250.0, 500.0, 750.0, 1000.0, 2000.0];

/// The time at which the samples are looked at.
pub(in crate::cli) fn now() -> Timestamp {
    minutes(9)
}

fn minutes(after: i64) -> Timestamp {
    let start: Timestamp = START.parse().expect("a time");
    start.checked_add(SignedDuration::from_mins(after)).expect("a time")
}

fn release(content: &str) -> ReleaseId {
    ReleaseId::of(content.as_bytes())
}

fn person(name: &str) -> Person {
    Person(name.to_owned())
}

pub(in crate::cli) fn operation() -> Operation {
    Operation {
        id: OperationId(7),
        kind: OperationKind::Release,
        cause: Cause::Commit {},
        from: Some(release("stable").into()),
        to: Some(release("candidate").into()),
        revision: Some(standing("candidate").revision),
        started: minutes(0),
        finished: None,
        evidence: vec![],
        outcome: None,
    }
}

fn standing(content: &str) -> Standing {
    Standing {
        release: release(content),
        revision: "main@sha1:3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a revision"),
        settings: Digest::of(b""),
        renderer: 1,
        own_set: true,
        since: minutes(0),
    }
}

/// The steps and metrics where nothing is declared, and three more metrics.
pub(in crate::cli) fn canary_spec() -> RolloutSpec {
    let compared = |preset, margin| Metric { compare: true, margin: Some(margin), ..Metric::preset(preset) };
    let mut analysis = RolloutSpec::default_metrics();
    analysis.insert("injections".to_owned(), Metric { limit: Some(0.0), ..Metric::preset(Preset::PromptInjections) });
    analysis.insert("tokens".to_owned(), compared(Preset::TokensPerRequest, 1.2));
    analysis.insert("goals".to_owned(), Metric { limit: Some(0.8), ..Metric::preset(Preset::GoalCompletion) });
    let canary = Canary { steps: RolloutSpec::default_steps(true), mirror: None, reach: None };
    RolloutSpec { strategy: Strategy::Canary(canary), analysis, ..RolloutSpec::default() }
}

fn blue_green_spec() -> RolloutSpec {
    let keep_old = SignedDuration::from_hours(1);
    let blue_green = BlueGreen { preview: Some("preview.example.com".to_owned()), smoke: "/".to_owned(), keep_old };
    RolloutSpec { strategy: Strategy::BlueGreen(blue_green), ..RolloutSpec::default() }
}

fn ab_test_spec() -> RolloutSpec {
    let test = AbTest {
        by: Segment::Hash { field: Field::Header("x-user-id".to_owned()), share: 40 },
        at_least: SignedDuration::from_mins(5),
        at_most: SignedDuration::from_hours(24 * 14),
        winner: Winner::Ask,
    };
    let goals = Metric { compare: true, ..Metric::preset(Preset::GoalCompletion) };
    let analysis = BTreeMap::from([("goals".to_owned(), goals)]);
    RolloutSpec { strategy: Strategy::AbTest(test), analysis, ..RolloutSpec::default() }
}

/// What a metric's source measured in one second: `bad` of a thousand requests of the candidate are bad.
fn second(name: &str, at: Timestamp, n: i64, bad: u64) -> Sample {
    let every = |n: u64, bad: u64, second: u64| {
        let total = |seconds: u64| n * seconds * bad / 1000;
        Count::new(n, total(second + 1) - total(second)).expect("a count")
    };
    let second = u64::try_from(n).expect("a number");
    let measured = |n: u64, bad: u64| match name {
        "p99" => {
            let slow = u64::from(second.is_multiple_of(20));
            let counts = vec![n / 2, n / 4, n - n / 2 - n / 4 - slow, 0, slow, 0, 0];
            Measured::Latency(Histogram::new(Arc::from(BOUNDARIES), counts).expect("a histogram"))
        }
        "tokens" => {
            let (n, mean) = (f64::from(u32::try_from(n).expect("few")), 800.0);
            Measured::Mean(Moments::read(n, n * mean, Some(n * (mean * mean + 100.0))).expect("moments"))
        }
        "injections" => Measured::Binary(Count::new(n, 0).expect("a count")),
        // What was reached.
        "goals" => Measured::Binary(every(n, 900 - bad, second)),
        _ => Measured::Binary(every(n, bad, second)),
    };
    let start = at.checked_add(SignedDuration::from_secs(n)).expect("a time");
    Sample {
        start,
        end: start.checked_add(SignedDuration::from_secs(1)).expect("a time"),
        arms: Arms { candidate: measured(5, bad), stable: measured(15, 4) },
        warming: None,
        instances: vec![],
        failing: None,
    }
}

/// What the judge says at `step` after so many seconds.
fn decision(spec: &RolloutSpec, step: usize, seconds: i64, bad: u64) -> Decision {
    let begin = minutes(0);
    let judged = judged(spec).expect("a canary");
    let names: Vec<String> = judged.metrics.keys().cloned().collect();
    let mut judge = Judge::new(judged, begin).expect("a judge");
    let (half, mut said) = (seconds / 2, None);
    for n in 0..seconds {
        if n == half {
            judge.enter(step, begin.checked_add(SignedDuration::from_secs(n)).expect("a time"));
        }
        for name in &names {
            let sample = second(name, begin, n, bad);
            let no_data = name == "tokens" && n > seconds - 10;
            let answer = if no_data { Err(NoData::Provider("no answer within 5 s".to_owned())) } else { Ok(&sample) };
            judge.observe(name, answer, sample.end);
        }
        let decided = judge.decide(begin.checked_add(SignedDuration::from_secs(n + 1)).expect("a time"), &[]);
        let ended = decided.verdict == Verdict::Abort;
        said = Some(decided);
        if ended {
            break;
        }
    }
    said.expect("a decision")
}

fn report(spec: &RolloutSpec, seconds: i64) -> Report {
    let begin = minutes(0);
    let mut judge = Experiment::new(experiment(spec).expect("an experiment"), begin).expect("a judge");
    for n in 0..seconds {
        let sample = second("goals", begin, n, 40);
        judge.observe("goals", Ok(&sample), sample.end);
    }
    judge.report(begin.checked_add(SignedDuration::from_secs(seconds)).expect("a time"))
}

/// A rollout, and its clock.
struct Bench {
    rollout: Rollout,
    now: Timestamp,
    evidence: Option<String>,
}

impl Bench {
    fn new(spec: RolloutSpec, approvals: u32) -> Self {
        let rollout = Rollout::new(Beginning {
            operation: OperationId(7),
            candidate: release("candidate"),
            stable: release("stable"),
            way: Way::Forward,
            spec,
            carrier: Carrier::Routed,
            size: Instances { agent: 4, workers: BTreeMap::from([("indexer".parse().expect("a name"), 2)]) },
            approvals,
            authors: BTreeSet::from([person("alice")]),
            rollbacks: vec![],
        });
        Self { rollout, now: minutes(0), evidence: None }
    }

    fn tell(mut self, event: &Event) -> Self {
        let (next, _) = self.rollout.step(event, self.now).unwrap_or_else(|error| panic!("{event:?}: {error}"));
        self.rollout = next;
        self
    }

    fn asks(self, by: &str, deed: Deed) -> Self {
        self.tell(&Event::Person { by: person(by), deed })
    }

    /// The target makes what is wanted, and the route says so.
    fn carried_out(mut self) -> Self {
        for _ in 0..4 {
            let ready = self.rollout.wanted().instances;
            self = self.tell(&Event::Ready(ready));
            let routes = self.rollout.wanted().routes;
            self = self.tell(&Event::Routes(Some(routes)));
        }
        self
    }

    fn at(mut self, minute: i64) -> Self {
        self.now = minutes(minute);
        self.tell(&Event::Tick)
    }

    fn judged(self, decision: Decision) -> Self {
        let (step, since) = self.rollout.judged_step().expect("a step in force");
        let mut decision = Decision { at: self.now, ..decision };
        (decision.figures.step, decision.figures.since) = (step, since);
        self.tell(&Event::Judged(Box::new(decision)))
    }

    fn advanced(self) -> Self {
        let spec = self.rollout.spec().clone();
        let calm = Decision { verdict: Verdict::Advance, why: Why::NoHarm, ..decision(&spec, 0, 2, 0) };
        self.judged(calm).carried_out()
    }

    fn with(mut self, key: &str, value: &impl serde::Serialize) -> Self {
        self.evidence = Some(serde_json::json!({"judge": "{}", key: value}).to_string());
        self
    }

    fn record(self) -> AgentRecord {
        AgentRecord {
            stable: Some(standing("stable")),
            candidate: Some(standing("candidate")),
            operation: Some(operation()),
            rollout: Some(self.rollout.saved(self.evidence).expect("a record")),
            ..AgentRecord::default()
        }
    }
}

fn at_a_quarter() -> Bench {
    Bench::new(canary_spec(), 0).at(0).carried_out().at(5).advanced()
}

/// At 25 % for four minutes.
pub(in crate::cli) fn canary() -> AgentRecord {
    let bench = at_a_quarter().at(9);
    let spec = bench.rollout.spec().clone();
    bench.with("decision", &decision(&spec, 1, 540, 4)).record()
}

pub(in crate::cli) fn starting() -> AgentRecord {
    Bench::new(canary_spec(), 0).at(0).record()
}

pub(in crate::cli) fn paused() -> AgentRecord {
    let bench = at_a_quarter().at(9).asks("bob", Deed::Pause);
    let spec = bench.rollout.spec().clone();
    bench.with("decision", &decision(&spec, 1, 540, 4)).record()
}

pub(in crate::cli) fn frozen() -> AgentRecord {
    let freeze = Frozen { until: minutes(90), message: "weekend".to_owned() };
    let outside = Outside { freeze: Some(freeze), ..Outside::default() };
    at_a_quarter().tell(&Event::Outside(outside)).record()
}

/// The judge says that it goes back, and the route has not said so yet.
fn sent_back() -> Bench {
    let bench = at_a_quarter().at(9);
    let harm = decision(bench.rollout.spec(), 1, 540, 200);
    assert_eq!((harm.verdict, harm.why), (Verdict::Abort, Why::Harm), "{}", harm.sentence);
    let bench = bench.with("decision", &harm);
    bench.judged(harm)
}

pub(in crate::cli) fn aborting() -> AgentRecord {
    sent_back().record()
}

pub(in crate::cli) fn aborted() -> AgentRecord {
    sent_back().carried_out().record()
}

pub(in crate::cli) fn taken_back_by_a_person() -> AgentRecord {
    at_a_quarter().asks("bob", Deed::Abort { reason: "it is rude".to_owned() }).record()
}

fn promoted() -> Bench {
    at_a_quarter().at(6).advanced().at(7).advanced()
}

pub(in crate::cli) fn baking() -> AgentRecord {
    promoted().record()
}

pub(in crate::cli) fn done() -> AgentRecord {
    promoted().at(30).record()
}

pub(in crate::cli) fn waiting_for_approval() -> AgentRecord {
    Bench::new(canary_spec(), 2).at(0).asks("bob", Deed::Promote).record()
}

/// The second set is made, and half of it is ready.
pub(in crate::cli) fn blue_green() -> AgentRecord {
    let bench = Bench::new(blue_green_spec(), 0).at(0);
    let wanted = bench.rollout.wanted().instances;
    let candidate = Instances { agent: 2, workers: wanted.candidate.workers.clone() };
    bench.tell(&Event::Ready(Sides { candidate, stable: wanted.stable })).record()
}

/// The traffic was switched, and the first set stands by.
pub(in crate::cli) fn blue_green_switched() -> AgentRecord {
    Bench::new(blue_green_spec(), 0)
        .at(0)
        .carried_out()
        .tell(&Event::Smoked(Smoked::Answers))
        .carried_out()
        .at(8)
        .record()
}

pub(in crate::cli) fn ab_test() -> AgentRecord {
    let bench = Bench::new(ab_test_spec(), 0).at(0).carried_out().at(9);
    let spec = bench.rollout.spec().clone();
    bench.with("report", &report(&spec, 540)).record()
}

/// Of a version that this one does not know.
pub(in crate::cli) fn newer() -> AgentRecord {
    let state = serde_json::json!({"phase": "elsewhere"}).as_object().cloned().unwrap_or_default();
    let rollout = RolloutRecord { version: 99, state, evidence: None };
    AgentRecord { rollout: Some(rollout), ..starting() }
}

/// Every one of them, by name.
pub(in crate::cli) fn all() -> Vec<(&'static str, AgentRecord)> {
    vec![
        ("starting", starting()),
        ("canary", canary()),
        ("paused", paused()),
        ("frozen", frozen()),
        ("aborting", aborting()),
        ("aborted", aborted()),
        ("by a person", taken_back_by_a_person()),
        ("baking", baking()),
        ("done", done()),
        ("approval", waiting_for_approval()),
        ("blueGreen", blue_green()),
        ("blueGreen switched", blue_green_switched()),
        ("abTest", ab_test()),
        ("newer", newer()),
    ]
}
