//! Going back: by Git, by a person, and by itself when a release fails.

use backstay::desired::{Allow, ReleaseRef};
use backstay::record::{Cause, ConditionKind, Evidence, Outcome, Request, RetryRequest, RollbackRequest, Told};

use super::world::{World, agent, desired};

fn id(prompt: &str) -> String {
    desired(&agent(), prompt, |_, _| {}).release.id.short()
}

fn request(id: &str) -> Request {
    Request { id: id.to_owned(), by: "alice".to_owned(), reason: "answers are wrong".to_owned() }
}

fn rollback(world: &mut World, id: &str, to: Option<&str>, no_git: bool) {
    world.requests().rollback = Some(RollbackRequest { request: request(id), to: to.map(str::to_owned), no_git });
}

#[test]
fn a_revert_comes_back_to_the_very_same_objects() {
    let world = World::new().git("hello").settle();
    let name = format!("support--{}", id("hello"));
    let files = world.uid("ConfigMap", &name);
    let mut world = world.git("bad").settle();
    assert_eq!(world.running(), Some(id("bad")));
    world.writes.clear();
    let world = world.git("hello").settle();
    assert_eq!(world.running(), Some(id("hello")));
    assert_eq!(world.uid("ConfigMap", &name), files, "it was never made anew");
    assert_eq!(world.writes, ["record", "~ Deployment/support", "record"]);
    let newest = &world.record().operations[0];
    assert!(matches!(&newest.cause, Cause::Revert { evidence: Evidence::Verified, of } if of.len() == 1));
    assert!(newest.cause.to_string().starts_with("verified revert of "), "{}", newest.cause);
}

#[test]
fn going_back_does_not_wait_for_one_pod_after_another() {
    let surge =
        |world: &World| world.body("Deployment", "support")["spec"]["strategy"]["rollingUpdate"]["maxSurge"].clone();
    let world = World::new().git("hello").settle().git("bad").settle();
    assert_eq!(surge(&world), 1);
    let world = world.git("hello").settle();
    assert_eq!(surge(&world), "100%", "until the next operation");
    let world = world.git("next").settle();
    assert_eq!(surge(&world), 1);
}

#[test]
fn a_release_that_fails_by_its_own_fault_is_left_and_not_tried_again() {
    let mut world = World::new().git("hello").settle();
    world.cluster.sick.insert(id("bad"), "CrashLoopBackOff");
    let world = world.git("bad").settle();
    assert!(world.holds(ConditionKind::Progressing));
    assert_eq!(world.stable(), Some(id("hello")), "until the deadline nothing is decided");
    let world = world.past_the_deadline();
    assert_eq!(world.running(), Some(id("hello")));
    assert!(world.record().operations.iter().any(|operation| matches!(operation.outcome, Some(Outcome::Failed(_)))));
    let differs = world.record().differs.clone().expect("Git and the target differ");
    assert!(differs.why.contains("failed here"), "{}", differs.why);
    assert!(!world.holds(ConditionKind::Ready) && world.holds(ConditionKind::Degraded));
    // The same content, committed again by a bot: it stays out.
    let world = world.git("hello").settle().git("bad").settle();
    assert_eq!(world.running(), Some(id("hello")));
}

#[test]
fn a_consent_or_a_person_lets_it_try_again() {
    let mut world = World::new().git("hello").settle();
    world.cluster.sick.insert(id("bad"), "CrashLoopBackOff");
    let mut world = world.git("bad").settle().past_the_deadline();
    world.cluster.sick.clear();
    let by_file = world.clone().consent(Allow::Retry(ReleaseRef(id("bad")))).settle();
    assert_eq!(by_file.stable(), Some(id("bad")));
    world.requests().retry = Some(RetryRequest { request: request("1"), release: None });
    let by_person = world.settle();
    assert_eq!(by_person.stable(), Some(id("bad")));
    assert_eq!(by_person.record().operations[0].cause, Cause::Retry { by: "alice".to_owned() });
    assert!(by_person.holds(ConditionKind::Ready));
}

#[test]
fn a_failure_that_is_not_its_own_blames_nobody() {
    let mut world = World::new().git("hello").settle();
    world.cluster.sick.insert(id("slow"), "ContainerCreating");
    let world = world.git("slow").settle().past_the_deadline();
    assert_eq!(world.running(), Some(id("slow")), "it stays on its way");
    assert!(world.record().quarantine.is_empty());
    assert!(world.holds(ConditionKind::Stalled), "{:?}", world.record().conditions);
}

#[test]
fn a_first_release_that_fails_stays_to_be_looked_at() {
    let mut world = World::new();
    world.cluster.sick.insert(id("bad"), "CrashLoopBackOff");
    let world = world.git("bad").settle().past_the_deadline();
    assert_eq!(world.record().stable, None);
    assert!(world.holds(ConditionKind::Degraded), "{:?}", world.record().conditions);
    let world = world.git("hello").settle();
    assert!(world.holds(ConditionKind::Ready));
}

#[test]
fn a_rollback_moves_the_target_holds_and_tells_git() {
    let mut world = World::new().git("hello").settle().git("bad").settle();
    rollback(&mut world, "1", None, false);
    let world = world.settle();
    assert_eq!(world.running(), Some(id("hello")));
    assert!(world.writes.contains(&format!("tell git: alice left {}", id("bad"))), "{:?}", world.writes);
    let hold = world.record().hold.clone().expect("a hold");
    assert_eq!(hold.git, Told::Commit("c0ffee".to_owned()));
    // Git still asks for the release that was left: nothing rolls forward.
    assert!(world.record().differs.is_some());
    // The commit arrives: Git agrees, and nothing is deployed.
    let mut world = world;
    world.writes.clear();
    let world = world.git("hello").settle();
    assert!(world.writes.iter().all(|write| write == "record"), "{:?}", world.writes);
    assert!(world.holds(ConditionKind::Ready) && world.record().differs.is_none());
    assert_eq!(world.record().hold, None, "the hold has done its work");
    // Who asks for the release that was left once more gets it.
    let world = world.git("bad").settle();
    assert_eq!(world.running(), Some(id("bad")));
    let world = world.git("better").settle();
    assert_eq!(world.running(), Some(id("better")));
    assert_eq!(world.record().hold, None);
}

#[test]
fn a_rollback_without_git_says_so_until_it_is_done() {
    let mut world = World::new().git("hello").settle().git("bad").settle();
    rollback(&mut world, "1", None, true);
    let world = world.settle();
    assert_eq!(world.running(), Some(id("hello")));
    assert!(world.message(ConditionKind::GitBehind).contains("without telling Git"), "{:?}", world.record().conditions);
    assert!(!world.writes.iter().any(|write| write.starts_with("tell git")));
}

#[test]
fn a_rollback_that_cannot_be_done_says_why_and_changes_nothing() {
    let mut world = World::new().git("hello").settle();
    for (n, to) in [(1, None), (2, Some("r-000000000000")), (3, Some(&*id("hello")))] {
        rollback(&mut world, &n.to_string(), to, false);
        world = world.settle();
        assert_eq!(world.running(), Some(id("hello")));
    }
    let refused: Vec<_> = world.told.iter().filter(|news| news.starts_with("RollbackRefused")).collect();
    assert_eq!(refused.len(), 3, "{refused:#?}");
    assert!(refused[1].contains("was never stable here"), "{}", refused[1]);
}

// R8
#[test]
fn a_suspended_agent_is_left_alone_until_it_is_resumed() {
    let mut world = World::new().git("hello").settle();
    world.requests().suspend = Some(request("1"));
    let mut world = world.git("good day").settle();
    assert_eq!(world.running(), Some(id("hello")));
    assert!(world.holds(ConditionKind::Suspended));
    world.requests().resume = Some(request("2"));
    let world = world.settle();
    assert_eq!(world.running(), Some(id("good day")));
    assert!(!world.holds(ConditionKind::Suspended));
}

#[test]
fn a_rollback_needs_neither_git_nor_a_mirror_nor_a_memory() {
    let edit = |settings: &mut backstay::desired::Settings| settings.replicas = Some(5);
    let world = World::new().git_with("hello", |_, settings| edit(settings)).settle();
    let mut world = world.git_with("bad", |_, settings| edit(settings)).settle().git_lost();
    rollback(&mut world, "1", None, false);
    let world = world.settle();
    assert_eq!((world.stable(), world.running()), (Some(id("hello")), Some(id("hello"))));
    assert_eq!(world.body("Deployment", "support")["spec"]["replicas"], 5, "the settings that stood");
    assert_eq!(world.record().hold.as_ref().expect("a hold").git, Told::Pending, "Git is told when it is back");
}

#[test]
fn settings_that_were_tampered_with_are_not_used() {
    let mut world = World::new().git("hello").settle().git("bad").settle().git_lost();
    world.ledger.get_mut(&agent()).expect("an entry").rewrite(|record| {
        let settings = record.settings.as_mut().expect("they are kept");
        let other = settings.replace("\"replicas\":2", "\"replicas\":9");
        assert_ne!(*settings, other);
        *settings = other;
    });
    rollback(&mut world, "1", None, false);
    let world = world.settle();
    assert_eq!(world.running(), Some(id("bad")), "it waits for Git");
    let world = world.git("bad").settle();
    assert_eq!(world.running(), Some(id("hello")), "and goes back when Git is there");
    assert_eq!(world.body("Deployment", "support")["spec"]["replicas"], 2);
}
