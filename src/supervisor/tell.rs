//! What is known is written into the status of each object.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http_route::HttpRoute;
use super::run::{FIRST_LOOKS, LOOK, MANAGER, Term};
use super::status;
use super::view::{Process, Set, View, was_ready};
use crate::keeper::folder;
use crate::model::Timestamp;

// === impl Term ===

impl Term {
    /// Writes what is known into the status of each object where it says something else; gives the next deadline,
    /// which is soon where something could not be written.
    pub(super) async fn tell(&self, view: &View, processes: &[Process<'_>], now: Timestamp) -> Duration {
        let mut wait = Duration::from_mins(1);
        // A term that has just begun knows less than what was told last.
        let mut all = !view.pods.iter().any(|pod| self.is_unlooked(pod));
        for pod in view.pods.iter().filter(|pod| !self.is_unlooked(pod)) {
            let before = serde_json::to_value(&pod.status).ok().filter(Value::is_object);
            let after = status::of_pod(pod, &self.seen(pod), before.as_ref(), now);
            all &= self.write_status::<Pod>(&pod.name_any(), before.as_ref(), after).await;
        }
        let looked = |set: &Set<'_>| !set.members.iter().any(|member| self.is_unlooked(member.object));
        for process in processes.iter().filter(|process| process.sets.iter().all(looked)) {
            for set in &process.sets {
                let before = serde_json::to_value(&set.object.status).ok().filter(Value::is_object);
                all &=
                    self.write_status::<ReplicaSet>(&set.object.name_any(), before.as_ref(), status::of_set(set)).await;
            }
            let before = serde_json::to_value(&process.deployment.status).ok().filter(Value::is_object);
            let serving = self.serving.get(&process.deployment.name_any()).map(String::as_str);
            let obstacle = self.obstacle.as_deref().filter(|_| process.carries_traffic);
            let after = status::of_deployment(process, serving, obstacle, before.as_ref(), now);
            if let Some(at) = status::deadline(process.deployment, &after) {
                wait = wait.min(Duration::try_from(at.duration_since(now)).unwrap_or_default().max(LOOK));
            }
            all &= self.write_status::<Deployment>(&process.deployment.name_any(), before.as_ref(), after).await;
        }
        for (agent, word) in &self.words {
            let Some(route) = view.route(agent) else { continue };
            let before = Some(&route.status).filter(|status| status.is_object());
            let after = status::of_route(word, before, now);
            all &= self.write_status::<HttpRoute>(agent.as_str(), before, after).await;
        }
        if all { wait } else { wait.min(LOOK) }
    }

    /// Whether it was told that a Pod is ready, and nobody has looked since this term began: asked of every Pod at every
    /// pass, so that what is soon never so comes first.
    fn is_unlooked(&self, pod: &Pod) -> bool {
        self.begun.elapsed() < FIRST_LOOKS && was_ready(pod) && !self.seen(pod).looked
    }

    /// False where it is to be tried again.
    async fn write_status<K>(&self, name: &str, before: Option<&Value>, after: Value) -> bool
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        // As the kind's own type writes it, so that equal is equal.
        let typed = json!({"status": after});
        if before.is_some_and(|before| includes(before, &typed["status"])) {
            return true;
        }
        let written = self.api::<K>().patch_status(name, &PatchParams::apply(MANAGER), &Patch::Merge(typed)).await;
        match written {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 404 => true,
            // Of an older state than stands: the next look has the newer one.
            Err(kube::Error::Api(status)) if status.code == 409 => false,
            Err(error) => {
                tracing::warn!(error = %folder::told(&error), name, "cannot write a status");
                false
            }
        }
    }
}

/// Whether `whole` says all that `part` says.
fn includes(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(name, value)| match whole.get(name) {
            Some(there) => includes(there, value),
            // An empty field is left out.
            None => value.is_null() || value == &json!({}) || value == &json!([]) || value == &json!(""),
        }),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| includes(whole, part))
        }
        (whole, part) => whole == part,
    }
}
