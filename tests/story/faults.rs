//! What once went wrong, or nearly: each a story of its own.

use backstay::desired::DesiredAgent;
use backstay::reconcile::{Action, FailureKind};
use backstay::record::{ConditionKind, RollbackRequest};
use jiff::SignedDuration;
use serde_json::json;

use super::git::{agent, desired, extra, name};
use super::plane::Class;
use super::world::World;

// K2
#[test]
fn a_stale_view_after_a_restart_destroys_nothing() {
    let world = World::new().git("hello").settle();
    let old = world.past();
    let mut world = world.git("good day").settle().git("third").settle();
    let told = world.end();
    world.restart();
    world.plane.stale = Some(old);
    world.run();
    world.plane.stale = None;
    world.run();
    assert_eq!(world.end(), told);
}

// K2, K7
#[test]
fn an_old_list_that_shows_another_object_makes_the_inventory_forget_nothing() {
    let mut world = World::new().git("hello").settle();
    let old = world.past();
    world.delete("Service", "support");
    world.run();
    let uid = world.uid("Service", "support");
    world.restart();
    world.plane.stale = Some(super::plane::Past { ledger: world.ledger.clone(), ..old });
    world.run();
    let owned = |world: &World| {
        let object = world.find("Service", "support")?;
        world.record().inventory.0.get(&object).map(|uid| uid.0.clone())
    };
    assert_eq!(owned(&world), uid);
    world.plane.stale = None;
    world.run();
    assert_eq!(owned(&world), uid);
    assert_eq!(world.oracle.violations, []);
}

// K10
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

// F1
#[test]
fn a_leader_that_was_replaced_writes_nothing_more() {
    let mut world = World::new();
    world.plane.fault = Some((Class::Fenced, 3));
    let mut world = world.git("hello").settle();
    assert!(world.plane.hit);
    let effects = world.effects;
    world.run();
    assert_eq!(world.effects, effects);
}

fn id(prompt: &str) -> String {
    desired(&agent(), prompt, |_, _| {}).release.id.short()
}

// K1, K9
#[test]
fn what_an_operation_made_before_another_took_its_place_is_ours() {
    let mut world = World::new().git("hello").settle();
    world.cluster.sick.insert(id("slow"), "ContainerCreating");
    let mut world = world.git("slow").settle().git("hello").settle();
    let files = format!("support--{}", id("slow"));
    assert!(world.writes.contains(&format!("+ ConfigMap/{files}")), "{:?}", world.writes);
    assert_eq!(world.find("ConfigMap", &files), None, "it never was stable: nothing keeps it");
    world.cluster.sick.clear();
    let world = world.git("slow").settle();
    assert!(world.holds(ConditionKind::Ready), "no consent is needed for it: {:?}", world.record().conditions);
}

// K1, K9
#[test]
fn what_an_operation_made_right_before_a_crash_is_ours_in_later_ones_too() {
    let mut world = World::new().git("hello").settle();
    let effects = world.effects;
    // The record of the operation is effect 1, the ConfigMap 2.
    world.plane.fault = Some((Class::CrashAfter, effects + 2));
    world.git.says(desired(&agent(), "next", |_, _| {}));
    while !world.plane.hit {
        world = world.settle();
    }
    let mut world = world.git("hello").settle();
    world.restart();
    let world = world.git("third").settle().git("next").settle();
    assert!(world.holds(ConditionKind::Ready), "no consent is needed for it: {:?}", world.record().conditions);
}

// K9
#[test]
fn somebody_elses_object_under_a_name_of_ours_stays_theirs() {
    let mut world = World::new().git("hello").settle();
    world.delete("Service", "support");
    world.make_foreign(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "support"},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}}));
    world.converge();
    world.git.says(desired(&agent(), "next", |_, _| {}));
    world.converge();
    assert_eq!(world.oracle.violations, []);
    assert_eq!(world.body("Service", "support")["spec"]["selector"], json!({"app": "other"}));
}

// K4
#[test]
fn nothing_is_deleted_while_any_kind_that_counts_is_not_seen() {
    for kind in ["ReplicaSet", "Service", "PersistentVolumeClaim", "Deployment"] {
        let mut world =
            World::new().git_with("hello", |_, settings| settings.manifests = vec![extra("extra")]).settle();
        world.unseen.insert(kind.to_owned());
        world.git.says(desired(&agent(), "hello", |_, _| {}));
        world.converge();
        assert!(world.find("ConfigMap", "extra").is_some(), "deleted while {kind} is not seen");
        assert_eq!(world.oracle.violations, []);
        world.unseen.clear();
        world.converge();
        assert!(world.find("ConfigMap", "extra").is_none(), "{:?}", world.record().conditions);
    }
    // A kind that has nothing to do with the agent stops nothing.
    let mut world = World::new().git_with("hello", |_, settings| settings.manifests = vec![extra("extra")]).settle();
    world.unseen.insert("NetworkPolicy".to_owned());
    world.git.says(desired(&agent(), "hello", |_, _| {}));
    world.run();
    assert!(world.find("ConfigMap", "extra").is_none(), "{:?}", world.record().conditions);
}

// R6
#[test]
fn what_a_superseded_operation_made_is_ours_across_a_restart() {
    let mut world = World::new();
    world.cluster.sick.insert(id("slow"), "ContainerCreating");
    let mut world = world.git_with("slow", |_, settings| settings.manifests = vec![extra("extra")]).settle();
    world.git.says(desired(&agent(), "hello", |_, _| {}));
    world.restart();
    world.converge();
    assert!(world.find("ConfigMap", "extra").is_none(), "{:?}", world.record().inventory);
}

// R6
#[test]
fn what_a_superseded_operation_made_unseen_is_ours_once_it_is_seen() {
    for removed in [false, true] {
        let mut world = World::new();
        world.cluster.sick.insert(id("slow"), "ContainerCreating");
        // The daemon dies when the ConfigMap was made, and cannot list any until another commit has taken its place.
        let mut world = world.git_with("slow", |_, settings| settings.manifests = vec![extra("extra")]).settle();
        world.unseen.insert("ConfigMap".to_owned());
        world.restart();
        world.run();
        if removed {
            world.remove(&agent());
        } else {
            world.git.says(desired(&agent(), "hello", |_, _| {}));
        }
        world.converge();
        assert!(world.find("ConfigMap", "extra").is_some(), "deleted though it was not seen");
        world.restart();
        world.unseen.clear();
        world.converge();
        assert!(world.find("ConfigMap", "extra").is_none(), "{:?} {:#?}", world.writes, world.record());
        assert!(world.record().making.is_empty(), "{:?}", world.record().making);
        assert_eq!(world.oracle.violations, []);
    }
}

// K4
#[test]
fn nothing_is_deleted_while_a_kind_that_every_agent_has_is_not_seen() {
    for kind in ["ConfigMap", "Service", "Deployment"] {
        let mut world = World::new();
        // It never saw any: not even the inventory knows of the kind.
        world.unseen.insert(kind.to_owned());
        let mut world = world.git("hello").settle().git_removes().settle();
        assert!(!world.writes.iter().any(|write| write.starts_with('-')), "{kind}: {:?}", world.writes);
        world.unseen.clear();
        world.converge();
        assert_eq!(world.oracle.violations, []);
        assert!(world.cluster.objects.is_empty(), "{kind}: {:?}", world.cluster.objects.keys());
    }
}

// K7
#[test]
fn two_agents_never_write_to_one_object_in_turn() {
    let mut world = World::new();
    let with_extra = |who: &str| desired(&name(who), "hello", |_, settings| settings.manifests = vec![extra("extra")]);
    world.commit(with_extra("helpdesk"));
    world.converge();
    world.writes.clear();
    // A rename: the old agent stays until the new one is Ready, and both ask for the object.
    world.remove(&name("helpdesk"));
    world.commit(DesiredAgent { renamed_from: Some(name("helpdesk")), ..with_extra("support") });
    world.converge();
    let writes = world.writes.iter().filter(|write| write.ends_with("ConfigMap/extra")).count();
    assert_eq!(writes, 1, "{:?}", world.writes);
    assert!(world.find("Deployment", "helpdesk").is_none());
}

// K7
#[test]
fn a_tombstone_lets_go_of_what_moved_to_another_agent() {
    let mut world = World::new();
    let with_extra = |who: &str| desired(&name(who), "hello", |_, settings| settings.manifests = vec![extra("extra")]);
    world.commit(with_extra("helpdesk"));
    world.converge();
    // Removed and taken over in one commit: the taker is held up until the other is long gone.
    world.refuse.insert("ConfigMap".to_owned(), FailureKind::Unavailable { retry_after: None });
    world.remove(&name("helpdesk"));
    world.commit(with_extra("support"));
    world.run();
    world.refuse.clear();
    world.converge();
    let left = world.record_of(&name("helpdesk")).expect("a tombstone");
    assert!(left.inventory.is_empty(), "{:?}", left.inventory);
    assert_eq!(world.oracle.violations, []);
}

// K7
#[test]
fn a_removal_waits_for_git_to_say_what_another_agent_takes() {
    let with_extra = |who: &str| desired(&name(who), "hello", |_, settings| settings.manifests = vec![extra("extra")]);
    let mut begun = World::new();
    begun.commit(with_extra("helpdesk"));
    begun.converge();
    let uid = begun.uid("ConfigMap", "extra");
    // The taker is held up, and the daemon dies anywhere in the removal.
    begun.refuse.insert("Service".to_owned(), FailureKind::Unavailable { retry_after: None });
    for at in 1..12 {
        let mut world = begun.clone();
        world.plane.fault = Some((Class::CrashAfter, world.effects + at));
        world.remove(&name("helpdesk"));
        world.commit(with_extra("support"));
        world.run();
        world.refuse.clear();
        world.converge();
        assert_eq!(world.uid("ConfigMap", "extra"), uid, "it was made anew after a crash at {at}: {:?}", world.writes);
        assert!(world.find("Deployment", "helpdesk").is_none(), "{:?}", world.writes);
    }
}

// K13
#[test]
fn what_git_said_is_told_in_the_record_until_git_speaks_again() {
    let mut world = World::new().git("hello").settle().git_is_bad().settle();
    assert!(world.holds(ConditionKind::Stalled));
    world.writes.clear();
    let told = world.record().clone();
    world.restart();
    let word = std::mem::take(&mut world.git);
    world.run();
    assert_eq!((&world.writes, world.record()), (&vec![], &told), "before Git has spoken");
    world.git = word;
    world.run();
    assert_eq!((&world.writes, world.record()), (&vec![], &told), "and after");
}

// K2
#[test]
fn an_old_list_of_the_ledger_moves_nothing_before_git_has_spoken() {
    let world = World::new().git("hello").settle();
    let old = world.past();
    let mut world = world.git("good day").settle();
    world.restart();
    world.plane.stale = Some(super::plane::Past { objects: world.cluster.objects.clone(), ..old });
    let word = std::mem::take(&mut world.git);
    world.writes.clear();
    world.run();
    assert_eq!(world.writes, Vec::<String>::new());
    world.git = word;
    world.plane.stale = None;
    world.run();
    assert_eq!(world.running(), Some(id("good day")));
}

// K10
#[test]
fn a_busy_git_server_is_asked_again_only_when_it_said() {
    let mut world = World::new().git("hello").settle().git("bad").settle();
    let request = super::scenarios::request("1");
    world.requests().rollback = Some(RollbackRequest { request, to: None, no_git: false });
    let mut probe = world.clone();
    probe.log = Some(vec![]);
    let (before, probe) = (probe.effects, probe.settle());
    let log = probe.log.expect("it was learnt");
    let at = log.iter().position(|effect| matches!(effect, Action::TellGit(_))).expect("Git is told");
    world.plane.fault = Some((Class::TooMany, before + at + 1));
    world.converge();
    assert!(world.plane.hit);
    assert_eq!(world.oracle.violations, []);
    assert_eq!(world.running(), Some(id("hello")));
    assert!(world.writes.iter().any(|write| write.starts_with("tell git")), "{:?}", world.writes);
}

// K13
#[test]
fn a_commit_that_cannot_be_used_is_told_once() {
    let mut world = World::new().git("hello").settle().git_is_bad().settle();
    let writes = world.writes.len();
    for _ in 0..3 {
        world = world.later(SignedDuration::from_mins(2));
        world.edit("Deployment", "support", |body| body["metadata"]["labels"]["team"] = json!(body["metadata"]["uid"]));
        let object = world.find("Deployment", "support").expect("a Deployment");
        world.cluster.touch(&object);
        world = world.settle();
    }
    assert_eq!(world.writes.len(), writes, "{:?}", world.writes);
}

// R7
#[test]
fn a_record_of_a_newer_version_is_kept_and_only_read() {
    let mut world = World::new().git("hello").settle();
    // Fields of a newer version stay, whatever is written.
    let entry = world.ledger.get_mut(&agent()).expect("an entry");
    entry.rewrite(|record| drop(record.unknown.insert("novelty".to_owned(), json!({"a": 1}))));
    let mut world = world.git("next").settle();
    assert_eq!(world.record().unknown.get("novelty"), Some(&json!({"a": 1})));
    assert_eq!(world.running(), Some(id("next")));
    // A newer format makes this version only read: no drift is healed, nothing is deployed.
    world.ledger.get_mut(&agent()).expect("an entry").rewrite(|record| record.format = backstay::record::ROLLOUT_FORMAT + 1);
    world.restart();
    world.writes.clear();
    let kept = world.record().clone();
    world.edit("Deployment", "support", |body| body["spec"]["replicas"] = json!(7));
    world.git.says(desired(&agent(), "third", |_, _| {}));
    world.requests().suspend = Some(super::scenarios::request("5"));
    world.converge();
    assert_eq!(world.writes, Vec::<String>::new());
    assert_eq!(*world.record(), kept);
    assert!(world.told.iter().any(|news| news.starts_with("NewerRecord")));
}
