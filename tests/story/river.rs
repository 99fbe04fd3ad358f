//! A push deploys, a change rolls, a removal takes away, and at rest nothing is written.

use backstay::record::{Cause, ConditionKind, OperationKind, Outcome, Phase};
use jiff::SignedDuration;

use super::world::World;

fn mask(writes: &[String]) -> Vec<String> {
    let short = |write: &String| write.split("--r-").next().unwrap_or_default().to_owned();
    writes.iter().map(short).collect()
}

#[test]
fn a_push_deploys_and_is_written_down() {
    let world = World::new().git("hello").settle();
    let expected = [
        "record",
        "+ ConfigMap/support",
        "+ Service/support",
        "+ Service/support--rolling",
        "+ Deployment/support",
        "record",
    ];
    assert_eq!(mask(&world.writes), expected);
    assert!(world.holds(ConditionKind::Ready), "{:?}", world.record().conditions);
    assert_eq!(world.running(), world.stable());
    let first = &world.record().operations[0];
    assert_eq!((first.kind, &first.cause), (OperationKind::Release, &Cause::Commit {}));
    assert_eq!(first.outcome, Some(Outcome::Succeeded));
}

// K13
#[test]
fn at_rest_nothing_is_written() {
    let mut world = World::new().git("hello").settle();
    let effects = world.effects;
    for _ in 0..5 {
        world = world.later(SignedDuration::from_mins(7)).settle();
    }
    world.restart();
    world = world.settle();
    assert_eq!(world.effects, effects, "{:?}", world.writes);
}

#[test]
fn a_changed_prompt_is_two_writes_and_two_records() {
    let mut world = World::new().git("hello").settle();
    world.writes.clear();
    let world = world.git("good day").settle();
    assert_eq!(mask(&world.writes), ["record", "+ ConfigMap/support", "~ Deployment/support", "record"]);
    assert_eq!(world.record().history.len(), 1);
}

#[test]
fn changed_settings_are_applied_in_place() {
    let mut world = World::new().git("hello").settle();
    let running = world.running();
    world.writes.clear();
    let world = world.git_with("hello", |_, settings| settings.replicas = Some(5)).settle();
    assert_eq!(world.writes, ["record", "~ Deployment/support", "record"]);
    assert_eq!(world.record().operations[0].kind, OperationKind::Settings);
    assert_eq!(world.running(), running);
}

#[test]
fn an_autoscaler_takes_the_replicas_over_without_a_moment_with_one_pod() {
    let mut world = World::new().git("hello").settle();
    world.edit("Deployment", "support", |body| body["spec"]["replicas"] = 2.into());
    world.writes.clear();
    let scaling = serde_json::json!({"minReplicas": 2, "maxReplicas": 9});
    let world = world.git_with("hello", |_, settings| settings.autoscaling = Some(scaling)).settle();
    let expected =
        ["record", "= Deployment/support", "~ Deployment/support", "+ HorizontalPodAutoscaler/support", "record"];
    assert_eq!(world.writes, expected);
}

#[test]
fn a_removal_takes_all_of_it_and_leaves_a_tombstone() {
    let world = World::new().git("hello").settle().git("good day").settle().git_removes().settle();
    assert!(world.cluster.objects.is_empty(), "{:?}", world.cluster.objects.keys());
    assert_eq!(world.record().phase, Phase::Removed);
    assert_eq!(world.record().history.len(), 2, "what stood here is remembered");
    let again = world.git("hello").settle();
    assert!(again.holds(ConditionKind::Ready));
    assert!(matches!(again.record().operations[0].cause, Cause::Revert { .. }), "it is back");
}

// S3
#[test]
fn a_bad_commit_leaves_what_runs_and_says_so() {
    let world = World::new().git("hello").settle();
    let running = world.running();
    let world = world.git_is_bad().settle();
    assert_eq!(world.running(), running);
    assert!(world.message(ConditionKind::Stalled).contains("agent.yaml:3:1"), "{:?}", world.record().conditions);
    let world = world.git("good day").settle();
    assert!(world.holds(ConditionKind::Ready), "the next good commit proceeds");
    assert!(!world.holds(ConditionKind::Stalled));
}

#[test]
fn a_bad_first_commit_is_told_in_a_record() {
    let world = World::new().git_is_bad().settle();
    assert!(world.cluster.objects.is_empty());
    assert!(world.holds(ConditionKind::Stalled));
}

#[test]
fn old_releases_keep_their_files_as_long_as_the_history_says() {
    let mut world = World::new();
    for n in 0..7 {
        world = world.git(&format!("prompt {n}")).settle();
    }
    let kept = world.cluster.objects.keys().filter(|object| object.kind == "ConfigMap").count();
    assert_eq!(kept, 4, "the stable one and three before it");
    assert_eq!(world.record().history.len(), 3);
}

#[test]
fn a_newer_commit_takes_the_place_of_one_on_its_way() {
    let mut world = World::new().git("hello").settle();
    let slow = super::world::desired(&super::world::agent(), "slow", |_, _| {}).release.id.short();
    world.cluster.sick.insert(slow, "ContainerCreating");
    let world = world.git("slow").settle();
    assert!(world.holds(ConditionKind::Progressing));
    let world = world.git("better").settle();
    assert!(world.holds(ConditionKind::Ready), "{:?}", world.record().conditions);
    assert_eq!(world.record().operations[1].outcome, Some(Outcome::Superseded));
}
