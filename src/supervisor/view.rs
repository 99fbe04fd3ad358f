//! What stands in the host's API, as the supervisor reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::http_route::HttpRoute;
pub(super) use crate::judge::LAUNCH_ANNOTATION as LAUNCH;
use crate::model::{AgentName, Digest, ReleaseId, Timestamp};
use crate::render::{AGENT_LABEL, PROCESS_LABEL, RELEASE_ID_ANNOTATION, ROLLING_SET, SET_LABEL};

/// Annotation of a Pod: its number within its set.
pub(super) const ORDINAL: &str = "backstay.dev/ordinal";
/// Annotation of a Pod: the port that it was leased.
pub(super) const PORT: &str = "backstay.dev/port";
/// Annotation of a Pod that is not wanted any more: since when.
pub(super) const RETIRED: &str = "backstay.dev/retired";
/// Annotation of such a Pod: until when it is kept for a way back.
pub(super) const KEPT_UNTIL: &str = "backstay.dev/kept-until";
/// Annotation of a Deployment: new processes of it may start while old ones run.
pub(super) const OVERLAP: &str = "backstay.dev/overlap";
/// The value of the process label of what carries traffic.
const MAIN: &str = "main";

/// All that the supervisor decides by, at one moment.
#[derive(Default)]
pub(super) struct View {
    pub(super) deployments: Vec<Arc<Deployment>>,
    pub(super) sets: Vec<Arc<ReplicaSet>>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) services: Vec<Arc<Service>>,
    pub(super) routes: Vec<Arc<HttpRoute>>,
}

/// One Deployment with what belongs to it.
pub(super) struct Process<'v> {
    pub(super) deployment: &'v Deployment,
    pub(super) agent: AgentName,
    /// The release that its template runs.
    pub(super) release: Option<ReleaseId>,
    /// It answers requests: the main process of an agent that has a Service or a route.
    pub(super) carries_traffic: bool,
    /// It runs one release and no other.
    pub(super) per_release: bool,
    pub(super) sets: Vec<Set<'v>>,
}

/// One ReplicaSet: the instances of one pod template.
pub(super) struct Set<'v> {
    pub(super) object: &'v ReplicaSet,
    pub(super) members: Vec<Member<'v>>,
}

/// One Pod.
#[derive(Clone, Copy)]
pub(super) struct Member<'v> {
    pub(super) object: &'v Pod,
    pub(super) ordinal: u32,
    pub(super) retired: Option<Retired>,
    pub(super) ready: bool,
    /// It is ready, or was when that was told last: who has just begun has not looked yet.
    pub(super) answers: bool,
}

/// Since when a Pod is not wanted, and until when it is kept all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retired {
    pub(super) at: Timestamp,
    pub(super) kept_until: Timestamp,
}

// === impl View ===

impl View {
    /// The Deployments, each with its sets and their Pods; `is_ready` by the name of a Pod.
    pub(super) fn processes(&self, is_ready: impl Fn(&Pod) -> bool) -> Vec<Process<'_>> {
        let mut pods: BTreeMap<&str, Vec<Member<'_>>> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(owner) = owner(&pod.metadata) {
                pods.entry(owner).or_default().push(Member::of(pod, is_ready(pod)));
            }
        }
        let mut sets: BTreeMap<&str, Vec<Set<'_>>> = BTreeMap::new();
        for set in &self.sets {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            if let Some(owner) = owner(&set.metadata) {
                let members = pods.remove(uid).unwrap_or_default();
                sets.entry(owner).or_default().push(Set { object: set, members });
            }
        }
        let processes = self.deployments.iter().filter_map(|deployment| {
            let agent: AgentName = deployment.labels().get(AGENT_LABEL)?.parse().ok()?;
            let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
            let carries_traffic = is_main(deployment.labels()) && self.is_reached(&agent);
            let per_release = is_per_release(deployment.labels());
            let sets = sets.remove(uid).unwrap_or_default();
            let release = release_of(&deployment.spec.template);
            Some(Process { deployment, agent, release, carries_traffic, per_release, sets })
        });
        processes.collect()
    }

    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.metadata.name.as_deref() == Some(name)).map(|service| &**service)
    }

    /// The route that splits the requests of an agent.
    pub(super) fn route(&self, agent: &AgentName) -> Option<&HttpRoute> {
        let is_its = |route: &&Arc<HttpRoute>| {
            route.metadata.name.as_deref() == Some(agent.as_str())
                && route.labels().get(AGENT_LABEL).map(String::as_str) == Some(agent.as_str())
        };
        self.routes.iter().find(is_its).map(|route| &**route)
    }

    /// Whether requests can come to an agent at all.
    pub(super) fn is_reached(&self, agent: &AgentName) -> bool {
        self.service(agent.as_str()).is_some() || self.route(agent).is_some()
    }

    /// Whether a Service leads to the Pods of a Deployment.
    pub(super) fn selects(&self, service: &str, process: &Process<'_>) -> bool {
        let selector = self.service(service).and_then(|service| service.spec.as_ref()?.selector.as_ref());
        let metadata = process.deployment.spec.template.metadata.as_ref();
        let labels = metadata.and_then(|metadata| metadata.labels.as_ref());
        let has = |(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value));
        selector.is_some_and(|selector| !selector.is_empty() && selector.iter().all(has))
    }

    /// Whether a Pod may serve again, though its Deployment is gone: a release that has one of its own comes back to it.
    pub(super) fn may_return(&self, pod: &Pod) -> bool {
        let agent = pod.labels().get(AGENT_LABEL).and_then(|name| name.parse().ok());
        is_main(pod.labels()) && is_per_release(pod.labels()) && agent.is_some_and(|agent| self.is_reached(&agent))
    }

    /// The sets whose Deployment is gone, and the Pods whose set is, or whose set's Deployment.
    pub(super) fn orphans(&self, is_ready: impl Fn(&Pod) -> bool) -> (Vec<&ReplicaSet>, Vec<Member<'_>>) {
        let uids =
            |objects: Vec<&ObjectMeta>| objects.into_iter().filter_map(|one| one.uid.clone()).collect::<Vec<_>>();
        let deployments = uids(self.deployments.iter().map(|one| &one.metadata).collect());
        let is_owned = |metadata: &ObjectMeta, owners: &[String]| {
            owner(metadata).is_some_and(|uid| owners.iter().any(|owner| owner == uid))
        };
        let sets: Vec<&ReplicaSet> =
            self.sets.iter().filter(|set| !is_owned(&set.metadata, &deployments)).map(|set| &**set).collect();
        let owned = self.sets.iter().filter(|set| is_owned(&set.metadata, &deployments));
        let sets_that_stay = uids(owned.map(|set| &set.metadata).collect());
        let pods = self.pods.iter().filter(|pod| !is_owned(&pod.metadata, &sets_that_stay));
        (sets, pods.map(|pod| Member::of(pod, is_ready(pod))).collect())
    }
}

// === impl Process ===

impl Process<'_> {
    pub(super) fn wanted(&self) -> u32 {
        let replicas = self.deployment.spec.replicas.unwrap_or(1);
        u32::try_from(replicas).unwrap_or(0)
    }

    /// The name of the set that runs the Deployment's template.
    pub(super) fn newest(&self) -> String {
        format!("{}-{}", self.deployment.name_any(), template_hash(&self.deployment.spec.template))
    }

    pub(super) fn set(&self, name: &str) -> Option<&Set<'_>> {
        self.sets.iter().find(|set| set.object.name_any() == name)
    }

    pub(super) fn overlaps(&self) -> bool {
        self.deployment.annotations().get(OVERLAP).is_some_and(|value| value == "true")
    }
}

// === impl Set ===

impl Set<'_> {
    pub(super) fn release(&self) -> Option<ReleaseId> {
        self.object.spec.template.as_ref().and_then(release_of)
    }

    /// Those that a table may name: ready, and among the first `wanted`.
    pub(super) fn ready(&self, wanted: u32) -> impl Iterator<Item = &Member<'_>> {
        self.members.iter().filter(move |member| member.ready && member.ordinal < wanted)
    }
}

// === impl Retired ===

impl Retired {
    /// Whether it is kept for a way back at all.
    pub(super) fn is_kept(&self) -> bool {
        self.kept_until > self.at
    }
}

// === impl Member ===

impl<'v> Member<'v> {
    fn of(pod: &'v Pod, ready: bool) -> Self {
        let number = |name: &str| pod.annotations().get(name).and_then(|text| text.parse().ok());
        let time = |name: &str| pod.annotations().get(name).and_then(|text| text.parse::<Timestamp>().ok());
        let retired = time(RETIRED).map(|at| Retired { at, kept_until: time(KEPT_UNTIL).unwrap_or(at) });
        let answers = ready || was_ready(pod);
        Self { object: pod, ordinal: number(ORDINAL).unwrap_or(0), retired, ready, answers }
    }
}

/// Whether it was ready when that was told last.
pub(super) fn was_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_main(labels: &BTreeMap<String, String>) -> bool {
    labels.get(PROCESS_LABEL).is_none_or(|process| process == MAIN)
}

fn is_per_release(labels: &BTreeMap<String, String>) -> bool {
    labels.get(SET_LABEL).is_some_and(|set| set != ROLLING_SET)
}

/// The UID of the controller that owns an object.
pub(super) fn owner(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// The release that a template runs.
pub(super) fn release_of(template: &PodTemplateSpec) -> Option<ReleaseId> {
    let annotations = template.metadata.as_ref()?.annotations.as_ref()?;
    release_in(annotations)
}

/// The release that annotations name.
pub(super) fn release_in(annotations: &BTreeMap<String, String>) -> Option<ReleaseId> {
    annotations.get(RELEASE_ID_ANNOTATION)?.parse::<Digest>().ok().map(ReleaseId::from)
}

/// Tells one template from every other: ten hex digits.
pub(super) fn template_hash(template: &PodTemplateSpec) -> String {
    let text = serde_json::to_vec(template).unwrap_or_default();
    Sha256::digest(text).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// The agent's own container: named `agent`, else the first.
pub(super) fn container(spec: &PodSpec) -> Option<&Container> {
    spec.containers.iter().find(|container| container.name == "agent").or_else(|| spec.containers.first())
}
