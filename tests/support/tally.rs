//! The table of what was tried: by promise, and by class of fault.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, Once, PoisonError};

/// What was tried for one promise, by one class of fault.
#[derive(Default, Clone)]
struct Row {
    scenarios: usize,
    injected: usize,
    hit: usize,
    violations: Vec<String>,
}

static ROWS: Mutex<BTreeMap<(&'static str, String), Row>> = Mutex::new(BTreeMap::new());
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes one run of one scenario.
pub(crate) fn note(promise: &'static str, class: &str, injected: usize, hit: usize, violations: Vec<String>) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let row = rows.entry((promise, class.to_owned())).or_default();
    row.scenarios += 1;
    row.injected += injected;
    row.hit += hit;
    row.violations.extend(violations);
}

/// Prints all that was tried so far; the last one to be printed is the whole. Gives the violations of `promises`.
pub(crate) fn table(promises: &[&str]) -> Vec<String> {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut by_promise = BTreeMap::<&str, Row>::new();
    let (mut classes, mut all) = (String::new(), Row::default());
    let mut wrong = vec![];
    for ((promises_of, class), row) in rows.iter() {
        promises_of.split(", ").for_each(|promise| by_promise.entry(promise).or_default().add(row));
        all.add(row);
        classes += &row.line(class, promises_of);
        if promises_of.split(", ").any(|promise| promises.contains(&promise)) {
            wrong.extend(row.violations.iter().map(|violation| format!("{promises_of}, {class}: {violation}")));
        }
    }
    let mut text =
        format!("\n{:<24} {:>9} {:>9} {:>6} {:>10}\n", "promise", "scenarios", "injected", "hit", "violations");
    by_promise.iter().for_each(|(promise, row)| text += &row.line(promise, ""));
    text += &all.line("all of them, once each", "");
    text += &format!("{:<24}\n{classes}", "class");
    // Past the harness, which keeps what a passing test prints to itself.
    let _ = std::io::stderr().write_all(text.as_bytes());
    wrong
}

// === impl Row ===

impl Row {
    fn add(&mut self, other: &Self) {
        self.scenarios += other.scenarios;
        self.injected += other.injected;
        self.hit += other.hit;
        self.violations.extend(other.violations.iter().cloned());
    }

    fn line(&self, name: &str, after: &str) -> String {
        let (scenarios, injected, hit, bad) = (self.scenarios, self.injected, self.hit, self.violations.len());
        format!("{name:<24} {scenarios:>9} {injected:>9} {hit:>6} {bad:>10}  {after}\n")
    }
}

/// How much of what was injected for `promises` was met.
pub(crate) fn hits(promises: &[&str]) -> (usize, usize) {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let of = rows.iter().filter(|((of, _), _)| of.split(", ").any(|promise| promises.contains(&promise)));
    of.fold((0, 0), |(injected, hit), (_, row)| (injected + row.injected, hit + row.hit))
}

/// From now on a panic of our own code is kept, whatever thread it ends.
pub(crate) fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(place) = info.location().filter(|place| place.file().starts_with("src/")) {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(format!("a panic at {place}: {info}"));
            }
            before(info);
        }));
    });
}

/// Panics of our own code since the last call.
pub(crate) fn panics() -> Vec<String> {
    std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner))
}
