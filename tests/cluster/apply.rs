//! Writes and their preconditions, and what each refusal of the server is taken for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay::apply::{Fence, Target, Unfenced};
use backstay::model::{AgentName, LiveObject, Manifest, ObjectRef, Origin, ResourceVersion, Uid};
use backstay::observe::{Api, Kinds};
use backstay::reconcile::{Done, Failure, FailureKind, How, Write};
use backstay::record::OperationId;
use backstay::render::OPERATION_ANNOTATION;
use serde_json::{Value, json};

use crate::lab::{Lab, eventually, lab};

fn agent() -> AgentName {
    "support".parse().expect("a name")
}

fn target(api: Api, lab: &Lab) -> Target {
    Target::new(api.clone(), Arc::new(Kinds::new(api)), lab.namespace.clone(), Arc::new(Unfenced))
}

fn manifest(lab: &Lab, body: Value) -> Manifest {
    let object = ObjectRef::of(&body, &lab.namespace).expect("an identity");
    Manifest { object, body: Arc::new(body), origin: Origin::file("agent.yaml") }
}

fn create(lab: &Lab, body: Value) -> Write {
    Write { manifest: manifest(lab, body), how: How::Create { operation: OperationId(7) } }
}

fn config(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(name: &str, spec: &Value) -> Value {
    let labels = json!({"app": name});
    let pod = json!({"containers": [{"name": "main", "image": "example/nothing:1", "command": ["sleep", "1000"]}],
        "nodeSelector": {"no-such": "node"}});
    let mut whole = json!({"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod}});
    for (field, value) in spec.as_object().expect("an object") {
        whole[field] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": whole})
}

async fn written(target: &Target, write: &Write) -> Arc<LiveObject> {
    match target.write(&agent(), write).await {
        Ok(Done::Written(live)) => live,
        other => panic!("{other:?}"),
    }
}

async fn refused(target: &Target, write: &Write) -> Failure {
    target.write(&agent(), write).await.expect_err("refused")
}

fn apply(lab: &Lab, body: Value, live: &LiveObject, drops_fields: bool) -> Write {
    let how = How::Apply { uid: live.uid.clone(), version: live.version.clone(), drops_fields };
    Write { manifest: manifest(lab, body), how }
}

/// An object without who owns its fields, as the answer to a write is read; its version tells of a change of that too.
fn unowned(live: Option<Value>) -> Value {
    let mut live = live.expect("it is there");
    live["metadata"].as_object_mut().expect("metadata").remove("managedFields").expect("somebody owns it");
    live
}

/// Who owns fields of an object, as it stands now.
async fn managers(lab: &Lab, path: &str, name: &str) -> Vec<String> {
    let live = lab.see(path, name).await.expect("it is there");
    let entries = live["metadata"]["managedFields"].as_array().expect("a list");
    entries.iter().map(|entry| entry["manager"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn a_creation_is_marked_and_changes_nothing_that_stands_there() {
    // K9
    let Some(lab) = lab("a_creation_is_marked_and_changes_nothing_that_stands_there").await else { return };
    let target = target(lab.api(None).await, &lab);
    let write = create(&lab, config("ours", &json!({"a": "1"})));
    let live = written(&target, &write).await;
    assert_eq!(live.annotation(OPERATION_ANNOTATION), Some("support/7"));
    assert_eq!(managers(&lab, "configmaps", "ours").await, ["backstay"]);
    let theirs = lab.make("configmaps", config("theirs", &json!({"b": "2"}))).await;
    for name in ["ours", "theirs"] {
        let failure = refused(&target, &create(&lab, config(name, &json!({"c": "3"})))).await;
        assert_eq!(failure.kind, FailureKind::Exists);
        assert!(failure.message.starts_with(&format!("cannot create ConfigMap/{}/{name}: ", lab.namespace)));
    }
    assert_eq!(lab.see("configmaps", "theirs").await, Some(theirs));
    assert_eq!(unowned(lab.see("configmaps", "ours").await), *live.body);
}

#[tokio::test]
async fn an_apply_hits_exactly_what_was_read() {
    // K2
    let Some(lab) = lab("an_apply_hits_exactly_what_was_read").await else { return };
    let target = target(lab.api(None).await, &lab);
    let first = written(&target, &create(&lab, config("one", &json!({"a": "1"})))).await;
    let second = written(&target, &apply(&lab, config("one", &json!({"a": "2"})), &first, false)).await;
    assert_eq!(second.body["data"], json!({"a": "2"}));
    for drops_fields in [false, true] {
        let stale = apply(&lab, config("one", &json!({"a": "3"})), &first, drops_fields);
        assert_eq!(refused(&target, &stale).await.kind, FailureKind::Conflict);
        let mut other = apply(&lab, config("one", &json!({"a": "3"})), &second, drops_fields);
        if let How::Apply { uid, .. } = &mut other.how {
            *uid = Uid("00000000-0000-0000-0000-000000000000".to_owned());
        }
        assert_eq!(refused(&target, &other).await.kind, FailureKind::Conflict);
    }
    assert_eq!(unowned(lab.see("configmaps", "one").await), *second.body);
    // Gone, and then made anew by somebody else: neither is written to, and nothing is made.
    lab.remove("configmaps", "one").await;
    for drops_fields in [false, true] {
        let late = apply(&lab, config("one", &json!({"a": "4"})), &second, drops_fields);
        assert!(matches!(refused(&target, &late).await.kind, FailureKind::Conflict | FailureKind::Gone));
        assert_eq!(lab.see("configmaps", "one").await, None);
    }
    let anew = lab.make("configmaps", config("one", &json!({"b": "1"}))).await;
    for drops_fields in [false, true] {
        let late = apply(&lab, config("one", &json!({"a": "5"})), &second, drops_fields);
        assert_eq!(refused(&target, &late).await.kind, FailureKind::Conflict);
    }
    assert_eq!(lab.see("configmaps", "one").await, Some(anew));
}

// K8
#[tokio::test]
async fn a_field_is_dropped_only_when_our_creation_lets_go_of_it() {
    let Some(lab) = lab("a_field_is_dropped_only_when_our_creation_lets_go_of_it").await else { return };
    let target = target(lab.api(None).await, &lab);
    let live = written(&target, &create(&lab, config("one", &json!({"a": "1", "b": "1"})))).await;
    lab.merge("configmaps", "one", "somebody", &json!({"data": {"theirs": "1"}})).await;
    let live = match target.read(&live.object).await {
        Ok(Done::Seen(_, Some(live))) => live,
        other => panic!("{other:?}"),
    };
    // Why it is needed: the entry of our own creation still holds the field.
    let kept = written(&target, &apply(&lab, config("one", &json!({"a": "2"})), &live, false)).await;
    assert_eq!(kept.body["data"], json!({"a": "2", "b": "1", "theirs": "1"}));
    let dropped = written(&target, &apply(&lab, config("one", &json!({"a": "2"})), &kept, true)).await;
    assert_eq!(dropped.body["data"], json!({"a": "2", "theirs": "1"}), "ours is gone, theirs is not (K8)");
    // From now on an apply alone drops fields, and asking again costs no second write.
    let again = written(&target, &apply(&lab, config("one", &json!({"c": "3"})), &dropped, true)).await;
    assert_eq!(again.body["data"], json!({"c": "3", "theirs": "1"}));
    let same = written(&target, &apply(&lab, config("one", &json!({"c": "3"})), &again, true)).await;
    assert_eq!(same.version, again.version, "the same again writes nothing (K13)");
}

// K9
#[tokio::test]
async fn an_adoption_takes_over_what_tools_wrote() {
    let Some(lab) = lab("an_adoption_takes_over_what_tools_wrote").await else { return };
    let target = target(lab.api(None).await, &lab);
    let path = format!("{}?fieldManager=kubectl-client-side-apply", lab.path("configmaps"));
    let body = config("one", &json!({"old": "1", "a": "1"}));
    lab.ask(http::Method::POST, &path, Some(body)).await.expect("made");
    lab.merge("configmaps", "one", "helm", &json!({"data": {"chart": "1"}})).await;
    let live = lab.merge("configmaps", "one", "a-controller", &json!({"data": {"theirs": "1"}})).await;
    let live = LiveObject::of(live).expect("an object");
    let adopt = |version: &ResourceVersion| Write {
        manifest: manifest(&lab, config("one", &json!({"a": "2"}))),
        how: How::Adopt { uid: live.uid.clone(), version: version.clone() },
    };
    assert_eq!(refused(&target, &adopt(&ResourceVersion("1".to_owned()))).await.kind, FailureKind::Conflict);
    let adopted = written(&target, &adopt(&live.version)).await;
    assert_eq!(adopted.body["data"], json!({"a": "2", "theirs": "1"}));
    assert_eq!(adopted.uid, live.uid);
    let managers = managers(&lab, "configmaps", "one").await;
    assert!(managers.iter().all(|manager| ["backstay", "a-controller"].contains(&&**manager)), "{managers:?}");
}

#[tokio::test]
async fn replicas_change_hands_without_a_moment_at_one() {
    let Some(lab) = lab("replicas_change_hands_without_a_moment_at_one").await else { return };
    let target = target(lab.api(None).await, &lab);
    let handover = |name: &str, body: Value, live: &LiveObject| Write {
        manifest: manifest(&lab, {
            let mut body = body;
            body["metadata"] = json!({"name": name});
            body
        }),
        how: How::Handover { uid: live.uid.clone(), version: live.version.clone() },
    };
    // What happens without it.
    let live = written(&target, &create(&lab, deployment("bare", &json!({"replicas": 3})))).await;
    let fell = eventually("the controller left the Deployment alone", async || {
        let Ok(Done::Seen(_, Some(live))) = target.read(&live.object).await else { return None };
        let write = apply(&lab, deployment("bare", &json!({})), &live, true);
        target.write(&agent(), &write).await.ok()
    })
    .await;
    let Done::Written(fell) = fell else { panic!("{fell:?}") };
    assert_eq!(fell.body["spec"]["replicas"], 1);
    // With it.
    let live = written(&target, &create(&lab, deployment("held", &json!({"replicas": 3})))).await;
    let object = live.object.clone();
    let step = async |write: &dyn Fn(&LiveObject) -> Write| {
        eventually("written", async || {
            let Ok(Done::Seen(_, Some(live))) = target.read(&object).await else { panic!("it is there") };
            match target.write(&agent(), &write(&live)).await {
                Ok(Done::Written(live)) => Some(live),
                // The Deployment's controller wrote in between.
                Err(failure) if failure.kind == FailureKind::Conflict => None,
                other => panic!("{other:?}"),
            }
        })
        .await
    };
    let identity = json!({"apiVersion": "apps/v1", "kind": "Deployment"});
    let mut body = identity.clone();
    body["spec"] = json!({"replicas": 3});
    step(&|live| handover("held", body.clone(), live)).await;
    let kept = step(&|live| apply(&lab, deployment("held", &json!({})), live, true)).await;
    assert_eq!(kept.body["spec"]["replicas"], 3);
    lab.merge("apps/v1/deployments", "held", "an-autoscaler", &json!({"spec": {"replicas": 5}})).await;
    let released = step(&|live| handover("held", identity.clone(), live)).await;
    assert_eq!(released.body["spec"]["replicas"], 5);
    let managers = managers(&lab, "apps/v1/deployments", "held").await;
    assert!(managers.iter().all(|manager| manager != "backstay-handover"), "it owns nothing any more: {managers:?}");
}

#[tokio::test]
async fn a_deletion_hits_exactly_what_was_read() {
    // K2
    let Some(lab) = lab("a_deletion_hits_exactly_what_was_read").await else { return };
    let target = target(lab.api(None).await, &lab);
    let live = written(&target, &create(&lab, config("one", &json!({"a": "1"})))).await;
    let now = lab.merge("configmaps", "one", "somebody", &json!({"data": {"b": "1"}})).await;
    let now = LiveObject::of(now).expect("an object");
    let object = &live.object;
    let other = Uid("00000000-0000-0000-0000-000000000000".to_owned());
    for (uid, version) in [(&live.uid, &live.version), (&other, &now.version)] {
        let failure = target.delete(object, uid, version).await.expect_err("refused");
        assert_eq!(failure.kind, FailureKind::Conflict, "{}", failure.message);
    }
    assert!(lab.see("configmaps", "one").await.is_some());
    assert_eq!(target.delete(object, &now.uid, &now.version).await, Ok(Done::Deleted(object.clone())));
    assert_eq!(lab.see("configmaps", "one").await, None);
    assert_eq!(target.delete(object, &now.uid, &now.version).await, Ok(Done::Deleted(object.clone())));
    assert_eq!(target.read(object).await, Ok(Done::Seen(object.clone(), None)));
}

#[tokio::test]
async fn a_dry_run_tells_and_writes_nothing() {
    let Some(lab) = lab("a_dry_run_tells_and_writes_nothing").await else { return };
    let target = target(lab.api(None).await, &lab);
    match target.dry_run(&agent(), &create(&lab, deployment("one", &json!({})))).await {
        Ok(Done::WouldBe(live)) => assert_eq!(live.body["spec"]["replicas"], 1, "with the server's defaults"),
        other => panic!("{other:?}"),
    }
    assert_eq!(lab.see("apps/v1/deployments", "one").await, None);
    let live = written(&target, &create(&lab, config("one", &json!({"a": "1", "b": "1"})))).await;
    let before = lab.see("configmaps", "one").await;
    match target.dry_run(&agent(), &apply(&lab, config("one", &json!({"a": "2"})), &live, true)).await {
        Ok(Done::WouldBe(live)) => assert_eq!(live.body["data"]["a"], "2"),
        other => panic!("{other:?}"),
    }
    assert_eq!(unowned(before.clone()), *live.body);
    assert_eq!(lab.see("configmaps", "one").await, before, "not even who owns what");
    let stale = apply(&lab, config("one", &json!({"a": "2"})), &live, false);
    lab.merge("configmaps", "one", "somebody", &json!({"data": {"b": "2"}})).await;
    let failure = target.dry_run(&agent(), &stale).await.expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Conflict);
}

#[tokio::test]
async fn every_refusal_of_the_server_is_known_for_what_it_is() {
    // K14
    let Some(lab) = lab("every_refusal_of_the_server_is_known_for_what_it_is").await else { return };
    let admin = target(lab.api(None).await, &lab);

    // Nobody whom the server knows.
    let stranger = target(lab.api_with_token("no-such-token").await, &lab);
    let failure = refused(&stranger, &create(&lab, config("one", &json!({})))).await;
    assert_eq!(failure.kind, FailureKind::Forbidden, "{}", failure.message);
    assert!(!failure.message.contains("no-such-token"));

    // The caller's rights: none, then those that it needs.
    let viewer = target(lab.api(Some("viewer")).await, &lab);
    let failure = refused(&viewer, &create(&lab, config("one", &json!({})))).await;
    assert_eq!(failure.kind, FailureKind::Forbidden, "{}", failure.message);
    lab.make("serviceaccounts", json!({"metadata": {"name": "writer"}})).await;
    let writer = target(lab.api_as("writer").await, &lab);
    assert_eq!(refused(&writer, &create(&lab, config("one", &json!({})))).await.kind, FailureKind::Forbidden);
    let subject = json!({"kind": "ServiceAccount", "name": "writer", "namespace": lab.namespace});
    lab.allow("writer", subject, &[""], &["configmaps"], &["create"]).await;
    eventually("the rights are there", async || {
        writer.write(&agent(), &create(&lab, config("one", &json!({})))).await.ok()
    })
    .await;

    // What is wrong with the object itself.
    let mut unknown_field = config("two", &json!({}));
    unknown_field["dada"] = json!({});
    let failure = refused(&admin, &create(&lab, unknown_field)).await;
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("dada"), "{}", failure.message);
    let failure = refused(&admin, &create(&lab, deployment("two", &json!({"replicas": -1})))).await;
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("spec.replicas"), "{}", failure.message);
    let failure = refused(&admin, &create(&lab, config("No Name", &json!({})))).await;
    assert_eq!(failure.kind, FailureKind::Refused);
    let large = config("large", &json!({"a": "x".repeat(4 << 20)}));
    let failure = refused(&admin, &create(&lab, large)).await;
    assert_eq!(failure.kind, FailureKind::Refused, "{}", failure.message);
    assert!(failure.message.len() < 1000);

    // Fields that cannot change.
    let live = written(&admin, &create(&lab, deployment("three", &json!({})))).await;
    let labels = json!({"app": "other"});
    let mut moved = deployment("three", &json!({"selector": {"matchLabels": labels}}));
    moved["spec"]["template"]["metadata"]["labels"] = labels;
    let immutable = eventually("not overtaken by the controller", async || {
        let Ok(Done::Seen(_, Some(live))) = admin.read(&live.object).await else { panic!("it is there") };
        let failure = refused(&admin, &apply(&lab, moved.clone(), &live, false)).await;
        (failure.kind != FailureKind::Conflict).then_some(failure)
    })
    .await;
    assert_eq!(immutable.kind, FailureKind::Immutable, "{}", immutable.message);
    assert!(!immutable.message.contains("matchLabels"), "no body: {}", immutable.message);
    let mut sealed = config("four", &json!({"a": "1"}));
    sealed["immutable"] = true.into();
    let live = written(&admin, &create(&lab, sealed.clone())).await;
    sealed["data"]["a"] = "2".into();
    let failure = refused(&admin, &apply(&lab, sealed, &live, false)).await;
    assert_eq!(failure.kind, FailureKind::Immutable, "{}", failure.message);

    // A secret never shows in a message.
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "five"}, "data": {"key": "s3cr3t!"}});
    let failure = refused(&admin, &create(&lab, secret)).await;
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(!failure.message.contains("s3cr3t"), "{}", failure.message);
}

#[tokio::test]
async fn quota_admission_and_missing_places_are_told_apart() {
    // K14
    let Some(lab) = lab("quota_admission_and_missing_places_are_told_apart").await else { return };
    let admin = target(lab.api(None).await, &lab);
    lab.make("resourcequotas", json!({"metadata": {"name": "few"}, "spec": {"hard": {"count/services": "0"}}})).await;
    let mut number = 0;
    let failure = eventually("the quota counts", async || {
        number += 1;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("one-{number}")},
            "spec": {"ports": [{"port": 80}]}});
        let failure = admin.write(&agent(), &create(&lab, service)).await.err()?;
        (!matches!(failure.kind, FailureKind::Unavailable { .. })).then_some(failure)
    })
    .await;
    assert_eq!(failure.kind, FailureKind::Forbidden, "{}", failure.message);
    assert!(failure.message.contains("exceeded quota"));

    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespace = format!("/api/v1/namespaces/{}", lab.namespace);
    let mut body = lab.ask(http::Method::GET, &namespace, None).await.expect("it is there");
    body["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] =
        labels["metadata"]["labels"]["pod-security.kubernetes.io/enforce"].clone();
    lab.ask(http::Method::PUT, &namespace, Some(body)).await.expect("labelled");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"},
        "spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "b"}]}});
    let failure = eventually("pods are judged", async || {
        // The account `default` may not be there yet.
        let failure = refused(&admin, &create(&lab, pod.clone())).await;
        failure.message.contains("PodSecurity").then_some(failure)
    })
    .await;
    assert_eq!(failure.kind, FailureKind::Refused, "{}", failure.message);

    // Admission by a policy of the cluster's.
    let policy = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let body = json!({"metadata": {"name": lab.namespace}, "spec": {"failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "!has(object.data)", "message": "User \"x\" cannot have data"}]}});
    lab.ask(http::Method::POST, policy, Some(body)).await.expect("a policy");
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}});
    let body = json!({"metadata": {"name": lab.namespace}, "spec": {"policyName": lab.namespace,
        "validationActions": ["Deny"], "matchResources": {"namespaceSelector": here}}});
    lab.ask(http::Method::POST, &format!("{policy}bindings").replace("policiesbindings", "policybindings"), Some(body))
        .await
        .expect("a binding");
    let mut number = 0;
    let failure = eventually("the policy holds", async || {
        number += 1;
        let write = create(&lab, config(&format!("denied-{number}"), &json!({"a": "1"})));
        admin.write(&agent(), &write).await.err()
    })
    .await;
    assert_eq!(failure.kind, FailureKind::Refused, "{}", failure.message);
    assert!(failure.message.contains("cannot have data"), "{}", failure.message);
    for kind in ["validatingadmissionpolicybindings", "validatingadmissionpolicies"] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{}", lab.namespace);
        lab.ask(http::Method::DELETE, &path, None).await.expect("deleted");
    }

    // Places and kinds that are not there.
    let api = lab.api(None).await;
    let nowhere = Target::new(api.clone(), Arc::new(Kinds::new(api)), "nowhere-at-all", Arc::new(Unfenced));
    let mut write = create(&lab, config("one", &json!({})));
    assert_eq!(refused(&nowhere, &write).await.kind, FailureKind::Gate, "not the target's namespace");
    write.manifest.object.namespace = "nowhere-at-all".to_owned();
    let failure = refused(&nowhere, &write).await;
    assert_eq!(failure.kind, FailureKind::Forbidden, "{}", failure.message);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": lab.namespace}, "rules": []});
    assert_eq!(refused(&admin, &create(&lab, role.clone())).await.kind, FailureKind::Gate, "the whole cluster's");
    let api = lab.api(None).await;
    let wide = Target::new(api.clone(), Arc::new(Kinds::new(api)), lab.namespace.clone(), Arc::new(Unfenced));
    let wide = wide.with_whole_cluster();
    let live = written(&wide, &create(&lab, role)).await;
    assert_eq!(live.object.namespace, "");
    wide.delete(&live.object, &live.uid, &live.version).await.expect("deleted");
    let unknown = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "one"}});
    let failure = refused(&admin, &create(&lab, unknown)).await;
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.ends_with("is its CustomResourceDefinition installed?"), "{}", failure.message);
}

/// A fence that a test closes.
struct Gate(AtomicBool);

impl Fence for Gate {
    fn holds(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

// F1
#[tokio::test]
async fn behind_a_closed_fence_nothing_is_written() {
    let Some(lab) = lab("behind_a_closed_fence_nothing_is_written").await else { return };
    let api = lab.api(None).await;
    let gate = Arc::new(Gate(AtomicBool::new(true)));
    let target = Target::new(api.clone(), Arc::new(Kinds::new(api)), lab.namespace.clone(), gate.clone());
    let live = written(&target, &create(&lab, config("one", &json!({"a": "1"})))).await;
    gate.0.store(false, Ordering::SeqCst);
    for drops_fields in [false, true] {
        let write = apply(&lab, config("one", &json!({"a": "2"})), &live, drops_fields);
        assert_eq!(refused(&target, &write).await.kind, FailureKind::Fenced);
    }
    let failure = target.delete(&live.object, &live.uid, &live.version).await.expect_err("fenced");
    assert_eq!(failure.kind, FailureKind::Fenced);
    assert_eq!(refused(&target, &create(&lab, config("two", &json!({})))).await.kind, FailureKind::Fenced);
    assert_eq!(unowned(lab.see("configmaps", "one").await), *live.body);
    assert_eq!(lab.see("configmaps", "two").await, None);
    assert!(target.read(&live.object).await.is_ok(), "looking is no effect");
}

#[tokio::test]
async fn a_kind_is_found_once_its_definition_is_there() {
    let Some(lab) = lab("a_kind_is_found_once_its_definition_is_there").await else { return };
    let target = target(lab.api(None).await, &lab);
    let group = format!("{}.example.com", lab.namespace);
    let thing = json!({"apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": {"name": "one"}, "size": 3});
    let write = create(&lab, thing);
    assert_eq!(refused(&target, &write).await.kind, FailureKind::Refused);
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"size": {"type": "integer"}}}});
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    lab.install(&crd).await;
    let live = eventually("the kind is known", async || match target.write(&agent(), &write).await {
        Ok(Done::Written(live)) => Some(live),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => {
            assert_eq!(failure.kind, FailureKind::Refused);
            None
        }
    })
    .await;
    assert_eq!(live.body["size"], 3);
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}");
    lab.ask(http::Method::DELETE, &path, None).await.expect("deleted");
    let failure = eventually("it is served no longer", async || target.read(&live.object).await.err()).await;
    assert_eq!(failure.kind, FailureKind::Refused, "{}", failure.message);
}
