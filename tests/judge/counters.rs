//! Readings of counters become intervals: resets, new instances, gaps, warm-up; and experiments.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::judge::{
    Counters, Experiment, ExperimentSpec, Histogram, Kind, Measured, Metric, Moments, NoData, Outcome, Reading, Side,
    Totals,
};
use jiff::SignedDuration;

use crate::bench::{at, binary, moments, second};

fn reading(instance: &str, started: Option<i64>, n: f64, x: f64) -> Reading {
    Reading { instance: instance.to_owned(), started: started.map(at), totals: Totals::Binary { n, x } }
}

fn one(n: f64, x: f64) -> Vec<Reading> {
    vec![reading("a", None, n, x)]
}

/// Counters whose baseline is 100 requests in each arm.
fn begun() -> Counters {
    let mut counters = Counters::new(SignedDuration::ZERO);
    assert!(counters.read(at(0), Ok(one(100.0, 0.0)), Ok(one(100.0, 0.0))).is_err());
    counters
}

#[test]
fn differences_resets_and_new_instances() {
    let mut counters = begun();
    let sample = counters.read(at(10), Ok(one(120.0, 1.0)), Ok(one(180.0, 2.0))).unwrap();
    assert_eq!((sample.start, sample.end), (at(0), at(10)));
    assert_eq!((sample.arms.candidate, sample.arms.stable), (binary(20, 1), binary(80, 2)));
    // A smaller reading counts from zero, as a whole.
    let sample = counters.read(at(20), Ok(one(5.0, 1.0)), Ok(one(200.0, 1.0))).unwrap();
    assert_eq!((sample.arms.candidate, sample.arms.stable), (binary(5, 1), binary(200, 1)));
    // At first sight an instance sets its baseline; one that started since the last reading counts from zero.
    let two = |second| vec![one(10.0, 1.0)[0].clone(), second];
    let sample = counters.read(at(30), Ok(two(reading("b", None, 50.0, 50.0))), Ok(one(200.0, 1.0))).unwrap();
    assert_eq!(sample.arms.candidate, binary(5, 0));
    let sample = counters.read(at(40), Ok(two(reading("c", Some(35), 7.0, 2.0))), Ok(one(200.0, 1.0))).unwrap();
    assert_eq!(sample.arms.candidate, binary(7, 2));
    let started_before = counters.read(at(50), Ok(two(reading("d", Some(35), 7.0, 2.0))), Ok(one(200.0, 1.0))).unwrap();
    assert_eq!(started_before.arms.candidate, binary(0, 0));
}

#[test]
fn a_gap_is_covered_by_the_next_reading_of_both() {
    let mut counters = begun();
    let missing = counters.read(at(10), Err(NoData::Missing(Side::Candidate)), Ok(one(150.0, 1.0)));
    assert_eq!(missing, Err(NoData::Missing(Side::Candidate)));
    let sample = counters.read(at(20), Ok(one(130.0, 1.0)), Ok(one(200.0, 3.0))).unwrap();
    assert_eq!((sample.start, sample.end), (at(0), at(20)));
    assert_eq!((sample.arms.candidate, sample.arms.stable), (binary(30, 1), binary(100, 3)));
    // What one arm cannot cover is dropped for both.
    assert!(counters.read(at(30), Ok(vec![reading("new", None, 9.0, 9.0)]), Ok(one(300.0, 3.0))).is_err());
    let sample = counters.read(at(40), Ok(vec![reading("new", None, 10.0, 9.0)]), Ok(one(301.0, 3.0))).unwrap();
    assert_eq!((sample.start, sample.arms.stable), (at(30), binary(1, 0)));
}

#[test]
fn an_absurd_reading_moves_no_baseline() {
    let mut counters = begun();
    for (n, x, problem) in [
        (f64::NAN, 0.0, NoData::NotANumber),
        (-1.0, 0.0, NoData::Negative),
        (f64::INFINITY, 0.0, NoData::Absurd),
        (1e30, 0.0, NoData::Absurd),
    ] {
        assert_eq!(counters.read(at(5), Ok(one(n, x)), Ok(one(110.0, 0.0))), Err(problem));
        counters = begun();
    }
    assert!(counters.read(at(5), Ok(one(120.0, 130.0)), Ok(one(110.0, 0.0))).is_err());
    let sample = counters.read(at(10), Ok(one(120.0, 1.0)), Ok(one(110.0, 0.0))).unwrap();
    assert_eq!(sample.arms.candidate, binary(20, 1));
    assert_eq!(counters.read(at(10), Ok(one(121.0, 1.0)), Ok(one(111.0, 0.0))), Err(NoData::Again));
    assert_eq!(counters.read(at(11), Ok(vec![]), Ok(one(111.0, 0.0))), Err(NoData::Missing(Side::Candidate)));
}

#[test]
fn young_instances_are_left_out_and_told_of() {
    let mut counters = Counters::new(SignedDuration::from_secs(30));
    let read = |counters: &mut Counters, time, n, x| {
        counters.read(at(time), Ok(vec![reading("a", Some(5), n, x)]), Ok(one(100.0, 0.0)))
    };
    assert!(counters.read(at(0), Ok(one(0.0, 0.0)), Ok(one(100.0, 0.0))).is_err());
    let young = read(&mut counters, 10, 10.0, 2.0).unwrap();
    assert_eq!((young.arms.candidate, young.warming), (binary(0, 0), Some(binary(10, 2))));
    let grown = read(&mut counters, 40, 15.0, 2.0).unwrap();
    assert_eq!((grown.arms.candidate, grown.warming), (binary(5, 0), None));
    assert_eq!(grown.instances, [("a".to_owned(), binary(0, 0))]);
}

#[test]
fn histograms_start_anew_as_a_whole_and_sums_lose_their_squares_to_rounding() {
    let boundaries: Arc<[f64]> = Arc::from([1.0, 2.0]);
    let latency = |counts: [f64; 3]| {
        let totals = Totals::Latency { boundaries: boundaries.clone(), counts: counts.to_vec() };
        Ok(vec![Reading { instance: "a".to_owned(), started: None, totals }])
    };
    let mut counters = Counters::new(SignedDuration::ZERO);
    assert!(counters.read(at(0), latency([5.0, 5.0, 5.0]), latency([1.0, 1.0, 1.0])).is_err());
    let sample = counters.read(at(1), latency([6.0, 7.0, 5.0]), latency([0.0, 1.0, 1.0])).unwrap();
    let histogram = |counts: [u64; 3]| Measured::Latency(Histogram::new(boundaries.clone(), counts.to_vec()).unwrap());
    assert_eq!((sample.arms.candidate, sample.arms.stable), (histogram([1, 2, 0]), histogram([0, 1, 1])));
    let mean = |n: f64, sum: f64, squares: Option<f64>| {
        Ok(vec![Reading { instance: "a".to_owned(), started: None, totals: Totals::Mean { n, sum, squares } }])
    };
    let mut counters = Counters::new(SignedDuration::ZERO);
    assert!(counters.read(at(0), mean(10.0, 20.0, Some(50.0)), mean(10.0, 20.0, None)).is_err());
    let sample = counters.read(at(1), mean(12.0, 26.0, Some(68.5)), mean(5.0, 10.0, None)).unwrap();
    let moments = |n, sum, squares| Measured::Mean(Moments::read(n, sum, squares).unwrap());
    assert_eq!((sample.arms.candidate, sample.arms.stable), (moments(2.0, 6.0, Some(18.5)), moments(5.0, 10.0, None)));
}

#[test]
fn counters_are_kept_as_text() {
    let mut counters = begun();
    let kept = serde_json::to_string(&counters).unwrap();
    let mut restored: Counters = serde_json::from_str(&kept).unwrap();
    let read = |counters: &mut Counters| counters.read(at(10), Ok(one(120.0, 1.0)), Ok(one(180.0, 2.0)));
    assert_eq!(read(&mut restored), read(&mut counters));
}

fn experiment(kind: Kind) -> ExperimentSpec {
    ExperimentSpec {
        metrics: BTreeMap::from([("goals".to_owned(), Metric { higher_is_better: true, ..Metric::new(kind) })]),
        weight: 0.5,
        alpha: 0.05,
        at_least: SignedDuration::from_secs(60),
        at_most: SignedDuration::from_secs(300),
    }
}

#[test]
fn an_experiment_names_the_better_release_or_none() {
    let common = Kind::Binary { common: true };
    for (ours, theirs, outcome) in
        [(18, 10, Outcome::Won(Side::Candidate)), (10, 18, Outcome::Won(Side::Stable)), (12, 12, Outcome::Draw)]
    {
        let mut experiment = Experiment::new(experiment(common), at(0)).unwrap();
        for clock in 0..300 {
            let sample = second(clock, binary(20, ours), binary(20, theirs));
            experiment.observe("goals", Ok(&sample), at(clock + 1));
            let report = experiment.report(at(clock + 1));
            assert!(clock >= 59 || report.outcome == Outcome::Running, "{report:?}");
        }
        assert_eq!(experiment.report(at(300)).outcome, outcome, "{ours} {theirs}");
    }
    let mut running = Experiment::new(experiment(Kind::Mean), at(0)).unwrap();
    for clock in 0..100 {
        let sample = second(clock, moments(30, 12.0, 3.0), moments(30, 10.0, 3.0));
        running.observe("goals", Ok(&sample), at(clock + 1));
    }
    let kept = running.saved().unwrap();
    let mut restored = Experiment::restore(experiment(Kind::Mean), Some(&kept), at(100)).unwrap();
    let report = restored.report(at(100));
    assert_eq!(report.outcome, Outcome::Won(Side::Candidate), "{report:?}");
    let (middle, (low, high)) = report.figures.metrics["goals"].difference.unwrap();
    assert!((middle - 2.0).abs() < 1e-9 && low > 0.0 && high > low, "{middle} {low} {high}");
}
