//! What must hold whatever went wrong, and the table of what was tried.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Mutex, Once, PoisonError};

use serde_json::Value;

use crate::proxy::Seen;
use crate::rights::{self, Right};

/// What was tried for one promise, by one class of fault.
#[derive(Default, Clone)]
struct Row {
    scenarios: usize,
    injected: usize,
    hit: usize,
    violations: Vec<String>,
}

static ROWS: Mutex<BTreeMap<(&'static str, String), Row>> = Mutex::new(BTreeMap::new());
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes one run of one scenario.
pub(crate) fn note(promise: &'static str, class: &str, injected: usize, hit: usize, violations: Vec<String>) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let row = rows.entry((promise, class.to_owned())).or_default();
    row.scenarios += 1;
    row.injected += injected;
    row.hit += hit;
    row.violations.extend(violations);
}

/// Prints all that was tried so far; the last one to be printed is the whole. Gives the violations of `promises`.
pub(crate) fn table(promises: &[&str]) -> Vec<String> {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut by_promise = BTreeMap::<&str, Row>::new();
    let (mut classes, mut all) = (String::new(), Row::default());
    let mut wrong = vec![];
    for ((promises_of, class), row) in rows.iter() {
        promises_of.split(", ").for_each(|promise| by_promise.entry(promise).or_default().add(row));
        all.add(row);
        classes += &row.line(class, promises_of);
        if promises_of.split(", ").any(|promise| promises.contains(&promise)) {
            wrong.extend(row.violations.iter().map(|violation| format!("{promises_of}, {class}: {violation}")));
        }
    }
    let mut text =
        format!("\n{:<24} {:>9} {:>9} {:>6} {:>10}\n", "promise", "scenarios", "injected", "hit", "violations");
    by_promise.iter().for_each(|(promise, row)| text += &row.line(promise, ""));
    text += &all.line("all of them, once each", "");
    text += &format!("{:<24}\n{classes}", "class");
    // Past the harness, which keeps what a passing test prints to itself.
    let _ = std::io::stderr().write_all(text.as_bytes());
    wrong
}

// === impl Row ===

impl Row {
    fn add(&mut self, other: &Self) {
        self.scenarios += other.scenarios;
        self.injected += other.injected;
        self.hit += other.hit;
        self.violations.extend(other.violations.iter().cloned());
    }

    fn line(&self, name: &str, after: &str) -> String {
        let (scenarios, injected, hit, bad) = (self.scenarios, self.injected, self.hit, self.violations.len());
        format!("{name:<24} {scenarios:>9} {injected:>9} {hit:>6} {bad:>10}  {after}\n")
    }
}

/// How much of what was injected for `promises` was met.
pub(crate) fn hits(promises: &[&str]) -> (usize, usize) {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let of = rows.iter().filter(|((of, _), _)| of.split(", ").any(|promise| promises.contains(&promise)));
    of.fold((0, 0), |(injected, hit), (_, row)| (injected + row.injected, hit + row.hit))
}

/// From now on a panic of our own code is kept, whatever thread it ends.
pub(crate) fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(place) = info.location().filter(|place| place.file().starts_with("src/")) {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(format!("a panic at {place}: {info}"));
            }
            before(info);
        }));
    });
}

/// Panics of our own code since the last call.
pub(crate) fn panics() -> Vec<String> {
    std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner))
}

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
        // The record as it stands, whether its writer ever heard of it or not.
        if call.resource == "agentreleases/status" && seen.code == Some(200) {
            record = Some(seen.body["status"].clone());
        }
        if own {
            if ours
                && call.verb != "create"
                && seen.body["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty)
            {
                says("recorded without the version that was read");
            }
            if ours && call.verb == "delete" {
                says("the ledger is never deleted");
            }
            continue;
        }
        if let Some(record) = &record {
            unrecorded(record, seen).into_iter().for_each(&mut says);
        }
        let text = |at: &str| seen.body.pointer(at).and_then(Value::as_str).unwrap_or_default();
        match call.verb.as_str() {
            "delete" if text("/preconditions/uid").is_empty() || text("/preconditions/resourceVersion").is_empty() => {
                says("deleted without saying exactly what");
            }
            "patch"
                if seen.body.is_object()
                    && (text("/metadata/uid").is_empty() || text("/metadata/resourceVersion").is_empty()) =>
            {
                says("changed without saying exactly what");
            }
            "create" if text("/metadata/annotations/backstay.dev~1operation").is_empty() => {
                says("made without the mark of its operation");
            }
            _ => {}
        }
    }
    broken
}

/// What is wrong with a write by the record that stood when it was made: a write follows the record that says why, which
/// may be of an earlier stage where it heals what somebody broke.
fn unrecorded(record: &Value, seen: &Seen) -> Vec<&'static str> {
    let mut wrong = vec![];
    let (open, stable) = (&record["operation"], &record["stable"]);
    if open.is_null() && stable.is_null() {
        return vec!["written, and no record says why"];
    }
    let removal = open["kind"] == "Removal";
    // A rollout keeps both its releases as they shall be; of the one that loses, everything goes.
    let rolls = record["rollout"].is_object();
    let short = |standing: &Value| {
        let digest = standing["release"].as_str().unwrap_or_default();
        format!("r-{}", digest.get(..12).unwrap_or_default())
    };
    let call = &seen.call;
    if call.verb == "delete" {
        let uid = &seen.body["preconditions"]["uid"];
        let owned = record["inventory"].as_array().into_iter().flatten().find(|owned| owned["uid"] == *uid);
        match owned {
            None => wrong.push("deleted though the inventory does not have it"),
            // But for a removal, only files of releases go that neither run nor are kept to go back to.
            Some(owned) if !removal => {
                let history = record["history"].as_array().into_iter().flatten();
                let mut kept: Vec<_> = history.map(short).collect();
                let named = |id: &String| owned["name"].as_str().is_some_and(|name| name.ends_with(id.as_str()));
                let phase = &record["rollout"]["state"]["phase"];
                let done = phase["done"].is_object();
                let mut needed = vec![];
                if !rolls || !done {
                    needed.push(short(stable));
                }
                if !rolls || !(phase["aborting"].is_object() || phase["aborted"].is_object()) {
                    needed.push(short(&record["candidate"]));
                }
                let of_set = needed.iter().any(named);
                // The files of what was stable stay, to go back to.
                kept.extend([short(stable), short(&record["candidate"])].into_iter().filter(|_| !rolls || done));
                let files = owned["kind"] == "ConfigMap";
                let a_set = owned["name"].as_str().is_some_and(|name| name.contains("--"));
                if !(files || a_set) || of_set || files && kept.iter().any(named) {
                    wrong.push("deleted what is needed, or what the history keeps");
                }
            }
            Some(_) => {}
        }
        return wrong;
    }
    if removal {
        wrong.push("written while the record removes the agent");
    }
    if call.verb == "create" {
        let mark = seen.body.pointer("/metadata/annotations/backstay.dev~1operation").and_then(Value::as_str);
        let number = mark.and_then(|mark| mark.rsplit('/').next()).unwrap_or_default();
        let newest = if open.is_null() { &record["operations"][0]["id"] } else { &open["id"] };
        if newest.as_u64().is_none_or(|newest| number.parse() != Ok(newest)) {
            wrong.push("made with the mark of another operation than the record has");
        }
        // Else who restarts when another commit has come cannot know that it is ours.
        let is = |known: &Value| known["kind"] == seen.body["kind"] && known["name"] == seen.body["metadata"]["name"];
        let known = |list: &str| record[list].as_array().into_iter().flatten().any(is);
        if !known("making") && !known("inventory") {
            wrong.push("made before its name was recorded");
        }
    }
    let release = seen.body.pointer("/spec/template/metadata/labels/backstay.dev~1release").and_then(Value::as_str);
    let meant = short(if open.is_null() { stable } else { &record["candidate"] });
    let other = rolls.then(|| short(stable));
    let is_meant = |release: &str| release == meant || other.as_deref() == Some(release);
    if call.resource == "apps/deployments" && release.is_some_and(|release| !is_meant(release)) {
        wrong.push("sent to another release than the record means");
    }
    let left = record["quarantine"].as_array().into_iter().flatten().map(short);
    if call.resource == "apps/deployments" && left.into_iter().any(|left| release == Some(left.as_str())) {
        wrong.push("D9: sent to a release that is in quarantine");
    }
    wrong
}

/// Whether each object that a release has parts in is of one release: a mix has two.
pub(crate) fn mixes(log: &[Seen]) -> Vec<String> {
    let ids = regex::Regex::new(r"r-[0-9a-f]{12}\b|support-[0-9a-f]{12}\b").expect("a pattern");
    let mut mixed = vec![];
    for seen in log.iter().filter(|seen| seen.call.writes() && seen.call.resource == "apps/deployments") {
        let text = seen.body["spec"]["template"].to_string();
        let found: BTreeSet<_> =
            ids.find_iter(&text).map(|id| id.as_str().rsplit('-').next().unwrap_or_default().to_owned()).collect();
        if found.len() > 1 {
            mixed.push(format!("a mix of {found:?}: {}", seen.call));
        }
    }
    mixed
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
