//! What the watches show, and what becomes of it when they break.

use std::sync::Arc;
use std::time::Duration;

use backstay::model::{AgentName, GroupKind, LiveObject, LiveState, ObjectRef};
use backstay::observe::{Api, Changed, Kinds, Observer};
use backstay::render::{AGENT_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::lab::{Lab, Wire, eventually, lab, lab_alone, part};
use crate::network::pace;

fn agent(name: &str) -> AgentName {
    name.parse().expect("a name")
}

fn labels(agent: &str) -> Value {
    json!({AGENT_LABEL: agent, MANAGED_BY_LABEL: MANAGED_BY})
}

fn config(name: &str, agent: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels(agent)}})
}

fn start(api: Api, lab: &Lab) -> (Observer, DropGuard) {
    let observer = Observer::new(api.clone(), Arc::new(Kinds::new(api)), lab.namespace.clone(), pace());
    let stop = CancellationToken::new();
    let (running, token) = (observer.clone(), stop.clone());
    tokio::spawn(async move { running.run(token).await });
    (observer, stop.drop_guard())
}

async fn shows(observer: &Observer, name: &str, what: &str, look: impl Fn(&LiveState) -> bool) -> LiveState {
    let agent = agent(name);
    eventually(what, async || Some(observer.snapshot(&agent)).filter(|state| state.synced && look(state))).await
}

fn configs(state: &LiveState) -> Vec<&str> {
    state.of_kind("", "ConfigMap").map(|live| live.object.name.as_str()).collect()
}

#[tokio::test]
async fn a_snapshot_has_all_objects_of_one_agent_and_of_no_other() {
    let Some(lab) = lab("a_snapshot_has_all_objects_of_one_agent_and_of_no_other").await else { return };
    lab.make("configmaps", config("early", "support")).await;
    lab.make("configmaps", config("other", "research")).await;
    lab.make("configmaps", json!({"metadata": {"name": "bare", "labels": {AGENT_LABEL: "support"}}})).await;
    let (observer, _guard) = start(lab.api(None).await, &lab);
    let pod = json!({"containers": [{"name": "main", "image": "example/nothing:1", "command": ["sleep", "1000"]}]});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {AGENT_LABEL: "support"}},
        "template": {"metadata": {"labels": labels("support")}, "spec": pod}});
    let deployment = json!({"metadata": {"name": "support", "labels": labels("support")}, "spec": spec});
    lab.make("apps/v1/deployments", deployment).await;
    let state = shows(&observer, "support", "Deployment, ReplicaSet and pods", |state| {
        let (sets, pods) = (state.of_kind("apps", "ReplicaSet").count(), state.of_kind("", "Pod").count());
        state.of_kind("apps", "Deployment").count() == 1 && sets == 1 && pods == 2
    })
    .await;
    assert_eq!(configs(&state), ["early"]);
    assert!(state.unseen.is_empty());
    for live in state.objects.values() {
        assert!(live.body["metadata"].get("managedFields").is_none());
        assert!(live.body["apiVersion"].is_string() && live.body["kind"] == live.object.kind.as_str());
    }
    assert_eq!(
        configs(&shows(&observer, "research", "its object", |state| !state.objects.is_empty()).await),
        ["other"]
    );
    assert_eq!(observer.agents(), [agent("research"), agent("support")].into());
    let nobody = observer.snapshot(&agent("nobody"));
    assert!(nobody.synced && nobody.objects.is_empty());
}

#[tokio::test]
async fn who_changed_is_told_once_and_together() {
    let Some(lab) = lab("who_changed_is_told_once_and_together").await else { return };
    let (observer, _guard) = start(lab.api(None).await, &lab);
    shows(&observer, "a", "the first lists", |_| true).await;
    assert_eq!(observer.changed().await, Changed::Everyone);
    for n in 0..5 {
        lab.make("configmaps", config(&format!("a-{n}"), "a")).await;
    }
    lab.make("configmaps", config("b", "b")).await;
    shows(&observer, "b", "the last of them", |state| !state.objects.is_empty()).await;
    let both: std::collections::BTreeSet<_> = [agent("a"), agent("b")].into();
    assert_eq!(observer.changed().await, Changed::Agents(both));
    let more = tokio::time::timeout(Duration::from_millis(300), observer.changed()).await;
    assert!(more.is_err(), "nothing changed since: {more:?}");
}

#[tokio::test]
async fn an_object_leaves_with_its_label_and_comes_back_with_it() {
    let Some(lab) = lab("an_object_leaves_with_its_label_and_comes_back_with_it").await else { return };
    let (observer, _guard) = start(lab.api(None).await, &lab);
    lab.make("configmaps", config("one", "a")).await;
    shows(&observer, "a", "it is there", |state| configs(state) == ["one"]).await;
    lab.merge("configmaps", "one", "somebody", &json!({"metadata": {"labels": {MANAGED_BY_LABEL: null}}})).await;
    shows(&observer, "a", "it left", |state| configs(state).is_empty()).await;
    lab.merge("configmaps", "one", "somebody", &json!({"metadata": {"labels": {MANAGED_BY_LABEL: MANAGED_BY}}})).await;
    shows(&observer, "a", "it is back", |state| configs(state) == ["one"]).await;
    lab.merge("configmaps", "one", "somebody", &json!({"metadata": {"labels": {AGENT_LABEL: "b"}}})).await;
    shows(&observer, "b", "it moved", |state| configs(state) == ["one"]).await;
    assert!(configs(&observer.snapshot(&agent("a"))).is_empty());
    lab.remove("configmaps", "one").await;
    shows(&observer, "b", "it is gone", |state| configs(state).is_empty()).await;
}

#[tokio::test]
async fn a_kind_that_may_not_be_listed_is_unseen_until_it_may() {
    // K4
    let Some(lab) = lab("a_kind_that_may_not_be_listed_is_unseen_until_it_may").await else { return };
    lab.make("serviceaccounts", json!({"metadata": {"name": "looker"}})).await;
    let subject = json!({"kind": "ServiceAccount", "name": "looker", "namespace": lab.namespace});
    let groups = ["", "apps", "autoscaling", "policy", "batch"];
    let most = [
        "deployments",
        "replicasets",
        "configmaps",
        "services",
        "serviceaccounts",
        "horizontalpodautoscalers",
        "poddisruptionbudgets",
        "jobs",
    ];
    lab.allow("most", subject.clone(), &groups, &most, &["list", "watch"]).await;
    lab.make("configmaps", config("one", "a")).await;
    let (observer, _guard) = start(lab.api_as("looker").await, &lab);
    let pods = GroupKind { group: String::new(), kind: "Pod".to_owned() };
    let state = shows(&observer, "a", "all but pods", |state| state.unseen.keys().eq([&pods])).await;
    assert!(state.unseen[&pods].contains("forbidden"), "{:?}", state.unseen);
    assert_eq!(configs(&state), ["one"]);
    let object =
        ObjectRef { group: String::new(), kind: "Pod".into(), namespace: lab.namespace.clone(), name: "x".into() };
    assert_eq!(state.unseen_among([&object]), [pods].into());
    lab.allow("rest", subject, &[""], &["pods"], &["list", "watch"]).await;
    shows(&observer, "a", "pods too", |state| state.unseen.is_empty()).await;
}

#[tokio::test]
async fn a_kind_can_be_added_and_is_unseen_until_it_was_listed() {
    let Some(lab) = lab("a_kind_can_be_added_and_is_unseen_until_it_was_listed").await else { return };
    let (observer, _guard) = start(lab.api(None).await, &lab);
    shows(&observer, "a", "the first lists", |state| state.unseen.is_empty()).await;
    lab.make("secrets", json!({"metadata": {"name": "one", "labels": labels("a")}})).await;
    let secrets = GroupKind { group: String::new(), kind: "Secret".to_owned() };
    observer.watch_kind(secrets.clone());
    assert!(observer.snapshot(&agent("a")).unseen.contains_key(&secrets), "not listed yet");
    shows(&observer, "a", "the Secret", |state| state.of_kind("", "Secret").count() == 1 && state.unseen.is_empty())
        .await;
    // A kind that is not served is unseen, and found when it comes.
    let group = format!("{}.example.com", lab.namespace);
    let things = GroupKind { group: group.clone(), kind: "Thing".to_owned() };
    observer.watch_kind(things.clone());
    let state = shows(&observer, "a", "why", |state| {
        state.unseen.get(&things).is_some_and(|why| why.contains("CustomResourceDefinition"))
    })
    .await;
    assert!(state.synced, "all else is as it was");
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    lab.install(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}}))
        .await;
    let thing = json!({"apiVersion": format!("{group}/v1"), "kind": "Thing",
        "metadata": {"name": "one", "labels": labels("a")}});
    lab.make(&format!("{group}/v1/things"), thing).await;
    shows(&observer, "a", "the thing", |state| state.of_kind(&group, "Thing").count() == 1).await;
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}");
    lab.ask(http::Method::DELETE, &path, None).await.expect("deleted");
    shows(&observer, "a", "unseen again", |state| state.unseen.contains_key(&things)).await;
}

#[tokio::test]
async fn what_we_wrote_is_known_before_the_watch_tells_of_it() {
    let Some(lab) = lab("what_we_wrote_is_known_before_the_watch_tells_of_it").await else { return };
    let wire = Wire::to(lab.server()).await;
    let (observer, _guard) = start(lab.api_over(&wire).await, &lab);
    shows(&observer, "a", "the first lists", |_| true).await;
    wire.fall_silent();
    let made = LiveObject::of(lab.make("configmaps", config("one", "a")).await).expect("an object");
    assert!(configs(&observer.snapshot(&agent("a"))).is_empty());
    observer.note(&made);
    let state = observer.snapshot(&agent("a"));
    assert_eq!(configs(&state), ["one"]);
    lab.remove("configmaps", "one").await;
    wire.speak();
    wire.cut();
    shows(&observer, "a", "it is gone", |state| configs(state).is_empty()).await;
    observer.note(&made);
    assert!(configs(&observer.snapshot(&agent("a"))).is_empty(), "a late answer brings nothing back");
}

#[tokio::test]
async fn a_dead_wire_is_noticed_and_nothing_is_lost() {
    // K11, K3
    let Some(lab) = lab("a_dead_wire_is_noticed_and_nothing_is_lost").await else { return };
    let wire = Wire::to(lab.server()).await;
    let (observer, _guard) = start(lab.api_over(&wire).await, &lab);
    lab.make("configmaps", config("one", "a")).await;
    shows(&observer, "a", "it is there", |state| configs(state) == ["one"]).await;
    // Connections stay open and say nothing: only our own deadline can tell.
    wire.fall_silent();
    lab.remove("configmaps", "one").await;
    lab.make("configmaps", config("two", "a")).await;
    let opened = wire.opened();
    tokio::time::sleep(Duration::from_millis(500)).await;
    wire.speak();
    shows(&observer, "a", "what happened meanwhile", |state| configs(state) == ["two"]).await;
    // Connections that end in the middle.
    for n in 0..3 {
        wire.cut();
        lab.make("configmaps", config(&format!("cut-{n}"), "a")).await;
        shows(&observer, "a", "what came after a cut", |state| configs(state).len() == 2 + n).await;
    }
    assert!(wire.opened() - opened < 200, "{} connections", wire.opened() - opened);
}

#[tokio::test]
async fn a_server_that_was_killed_is_found_again() {
    // K11: after a restart the server has no memory of old versions, and says 410.
    let Some(lab) = lab_alone("a_server_that_was_killed_is_found_again").await else { return };
    let (observer, _guard) = start(lab.api(None).await, &lab);
    lab.make("configmaps", config("one", "a")).await;
    lab.make("configmaps", config("two", "a")).await;
    shows(&observer, "a", "both", |state| configs(state) == ["one", "two"]).await;
    part("kill", "apiserver");
    shows(&observer, "a", "it is unseen", |state| !state.unseen.is_empty()).await;
    assert_eq!(configs(&observer.snapshot(&agent("a"))), ["one", "two"], "what was known is still shown");
    part("start", "apiserver");
    eventually("the server is back", async || lab.see("configmaps", "one").await).await;
    lab.remove("configmaps", "one").await;
    lab.make("configmaps", config("three", "a")).await;
    shows(&observer, "a", "what is now", |state| configs(state) == ["three", "two"] && state.unseen.is_empty()).await;
}
