//! The custom resources that hold the ledger, generated from the types of `record`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::record::{AgentRecord, EnvironmentRecord, EnvironmentRequests, Requests};

/// The API group of the ledger.
pub const GROUP: &str = "backstay.dev";
/// The version of the ledger's API.
pub const VERSION: &str = "v1alpha1";

/// Keeps what a newer version wrote, and takes what a schema cannot say.
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// The definitions of `AgentRelease` and `AgentEnvironment`, as `manifests/crds.yaml` has them.
///
/// # Guarantees
///
/// Unknown fields of a status are kept; an unknown request in a `spec` is refused under strict validation. No value is
/// filled in by the server.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    let agent = definition(
        &Names { kind: "AgentRelease", plural: "agentreleases", singular: "agentrelease", short: "ar" },
        "What is remembered of one agent in one environment, and what people ask of it.",
        &schema::<Requests>("What people ask: one field for each kind of request.", false),
        &schema::<AgentRecord>("The record: written by the daemon alone.", true),
        &[
            ("Phase", "string", ".status.phase", 0),
            ("Ready", "string", ready, 0),
            ("Release", "string", ".status.shown.release", 0),
            ("Revision", "string", ".status.shown.revision", 0),
            ("Operation", "string", ".status.shown.operation", 0),
            ("Message", "string", ".status.conditions[?(@.type==\"Ready\")].message", 1),
            ("Age", "date", ".metadata.creationTimestamp", 0),
        ],
    );
    let environment = definition(
        &Names { kind: "AgentEnvironment", plural: "agentenvironments", singular: "agentenvironment", short: "ae" },
        "What is remembered of one environment, and what people ask of it.",
        &schema::<EnvironmentRequests>("What people ask: one field for each kind of request.", false),
        &schema::<EnvironmentRecord>("The record: written by the daemon alone.", true),
        &[
            ("Ready", "string", ready, 0),
            ("Revision", "string", ".status.shown.revision", 0),
            ("Installation", "string", ".status.installation", 1),
            ("Epoch", "integer", ".status.epoch", 1),
            ("Age", "date", ".metadata.creationTimestamp", 0),
        ],
    );
    [agent, environment].into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect()
}

/// How a kind is called.
struct Names {
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static str,
}

fn definition(names: &Names, about: &str, spec: &Value, status: &Value, columns: &[(&str, &str, &str, i32)]) -> Value {
    let columns: Vec<_> = columns
        .iter()
        .map(|(name, kind, path, priority)| match priority {
            0 => json!({"name": name, "type": kind, "jsonPath": path}),
            priority => json!({"name": name, "type": kind, "jsonPath": path, "priority": priority}),
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{GROUP}", names.plural),
            "labels": {"app.kubernetes.io/name": "backstay", "app.kubernetes.io/part-of": "backstay"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.kind, "listKind": format!("{}List", names.kind), "plural": names.plural,
                "singular": names.singular, "shortNames": [names.short], "categories": ["backstay"],
            },
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "description": about, "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                        "spec": spec, "status": status,
                    },
                }},
            }],
        },
    })
}

/// The schema of `T` as Kubernetes wants it; `open`: fields that it does not name are kept.
fn schema<T: JsonSchema>(about: &str, open: bool) -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generated = settings.into_generator().into_root_schema_for::<T>().to_value();
    let mut schema = structural(&generated, open);
    schema["description"] = about.into();
    schema
}

/// Rewrites a JSON Schema to a structural one: no `oneOf`, no null types, no defaults, only formats that are known.
fn structural(schema: &Value, open: bool) -> Value {
    let Some(fields) = schema.as_object() else {
        // `true`: anything.
        return json!({PRESERVE: true});
    };
    let about = fields.get("description").and_then(Value::as_str).map(without_links);
    let mut out = match alternatives(fields) {
        Some(alternatives) => either(&alternatives, open),
        None => plain(fields, open),
    };
    if let (Some(about), Some(out)) = (about, out.as_object_mut()) {
        out.insert("description".to_owned(), about.into());
    }
    out
}

/// A doc comment without links to code: what is in brackets goes, and the words stay.
fn without_links(about: &str) -> String {
    let mut out = String::new();
    let mut rest = about;
    while let Some((before, link)) = rest.split_once("[`") {
        let (name, after) = link.split_once("`]").unwrap_or((link, ""));
        out.extend([before, "`", name, "`"]);
        rest = match after.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    out + rest
}

/// The branches of a `oneOf` or `anyOf`.
fn alternatives(fields: &Map<String, Value>) -> Option<Vec<&Value>> {
    ["oneOf", "anyOf"].iter().find_map(|key| fields.get(*key)?.as_array()).map(|branches| branches.iter().collect())
}

fn either(branches: &[&Value], open: bool) -> Value {
    let is_null = |branch: &&&Value| branch.get("type").and_then(Value::as_str) == Some("null");
    let nullable = branches.iter().any(|branch| is_null(&branch));
    let rest: Vec<_> = branches.iter().filter(|branch| !is_null(branch)).collect();
    let words: Option<Vec<_>> = rest
        .iter()
        .map(|branch| match (branch.get("const"), branch.get("enum").and_then(Value::as_array)) {
            (Some(word), _) if word.is_string() => Some(vec![word.clone()]),
            (_, Some(words)) if words.iter().all(Value::is_string) => Some(words.clone()),
            (_, _) => None,
        })
        .collect();
    let mut out = match (rest.as_slice(), words) {
        (_, Some(words)) => json!({"type": "string", "enum": words.concat()}),
        ([only], None) => structural(only, open),
        // Words and objects mixed: the type itself checks them.
        (_, None) => json!({PRESERVE: true}),
    };
    if nullable {
        out["nullable"] = true.into();
    }
    out
}

fn plain(fields: &Map<String, Value>, open: bool) -> Value {
    let mut out = Map::new();
    let mut nullable = false;
    for (key, value) in fields {
        match key.as_str() {
            "type" => {
                let kind = match value.as_array() {
                    Some(kinds) => {
                        nullable = kinds.iter().any(|kind| kind == "null");
                        kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_else(|| "object".into())
                    }
                    None => value.clone(),
                };
                out.insert(key.clone(), kind);
            }
            "properties" => {
                let properties = value.as_object().into_iter().flatten();
                let properties = properties.map(|(name, inner)| (name.clone(), structural(inner, open)));
                out.insert(key.clone(), Value::Object(properties.collect()));
            }
            "items" => {
                out.insert(key.clone(), structural(value, open));
            }
            "additionalProperties" if value.is_object() => {
                out.insert(key.clone(), structural(value, open));
            }
            "format" => match value.as_str() {
                Some("uint32" | "uint64" | "int64") => {
                    out.insert(key.clone(), "int64".into());
                }
                Some("int32") => {
                    out.insert(key.clone(), "int32".into());
                }
                Some(_) | None => {}
            },
            "const" => {
                out.insert("enum".to_owned(), json!([value]));
                out.insert("type".to_owned(), "string".into());
            }
            "enum" | "minimum" | "maximum" | "minLength" | "maxLength" | "minItems" | "maxItems" | "pattern"
            | "required" => {
                out.insert(key.clone(), value.clone());
            }
            // Defaults would be filled in by the server; titles and the rest say nothing to it.
            _ => {}
        }
    }
    if out.is_empty() {
        out.insert(PRESERVE.to_owned(), true.into());
    }
    // What a person writes is carried into records, which are bounded.
    if !open && out.get("type").is_some_and(|kind| kind == "string") && !out.contains_key("enum") {
        out.insert("maxLength".to_owned(), 1024.into());
    }
    let is_record = out.contains_key("properties") && !out.contains_key("additionalProperties");
    if open && is_record {
        out.insert(PRESERVE.to_owned(), true.into());
    }
    if nullable {
        out.insert("nullable".to_owned(), true.into());
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `manifests/crds.yaml`, as it is written by `BLESS=1 cargo test --lib ledger::crd`.
    fn written() -> String {
        let head = "# Written by `BLESS=1 cargo test --lib ledger::crd` from the types in src/record: do not edit.\n";
        let mut out = head.to_owned();
        for crd in crds() {
            let mut value = serde_json::to_value(&crd).expect("JSON");
            value.as_object_mut().expect("an object").remove("status");
            out.push_str("---\n");
            out.push_str(&serde_yaml::to_string(&value).expect("YAML"));
        }
        out
    }

    #[test]
    fn the_manifest_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/crds.yaml");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, written()).expect("written");
        }
        let held = std::fs::read_to_string(path).unwrap_or_default();
        assert!(held == written(), "manifests/crds.yaml is not what src/record says: run it again with BLESS=1");
    }

    #[test]
    fn nothing_in_them_is_unstructural() {
        fn check(schema: &Value, path: &str) {
            for refused in ["oneOf", "anyOf", "allOf", "$ref", "default", "title", "const", "definitions"] {
                assert!(path.ends_with("/properties") || schema.get(refused).is_none(), "{path}: {refused}");
            }
            for (key, inner) in schema.as_object().into_iter().flatten() {
                check(inner, &format!("{path}/{key}"));
            }
        }
        assert_eq!(crds().len(), 2);
        for crd in crds() {
            let schema = crd.spec.versions[0].schema.clone().and_then(|schema| schema.open_api_v3_schema);
            let schema = serde_json::to_value(schema.expect("a schema")).expect("JSON");
            check(&schema, &crd.spec.names.kind);
            assert_eq!(schema["properties"]["status"][PRESERVE], true);
            assert_eq!(schema["properties"]["spec"].get(PRESERVE), None);
        }
    }
}
