//! The HTTPRoute of an agent whose releases share its requests: Gateway API v1, for a gateway and for a host's proxy alike.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::names::{HOST_PARENT, SPLIT_ANNOTATION, service_name};
use super::object::{Context, annotations, labels, ways};
use super::release::{Identity, RenderError, Set};
use crate::desired::rollout::{Field, Match};
use crate::desired::{Gateway, Route, Settings, TargetKind};
use crate::model::{AgentName, Manifest, ObjectRef, Origin, ReleaseId};

/// The group of [`ROUTE_KIND`].
pub const ROUTE_GROUP: &str = "gateway.networking.k8s.io";
/// The kind of what splits requests.
pub const ROUTE_KIND: &str = "HTTPRoute";

/// One release behind a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// What runs there.
    pub release: ReleaseId,
    /// Which set of it: it names the Service.
    pub set: Set,
    /// In percent: 0 to 100.
    pub weight: u8,
}

/// How requests are split between the releases of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing<'a> {
    /// Where the agent comes from; its weight may be 0.
    pub stable: Backend,
    /// Where it goes; with one the weights sum to 100.
    pub candidate: Option<Backend>,
    /// A copy of each request goes to the candidate.
    pub mirror: bool,
    /// Requests that reach the candidate on purpose, or the segment of an experiment.
    pub reach: Option<&'a Match>,
    /// What keeps a user with one release; a host alone keeps it.
    pub sticky: Option<&'a Field>,
    /// The name of a host that always reaches the candidate.
    pub preview: Option<&'a str>,
}

/// What a host's proxy does beside the weights: the value of [`SPLIT_ANNOTATION`].
///
/// Whatever it says, the rules say as well: so a change of it is a change of `spec`, which `metadata.generation` counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSplit {
    /// What keeps a user with one release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Field>,
    /// Requests that reach the candidate on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Match>,
    /// The name of a host that always reaches the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
}

/// Renders the HTTPRoute of an agent, named as the agent; `port` is that of its Services.
///
/// # Guarantees
///
/// The last rule carries the weights: its `backendRefs` name the Service of stable and then that of the candidate. Rules
/// before it lead to the candidate alone. Without a candidate nothing but stable is named.
pub fn route(identity: &Identity<'_>, settings: &Settings, port: u16, routing: &Routing<'_>) -> Manifest {
    let split = HostSplit {
        sticky: routing.sticky.cloned(),
        reach: routing.reach.filter(|_| routing.candidate.is_some()).cloned(),
        preview: routing.preview.filter(|_| routing.candidate.is_some()).map(str::to_owned),
    };
    let is_host = identity.target == TargetKind::Host;
    let declared = match &settings.route {
        Some(route) => Some(route.clone()),
        None => is_host.then(|| Route::of(identity.agent)),
    };
    let mut annotations = annotations(identity);
    if is_host {
        let mut further = ways(identity.agent, settings);
        further.push((SPLIT_ANNOTATION, json!(split).to_string()));
        annotations.extend(further.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
    }
    let mut spec = Map::new();
    let parent = match settings.gateway() {
        _ if is_host => Some(json!({"name": HOST_PARENT})),
        Some(Gateway { name, namespace }) => {
            let mut parent = json!({"group": ROUTE_GROUP, "kind": "Gateway", "name": name});
            if let Some(namespace) = namespace {
                parent["namespace"] = json!(namespace);
            }
            Some(parent)
        }
        None => None,
    };
    if let Some(parent) = parent {
        spec.insert("parentRefs".to_owned(), json!([parent]));
    }
    if let Some(route) = declared.as_ref().filter(|route| !route.hosts.is_empty()) {
        let preview = split.preview.iter().filter(|host| !route.hosts.contains(host));
        spec.insert("hostnames".to_owned(), route.hosts.iter().chain(preview).cloned().collect());
    }
    let path = declared.as_ref().map_or("/", |route| route.path.as_str());
    spec.insert("rules".to_owned(), rules(identity.agent, port, path, routing, &split, is_host).into());
    let object = route_ref(identity.agent, identity.namespace);
    let body = json!({
        "apiVersion": format!("{ROUTE_GROUP}/v1"), "kind": ROUTE_KIND,
        "metadata": {
            "name": object.name, "namespace": object.namespace, "labels": labels(identity), "annotations": annotations,
        },
        "spec": spec,
    });
    let origin = Origin::file(format!("agents/{}/agent.yaml", identity.agent));
    Manifest { object, body: Arc::new(body), origin }
}

/// The HTTPRoute of an agent.
pub fn route_ref(agent: &AgentName, namespace: &str) -> ObjectRef {
    ObjectRef {
        group: ROUTE_GROUP.to_owned(),
        kind: ROUTE_KIND.to_owned(),
        namespace: namespace.to_owned(),
        name: agent.to_string(),
    }
}

/// Refuses a route of `manifests/` where Backstay's own has that name.
pub(super) fn check_extras(context: &Context<'_>) -> Result<(), RenderError> {
    let own = match context.identity.target {
        TargetKind::Host => context.set == Set::PerRelease || context.settings.has_sets(),
        TargetKind::Kubernetes => context.settings.gateway().is_some(),
    };
    if !own {
        return Ok(());
    }
    let is_ours = |object: &ObjectRef| {
        object.group == ROUTE_GROUP && object.kind == ROUTE_KIND && object.name == context.identity.agent.as_str()
    };
    let Some(extra) = context.settings.manifests.iter().find(|extra| is_ours(&extra.object)) else { return Ok(()) };
    Err(RenderError::Invalid {
        what: extra.object.to_string(),
        origin: extra.origin.clone(),
        why: "the route of that name is Backstay's own: it splits the requests between releases".to_owned(),
        hint: Some("choose another name, or declare `route` in the agent's file".to_owned()),
    })
}

fn rules(
    agent: &AgentName,
    port: u16,
    path: &str,
    routing: &Routing<'_>,
    split: &HostSplit,
    is_host: bool,
) -> Vec<Value> {
    let to = |backend: &Backend| json!({"name": service_name(agent, backend.set, &backend.release), "port": port});
    let weighted = |backend: &Backend| {
        let mut to = to(backend);
        to["weight"] = json!(backend.weight);
        to
    };
    let beneath = |path: &str| json!({"type": "PathPrefix", "value": path});
    let mut rules = vec![];
    if let Some(candidate) = &routing.candidate {
        if let Some(host) = &split.preview {
            let header = json!([{"type": "Exact", "name": "Host", "value": host}]);
            // The longest path decides first: beside the agent's own path the preview has every other.
            let paths = [path, "/"];
            let paths = if path == "/" { &paths[..1] } else { &paths[..] };
            let matches: Vec<_> = paths.iter().map(|path| json!({"path": beneath(path), "headers": header})).collect();
            rules.push(json!({"matches": matches, "backendRefs": [to(candidate)]}));
        }
        if let Some(reach) = &split.reach {
            let matches = json!([{"path": beneath(path), "headers": [header(reach)]}]);
            rules.push(json!({"matches": matches, "backendRefs": [to(candidate)]}));
        }
    }
    let backends: Vec<_> = [Some(&routing.stable), routing.candidate.as_ref()].into_iter().flatten().collect();
    let mut rule = json!({
        "matches": [{"path": beneath(path)}],
        "backendRefs": backends.into_iter().map(weighted).collect::<Vec<_>>(),
    });
    if let Some(candidate) = routing.candidate.as_ref().filter(|_| routing.mirror) {
        let mirror = json!({"backendRef": to(candidate)});
        rule["filters"] = json!([{"type": "RequestMirror", "requestMirror": mirror}]);
    }
    if let Some(sticky) = split.sticky.as_ref().filter(|_| is_host) {
        // GEP-1619; gateways of the standard channel do not have it.
        let (kind, name) = match sticky {
            Field::Header(name) => ("Header", name),
            Field::Cookie(name) => ("Cookie", name),
        };
        rule["sessionPersistence"] = json!({"type": kind, "sessionName": name});
    }
    rules.push(rule);
    rules
}

/// A match of requests with a header, or with a cookie among others.
fn header(reach: &Match) -> Value {
    match &reach.field {
        Field::Header(name) => json!({"type": "Exact", "name": name, "value": reach.value}),
        Field::Cookie(name) => {
            let value = format!("(.*; *)?{}={}(;.*)?", literal(name), literal(&reach.value));
            json!({"type": "RegularExpression", "name": "Cookie", "value": value})
        }
    }
}

/// A text as a regular expression (RE2) that nothing else fits.
fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() && !matches!(character, '-' | '_' | '=' | ':' | '/' | '%' | '@' | ',') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
