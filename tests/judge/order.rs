//! The order of the judge's questions, and what each answer is.

use backstay::judge::{Failure, Judge, Kind, Mode, NoData, Otherwise, Sample, Spec, Verdict, Why};
use jiff::SignedDuration;

use crate::bench::{Bench, ERRORS, at, binary, compared, durations, limited, moments, second, spec, step};

fn errors() -> Spec {
    spec([("errors", compared(ERRORS, 1.0, 0.02))])
}

#[test]
fn a_good_candidate_advances_and_is_promoted() {
    let mut bench = Bench::new(errors());
    let early = bench.run(30, "errors", [20, 0, 80, 0]).decide();
    assert_eq!((early.verdict, early.why), (Verdict::Hold, Why::Waiting));
    assert_eq!(early.missing, ["the step lasts 30 s more"]);
    let done = bench.run(30, "errors", [20, 0, 80, 0]).decide();
    assert_eq!((done.verdict, done.why), (Verdict::Advance, Why::NoHarm), "{done:?}");
    let entered = bench.enter(1).decide();
    assert_eq!(entered.verdict, Verdict::Hold);
    let last = bench.run(60, "errors", [50, 0, 50, 0]).decide();
    assert_eq!(last.verdict, Verdict::Promote, "{last:?}");
    assert_eq!(last.sentence, "no harm within the margin of the whole traffic: every metric shows it");
}

#[test]
fn each_step_shows_half_of_its_evidence_itself() {
    let mut bench = Bench::new(errors());
    bench.run(60, "errors", [20, 0, 80, 0]).enter(1);
    let figures = bench.decide().figures;
    let carried = figures.metrics["errors"].no_harm.unwrap();
    assert!((carried - 20_f64.sqrt()).abs() < 1e-9, "{carried}");
    assert!((figures.no_harm_needed - 20.0).abs() < 1e-9);
}

#[test]
fn harm_goes_back_for_good_and_says_why() {
    let mut bench = Bench::new(errors());
    let decision = bench.run(20, "errors", [20, 4, 80, 1]).decide();
    assert_eq!(
        (decision.verdict, decision.why, decision.metric.as_deref()),
        (Verdict::Abort, Why::Harm, Some("errors"))
    );
    assert!(
        decision.sentence.starts_with(
            "errors: the candidate is worse than stable over the same time: 80 of 400 requests bad (20 %) against 20 of \
             1600 requests bad (1.25 %); evidence "
        ),
        "{}",
        decision.sentence
    );
    let later = bench.run(100, "errors", [20, 0, 80, 1]).decide();
    assert_eq!(later, decision);
}

#[test]
fn harm_needs_three_requests_and_two_events() {
    let mut bench = Bench::new(errors());
    let two = bench.run(2, "errors", [1, 1, 100_000, 0]).decide();
    assert!(two.figures.harm > two.figures.harm_needed, "{}", two.figures.harm);
    assert_eq!(two.verdict, Verdict::Hold);
    let three = bench.run(1, "errors", [1, 0, 100_000, 0]).decide();
    assert_eq!(three.verdict, Verdict::Abort);
}

#[test]
fn where_harm_and_no_harm_are_both_shown_harm_wins() {
    // Ten times as many errors, and still within a wide margin.
    let mut bench = Bench::new(spec([("errors", compared(ERRORS, 1.0, 0.2))]));
    let decision = bench.run(70, "errors", [100, 3, 400, 1]).decide();
    assert!(decision.figures.metrics["errors"].no_harm.unwrap() >= 20.0);
    assert_eq!(decision.verdict, Verdict::Abort);
}

#[test]
fn what_needs_no_statistics_comes_first() {
    let mut bench = Bench::new(errors());
    let failures = [Failure::CrashLoop("support-x".to_owned())];
    let decision = bench.judge.decide(at(1), &failures);
    assert_eq!((decision.verdict, decision.why), (Verdict::Abort, Why::Failed));
    assert_eq!(decision.sentence, "the candidate starts and ends again and again: support-x");
    let again = bench.judge.decide(at(2), &[]);
    assert_eq!(again, decision);
}

#[test]
fn one_event_is_enough_where_nothing_is_allowed_unless_stable_has_it_too() {
    let calls = || spec([("calls", limited(ERRORS, 0.0))]);
    let mut bench = Bench::new(calls());
    let decision = bench.run(1, "calls", [10, 1, 40, 0]).decide();
    assert_eq!((decision.verdict, decision.why), (Verdict::Abort, Why::Failed));
    let mut bench = Bench::new(calls());
    let both = bench.run(70, "calls", [10, 0, 40, 1]).run(1, "calls", [10, 1, 40, 0]).decide();
    assert_eq!((both.verdict, both.sentence.as_str()), (Verdict::Hold, "calls: both releases are over the limit"));
    let mut bench = Bench::new(calls());
    assert_eq!(bench.run(70, "calls", [10, 0, 40, 0]).decide().verdict, Verdict::Advance);
}

#[test]
fn young_instances_are_seen_by_the_hard_rules_alone() {
    let mut bench = Bench::new(spec([("calls", limited(ERRORS, 0.0))]));
    let sample = Sample { warming: Some(binary(3, 1)), ..second(0, binary(10, 0), binary(40, 0)) };
    let decision = bench.sample("calls", Ok(&sample)).decide();
    assert_eq!(decision.verdict, Verdict::Abort);
    assert_eq!(decision.figures.metrics["calls"].candidate.as_ref().unwrap().n, 10);
}

#[test]
fn a_candidate_that_fails_flat_out_goes_back_at_once() {
    let failures = || {
        let mut metric = compared(ERRORS, 1.0, 0.02);
        metric.failures = true;
        spec([("errors", metric)])
    };
    let mut bench = Bench::new(failures());
    bench.run(20, "errors", [0, 0, 100, 1]);
    let two = bench.run(2, "errors", [1, 1, 9, 0]).decide();
    assert_eq!(two.verdict, Verdict::Hold, "{two:?}");
    let five = bench.run(2, "errors", [1, 1, 9, 0]).decide();
    assert_eq!((five.verdict, five.why), (Verdict::Abort, Why::Failed));
    assert_eq!(five.sentence, "errors: the last 4 requests of the candidate all failed");
    // Where stable fails as well, nobody is blamed.
    let mut bench = Bench::new(failures());
    let both = bench.run(30, "errors", [2, 2, 8, 8]).decide();
    assert_eq!(both.verdict, Verdict::Hold);
    assert_ne!(both.why, Why::Failed);
}

#[test]
fn a_limit_that_stable_breaks_too_is_muted() {
    let mut bench = Bench::new(spec([("errors", limited(ERRORS, 0.01))]));
    let both = bench.run(70, "errors", [20, 2, 80, 8]).decide();
    assert_eq!((both.verdict, both.why), (Verdict::Hold, Why::Waiting), "{both:?}");
    assert_eq!(both.sentence, "errors: both releases are over the limit");
    assert!(both.figures.metrics["errors"].muted);
    // The candidate alone: it goes back.
    let mut bench = Bench::new(spec([("errors", limited(ERRORS, 0.01))]));
    let alone = bench.run(70, "errors", [20, 2, 80, 0]).decide();
    assert_eq!((alone.verdict, alone.why), (Verdict::Abort, Why::Harm));
    assert!(alone.sentence.contains("is over its limit of 1 %"), "{}", alone.sentence);
}

#[test]
fn a_limit_alone_must_be_shown_to_be_kept() {
    let mut bench = Bench::new(spec([("errors", limited(ERRORS, 0.05))]));
    let few = bench.run(60, "errors", [1, 0, 4, 0]).decide();
    assert_eq!(few.verdict, Verdict::Hold);
    assert!(
        few.sentence.starts_with("errors: that the candidate keeps the limit of 5 % is not shown yet: about "),
        "{}",
        few.sentence
    );
    let many = bench.run(60, "errors", [10, 0, 40, 0]).decide();
    assert_eq!(many.verdict, Verdict::Advance);
}

#[test]
fn a_step_has_limits_of_its_own() {
    let mut spec = spec([("errors", limited(ERRORS, 0.05))]);
    spec.steps[1].limits.insert("errors".to_owned(), 0.001);
    let mut bench = Bench::new(spec);
    let first = bench.run(70, "errors", [50, 1, 50, 0]).decide();
    assert_eq!(first.verdict, Verdict::Advance, "{first:?}");
    let second = bench.enter(1).run(60, "errors", [50, 1, 50, 0]).decide();
    assert_eq!(second.verdict, Verdict::Abort, "{second:?}");
}

#[test]
fn suspicion_waits_and_never_goes_back() {
    let mut bench = Bench::new(spec([("errors", compared(ERRORS, 1.0, 0.3))]));
    bench.run(120, "errors", [50, 0, 200, 1]);
    assert_eq!(bench.decide().verdict, Verdict::Advance);
    let mut found = false;
    for _ in 0..60 {
        let decision = bench.run(1, "errors", [50, 3, 200, 1]).decide();
        assert!(decision.verdict != Verdict::Advance || decision.figures.harm < 10.0);
        if (10.0..100.0).contains(&decision.figures.harm) {
            found = true;
            assert_eq!(decision.verdict, Verdict::Hold);
            assert!(decision.sentence.starts_with("harm is suspected: evidence "), "{}", decision.sentence);
        }
    }
    assert!(found);
}

#[test]
fn an_undecided_step_does_at_its_deadline_what_is_asked() {
    let few = [1, 0, 4, 0];
    for (wish, verdict) in
        [(Otherwise::Hold, Verdict::Hold), (Otherwise::Abort, Verdict::Abort), (Otherwise::Advance, Verdict::Advance)]
    {
        let tight = spec([("errors", compared(ERRORS, 1.0, 0.005))]);
        let mut bench = Bench::new(Spec { on_undecided: wish, ..tight });
        let before = bench.run(179, "errors", few).decide();
        assert_eq!((before.verdict, before.why), (Verdict::Hold, Why::Waiting));
        let after = bench.run(1, "errors", few).decide();
        assert_eq!((after.verdict, after.why), (verdict, Why::Undecided), "{after:?}");
        assert!(after.sentence.starts_with("undecided at the deadline of the step: errors: "), "{}", after.sentence);
        // A deadline blames nobody: later evidence is still heard.
        let later = bench.run(60, "errors", [100, 0, 400, 0]).decide();
        assert_eq!(later.verdict, Verdict::Advance);
    }
}

#[test]
fn a_step_sees_its_samples() {
    let mut spec = errors();
    spec.steps[0].samples = Some(5_000);
    let decision = Bench::new(spec).run(70, "errors", [20, 0, 80, 0]).decide();
    assert_eq!(decision.sentence, "errors: 1400 of 5000 requests of the candidate in this step");
}

#[test]
fn with_all_traffic_there_is_nothing_to_compare_with() {
    let mut errors = compared(ERRORS, 1.0, 0.01);
    errors.limit = Some(0.05);
    let spec =
        Spec { steps: vec![step(1.0, 60)], ..spec([("errors", errors), ("cost", compared(Kind::Mean, 1.1, 0.0))]) };
    let mut bench = Bench::new(spec);
    let decision = bench.run(60, "errors", [10, 0, 0, 0]).decide();
    assert_eq!(decision.verdict, Verdict::Promote, "{decision:?}");
}

#[test]
fn a_bake_watches_limits() {
    let mut metric = limited(ERRORS, 0.05);
    metric.failures = true;
    let spec = Spec { steps: vec![step(1.0, 600)], mode: Mode::Bake, ..spec([("errors", metric)]) };
    let mut bench = Bench::new(spec.clone());
    assert_eq!(bench.run(599, "errors", [10, 0, 0, 0]).decide().verdict, Verdict::Hold);
    assert_eq!(bench.run(1, "errors", [10, 0, 0, 0]).decide().verdict, Verdict::Promote);
    // A tenth fails after five good minutes: back within two.
    let mut bench = Bench::new(spec.clone());
    bench.run(300, "errors", [20, 0, 0, 0]);
    assert_eq!(bench.run(120, "errors", [20, 2, 0, 0]).decide().why, Why::Harm);
    // The circuit breaker: more than half of twenty requests.
    let mut bench = Bench::new(spec.clone());
    bench.run(300, "errors", [20, 0, 0, 0]);
    let broken = bench.run(1, "errors", [20, 11, 0, 0]).decide();
    assert_eq!((broken.why, broken.sentence.as_str()), (Why::Failed, "errors: 11 of the last 20 requests failed"));
    // Nobody measures: it is not called good.
    let mut bench = Bench::new(spec);
    bench.clock = 700;
    assert_eq!(bench.decide().why, Why::NoData);
}

#[test]
fn a_slow_candidate_goes_back_and_a_fast_one_advances() {
    let p99 = || spec([("p99", compared(Kind::Latency { quantile: 0.99 }, 2.0, 0.0))]);
    let mut bench = Bench::new(p99());
    for _ in 0..60 {
        bench.measure("p99", durations([40, 40, 18, 2, 0, 0]), durations([160, 160, 72, 8, 0, 0]));
    }
    let good = bench.decide();
    assert_eq!(good.verdict, Verdict::Advance, "{good:?}");
    let mut bench = Bench::new(p99());
    for _ in 0..60 {
        bench.measure("p99", durations([10, 20, 40, 30, 0, 0]), durations([160, 160, 72, 8, 0, 0]));
    }
    let slow = bench.decide();
    assert_eq!(slow.verdict, Verdict::Abort, "{slow:?}");
    assert!(slow.sentence.contains("p99 at most 800 of "), "{}", slow.sentence);
    let mut bench = Bench::new(spec([("p99", compared(Kind::Latency { quantile: 0.99 }, 1.05, 0.0))]));
    for _ in 0..60 {
        bench.measure("p99", durations([40, 40, 18, 2, 0, 0]), durations([160, 160, 72, 8, 0, 0]));
    }
    assert_eq!(bench.decide().sentence, "p99: the buckets are too coarse to tell a factor of 1.1");
}

#[test]
fn means_are_judged_both_ways() {
    for (higher, mean, verdict) in [
        (false, 100.0, Verdict::Advance),
        (false, 150.0, Verdict::Abort),
        (true, 100.0, Verdict::Advance),
        (true, 60.0, Verdict::Abort),
    ] {
        let mut metric = compared(Kind::Mean, 1.2, 0.0);
        metric.higher_is_better = higher;
        let mut bench = Bench::new(spec([("value", metric)]));
        for _ in 0..90 {
            bench.measure("value", moments(25, mean, 30.0), moments(100, 100.0, 30.0));
        }
        let decision = bench.decide();
        assert_eq!(decision.verdict, verdict, "{higher} {mean}: {decision:?}");
    }
    // A limit of a mean, without a comparison.
    for (mean, verdict) in [(100.0, Verdict::Advance), (150.0, Verdict::Abort)] {
        let mut bench = Bench::new(spec([("cost", limited(Kind::Mean, 120.0))]));
        for _ in 0..60 {
            bench.measure("cost", moments(25, mean, 30.0), moments(100, 100.0, 30.0));
        }
        assert_eq!(bench.decide().verdict, verdict, "{mean}");
    }
}

#[test]
fn a_saved_judge_goes_on_and_a_lost_one_says_so() {
    let mut bench = Bench::new(errors());
    bench.run(61, "errors", [20, 0, 80, 1]);
    let saved = bench.judge.saved().unwrap();
    let restored = |spec: Spec, saved: Option<&str>| {
        let mut judge = Judge::restore(spec, saved, 0, at(61)).unwrap();
        judge.decide(at(61), &[])
    };
    let here = bench.decide();
    let there = restored(errors(), Some(&saved));
    assert_eq!((there.verdict, &there.sentence, &there.note), (here.verdict, &here.sentence, &None));
    assert!((there.figures.harm / here.figures.harm - 1.0).abs() < 1e-9);
    let other = Spec { alpha: 0.05, ..errors() };
    for (spec, saved, note) in [
        (errors(), None, "the judge began anew: its evidence was lost"),
        (errors(), Some("{"), "the judge began anew: its saved evidence cannot be read"),
        (other, Some(saved.as_str()), "the judge began anew: the analysis has changed"),
        (
            errors(),
            Some(saved.replace("\"version\":1", "\"version\":2").as_str()),
            "the judge began anew: its evidence was saved by another version",
        ),
    ] {
        let decision = restored(spec, saved);
        assert_eq!((decision.verdict, decision.note.as_deref()), (Verdict::Hold, Some(note)));
    }
}

#[test]
fn each_time_counts_once_and_a_change_of_weights_drops_what_is_open() {
    let mut bench = Bench::new(errors());
    let sample = second(0, binary(20, 1), binary(80, 0));
    bench.sample("errors", Ok(&sample));
    let once = bench.judge.clone();
    bench.judge.observe("errors", Ok(&sample), at(1));
    assert_eq!(bench.judge, once);
    let mut bench = Bench::new(errors());
    bench.run(1, "errors", [1, 1, 5, 0]);
    bench.judge.shift();
    bench.run(1, "errors", [0, 0, 4, 0]);
    assert!((bench.decide().figures.harm - 1.0).abs() < 1e-9);
    bench.run(1, "errors", [1, 1, 5, 0]);
    assert!(bench.decide().figures.harm > 1.0);
}

#[test]
fn a_wrong_specification_is_refused() {
    let metric = || compared(ERRORS, 1.0, 0.02);
    let cases = [
        (Spec { alpha: 0.0, ..errors() }, "alpha"),
        (Spec { alpha: f64::NAN, ..errors() }, "alpha"),
        (Spec { steps: vec![], ..errors() }, "steps"),
        (Spec { steps: vec![step(0.0, 60)], ..errors() }, "step 1"),
        (spec([("errors", backstay::judge::Metric { weight: -1.0, ..metric() })]), "metric `errors`"),
        (spec([("errors", compared(ERRORS, 1.0, 0.0))]), "metric `errors`"),
        (spec([("errors", backstay::judge::Metric::new(ERRORS))]), "metric `errors`"),
        (spec([("p99", compared(Kind::Latency { quantile: 1.0 }, 1.2, 0.0))]), "metric `p99`"),
        (spec([("errors", limited(ERRORS, 1.5))]), "metric `errors`"),
    ];
    for (spec, what) in cases {
        let wrong = Judge::new(spec, at(0)).unwrap_err().to_string();
        assert!(wrong.starts_with(&format!("cannot judge by {what}: ")), "{wrong}");
    }
}

// T2
#[test]
fn what_is_no_data_holds_and_never_promotes() {
    let good = || second(0, binary(20, 0), binary(80, 0));
    let bad: [(&str, Result<Sample, NoData>); 12] = [
        ("missing", Err(NoData::Missing(backstay::judge::Side::Candidate))),
        ("not a number", backstay::judge::Count::read(f64::NAN, 0.0).map(|_| good())),
        ("negative", backstay::judge::Count::read(10.0, -1.0).map(|_| good())),
        ("infinite", backstay::judge::Count::read(f64::INFINITY, 0.0).map(|_| good())),
        ("absurd", backstay::judge::Count::read(1e300, 0.0).map(|_| good())),
        ("more events than requests", backstay::judge::Count::read(1.0, 2.0).map(|_| good())),
        ("slow", Err(NoData::Provider("the metrics server did not answer within 5 s".to_owned()))),
        ("another kind", Ok(second(0, moments(20, 1.0, 1.0), moments(80, 1.0, 1.0)))),
        ("the future", Ok(Sample { end: at(100_000), ..good() })),
        ("backwards", Ok(Sample { start: at(10), end: at(5), ..good() })),
        ("stale", Ok(Sample { start: at(-500), end: at(-499), ..good() })),
        ("again", Ok(good())),
    ];
    for (what, sample) in bad {
        let mut bench = Bench::new(spec([("errors", compared(ERRORS, 1.0, 0.02))]));
        bench.judge.enter(1, at(0));
        for _ in 0..400 {
            bench.sample("errors", sample.as_ref().map_err(Clone::clone));
            let decision = bench.decide();
            assert_eq!(decision.verdict, Verdict::Hold, "{what}: {decision:?}");
        }
        let decision = bench.decide();
        assert_eq!(decision.why, Why::NoData, "{what}");
        assert!(decision.sentence.starts_with("errors: no data: "), "{what}: {}", decision.sentence);
    }
}

// T2
#[test]
fn evidence_of_the_past_does_not_outlive_the_measurement() {
    for wish in [Otherwise::Hold, Otherwise::Advance] {
        let mut bench = Bench::new(Spec { on_no_data: wish, ..errors() });
        bench.run(60, "errors", [20, 0, 80, 0]);
        assert_eq!(bench.decide().verdict, Verdict::Advance);
        // The very next one fails: it waits, without blame.
        bench.sample("errors", Err(NoData::NotANumber));
        let decision = bench.decide();
        assert_eq!((decision.verdict, decision.why), (Verdict::Hold, Why::Waiting));
        assert_eq!(decision.sentence, "errors: the last measurement is missing: the value is not a number");
        bench.clock += 100;
        let decision = bench.decide();
        assert_eq!((decision.verdict, decision.why), (Verdict::Hold, Why::NoData));
    }
}

#[test]
fn a_metric_without_data_does_what_is_asked() {
    let two = || spec([("errors", compared(ERRORS, 1.0, 0.02)), ("goals", compared(ERRORS, 1.0, 0.05))]);
    for (wish, verdict) in
        [(Otherwise::Hold, Verdict::Hold), (Otherwise::Abort, Verdict::Abort), (Otherwise::Advance, Verdict::Advance)]
    {
        let mut bench = Bench::new(Spec { on_no_data: wish, ..two() });
        bench.run(40, "errors", [20, 0, 80, 0]);
        assert_eq!(bench.decide().verdict, Verdict::Hold);
        let decision = bench.run(40, "errors", [20, 0, 80, 0]).decide();
        assert_eq!(decision.verdict, verdict, "{decision:?}");
    }
    let mut optional = two();
    optional.metrics.get_mut("goals").unwrap().required = false;
    assert_eq!(Bench::new(optional).run(80, "errors", [20, 0, 80, 0]).decide().verdict, Verdict::Advance);
}

#[test]
fn harm_is_one_sum_over_all_metrics() {
    // Two metrics, each with a little evidence of its own, and a third that says nothing.
    let names = ["a", "b", "c"];
    let mut bench = Bench::new(spec(names.map(|name| (name, compared(ERRORS, 1.0, 0.02)))));
    for _ in 0..60 {
        let sample = second(bench.clock, binary(20, 1), binary(80, 1));
        for name in ["a", "b"] {
            bench.judge.observe(name, Ok(&sample), at(bench.clock + 1));
        }
        bench.clock += 1;
    }
    let figures = bench.decide().figures;
    let each: Vec<f64> = names.iter().map(|name| figures.metrics[*name].harm.unwrap()).collect();
    assert!((figures.harm - each.iter().sum::<f64>() / 3.0).abs() < 1e-9 * figures.harm, "{figures:?}");
    assert!(each[0] > 1.0 && (each[2] - 1.0).abs() < 1e-9);
}

#[test]
fn the_time_of_a_step_may_be_nothing() {
    let mut spec = errors();
    spec.steps[0].hold_for = SignedDuration::ZERO;
    assert_eq!(Bench::new(spec).run(10, "errors", [20, 0, 80, 0]).decide().verdict, Verdict::Advance);
}

#[test]
fn unequal_instances_of_stable_lower_the_evidence() {
    let harm = |differ: bool| {
        let mut bench = Bench::new(errors());
        for _ in 0..5 {
            let one = |at: u64| (format!("pod-{at}"), binary(100, if differ { 30 * u64::from(at == 0) } else { 6 }));
            let sample =
                Sample { instances: (0..5).map(one).collect(), ..second(bench.clock, binary(50, 5), binary(500, 30)) };
            bench.sample("errors", Ok(&sample));
        }
        let figures = bench.decide().figures;
        (figures.harm, figures.metrics["errors"].guard)
    };
    let ((equal, one), (unequal, more)) = (harm(false), harm(true));
    assert!((one - 1.0).abs() < 1e-9 && more > 10.0, "{one} {more}");
    assert!(unequal < equal / 1.5, "{unequal} {equal}");
}

// T2
#[test]
fn old_measurements_are_no_evidence() {
    let mut bench = Bench::new(errors());
    for clock in 0..200 {
        let old = second(clock - 5_000, binary(200, 0), binary(800, 0));
        bench.judge.observe("errors", Ok(&old), at(clock));
    }
    bench.clock = 200;
    let fresh = bench.run(1, "errors", [60, 0, 240, 0]).decide();
    assert_eq!(fresh.verdict, Verdict::Hold, "{fresh:?}");
    assert_eq!(fresh.figures.metrics["errors"].in_step, 60);
}
