//! One object that the server never takes, and everybody else.

use backstay::desired::DesiredAgent;
use backstay::reconcile::FailureKind;
use backstay::record::ConditionKind;
use jiff::SignedDuration;
use serde_json::json;

use super::git::{agent, desired, extra, name};
use super::plane::Class;
use super::world::World;

fn healthy(who: &str, prompt: &str) -> DesiredAgent {
    desired(&name(who), prompt, |_, _| {})
}

fn id(prompt: &str) -> String {
    healthy("support", prompt).release.id.short()
}

fn with_poison(prompt: &str) -> DesiredAgent {
    desired(&agent(), prompt, |_, settings| settings.manifests = vec![extra("poison")])
}

// K12
#[test]
fn a_poison_object_and_five_kills_hold_nobody_else_up() {
    for no in [
        FailureKind::Refused,
        FailureKind::Forbidden,
        FailureKind::Immutable,
        FailureKind::Conflict,
        FailureKind::Exists,
        FailureKind::Unavailable { retry_after: None },
        FailureKind::Unavailable { retry_after: Some(500) },
    ] {
        let mut world = World::new();
        world.refuse.insert("ConfigMap/poison".to_owned(), no.clone());
        world.commit(healthy("helpdesk", "hello"));
        world.commit(with_poison("hello"));
        world.commit(healthy("zoo", "hello"));
        world.converge();
        for kill in 0..5 {
            let prompt = format!("prompt {kill}");
            // Dead in the middle of it, each time a little later; and once more before anything is done.
            world.plane.fault = Some((Class::CrashAfter, world.effects + 3 + kill));
            world.commit(healthy("helpdesk", &prompt));
            world.commit(with_poison(&prompt));
            world.commit(healthy("zoo", &prompt));
            world.converge();
            assert!(std::mem::take(&mut world.plane.hit), "{no:?}: it was killed");
            world.restart();
            world.converge();
            for who in ["helpdesk", "zoo"] {
                let record = world.record_of(&name(who)).expect("a record");
                assert!(record.operation.is_none(), "{no:?} at {kill}: {who} is still on its way: {record:?}");
                assert_eq!(world.running_of(&name(who)), Some(id(&prompt)), "{no:?} at {kill}: {who} goes on");
                world.edit("Service", who, |body| body["spec"]["ports"][0]["port"] = json!(1));
                world.converge();
                let port = &world.body("Service", who)["spec"]["ports"][0]["port"];
                assert_ne!(*port, json!(1), "{no:?} at {kill}: {who} is healed");
            }
            assert!(world.find("ConfigMap", "poison").is_none());
        }
        assert_eq!(world.oracle.violations, [], "{no:?}");
        // It is told, and when the server takes it, it is done.
        assert!(!world.holds(ConditionKind::Ready), "{no:?}: {:?}", world.record().conditions);
        world.refuse.clear();
        world.wake(world.now + SignedDuration::from_mins(11));
        world.converge();
        assert!(world.holds(ConditionKind::Ready), "{no:?}: {:?}", world.record().conditions);
        assert!(world.find("ConfigMap", "poison").is_some(), "{no:?}");
    }
}

// K12
#[test]
fn of_its_own_agent_what_runs_goes_on_and_is_healed() {
    let mut world = World::new();
    world.commit(healthy("support", "hello"));
    world.converge();
    world.refuse.insert("ConfigMap/poison".to_owned(), FailureKind::Refused);
    for kill in 0..5 {
        world.commit(with_poison(&format!("prompt {kill}")));
        world.converge();
        world.restart();
        world.converge();
        // A release is whole: it is not begun to run without what it asks for, and what ran before stays.
        assert_eq!(world.running(), Some(id("hello")), "{:?}", world.record().conditions);
        let pods = world.cluster.objects.keys().filter(|object| object.kind == "Pod").count();
        assert_eq!(pods, 2);
        assert!(world.message(ConditionKind::Stalled).contains("ConfigMap/agents/poison"));
    }
    // A commit without it is all that it needs.
    world.commit(healthy("support", "better"));
    world.converge();
    assert_eq!((world.running(), world.holds(ConditionKind::Ready)), (Some(id("better")), true));
}

// K11
#[test]
fn who_is_always_overtaken_does_not_try_without_a_pause() {
    for no in [FailureKind::Conflict, FailureKind::Exists, FailureKind::Gone] {
        for kind in ["Service", "Deployment", "record"] {
            let mut world = World::new().git("hello").settle();
            world.refuse.insert(kind.to_owned(), no.clone());
            if kind == "Service" {
                world.edit("Service", "support", |body| body["spec"]["ports"][0]["port"] = json!(1));
            }
            let effects = world.effects;
            let mut world = world.git("next").settle();
            let tries = world.effects - effects;
            assert!(tries < 60, "{no:?} of {kind}: {tries} effects in no time");
            // Time alone brings it on, once there is a way.
            world.refuse.clear();
            for _ in 0..4 {
                world.wake(world.now + SignedDuration::from_mins(5));
                world.run();
            }
            assert_eq!(world.running(), Some(id("next")), "{no:?} of {kind}: {:?}", world.record().conditions);
            assert!(world.holds(ConditionKind::Ready), "{no:?} of {kind}: {:?}", world.record().conditions);
        }
    }
}
