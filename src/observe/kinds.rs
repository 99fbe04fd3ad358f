//! Which kinds the API server serves, under which path.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Api;
use super::api::{Call, Refusal, segment};
use crate::reconcile::FailureKind;

/// A kind that is not known is asked for again after this long.
const FRESH: Duration = Duration::from_secs(5);

/// Kinds that every API server has, so that they cost no request: API version, kind, path.
const BUILT_IN: [(&str, &str, &str); 15] = [
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "Pod", "pods"),
    ("v1", "Secret", "secrets"),
    ("v1", "Service", "services"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "ReplicaSet", "replicasets"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    ("batch/v1", "CronJob", "cronjobs"),
    ("batch/v1", "Job", "jobs"),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
];

/// The kinds that an API server serves, asked for when needed and again when one is unknown.
pub struct Kinds {
    api: Api,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Versions of a group, the preferred one first.
    groups: BTreeMap<String, (Instant, Vec<String>)>,
    /// What a group version has.
    served: BTreeMap<String, (Instant, Vec<Resource>)>,
}

/// One kind, as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// `apps/v1`, or `v1`.
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// Its name in paths.
    pub(crate) plural: String,
    /// Whether its objects live in a namespace.
    pub(crate) namespaced: bool,
}

// === impl Kinds ===

impl Kinds {
    /// Asks through `api`.
    pub fn new(api: Api) -> Self {
        Self { api, known: Mutex::default() }
    }

    /// The kind of a group, in `version` or else in the preferred version that has it.
    pub(crate) async fn find(&self, group: &str, version: Option<&str>, kind: &str) -> Result<Resource, Refusal> {
        let built_in = BUILT_IN.iter().find(|(api_version, name, _)| {
            let (its_group, its_version) = api_version.split_once('/').unwrap_or(("", api_version));
            its_group == group && *name == kind && version.is_none_or(|version| version == its_version)
        });
        if let Some((api_version, _, plural)) = built_in {
            let (api_version, plural) = ((*api_version).to_owned(), (*plural).to_owned());
            return Ok(Resource { api_version, kind: kind.to_owned(), plural, namespaced: true });
        }
        let versions = match version {
            Some(version) => vec![version.to_owned()],
            None => self.versions(group).await?,
        };
        for version in versions {
            let api_version = if group.is_empty() { version } else { format!("{group}/{version}") };
            if let Some(found) = self.served(&api_version, kind).await? {
                return Ok(found);
            }
        }
        let name = if group.is_empty() { kind.to_owned() } else { format!("{group}/{kind}") };
        let name = version.map_or_else(|| name.clone(), |version| format!("{name} ({version})"));
        let why = format!("the API server does not serve `{name}`; is its CustomResourceDefinition installed?");
        Err(Refusal::Here(FailureKind::Refused, why))
    }

    /// Forgets what was known of a group version: it answered that it has no such kind.
    pub(crate) fn forget(&self, api_version: &str) {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let mut known = self.known();
        known.groups.remove(group);
        known.served.remove(api_version);
    }

    /// Held for a look only, never over a request: one group that hangs delays no other.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn versions(&self, group: &str) -> Result<Vec<String>, Refusal> {
        if group.is_empty() {
            return Ok(vec!["v1".to_owned()]);
        }
        if let Some((at, versions)) = self.known().groups.get(group)
            && (!versions.is_empty() || at.elapsed() < FRESH)
        {
            return Ok(versions.clone());
        }
        let versions = match self.api.call(Call::get(format!("/apis/{}", segment(group)?))).await {
            Ok(answer) => {
                let text = |value: &Value| value.get("version").and_then(Value::as_str).map(str::to_owned);
                let preferred = answer.get("preferredVersion").and_then(text);
                let all = answer.get("versions").and_then(Value::as_array).into_iter().flatten().filter_map(text);
                let mut versions: Vec<_> = preferred.into_iter().collect();
                for version in all {
                    if !versions.contains(&version) {
                        versions.push(version);
                    }
                }
                versions
            }
            Err(refusal) if refusal.code() == Some(404) => Vec::new(),
            Err(refusal) => return Err(refusal),
        };
        self.known().groups.insert(group.to_owned(), (Instant::now(), versions.clone()));
        Ok(versions)
    }

    async fn served(&self, api_version: &str, kind: &str) -> Result<Option<Resource>, Refusal> {
        if let Some((at, served)) = self.known().served.get(api_version) {
            let found = served.iter().find(|resource| resource.kind == kind).cloned();
            if found.is_some() || at.elapsed() < FRESH {
                return Ok(found);
            }
        }
        let path = match api_version.split_once('/') {
            None => format!("/api/{}", segment(api_version)?),
            Some((group, version)) => format!("/apis/{}/{}", segment(group)?, segment(version)?),
        };
        let served: Vec<_> = match self.api.call(Call::get(path)).await {
            Ok(answer) => {
                let listed = answer.get("resources").and_then(Value::as_array).into_iter().flatten();
                listed.filter_map(|entry| Resource::of(entry, api_version)).collect()
            }
            Err(refusal) if refusal.code() == Some(404) => Vec::new(),
            Err(refusal) => return Err(refusal),
        };
        let found = served.iter().find(|resource| resource.kind == kind).cloned();
        self.known().served.insert(api_version.to_owned(), (Instant::now(), served));
        Ok(found)
    }
}

// === impl Resource ===

impl Resource {
    fn of(entry: &Value, api_version: &str) -> Option<Self> {
        let plural = entry.get("name")?.as_str()?;
        // Subresources are listed beside the resources.
        if plural.contains('/') {
            return None;
        }
        Some(Self {
            api_version: api_version.to_owned(),
            kind: entry.get("kind")?.as_str()?.to_owned(),
            plural: plural.to_owned(),
            namespaced: entry.get("namespaced")?.as_bool()?,
        })
    }

    /// The path of all its objects, in `namespace` where it has namespaces.
    pub(crate) fn collection(&self, namespace: &str) -> Result<String, Refusal> {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        let (api_version, plural) = (&self.api_version, &self.plural);
        if self.namespaced {
            Ok(format!("/{root}/{api_version}/namespaces/{}/{plural}", segment(namespace)?))
        } else {
            Ok(format!("/{root}/{api_version}/{plural}"))
        }
    }

    /// The path of one object.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> Result<String, Refusal> {
        Ok(format!("{}/{}", self.collection(namespace)?, segment(name)?))
    }
}
