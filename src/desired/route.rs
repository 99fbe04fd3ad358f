//! How requests from outside reach an agent, read and checked.

use super::agent::Context;
use super::read::Node;
use super::settings::{Gateway, Route};
use super::{TargetKind, written};
use crate::model::ObjectRef;

/// Host names of one route: the Gateway API allows as many.
const MAX_HOSTS: usize = 16;
/// Characters of a host name.
const MAX_HOST: usize = 253;
/// Letters of a path, as a Gateway takes it.
const MAX_PATH: usize = 1024;

/// What is declared, where anything is.
pub(super) fn read(context: &Context<'_>, spec: &written::AgentSpec, at: &Node) -> Option<Route> {
    let route = spec.route.as_ref()?;
    let spot = |key| at.nearest(["route", key]);
    if spec.workload.port.is_none() && context.target.is_some() {
        let error = spot("hosts").error("a route leads to a port, and the agent has none");
        context.error(error.hint("add `workload.port`"));
    }
    if route.gateway.is_none() && context.target == Some(TargetKind::Kubernetes) {
        let error = spot("gateway").error("on Kubernetes a route needs a Gateway, and this one names none");
        context.error(
            error.hint(
                "add `gateway: {name: …, namespace: …}`, or take the route away here by an overlay: `route: null`",
            ),
        );
    }
    for host in &route.hosts {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        if name.is_empty() || host.len() > MAX_HOST || !name.bytes().all(plain) {
            let error = spot("hosts").error(format!("{} is no name of a host", shown(host)));
            context
                .error(error.hint("a lower-case name without a port, such as `support.example.com`, or `*.` and one"));
        }
    }
    if route.hosts.len() > MAX_HOSTS {
        context.error(spot("hosts").error(format!("{} hosts are named, {MAX_HOSTS} are allowed", route.hosts.len())));
    }
    let path = route.path.clone().unwrap_or_else(|| "/".to_owned());
    let climbs = path.split('/').skip(1).any(|part| part == "." || part == "..") || path.contains("//");
    let odd = path.contains(['?', '#', ' ']) || path.chars().any(char::is_control);
    if !path.starts_with('/') || odd || climbs || path.len() > MAX_PATH {
        let error = spot("path").error(format!("{} is no path", shown(&path)));
        context
            .error(error.hint("it begins with `/`, has no `?`, `#`, space, `//` or `..`, and is not longer than 1024"));
    }
    // A host has no Gateway: what names one there has no effect, and that is said.
    let named = route.gateway.as_ref().filter(|_| context.target != Some(TargetKind::Host));
    let gateway = named.map(|gateway| Gateway {
        name: gateway.name.0.clone(),
        namespace: gateway.namespace.as_ref().map(|namespace| namespace.0.clone()),
    });
    Some(Route { hosts: route.hosts.clone(), path, gateway })
}

/// Somebody's text in backticks, where it is short enough to be read.
fn shown(text: &str) -> String {
    if text.len() > MAX_HOST { "the text".to_owned() } else { format!("`{}`", text.escape_debug()) }
}

/// What the agent's route takes of the one proxy of a host, or of a Gateway: no two agents may take the same.
pub(super) fn taken(context: &Context<'_>, spec: &written::AgentSpec, declared: Option<&Route>) -> Vec<ObjectRef> {
    if context.target.is_none() || spec.workload.port.is_none() {
        return vec![];
    }
    let route = match (declared, context.target) {
        (Some(route), _) => route.clone(),
        (None, Some(TargetKind::Host)) => Route::of(context.name),
        (None, Some(TargetKind::Kubernetes) | None) => return vec![],
    };
    let path = route.path.trim_end_matches('/').to_owned();
    let carrier = route.gateway.map_or_else(String::new, |gateway| {
        format!("{}{}: ", gateway.namespace.map(|namespace| namespace + "/").unwrap_or_default(), gateway.name)
    });
    let taken = |host: String| ObjectRef {
        group: "backstay.dev".to_owned(),
        kind: "Route".to_owned(),
        namespace: String::new(),
        name: format!("{carrier}{host}{path}/"),
    };
    route.hosts.into_iter().map(taken).collect()
}
