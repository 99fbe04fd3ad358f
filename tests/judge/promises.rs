//! The promises by simulation, small enough for every run: the seeds are fixed, so a run that passes always passes.

use backstay::judge::{Baseline, Line, Need, Recent, Verdict, Why, is_flat_out, needs, phi};

use crate::bench::{Bench, ERRORS, binary, compared, spec, step};
use crate::dice::{Binomial, Dice};
use crate::trials::{Course, Draw, Harm, count, detection, false_abort, no_harm, quantiles};

/// So many of `runs` at a chance of α, and three standard deviations.
fn most(runs: u64, alpha: f64) -> f64 {
    let mean = runs as f64 * alpha;
    mean + 3.0 * (mean * (1.0 - alpha)).sqrt()
}

// T5
#[test]
fn identical_arms_are_rarely_aborted() {
    let runs = 200;
    for (seed, rate, per_second, weight) in
        [(1, 0.01, 20, 0.1), (2, 0.05, 100, 0.5), (3, 0.001, 500, 0.5), (4, 0.2, 5, 0.01)]
    {
        let (mut dice, mut draw) = (Dice::new(seed), Draw::new(rate, rate, weight));
        let mut aborts = [0_u32; 2];
        for _ in 0..runs {
            let hit = false_abort(rate, per_second, weight, 600, &mut dice, &mut draw);
            aborts = std::array::from_fn(|at| aborts[at] + u32::from(hit[at]));
        }
        println!("seed {seed}: {aborts:?} of {runs} at alpha 5 % and 1 %");
        assert!(f64::from(aborts[0]) <= most(runs, 0.05) && f64::from(aborts[1]) <= most(runs, 0.01), "{aborts:?}");
    }
}

// T5
#[test]
fn harm_is_found_within_the_stated_requests() {
    for (seed, rate, times, weight, (median, high)) in [
        (11, 0.01, 2.0, 0.05, (1_736, 3_887)),
        (12, 0.01, 5.0, 0.05, (173, 404)),
        (13, 0.01, 20.0, 0.05, (21, 49)),
        (14, 0.05, 5.0, 0.5, (89, 192)),
    ] {
        let (mut dice, mut draw) = (Dice::new(seed), Draw::new(rate * times, rate, weight));
        let course = Course { per_second: 10, restarts: true, good: 0 };
        let hits = (0..400).filter_map(|_| detection(&mut draw, &course, &mut dice)).map(|hit| hit[1]);
        let found = quantiles(hits.collect());
        println!("seed {seed}: {found:?} where ({median}, {high}) is stated");
        assert!(found.0 as f64 <= 1.1 * f64::from(median) && found.1 as f64 <= 1.15 * f64::from(high), "{found:?}");
    }
}

// T5
#[test]
fn no_harm_is_shown_within_the_stated_requests_and_harm_rarely_passes() {
    let line = Line { ratio: 1.0, delta: 0.01 };
    let (mut dice, mut draw) = (Dice::new(21), Draw::new(0.01, 0.01, 0.05));
    let found = quantiles((0..400).map(|_| no_harm(&mut draw, line, 0.05, 100_000, &mut dice)).collect());
    println!("seed 21: {found:?}");
    assert!(found.0 <= 1_100 && found.1 <= 3_200, "{found:?}");
    // On the line itself it passes with a chance of at most β.
    let (mut dice, mut draw) = (Dice::new(22), Draw::new(0.02, 0.01, 0.05));
    let passed = (0..200).filter(|_| no_harm(&mut draw, line, 0.05, 10_000, &mut dice) < 10_000).count();
    println!("seed 22: {passed} of 200 pass at beta 5 %");
    assert!(passed as f64 <= most(200, 0.05), "{passed}");
}

/// Up to ten minutes of looking every second, through the judge itself with all its questions.
fn rollout(candidate: f64, stable: f64, dice: &mut Dice) -> (Verdict, Why, i64) {
    let mut bench = Bench::new(spec([("errors", compared(ERRORS, 1.0, 0.05))]));
    let (mut arm, mut ours, mut theirs) = (Binomial::new(0.2), Binomial::new(candidate), Binomial::new(stable));
    let mut entered = 0;
    for _ in 0..600 {
        let n_c = arm.draw(50, dice);
        let n_s = 50 - n_c;
        let (x_c, x_s) = (ours.draw(n_c, dice), theirs.draw(n_s, dice));
        bench.measure("errors", binary(n_c, x_c), binary(n_s, x_s));
        let decision = bench.decide();
        match decision.verdict {
            Verdict::Advance => {
                entered += 1;
                bench.enter(entered);
            }
            Verdict::Promote | Verdict::Abort => return (decision.verdict, decision.why, bench.clock),
            Verdict::Hold => {}
        }
    }
    (Verdict::Hold, Why::Waiting, bench.clock)
}

// T5
#[test]
fn whole_rollouts_end_as_they_should() {
    let mut dice = Dice::new(31);
    let good: Vec<_> = (0..40).map(|_| rollout(0.01, 0.01, &mut dice)).collect();
    let promoted = good.iter().filter(|(verdict, ..)| *verdict == Verdict::Promote).count();
    let aborted = good.iter().filter(|(verdict, ..)| *verdict == Verdict::Abort).count();
    println!("seed 31: {promoted} of 40 promoted, {aborted} aborted");
    assert!(promoted >= 36 && aborted <= 3, "{good:?}");
    let bad: Vec<_> = (0..40).map(|_| rollout(0.2, 0.01, &mut dice)).collect();
    assert!(bad.iter().all(|(verdict, why, _)| (*verdict, *why) == (Verdict::Abort, Why::Harm)), "{bad:?}");
    assert!(bad.iter().all(|(.., seconds)| *seconds <= 30), "{bad:?}");
}

// T5
#[test]
fn what_both_arms_share_does_not_abort_and_unequal_instances_are_guarded() {
    // A wave from 0.2 to 1.8 times, and an outage of 60 %, that both arms see.
    let (mut dice, mut aborts) = (Dice::new(41), 0);
    let mut arm = Binomial::new(0.1);
    for _ in 0..100 {
        let mut harm = Harm::new(Line::EQUAL);
        for second in 0..600_u32 {
            let wave = 1.0 + 0.8 * (f64::from(second) / 50.0).sin();
            let rate = if (300..330).contains(&second) { 0.6 } else { 0.01 * wave };
            let n_c = arm.draw(50, &mut dice);
            let events = |n: u64, dice: &mut Dice| (0..n).filter(|_| dice.chance(rate)).count() as u64;
            let (x_c, x_s) = (events(n_c, &mut dice), events(50 - n_c, &mut dice));
            harm.add(count(n_c, x_c), count(50 - n_c, x_s), u64::from(second));
        }
        aborts += u32::from(harm.hit[0].is_some());
    }
    println!("seed 41: {aborts} of 100 at alpha 5 %");
    assert!(f64::from(aborts) <= most(100, 0.05), "{aborts}");
    let [bare, guarded] = [false, true].map(|guard| unequal(0.6, guard, 30, &mut Dice::new(42)));
    println!("seed 42: unequal instances, cv 0.6: {bare} of 30 without the guard, {guarded} with it");
    assert!(bare >= 6 && guarded <= bare / 2, "{bare} {guarded}");
}

/// How many of so many runs are aborted at 5 %, where rates differ by instance: two of twenty are the candidate's.
pub(crate) fn unequal(cv: f64, guard: bool, runs: u64, dice: &mut Dice) -> u32 {
    let sigma = (1.0 + cv * cv).ln().sqrt();
    let mut aborts = 0;
    for _ in 0..runs {
        let rates: Vec<f64> = (0..20).map(|_| 0.01 * (sigma * dice.normal() - sigma * sigma / 2.0).exp()).collect();
        let mut harm = Harm::new(Line::EQUAL);
        let mut seen = vec![count(0, 0); 18];
        for second in 0..3600_u64 {
            // Five requests a second on each instance, in blocks of one second.
            let draws: Vec<u64> =
                rates.iter().map(|rate| (0..5).filter(|_| dice.chance(*rate)).count() as u64).collect();
            if guard {
                harm.phi = phi(&seen);
            }
            if second % 60 == 59 {
                harm.restart();
            }
            harm.add(count(10, draws[18] + draws[19]), count(90, draws[..18].iter().sum()), second);
            for (seen, x) in seen.iter_mut().zip(&draws) {
                *seen = seen.plus(count(5, *x));
            }
            if harm.hit[0].is_some() {
                aborts += 1;
                break;
            }
        }
    }
    aborts
}

/// Seconds until a candidate that fails every request is aborted: one of each `1/weight` requests is its own, at a random
/// place; stable has had a minute of traffic before.
fn flat_out(per_second: u64, weight: f64, dice: &mut Dice) -> u64 {
    let group = (1.0 / weight).ceil() as u64;
    let (mut recent, mut stable) = (Recent::default(), Binomial::new(0.01));
    let (mut request, mut place) = (0, 0);
    for second in 1..600 {
        let mut ours = 0;
        for _ in 0..per_second {
            if request % group == 0 {
                place = dice.below(group);
            }
            ours += u64::from(request % group == place);
            request += 1;
        }
        recent.add(count(ours, ours), None);
        let n_s = 60 * per_second;
        if is_flat_out(recent.run(), recent.seen(), count(n_s, stable.draw(n_s, dice)), 0.01) {
            return second;
        }
    }
    600
}

// T5
#[test]
fn a_candidate_that_fails_every_request_is_seen_within_seconds() {
    for (seed, per_second, most) in [(61, 10, (6, 9)), (62, 200, (2, 2))] {
        let mut dice = Dice::new(seed);
        let mut seconds: Vec<u64> = (0..1_000).map(|_| flat_out(per_second, 0.05, &mut dice)).collect();
        seconds.sort_unstable();
        let found = (seconds[500], seconds[990]);
        println!("seed {seed}: {per_second} a second, 5 %: abort after {} s, 99 %: {} s", found.0, found.1);
        assert!(found.0 <= most.0 && found.1 <= most.1, "{found:?}");
    }
}

#[test]
fn what_a_step_needs_is_about_what_simulation_finds() {
    for (rate, ratio, delta, no_harm, harm) in [
        (0.01, 1.0, 0.01, (994.0, 2_823.0), Some((1_736.0, 3_887.0))),
        (0.001, 1.0, 0.01, (449.0, 850.0), None),
        (0.001, 2.0, 0.0, (10_618.0, 29_674.0), Some((17_891.0, 40_550.0))),
        (0.05, 2.0, 0.0, (238.0, 630.0), Some((355.0, 820.0))),
    ] {
        let mut spec = spec([("errors", compared(ERRORS, ratio, delta))]);
        spec.steps = vec![step(0.05, 60)];
        let baseline = Baseline::Rate(rate);
        let [need] = <[_; 1]>::try_from(needs(&spec, |_| Some(&baseline))).unwrap();
        let near = |need: Option<Need>, (half, most): (f64, f64)| {
            let need = need.unwrap();
            let off = (need.half as f64 / half, need.most as f64 / most);
            println!("{rate} {ratio} {delta}: {need:?}, where ({half}, {most}) was simulated");
            assert!((0.87..1.15).contains(&off.0) && (0.87..1.15).contains(&off.1), "{off:?}");
        };
        near(need.no_harm, no_harm);
        if let Some(harm) = harm {
            near(need.harm, harm);
        }
        assert!(needs(&spec, |_| None).is_empty());
    }
}
