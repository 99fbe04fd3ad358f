//! What stands somewhere, as it can be compared with what stands elsewhere.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

use backstay::render::OPERATION_ANNOTATION;
use regex::Regex;
use serde_json::Value;

/// An object without what is another one in each run.
pub(crate) fn masked(object: &Value, namespace: &str) -> Value {
    static TIME: OnceLock<Regex> = OnceLock::new();
    static UID: OnceLock<Regex> = OnceLock::new();
    let time = TIME.get_or_init(|| Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").expect("a pattern"));
    let uid = UID.get_or_init(|| Regex::new(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").expect("a pattern"));
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
            metadata.remove(field);
        }
        // Named by what it is in, which has a UID.
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove("applyset.kubernetes.io/part-of");
        }
        if let Some(notes) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            notes.remove("deployment.kubernetes.io/revision");
        }
    }
    if object["spec"]["clusterIP"].is_string() {
        for field in ["clusterIP", "clusterIPs"] {
            object["spec"][field] = Value::Null;
        }
    }
    let ours = object["apiVersion"].as_str().is_some_and(|version| version.starts_with("backstay.dev"));
    if ours {
        object["status"]["epoch"] = Value::Null;
        // Who made the record learns its generation at the next look.
        object["status"]["observedGeneration"] = Value::Null;
        for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
            condition["observedGeneration"] = Value::Null;
        }
    } else if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let text = object.to_string().replace(namespace, "NAMESPACE");
    let text = time.replace_all(&text, "TIME");
    serde_json::from_str(&uid.replace_all(&text, "UID")).expect("JSON")
}

/// The same without commits that `is_known` does not know, which are Backstay's own, without the names of pods, and without
/// how long they ran.
pub(crate) fn unnamed(object: &Value, is_known: impl Fn(&str) -> bool) -> Value {
    static COMMIT: OnceLock<Regex> = OnceLock::new();
    static POD: OnceLock<Regex> = OnceLock::new();
    static RAN: OnceLock<Regex> = OnceLock::new();
    let ran = RAN.get_or_init(|| Regex::new(r"\bhas run for \d+ s\b").expect("a pattern"));
    let commit = COMMIT.get_or_init(|| Regex::new(r"\b(?:main@([0-9a-f]{8})|([0-9a-f]{40}))\b").expect("a pattern"));
    let pod = POD.get_or_init(|| Regex::new(r"(--r-[0-9a-f]{12}-)[a-z0-9]+-[a-z0-9]{5}\b").expect("a pattern"));
    let text = object.to_string();
    let text = commit.replace_all(&text, |found: &regex::Captures<'_>| {
        let id = found.get(1).or(found.get(2)).map_or("", |id| id.as_str());
        if is_known(id) { found[0].to_owned() } else { "COMMIT".to_owned() }
    });
    let text = pod.replace_all(&text, "${1}POD");
    serde_json::from_str(&ran.replace_all(&text, "has run")).expect("JSON")
}

/// What a daemon must not leave behind in its folder.
pub(crate) fn leftovers(folder: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ending = name.rsplit('.').next().unwrap_or_default();
            // `tmp` alone is an agent's own.
            let temporary = name.starts_with("tmp_") || name != ending && matches!(ending, "next" | "tmp");
            // Git's own locks; the one lock of the mirror stays a file, and is held by nobody.
            if temporary || ending == "lock" && entry.path().components().any(|part| part.as_os_str() == "refs") {
                found.push(entry.path().display().to_string());
            }
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// In what two states differ, in a few lines.
pub(crate) fn difference(wanted: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Vec<String> {
    let keys: BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    let mut lines = vec![];
    for key in keys {
        match (wanted.get(key), found.get(key)) {
            (Some(_), None) => lines.push(format!("{key} is missing")),
            (None, Some(_)) => lines.push(format!("{key} is too much")),
            (Some(wanted), Some(found)) => fields(key, wanted, found, &mut lines),
            (None, None) => {}
        }
    }
    lines
}

/// In what two values differ.
pub(crate) fn differing(wanted: &Value, found: &Value) -> Vec<String> {
    let mut lines = vec![];
    fields("", wanted, found, &mut lines);
    lines
}

fn fields(at: &str, wanted: &Value, found: &Value, lines: &mut Vec<String>) {
    if wanted == found {
        return;
    }
    match (wanted, found) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                fields(
                    &format!("{at}.{key}"),
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                    lines,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                fields(&format!("{at}[{n}]"), a, b, lines);
            }
        }
        (wanted, found) => {
            let short = |value: &Value| value.to_string().chars().take(200).collect::<String>();
            lines.push(format!("{at}: {} instead of {}", short(found), short(wanted)));
        }
    }
}

/// What serves: all but what the history keeps and the ledger tells of the way.
pub(crate) fn serving(mut state: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    state.retain(|key, _| !key.starts_with("configmaps/") && !key.starts_with("backstay.dev/"));
    // The mark of the operation that made it is of the way, too.
    for object in state.values_mut() {
        if let Some(notes) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            notes.remove(OPERATION_ANNOTATION);
        }
    }
    state
}
