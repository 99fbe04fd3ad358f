//! The shape of the configuration, from its types: what editors complete, and what the reader checks.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Config;

/// The JSON Schema (2020-12) of `backstay.toml`.
///
/// Keys that hold a secret itself are left out: they have no place in the file.
pub fn schema() -> Value {
    let mut schema = shape();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        fields.insert("$id".to_owned(), "https://backstay.dev/schema/v1alpha1/config.json".into());
    }
    drop_secrets(&mut schema);
    schema
}

/// The environment variable of every key, with what it says; `{n}` stands for an index from 0, `{name}` for a name of
/// letters and digits.
pub fn variables() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, leaf) in leaves(&shape()) {
        let description = leaf.get("description").and_then(Value::as_str).unwrap_or_default();
        found.push((variable(&path), description.to_owned()));
    }
    found.sort();
    found
}

/// The schema with the keys that only a variable can set (`writeOnly`), and without `null`, which TOML lacks.
pub(super) fn shape() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    tidy(&mut schema);
    schema
}

/// The path of every key that holds a value, with its schema; `{n}` stands for the index of a list of tables, `{name}` for
/// the name of a table.
pub(super) fn leaves(schema: &Value) -> Vec<(Vec<String>, Value)> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut found);
    found
}

/// The name of the variable for the key at `path`.
pub(super) fn variable(path: &[String]) -> String {
    let words: Vec<String> =
        path.iter().map(|word| if is_open(word) { word.clone() } else { word.to_uppercase() }).collect();
    format!("BACKSTAY_{}", words.join("_"))
}

/// Whether a word of a path stands for any index or name.
pub(super) fn is_open(word: &str) -> bool {
    matches!(word, "{n}" | "{name}")
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Value)>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            path.push(name.clone());
            collect(property, path, found);
            path.pop();
        }
        return;
    }
    if let Some(every) = schema.get("additionalProperties").filter(|every| every.get("properties").is_some()) {
        path.push("{name}".to_owned());
        collect(every, path, found);
        path.pop();
        return;
    }
    match schema.get("items") {
        Some(items) if items.get("properties").is_some() => {
            path.push("{n}".to_owned());
            collect(items, path, found);
            path.pop();
        }
        Some(_) | None => found.push((path.clone(), schema.clone())),
    }
}

/// Takes `null` out of every type, and a `default` of `null` with it.
fn tidy(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = fields.get("type") {
        let kept: Vec<Value> = types.iter().filter(|name| **name != json!("null")).cloned().collect();
        if let [only] = kept.as_slice() {
            fields.insert("type".to_owned(), only.clone());
        }
    }
    if let Some(Value::Array(choices)) = fields.remove("anyOf") {
        let kept: Vec<Value> =
            choices.into_iter().filter(|choice| choice.get("type") != Some(&json!("null"))).collect();
        match <[Value; 1]>::try_from(kept) {
            Ok([Value::Object(only)]) => merge(fields, only),
            Ok(only) => drop(fields.insert("anyOf".to_owned(), Value::Array(only.into()))),
            Err(several) => drop(fields.insert("anyOf".to_owned(), Value::Array(several))),
        }
    }
    if fields.get("default") == Some(&Value::Null) {
        fields.remove("default");
    }
    for (name, value) in fields.iter_mut() {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(tidy),
            ("items" | "additionalProperties", every) => tidy(every),
            (_, _) => {}
        }
    }
}

fn merge(fields: &mut Map<String, Value>, only: Map<String, Value>) {
    for (name, value) in only {
        fields.entry(name).or_insert(value);
    }
}

fn drop_secrets(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.retain(|_, property| property.get("writeOnly") != Some(&json!(true)));
        properties.values_mut().for_each(drop_secrets);
    }
    for every in ["items", "additionalProperties"] {
        if let Some(every) = fields.get_mut(every) {
            drop_secrets(every);
        }
    }
}
