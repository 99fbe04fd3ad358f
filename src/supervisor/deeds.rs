//! What was decided is done: on the host's objects, and on the tasks of its instances.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::decide::Deed;
use super::launch;
use super::run::{MANAGER, REVISION, Term, revision};
use super::table;
use super::view::{KEPT_UNTIL, LAUNCH, ORDINAL, PORT, RETIRED, View, container, owner as controller, template_hash};
use crate::keeper::folder;
use crate::model::{AgentName, Timestamp};
use crate::render::{AGENT_LABEL, MANAGED_BY_LABEL};

/// How long open requests of a retired instance may last where the agent does not say.
const DRAIN: Duration = Duration::from_mins(10);

// === impl Term ===

impl Term {
    /// Does one thing; false if it is to be tried again soon.
    pub(super) async fn carry_out(
        &mut self,
        view: &View,
        deed: &Deed,
        open: Option<&BTreeMap<(String, u64), u64>>,
        now: Timestamp,
    ) -> bool {
        let done = match deed {
            Deed::Stop { pod } => return self.stop(view, pod, open, now),
            Deed::MakeSet { deployment, name } => self.make_set(view, deployment, name).await,
            Deed::Launch { set, pod, ordinal } => self.launch(view, set, pod, *ordinal, now).await,
            Deed::Scale { set, replicas } => {
                self.patch::<ReplicaSet>(set, json!({"spec": {"replicas": replicas}})).await
            }
            Deed::Retire { pod, kept_until } => {
                let patch = json!({"metadata": {
                    "labels": {MANAGED_BY_LABEL: null},
                    "annotations": {RETIRED: now.to_string(), KEPT_UNTIL: kept_until.to_string()},
                }});
                self.patch::<Pod>(pod, patch).await
            }
            Deed::Recall { pod } => {
                let patch = json!({"metadata": {
                    "labels": {MANAGED_BY_LABEL: crate::render::MANAGED_BY},
                    "annotations": {RETIRED: null, KEPT_UNTIL: null},
                }});
                self.patch::<Pod>(pod, patch).await
            }
            Deed::DropSet { set } => {
                let api: Api<ReplicaSet> = self.api();
                let dropped = api.delete(set, &DeleteParams::default()).await.map(drop);
                self.untidy |= !self.tidy(set).await;
                dropped
            }
        };
        match done {
            Ok(()) => true,
            // Done already, or gone: the next look shows it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                tracing::warn!(error = %folder::told(&error), ?deed, "not done");
                false
            }
        }
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.shared.client.clone(), &self.shared.namespace)
    }

    async fn patch<K>(&self, name: &str, patch: Value) -> Result<(), kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.api::<K>().patch(name, &parameters, &Patch::Merge(patch)).await.map(drop)
    }

    async fn create<K>(&self, object: Value) -> Result<(), kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        self.api::<K>().create(&parameters, &object).await.map(drop)
    }

    async fn make_set(&self, view: &View, deployment: &str, name: &str) -> Result<(), kube::Error> {
        let Some(deployment) = view.deployments.iter().find(|one| one.name_any() == deployment) else { return Ok(()) };
        let spec = &deployment.spec;
        let uid = deployment.uid().unwrap_or_default();
        let owner = owner("apps/v1", "Deployment", &deployment.name_any(), &uid);
        // Its name says its whole template: one that an earlier Deployment left is the same, with what runs of it.
        if view.sets.iter().any(|set| set.name_any() == name) {
            return self.patch::<ReplicaSet>(name, json!({"metadata": {"ownerReferences": [owner]}})).await;
        }
        let owned = view.sets.iter().filter(|set| controller(&set.metadata) == Some(&*uid));
        let last = owned.map(|set| revision(&set.metadata)).max().unwrap_or(0);
        let mut template = json!(spec.template);
        let hash = template_hash(&spec.template);
        template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
        let mut labels = template["metadata"]["labels"].clone();
        labels[MANAGED_BY_LABEL] = json!(crate::render::MANAGED_BY);
        let mut selector = json!(spec.selector);
        selector["matchLabels"]["pod-template-hash"] = json!(hash);
        self.create::<ReplicaSet>(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": self.shared.namespace, "labels": labels,
                "annotations": {REVISION: (last + 1).to_string()},
                "ownerReferences": [owner],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        }))
        .await
    }

    async fn launch(
        &mut self,
        view: &View,
        set: &str,
        pod: &str,
        ordinal: u32,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let Some(set) = view.sets.iter().find(|one| one.name_any() == set) else { return Ok(()) };
        let Some(template) = &set.spec.template else { return Ok(()) };
        let Some(spec) = &template.spec else { return Ok(()) };
        let metadata = template.metadata.clone().unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.insert(ORDINAL.to_owned(), ordinal.to_string());
        annotations.insert(LAUNCH.to_owned(), now.as_millisecond().to_string());
        if launch::needs_port(spec) {
            match self.ports.lease(pod) {
                Some(port) => {
                    annotations.insert(PORT.to_owned(), port.to_string());
                }
                None => {
                    tracing::warn!(pod, "no port of `host.ports` is free; it waits for one");
                    return Ok(());
                }
            }
        }
        let mut labels = metadata.labels.unwrap_or_default();
        labels.insert(MANAGED_BY_LABEL.to_owned(), crate::render::MANAGED_BY.to_owned());
        let made = self
            .create::<Pod>(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": pod, "namespace": self.shared.namespace, "labels": labels, "annotations": annotations,
                    "ownerReferences": [owner("apps/v1", "ReplicaSet", &set.name_any(), &set.uid().unwrap_or_default())],
                },
                "spec": spec,
            }))
            .await;
        if made.is_err() && !self.instances.contains_key(pod) {
            self.ports.release(pod);
        }
        made
    }

    /// Ends an instance that no table names and that answers nothing more; false if it does yet.
    fn stop(&mut self, view: &View, pod: &str, open: Option<&BTreeMap<(String, u64), u64>>, now: Timestamp) -> bool {
        let Some(object) = view.pods.iter().find(|one| one.name_any() == pod) else { return true };
        let Some(handle) = self.instances.get(pod) else { return true };
        if handle.is_stopping() {
            return true;
        }
        if self.names(pod) {
            return false;
        }
        let agent = object.labels().get(AGENT_LABEL).and_then(|agent| agent.parse::<AgentName>().ok());
        let is_reached = agent.as_ref().is_some_and(|agent| view.is_reached(agent));
        let launch = table::launch(object.annotations());
        let in_flight = open.map(|open| open.get(&(pod.to_owned(), launch)).copied().unwrap_or(0));
        let has_address = object.spec.as_ref().and_then(container).is_some() && handle.seen.address.is_some();
        if has_address && (is_reached || in_flight.is_some_and(|in_flight| in_flight > 0)) {
            let retired =
                object.annotations().get(RETIRED).and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now);
            let waited = Duration::try_from(now.duration_since(retired)).unwrap_or_default();
            let most = agent.and_then(|agent| table::drain_max(view, &agent)).unwrap_or(DRAIN);
            // Without an answer nothing is known to be idle.
            if in_flight != Some(0) && waited < most {
                return false;
            }
        }
        if let Some(handle) = self.instances.get_mut(pod) {
            handle.stop();
        }
        true
    }
}

fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}
