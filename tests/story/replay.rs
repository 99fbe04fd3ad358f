//! What happened can be told afterwards: from the journal alone, and whatever the clock does.

use std::collections::BTreeMap;

use backstay::ledger::{Event, Journal, Line, verify};
use backstay::record::{Cause, Operation, Outcome, Request, RetryRequest, RollbackRequest};
use jiff::SignedDuration;
use serde_json::Value;

use super::world::{World, agent, desired};

fn request(id: &str) -> Request {
    Request { id: id.to_owned(), by: "alice".to_owned(), reason: "answers are wrong".to_owned() }
}

/// A long life: an install, a change, a revert, a rollback, settings, a failure, a retry, a removal.
fn life(mut note: impl FnMut(&World)) {
    let bad = desired(&agent(), "bad", |_, _| {}).release.id.short();
    let mut world = World::new();
    let steps: [&dyn Fn(World) -> World; 8] = [
        &|world| world.git("hello").settle(),
        &|world| world.git("good day").settle(),
        &|world| world.git("hello").settle(),
        &|mut world| {
            world.requests().rollback = Some(RollbackRequest { request: request("1"), to: None, no_git: true });
            world.settle()
        },
        &|world| world.git_with("third", |_, settings| settings.replicas = Some(5)).settle(),
        &|mut world| {
            world.cluster.sick.insert(bad.clone(), "CrashLoopBackOff");
            world.git("bad").settle().past_the_deadline()
        },
        &|mut world| {
            world.cluster.sick.clear();
            world.requests().retry = Some(RetryRequest { request: request("2"), release: None });
            world.settle()
        },
        &|world| world.git_removes().settle(),
    ];
    for step in steps {
        world = step(world);
        note(&world);
    }
}

/// The operations that a journal tells of, the newest first.
fn replayed(journal: &str) -> Vec<Operation> {
    let mut operations: BTreeMap<_, Operation> = BTreeMap::new();
    for line in journal.lines() {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        line.as_object_mut().expect("an object").remove("digest");
        let line: Line = serde_json::from_value(line).expect("a line");
        let operation = operations.entry(line.operation).or_insert_with(|| Operation {
            id: line.operation,
            kind: line.kind,
            cause: line.cause.clone(),
            from: line.from.clone(),
            to: line.to.clone(),
            revision: line.revision.clone(),
            started: line.time,
            finished: None,
            evidence: vec![],
            outcome: None,
        });
        if line.event == Event::Ended {
            operation.finished = Some(line.time);
            operation.outcome = line.outcome;
        }
    }
    operations.into_values().rev().collect()
}

// R6
#[test]
#[expect(clippy::disallowed_methods, reason = "it reads the file that it wrote")]
fn the_journal_tells_every_operation_with_its_cause_and_its_outcome() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    let (environment, mut last) = ("production".parse().expect("a name"), None);
    // Opened anew each time, as by a daemon that was killed.
    life(|world| {
        let mut journal = Journal::file(&path).expect("a journal");
        journal.note(&environment, &agent(), world.record()).expect("noted");
        last = Some(world.record().clone());
    });
    let record = last.expect("a record");
    verify(&path).expect("a whole journal");
    let told = replayed(&std::fs::read_to_string(&path).expect("read"));
    assert_eq!(told, record.operations, "the journal says what the ledger says");
    let causes: Vec<_> = told.iter().rev().map(|operation| operation.cause.to_string()).collect();
    assert!(causes.len() >= 8, "{causes:#?}");
    assert!(told.iter().any(|operation| matches!(operation.outcome, Some(Outcome::Failed(_)))), "{causes:#?}");
    assert!(told.iter().any(|operation| matches!(operation.cause, Cause::Rollback { .. })), "{causes:#?}");
    assert!(told.iter().any(|operation| matches!(operation.cause, Cause::Revert { .. })), "{causes:#?}");
}

// F2
#[test]
fn a_clock_that_jumps_does_nothing_twice() {
    let hours = SignedDuration::from_hours;
    for jump in [hours(1), hours(-1), hours(10 * 8766), hours(-10 * 8766)] {
        let world = World::new().git("hello").settle().git("good day").settle();
        let (effects, end) = (world.effects, world.end());
        let mut world = world.later(jump).settle();
        world.restart();
        let mut world = world.settle().later(-jump).settle();
        world.restart();
        let world = world.settle();
        assert_eq!((world.effects, world.end()), (effects, end), "{jump:#}: {:?}", world.writes);
        // A change while the clock is wrong is still one change.
        let right = World::new().git("hello").settle().git("good day").settle();
        let wrong = World::new().git("hello").settle().later(jump).git("good day").settle().later(-jump).settle();
        assert_eq!((wrong.writes, wrong.effects), (right.writes, right.effects), "{jump:#}");
    }
}
