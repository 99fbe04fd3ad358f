//! The policy gate and what stands behind it: the environment's ServiceAccount decides, by the API server's own word.

use std::sync::Arc;

use backstay::apply::{Target, Unfenced};
use backstay::model::{AgentName, GroupKind, Manifest, ObjectRef, Origin};
use backstay::observe::Kinds;
use backstay::plan::{GatePolicy, admit};
use backstay::reconcile::{FailureKind, How, Write};
use backstay::record::OperationId;
use http::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, lab};

fn agent() -> AgentName {
    "support".parse().expect("a name")
}

fn write(lab: &Lab, mut body: Value) -> Write {
    if body["metadata"].get("namespace").is_none() {
        body["metadata"]["namespace"] = json!(lab.namespace);
    }
    let object = ObjectRef::of(&body, &lab.namespace).expect("an identity");
    let manifest = Manifest { object, body: Arc::new(body), origin: Origin::file("agents/support/manifests/x.yaml") };
    Write { manifest, how: How::Create { operation: OperationId(7) } }
}

/// The account of an environment, with these rights in its namespace.
async fn account(lab: &Lab, name: &str, groups: &[&str], resources: &[&str]) -> Target {
    lab.make("serviceaccounts", json!({"metadata": {"name": name}})).await;
    let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": lab.namespace});
    lab.allow(&format!("{name}-may"), subject, groups, resources, &["get", "list", "create", "patch", "delete"]).await;
    let kinds = Arc::new(Kinds::new(lab.api(None).await));
    Target::new(lab.api_as(name).await, kinds, lab.namespace.clone(), Arc::new(Unfenced))
}

fn object(api: &str, kind: &str, fields: &Value) -> Value {
    let mut body = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "evil"}});
    json_patch::merge(&mut body, fields);
    body
}

fn pod(spec: &Value) -> Value {
    let mut whole =
        json!({"containers": [{"name": "a", "image": "example/nothing:1"}], "nodeSelector": {"no-such": "node"}});
    json_patch::merge(&mut whole, spec);
    whole
}

fn workload(api: &str, kind: &str, spec: &Value) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod(spec)});
    object(api, kind, &json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}))
}

/// What the account may not write, by the collection that it would stand in.
fn forbidden() -> Vec<(&'static str, Value)> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let every = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    let admin = json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default"}]});
    let mut job = workload("batch/v1", "Job", &json!({"restartPolicy": "Never", "hostPID": true}));
    job["spec"].as_object_mut().expect("a spec").remove("selector");
    vec![
        ("secrets", object("v1", "Secret", &json!({"stringData": {"a": "b"}}))),
        ("serviceaccounts", object("v1", "ServiceAccount", &json!({}))),
        ("services", object("v1", "Service", &json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}))),
        ("endpoints", object("v1", "Endpoints", &json!({}))),
        ("resourcequotas", object("v1", "ResourceQuota", &json!({}))),
        ("pods", object("v1", "Pod", &json!({"spec": pod(&json!({"hostNetwork": true}))}))),
        ("apps/v1/deployments", workload("apps/v1", "Deployment", &json!({"hostIPC": true}))),
        (
            "apps/v1/daemonsets",
            workload("apps/v1", "DaemonSet", &json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})),
        ),
        ("batch/v1/jobs", job),
        ("rbac.authorization.k8s.io/v1/roles", object(rbac, "Role", &every)),
        ("rbac.authorization.k8s.io/v1/rolebindings", object(rbac, "RoleBinding", &admin)),
        (
            "coordination.k8s.io/v1/leases",
            object("coordination.k8s.io/v1", "Lease", &json!({"spec": {"holderIdentity": "evil"}})),
        ),
        (
            "networking.k8s.io/v1/networkpolicies",
            object("networking.k8s.io/v1", "NetworkPolicy", &json!({"spec": {"podSelector": {}}})),
        ),
    ]
}

/// A gate that lets everything pass that it can.
fn open(lab: &Lab, objects: &[(&str, Value)]) -> GatePolicy {
    let mut gate = GatePolicy::of(lab.namespace.as_str());
    for (_, body) in objects {
        let object = ObjectRef::of(body, &lab.namespace).expect("an identity");
        gate.kinds.insert(GroupKind { group: object.group, kind: object.kind });
    }
    (gate.host_namespaces, gate.host_paths, gate.privileged) = (true, true, true);
    gate.service_types.insert("LoadBalancer".to_owned());
    gate
}

// Section 3: where the gate is open, the API server refuses what the environment's account may not do.
#[tokio::test]
async fn behind_an_open_gate_the_environments_account_decides() {
    let Some(lab) = lab("behind_an_open_gate_the_environments_account_decides").await else { return };
    let target = account(&lab, "writer", &[""], &["configmaps"]).await;
    let objects = forbidden();
    let gate = open(&lab, &objects);
    for (collection, body) in &objects {
        let write = write(&lab, body.clone());
        assert!(admit(&write.manifest, &gate).is_ok(), "{}: the gate is open", write.manifest.object);
        let failure = target.write(&agent(), &write).await.expect_err(collection);
        assert_eq!(failure.kind, FailureKind::Forbidden, "{collection}: {}", failure.message);
        assert!(failure.message.contains("forbidden") && failure.message.contains("writer"), "{}", failure.message);
        assert_eq!(lab.see(collection, "evil").await, None, "{collection}: nothing is written");
    }
    // It is the account that is refused, not the way.
    let fine = write(&lab, object("v1", "ConfigMap", &json!({"data": {"a": "b"}})));
    target.write(&agent(), &fine).await.expect("what it may write is written");
    assert!(lab.see("configmaps", "evil").await.is_some());
}

// Who may write roles still grants no more than it has.
#[tokio::test]
async fn nobody_grants_more_than_he_has() {
    let Some(lab) = lab("nobody_grants_more_than_he_has").await else { return };
    let groups = ["", "rbac.authorization.k8s.io"];
    let target = account(&lab, "granter", &groups, &["configmaps", "roles", "rolebindings"]).await;
    for (collection, body) in forbidden().into_iter().filter(|(path, _)| path.starts_with("rbac.")) {
        let failure = target.write(&agent(), &write(&lab, body)).await.expect_err(collection);
        assert_eq!(failure.kind, FailureKind::Forbidden, "{}", failure.message);
        assert_eq!(lab.see(collection, "evil").await, None, "{collection}");
    }
}

// Whatever was decided before: nothing of the cluster and nothing elsewhere is written, by an administrator either.
#[tokio::test]
async fn what_lies_outside_the_namespace_is_not_written_by_anybody() {
    let Some(lab) = lab("what_lies_outside_the_namespace_is_not_written_by_anybody").await else { return };
    let api = lab.api(None).await;
    let target = Target::new(api.clone(), Arc::new(Kinds::new(api)), lab.namespace.clone(), Arc::new(Unfenced));
    let name = format!("evil-{}", lab.namespace);
    let outside = [
        (object("v1", "Namespace", &json!({})), format!("/api/v1/namespaces/{name}")),
        (
            object("rbac.authorization.k8s.io/v1", "ClusterRole", &json!({"rules": []})),
            format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"),
        ),
        (
            object("scheduling.k8s.io/v1", "PriorityClass", &json!({"value": 1})),
            format!("/apis/scheduling.k8s.io/v1/priorityclasses/{name}"),
        ),
        (
            object("v1", "ConfigMap", &json!({"metadata": {"namespace": "kube-system"}})),
            format!("/api/v1/namespaces/kube-system/configmaps/{name}"),
        ),
        (
            object("v1", "ConfigMap", &json!({"metadata": {"namespace": "default"}})),
            format!("/api/v1/namespaces/default/configmaps/{name}"),
        ),
    ];
    for (mut body, path) in outside {
        body["metadata"]["name"] = json!(name);
        let failure = target.write(&agent(), &write(&lab, body)).await.expect_err(&path);
        assert_eq!(failure.kind, FailureKind::Gate, "{path}: {}", failure.message);
        assert!(lab.ask(Method::GET, &path, None).await.is_err_and(|status| status.code == 404), "{path}");
    }
}
