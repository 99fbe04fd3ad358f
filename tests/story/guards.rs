//! The guards that stand before an effect: each alone, where everything else would let it through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstay::desired::Settings;
use backstay::model::{LiveObject, LiveState, Manifest, ObjectRef, Origin, Uid};
use backstay::plan::{GatePolicy, Plan, PlanInput, Step, plan};
use backstay::reconcile::FailureKind;
use backstay::record::{AgentRecord, ConditionKind, Inventory, Request, RetryRequest, RollbackRequest};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::world::{NAMESPACE, World, agent, desired};

fn id(prompt: &str) -> String {
    desired(&agent(), prompt, |_, _| {}).release.id.short()
}

fn manifest(body: Value) -> Manifest {
    Manifest {
        object: ObjectRef::of(&body, NAMESPACE).expect("an identity"),
        body: body.into(),
        origin: Origin::file("agents/support/manifests/extra.yaml"),
    }
}

fn extra(settings: &mut Settings) {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}, "data": {"a": "b"}});
    settings.manifests = vec![manifest(body)];
}

/// The plan of an agent that goes and owns one ConfigMap, which is seen.
fn removal(unseen: bool, leaves: bool) -> (ObjectRef, Plan) {
    let metadata = json!({"name": "extra", "namespace": NAMESPACE, "uid": "u", "resourceVersion": "7"});
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    let live = Arc::new(LiveObject::of(body).expect("a live object"));
    let object = live.object.clone();
    let mut state =
        LiveState { objects: BTreeMap::from([(object.clone(), live)]), synced: true, ..LiveState::default() };
    if unseen {
        state.unseen.insert(object.group_kind(), "the list broke off".to_owned());
    }
    let inventory = Inventory(BTreeMap::from([(object.clone(), Uid("u".to_owned()))]));
    let record = AgentRecord { format: 1, inventory, ..AgentRecord::default() };
    let leaves = if leaves { BTreeMap::from([(object.clone(), false)]) } else { BTreeMap::new() };
    let plan = plan(&PlanInput {
        agent: &agent(),
        desired: &[],
        previous: None,
        live: &state,
        record: &record,
        takes: &BTreeMap::new(),
        leaves: &leaves,
        consents: &[],
        kept: &BTreeSet::new(),
        accepted: &BTreeMap::new(),
        refused: &BTreeMap::new(),
        handed_over: &BTreeSet::new(),
        dropped: &BTreeSet::new(),
        unhealthy: None,
        gate: &GatePolicy::of(NAMESPACE),
    });
    (object, plan)
}

fn deletes(plan: &Plan) -> usize {
    plan.steps.iter().chain(&plan.then).filter(|step| matches!(step, Step::Prune { .. })).count()
}

// K4
#[test]
fn what_was_listed_before_the_list_broke_off_is_not_pruned() {
    let (object, whole) = removal(false, false);
    assert_eq!((deletes(&whole), whole.waiting.len()), (1, 0));
    let Step::Prune { object: pruned, uid, version, .. } = &whole.steps[0] else { panic!("{whole:?}") };
    assert_eq!((pruned, &*uid.0, &*version.0), (&object, "u", "7"), "exactly what was seen");
    let (_, partial) = removal(true, false);
    assert_eq!((deletes(&partial), partial.waiting.len()), (0, 1), "{partial:?}");
    assert!(partial.waiting[0].to_string().contains("the list broke off"), "{}", partial.waiting[0]);
}

// K7
#[test]
fn an_object_that_another_agent_asks_for_is_not_deleted_by_the_one_it_leaves() {
    assert_eq!(deletes(&removal(false, true).1), 0);
}

#[test]
fn nothing_is_pruned_before_the_new_release_is_healthy() {
    let mut world = World::new().git_with("hello", |_, settings| extra(settings)).settle();
    world.cluster.sick.insert(id("slow"), "ContainerCreating");
    let mut world = world.git("slow").settle();
    assert_eq!(world.running(), Some(id("slow")));
    assert!(world.find("ConfigMap", "extra").is_some(), "the old pods may still need it: {:?}", world.writes);
    world.cluster.sick.clear();
    let world = world.settle();
    assert!(world.find("ConfigMap", "extra").is_none(), "{:?}", world.record().conditions);
}

#[test]
fn what_pods_still_mount_is_kept_past_the_history() {
    let name = format!("support--{}", id("prompt 0"));
    let labels = json!({"app.kubernetes.io/managed-by": "backstay", "backstay.dev/agent": "support"});
    let volumes = json!([{"name": "agent", "configMap": {"name": name}}]);
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "support-old", "labels": labels},
        "spec": {"replicas": 0, "template": {"spec": {"volumes": volumes}}}, "status": {"replicas": 1},
    });
    let mut world = World::new().git("prompt 0").settle().foreign(set);
    for n in 1..7 {
        world = world.git(&format!("prompt {n}")).settle();
    }
    assert!(world.record().history.iter().all(|standing| standing.release.short() != id("prompt 0")));
    assert!(world.find("ConfigMap", &name).is_some(), "a pod that ends still has it");
    world.delete("ReplicaSet", "support-old");
    let world = world.later(SignedDuration::from_secs(11)).settle();
    assert!(world.find("ConfigMap", &name).is_none());
}

#[test]
fn the_gate_stands_before_every_write() {
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let container = json!({"name": "c", "image": "i", "securityContext": {"privileged": true}});
    for body in [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "evil"}, "rules": rules}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "evil"}, "spec": {"containers": [container]}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "evil", "namespace": "kube-system"}}),
        json!({"apiVersion": "backstay.dev/v1alpha1", "kind": "AgentRelease", "metadata": {"name": "evil"}}),
    ] {
        let told = body["kind"].clone();
        let world = World::new().git_with("hello", |_, settings| settings.manifests = vec![manifest(body)]).settle();
        assert!(!world.writes.iter().any(|write| write.contains("evil")), "{told}: {:?}", world.writes);
        assert!(!world.holds(ConditionKind::Ready), "{told}");
        assert!(world.message(ConditionKind::Stalled).contains("evil"), "{told}: {:?}", world.record().conditions);
    }
}

#[test]
fn a_config_map_that_holds_another_release_than_its_name_says_is_not_used() {
    // The second time, nobody remembers the first release but its ConfigMap.
    let mut world = World::new().git("hello").settle().git("next").settle().git("next").settle();
    let of = |prompt: &str| format!("support--{}", id(prompt));
    let other = world.body("ConfigMap", &of("next"))["data"].clone();
    world.edit("ConfigMap", &of("hello"), |body| body["data"] = other);
    world.restart();
    let request = Request { id: "1".to_owned(), by: "alice".to_owned(), reason: String::new() };
    world.requests().rollback = Some(RollbackRequest { request, to: None, no_git: true });
    let world = world.settle();
    assert_eq!((world.running(), world.stable()), (Some(id("next")), Some(id("next"))));
    assert!(world.message(ConditionKind::Stalled).contains("is not known"), "{:?}", world.record().conditions);
}

// K10
#[test]
fn who_is_asked_to_wait_waits_that_long() {
    let mut world = World::new();
    world.refuse.insert("Service".to_owned(), FailureKind::Unavailable { retry_after: Some(30) });
    let mut world = world.git("hello").settle();
    let begun = world.now;
    world.refuse.clear();
    for _ in 0..20 {
        if world.holds(ConditionKind::Ready) {
            break;
        }
        world = world.until_woken();
    }
    assert!(world.holds(ConditionKind::Ready), "{:?}", world.record().conditions);
    let waited = world.now.duration_since(begun);
    assert!(waited >= SignedDuration::from_secs(30) && waited <= SignedDuration::from_mins(1), "{waited:#}");
}

// R6
#[test]
fn a_ledger_that_was_made_anew_prunes_nothing_until_a_person_agrees() {
    let story: [&dyn Fn(World) -> World; 2] = [&|world| world.git("hello"), &|world| world.git_removes()];
    for goes in story {
        let mut world = World::new().git_with("hello", |_, settings| extra(settings)).settle();
        world.lose_ledger();
        world.restart();
        let mut world = goes(world.settle()).settle();
        assert!(world.record().unconfirmed && world.find("ConfigMap", "extra").is_some(), "{:?}", world.writes);
        assert!(world.holds(ConditionKind::PruneBlocked), "{:?}", world.record().conditions);
        let request = Request { id: "1".to_owned(), by: "alice".to_owned(), reason: String::new() };
        world.requests().retry = Some(RetryRequest { request, release: None });
        let world = world.settle();
        assert!(world.find("ConfigMap", "extra").is_none(), "{:?}", world.record().conditions);
    }
}
