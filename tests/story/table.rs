//! Every class of fault at every action of every scenario, and the table of what came of it.
//!
//! An ordinary run strikes with crashes at every effect, and with all else in turns, of which the commit chooses one; it
//! takes about a minute. `STORY_TURN=3` runs that turn. All classes everywhere take ten times as long:
//! `STORY_ALL=1 cargo test --test story table -- --nocapture`; `STORY_SCENARIO=rollback` runs those scenarios alone whose
//! name contains it, `STORY_TRACE=1` prints their actions.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use backstay::reconcile::Action;
use jiff::SignedDuration;

use super::plane::{Class, SORTS, TURNS, sort};
use super::scenarios::{ALL, Scenario};
use super::world::World;

/// Promises that a run is evidence for because the oracle watches them at every effect.
const ALWAYS: [&str; 4] = ["K2", "K9", "K13", "R6"];
/// Runs that are told of in full when they go wrong.
const TOLD: usize = 12;

/// What came of the runs that are evidence for one promise, or of one class.
#[derive(Default)]
struct Row {
    scenarios: BTreeSet<&'static str>,
    injected: usize,
    hit: usize,
    violations: usize,
}

/// Where a fault strikes: at the effect, or at what is not waited for, with this number.
#[derive(Debug, Clone, Copy)]
enum Place {
    Effect(usize),
    Aside(usize),
}

/// One run of a scenario with a fault.
struct Run {
    scenario: &'static Scenario,
    class: Class,
    at: Place,
    sort: &'static str,
    /// In which turns it is tried.
    turns: Vec<usize>,
    hit: bool,
    violations: Vec<(&'static str, String)>,
}

/// A scenario as it goes undisturbed.
struct Undisturbed {
    scenario: &'static Scenario,
    /// The world before each word.
    before: Vec<World>,
    effects: Vec<Action>,
    asides: Vec<Action>,
    end: String,
}

// K1, K2, K3, K4, K9, K10, K11, K12, K13, K14, F1, R1, R5, R6, R8
#[test]
fn every_fault_at_every_action() {
    let only = std::env::var("STORY_SCENARIO").unwrap_or_default();
    let told: Vec<_> = ALL.iter().filter(|scenario| scenario.name.contains(&only)).map(undisturbed).collect();
    let all = std::env::var_os("STORY_ALL").is_some();
    let turn = turn();
    println!("turn {turn} of {TURNS}{}", if all { ", and all others" } else { ": `STORY_TURN` chooses another" });
    let mut jobs = vec![];
    for told in &told {
        let effects = told.effects.iter().enumerate().map(|(at, action)| (Place::Effect(at + 1), at, action));
        let asides = told.asides.iter().enumerate().map(|(at, action)| (Place::Aside(at + 1), at, action));
        for (place, at, action) in effects.chain(asides) {
            for class in Class::ALL.into_iter().filter(|class| class.applies(action)) {
                let turns: Vec<_> = (0..TURNS).filter(|turn| class.has_turn(action, at, *turn)).collect();
                if all || turns.contains(&turn) {
                    jobs.push((told, class, place, sort(action), turns));
                }
            }
        }
    }
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((told, class, at, sort, turns)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = Run { sort, turns: turns.clone(), ..disturbed(told, *class, *at) };
                    runs.lock().expect("no run panics").push(run);
                }
            });
        }
    });
    drop(std::panic::take_hook());
    let runs = runs.into_inner().expect("no run panics");
    print(&runs);
    let broken: Vec<_> = runs.iter().filter(|run| !run.violations.is_empty()).collect();
    for run in broken.iter().take(TOLD) {
        println!("{} {:?} at {:?}, {}: {:#?}", run.scenario.name, run.class, run.at, run.sort, run.violations);
    }
    assert!(broken.is_empty(), "{} of {} runs break a promise", broken.len(), runs.len());
    if !only.is_empty() {
        return;
    }
    // Whichever turn it is: every class hits something, and every sort of action is hit by something.
    for turn in (0..TURNS).filter(|other| all || *other == turn) {
        let hits = || runs.iter().filter(|run| run.hit && run.turns.contains(&turn));
        for class in Class::ALL {
            assert!(hits().any(|run| run.class == class), "{class:?} never hits in turn {turn}");
        }
        for sort in SORTS {
            assert!(hits().any(|run| run.sort == *sort), "nothing ever hits `{sort}` in turn {turn}");
        }
    }
}

/// Which turn it is: `STORY_TURN`, else the commit chooses, so that all come in the long run.
fn turn() -> usize {
    let asked = std::env::var("STORY_TURN").ok().and_then(|turn| turn.parse::<usize>().ok());
    asked.unwrap_or_else(super::turn::of_commit) % TURNS
}

fn undisturbed(scenario: &'static Scenario) -> Undisturbed {
    let mut world = World::new();
    (world.log, world.aside_log) = (Some(vec![]), Some(vec![]));
    let mut before = vec![];
    for word in scenario.words {
        before.push(world.clone());
        word(&mut world);
        world.converge();
    }
    let end = world.end();
    // What is asked while it rests is not struck: nothing may be written then.
    let effects = world.log.take().expect("it was learnt");
    let asides = world.aside_log.take().expect("it was learnt");
    rest(&mut world);
    assert!(world.oracle.violations.is_empty(), "{} undisturbed: {:#?}", scenario.name, world.oracle.violations);
    if std::env::var_os("STORY_TRACE").is_some() {
        let all = effects.iter().chain(&asides);
        all.for_each(|action| println!("{}: {}", scenario.name, super::oracle::name_of(action)));
    }
    before.iter_mut().for_each(|world| (world.log, world.aside_log) = (None, None));
    Undisturbed { scenario, before, effects, asides, end }
}

fn disturbed(told: &Undisturbed, class: Class, at: Place) -> Run {
    let mut run = Run { scenario: told.scenario, class, at, sort: "", turns: vec![], hit: false, violations: vec![] };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let comes = |world: &World| match at {
            Place::Effect(at) => world.effects < at,
            Place::Aside(at) => world.asides < at,
        };
        let from = told.before.iter().rposition(comes).expect("the first word has no effects yet");
        let mut world = told.before[from].clone();
        match at {
            Place::Effect(at) => world.plane.fault = Some((class, at)),
            Place::Aside(at) => world.plane.aside = Some((class, at)),
        }
        for word in &told.scenario.words[from..] {
            word(&mut world);
            world.converge();
        }
        if world.land() {
            world.converge();
        }
        world.sweep();
        let end = world.end();
        if end != told.end {
            let ends = similar(&told.end, &end);
            world.oracle.violations.push(("K1", format!("it ends otherwise:\n{ends}writes {:?}", world.writes)));
        }
        rest(&mut world);
        (world.plane.hit, world.oracle.violations)
    }));
    match ended {
        Ok((hit, violations)) => (run.hit, run.violations) = (hit, violations),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            run.violations.push(("R5", text.unwrap_or_else(|| "it panicked".to_owned())));
            run.hit = true;
        }
    }
    run
}

/// Five more rounds, the last after a restart: nothing is written.
pub(crate) fn rest(world: &mut World) {
    let before = world.writes.len();
    for round in 0..5 {
        if round == 4 {
            world.restart();
        }
        world.wake(world.now + SignedDuration::from_mins(7));
        world.run();
    }
    if world.writes.len() > before {
        let more = format!("at rest it writes {:?}", &world.writes[before..]);
        world.oracle.violations.push(("K13", more));
    }
}

/// Lines of the one and of the other that the other has not.
fn similar(wanted: &str, found: &str) -> String {
    let only = |mark: &str, these: &str, those: &str| {
        let those: BTreeSet<_> = those.lines().collect();
        these.lines().filter(|line| !those.contains(line)).map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    only("-", wanted, found) + &only("+", found, wanted)
}

fn print(runs: &[Run]) {
    let (mut promises, mut classes) = (BTreeMap::<&str, Row>::new(), BTreeMap::<String, Row>::new());
    let mut sorts = BTreeMap::<&str, Row>::new();
    for run in runs {
        let of: BTreeSet<_> = run
            .class
            .promises()
            .iter()
            .chain(run.scenario.promises)
            .chain(&ALWAYS)
            .copied()
            .chain(run.violations.iter().map(|(promise, _)| *promise))
            .collect();
        for promise in of {
            let row = promises.entry(promise).or_default();
            row.add(run);
            row.violations += run.violations.iter().filter(|(broken, _)| *broken == promise).count();
        }
        for row in [classes.entry(format!("{:?}", run.class)).or_default(), sorts.entry(run.sort).or_default()] {
            row.add(run);
            row.violations += run.violations.len();
        }
    }
    println!("{:24} {:>9} {:>8} {:>6} {:>10}", "promise", "scenarios", "injected", "hit", "violations");
    let named =
        |rows: BTreeMap<&str, Row>| rows.into_iter().map(|(name, row)| (name.to_owned(), row)).collect::<Vec<_>>();
    for (name, row) in named(promises).into_iter().chain(classes).chain(named(sorts)) {
        let count = row.scenarios.len();
        println!("{name:24} {count:>9} {:>8} {:>6} {:>10}", row.injected, row.hit, row.violations);
    }
    println!("{} runs of {} scenarios", runs.len(), ALL.len());
}

// === impl Row ===

impl Row {
    fn add(&mut self, run: &Run) {
        self.scenarios.insert(run.scenario.name);
        self.injected += 1;
        self.hit += usize::from(run.hit);
    }
}
