//! The health of an agent: of the pods of one release, with whose fault it is when they fail.

use serde::{Deserialize, Serialize};

use super::{Cause, Fault, Health};
use crate::model::{LiveObject, ReleaseId};

/// One thing that keeps a release from being healthy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Whose fault it is.
    pub fault: Fault,
    /// What it is.
    pub cause: Cause,
    /// The pod, or the ReplicaSet that could make none.
    pub object: String,
    /// The container, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Names the pod, the container and the cause, in one sentence without a full stop. Never a value of the
    /// environment or a Secret.
    pub sentence: String,
    /// Whether it would not heal by waiting. A readiness probe that fails may still pass; a missing image does not
    /// appear.
    pub certain: bool,
}

/// The health of one release of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHealth {
    /// Of all its processes together; the worst counts.
    pub health: Health,
    /// What keeps it from being healthy; the release's own faults first.
    pub findings: Vec<Finding>,
    /// Pods of this release that are ready.
    pub ready: u32,
    /// Pods that are wanted.
    pub wanted: u32,
    /// Pods of other releases that still exist.
    pub old: u32,
}

/// Judges `release` by its Deployments, their ReplicaSets and their pods; objects of others in the lists are passed over.
///
/// # Guarantees
///
/// Healthy means that every Deployment has observed its last change, runs this release alone, and has all its pods ready.
pub fn agent_health(
    release: &ReleaseId,
    deployments: &[&LiveObject],
    replica_sets: &[&LiveObject],
    pods: &[&LiveObject],
) -> AgentHealth {
    let _ = (release, deployments, replica_sets, pods);
    AgentHealth { health: Health::Unknown, findings: vec![], ready: 0, wanted: 0, old: 0 }
}
