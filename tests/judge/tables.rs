//! The whole tables: ten thousand simulated rollouts per line, an hour of looks each. Run them optimised:
//! `cargo test --release --test judge -- --ignored --nocapture tables`.

use backstay::judge::Line;

use crate::dice::Dice;
use crate::trials::{Course, Draw, dear, detection, false_abort, no_harm, quantiles, slow};

const RUNS: u64 = 10_000;

/// Of so many runs this many may be aborted at α: the mean and three standard deviations.
fn most_of(runs: u64, alpha: f64) -> f64 {
    let runs = runs as f64;
    runs * alpha + 3.0 * (runs * alpha * (1.0 - alpha)).sqrt()
}

// T5
#[test]
#[ignore = "takes minutes, optimised"]
fn tables_of_false_aborts() {
    println!("false aborts of identical arms, looked at every second for an hour, {RUNS} runs");
    println!("seed   rate   per s  weight   alpha 5 %  alpha 1 %");
    let mut worst = [0; 2];
    let mut seed = 1;
    for rate in [0.001, 0.01, 0.05, 0.2] {
        for per_second in [1, 20, 500] {
            for weight in [0.01, 0.1, 0.5] {
                let mut dice = Dice::new(seed);
                let mut draw = Draw::new(rate, rate, weight);
                let mut aborts = [0; 2];
                for _ in 0..RUNS {
                    let hit = false_abort(rate, per_second, weight, 3600, &mut dice, &mut draw);
                    aborts = std::array::from_fn(|at| aborts[at] + u64::from(hit[at]));
                }
                let shown = aborts.map(|aborts| aborts as f64 * 100.0 / RUNS as f64);
                println!(
                    "{seed:4} {:5.1} % {per_second:6} {:5.0} % {:9.2} % {:8.2} %",
                    rate * 100.0,
                    weight * 100.0,
                    shown[0],
                    shown[1]
                );
                worst = std::array::from_fn(|at| worst[at].max(aborts[at]));
                seed += 1;
            }
        }
    }
    println!("worst: {:.2} %, {:.2} %", worst[0] as f64 / 100.0, worst[1] as f64 / 100.0);
    assert!(worst[0] as f64 <= most_of(RUNS, 0.05) && worst[1] as f64 <= most_of(RUNS, 0.01));
}

/// Prints a pair of figures beside the expected one, and how far it is from it.
fn beside(found: (u64, u64), expected: (u64, u64)) -> String {
    let off = |found: u64, expected: u64| (found as f64 / expected as f64 - 1.0) * 100.0;
    let (median, high) = (off(found.0, expected.0), off(found.1, expected.1));
    format!("{} / {} (expected {} / {}: {median:+.0} %, {high:+.0} %)", found.0, found.1, expected.0, expected.1)
}

// T5
#[test]
#[ignore = "takes minutes, optimised"]
fn tables_of_detection() {
    println!("candidate requests until abort, median / 95 %, {RUNS} runs");
    let table = [
        (0.001, 2.0, 0.05, (12_762, 31_510), (17_891, 40_550)),
        (0.001, 5.0, 0.05, (1_171, 3_180), (1_725, 3_996)),
        (0.001, 20.0, 0.05, (139, 396), (187, 480)),
        (0.01, 2.0, 0.05, (1_283, 3_131), (1_736, 3_887)),
        (0.01, 5.0, 0.05, (129, 318), (173, 404)),
        (0.01, 20.0, 0.05, (15, 41), (21, 49)),
        (0.05, 2.0, 0.05, (253, 620), (355, 820)),
        (0.05, 5.0, 0.05, (28, 67), (39, 84)),
        (0.05, 20.0, 0.05, (4, 6), (5, 7)),
        (0.001, 2.0, 0.5, (24_199, 61_743), (35_697, 76_351)),
        (0.001, 5.0, 0.5, (2_707, 6_528), (3_962, 8_380)),
        (0.001, 20.0, 0.5, (406, 894), (588, 1_140)),
        (0.01, 2.0, 0.5, (2_601, 6_054), (3_597, 7_736)),
        (0.01, 5.0, 0.5, (291, 674), (408, 914)),
        (0.01, 20.0, 0.5, (47, 98), (64, 122)),
        (0.05, 2.0, 0.5, (526, 1_277), (735, 1_629)),
        (0.05, 5.0, 0.5, (65, 153), (89, 192)),
        (0.05, 20.0, 0.5, (12, 21), (14, 26)),
    ];
    for (at, (rate, times, weight, five, one)) in table.into_iter().enumerate() {
        let seed = 100 + at as u64;
        let (mut dice, mut draw) = (Dice::new(seed), Draw::new(rate * times, rate, weight));
        for restarts in [false, true] {
            let course = Course { per_second: 10, restarts, good: 0 };
            let hits: Vec<[u64; 2]> = (0..RUNS).filter_map(|_| detection(&mut draw, &course, &mut dice)).collect();
            let [at_five, at_one] = [0, 1].map(|alpha| quantiles(hits.iter().map(|hit| hit[alpha]).collect()));
            let with = if restarts { "with fresh money every minute" } else { "without" };
            println!("seed {seed}: {} %, {times} times, weight {} %, {with}", rate * 100.0, weight * 100.0);
            println!("    alpha 5 %: {}\n    alpha 1 %: {}", beside(at_five, five), beside(at_one, one));
        }
    }
    for (restarts, expected) in [(true, (4_325, 7_400)), (false, (8_300, 12_625))] {
        let (mut dice, mut draw) = (Dice::new(200), Draw::new(0.02, 0.01, 0.25));
        let course = Course { per_second: 100, restarts, good: 900 };
        let hits = (0..RUNS).filter_map(|_| detection(&mut draw, &course, &mut dice)).map(|hit| hit[1]);
        let found = quantiles(hits.collect());
        println!(
            "seed 200: 1 % to 2 % after 15 minutes, 100 a second, weight 25 %, restarts {restarts}: {}",
            beside(found, expected)
        );
    }
}

// T5
#[test]
#[ignore = "takes minutes, optimised"]
fn tables_of_no_harm() {
    println!("candidate requests until no harm is shown, identical arms, beta 5 %, median / 95 %, {RUNS} runs");
    let lines = [(1.0, 0.005), (1.0, 0.01), (1.0, 0.02), (1.5, 0.0), (2.0, 0.0)];
    let table = [
        (0.001, [(1_117, 2_256), (449, 850), (231, 341), (33_500, 101_596), (10_618, 29_674)]),
        (0.01, [(3_355, 9_399), (994, 2_823), (363, 777), (3_579, 10_660), (1_102, 2_881)]),
        (0.05, [(17_417, 50_515), (4_575, 12_391), (1_079, 3_074), (783, 2_021), (238, 630)]),
    ];
    let mut seed = 300;
    for (rate, expected) in table {
        for ((ratio, delta), expected) in lines.into_iter().zip(expected) {
            let line = Line { ratio, delta };
            let found = |weight: f64| {
                let (mut dice, mut draw) = (Dice::new(seed), Draw::new(rate, rate, weight));
                quantiles((0..RUNS).map(|_| no_harm(&mut draw, line, 0.05, 1_000_000, &mut dice)).collect())
            };
            let (few, half) = (found(0.05), found(0.5));
            println!("seed {seed}: {} %, ratio {ratio}, delta {delta}: {}", rate * 100.0, beside(few, expected));
            println!("    weight 50 %: {} / {}, {:.1} times", half.0, half.1, half.0 as f64 / few.0 as f64);
            seed += 1;
        }
    }
}

// T5
#[test]
#[ignore = "takes minutes, optimised"]
fn tables_of_latency_and_means() {
    let runs = RUNS / 5;
    for restarts in [false, true] {
        for (weight, five, one) in [(0.05, (184, 461), (246, 562)), (0.5, (584, 1_268), (742, 1_556))] {
            let mut dice = Dice::new(400);
            let hits: Vec<[u64; 2]> = (0..runs).map(|_| slow(weight, 0.6, 1.5, restarts, &mut dice)).collect();
            let [at_five, at_one] = [0, 1].map(|alpha| quantiles(hits.iter().map(|hit| hit[alpha]).collect()));
            println!(
                "seed 400: p99 +50 %, lognormal with sigma 0.6, weight {weight}, restarts {restarts}, {runs} runs"
            );
            println!("    alpha 5 %: {}\n    alpha 1 %: {}", beside(at_five, five), beside(at_one, one));
        }
    }
    for ratio in [1.0, 1.05] {
        for (cv, expected) in [(0.3, (195, 219)), (1.0, (538, 1_047))] {
            let mut dice = Dice::new(500);
            let found = quantiles((0..RUNS).map(|_| dear(cv, 1.2, ratio, 0.01, 100_000, &mut dice)).collect());
            println!(
                "seed 500: mean +20 %, cv {cv}, weight 20 %, alpha 1 %, ratio {ratio}: {}",
                beside(found, expected)
            );
        }
    }
}
