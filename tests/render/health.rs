//! Whether what runs is well, and whose fault it is when not. Objects as an API server of v1.36 shows them.

use backstay::judge::{AgentHealth, Cause, Fault, Finding, Health, agent_health, health};
use backstay::model::{LiveObject, ReleaseId, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use Fault::{Environment, Release};

#[path = "health_more.rs"]
mod more;

fn live(api: &str, kind: &str, fields: Value) -> LiveObject {
    let mut body = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x", "namespace": "agents", "uid": format!("{kind}-1"),
        "resourceVersion": "10", "generation": 2}});
    json_patch::merge(&mut body, &fields);
    LiveObject::of(body).expect("an object")
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-11-24T10:00:00Z"})
}

/// `H`ealthy, `P`rogressing, `D`egraded, `S`uspended, `U`nknown; a blame after `D`; then what the reason contains.
fn code(health: &Health) -> (String, String) {
    match health {
        Health::Healthy => ("H".into(), String::new()),
        Health::Progressing { reason } => ("P".into(), reason.clone()),
        Health::Degraded { reason, fault } => {
            let fault = fault.map_or("D", |fault| if fault == Release { "D release" } else { "D environment" });
            (fault.into(), reason.clone())
        }
        Health::Suspended => ("S".into(), String::new()),
        Health::Missing => ("M".into(), String::new()),
        Health::Unknown => ("U".into(), String::new()),
    }
}

#[test]
fn one_object_by_its_kind() {
    let deployment = |spec: Value, status: Value| {
        let mut all = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
            "conditions": [condition("Available", "True", "MinimumReplicasAvailable", ""), condition("Progressing", "True", "NewReplicaSetAvailable", "")]});
        json_patch::merge(&mut all, &status);
        let mut wanted = json!({"replicas": 3});
        json_patch::merge(&mut wanted, &spec);
        live("apps/v1", "Deployment", json!({"spec": wanted, "status": all}))
    };
    let deadline = json!([condition(
        "Progressing",
        "False",
        "ProgressDeadlineExceeded",
        "ReplicaSet \"x-1\" has timed out progressing."
    )]);
    let quota = json!([condition(
        "ReplicaFailure",
        "True",
        "FailedCreate",
        "pods \"x-1-abc\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3"
    )]);
    let route = |conditions: Value| {
        live(
            "gateway.networking.k8s.io/v1",
            "HTTPRoute",
            json!({
        "spec": {"parentRefs": [{"name": "public"}]}, "status": {"parents": [{"parentRef": {"name": "public"}, "conditions": conditions}]}}),
        )
    };
    let accepted = |status: &str, generation: u32| {
        json!([
        {"type": "Accepted", "status": status, "reason": "R", "message": "no host.", "observedGeneration": generation},
        {"type": "ResolvedRefs", "status": "True", "reason": "R", "message": "", "observedGeneration": generation}])
    };
    let pod = |phase: &str, fields: Value| {
        let mut status = json!({"phase": phase});
        json_patch::merge(&mut status, &fields);
        live("v1", "Pod", json!({"status": status}))
    };
    let waiting = |reason: &str, message: &str| {
        json!({"containerStatuses": [{"name": "agent", "image": "i:1", "restartCount": 5,
        "state": {"waiting": {"reason": reason, "message": message}}, "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]})
    };
    let cases = [
        (deployment(json!({}), json!({})), "H", ""),
        (deployment(json!({"paused": true}), json!({})), "S", ""),
        (deployment(json!({}), json!({"observedGeneration": 1})), "P", "last change is not observed"),
        (live("apps/v1", "Deployment", json!({})), "P", "not observed yet"),
        (deployment(json!({}), json!({"updatedReplicas": 1})), "P", "1 of 3 pods are of the last change"),
        (deployment(json!({}), json!({"replicas": 4})), "P", "1 old pods are yet to end"),
        (deployment(json!({}), json!({"availableReplicas": 2})), "P", "2 of 3 pods are available"),
        (deployment(json!({}), json!({"readyReplicas": 2})), "P", "2 of 3 pods are ready"),
        (
            deployment(
                json!({}),
                json!({"conditions": [condition("Available", "False", "MinimumReplicasUnavailable", "")]}),
            ),
            "P",
            "not available",
        ),
        (
            deployment(json!({}), json!({"updatedReplicas": 1, "conditions": deadline})),
            "D",
            "no progress within its deadline: 1 of 3 pods are new",
        ),
        (
            deployment(json!({}), json!({"updatedReplicas": 1, "conditions": quota})),
            "D environment",
            "the quota is used up: small",
        ),
        (
            deployment(
                json!({"replicas": 0}),
                json!({"replicas": 0, "updatedReplicas": 0, "readyReplicas": 0, "availableReplicas": 0}),
            ),
            "H",
            "",
        ),
        (
            live("apps/v1", "Deployment", json!({"metadata": {"deletionTimestamp": "2026-11-24T10:00:00Z"}})),
            "P",
            "being deleted",
        ),
        (live("apps/v1", "StatefulSet", json!({})), "P", "not observed"),
        (
            live(
                "apps/v1",
                "StatefulSet",
                json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "replicas": 1}}),
            ),
            "P",
            "1 of 2 pods exist",
        ),
        (
            live(
                "apps/v1",
                "StatefulSet",
                json!({"spec": {"replicas": 2}, "status": {"observedGeneration": 2, "replicas": 2, "readyReplicas": 1}}),
            ),
            "P",
            "1 of 2 pods are ready",
        ),
        (
            live(
                "apps/v1",
                "StatefulSet",
                json!({"spec": {"replicas": 1}, "status": {"observedGeneration": 2, "replicas": 1, "readyReplicas": 1}}),
            ),
            "P",
            "0 of 1 pods are of the last change",
        ),
        (
            live(
                "apps/v1",
                "StatefulSet",
                json!({"spec": {"replicas": 1}, "status": {"observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}}),
            ),
            "P",
            "still being rolled out",
        ),
        (
            live(
                "apps/v1",
                "StatefulSet",
                json!({"spec": {"replicas": 1}, "status": {"observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "currentRevision": "b", "updateRevision": "b"}}),
            ),
            "H",
            "",
        ),
        (
            live(
                "apps/v1",
                "StatefulSet",
                json!({"spec": {"replicas": 1, "updateStrategy": {"type": "OnDelete"}}, "status": {"observedGeneration": 2, "replicas": 1, "readyReplicas": 1}}),
            ),
            "H",
            "",
        ),
        (
            live(
                "apps/v1",
                "StatefulSet",
                json!({"spec": {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}}, "status": {"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}}),
            ),
            "H",
            "",
        ),
        (live("apps/v1", "DaemonSet", json!({})), "P", "not observed"),
        (
            live(
                "apps/v1",
                "DaemonSet",
                json!({"status": {"observedGeneration": 2, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 1}}),
            ),
            "P",
            "1 of 2 pods are of the last change",
        ),
        (
            live("apps/v1", "DaemonSet", json!({"status": {"observedGeneration": 2, "desiredNumberScheduled": 0}})),
            "H",
            "",
        ),
        (live("apps/v1", "ReplicaSet", json!({})), "P", "not observed"),
        (
            live(
                "apps/v1",
                "ReplicaSet",
                json!({"spec": {"replicas": 1}, "status": {"observedGeneration": 2, "replicas": 1}}),
            ),
            "P",
            "0 of 1 pods are ready",
        ),
        (
            live(
                "apps/v1",
                "ReplicaSet",
                json!({"spec": {"replicas": 0}, "status": {"observedGeneration": 2, "replicas": 1}}),
            ),
            "P",
            "yet to end",
        ),
        (
            live(
                "apps/v1",
                "ReplicaSet",
                json!({"spec": {"replicas": 0}, "status": {"observedGeneration": 2, "replicas": 0}}),
            ),
            "H",
            "",
        ),
        (
            live("apps/v1", "ReplicaSet", json!({"status": {"observedGeneration": 2, "conditions": quota}})),
            "D environment",
            "quota",
        ),
        (
            live("batch/v1", "Job", json!({"spec": {"completions": 2}, "status": {"succeeded": 1}})),
            "P",
            "1 of 2 pods have completed",
        ),
        (
            live(
                "batch/v1",
                "Job",
                json!({"status": {"conditions": [condition("Complete", "True", "CompletionsReached", "")]}}),
            ),
            "H",
            "",
        ),
        (
            live(
                "batch/v1",
                "Job",
                json!({"status": {"conditions": [condition("Failed", "True", "BackoffLimitExceeded", "x")]}}),
            ),
            "D release",
            "back-off limit",
        ),
        (
            live(
                "batch/v1",
                "Job",
                json!({"status": {"conditions": [condition("Failed", "True", "DeadlineExceeded", "x")]}}),
            ),
            "D",
            "within its deadline",
        ),
        (
            live(
                "batch/v1",
                "Job",
                json!({"status": {"conditions": [condition("Failed", "True", "PodFailurePolicy", "x")]}}),
            ),
            "D release",
            "failure policy",
        ),
        (
            live("batch/v1", "Job", json!({"status": {"conditions": [condition("Failed", "True", "New", "x")]}})),
            "D release",
            "it failed",
        ),
        (live("batch/v1", "Job", json!({"spec": {"suspend": true}})), "S", ""),
        (live("batch/v1", "CronJob", json!({"spec": {"suspend": true}})), "S", ""),
        (live("batch/v1", "CronJob", json!({"spec": {"suspend": false}})), "H", ""),
        (pod("Running", json!({"conditions": [condition("Ready", "True", "", "")]})), "H", ""),
        (pod("Succeeded", json!({})), "H", ""),
        (pod("Unknown", json!({})), "U", ""),
        (pod("Pending", json!({})), "P", "not ready yet"),
        (pod("Failed", json!({})), "D", "it failed"),
        (
            pod("Failed", json!({"reason": "Evicted", "message": "The node was low on resource: memory."})),
            "D environment",
            "was evicted",
        ),
        (
            pod("Running", waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container")),
            "D release",
            "container `agent` of pod `x` ended with exit code 1, restarted 5 times",
        ),
        (live("v1", "Service", json!({})), "H", ""),
        (live("v1", "Service", json!({"spec": {"type": "LoadBalancer"}})), "P", "no address"),
        (
            live(
                "v1",
                "Service",
                json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
            ),
            "H",
            "",
        ),
        (live("v1", "PersistentVolumeClaim", json!({"status": {"phase": "Bound"}})), "H", ""),
        (live("v1", "PersistentVolumeClaim", json!({"status": {"phase": "Pending"}})), "P", "no volume"),
        (live("v1", "PersistentVolumeClaim", json!({"status": {"phase": "Lost"}})), "D environment", "lost"),
        (live("v1", "PersistentVolumeClaim", json!({"status": {"phase": "New"}})), "U", ""),
        (live("policy/v1", "PodDisruptionBudget", json!({})), "P", "not observed"),
        (
            live(
                "policy/v1",
                "PodDisruptionBudget",
                json!({"status": {"observedGeneration": 2, "conditions": [condition("DisruptionAllowed", "False", "InsufficientPods", "")]}}),
            ),
            "H",
            "",
        ),
        (
            live(
                "policy/v1",
                "PodDisruptionBudget",
                json!({"status": {"observedGeneration": 2, "conditions": [condition("DisruptionAllowed", "False", "SyncFailed", "no scale.")]}}),
            ),
            "D",
            "no scale",
        ),
        (live("autoscaling/v2", "HorizontalPodAutoscaler", json!({})), "H", ""),
        (
            live(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                json!({"status": {"conditions": [condition("AbleToScale", "False", "FailedGetScale", "no such")]}}),
            ),
            "D",
            "no such",
        ),
        (
            live(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                json!({"status": {"conditions": [condition("ScalingActive", "False", "AmbiguousSelector", "two")]}}),
            ),
            "D",
            "two",
        ),
        (
            live(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                json!({"status": {"conditions": [condition("ScalingActive", "False", "FailedGetResourceMetric", "x")]}}),
            ),
            "H",
            "",
        ),
        (route(accepted("True", 2)), "H", ""),
        (route(accepted("True", 1)), "P", "`public` has not seen its last change"),
        (route(accepted("False", 2)), "D", "the gateway `public` refuses it: no host"),
        (route(json!([])), "P", "has not answered yet"),
        (live("gateway.networking.k8s.io/v1", "HTTPRoute", json!({})), "P", "not every gateway"),
        (live("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({})), "P", "established"),
        (
            live(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                json!({"status": {"conditions": [condition("Established", "True", "", "")]}}),
            ),
            "H",
            "",
        ),
        (
            live(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                json!({"status": {"conditions": [condition("NamesAccepted", "False", "", "taken")]}}),
            ),
            "D",
            "taken",
        ),
        (live("v1", "ConfigMap", json!({})), "H", ""),
        (live("example.com/v1", "Thing", json!({"status": {"observedGeneration": 1}})), "P", "not observed"),
        (
            live(
                "example.com/v1",
                "Thing",
                json!({"status": {"conditions": [condition("Stalled", "True", "", "stuck")]}}),
            ),
            "D",
            "stuck",
        ),
        (
            live(
                "example.com/v1",
                "Thing",
                json!({"status": {"conditions": [condition("Reconciling", "True", "", "busy")]}}),
            ),
            "P",
            "busy",
        ),
        (
            live("example.com/v1", "Thing", json!({"status": {"conditions": [condition("Ready", "Unknown", "", "")]}})),
            "P",
            "no reason is given",
        ),
        (
            live("example.com/v1", "Thing", json!({"status": {"conditions": [condition("Ready", "True", "", "")]}})),
            "H",
            "",
        ),
    ];
    for (object, status, words) in cases {
        let (found, reason) = code(&health(&object));
        assert_eq!(found, status, "{} {}: {reason}", object.object, object.body);
        assert!(reason.contains(words), "{}: {reason:?} has no {words:?}", object.object);
    }
}

// === agents ===

const NOW: &str = "2026-11-24T10:10:00Z";

fn release() -> ReleaseId {
    ReleaseId::of(b"new")
}

/// An agent of one Deployment whose new ReplicaSet has pods with these statuses, beside one ready pod of the old release.
struct World {
    deployment: Value,
    new_set: Value,
    pods: Vec<Value>,
}

fn template(release: &ReleaseId) -> Value {
    json!({"metadata": {"annotations": {"backstay.dev/release-id": release.digest()}, "labels": {"backstay.dev/release": release.to_string()}},
        "spec": {"containers": [{"name": "agent"}]}})
}

impl World {
    fn new(statuses: Vec<Value>) -> Self {
        let wanted = statuses.len();
        let deployment = json!({"metadata": {"name": "support", "uid": "d1"}, "spec": {"replicas": wanted, "template": template(&release())},
            "status": {"observedGeneration": 2, "replicas": wanted + 1, "updatedReplicas": wanted, "readyReplicas": 1, "availableReplicas": 1}});
        let new_set = json!({"metadata": {"name": "support-new", "uid": "r2", "ownerReferences": [{"uid": "d1", "controller": true}]},
            "spec": {"replicas": wanted, "template": template(&release())}, "status": {"observedGeneration": 2}});
        let mut pods = vec![
            json!({"metadata": {"name": "old", "uid": "p0", "ownerReferences": [{"uid": "r1", "controller": true}]},
            "status": {"phase": "Running", "conditions": [condition("Ready", "True", "", "")]}}),
        ];
        for (n, status) in statuses.into_iter().enumerate() {
            let spec = json!({"containers": [{"name": "agent", "readinessProbe": {"periodSeconds": 2, "failureThreshold": 3}}],
                "initContainers": [{"name": "setup"}]});
            pods.push(json!({"metadata": {"name": format!("new-{n}"), "uid": format!("p{}", n + 1),
                "ownerReferences": [{"uid": "r2", "controller": true}]}, "spec": spec, "status": status}));
        }
        Self { deployment, new_set, pods }
    }

    fn judge(&self) -> AgentHealth {
        let deployment = live("apps/v1", "Deployment", self.deployment.clone());
        let old_set = live(
            "apps/v1",
            "ReplicaSet",
            json!({"metadata": {"name": "support-old", "uid": "r1",
            "ownerReferences": [{"uid": "d1", "controller": true}]}, "spec": {"template": template(&ReleaseId::of(b"old"))}}),
        );
        let new_set = live("apps/v1", "ReplicaSet", self.new_set.clone());
        let pods: Vec<_> = self.pods.iter().map(|pod| live("v1", "Pod", pod.clone())).collect();
        let pods: Vec<_> = pods.iter().collect();
        let now: Timestamp = NOW.parse().expect("a time");
        agent_health(&release(), &[&deployment], &[&old_set, &new_set], &pods, now)
    }
}

/// The status of a pod whose container has this one.
fn container(state: Value) -> Value {
    let mut status = json!({"name": "agent", "image": "registry.example.com/support:1", "restartCount": 0, "ready": false, "started": true});
    json_patch::merge(&mut status, &state);
    json!({"phase": "Running", "conditions": [condition("Ready", "False", "ContainersNotReady", ""), condition("PodScheduled", "True", "", "")],
        "containerStatuses": [status]})
}

fn waiting(reason: &str, message: &str) -> Value {
    container(json!({"state": {"waiting": {"reason": reason, "message": message}}}))
}

fn ready() -> Value {
    json!({"phase": "Running", "conditions": [condition("Ready", "True", "", "")], "containerStatuses": [{"name": "agent", "ready": true, "state": {"running": {}}}]})
}

fn findings(status: Value) -> Vec<Finding> {
    World::new(vec![status]).judge().findings
}
