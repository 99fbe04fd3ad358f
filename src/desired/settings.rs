//! What is declared beside the release: applied in place, without a rollout.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RolloutSpec;
use super::artifact::ArtifactSource;
use super::canonical::{self, NotCanonical};
use super::release::FORMAT;
use super::rollout::Strategy;
use crate::model::{AgentName, Digest, Manifest, ObjectRef, Origin, WorkerName};

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
    /// How requests from outside reach the agent; absent: on a host by [`Route::of`], where it has a port, and on
    /// Kubernetes not at all.
    pub route: Option<Route>,
    /// What a host alone looks at.
    pub host: HostSettings,
    /// How a new release gets the traffic; absent: as the target rolls, and nothing is watched.
    pub rollout: Option<RolloutSpec>,
}

/// What a host alone looks at; empty for Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSettings {
    /// The artifact, and where its bytes come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactOrigin>,
    /// How requests in flight are ended; absent: as [`Drain::default`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

/// Where the bytes of one artifact come from.
///
/// A release that goes back keeps the live settings: what it says is of use for the artifact with this digest alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactOrigin {
    /// Which artifact.
    pub sha256: Digest,
    /// Where from.
    pub from: ArtifactSource,
}

/// How requests from outside reach the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Host names, `*.` and a name for all beneath it.
    pub hosts: Vec<String>,
    /// Path prefix.
    pub path: String,
    /// Who carries them on Kubernetes; a host has its proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
}

/// A Gateway (`gateway.networking.k8s.io`).
///
/// Which namespaces may attach routes to it, and for which host names, is for its own listeners to say (Gateway API,
/// `allowedRoutes`): a repository gets no more of it than the cluster's people allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its namespace; absent: that of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// How requests in flight are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Whether they may finish.
    pub mode: DrainMode,
    /// How long, in seconds.
    pub max: u64,
}

/// Whether requests in flight may finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainMode {
    /// They may.
    Finish,
    /// They are cut.
    Cut,
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

/// What the digest of settings is taken of.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Form {
    format: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
    worker_replicas: BTreeMap<WorkerName, u32>,
    history: u32,
    /// Seconds.
    progress_deadline: f64,
    rolling: Rolling,
    #[serde(skip_serializing_if = "Option::is_none")]
    disruption_budget: Option<Value>,
    depends_on: BTreeSet<AgentName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    autoscaling: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<Value>,
    manifests: Vec<Arc<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    route: Option<Route>,
    #[serde(default, skip_serializing_if = "HostSettings::is_empty")]
    host: HostSettings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollout: Option<RolloutSpec>,
}

// === impl Settings ===

impl Settings {
    /// The canonical form (RFC 8785), whose SHA-256 is the digest.
    ///
    /// # Errors
    ///
    /// A number that canonical JSON cannot carry.
    pub fn canonical(&self) -> Result<String, NotCanonical> {
        let form = Form {
            format: FORMAT,
            replicas: self.replicas,
            worker_replicas: self.worker_replicas.clone(),
            history: self.history,
            progress_deadline: self.progress_deadline.as_secs_f64(),
            rolling: self.rolling.clone(),
            disruption_budget: self.disruption_budget.clone(),
            depends_on: self.depends_on.iter().cloned().collect(),
            autoscaling: self.autoscaling.clone(),
            deployment: self.deployment.clone(),
            manifests: self.manifests.iter().map(|manifest| Arc::clone(&manifest.body)).collect(),
            flags: self.flags.clone(),
            route: self.route.clone(),
            host: self.host.clone(),
            rollout: self.rollout.clone(),
        };
        let value = serde_json::to_value(form).map_err(|error| NotCanonical(error.to_string()))?;
        canonical::to_text(&value)
    }

    /// The Gateway that carries requests to the agent, where its route names one.
    pub fn gateway(&self) -> Option<&Gateway> {
        self.route.as_ref()?.gateway.as_ref()
    }

    /// Whether each release has a set of instances of its own: by every strategy but rolling.
    pub fn has_sets(&self) -> bool {
        self.rollout.as_ref().is_some_and(|spec| spec.strategy != Strategy::Rolling)
    }

    /// The same settings, named by what they say.
    ///
    /// # Errors
    ///
    /// As [`canonical`](Self::canonical).
    pub fn named(self) -> Result<Self, NotCanonical> {
        let digest = Digest::of(self.canonical()?.as_bytes());
        Ok(Self { digest, ..self })
    }

    /// Reads settings back from their canonical form; nothing where `text` does not hash to `digest`.
    pub fn from_canonical(text: &str, digest: Digest) -> Option<Self> {
        if Digest::of(text.as_bytes()) != digest {
            return None;
        }
        let form: Form = serde_json::from_str(text).ok().filter(|form: &Form| form.format <= FORMAT)?;
        let manifest = |body: Arc<Value>| {
            let object = ObjectRef::of(&body, "")?;
            Some(Manifest { object, body, origin: Origin::file("manifests") })
        };
        Some(Self {
            digest,
            replicas: form.replicas,
            worker_replicas: form.worker_replicas,
            history: form.history,
            progress_deadline: Duration::try_from_secs_f64(form.progress_deadline).ok()?,
            rolling: form.rolling,
            disruption_budget: form.disruption_budget,
            depends_on: form.depends_on.into_iter().collect(),
            autoscaling: form.autoscaling,
            deployment: form.deployment,
            manifests: form.manifests.into_iter().map(manifest).collect::<Option<_>>()?,
            flags: form.flags,
            route: form.route,
            host: form.host,
            rollout: form.rollout,
        })
    }
}

// === impl HostSettings ===

impl HostSettings {
    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Route ===

impl Route {
    /// Where nothing is declared: all requests to `<agent>.localhost`.
    pub fn of(agent: &AgentName) -> Self {
        Self { hosts: vec![format!("{agent}.localhost")], path: "/".to_owned(), gateway: None }
    }
}

// === impl Drain ===

impl Default for Drain {
    /// Requests may finish, for ten minutes.
    fn default() -> Self {
        Self { mode: DrainMode::Finish, max: 600 }
    }
}

// === impl Rolling ===

impl Default for Rolling {
    fn default() -> Self {
        Self { max_surge: 1.into(), max_unavailable: 0.into() }
    }
}
