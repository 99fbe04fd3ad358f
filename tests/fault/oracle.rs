//! What must hold whatever went wrong: the rules of writes, and the least of rights on a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::proxy::Seen;
use crate::rights::{self, Right};
pub(crate) use crate::rules::mixes;
use crate::rules::of_write;
pub(crate) use crate::tally::{hits, note, panics, table, watch_for_panics};

/// Everything in a history of writes that breaks a rule of safety.
pub(crate) fn broken_rules(log: &[Seen], namespace: &str) -> Vec<String> {
    broken_since(log, namespace, Some(Value::Null))
}

/// The same of a history that begins in the middle: what a write is for is told once a record was seen.
pub(crate) fn broken_rules_of_a_successor(log: &[Seen], namespace: &str) -> Vec<String> {
    broken_since(log, namespace, None)
}

fn broken_since(log: &[Seen], namespace: &str, mut record: Option<Value>) -> Vec<String> {
    let mut broken = vec![];
    let account = format!("system:serviceaccount:{namespace}:backstay-development");
    let (daemon, environment) = (role("backstay-daemon"), role("backstay-environment"));
    for seen in log {
        let call = &seen.call;
        let mut says = |what: &str| broken.push(format!("{what}: {call}"));
        let ours = call.resource.starts_with("agentreleases") || call.resource.starts_with("agentenvironments");
        let own = ours || call.is_lease() || call.resource.ends_with("/events");
        // The least of rights.
        if call.resource != "discovery" {
            let allowed = if seen.acting_as.is_some() { &environment } else { &daemon };
            if !allowed.contains(&right(call.verb.as_str(), &call.resource)) {
                says("asked for what `manifests/` does not allow");
            }
        }
        if !call.writes() || seen.dry_run {
            continue;
        }
        if own != seen.acting_as.is_none() || seen.acting_as.as_ref().is_some_and(|name| *name != account) {
            says("written by the wrong account");
        }
        of_write(seen, &mut record).into_iter().for_each(&mut says);
    }
    broken
}

fn role(name: &str) -> BTreeSet<Right> {
    static ROLES: Mutex<BTreeMap<String, BTreeSet<Right>>> = Mutex::new(BTreeMap::new());
    let mut roles = ROLES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = roles.entry(name.to_owned()).or_insert_with(|| {
        let documents = rights::documents("rbac.yaml");
        let is = |object: &&Value| object["kind"] == "ClusterRole" && object["metadata"]["name"] == name;
        rights::rights(documents.iter().find(is).expect("a role"))
    });
    known.clone()
}

fn right(verb: &str, resource: &str) -> Right {
    let (group, resource) = if resource.starts_with("agentreleases") || resource.starts_with("agentenvironments") {
        ("backstay.dev", resource)
    } else {
        match resource.split_once('/') {
            Some((group, resource)) => (group, resource),
            None => ("", resource),
        }
    };
    (group.to_owned(), resource.to_owned(), verb.to_owned())
}
