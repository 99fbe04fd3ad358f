//! What is said of Pods, sets and Deployments, in the words of a cluster's controllers: pure.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde_json::{Map, Value, json};

use super::instance::{Seen, Trouble};
use super::table::Word;
use super::view::{Process, Set, container};
use crate::judge::{HostReason, PROXY_UNREACHABLE};
use crate::keeper::wire::{End, How, Phase};
use crate::model::Timestamp;
use crate::proxy::Address;
use crate::render::{HOST_CONTROLLER, HOST_PARENT};

/// What is said of a program that the system does not start.
const CANNOT_START: &str =
    "the system does not start its program: is it made for this machine, and may it be executed?";

/// The status of a Pod; `before` is the one that stands.
pub(super) fn of_pod(pod: &Pod, seen: &Seen, before: Option<&Value>, now: Timestamp) -> Value {
    let name = pod.spec.as_ref().and_then(container).map_or("agent", |container| container.name.as_str());
    let status = seen.status.as_ref();
    let starts = status.map_or(0, |status| status.starts);
    let runs = status.is_some_and(|status| status.phase == Phase::Running);
    let last = status.and_then(|status| status.last_end.as_ref()).map(ended);
    let state = match (&seen.trouble, status) {
        (Some(trouble), _) => waiting(trouble.reason.word(), &trouble.message),
        (None, None) => waiting("ContainerCreating", ""),
        (None, Some(status)) => match status.phase {
            Phase::Running => json!({"running": {"startedAt": time(status.since_ms.unwrap_or(0))}}),
            Phase::Clearing | Phase::Waiting => match &status.last_end {
                // What the keeper says of it may hold what the release was given: it is in the instance's own folder.
                Some(End { how: How::NotStarted(_), .. }) => waiting(HostReason::Command.word(), CANNOT_START),
                _ => waiting("CrashLoopBackOff", ""),
            },
            Phase::Ended | Phase::Stopping | Phase::Stopped => last
                .clone()
                .map_or_else(|| waiting("ContainerCreating", ""), |last| json!({"terminated": last["terminated"]})),
        },
    };
    let ready = seen.ready && runs;
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(|kind| {
        let is = matches!(kind, "PodScheduled" | "Initialized") || ready;
        condition(kind, is, "", "", before, now)
    });
    json!({
        "phase": if runs || starts > 0 { "Running" } else { "Pending" },
        "podIP": "127.0.0.1",
        "hostIP": "127.0.0.1",
        "conditions": conditions,
        "containerStatuses": [{
            "name": name, "image": "", "imageID": "", "ready": ready, "started": runs,
            "restartCount": starts.saturating_sub(1),
            "state": state,
            "lastState": last.unwrap_or_else(|| json!({})),
        }],
    })
}

/// The status of a set.
pub(super) fn of_set(set: &Set<'_>) -> Value {
    let members = set.members.iter().filter(|member| member.retired.is_none());
    let (all, ready) = members.fold((0, 0), |(all, ready), member| (all + 1, ready + u32::from(member.ready)));
    json!({
        "observedGeneration": generation(&set.object.metadata), "replicas": all, "fullyLabeledReplicas": all,
        "readyReplicas": ready, "availableReplicas": ready,
    })
}

/// The status of a Deployment. `serving` is the set that requests go to; `obstacle` says why the switch waits.
///
/// With traffic, available is what the proxy sends requests to, so that a Deployment is complete after the switch only.
pub(super) fn of_deployment(
    process: &Process<'_>,
    serving: Option<&str>,
    obstacle: Option<&str>,
    before: Option<&Value>,
    now: Timestamp,
) -> Value {
    let newest = process.newest();
    let (mut all, mut updated, mut ready, mut available) = (0_u32, 0_u32, 0_u32, 0_u32);
    for set in &process.sets {
        let name = set.object.name_any();
        for member in set.members.iter().filter(|member| member.retired.is_none()) {
            // What a release of its own gets is the route's affair: it is complete before that.
            let own = process.per_release && name == newest;
            let serves = own || !process.carries_traffic || serving == Some(&name);
            all += 1;
            updated += u32::from(name == newest);
            ready += u32::from(member.ready);
            available += u32::from(member.ready && serves);
        }
    }
    let wanted = process.wanted();
    let complete = updated == wanted && all == wanted && available == wanted;
    let counts = json!({
        "replicas": all, "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": available,
        "unavailableReplicas": wanted.saturating_sub(available),
    });
    let progress = progress(process.deployment, &counts, complete, before, now);
    let (reason, message) = match obstacle {
        Some(why) => (PROXY_UNREACHABLE, why),
        None if available >= wanted => ("MinimumReplicasAvailable", ""),
        None => ("MinimumReplicasUnavailable", ""),
    };
    let conditions =
        [condition("Available", available >= wanted && obstacle.is_none(), reason, message, before, now), progress];
    let mut status = counts;
    if let Some(fields) = status.as_object_mut() {
        fields.insert("observedGeneration".to_owned(), json!(generation(&process.deployment.metadata)));
        fields.insert("conditions".to_owned(), json!(conditions));
    }
    status
}

/// The status of an HTTPRoute of which the table in use was made (Gateway API v1).
pub(super) fn of_route(word: &Word, before: Option<&Value>, now: Timestamp) -> Value {
    let parent = before.and_then(|before| before.pointer("/parents/0"));
    let why = word.refused.as_ref().or(word.missing.as_ref()).or(word.short.as_ref());
    let reason = match word {
        Word { refused: Some(_), .. } => "UnsupportedValue",
        Word { missing: Some(_), .. } => "BackendNotFound",
        Word { short: Some(_), .. } => "NoReadyInstance",
        Word { .. } => "Programmed",
    };
    let conditions = [
        ("Accepted", word.refused.as_ref(), "UnsupportedValue"),
        ("ResolvedRefs", word.missing.as_ref(), "BackendNotFound"),
        ("Programmed", why, reason),
    ]
    .map(|(kind, why, reason)| {
        let message = why.map_or("", String::as_str);
        let mut condition =
            condition(kind, why.is_none(), if why.is_none() { kind } else { reason }, message, parent, now);
        condition["observedGeneration"] = json!(word.generation);
        condition["message"] = json!(message);
        condition
    });
    json!({"parents": [
        {"parentRef": {"name": HOST_PARENT}, "controllerName": HOST_CONTROLLER, "conditions": conditions},
    ]})
}

/// When a Deployment will have made no progress for too long; none where it is complete, or that was said.
pub(super) fn deadline(deployment: &Deployment, status: &Value) -> Option<Timestamp> {
    let progressing = find(status, "Progressing")?;
    if progressing["status"] != "True" || progressing["reason"] == "NewReplicaSetAvailable" {
        return None;
    }
    let since: Timestamp = progressing["lastUpdateTime"].as_str()?.parse().ok()?;
    since.checked_add(jiff::SignedDuration::from_secs(patience(deployment))).ok()
}

fn patience(deployment: &Deployment) -> i64 {
    deployment.spec.progress_deadline_seconds.map_or(600, i64::from)
}

/// The condition `Progressing`: true as long as something moved within the deadline.
fn progress(deployment: &Deployment, counts: &Value, complete: bool, before: Option<&Value>, now: Timestamp) -> Value {
    let old = before.and_then(|before| find(before, "Progressing"));
    let moved = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
        .iter()
        .any(|count| before.is_none_or(|before| before[*count] != counts[*count]));
    let changed = before.is_none_or(|before| before["observedGeneration"] != json!(generation(&deployment.metadata)));
    let updated = old.as_ref().filter(|_| !moved && !changed).and_then(|old| old["lastUpdateTime"].as_str());
    let since = updated.and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now);
    let late = now.duration_since(since).as_secs() >= patience(deployment);
    let was_late = old.as_ref().is_some_and(|old| old["reason"] == "ProgressDeadlineExceeded") && !changed;
    let (status, reason) = match (complete, late || was_late) {
        (true, _) => (true, "NewReplicaSetAvailable"),
        (false, true) => (false, "ProgressDeadlineExceeded"),
        (false, false) => (true, "ReplicaSetUpdated"),
    };
    let mut condition = condition("Progressing", status, reason, "", before, now);
    condition["lastUpdateTime"] = json!(second(since));
    condition
}

fn condition(kind: &str, is: bool, reason: &str, message: &str, before: Option<&Value>, now: Timestamp) -> Value {
    let status = if is { "True" } else { "False" };
    let old = before.and_then(|before| find(before, kind)).filter(|old| old["status"] == status);
    let since = old.and_then(|old| old["lastTransitionTime"].as_str().map(str::to_owned));
    let mut fields = Map::from_iter([
        ("type".to_owned(), json!(kind)),
        ("status".to_owned(), json!(status)),
        ("lastTransitionTime".to_owned(), json!(since.unwrap_or_else(|| second(now)))),
    ]);
    for (name, text) in [("reason", reason), ("message", message)] {
        if !text.is_empty() {
            fields.insert(name.to_owned(), json!(text));
        }
    }
    Value::Object(fields)
}

fn find(status: &Value, kind: &str) -> Option<Value> {
    status.get("conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind).cloned()
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

fn ended(end: &End) -> Value {
    let (code, reason) = match &end.how {
        How::Code(code) => (*code, if *code == 0 { "Completed" } else { "Error" }),
        How::Signal(signal) => (128_i32.saturating_add(*signal), "Error"),
        How::NotStarted(_) => (128, "StartError"),
        How::Unknown => (137, "ContainerStatusUnknown"),
    };
    let began = end.at_ms.saturating_sub(end.ran_ms);
    json!({"terminated": {
        "exitCode": code, "reason": reason, "startedAt": time(began), "finishedAt": time(end.at_ms),
    }})
}

fn generation(metadata: &ObjectMeta) -> i64 {
    metadata.generation.unwrap_or(0)
}

fn time(milliseconds: u64) -> String {
    let at = i64::try_from(milliseconds).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    second(at.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Kubernetes counts whole seconds.
fn second(at: Timestamp) -> String {
    format!("{at:.0}")
}

// === impl Trouble ===

impl Trouble {
    /// What it declares is not there.
    pub(super) fn config(message: impl Into<String>) -> Self {
        Self { reason: HostReason::Config, message: message.into() }
    }

    /// Its command cannot be run.
    pub(super) fn command(message: impl Into<String>) -> Self {
        Self { reason: HostReason::Command, message: message.into() }
    }

    /// Somebody else answers where it should.
    pub(super) fn stranger(address: Option<&Address>) -> Self {
        let place = match address {
            Some(Address::Tcp(at)) => format!("port {}", at.port()),
            Some(Address::Unix(path)) => format!("`{}`", path.display()),
            None => "its address".to_owned(),
        };
        let way_out = "end that process, or give `host.ports` a range that nobody else uses";
        Self {
            reason: HostReason::Address,
            message: format!("another process listens at {place}, which was leased to it: {way_out}"),
        }
    }

    /// The machine does not let it.
    pub(super) fn machine(message: impl Into<String>) -> Self {
        Self { reason: HostReason::Machine, message: message.into() }
    }
}
