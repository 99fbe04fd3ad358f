//! A crash at any effect changes nothing of the end; what failed for the moment is tried again.

use backstay::reconcile::FailureKind;
use backstay::record::{ConditionKind, Request, RollbackRequest};

use super::world::{Crash, World};

/// Runs `story` undisturbed, then with a crash before and after each of its effects: all end alike.
fn crash_everywhere(story: impl Fn(World) -> World) {
    let told = story(World::new());
    for at in 1..=told.effects {
        for crash in [Crash::Before, Crash::After] {
            let mut world = World::new();
            world.crash = Some((at, crash));
            let mut world = story(world);
            assert_eq!(world.end(), told.end(), "crash {crash:?} effect {at} of {}", told.effects);
            let effects = world.effects;
            world.restart();
            world.run();
            assert_eq!(
                world.effects, effects,
                "it writes again after a crash {crash:?} effect {at}: {:?}",
                world.writes
            );
        }
    }
}

// K1
#[test]
fn install() {
    crash_everywhere(|world| world.git("hello").settle());
}

#[test]
fn change() {
    crash_everywhere(|world| world.git("hello").settle().git("good day").settle());
}

#[test]
fn revert() {
    crash_everywhere(|world| world.git("hello").settle().git("bad").settle().git("hello").settle());
}

#[test]
fn settings() {
    crash_everywhere(|world| {
        world.git("hello").settle().git_with("hello", |_, settings| settings.replicas = Some(4)).settle()
    });
}

#[test]
fn removal() {
    crash_everywhere(|world| world.git("hello").settle().git("good day").settle().git_removes().settle());
}

#[test]
fn rollback() {
    crash_everywhere(|world| {
        let mut world = world.git("hello").settle().git("bad").settle();
        let request = Request { id: "1".to_owned(), by: "alice".to_owned(), reason: String::new() };
        world.requests.rollback = Some(RollbackRequest { request, to: None, no_git: true });
        world.settle()
    });
}

// K2
#[test]
fn a_stale_view_after_a_restart_destroys_nothing() {
    let world = World::new().git("hello").settle();
    let old = world.live();
    let mut world = world.git("good day").settle().git("third").settle();
    let told = world.end();
    world.restart();
    world.stale = Some(old);
    world.run();
    world.stale = None;
    world.run();
    assert_eq!(world.end(), told);
}

#[test]
fn a_busy_server_is_waited_for() {
    let mut world = World::new();
    world.refuse.insert("Service".to_owned(), FailureKind::Unavailable { retry_after: Some(3) });
    let mut world = world.git("hello").settle();
    assert!(!world.writes.iter().any(|write| write.contains("Deployment")));
    world.refuse.clear();
    let mut rounds = 0;
    while !world.holds(ConditionKind::Ready) {
        world = world.until_woken();
        rounds += 1;
        assert!(rounds < 10, "{:?}", world.record().conditions);
    }
}

#[test]
fn a_leader_that_was_replaced_writes_nothing_more() {
    let mut world = World::new();
    world.refuse.insert("Service".to_owned(), FailureKind::Fenced);
    let mut world = world.git("hello").settle();
    let effects = world.effects;
    world.refuse.clear();
    world.run();
    assert_eq!(world.effects, effects);
}
