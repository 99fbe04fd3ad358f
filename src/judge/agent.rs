//! The health of an agent: of the pods of one release, with whose fault it is when they fail.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::fault::{Fault, Finding, pod_findings, refused_creation};
use super::health::{Health, at, condition, health, is_ready, list, number, text};
use crate::model::{LiveObject, ReleaseId, Timestamp};
use crate::render::RELEASE_ID_ANNOTATION;

/// The health of one release of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHealth {
    /// Of all its processes together; the worst counts.
    pub health: Health,
    /// What keeps it from being healthy; the release's own faults first, the certain ones before the others.
    pub findings: Vec<Finding>,
    /// Pods of this release that are ready.
    pub ready: u32,
    /// Pods that are wanted.
    pub wanted: u32,
    /// Pods of other releases that still exist.
    pub old: u32,
}

// === impl AgentHealth ===

impl AgentHealth {
    /// What the release did to fail, to be asked when its deadline has passed; nothing blames nobody.
    pub fn blame(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.fault == Fault::Release)
    }

    /// What holds it up that is not its fault.
    pub fn obstacle(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.fault == Fault::Environment)
    }
}

/// Judges `release` by its Deployments, their ReplicaSets and their pods.
///
/// Pods count by their owners' UIDs, never by label alone; objects of others in the lists are passed over.
///
/// # Guarantees
///
/// Healthy means that every Deployment has observed its last change, runs this release alone, and has all its pods
/// ready. A failure is put down to the release only with evidence from a pod of the release.
pub fn agent_health(
    release: &ReleaseId,
    deployments: &[&LiveObject],
    replica_sets: &[&LiveObject],
    pods: &[&LiveObject],
    now: Timestamp,
) -> AgentHealth {
    let digest = release.digest().to_string();
    let owned = |object: &LiveObject, owners: &BTreeSet<&str>| {
        list(&object.body, &["metadata", "ownerReferences"]).iter().any(|owner| {
            at(owner, &["controller"]).is_some_and(|controller| *controller == true)
                && owners.contains(text(owner, &["uid"]))
        })
    };
    let deployment_ids: BTreeSet<&str> = deployments.iter().map(|deployment| deployment.uid.0.as_str()).collect();
    let sets: Vec<_> = replica_sets.iter().copied().filter(|set| owned(set, &deployment_ids)).collect();
    let runs = |object: &LiveObject| template_release(object) == digest;
    let set_ids = |new: bool| sets.iter().filter(|set| runs(set) == new).map(|set| set.uid.0.as_str()).collect();
    let (new_sets, old_sets): (BTreeSet<&str>, BTreeSet<&str>) = (set_ids(true), set_ids(false));

    let new_pods: Vec<_> = pods.iter().copied().filter(|pod| owned(pod, &new_sets)).collect();
    let gone = |pod: &LiveObject| matches!(text(&pod.body, &["status", "phase"]), "Failed" | "Succeeded");
    let ready = new_pods.iter().filter(|pod| is_ready(&pod.body) && !pod.is_terminating()).count();
    let old = pods.iter().filter(|pod| owned(pod, &old_sets) && !gone(pod)).count();
    let replicas = |deployment: &&LiveObject| number(&deployment.body, &["spec", "replicas"]).unwrap_or(1);
    let wanted = deployments.iter().map(replicas).fold(0, i64::saturating_add);

    let mut findings: Vec<_> = new_pods.iter().flat_map(|pod| pod_findings(&pod.body, Some(now))).collect();
    for set in sets.iter().filter(|set| runs(set)) {
        findings.extend(refused_pods(set));
    }
    findings.sort_by_key(|finding| (finding.fault, !finding.certain, finding.cause, finding.sentence.clone()));
    findings.dedup();

    let judged = deployments.iter().map(|deployment| {
        if runs(deployment) {
            health(deployment)
        } else {
            Health::progressing(format!("{} does not run {release} yet", deployment.object))
        }
    });
    let worst = judged.reduce(|a, b| if b.severity() > a.severity() { b } else { a }).unwrap_or(Health::Missing);
    let health = with_cause(worst, &findings);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    AgentHealth {
        health,
        findings,
        ready: count(ready),
        wanted: u32::try_from(wanted.max(0)).unwrap_or(u32::MAX),
        old: count(old),
    }
}

/// The release whose pods a Deployment or a ReplicaSet makes, as a whole digest.
fn template_release(object: &LiveObject) -> &str {
    at(&object.body, &["spec", "template", "metadata", "annotations"])
        .map_or("", |annotations| text(annotations, &[RELEASE_ID_ANNOTATION]))
}

/// What kept a ReplicaSet from making pods.
fn refused_pods(set: &LiveObject) -> Option<Finding> {
    let refused = condition(&set.body, "ReplicaFailure").filter(|refused| refused.status == "True")?;
    let (cause, sentence) = refused_creation(refused.message);
    Some(Finding {
        fault: Fault::Environment,
        cause,
        object: format!("ReplicaSet/{}", set.object.name),
        container: None,
        sentence,
        certain: false,
    })
}

/// Says what is known about why it is not healthy.
fn with_cause(worst: Health, findings: &[Finding]) -> Health {
    let Some(finding) = findings.first() else { return worst };
    match worst {
        Health::Progressing { .. } if finding.certain => {
            Health::degraded(finding.sentence.clone(), Some(finding.fault))
        }
        Health::Progressing { .. } => Health::progressing(finding.sentence.clone()),
        Health::Degraded { fault: None, .. } => Health::degraded(finding.sentence.clone(), Some(finding.fault)),
        Health::Degraded { reason, .. } if finding.fault == Fault::Release => {
            Health::degraded(format!("{}; {reason}", finding.sentence), Some(Fault::Release))
        }
        other @ (Health::Healthy | Health::Degraded { .. } | Health::Suspended | Health::Missing | Health::Unknown) => {
            other
        }
    }
}
