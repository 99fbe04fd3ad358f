//! What `manifests/` lets its accounts do.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// Group, resource (with its part, as in `agentreleases/status`) and verb.
pub(crate) type Right = (String, String, String);

/// The documents of a file of `manifests/`.
pub(crate) fn documents(file: &str) -> Vec<Value> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests")).join(file);
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
    parsed(&text)
}

/// The documents of a YAML text.
pub(crate) fn parsed(text: &str) -> Vec<Value> {
    serde_yaml::from_multiple(text).expect("YAML")
}

/// Every right of every rule of a role; one that is given twice is a mistake.
pub(crate) fn rights(role: &Value) -> BTreeSet<Right> {
    let texts = |value: &Value| {
        let texts = value.as_array().expect("a list").iter();
        texts.map(|text| text.as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let mut found = BTreeSet::new();
    for rule in role["rules"].as_array().expect("rules") {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    assert!(found.insert((group.clone(), resource.clone(), verb.clone())), "{resource} {verb} twice");
                }
            }
        }
    }
    found
}
