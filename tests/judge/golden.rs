//! Golden numbers: the logarithm of the evidence, to ten digits, for every formula.

use std::sync::Arc;

use backstay::judge::{
    Arms, Common, Count, Difference, Direction, EFFECTS, HARM, HarmBank, Histogram, Line, Means, NO_HARM, OneArm,
    SafetyBank, TwoArms, is_flat_out, nearest, phi, quantile_interval, rate_interval, slower, within,
};

/// The same to ten digits.
fn same(found: f64, expected: f64, what: &str) {
    let room = if expected == 0.0 { 1e-10 } else { 6e-10 * expected.abs() };
    assert!((found - expected).abs() <= room, "{what}: {found:.12}, not {expected}");
}

fn count(n: u64, x: u64) -> Count {
    Count::new(n, x).unwrap()
}

/// A block of two arms: x and n of the candidate, then of stable. `None` is a restart.
type Block = Option<[u64; 4]>;

fn block([x_c, n_c, x_s, n_s]: [u64; 4]) -> Arms<Count> {
    Arms { candidate: count(n_c, x_c), stable: count(n_s, x_s) }
}

fn line(ratio: f64, delta: f64) -> Line {
    Line { ratio, delta }
}

fn harm(blocks: &[Block], line: Line) -> f64 {
    let mut bank = HarmBank::new(HARM.len());
    for given in blocks {
        match given.map(block) {
            None => bank.restart(),
            Some(arms) => {
                let gains = TwoArms::new(arms.candidate, arms.stable, line);
                bank.bet(|k| gains.gain(HARM[k]));
            }
        }
    }
    bank.ln_e()
}

fn no_harm(blocks: &[[u64; 4]], line: Line) -> f64 {
    let mut bank = SafetyBank::new(NO_HARM.len());
    for arms in blocks.iter().map(|given| block(*given)) {
        let gains = TwoArms::new(arms.candidate, arms.stable, line);
        bank.bet(|k| gains.gain(NO_HARM[k]));
    }
    bank.ln_e()
}

#[test]
fn two_arms_harm() {
    let equal = Line::EQUAL;
    same(harm(&[Some([0, 5, 1, 95])], equal), -0.138_977_988_7, "one failure of stable");
    let three = [Some([1, 5, 1, 95]), Some([2, 4, 0, 96]), Some([1, 6, 2, 94])];
    same(harm(&three, equal), 5.124_473_784, "three blocks");
    same(harm(&three, line(1.2, 0.005)), 3.960_726_143, "three blocks within a line");
    same(harm(&[Some([3, 50, 2, 50]), None, Some([9, 50, 3, 50])], equal), 0.573_711_796_9, "half of the traffic");
    let late = [Some([0, 1, 0, 99]), Some([1, 1, 0, 120]), None, Some([1, 2, 0, 80])];
    same(harm(&late, equal), 4.918_139_797, "a restart");
    same(harm(&[Some([10, 250, 11, 250]); 5], equal), -0.651_392_339_7, "five alike");
}

#[test]
fn two_arms_no_harm() {
    same(no_harm(&[[0, 5, 1, 95]], line(1.0, 0.01)), 0.048_640_979_1, "a point");
    same(no_harm(&[[0, 200, 4, 3800]], line(1.0, 0.005)), 0.625_146_877_5, "half a point");
    same(no_harm(&[[1, 100, 1, 100], [0, 100, 2, 100]], line(1.5, 0.0)), 0.651_064_174_9, "half as many again");
    same(no_harm(&[[5, 500, 6, 500]; 3], line(1.5, 0.0)), 0.760_671_290_8, "three alike");
    same(no_harm(&[[2, 50, 8, 950], [0, 50, 9, 950]], line(1.2, 0.01)), -0.430_231_565_1, "both margins");
}

fn common(blocks: &[[u64; 4]], line: Line, q_s: f64, bets: &[f64]) -> f64 {
    let (mut harm, mut safe) = (HarmBank::new(bets.len()), SafetyBank::new(bets.len()));
    for arms in blocks.iter().map(|given| block(*given)) {
        let gains = Common::new(arms.candidate, arms.stable, line, q_s);
        harm.bet(|k| gains.gain(bets[k]));
        safe.bet(|k| gains.gain(bets[k]));
    }
    if bets == HARM { harm.ln_e() } else { safe.ln_e() }
}

#[test]
fn common_events() {
    let equal = Line::EQUAL;
    same(common(&[[3, 10, 18, 90]], equal, 0.2, &HARM), -0.285_893_046_6, "a small block");
    same(common(&[[30, 100, 180, 900], [25, 100, 170, 900]], equal, 0.2, &HARM), 1.194_414_646, "two blocks");
    same(common(&[[60, 100, 50, 100]], equal, 0.5, &HARM), -0.315_591_365_8, "a half");
    same(common(&[[20, 100, 20, 100]; 2], line(1.0, 0.05), 0.2, &NO_HARM), -0.248_329_953_1, "five points");
    same(common(&[[20, 100, 180, 900]; 2], line(1.25, 0.0), 0.2, &NO_HARM), 0.031_568_676_17, "a quarter more");
}

#[test]
fn one_arm() {
    let harm = |blocks: &[Option<(u64, u64)>], limit: f64| {
        let mut bank = HarmBank::new(HARM.len());
        for given in blocks {
            match given {
                None => bank.restart(),
                Some((x, n)) => bank.bet(|k| OneArm::new(count(*n, *x), limit).gain(HARM[k])),
            }
        }
        bank.ln_e()
    };
    let no_harm = |blocks: &[(u64, u64)], limit: f64| {
        let mut bank = SafetyBank::new(NO_HARM.len());
        for (x, n) in blocks {
            bank.bet(|k| OneArm::new(count(*n, *x), limit).gain(NO_HARM[k]));
        }
        bank.ln_e()
    };
    same(harm(&[Some((0, 10))], 0.01), -0.220_826_955_4, "nothing happened");
    same(harm(&[Some((1, 10)), Some((2, 10))], 0.01), 3.314_110_857, "three of twenty");
    same(harm(&[Some((3, 100)), None, Some((7, 100))], 0.02), 1.956_288_893, "a restart");
    same(no_harm(&[(1, 500)], 0.01), 1.760_577_977, "well within");
    same(no_harm(&[(12, 600), (9, 600)], 0.05), 16.069_376_72, "far within");
}

fn means(blocks: &[Option<[f64; 6]>], line: Line, side: Direction) -> f64 {
    let (mut harm, mut safe) = (HarmBank::new(EFFECTS.len()), SafetyBank::new(EFFECTS.len()));
    for given in blocks {
        let Some([mean_c, n_c, mean_s, n_s, var_c, var_s]) = *given else {
            harm.restart();
            continue;
        };
        let gains = Means::new((mean_c, n_c), (mean_s, n_s), (var_c, var_s), line, side).unwrap();
        harm.bet(|k| gains.gain(EFFECTS[k]));
        safe.bet(|k| gains.gain(EFFECTS[k]));
    }
    if side == Direction::Harm { harm.ln_e() } else { safe.ln_e() }
}

#[test]
fn means_of_values() {
    let equal = Line::EQUAL;
    let (harm, no_harm) = (Direction::Harm, Direction::NoHarm);
    same(means(&[Some([105.0, 20.0, 100.0, 380.0, 900.0, 900.0])], equal, harm), 0.135_670_127_7, "a little more");
    let more = Some([130.0, 20.0, 100.0, 380.0, 900.0, 900.0]);
    same(means(&[more; 3], equal, harm), 3.808_251_403, "much more");
    let then = Some([500.0, 25.0, 100.0, 400.0, 1600.0, 900.0]);
    let blocks = [Some([80.0, 20.0, 100.0, 380.0, 900.0, 900.0]), None, then];
    same(means(&blocks, line(1.05, 0.0), harm), 1.057_272_135, "an outlier");
    let alike = Some([100.0, 100.0, 100.0, 100.0, 400.0, 400.0]);
    same(means(&[alike; 2], line(1.1, 0.0), no_harm), 2.869_087_811, "within a tenth");
    let reward = Some([0.71, 50.0, 0.70, 950.0, 0.04, 0.05]);
    same(means(&[reward; 2], line(1.0, 0.05), no_harm), 1.170_213_98, "within a difference");
}

fn histogram(counts: [u64; 6]) -> Histogram {
    Histogram::new(Arc::from([100.0, 200.0, 400.0, 800.0, 1600.0]), counts.to_vec()).unwrap()
}

#[test]
fn latency() {
    let past = histogram([100, 400, 400, 90, 9, 1]);
    let stable = [10, 40, 40, 9, 1, 0];
    for (q, candidate, stable, u, harm, no_harm) in [
        (0.99, [1, 4, 4, 1, 0, 0], stable, 800.0, -0.196_090_438_6, 0.045_589_432_98),
        (0.99, [0, 3, 4, 1, 2, 0], stable, 800.0, 1.283_310_274, 0.045_589_432_98),
        (0.95, [0, 10, 20, 15, 4, 1], stable, 400.0, 2.904_812_973, -0.679_839_378_6),
        (0.5, [10, 40, 40, 9, 1, 0], stable, 200.0, -0.671_871_896_6, 12.399_562_91),
        (0.9, [100, 400, 400, 90, 10, 0], stable.map(|count| count * 10), 400.0, -0.690_024_074, 40.945_077_21),
    ] {
        let boundary = nearest(&past, q).unwrap();
        assert!((past.boundaries()[boundary] - u).abs() < 1e-9, "q {q}: {}", past.boundaries()[boundary]);
        let arms = Arms { candidate: histogram(candidate), stable: histogram(stable) };
        let mut bank = HarmBank::new(HARM.len());
        let slow = slower(&arms, boundary);
        bank.bet(|k| TwoArms::new(slow.candidate, slow.stable, line(1.25, 0.0)).gain(HARM[k]));
        same(bank.ln_e(), harm, &format!("q {q}: harm"));
        let mut bank = SafetyBank::new(NO_HARM.len());
        let slow = within(&arms, boundary, 2.0).unwrap();
        bank.bet(|k| TwoArms::new(slow.candidate, slow.stable, Line::EQUAL).gain(NO_HARM[k]));
        same(bank.ln_e(), no_harm, &format!("q {q}: no harm"));
    }
}

#[test]
fn intervals_of_rates() {
    for (x, n, alpha, low, high) in [
        (0, 100, 0.05, 0.0, 0.057_028_597_64),
        (1, 10, 0.05, 0.000_465_624_074_4, 0.544_008_676_1),
        (5, 100, 0.05, 0.007_149_478_933, 0.155_794_443_5),
        (50, 1000, 0.01, 0.026_770_816_88, 0.083_091_927_47),
        (1000, 1000, 0.01, 0.991_405_607, 1.0),
    ] {
        let found = rate_interval(count(n, x), alpha);
        same(found.0, low, &format!("{x} of {n}: low"));
        same(found.1, high, &format!("{x} of {n}: high"));
    }
}

#[test]
fn intervals_of_differences() {
    for (s, v, h, alpha, middle, half) in [
        (5.0, 100.0, 100.0, 0.05, 0.05, 0.308_238_999_4),
        (1.0, 0.9, 95.0, 0.05, 0.010_526_315_79, 0.030_859_556_39),
        (-3.0, 40.0, 50.0, 0.01, -0.06, 0.497_408_146_1),
        (0.0, 1.0, 1.0, 0.05, 0.0, 12.521_893_5),
        (80.0, 2500.0, 2500.0, 0.01, 0.032, 0.074_736_110_41),
    ] {
        let found = Difference { s, v, h }.interval(alpha).unwrap();
        same(found.0, middle, "middle");
        same(found.1, half, "half");
    }
}

#[test]
fn intervals_of_quantiles() {
    for (above, n, q, alpha, low, high) in [
        ([900, 500, 100, 10, 0], 1000, 0.99, 0.05, Some(400.0), Some(1600.0)),
        ([900, 500, 100, 10, 0], 1000, 0.5, 0.05, Some(100.0), Some(400.0)),
        ([9, 5, 1, 0, 0], 10, 0.5, 0.05, None, Some(800.0)),
        ([5000, 900, 60, 3, 0], 10_000, 0.95, 0.01, Some(200.0), Some(400.0)),
        ([0; 5], 50, 0.99, 0.05, None, None),
    ] {
        let mut counts = [0; 6];
        let mut before = n;
        for (bucket, above) in counts.iter_mut().zip(above) {
            *bucket = before - above;
            before = above;
        }
        counts[5] = before;
        assert_eq!(quantile_interval(&histogram(counts), q, alpha), (low, high), "{above:?} of {n}, {q}");
    }
}

#[test]
fn flat_out() {
    for (run, seen, x_s, n_s, alpha, expected) in [
        (3, 3, 0, 100, 0.01, true),
        (2, 2, 0, 100, 0.01, false),
        (5, 10_000, 100, 10_000, 0.01, false),
        (6, 10_000, 100, 10_000, 0.01, true),
        (9, 9, 40, 100, 0.05, false),
    ] {
        assert_eq!(is_flat_out(run, seen, count(n_s, x_s), alpha), expected, "{run} of {seen}, {x_s} of {n_s}");
    }
}

#[test]
fn guard() {
    same(phi(&[5, 7, 4, 6, 30].map(|x| count(500, x))), 11.911_214_81, "one of five differs");
    same(phi(&[5, 7, 4, 30].map(|x| count(500, x))), 1.0, "too few instances");
    same(phi(&[0, 0, 0, 0, 9].map(|x| count(500, x))), 1.0, "too few events");
    same(phi(&[10, 10, 10, 10, 10].map(|x| count(500, x))), 1.0, "all alike");
}
