//! What must hold of each write of a daemon, whatever went wrong.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeSet;

use serde_json::Value;

use crate::proxy::Seen;

/// What is wrong with one write; `record` is that of the agent as it stood, none before one was seen.
pub(crate) fn of_write(seen: &Seen, record: &mut Option<Value>) -> Vec<&'static str> {
    let call = &seen.call;
    let mut wrong = vec![];
    let ours = call.resource.starts_with("agentreleases") || call.resource.starts_with("agentenvironments");
    // The record as it stands, whether its writer ever heard of it or not.
    if call.resource == "agentreleases/status" && seen.code == Some(200) {
        *record = Some(seen.body["status"].clone());
    }
    if ours || call.is_lease() || call.resource.ends_with("/events") {
        let version = seen.body["metadata"]["resourceVersion"].as_str();
        if ours && call.verb != "create" && version.is_none_or(str::is_empty) {
            wrong.push("recorded without the version that was read");
        }
        if ours && call.verb == "delete" {
            wrong.push("the ledger is never deleted");
        }
        return wrong;
    }
    if let Some(record) = &record {
        wrong.extend(unrecorded(record, seen));
    }
    let text = |at: &str| seen.body.pointer(at).and_then(Value::as_str).unwrap_or_default();
    match call.verb.as_str() {
        "delete" if text("/preconditions/uid").is_empty() || text("/preconditions/resourceVersion").is_empty() => {
            wrong.push("deleted without saying exactly what");
        }
        "patch"
            if seen.body.is_object()
                && (text("/metadata/uid").is_empty() || text("/metadata/resourceVersion").is_empty()) =>
        {
            wrong.push("changed without saying exactly what");
        }
        "create" if text("/metadata/annotations/backstay.dev~1operation").is_empty() => {
            wrong.push("made without the mark of its operation");
        }
        _ => {}
    }
    wrong
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
