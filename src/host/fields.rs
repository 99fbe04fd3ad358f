//! Server-side apply: who wrote which fields, and what an application of a manager comes to.
//!
//! As the Kubernetes API has it, with one difference: a list is one field, owned and replaced whole. On a host no
//! admission plugin adds items to lists of ours.

use serde_json::{Map, Value, json};

/// Fields of `metadata` that the server writes.
const SERVER: [&str; 8] =
    ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"];

/// Fields that another manager holds with other values.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contested {
    /// Whose, and where.
    pub(super) fields: Vec<(String, String)>,
}

type Path = Vec<String>;

/// The leaves of an object that somebody can own.
fn leaves(object: &Value) -> Vec<(Path, &Value)> {
    fn walk<'v>(value: &'v Value, path: &mut Path, found: &mut Vec<(Path, &'v Value)>) {
        match value.as_object() {
            Some(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    path.push(key.clone());
                    walk(value, path, found);
                    path.pop();
                }
            }
            _ => found.push((path.clone(), value)),
        }
    }
    let (mut path, mut found) = (vec![], vec![]);
    walk(object, &mut path, &mut found);
    found.retain(|(path, _)| match path.first().map(String::as_str) {
        None | Some("apiVersion" | "kind" | "status") => false,
        Some("metadata") => path.get(1).is_some_and(|field| !SERVER.contains(&field.as_str())),
        Some(_) => true,
    });
    found
}

/// The tree of `FieldsV1` with these leaves.
fn tree<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Value {
    let mut root = Map::new();
    for path in paths {
        let mut at = &mut root;
        for key in path {
            let next = at.entry(format!("f:{key}")).or_insert_with(|| json!({}));
            let Value::Object(inner) = next else { return json!({}) };
            at = inner;
        }
    }
    Value::Object(root)
}

/// The leaves of a tree of `FieldsV1`.
fn paths(tree: &Value) -> Vec<Path> {
    fn walk(tree: &Value, path: &mut Path, found: &mut Vec<Path>) {
        let inner = tree.as_object().into_iter().flatten();
        let mut is_leaf = true;
        for (key, value) in inner {
            let Some(key) = key.strip_prefix("f:") else { continue };
            is_leaf = false;
            path.push(key.to_owned());
            walk(value, path, found);
            path.pop();
        }
        if is_leaf && !path.is_empty() {
            found.push(path.clone());
        }
    }
    let mut found = vec![];
    walk(tree, &mut vec![], &mut found);
    found
}

fn at<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

fn set(object: &mut Value, path: &[String], value: &Value) {
    let Some((last, before)) = path.split_last() else { return };
    let mut here = object;
    for key in before {
        if !here.is_object() {
            *here = json!({});
        }
        let Some(fields) = here.as_object_mut() else { return };
        here = fields.entry(key.clone()).or_insert_with(|| json!({}));
    }
    if !here.is_object() {
        *here = json!({});
    }
    if let Some(fields) = here.as_object_mut() {
        fields.insert(last.clone(), value.clone());
    }
}

/// Takes a field away, and what is empty without it.
fn unset(object: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let Some(fields) = object.as_object_mut() else { return };
    if rest.is_empty() {
        fields.remove(first);
    } else if let Some(inner) = fields.get_mut(first) {
        unset(inner, rest);
        if inner.as_object().is_some_and(Map::is_empty) {
            fields.remove(first);
        }
    }
}

/// Whether a field has this value; an empty map is there wherever a map is.
fn is_there(object: &Value, path: &[String], value: &Value) -> bool {
    let found = at(object, path);
    found == Some(value) || value.as_object().is_some_and(Map::is_empty) && found.is_some_and(Value::is_object)
}

fn text<'e>(entry: &'e Value, field: &str) -> &'e str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn managed(object: &Value) -> Vec<Value> {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn entry(manager: &str, operation: &str, api_version: &str, time: &str, fields: &Value) -> Value {
    json!({
        "manager": manager, "operation": operation, "apiVersion": api_version, "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    })
}

fn put_managed(object: &mut Value, entries: Vec<Value>) {
    let kept =
        entries.into_iter().filter(|entry| entry["fieldsV1"].as_object().is_some_and(|fields| !fields.is_empty()));
    let entries: Vec<Value> = kept.collect();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("managedFields".to_owned(), entries.into());
    }
}

/// An entry without some of its fields.
fn without(mut entry: Value, gone: impl Fn(&Path) -> bool) -> Value {
    let kept: Vec<Path> = paths(&entry["fieldsV1"]).into_iter().filter(|path| !gone(path)).collect();
    entry["fieldsV1"] = tree(&kept);
    entry
}

/// Whether one of two fields is the other, or within it.
fn overlap(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// What the object becomes when `manager` applies `config`: its fields are set, those that it applied before and does
/// not any more are dropped where nobody else holds them.
pub(super) fn applied(
    live: &Value,
    config: &Value,
    manager: &str,
    api_version: &str,
    force: bool,
    time: &str,
) -> Result<Value, Contested> {
    let entries = managed(live);
    let is_ours = |entry: &Value| text(entry, "manager") == manager && text(entry, "operation") == "Apply";
    let ours = entries.iter().find(|entry| is_ours(entry));
    let before = ours.map(|entry| paths(&entry["fieldsV1"])).unwrap_or_default();
    let others: Vec<&Value> = entries.iter().filter(|entry| !is_ours(entry)).collect();
    let wanted = leaves(config);

    let mut contested = vec![];
    for other in &others {
        for held in paths(&other["fieldsV1"]) {
            let differs = |(path, value): &&(Path, &Value)| overlap(path, &held) && !is_there(live, path, value);
            contested.extend(
                wanted.iter().find(differs).map(|(path, _)| (text(other, "manager").to_owned(), path.join("."))),
            );
        }
    }
    if !force && !contested.is_empty() {
        return Err(Contested { fields: contested });
    }

    let mut object = live.clone();
    let held_by_others =
        |path: &Path| others.iter().any(|other| paths(&other["fieldsV1"]).iter().any(|held| overlap(held, path)));
    for path in &before {
        let stays = |(kept, value): &(Path, &Value)| {
            kept.starts_with(path) || path.starts_with(kept) && !value.as_object().is_some_and(Map::is_empty)
        };
        if !wanted.iter().any(stays) && !held_by_others(path) {
            unset(&mut object, path);
        }
    }
    for (path, value) in &wanted {
        if !is_there(&object, path, value) {
            set(&mut object, path, value);
        }
    }
    let taken = |path: &Path| wanted.iter().any(|(mine, value)| overlap(mine, path) && !is_there(live, mine, value));
    let fields = tree(wanted.iter().map(|(path, _)| path));
    // What changes nothing is no write, and has no time of its own.
    let same = ours.filter(|entry| entry["fieldsV1"] == fields && object == *live);
    let time = same.map_or(time, |entry| text(entry, "time"));
    let mut all = vec![entry(manager, "Apply", api_version, time, &fields)];
    all.extend(others.into_iter().cloned().map(|entry| without(entry, taken)));
    put_managed(&mut object, all);
    Ok(object)
}

/// The object with `manager` as the owner of what it changed since `live`, by a creation, an update or a patch.
pub(super) fn updated(live: &Value, mut object: Value, manager: &str, api_version: &str, time: &str) -> Value {
    let now = leaves(&object);
    let changed: Vec<Path> =
        now.iter().filter(|(path, value)| at(live, path) != Some(*value)).map(|(path, _)| path.clone()).collect();
    let gone: Vec<Path> =
        leaves(live).into_iter().map(|(path, _)| path).filter(|path| at(&object, path).is_none()).collect();
    let given = object.pointer("/metadata/managedFields").is_some_and(Value::is_array);
    let entries = if given { managed(&object) } else { managed(live) };
    if changed.is_empty() && gone.is_empty() {
        put_managed(&mut object, entries);
        return object;
    }
    let is_ours = |entry: &Value| text(entry, "manager") == manager && text(entry, "operation") == "Update";
    let mut fields =
        entries.iter().find(|entry| is_ours(entry)).map(|entry| paths(&entry["fieldsV1"])).unwrap_or_default();
    fields.extend(changed.iter().cloned());
    fields.retain(|path| !gone.iter().any(|gone| overlap(path, gone)));
    let lost = |path: &Path| changed.iter().chain(&gone).any(|changed| overlap(path, changed));
    let mut all: Vec<Value> =
        entries.into_iter().filter(|entry| !is_ours(entry)).map(|entry| without(entry, lost)).collect();
    all.push(entry(manager, "Update", api_version, time, &tree(&fields)));
    put_managed(&mut object, all);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-25T03:00:00Z";

    fn made(spec: &Value) -> Value {
        let bare = json!({"metadata": {"name": "a"}});
        updated(&bare, json!({"metadata": {"name": "a"}, "spec": spec}), "backstay", "v1", NOW)
    }

    fn apply(live: &Value, spec: &Value, manager: &str, force: bool) -> Result<Value, Contested> {
        applied(live, &json!({"metadata": {"name": "a"}, "spec": spec}), manager, "v1", force, NOW)
    }

    #[test]
    fn what_is_not_applied_any_more_is_dropped_unless_somebody_else_holds_it() {
        let one =
            apply(&json!({"metadata": {"name": "a"}}), &json!({"a": 1, "b": {"c": 2, "d": [1]}}), "backstay", true);
        let one = one.expect("applied");
        let two = apply(&one, &json!({"a": 1}), "other", false).expect("the same value is no conflict");
        let three = apply(&two, &json!({"b": {"d": [2]}}), "backstay", true).expect("applied");
        assert_eq!(three["spec"], json!({"a": 1, "b": {"d": [2]}}));
        let alone = apply(&three, &json!({}), "other", false).expect("applied");
        assert_eq!(alone["spec"], json!({"b": {"d": [2]}}));
    }

    #[test]
    fn another_managers_value_is_a_conflict_and_taken_by_force() {
        let live = made(&json!({"a": 1}));
        let contested = apply(&live, &json!({"a": 2}), "other", false).expect_err("a conflict");
        assert_eq!(contested.fields, [("backstay".to_owned(), "spec.a".to_owned())]);
        let taken = apply(&live, &json!({"a": 2}), "other", true).expect("by force");
        assert_eq!(taken["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let one = apply(&json!({"metadata": {"name": "a"}}), &json!({"a": 1}), "backstay", true).expect("applied");
        let later = json!({"metadata": {"name": "a"}, "spec": {"a": 1}});
        assert_eq!(applied(&one, &later, "backstay", "v1", true, "2027-01-01T00:00:00Z").expect("applied"), one);
        let mut again = one.clone();
        again["metadata"]["labels"] = json!({"x": "y"});
        let labelled = updated(&one, again, "kubectl", "v1", NOW);
        assert_eq!(
            labelled["metadata"]["managedFields"][1]["fieldsV1"],
            json!({"f:metadata": {"f:labels": {"f:x": {}}}})
        );
    }

    #[test]
    fn a_value_changed_by_hand_is_the_hands() {
        let live =
            apply(&json!({"metadata": {"name": "a"}}), &json!({"a": 1, "b": 1}), "backstay", true).expect("applied");
        let mut by_hand = live.clone();
        by_hand["spec"]["a"] = json!(7);
        let live = updated(&live, by_hand, "kubectl", "v1", NOW);
        let entries = live["metadata"]["managedFields"].as_array().expect("entries");
        assert_eq!(entries[0]["fieldsV1"], json!({"f:spec": {"f:b": {}}}));
        assert_eq!(entries[1]["fieldsV1"], json!({"f:spec": {"f:a": {}}}));
    }
}
