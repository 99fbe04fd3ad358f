//! What is ours, what is not, and what happens where the two meet.

use backstay::desired::Allow;
use backstay::reconcile::FailureKind;
use backstay::record::ConditionKind;
use jiff::SignedDuration;
use serde_json::json;

use super::world::World;

fn service() -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "support", "labels": {"team": "other"}},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}})
}

// K9
#[test]
fn an_object_that_exists_is_left_as_it_is_without_consent() {
    let world = World::new().foreign(service()).git("hello").settle();
    let object = world.find("Service", "support").expect("the Service");
    assert_eq!(world.cluster.body(&object)["spec"], service()["spec"]);
    assert!(world.message(ConditionKind::Stalled).contains("`adopt`"), "{:?}", world.record().conditions);
    let world = world.consent(Allow::Adopt("Service/support".to_owned())).settle();
    assert!(world.holds(ConditionKind::Ready), "{:?}", world.record().conditions);
    assert!(world.writes.contains(&"± Service/support".to_owned()));
}

// K9
#[test]
fn what_flux_or_argo_manage_is_never_adopted() {
    for (map, key, who) in [
        ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
        ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ] {
        let mut body = service();
        body["metadata"][map][key] = json!("x");
        let world =
            World::new().foreign(body).git("hello").consent(Allow::Adopt("Service/support".to_owned())).settle();
        assert!(world.message(ConditionKind::Stalled).contains(who), "{:?}", world.record().conditions);
    }
}

// K8
#[test]
fn drift_is_healed_at_once_and_other_peoples_fields_stay() {
    let mut world = World::new().git("hello").settle();
    world.writes.clear();
    world.edit("Deployment", "support", |body| {
        body["spec"]["replicas"] = json!(7);
    });
    let mut world = world.settle();
    assert_eq!(world.writes, ["~ Deployment/support", "record"], "healing waits for no record, and is told after");
    assert_eq!(world.record().drift_healed, 1);
    assert!(world.told.iter().any(|news| news.starts_with("DriftHealed")));
    world.writes.clear();
    world.edit("Deployment", "support", |body| body["metadata"]["labels"]["team"] = json!("blue"));
    let world = world.settle();
    assert!(world.writes.is_empty(), "{:?}", world.writes);
}

#[test]
fn a_deleted_object_is_made_again() {
    let mut world = World::new().git("hello").settle();
    world.delete("Service", "support");
    let world = world.later(SignedDuration::from_secs(11)).settle();
    assert!(world.find("Service", "support").is_some());
    let uid = world.uid("Service", "support");
    let owned =
        world.record().inventory.0.iter().find(|(object, _)| object.name == "support" && object.kind == "Service");
    assert_eq!(owned.map(|(_, owned)| owned.0.clone()), uid, "the inventory knows the new one");
}

// K8
#[test]
fn after_three_take_backs_healing_stops() {
    let mut world = World::new().git("hello").settle();
    for n in 0..6 {
        world.edit("Deployment", "support", |body| body["spec"]["replicas"] = json!(9 + n));
        world = world.later(SignedDuration::from_secs(30)).settle();
    }
    let healed = world.told.iter().filter(|news| news.starts_with("DriftHealed")).count();
    assert_eq!(healed, 3);
    assert!(world.message(ConditionKind::Contested).contains("spec.replicas"), "{:?}", world.record().conditions);
    let world = world.git("next").settle();
    assert!(!world.holds(ConditionKind::Contested), "a new operation begins anew");
}

// K4
#[test]
fn a_kind_that_is_not_seen_is_never_pruned() {
    let extra = |settings: &mut backstay::desired::Settings| {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}, "data": {"a": "b"}});
        settings.manifests = vec![backstay::model::Manifest {
            object: backstay::model::ObjectRef::of(&body, super::world::NAMESPACE).expect("an identity"),
            body: body.into(),
            origin: backstay::model::Origin::file("agents/support/manifests/extra.yaml"),
        }];
    };
    let mut world = World::new().git_with("hello", |_, settings| extra(settings)).settle();
    assert!(world.find("ConfigMap", "extra").is_some());
    world.unseen.insert("ConfigMap".to_owned());
    let mut world = world.git("hello").settle();
    assert!(world.find("ConfigMap", "extra").is_some(), "it may not be deleted");
    world.unseen.clear();
    let world = world.settle();
    assert!(world.find("ConfigMap", "extra").is_none(), "{:?}", world.record().conditions);
}

// K5
#[test]
fn a_volume_claim_is_deleted_only_by_name() {
    let claim = |settings: &mut backstay::desired::Settings| {
        let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "memory"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        settings.manifests = vec![backstay::model::Manifest {
            object: backstay::model::ObjectRef::of(&body, super::world::NAMESPACE).expect("an identity"),
            body: body.into(),
            origin: backstay::model::Origin::file("agents/support/manifests/claim.yaml"),
        }];
    };
    let world = World::new().git_with("hello", |_, settings| claim(settings)).settle().git_removes().settle();
    assert!(world.find("PersistentVolumeClaim", "memory").is_some());
    assert!(world.holds(ConditionKind::PruneBlocked), "{:?}", world.record().conditions);
    let world = world.consent(Allow::Prune("PersistentVolumeClaim/memory".to_owned())).settle();
    assert!(world.find("PersistentVolumeClaim", "memory").is_none());
}

// K12, K14
#[test]
fn what_the_server_refuses_stops_and_is_not_made_anew() {
    let mut world = World::new().git("hello").settle();
    world.refuse.insert("Deployment".to_owned(), FailureKind::Immutable);
    let mut world = world.git("next").settle();
    assert!(world.message(ConditionKind::Stalled).contains("`replace`"), "{:?}", world.record().conditions);
    assert!(!world.writes.iter().any(|write| write.starts_with("- Deployment")));
    world.refuse.clear();
    let world = world.consent(Allow::Replace("Deployment/support".to_owned())).settle();
    assert!(world.holds(ConditionKind::Ready));
}

#[test]
fn a_lost_ledger_is_made_anew_and_nothing_is_pruned_until_a_person_agrees() {
    let mut world = World::new().git("hello").settle().git("next").settle();
    world.lose_ledger();
    world.restart();
    let count = world.cluster.objects.len();
    let mut world = world.settle();
    assert_eq!(world.cluster.objects.len(), count);
    assert!(world.record().unconfirmed);
    assert_eq!(world.running(), world.stable());
    world = world.git("third").settle();
    assert_eq!(world.running(), world.stable());
    assert!(!world.writes.iter().any(|write| write.starts_with('-')), "{:?}", world.writes);
    world.requests().retry = Some(backstay::record::RetryRequest {
        request: backstay::record::Request { id: "1".to_owned(), by: "alice".to_owned(), reason: String::new() },
        release: None,
    });
    let world = world.settle();
    assert!(!world.record().unconfirmed);
}
