//! Every class of fault at the effects of every scenario, and the table of what came of it.
//!
//! An ordinary run strikes with crashes at every effect and with the other classes in turns, which takes about a minute.
//! All classes at all effects take ten times as long: `STORY_ALL=1 cargo test --test story table -- --nocapture`;
//! `STORY_SCENARIO=rollback` runs those scenarios alone whose name contains it, `STORY_TRACE=1` prints their effects.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::SignedDuration;

use super::plane::Class;
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

/// One run of a scenario with a fault.
struct Run {
    scenario: &'static Scenario,
    class: Class,
    at: usize,
    hit: bool,
    violations: Vec<(&'static str, String)>,
}

/// A scenario as it goes undisturbed.
struct Undisturbed {
    scenario: &'static Scenario,
    /// The world before each word.
    before: Vec<World>,
    effects: Vec<backstay::reconcile::Action>,
    end: String,
}

// K1, K2, K3, K4, K9, K10, K12, K13, K14, F1, R6, R8
#[test]
fn every_fault_at_every_effect() {
    let only = std::env::var("STORY_SCENARIO").unwrap_or_default();
    let told: Vec<_> = ALL.iter().filter(|scenario| scenario.name.contains(&only)).map(undisturbed).collect();
    let all = std::env::var_os("STORY_ALL").is_some();
    let mut jobs = vec![];
    for told in &told {
        for (at, effect) in told.effects.iter().enumerate() {
            let classes = Class::ALL.iter().filter(|class| class.applies(effect) && (all || class.has_turn(at)));
            jobs.extend(classes.map(|class| (told, *class, at + 1)));
        }
    }
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((told, class, at)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let run = disturbed(told, *class, *at);
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
        println!("{} {:?} at {}: {:#?}", run.scenario.name, run.class, run.at, run.violations);
    }
    assert!(broken.is_empty(), "{} of {} runs break a promise", broken.len(), runs.len());
    for class in Class::ALL {
        assert!(runs.iter().any(|run| run.class == class && run.hit), "{class:?} never hit");
    }
}

fn undisturbed(scenario: &'static Scenario) -> Undisturbed {
    let mut world = World::new();
    world.log = Some(vec![]);
    let mut before = vec![];
    for word in scenario.words {
        before.push(world.clone());
        word(&mut world);
        world.converge();
    }
    let end = world.end();
    rest(&mut world);
    assert!(world.oracle.violations.is_empty(), "{} undisturbed: {:#?}", scenario.name, world.oracle.violations);
    let effects = world.log.take().expect("it was learnt");
    if std::env::var_os("STORY_TRACE").is_some() {
        effects.iter().for_each(|effect| println!("{}: {}", scenario.name, super::oracle::name_of(effect)));
    }
    before.iter_mut().for_each(|world| world.log = None);
    Undisturbed { scenario, before, effects, end }
}

fn disturbed(told: &Undisturbed, class: Class, at: usize) -> Run {
    let mut run = Run { scenario: told.scenario, class, at, hit: false, violations: vec![] };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let from = told.before.iter().rposition(|world| world.effects < at).expect("the first word has no effects yet");
        let mut world = told.before[from].clone();
        world.plane.fault = Some((class, at));
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
        let row = classes.entry(format!("{:?}", run.class)).or_default();
        row.add(run);
        row.violations += run.violations.len();
    }
    println!("{:24} {:>9} {:>8} {:>6} {:>10}", "promise", "scenarios", "injected", "hit", "violations");
    let promises = promises.into_iter().map(|(name, row)| (name.to_owned(), row));
    for (name, row) in promises.chain(classes) {
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
