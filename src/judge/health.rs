//! The health of one object, by the rules of kstatus, with the states of Argo CD.
//!
//! An object whose last change was not observed yet is Progressing. A kind without conditions of its own is Healthy by
//! being there, as kstatus has it. A Job is on its way until it is complete.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::{Fault, pod_findings, refused_creation, safe};
use super::host;
use crate::model::LiveObject;

/// The health of an object or of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "status")]
pub enum Health {
    /// It is as it should be.
    Healthy,
    /// It is on its way.
    Progressing {
        /// What it waits for, in one sentence without a full stop.
        reason: String,
    },
    /// It failed, or takes too long.
    Degraded {
        /// How, in one sentence without a full stop.
        reason: String,
        /// Whose fault it is; nothing where there is no evidence.
        fault: Option<Fault>,
    },
    /// Somebody paused it.
    Suspended,
    /// It is not there.
    Missing,
    /// It says nothing that could be read.
    Unknown,
}

// === impl Health ===

impl Health {
    pub(super) fn progressing(reason: impl Into<String>) -> Self {
        Self::Progressing { reason: reason.into() }
    }

    pub(super) fn degraded(reason: impl Into<String>, fault: Option<Fault>) -> Self {
        Self::Degraded { reason: reason.into(), fault }
    }

    /// How bad it is: 0 is Healthy. Where several objects are judged together, the worst counts.
    pub fn severity(&self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Suspended => 1,
            Self::Progressing { .. } => 2,
            Self::Unknown => 3,
            Self::Missing => 4,
            Self::Degraded { .. } => 5,
        }
    }
}

/// A field of an object, by names.
pub(super) fn at<'v>(body: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(body, |value, field| value.get(*field)).filter(|value| !value.is_null())
}

pub(super) fn text<'v>(body: &'v Value, path: &[&str]) -> &'v str {
    at(body, path).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(body: &Value, path: &[&str]) -> Option<i64> {
    at(body, path).and_then(Value::as_i64)
}

pub(super) fn list<'v>(body: &'v Value, path: &[&str]) -> &'v [Value] {
    at(body, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A condition of an object: status, reason, message.
pub(super) struct Condition<'v> {
    pub(super) status: &'v str,
    pub(super) reason: &'v str,
    pub(super) message: &'v str,
}

pub(super) fn condition<'v>(body: &'v Value, kind: &str) -> Option<Condition<'v>> {
    condition_in(list(body, &["status", "conditions"]), kind)
}

/// Whether a pod says that it is ready to be asked.
pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.is("True"))
}

fn condition_in<'v>(conditions: &'v [Value], kind: &str) -> Option<Condition<'v>> {
    let found = conditions.iter().find(|condition| text(condition, &["type"]) == kind)?;
    let of = |field: &str| text(found, &[field]);
    Some(Condition { status: of("status"), reason: of("reason"), message: of("message") })
}

impl Condition<'_> {
    fn is(&self, status: &str) -> bool {
        self.status == status
    }

    /// Its message, or its reason where there is none.
    fn says(&self) -> String {
        let words = if self.message.is_empty() { self.reason } else { self.message };
        if words.is_empty() { "no reason is given".to_owned() } else { safe(words) }
    }
}

/// Judges one object.
pub fn health(live: &LiveObject) -> Health {
    let body = &*live.body;
    if live.is_terminating() {
        return Health::progressing("it is being deleted");
    }
    if let (Some(generation), Some(observed)) =
        (number(body, &["metadata", "generation"]), number(body, &["status", "observedGeneration"]))
        && observed < generation
    {
        return Health::progressing("its last change is not observed yet");
    }
    match (live.object.group.as_str(), live.object.kind.as_str()) {
        ("apps", "Deployment") => deployment(body),
        ("apps", "StatefulSet") => stateful_set(body),
        ("apps", "DaemonSet") => daemon_set(body),
        ("apps", "ReplicaSet") => replica_set(body),
        ("batch", "Job") => job(body),
        ("batch", "CronJob") if at(body, &["spec", "suspend"]) == Some(&Value::Bool(true)) => Health::Suspended,
        ("", "Pod") => pod(body),
        ("", "Service") => service(body),
        ("", "PersistentVolumeClaim") => claim(body),
        ("policy", "PodDisruptionBudget") => budget(body),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(body),
        ("gateway.networking.k8s.io", "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute") => route(body),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(body),
        _ => generic(body),
    }
}

/// A replica count that the server defaults to one.
fn replicas(body: &Value) -> i64 {
    number(body, &["spec", "replicas"]).unwrap_or(1)
}

fn count(body: &Value, field: &str) -> i64 {
    number(body, &["status", field]).unwrap_or(0)
}

fn not_observed(body: &Value) -> bool {
    number(body, &["status", "observedGeneration"]).is_none()
}

fn deployment(body: &Value) -> Health {
    if at(body, &["spec", "paused"]) == Some(&Value::Bool(true)) {
        return Health::Suspended;
    }
    if not_observed(body) {
        return Health::progressing("it is not observed yet");
    }
    if let Some(refused) = condition(body, "ReplicaFailure").filter(|condition| condition.is("True")) {
        return Health::degraded(refused_creation(refused.message).1, Some(Fault::Environment));
    }
    let (wanted, all) = (replicas(body), count(body, "replicas"));
    let (updated, ready) = (count(body, "updatedReplicas"), count(body, "readyReplicas"));
    let available = count(body, "availableReplicas");
    if let Some(away) = host::proxy_away(body) {
        return away;
    }
    let progress = condition(body, "Progressing");
    if progress.is_some_and(|progress| progress.is("False") && progress.reason == "ProgressDeadlineExceeded") {
        let reason = format!(
            "it made no progress within its deadline: {updated} of {wanted} pods are new, {available} available"
        );
        return Health::degraded(reason, None);
    }
    if updated < wanted {
        Health::progressing(format!("{updated} of {wanted} pods are of the last change"))
    } else if all > updated {
        Health::progressing(format!("{} old pods are yet to end", all.saturating_sub(updated)))
    } else if available < updated {
        Health::progressing(format!("{available} of {updated} pods are available"))
    } else if ready < wanted {
        Health::progressing(format!("{ready} of {wanted} pods are ready"))
    } else if condition(body, "Available").is_some_and(|available| available.is("False")) {
        Health::progressing("it is not available yet")
    } else {
        Health::Healthy
    }
}

fn stateful_set(body: &Value) -> Health {
    if not_observed(body) {
        return Health::progressing("it is not observed yet");
    }
    let (wanted, ready) = (replicas(body), count(body, "readyReplicas"));
    if count(body, "replicas") < wanted {
        return Health::progressing(format!("{} of {wanted} pods exist", count(body, "replicas")));
    }
    if ready < wanted {
        return Health::progressing(format!("{ready} of {wanted} pods are ready"));
    }
    if text(body, &["spec", "updateStrategy", "type"]) == "OnDelete" {
        return Health::Healthy;
    }
    let partition = number(body, &["spec", "updateStrategy", "rollingUpdate", "partition"]).unwrap_or(0);
    let (updated, due) = (count(body, "updatedReplicas"), wanted.saturating_sub(partition).max(0));
    if updated < due {
        return Health::progressing(format!("{updated} of {due} pods are of the last change"));
    }
    let (current, update) = (text(body, &["status", "currentRevision"]), text(body, &["status", "updateRevision"]));
    if partition == 0 && current != update {
        return Health::progressing("the last change is still being rolled out");
    }
    Health::Healthy
}

fn daemon_set(body: &Value) -> Health {
    if not_observed(body) {
        return Health::progressing("it is not observed yet");
    }
    let wanted = count(body, "desiredNumberScheduled");
    for (field, what) in [
        ("currentNumberScheduled", "are scheduled"),
        ("updatedNumberScheduled", "are of the last change"),
        ("numberAvailable", "are available"),
        ("numberReady", "are ready"),
    ] {
        if count(body, field) < wanted {
            return Health::progressing(format!("{} of {wanted} pods {what}", count(body, field)));
        }
    }
    Health::Healthy
}

fn replica_set(body: &Value) -> Health {
    if not_observed(body) {
        return Health::progressing("it is not observed yet");
    }
    if let Some(refused) = condition(body, "ReplicaFailure").filter(|condition| condition.is("True")) {
        return Health::degraded(refused_creation(refused.message).1, Some(Fault::Environment));
    }
    let wanted = replicas(body);
    for (field, what) in [("replicas", "exist"), ("readyReplicas", "are ready"), ("availableReplicas", "are available")]
    {
        if count(body, field) < wanted {
            return Health::progressing(format!("{} of {wanted} pods {what}", count(body, field)));
        }
    }
    if count(body, "replicas") > wanted { Health::progressing("some pods are yet to end") } else { Health::Healthy }
}

fn job(body: &Value) -> Health {
    if condition(body, "Complete").is_some_and(|complete| complete.is("True")) {
        return Health::Healthy;
    }
    if let Some(failed) = condition(body, "Failed").filter(|failed| failed.is("True")) {
        // A deadline alone says nothing about why.
        let fault = (failed.reason != "DeadlineExceeded").then_some(Fault::Release);
        let how = match failed.reason {
            "BackoffLimitExceeded" => "its pods failed as often as its back-off limit allows",
            "PodFailurePolicy" => "a pod failed in a way that its failure policy ends it for",
            "DeadlineExceeded" => "it did not end within its deadline",
            _ => "it failed",
        };
        return Health::degraded(how, fault);
    }
    if at(body, &["spec", "suspend"]) == Some(&Value::Bool(true)) {
        return Health::Suspended;
    }
    let done = count(body, "succeeded");
    let wanted = number(body, &["spec", "completions"]).unwrap_or(1);
    Health::progressing(format!("{done} of {wanted} pods have completed"))
}

fn pod(body: &Value) -> Health {
    match text(body, &["status", "phase"]) {
        "Succeeded" => return Health::Healthy,
        "Running" if is_ready(body) => return Health::Healthy,
        "Pending" | "Running" | "Failed" => {}
        _ => return Health::Unknown,
    }
    // Without a clock nothing is said about pods that merely are not ready.
    let findings = pod_findings(body, None);
    let failed = text(body, &["status", "phase"]) == "Failed";
    match findings.into_iter().find(|finding| failed || finding.certain) {
        Some(finding) => Health::degraded(finding.sentence, Some(finding.fault)),
        None if failed => Health::degraded("it failed", None),
        None => Health::progressing("it is not ready yet"),
    }
}

fn service(body: &Value) -> Health {
    let balancer = text(body, &["spec", "type"]) == "LoadBalancer";
    if balancer && list(body, &["status", "loadBalancer", "ingress"]).is_empty() {
        return Health::progressing("it has no address yet");
    }
    Health::Healthy
}

fn claim(body: &Value) -> Health {
    match text(body, &["status", "phase"]) {
        "Bound" => Health::Healthy,
        "Lost" => Health::degraded("its volume is lost", Some(Fault::Environment)),
        "Pending" | "" => Health::progressing("it has no volume yet"),
        _ => Health::Unknown,
    }
}

fn budget(body: &Value) -> Health {
    if not_observed(body) {
        return Health::progressing("it is not observed yet");
    }
    match condition(body, "DisruptionAllowed") {
        Some(failed) if failed.is("False") && failed.reason == "SyncFailed" => Health::degraded(failed.says(), None),
        _ => Health::Healthy,
    }
}

/// Metrics that are not there yet are no failure: every autoscaler lacks them in its first minute.
fn autoscaler(body: &Value) -> Health {
    if let Some(able) =
        condition(body, "AbleToScale").filter(|able| able.is("False") && able.reason.starts_with("Failed"))
    {
        return Health::degraded(able.says(), None);
    }
    match condition(body, "ScalingActive") {
        Some(active) if active.is("False") && matches!(active.reason, "AmbiguousSelector" | "InvalidSelector") => {
            Health::degraded(active.says(), None)
        }
        _ => Health::Healthy,
    }
}

/// Every parent must have accepted the route, as it is now.
fn route(body: &Value) -> Health {
    let generation = number(body, &["metadata", "generation"]).unwrap_or(0);
    let parents = list(body, &["status", "parents"]);
    if parents.len() < list(body, &["spec", "parentRefs"]).len().max(1) {
        return Health::progressing("not every gateway has answered yet");
    }
    for parent in parents {
        let conditions = list(parent, &["conditions"]);
        for kind in ["Accepted", "ResolvedRefs"] {
            let found = conditions.iter().find(|condition| text(condition, &["type"]) == kind);
            let observed = found.and_then(|found| number(found, &["observedGeneration"])).unwrap_or(0);
            let gateway = text(parent, &["parentRef", "name"]);
            match condition_in(conditions, kind) {
                Some(_) if observed < generation => {
                    return Health::progressing(format!("the gateway `{gateway}` has not seen its last change yet"));
                }
                Some(accepted) if accepted.is("True") => {}
                Some(accepted) if accepted.is("False") => {
                    return Health::degraded(format!("the gateway `{gateway}` refuses it: {}", accepted.says()), None);
                }
                _ => return Health::progressing(format!("the gateway `{gateway}` has not answered yet")),
            }
        }
    }
    Health::Healthy
}

fn definition(body: &Value) -> Health {
    if let Some(names) = condition(body, "NamesAccepted").filter(|names| names.is("False")) {
        return Health::degraded(names.says(), None);
    }
    match condition(body, "Established") {
        Some(established) if established.is("True") => Health::Healthy,
        _ => Health::progressing("it is not established yet"),
    }
}

fn generic(body: &Value) -> Health {
    if let Some(stalled) = condition(body, "Stalled").filter(|stalled| stalled.is("True")) {
        return Health::degraded(stalled.says(), None);
    }
    if let Some(reconciling) = condition(body, "Reconciling").filter(|reconciling| reconciling.is("True")) {
        return Health::progressing(reconciling.says());
    }
    match condition(body, "Ready") {
        Some(ready) if !ready.is("True") => Health::progressing(ready.says()),
        _ => Health::Healthy,
    }
}
