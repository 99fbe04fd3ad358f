//! What other judges do with the same traffic: a fixed threshold, a z-test at every look, and Mann and Whitney's test.

use std::collections::VecDeque;

use crate::dice::Dice;
use crate::trials::{Draw, quantiles};
use backstay::judge::Line;

/// Counts of one second: requests and events of the candidate, then of stable.
type Second = [u64; 4];

/// Events of both arms in a second: from its number, the requests of each arm and a slow wave of chance.
type Traffic<'t> = dyn Fn(u64, u64, u64, f64, &mut Dice) -> (u64, u64) + 't;

/// One simulated hour of a rival: the requests of the candidate when it aborts.
trait Rival {
    fn look(&mut self, second: u64, counts: Second) -> bool;
}

/// Success below 99 % in five checks, one a minute: in a row, or together as Flagger counts them.
struct Fixed {
    cumulative: bool,
    n: u64,
    x: u64,
    failed: u32,
}

/// Two shares, each look anew over all counts so far, as if it were the only one.
struct EachLook {
    every: u64,
    critical: f64,
    sums: Second,
}

/// Ranks of the error rates of the last 60 minutes, looked at each minute.
struct Ranks {
    critical: f64,
    minute: Second,
    ours: VecDeque<f64>,
    theirs: VecDeque<f64>,
}

// === impl Rival ===

impl Rival for Fixed {
    fn look(&mut self, second: u64, [n, x, ..]: Second) -> bool {
        (self.n, self.x) = (self.n + n, self.x + x);
        if second % 60 != 59 {
            return false;
        }
        let bad = self.n > 0 && (self.n - self.x) * 100 < self.n * 99;
        self.failed = if bad || self.cumulative { self.failed + u32::from(bad) } else { 0 };
        (self.n, self.x) = (0, 0);
        self.failed >= 5
    }
}

impl Rival for EachLook {
    fn look(&mut self, second: u64, counts: Second) -> bool {
        self.sums = std::array::from_fn(|at| self.sums[at] + counts[at]);
        if second % self.every != self.every - 1 {
            return false;
        }
        let [n_c, x_c, n_s, x_s] = self.sums.map(|count| count as f64);
        let p = (x_c + x_s) / (n_c + n_s);
        let z = (x_c / n_c - x_s / n_s) / (p * (1.0 - p) * (1.0 / n_c + 1.0 / n_s)).sqrt();
        z > self.critical
    }
}

impl Rival for Ranks {
    fn look(&mut self, second: u64, counts: Second) -> bool {
        self.minute = std::array::from_fn(|at| self.minute[at] + counts[at]);
        if second % 60 != 59 {
            return false;
        }
        let [n_c, x_c, n_s, x_s] = std::mem::take(&mut self.minute).map(|count| count as f64);
        self.differ(x_c / n_c.max(1.0), x_s / n_s.max(1.0))
    }
}

// === impl Ranks ===

impl Ranks {
    fn new(critical: f64) -> Self {
        Self { critical, minute: [0; 4], ours: VecDeque::new(), theirs: VecDeque::new() }
    }

    /// Whether our minutes rank above theirs, with one more of each.
    fn differ(&mut self, ours: f64, theirs: f64) -> bool {
        self.ours.push_back(ours);
        self.theirs.push_back(theirs);
        if self.ours.len() < 5 {
            return false;
        }
        let (m, n) = (self.ours.len() as f64, self.theirs.len() as f64);
        let (mut u, mut all) = (0.0, vec![]);
        for ours in &self.ours {
            u += self
                .theirs
                .iter()
                .map(|theirs| {
                    if ours > theirs {
                        1.0
                    } else if ours < theirs {
                        0.0
                    } else {
                        0.5
                    }
                })
                .sum::<f64>();
        }
        all.extend(self.ours.iter().chain(&self.theirs).copied());
        all.sort_by(f64::total_cmp);
        let ties: f64 = all
            .chunk_by(|one, two| one.total_cmp(two).is_eq())
            .map(|tied| (tied.len() as f64).powi(3) - tied.len() as f64)
            .sum();
        let total = m + n;
        let spread = (m * n / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)))).sqrt();
        spread > 0.0 && (u - m * n / 2.0) / spread > self.critical
    }
}

/// The share of hours that end in an abort, and the candidate's requests until then.
fn run(rival: impl Fn() -> Box<dyn Rival>, rates: (f64, f64), n: (u64, u64), runs: u64, seed: u64) -> (f64, Vec<u64>) {
    let mut dice = Dice::new(seed);
    let mut draw = Draw::new(rates.0, rates.1, 0.5);
    let mut hits = vec![];
    for _ in 0..runs {
        let mut rival = rival();
        for second in 0..3600 {
            let counts = [n.0, draw.event.draw(n.0, &mut dice), n.1, draw.other.draw(n.1, &mut dice)];
            if rival.look(second, counts) {
                hits.push((second + 1) * n.0);
                break;
            }
        }
    }
    (hits.len() as f64 / runs as f64, hits)
}

fn fixed(cumulative: bool) -> Box<dyn Rival> {
    Box::new(Fixed { cumulative, n: 0, x: 0, failed: 0 })
}

fn each_look(every: u64, critical: f64) -> Box<dyn Rival> {
    Box::new(EachLook { every, critical, sums: [0; 4] })
}

fn ranks(critical: f64) -> Box<dyn Rival> {
    Box::new(Ranks::new(critical))
}

/// One-sided normal limits of 5 % and 1 %.
const CRITICAL: [f64; 2] = [1.644_853_6, 2.326_347_9];

// T5
#[test]
fn looking_often_misleads_the_others() {
    let (aborted, _) = run(|| each_look(60, CRITICAL[0]), (0.01, 0.01), (5, 45), 200, 51);
    println!("seed 51: a z-test each minute, nominal 5 %, aborts {:.0} % of identical arms", aborted * 100.0);
    assert!(aborted > 0.15, "{aborted}");
    let (aborted, _) = run(|| fixed(false), (0.05, 0.05), (5, 45), 50, 52);
    assert!(aborted > 0.9, "a fixed threshold below the common rate: {aborted}");
}

#[test]
#[ignore = "takes minutes, optimised"]
fn tables_of_rivals() {
    let runs = 2_000;
    println!(
        "false aborts of identical arms within an hour, {runs} runs, 5 requests a second of the candidate, 95 of stable"
    );
    for (at, rate) in [0.001, 0.01, 0.05].into_iter().enumerate() {
        let share =
            |rival: &dyn Fn() -> Box<dyn Rival>| run(rival, (rate, rate), (5, 95), runs, 60 + at as u64).0 * 100.0;
        println!("seed {}: {} %", 60 + at, rate * 100.0);
        println!("    fixed rule {:.1} %, counted together {:.1} %", share(&|| fixed(false)), share(&|| fixed(true)));
        for (nominal, critical) in [5, 1].into_iter().zip(CRITICAL) {
            let (second, minute) = (share(&|| each_look(1, critical)), share(&|| each_look(60, critical)));
            println!("    nominal {nominal} %: z-test each second {second:.1} %, each minute {minute:.1} %");
            println!("    nominal {nominal} %: Mann and Whitney each minute {:.1} %", share(&|| ranks(critical)));
        }
    }
    println!("candidate requests until abort by the fixed rule, 300 a minute, of those that abort within the hour");
    for (rate, times) in [(0.001, 2.0), (0.001, 20.0), (0.01, 2.0), (0.01, 5.0), (0.05, 2.0)] {
        let (share, hits) = run(|| fixed(false), (rate * times, rate), (5, 95), runs, 70);
        let found = if hits.is_empty() { (0, 0) } else { quantiles(hits) };
        println!("    {} % times {times}: {:.0} % abort, {} / {}", rate * 100.0, share * 100.0, found.0, found.1);
    }
}

/// Median and 95th percentile of the hours that end in an abort, and how many do.
fn within_the_hour(hits: impl IntoIterator<Item = u64>, runs: u64) -> String {
    let hits: Vec<_> = hits.into_iter().filter(|hit| *hit <= 5 * 3600).collect();
    if hits.is_empty() {
        return "never".to_owned();
    }
    let share = hits.len() as f64 * 100.0 / runs as f64;
    let (median, high) = quantiles(hits);
    if share < 99.95 { format!("{median} / {high} ({share:.0} %)") } else { format!("{median} / {high}") }
}

// T5
#[test]
#[ignore = "takes minutes, optimised"]
fn tables_of_rivals_in_detection() {
    use crate::trials::{Course, detection, slow};
    let runs = 2_000;
    println!(
        "candidate requests until abort, median / 95 % of the hours that end in one (how many do), {runs} runs; 5 requests a \
         second of the candidate, 95 of stable"
    );
    let line = |seed: u64, what: &str, cells: Vec<String>| {
        let names = ["Backstay 5 %", "1 %", "fixed rule", "counted together", "z-test each second 5 %", "1 %"];
        let names = names.into_iter().chain(["Mann and Whitney each minute 5 %", "1 %"]);
        let cells: Vec<_> = names.zip(cells).map(|(name, cell)| format!("{name}: {cell}")).collect();
        println!("seed {seed}: {what}\n    {}", cells.join("; "));
    };
    let mut seed = 600;
    for rate in [0.001, 0.01, 0.05] {
        for times in [2.0, 5.0, 20.0] {
            let (mut dice, mut draw) = (Dice::new(seed), Draw::new(rate * times, rate, 0.05));
            let course = Course { per_second: 100, restarts: true, good: 0 };
            let ours: Vec<_> = (0..runs).filter_map(|_| detection(&mut draw, &course, &mut dice)).collect();
            let ours = [0, 1].map(|alpha| within_the_hour(ours.iter().map(|hit| hit[alpha]), runs));
            let theirs = |rival: &dyn Fn() -> Box<dyn Rival>| {
                within_the_hour(run(rival, (rate * times, rate), (5, 95), runs, seed).1, runs)
            };
            let [five, one] = ours;
            let cells = vec![
                five,
                one,
                theirs(&|| fixed(false)),
                theirs(&|| fixed(true)),
                theirs(&|| each_look(1, CRITICAL[0])),
                theirs(&|| each_look(1, CRITICAL[1])),
                theirs(&|| ranks(CRITICAL[0])),
                theirs(&|| ranks(CRITICAL[1])),
            ];
            line(seed, &format!("{} % of errors times {times}", rate * 100.0), cells);
            seed += 1;
        }
    }
    let runs = 1_000;
    let mut dice = Dice::new(seed);
    let ours: Vec<_> = (0..runs).map(|_| slow(0.05, 0.6, 1.5, true, &mut dice)).collect();
    let [five, one] = [0, 1].map(|alpha| within_the_hour(ours.iter().map(|hit| hit[alpha]), runs));
    let mut hits: [Vec<u64>; 6] = Default::default();
    for _ in 0..runs {
        let hour = slow_hour(0.6, 1.5, &mut dice);
        hits.iter_mut().zip(hour).for_each(|(hits, hit)| hits.extend(hit));
    }
    let cells = [five, one].into_iter().chain(hits.map(|hits| within_the_hour(hits, runs)));
    line(seed, &format!("p99 +50 %, {runs} runs"), cells.collect());
}

/// One hour of a candidate whose requests take `factor` as long, of lognormal durations: when each rival aborts it.
///
/// The fixed rule's limit is 20 % above the true p99 of stable; the z-test counts what is slower than that p99; ranks are
/// those of each minute's p99. All three are told stable's p99, which nobody knows.
fn slow_hour(sigma: f64, factor: f64, dice: &mut Dice) -> [Option<u64>; 6] {
    let slowest = (sigma * CRITICAL[1]).exp();
    let mut rivals = [fixed(false), fixed(true), each_look(1, CRITICAL[0]), each_look(1, CRITICAL[1])];
    let mut ranked = CRITICAL.map(Ranks::new);
    let mut hits = [None; 6];
    let (mut ours, mut theirs) = (vec![], vec![]);
    for second in 0..3600 {
        let before = (ours.len(), theirs.len());
        ours.extend((0..5).map(|_| factor * (sigma * dice.normal()).exp()));
        theirs.extend((0..95).map(|_| (sigma * dice.normal()).exp()));
        let counts = |limit: f64| {
            let slower = |values: &[f64]| values.iter().filter(|took| **took > limit).count() as u64;
            [5, slower(&ours[before.0..]), 95, slower(&theirs[before.1..])]
        };
        let (at_limit, at_p99) = (counts(1.2 * slowest), counts(slowest));
        for (at, rival) in rivals.iter_mut().enumerate() {
            if hits[at].is_none() && rival.look(second, if at < 2 { at_limit } else { at_p99 }) {
                hits[at] = Some((second + 1) * 5);
            }
        }
        if second % 60 == 59 {
            let p99 = |values: &mut Vec<f64>| {
                let at = values.len() * 99 / 100;
                let (_, p99, _) = values.select_nth_unstable_by(at, f64::total_cmp);
                let p99 = *p99;
                values.clear();
                p99
            };
            let (ours, theirs) = (p99(&mut ours), p99(&mut theirs));
            for (ranks, hit) in ranked.iter_mut().zip(&mut hits[4..]) {
                if ranks.differ(ours, theirs) {
                    hit.get_or_insert((second + 1) * 5);
                }
            }
        }
        if hits.iter().all(Option::is_some) {
            break;
        }
    }
    hits
}

#[test]
#[ignore = "takes minutes, optimised"]
fn tables_of_broken_assumptions() {
    use crate::trials::{Harm, count};
    let runs = 1_000;
    println!("false aborts within an hour, 1 % errors, 50 requests a second, weight 10 %, alpha 5 %, {runs} runs");
    let mut arm = crate::dice::Binomial::new(0.1);
    let mut hour = |seed: u64, draw: &Traffic<'_>| {
        let mut dice = Dice::new(seed);
        let mut aborts = 0;
        for _ in 0..runs {
            let (mut harm, mut state) = (Harm::new(Line::EQUAL), 0.0);
            for second in 0..3600 {
                if second > 0 && second % 60 == 0 {
                    harm.restart();
                }
                state = 0.99 * state + 0.1 * dice.normal();
                let n_c = arm.draw(50, &mut dice);
                let (x_c, x_s) = draw(second, n_c, 50 - n_c, state, &mut dice);
                harm.add(count(n_c, x_c), count(50 - n_c, x_s), second);
                if harm.hit[0].is_some() {
                    aborts += 1;
                    break;
                }
            }
        }
        f64::from(aborts) * 100.0 / f64::from(runs)
    };
    let events = |n: u64, rate: f64, dice: &mut Dice| (0..n).filter(|_| dice.chance(rate)).count() as u64;
    let both = |n_c, n_s, rate: f64, dice: &mut Dice| (events(n_c, rate, dice), events(n_s, rate, dice));
    println!(
        "    wave: {:.1} %",
        hour(81, &|second, n_c, n_s, _, dice| {
            both(n_c, n_s, 0.01 * (1.0 + 0.8 * (second as f64 / 100.0).sin()), dice)
        })
    );
    println!(
        "    outage: {:.1} %",
        hour(82, &|second, n_c, n_s, _, dice| {
            both(n_c, n_s, if (1800..1860).contains(&second) { 0.6 } else { 0.01 }, dice)
        })
    );
    println!(
        "    0.1 to 20 %: {:.1} %",
        hour(83, &|second, n_c, n_s, _, dice| { both(n_c, n_s, 0.001 * 200_f64.powf(second as f64 / 3600.0), dice) })
    );
    println!(
        "    AR(1): {:.1} %",
        hour(84, &|_, n_c, n_s, state, dice| both(n_c, n_s, (0.01 * state.exp()).min(1.0), dice))
    );
    let bursts = |each: bool| {
        move |_: u64, n_c: u64, n_s: u64, _: f64, dice: &mut Dice| {
            let (mut x_c, mut x_s) = (0, 0);
            for _ in 0..10 {
                if dice.chance(0.01) {
                    let whole = dice.chance(0.1);
                    for _ in 0..5 {
                        let ours = if each { dice.chance(0.1) } else { whole };
                        (x_c, x_s) = if ours && x_c < n_c { (x_c + 1, x_s) } else { (x_c, (x_s + 1).min(n_s)) };
                    }
                }
            }
            (x_c, x_s)
        }
    };
    println!("    bursts of five, each request routed by itself: {:.1} %", hour(85, &bursts(true)));
    println!("    whole bursts in one arm: {:.1} %", hour(86, &bursts(false)));
    for cv in [0.1, 0.3, 0.6] {
        let [bare, guarded] = [false, true].map(|guard| crate::promises::unequal(cv, guard, 400, &mut Dice::new(87)));
        let share = |aborts: u32| f64::from(aborts) / 4.0;
        println!(
            "    instances differ, cv {cv}: {:.1} %, with the guard {:.1} % (seed 87, 400 runs)",
            share(bare),
            share(guarded)
        );
    }
}
