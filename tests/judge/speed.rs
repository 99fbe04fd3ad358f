//! How long one decision takes: printed here, and held against its limit by the bench of rollouts.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::time::Instant;

use backstay::judge::{Judge, Kind};

use crate::bench::{ERRORS, at, compared, durations, moments, second, spec};

/// What so many decisions took, in nanoseconds each, and the bytes that are kept of the judge then.
///
/// Eight metrics, two of each kind, against limits and against stable, with 10,000 requests each in every second.
pub(crate) fn decisions(count: i64) -> (Vec<u64>, usize) {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let kinds = [ERRORS, Kind::Binary { common: true }, Kind::Mean, Kind::Latency { quantile: 0.99 }];
    let mut at_kind = kinds.into_iter().cycle();
    let metrics = names.map(|name| {
        let mut metric = compared(at_kind.next().unwrap(), 1.2, 0.0);
        metric.limit = Some(if metric.kind == Kind::Mean { 150.0 } else { 0.5 });
        if matches!(metric.kind, Kind::Latency { .. }) {
            metric.limit = Some(800.0);
        }
        (name, metric)
    });
    let mut judge = Judge::new(spec(metrics), at(0)).unwrap();
    let mut took = vec![];
    for clock in 0..count {
        let samples = [
            second(clock, crate::bench::binary(2_000, 20), crate::bench::binary(8_000, 80)),
            second(clock, crate::bench::binary(2_000, 600), crate::bench::binary(8_000, 2400)),
            second(clock, moments(2_000, 100.0, 30.0), moments(8_000, 100.0, 30.0)),
            second(clock, durations([800, 800, 360, 38, 2, 0]), durations([3200, 3200, 1440, 152, 8, 0])),
        ];
        let begun = Instant::now();
        for (name, sample) in names.iter().zip(samples.iter().cycle()) {
            judge.observe(name, Ok(sample), at(clock + 1));
        }
        let decision = judge.decide(at(clock + 1), &[]);
        took.push(u64::try_from(begun.elapsed().as_nanos()).unwrap());
        assert!(decision.figures.metrics.len() == 8);
    }
    (took, judge.saved().unwrap().len())
}

#[test]
#[ignore = "a measurement: run it optimised"]
fn tables_of_speed() {
    let (took, saved) = decisions(2_000);
    let (median, high) = crate::trials::quantiles(took);
    println!(
        "8 metrics with 10,000 requests each, taken in and decided: {median} ns, 95 %: {high} ns; {saved} bytes saved"
    );
}
