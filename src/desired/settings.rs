//! What is declared beside the release: applied in place, without a rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{AgentName, Digest, Manifest, WorkerName};

/// What is declared beside the release: replicas, autoscaling, routes, rollout, flags, further manifests.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The SHA-256 of the canonical form of all of it; equal digests are equal settings.
    pub digest: Digest,
    /// Pods of the agent; absent: one. Not rendered under an HPA.
    pub replicas: Option<u32>,
    /// Pods of each worker that declares them.
    pub worker_replicas: BTreeMap<WorkerName, u32>,
    /// How many old releases keep their ConfigMap.
    pub history: u32,
    /// How long a release may take to become healthy.
    pub progress_deadline: Duration,
    /// How Kubernetes replaces pods.
    pub rolling: Rolling,
    /// `minAvailable` or `maxUnavailable` of a PodDisruptionBudget.
    pub disruption_budget: Option<Value>,
    /// Agents that must be Ready first.
    pub depends_on: Vec<AgentName>,
    /// `autoscaling/v2`, minus `scaleTargetRef`.
    pub autoscaling: Option<Value>,
    /// What `spec` of the user's own Deployment says beside its template and selector.
    pub deployment: Option<Value>,
    /// Further objects that belong to the agent.
    pub manifests: Vec<Manifest>,
    /// flagd definitions.
    pub flags: Option<Value>,
}

/// How Kubernetes replaces pods: numbers or percentages, as in a Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rolling {
    /// Pods above the wanted number while rolling.
    pub max_surge: Value,
    /// Pods below the wanted number while rolling.
    pub max_unavailable: Value,
}

// === impl Rolling ===

impl Default for Rolling {
    fn default() -> Self {
        Self { max_surge: 1.into(), max_unavailable: 0.into() }
    }
}
