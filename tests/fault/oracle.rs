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
    let mut text = format!(
        "\n{:<14} {:<24} {:>9} {:>9} {:>6} {:>10}\n",
        "promise", "class", "scenarios", "injected", "hit", "violations"
    );
    let mut sum = (0, 0, 0, 0);
    let mut wrong = vec![];
    for ((promise, class), row) in rows.iter() {
        let (scenarios, injected, hit, bad) = (row.scenarios, row.injected, row.hit, row.violations.len());
        text += &format!("{promise:<14} {class:<24} {scenarios:>9} {injected:>9} {hit:>6} {bad:>10}\n");
        sum = (sum.0 + scenarios, sum.1 + injected, sum.2 + hit, sum.3 + bad);
        if promises.contains(promise) {
            wrong.extend(row.violations.iter().map(|violation| format!("{promise}, {class}: {violation}")));
        }
    }
    text += &format!("{:<14} {:<24} {:>9} {:>9} {:>6} {:>10}\n", "all", "", sum.0, sum.1, sum.2, sum.3);
    // Past the harness, which keeps what a passing test prints to itself.
    let _ = std::io::stderr().write_all(text.as_bytes());
    wrong
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
    let mut broken = vec![];
    let account = format!("system:serviceaccount:{namespace}:backstay-development");
    let (daemon, environment) = (role("backstay-daemon"), role("backstay-environment"));
    let mut intent = BTreeSet::new();
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
        if call.resource == "agentreleases/status" && seen.code == Some(200) {
            intent.insert(call.stage);
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
        if !intent.contains(call.stage) {
            says("written before the intent was recorded");
        }
        let text = |at: &str| seen.body.pointer(at).and_then(Value::as_str).unwrap_or_default();
        match call.verb.as_str() {
            "delete" => {
                if text("/preconditions/uid").is_empty() || text("/preconditions/resourceVersion").is_empty() {
                    says("deleted without saying exactly what");
                }
                // A long way is longer than the history.
                let old = call.stage == "kills" && call.resource == "configmaps";
                if call.stage != "remove" && !old {
                    says("deleted what is needed, or what the history keeps");
                }
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
