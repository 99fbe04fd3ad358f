//! The HTTPRoute of an agent.

use std::sync::Arc;

use serde_json::json;

use super::release::{Identity, Set};
use super::service_name;
use crate::desired::Settings;
use crate::desired::rollout::{Field, Match};
use crate::model::{Manifest, ObjectRef, Origin, ReleaseId};

pub struct Backend {
    pub release: ReleaseId,
    pub set: Set,
    pub port: u16,
    pub weight: u8,
}
pub struct Routing<'a> {
    pub stable: Backend,
    pub candidate: Option<Backend>,
    pub mirror: bool,
    pub reach: Option<&'a Match>,
    pub sticky: Option<&'a Field>,
    pub preview: Option<&'a str>,
}
pub fn route(identity: &Identity<'_>, _settings: &Settings, routing: &Routing<'_>) -> Manifest {
    let backend = |backend: &Backend| json!({"name": service_name(identity.agent, backend.set, &backend.release), "port": backend.port, "weight": backend.weight});
    let refs: Vec<_> = [Some(&routing.stable), routing.candidate.as_ref()].into_iter().flatten().map(backend).collect();
    let object = ObjectRef { group: "gateway.networking.k8s.io".into(), kind: "HTTPRoute".into(), namespace: identity.namespace.to_owned(), name: identity.agent.to_string() };
    let body = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": identity.agent, "namespace": identity.namespace, "labels": {"backstay.dev/agent": identity.agent, "app.kubernetes.io/managed-by": "backstay"}, "annotations": {"backstay.dev/installation": identity.installation}}, "spec": {"rules": [{"backendRefs": refs}]}});
    Manifest { object, body: Arc::new(body), origin: Origin::file(format!("agents/{}/agent.yaml", identity.agent)) }
}
