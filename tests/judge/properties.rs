//! What holds for all numbers: the mean of each gain under its null, by summing over all outcomes, and totality.

use backstay::judge::{
    Arms, Common, Count, Direction, HARM, HarmBank, Kind, Line, Means, Moments, NO_HARM, OneArm, SafetyBank, Sample,
    TwoArms, Verdict, phi, rate_interval,
};
use proptest::prelude::*;

use crate::bench::{Bench, ERRORS, at, compared, limited, spec};
use crate::trials::count;

fn choose(n: u64, x: u64) -> f64 {
    (0..x).map(|at| (n - at) as f64 / (at + 1) as f64).product()
}

fn binomial(n: u64, x: u64, p: f64) -> f64 {
    choose(n, x) * p.powi(x as i32) * (1.0 - p).powi((n - x) as i32)
}

/// The mean of e^gain over all outcomes of two binomial arms.
fn mean(n_c: u64, n_s: u64, p_c: f64, p_s: f64, gain: impl Fn(Count, Count) -> f64) -> f64 {
    let mut sum = 0.0;
    for x_c in 0..=n_c {
        for x_s in 0..=n_s {
            let weight = binomial(n_c, x_c, p_c) * binomial(n_s, x_s, p_s);
            sum += weight * gain(count(n_c, x_c), count(n_s, x_s)).exp();
        }
    }
    sum
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() }
}

fn bets() -> impl Strategy<Value = f64> {
    prop::sample::select([&HARM[..], &NO_HARM[..]].concat())
}

/// The candidate's rate, on the forbidden side of the line for a bet: at it, or further inside the null.
fn on_null(bet: f64, on_line: f64, share: f64) -> Option<f64> {
    if bet > 1.0 {
        Some(on_line.min(1.0) * share)
    } else {
        (on_line <= 1.0).then_some(on_line + (1.0 - on_line) * (1.0 - share))
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_bet_gains_on_average_between_two_arms(
        n_c in 1_u64..8, n_s in 1_u64..14, p_s in 0.0..1.0_f64, ratio in 1.0..3.0_f64, delta in 0.0..0.3_f64,
        bet in bets(), share in prop_oneof![Just(1.0), 0.0..1.0_f64],
    ) {
        let line = Line { ratio, delta };
        if let Some(p_c) = on_null(bet, ratio * p_s + delta, share) {
            let found = mean(n_c, n_s, p_c, p_s, |ours, theirs| TwoArms::new(ours, theirs, line).gain(bet));
            prop_assert!(found <= 1.0 + 1e-9, "{found}");
        }
    }

    #[test]
    fn no_bet_gains_on_average_with_common_events(
        n_c in 1_u64..8, n_s in 1_u64..14, p_s in 0.0..1.0_f64, ratio in 1.0..2.0_f64, delta in 0.0..0.3_f64,
        bet in bets(), share in prop_oneof![Just(1.0), 0.0..1.0_f64], guess in 0.0..1.0_f64,
    ) {
        let line = Line { ratio, delta };
        if let Some(p_c) = on_null(bet, ratio * p_s + delta, share) {
            let found = mean(n_c, n_s, p_c, p_s, |ours, theirs| Common::new(ours, theirs, line, guess).gain(bet));
            prop_assert!(found <= 1.0 + 1e-6, "{found}");
        }
    }

    #[test]
    fn no_bet_gains_on_average_where_requests_are_routed_by_chance(
        n_c in 1_u64..8, n_s in 1_u64..14, events in 0_u64..10, bet in prop::sample::select(HARM.to_vec()),
    ) {
        // Whatever the events are: the candidate's share of them is drawn without replacement.
        let (n, m) = (n_c + n_s, events.min(n_c + n_s));
        let low = m.saturating_sub(n_s);
        let found: f64 = (low..=m.min(n_c))
            .map(|x| {
                let weight = choose(m, x) * choose(n - m, n_c - x) / choose(n, n_c);
                weight * TwoArms::new(count(n_c, x), count(n_s, m - x), Line::EQUAL).gain(bet).exp()
            })
            .sum();
        prop_assert!(found <= 1.0 + 1e-9, "{found}");
    }

    #[test]
    fn no_bet_gains_on_average_against_a_limit(n in 1_u64..40, limit in 0.001..0.9_f64, share in 0.0..1.0_f64, bet in bets()) {
        if let Some(p) = on_null(bet, limit, share) {
            let found = mean(n, 0, p, 0.0, |ours, _| OneArm::new(ours, limit).gain(bet));
            prop_assert!(found <= 1.0 + 1e-9, "{found}");
        }
    }

    #[test]
    fn no_bet_gains_on_average_on_means(spread in 0.1..50.0_f64, p in 0.001..0.999_f64, g in 0.01..1.0_f64, side in any::<bool>()) {
        // Two values with mean zero and that variance, as lopsided as it gets; one of each arm, stable's fixed.
        let (high, low) = (spread * ((1.0 - p) / p).sqrt(), -spread * (p / (1.0 - p)).sqrt());
        let side = if side { Direction::Harm } else { Direction::NoHarm };
        let gain = |value: f64| {
            Means::against(0.0, (value, 1.0), spread * spread, side).unwrap().gain(g).exp()
        };
        let found = p * gain(high) + (1.0 - p) * gain(low);
        prop_assert!(found <= 1.0 + 1e-9, "{found}");
        prop_assert!(gain(1e12) <= 7.0 + 1e-9 && gain(-1e12) <= 7.0 + 1e-9);
    }

    #[test]
    fn worse_counts_are_more_evidence_of_harm(
        n_c in 1_u64..1000, n_s in 1_u64..1000, x_c in 0_u64..1000, x_s in 0_u64..1000, bet in bets(),
    ) {
        let (x_c, x_s) = (x_c % n_c, x_s % n_s);
        let gain = |x_c, x_s| TwoArms::new(count(n_c, x_c), count(n_s, x_s), Line::EQUAL).gain(bet);
        let (here, ours, theirs) = (gain(x_c, x_s), gain(x_c + 1, x_s), gain(x_c, x_s + 1));
        if bet > 1.0 {
            prop_assert!(ours > here && theirs < here);
        } else {
            prop_assert!(ours < here && theirs > here);
        }
    }

    #[test]
    fn money_is_kept_by_restarts_and_cutting_only_lowers(
        gains in prop::collection::vec(-3.0..3.0_f64, 1..30), restarts in 0_usize..200, most in 0.1..5.0_f64,
    ) {
        let mut bank = HarmBank::new(8);
        (0..restarts).for_each(|_| bank.restart());
        prop_assert!(bank.ln_e().abs() < 1e-9, "all money is there, whether bet or not");
        gains.iter().for_each(|gain| bank.bet(|k| gain / (k + 1) as f64));
        let before = bank.ln_e();
        bank.restart();
        prop_assert!((bank.ln_e() - before).abs() < 1e-9);
        let mut safe = SafetyBank::new(6);
        for gain in &gains {
            safe.bet(|k| gain / (k + 1) as f64);
            let before = safe.ln_e();
            safe.cut(most);
            prop_assert!((safe.ln_e() - before.min(most)).abs() < 1e-9);
        }
        let before = safe.clone();
        safe.bet(|_| f64::NAN);
        safe.bet(|_| f64::INFINITY);
        prop_assert_eq!(before, safe);
    }

    #[test]
    fn a_limit_does_not_care_how_requests_are_cut_into_intervals(
        n in 1_u64..1000, m in 1_u64..1000, x in 0_u64..1000, y in 0_u64..1000, bet in bets(),
    ) {
        let (one, two) = (count(n, x % (n + 1)), count(m, y % (m + 1)));
        let gain = |count| OneArm::new(count, 0.01).gain(bet);
        let (whole, parts) = (gain(one.plus(two)), gain(one) + gain(two));
        prop_assert!((whole - parts).abs() < 1e-9 * (1.0 + whole.abs()));
    }

    #[test]
    fn intervals_hold_what_was_seen(n in 1_u64..10_000_000, x in any::<u64>()) {
        let count = count(n, x % (n + 1));
        let (low, high) = rate_interval(count, 0.05);
        let rate = count.rate().unwrap();
        prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
        prop_assert!(low <= rate && rate <= high && low < high);
    }

    #[test]
    fn the_guard_only_lowers(counts in prop::collection::vec((0_u64..100_000, any::<u64>()), 0..30)) {
        let counts: Vec<Count> = counts.into_iter().map(|(n, x)| count(n, x % (n + 1))).collect();
        let phi = phi(&counts);
        prop_assert!(phi.is_finite() && phi >= 1.0);
    }

    // T2
    #[test]
    fn no_number_makes_the_judge_say_nonsense(
        numbers in prop::collection::vec(
            (any::<f64>(), any::<f64>(), prop_oneof![Just(0_u64), 1_u64..100, any::<u64>()], any::<u64>(), -5_i64..200), 1..20),
    ) {
        let mut binary = compared(ERRORS, 1.5, 0.01);
        binary.limit = Some(0.05);
        let mut mean = compared(Kind::Mean, 1.1, 0.0);
        mean.higher_is_better = true;
        let latency = limited(Kind::Latency { quantile: 0.99 }, 500.0);
        let mut bench = Bench::new(spec([("a", binary), ("b", mean), ("c", latency)]));
        let mut informed = false;
        for (one, two, n, x, second) in numbers {
            bench.clock = bench.clock.max(second);
            let arms = [
                Count::new(n, x).or_else(|_| Count::read(one, two)).map(backstay::judge::Measured::Binary),
                Moments::read(n as f64, one, Some(two)).map(backstay::judge::Measured::Mean),
                backstay::judge::Histogram::read(std::sync::Arc::from([one, two]), &[n as f64, two, one])
                    .map(backstay::judge::Measured::Latency),
            ];
            for (name, arm) in ["a", "b", "c"].into_iter().zip(arms) {
                let sample = arm.map(|arm| Sample {
                    start: at(second),
                    end: at(second + 1),
                    arms: Arms { candidate: arm.clone(), stable: arm },
                    warming: None,
                    instances: vec![],
                    failing: Some(x),
                });
                informed |= sample.is_ok();
                bench.judge.observe(name, sample.as_ref().map_err(Clone::clone), at(bench.clock + 1));
            }
            let decision = bench.decide();
            let written = serde_json::to_value(&decision).unwrap();
            let figures = &written["figures"];
            prop_assert!(figures["harm"].is_f64(), "{figures}");
            for metric in figures["metrics"].as_object().unwrap().values() {
                prop_assert!(metric["guard"].as_f64().is_some_and(|phi| phi >= 1.0), "{metric}");
                for evidence in ["harm", "overLimit", "noHarm", "withinLimit"] {
                    prop_assert!(metric[evidence].is_null() || metric[evidence].as_f64().is_some_and(|e| e >= 0.0));
                }
            }
            prop_assert!(informed || !matches!(decision.verdict, Verdict::Advance | Verdict::Promote));
            let saved = bench.judge.saved().unwrap();
            let restored = backstay::judge::Judge::restore(bench.judge.spec().clone(), Some(&saved), 0, at(0)).unwrap();
            prop_assert_eq!(restored.clone().decide(at(bench.clock), &[]).note, None, "{}", saved);
        }
    }
}
