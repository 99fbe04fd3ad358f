//! Simulated rollouts, on the banks themselves: fast enough for ten thousand hours of looking every second.

use std::sync::Arc;

use backstay::judge::{
    Arms, Count, Direction, EFFECTS, HARM, HarmBank, Histogram, Latencies, Line, Means, Moments, NO_HARM, SafetyBank,
    Spread, TwoArms, slower,
};
use jiff::Timestamp;

use crate::dice::{Binomial, Dice};

/// The two α at which each simulated rollout is read.
pub(crate) const ALPHAS: [f64; 2] = [0.05, 0.01];

pub(crate) fn count(n: u64, x: u64) -> Count {
    Count::new(n, x).unwrap()
}

/// One bank of harm that takes in blocks, and when it first reached 1/α for each α.
pub(crate) struct Harm {
    bank: HarmBank,
    open: Arms<Count>,
    events: u64,
    seen: u64,
    /// When, in what the caller counts in.
    pub(crate) hit: [Option<u64>; 2],
    line: Line,
    pub(crate) phi: f64,
}

impl Harm {
    pub(crate) fn new(line: Line) -> Self {
        let bank = HarmBank::new(HARM.len());
        Self { bank, open: Arms::default(), events: 0, seen: 0, hit: [None; 2], line, phi: 1.0 }
    }

    pub(crate) fn restart(&mut self) {
        self.bank.restart();
    }

    /// Takes in an interval that ended at `at`.
    pub(crate) fn add(&mut self, candidate: Count, stable: Count, at: u64) {
        self.open = Arms { candidate: self.open.candidate.plus(candidate), stable: self.open.stable.plus(stable) };
        let Arms { candidate, stable } = self.open;
        if candidate.n() < 1 || stable.n() < 1 || candidate.n() + stable.n() < 10 {
            return;
        }
        self.open = Arms::default();
        self.events += candidate.x();
        self.seen += candidate.n();
        let gains = TwoArms::new(candidate, stable, self.line);
        if gains.is_nothing() {
            return;
        }
        self.bank.bet(|k| gains.gain(HARM[k]) / self.phi);
        if self.seen >= 3 && self.events >= 2 {
            let ln_e = self.bank.ln_e();
            for (hit, alpha) in self.hit.iter_mut().zip(ALPHAS) {
                if ln_e >= -f64::ln(alpha) {
                    hit.get_or_insert(at);
                }
            }
        }
    }

    pub(crate) fn done(&self) -> bool {
        self.hit.iter().all(Option::is_some)
    }
}

/// Identical arms, each request routed by chance, looked at every second: whether they were aborted within the hour.
pub(crate) fn false_abort(
    rate: f64,
    per_second: u64,
    weight: f64,
    seconds: u64,
    dice: &mut Dice,
    draw: &mut Draw,
) -> [bool; 2] {
    let mut harm = Harm::new(Line::EQUAL);
    debug_assert!(draw.is_for(rate, weight));
    for second in 0..seconds {
        if second > 0 && second % 60 == 0 {
            harm.restart();
        }
        let n_c = draw.arm.draw(per_second, dice);
        let n_s = per_second - n_c;
        let (x_c, x_s) = (draw.event.draw(n_c, dice), draw.other.draw(n_s, dice));
        harm.add(count(n_c, x_c), count(n_s, x_s), second);
        if harm.done() {
            break;
        }
    }
    harm.hit.map(|hit| hit.is_some())
}

/// Tables for one setting.
pub(crate) struct Draw {
    rate: f64,
    weight: f64,
    pub(crate) arm: Binomial,
    pub(crate) event: Binomial,
    pub(crate) other: Binomial,
}

impl Draw {
    pub(crate) fn new(candidate: f64, stable: f64, weight: f64) -> Self {
        let [arm, event, other] = [weight, candidate, stable].map(Binomial::new);
        Self { rate: stable, weight, arm, event, other }
    }

    fn is_for(&self, rate: f64, weight: f64) -> bool {
        (self.rate - rate).abs() < 1e-12 && (self.weight - weight).abs() < 1e-12
    }
}

/// Requests of the smallest block at a weight: of the candidate, of stable.
pub(crate) fn smallest(weight: f64) -> (u64, u64) {
    if weight < 0.1 { (1, (1.0 / weight).round() as u64 - 1) } else { (5, (5.0 / weight).round() as u64 - 5) }
}

/// How a rollout with harm runs.
pub(crate) struct Course {
    pub(crate) per_second: u64,
    /// Fresh money every minute, as the judge has it.
    pub(crate) restarts: bool,
    /// Seconds before the candidate turns bad.
    pub(crate) good: u64,
}

/// Requests of the candidate from where it turns bad until it is aborted, looked at every second.
/// Nothing where it was aborted before.
pub(crate) fn detection(draw: &mut Draw, course: &Course, dice: &mut Dice) -> Option<[u64; 2]> {
    let mut harm = Harm::new(Line::EQUAL);
    let (mut seen, mut second) = (0, 0);
    let (mut request, mut place, group) = (0, 0, (1.0 / draw.weight).ceil() as u64);
    while seen < 1_000_000 && !harm.done() {
        if course.restarts && second > 0 && second % 60 == 0 {
            harm.restart();
        }
        // Of each 1/weight requests one is the candidate's, at a random place.
        let mut n_c = 0;
        for _ in 0..course.per_second {
            if request % group == 0 {
                place = dice.below(group);
            }
            n_c += u64::from(request % group == place);
            request += 1;
        }
        let n_s = course.per_second - n_c;
        // Before it turns bad, the candidate is as stable is.
        let x_c = if second < course.good { draw.other.draw(n_c, dice) } else { draw.event.draw(n_c, dice) };
        let x_s = draw.other.draw(n_s, dice);
        seen += if second < course.good { 0 } else { n_c };
        second += 1;
        harm.add(count(n_c, x_c), count(n_s, x_s), seen);
    }
    let hit = harm.hit.map(|hit| hit.unwrap_or(seen));
    (hit[1] > 0).then_some(hit)
}

/// Requests of the candidate until no harm is shown within a line, for identical arms.
pub(crate) fn no_harm(draw: &mut Draw, line: Line, beta: f64, most: u64, dice: &mut Dice) -> u64 {
    let mut bank = SafetyBank::new(NO_HARM.len());
    let (n_c, n_s) = smallest(draw.weight);
    let mut seen = 0;
    while seen < most {
        let (x_c, x_s) = (draw.event.draw(n_c, dice), draw.other.draw(n_s, dice));
        seen += n_c;
        let gains = TwoArms::new(count(n_c, x_c), count(n_s, x_s), line);
        if gains.is_nothing() {
            continue;
        }
        bank.bet(|k| gains.gain(NO_HARM[k]));
        bank.cut((2.0 / beta).ln());
        if bank.ln_e() >= -beta.ln() {
            return seen;
        }
    }
    most
}

/// Requests of the candidate until it is aborted for a p99 that is longer by `factor`; durations are lognormal.
pub(crate) fn slow(weight: f64, sigma: f64, factor: f64, restarts: bool, dice: &mut Dice) -> [u64; 2] {
    let boundaries: Arc<[f64]> = (0..64).map(|at| 100.0 * (f64::from(at) / 8.0).exp2()).collect();
    let mut latencies = Latencies::default();
    let mut harm = Harm::new(Line { ratio: 1.25, delta: 0.0 });
    let (n_c, n_s) = smallest(weight);
    let mut seen = 0;
    while seen < 100_000 && !harm.done() {
        let mut arm = |n: u64, factor: f64| {
            let mut counts = vec![0; boundaries.len() + 1];
            for _ in 0..n {
                let took = 1000.0 * factor * (sigma * dice.normal()).exp();
                counts[boundaries.partition_point(|boundary| *boundary < took)] += 1;
            }
            Histogram::new(boundaries.clone(), counts).unwrap()
        };
        let block = Arms { candidate: arm(n_c, factor), stable: arm(n_s, 1.0) };
        if restarts && seen / 300 < (seen + n_c) / 300 {
            harm.restart();
        }
        seen += n_c;
        // Five requests of the candidate a second.
        let now = Timestamp::from_second(i64::try_from(seen / 5).unwrap()).unwrap();
        latencies.choose(0.99, now);
        if let Some(boundary) = latencies.chosen() {
            let arms = slower(&block, boundary);
            harm.add(arms.candidate, arms.stable, seen);
        }
        latencies.add(&block);
    }
    harm.hit.map(|hit| hit.unwrap_or(seen))
}

/// Requests of the candidate until it is aborted for a mean that is greater by `factor`, where `ratio` is tolerated; at
/// 20 % of the traffic.
pub(crate) fn dear(cv: f64, factor: f64, ratio: f64, alpha: f64, most: u64, dice: &mut Dice) -> u64 {
    let mut bank = HarmBank::new(EFFECTS.len());
    let mut spread = Arms { candidate: Spread::default(), stable: Spread::default() };
    let shape = 1.0 / (cv * cv);
    let line = Line { ratio, delta: 0.0 };
    let mut seen = 0;
    let mut open = Arms { candidate: vec![], stable: vec![] };
    while seen < most {
        if dice.chance(0.2) {
            open.candidate.push(factor * dice.gamma(shape));
            seen += 1;
        } else {
            open.stable.push(dice.gamma(shape));
        }
        if open.candidate.len() < 20 || open.stable.len() < 20 {
            continue;
        }
        let moments = |values: Vec<f64>| {
            let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), v| (sum + v, squares + v * v));
            Moments::read(values.len() as f64, sum, Some(squares)).unwrap()
        };
        let block = std::mem::replace(&mut open, Arms { candidate: vec![], stable: vec![] });
        let block = Arms { candidate: moments(block.candidate), stable: moments(block.stable) };
        let arm = |moments: &Moments| (moments.mean().unwrap(), moments.n() as f64);
        if let Some(variances) = spread.candidate.variance().zip(spread.stable.variance()) {
            let gains =
                Means::new(arm(&block.candidate), arm(&block.stable), variances, line, Direction::Harm).unwrap();
            bank.bet(|k| gains.gain(EFFECTS[k]));
            if bank.ln_e() >= -alpha.ln() {
                return seen;
            }
        }
        spread.candidate.add(&block.candidate);
        spread.stable.add(&block.stable);
    }
    most
}

/// The median and the 95th percentile.
pub(crate) fn quantiles(mut values: Vec<u64>) -> (u64, u64) {
    values.sort_unstable();
    let at = |q: f64| values[((values.len() as f64 * q) as usize).min(values.len() - 1)];
    (at(0.5), at(0.95))
}
