//! What the judge knows, as a record keeps it: whole after a restart, and never too large.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::desired::RolloutSpec;
use backstay::desired::rollout::{
    AbTest, Canary, Field, Metric, Preset, Segment, Source, Step, Strategy, Until, Winner,
};
use backstay::judge::{Arms, Decision, Reading, Report, Totals};
use backstay::model::Timestamp;
use backstay::record::{AgentRecord, RolloutRecord};
use backstay::rollout::{Event, Judging, Measurement, Measurements, Phase, Rollout};
use jiff::SignedDuration;

use super::bench::{Bench, beginning};

/// What etcd takes of one object is 1.5 MiB; the rest of a record, and what the API server adds, has room beside this.
const MOST: usize = 1_200_000;

/// How the instances answer.
#[derive(Clone, Copy)]
struct Fleet {
    instances: u32,
    /// Boundaries of their histograms.
    boundaries: usize,
    /// Requests of one instance in a second, about.
    each: u64,
}

/// A generator that is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 24) % most.max(1)
    }
}

/// Two rates, two means and the rest durations, all compared and limited.
fn metrics(count: usize) -> BTreeMap<String, Metric> {
    let of = |n: usize| match n {
        0 => Metric { limit: Some(0.05), margin: Some(0.02), ..Metric::preset(Preset::ErrorRate) },
        1 => Metric { limit: Some(0.1), margin: Some(0.02), ..Metric::preset(Preset::ToolErrors) },
        2 | 3 => Metric { limit: Some(1e6), margin: Some(1.2), ..Metric::preset(Preset::TokensPerRequest) },
        _ => Metric { limit: Some(4000.0), margin: Some(1.5), ..Metric::preset(Preset::LatencyP99) },
    };
    (0..count).map(|n| (format!("metric-of-a-rather-long-name-{n:02}"), Metric { compare: true, ..of(n) })).collect()
}

fn canary(metrics: usize, steps: usize) -> RolloutSpec {
    let step = |n: usize| Step::Weight {
        weight: u8::try_from(1 + n).expect("few"),
        until: Until::Time(SignedDuration::from_mins(5)),
        limits: BTreeMap::new(),
    };
    let canary = Canary { steps: (0..steps).map(step).collect(), mirror: None, reach: None };
    RolloutSpec { strategy: Strategy::Canary(canary), analysis: self::metrics(metrics), ..RolloutSpec::default() }
}

fn experiment(metrics: usize) -> RolloutSpec {
    let test = AbTest {
        by: Segment::Hash { field: Field::Header("x-user-id".to_owned()), share: 50 },
        at_least: SignedDuration::from_hours(1),
        at_most: SignedDuration::from_hours(24 * 14),
        winner: Winner::Ask,
    };
    RolloutSpec { strategy: Strategy::AbTest(test), analysis: self::metrics(metrics), ..RolloutSpec::default() }
}

/// A rollout that is judged, with what its instances have counted so far.
struct Judged {
    bench: Bench,
    judging: Judging,
    fleet: Fleet,
    dice: Dice,
    counted: BTreeMap<(String, String), Totals>,
}

impl Judged {
    fn new(spec: RolloutSpec, fleet: Fleet) -> Self {
        let mut bench = Bench::new(beginning(spec));
        bench.carry_out();
        let judging = Judging::of(&bench.rollout, None, None, bench.now).expect("a judge").expect("something to judge");
        Self { bench, judging, fleet, dice: Dice(7), counted: BTreeMap::new() }
    }

    /// One second of all instances.
    fn measure(&mut self) {
        self.bench.now = self.bench.now.checked_add(SignedDuration::from_secs(1)).expect("a time");
        let at = self.bench.now;
        let mut all = BTreeMap::new();
        for (name, metric) in self.bench.rollout.spec().analysis.clone() {
            let mut arm = |side: &str, of: u32| {
                let one = |n| {
                    let instance = format!("support--{side}-6d4cf56db6-{n:05}");
                    let totals = self
                        .counted
                        .entry((name.clone(), instance.clone()))
                        .or_insert_with(|| zero(&metric, self.fleet));
                    count(totals, &mut self.dice, self.fleet);
                    Reading { instance, started: None, totals: totals.clone() }
                };
                Ok((0..of).map(one).collect())
            };
            let arms = Arms { candidate: arm("r-candidate", 1), stable: arm("r-stable", self.fleet.instances) };
            all.insert(name, Measurement::Counters(arms));
        }
        self.judging.take(Measurements { at, metrics: all }, at);
        let said = self.judging.says(&[], at);
        assert!(matches!(said, Event::Judged(_) | Event::Experiment(_)), "{said:?}");
    }

    /// The record, as it is written.
    fn record(&self) -> RolloutRecord {
        self.bench.rollout.saved(Some(self.judging.saved().expect("JSON"))).expect("JSON")
    }

    fn bytes(&self) -> usize {
        let record = AgentRecord { rollout: Some(self.record()), ..AgentRecord::default() };
        serde_json::to_vec(&record).expect("JSON").len()
    }

    /// The same after a restart.
    fn restarted(&self) -> Judging {
        let record: RolloutRecord =
            serde_json::from_slice(&serde_json::to_vec(&self.record()).expect("JSON")).expect("a record");
        let rollout = Rollout::read(&record).expect("a rollout");
        Judging::of(&rollout, None, record.evidence.as_deref(), self.bench.now).expect("a judge").expect("a judge")
    }
}

/// Nothing is counted yet. Boundaries with all their digits are the worst to keep.
fn zero(metric: &Metric, fleet: Fleet) -> Totals {
    match metric.source {
        Source::Preset(Preset::LatencyP99) => {
            let bound = |n: usize| 0.3 + 10_000.0 * f64::from(u32::try_from(n + 1).expect("few")).sqrt() / 31.7;
            let boundaries: Arc<[f64]> = (0..fleet.boundaries).map(bound).collect();
            Totals::Latency { counts: vec![0.0; boundaries.len() + 1], boundaries }
        }
        Source::Preset(Preset::TokensPerRequest) => Totals::Mean { n: 0.0, sum: 0.0, squares: Some(0.0) },
        Source::Preset(_) | Source::Value(_) | Source::Rate { .. } => Totals::Binary { n: 0.0, x: 0.0 },
    }
}

fn count(totals: &mut Totals, dice: &mut Dice, fleet: Fleet) {
    let real = |count: u64| f64::from(u32::try_from(count).expect("few"));
    match totals {
        Totals::Binary { n, x } => {
            *n += real(fleet.each);
            *x += f64::from(u8::from(dice.below(50) == 0));
        }
        Totals::Mean { n, sum, squares } => {
            for _ in 0..fleet.each.min(5) {
                let value = 800.0 + real(dice.below(100_000)) / 997.0;
                *n += 1.0;
                *sum += value;
                *squares = squares.map(|squares| squares + value * value);
            }
        }
        Totals::Latency { counts, .. } => {
            for slot in counts.iter_mut() {
                *slot += real(dice.below(2 * fleet.each / 10 + 2));
            }
        }
    }
}

fn decided(judging: &mut Judging, now: Timestamp) -> (Option<Decision>, Option<Report>) {
    match judging.says(&[], now) {
        Event::Judged(decision) => (Some(*decision), None),
        Event::Experiment(report) => (None, Some(*report)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn eight_metrics_measured_for_hours_are_small() {
    let usual = Fleet { instances: 6, boundaries: 16, each: 10 };
    for (what, spec, times, most) in [
        ("a canary", canary(8, 3), 10_000, 32_768),
        ("a long canary", canary(8, 50), 1_000, 49_152),
        ("an experiment", experiment(8), 1_000, 49_152),
    ] {
        let mut judged = Judged::new(spec, usual);
        for _ in 0..times {
            judged.measure();
        }
        let bytes = judged.bytes();
        println!("{what} of 8 metrics, {times} times each: {bytes} bytes");
        assert!(bytes < most, "{what}: {bytes} bytes");
        let (now, mut again) = (judged.bench.now, judged.restarted());
        assert_eq!(decided(&mut again, now), decided(&mut judged.judging, now), "{what}");
    }
}

#[test]
fn the_worst_that_can_be_declared_and_measured_fits_and_no_evidence_is_lost() {
    let worst = Fleet { instances: 200, boundaries: 1000, each: 500_000 };
    let many = Fleet { instances: 200, boundaries: 20, each: 500_000 };
    for (what, spec, fleet) in [
        ("a canary", canary(32, 50), worst),
        ("a canary of many instances", canary(32, 50), many),
        ("an experiment", experiment(16), worst),
        ("an experiment of many instances", experiment(16), many),
    ] {
        let mut judged = Judged::new(spec, fleet);
        for _ in 0..3 {
            judged.measure();
        }
        let bytes = judged.bytes();
        println!("the worst: {what}: {bytes} bytes");
        assert!(bytes < MOST, "{what}: {bytes} bytes");
        let (now, mut again) = (judged.bench.now, judged.restarted());
        let bets = |(decision, report): (Option<Decision>, Option<Report>)| {
            let figures =
                decision.map(|decision| decision.figures).or_else(|| report.clone().map(|report| report.figures));
            let mut figures = figures.expect("figures");
            // What single instances did may be learned again.
            figures.metrics.values_mut().for_each(|metric| metric.guard = 1.0);
            (figures, report.map(|report| report.better))
        };
        let (before, after) = (bets(decided(&mut judged.judging, now)), bets(decided(&mut again, now)));
        assert!(before.0.harm.is_finite() && before.0.metrics.len() >= 16);
        assert_eq!(before, after, "{what}");
    }
}

#[test]
fn evidence_that_cannot_be_read_begins_anew_and_says_so() {
    let mut judged = Judged::new(canary(8, 3), Fleet { instances: 2, boundaries: 8, each: 10 });
    (0..50).for_each(|_| judged.measure());
    let whole = judged.judging.saved().expect("JSON");
    let cut = &whole[..whole.len() - 20];
    let bent = whole.replace("zlib:e", "zlib:A");
    for broken in [cut, "", "{", bent.as_str()] {
        assert_ne!(broken, whole);
        let read = Judging::of(&judged.bench.rollout, None, Some(broken), judged.bench.now).expect("a judge");
        let (decision, _) = decided(&mut read.expect("a judge"), judged.bench.now);
        let note = decision.expect("a decision").note.expect("it says so");
        assert_eq!(note, "the judge began anew: its saved evidence cannot be read");
    }
    let (fresh, _) = decided(&mut Judged::new(canary(8, 3), judged.fleet).judging, judged.bench.now);
    assert_eq!(fresh.expect("a decision").note, None, "a start is no new start");
    let (_, report) = decided(&mut Judged::new(experiment(8), judged.fleet).judging, judged.bench.now);
    assert!(!report.expect("a report").sentence.contains("began anew"));
}

#[test]
fn the_judge_goes_on_while_the_rest_of_the_candidate_starts() {
    let mut judged = Judged::new(canary(2, 1), Fleet { instances: 2, boundaries: 8, each: 50 });
    for _ in 0..5 {
        judged.measure();
    }
    let step = judged.bench.rollout.judged_step().map(|(step, _)| step);
    judged.bench.advance();
    assert_eq!((judged.bench.rollout.phase(), step), (&Phase::Promoting, Some(0)));
    let saved = judged.judging.saved().expect("what it knows");
    let of = |known, saved| Judging::of(&judged.bench.rollout, known, saved, judged.bench.now).expect("a judge");
    assert_eq!(of(Some(judged.judging.clone()), None), Some(judged.judging.clone()), "it goes on as it is");
    let restarted = of(None, Some(&saved)).expect("also after a restart");
    assert_eq!(restarted.saved().expect("what it knows"), saved);
}
