//! Strategic merge over a pod template, as `podTemplate` asks for it.

use serde_json::{Map, Value};

use super::schema::{ListKind, key_default, pod_list_kind};

/// A patch cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {why}")]
pub struct InvalidPatch {
    /// Which field of the patch.
    pub path: String,
    /// Why not.
    pub why: String,
}

/// What runs a probe or a hook: one of these.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Merges `patch` over the pod template `template`.
///
/// The rules are those of Kubernetes' strategic merge patches: `null` removes a field; lists are merged by key where the
/// API has a key (containers, `env` and volumes by name, ports by number and protocol, mounts by path …) and replaced
/// otherwise; `$patch: delete` and `$patch: replace` work on maps, on elements and, as an element, on lists;
/// `$retainKeys` and `$deleteFromPrimitiveList` work too. Where only one of several fields may be set (the source of a
/// volume or of a variable, the handler of a probe or a hook), the patch's replaces the other, which a plain strategic
/// merge leaves to its writer.
///
/// # Errors
///
/// When an element of a keyed list lacks its key, a list or map is expected, or a directive is none of these.
pub fn strategic_merge(template: &mut Value, patch: &Value) -> Result<(), InvalidPatch> {
    let fields = patch.as_object().ok_or_else(|| invalid(&[], "a map with `metadata` and `spec` is expected"))?;
    if let Some(other) = fields.keys().find(|key| !matches!(key.as_str(), "metadata" | "spec" | "$patch")) {
        return Err(invalid(&[other], "a pod template has only `metadata` and `spec`"));
    }
    merge_value(template, patch, &mut Vec::new())
}

fn invalid(place: &[&str], why: impl Into<String>) -> InvalidPatch {
    InvalidPatch { path: place.join("."), why: why.into() }
}

/// How the list at `place` in a pod template is read.
fn kind_of(place: &[&str]) -> ListKind {
    match place {
        ["spec", rest @ ..] => pod_list_kind(rest),
        ["metadata", "finalizers"] => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

fn merge_value<'p>(target: &mut Value, patch: &'p Value, place: &mut Vec<&'p str>) -> Result<(), InvalidPatch> {
    match patch {
        Value::Object(fields) => {
            let mut merged = match target.take() {
                Value::Object(merged) => merged,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
            };
            merge_map(&mut merged, fields, place)?;
            *target = Value::Object(merged);
            Ok(())
        }
        Value::Array(elements) => merge_list(target, elements, place),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *target = patch.clone();
            Ok(())
        }
    }
}

fn merge_map<'p>(
    target: &mut Map<String, Value>,
    patch: &'p Map<String, Value>,
    place: &mut Vec<&'p str>,
) -> Result<(), InvalidPatch> {
    match patch.get("$patch").map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace" | "delete")) => target.clear(),
        Some(_) => return Err(invalid(place, "`$patch` is `replace`, `delete` or `merge`")),
    }
    if let Some(kept) = patch.get("$retainKeys") {
        let kept = kept.as_array().ok_or_else(|| invalid(place, "`$retainKeys` is a list of names"))?;
        target.retain(|key, _| kept.iter().any(|kept| kept.as_str() == Some(key)));
    }
    give_way(target, patch, place);
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().ok_or_else(|| invalid(place, format!("`{key}` is a list")))?;
            if let Some(Value::Array(elements)) = target.get_mut(list) {
                elements.retain(|element| !gone.contains(element));
            }
            continue;
        }
        if matches!(key.as_str(), "$patch" | "$retainKeys") || key.starts_with("$setElementOrder/") {
            continue;
        }
        if key.starts_with('$') {
            return Err(invalid(place, format!("`{key}` is not a directive of a strategic merge")));
        }
        let deletes = value.get("$patch").and_then(Value::as_str) == Some("delete");
        if value.is_null() || deletes {
            target.remove(key);
            continue;
        }
        place.push(key);
        merge_value(target.entry(key.clone()).or_insert(Value::Null), value, place)?;
        place.pop();
    }
    Ok(())
}

/// Removes what cannot stand beside what the patch sets.
fn give_way(target: &mut Map<String, Value>, patch: &Map<String, Value>, place: &[&str]) {
    let sets = |key: &str| patch.get(key).is_some_and(|value| !value.is_null());
    match place {
        [.., "env"] if sets("value") || sets("valueFrom") => {
            target.retain(|key, _| !matches!(key.as_str(), "value" | "valueFrom") || sets(key));
        }
        [.., "env", "valueFrom"] | ["spec", "volumes"] if patch.keys().any(|key| key != "name" && sets(key)) => {
            target.retain(|key, _| key == "name" || sets(key));
        }
        [.., "livenessProbe" | "readinessProbe" | "startupProbe" | "preStop" | "postStart"]
            if HANDLERS.iter().any(|handler| sets(handler)) =>
        {
            target.retain(|key, _| !HANDLERS.contains(&key.as_str()) || sets(key));
        }
        _ => {}
    }
}

fn merge_list<'p>(target: &mut Value, patch: &'p [Value], place: &mut Vec<&'p str>) -> Result<(), InvalidPatch> {
    let keys = match kind_of(place) {
        ListKind::Map(keys) => keys,
        ListKind::Set => {
            let mut merged = target.as_array().cloned().unwrap_or_default();
            merged.extend(patch.iter().filter(|element| !merged.contains(element)).cloned().collect::<Vec<_>>());
            *target = Value::Array(merged);
            return Ok(());
        }
        ListKind::Atomic => {
            *target = Value::Array(patch.iter().map(without_nulls).collect());
            return Ok(());
        }
    };
    let key = keys.first().copied().unwrap_or_default();
    let mut merged = target.as_array().cloned().unwrap_or_default();
    let directive = |element: &Value| element.get("$patch").and_then(Value::as_str).map(str::to_owned);
    for element in patch {
        if element.get(key).is_none() && directive(element).as_deref() == Some("replace") {
            merged.clear();
        }
    }
    for element in patch {
        let Some(fields) = element.as_object() else {
            return Err(invalid(place, format!("an element of this list is a map with `{key}`")));
        };
        if fields.get(key).is_none_or(Value::is_null) {
            if directive(element).as_deref() == Some("replace") && fields.len() == 1 {
                continue;
            }
            return Err(invalid(place, format!("an element lacks `{key}`, by which this list is merged")));
        }
        let at = merged.iter().position(|existing| same_element(existing, element, keys));
        match (directive(element).as_deref(), at) {
            (Some("delete"), Some(at)) => {
                merged.remove(at);
            }
            (Some("delete"), None) => {}
            (_, Some(at)) => merge_value(&mut merged[at], element, place)?,
            (_, None) => {
                let mut added = Value::Object(Map::new());
                merge_value(&mut added, element, place)?;
                merged.push(added);
            }
        }
    }
    *target = Value::Array(merged);
    Ok(())
}

/// Whether an element of a patch means `existing`: key fields that the patch leaves out match any.
fn same_element(existing: &Value, patch: &Value, keys: &[&str]) -> bool {
    keys.iter().all(|key| {
        let of = |element: &Value| element.get(key).cloned().or_else(|| key_default(key).map(Value::from));
        patch.get(key).is_none() || of(existing) == of(patch)
    })
}

/// A copy without fields that are `null`.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect(),
        ),
        Value::Array(elements) => Value::Array(elements.iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"a": "1"}},
            "spec": {
                "containers": [{
                    "name": "agent", "image": "x:1", "command": ["a", "b"],
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                    "ports": [{"containerPort": 8000, "name": "http"}],
                    "livenessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 5},
                    "volumeMounts": [{"name": "files", "mountPath": "/files"}],
                }],
                "volumes": [{"name": "files", "configMap": {"name": "c"}}],
                "tolerations": [{"key": "a"}],
            },
        })
    }

    fn merged(patch: &Value) -> Value {
        let mut target = template();
        strategic_merge(&mut target, patch).expect("a patch");
        target
    }

    fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
        value.pointer(pointer).unwrap_or(&Value::Null)
    }

    #[test]
    fn an_empty_patch_changes_nothing() {
        assert_eq!(merged(&json!({})), template());
        assert_eq!(merged(&json!({"spec": {"containers": [], "volumes": []}})), template());
    }

    #[test]
    fn lists_are_merged_by_key_or_replaced() {
        let out = merged(&json!({"spec": {
            "containers": [
                {"name": "agent", "command": ["c"], "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
                 "ports": [{"containerPort": 8000, "protocol": "TCP", "hostIP": "::"}, {"containerPort": 8000, "protocol": "UDP"}],
                 "volumeMounts": [{"mountPath": "/files", "name": "other"}, {"mountPath": "/tmp", "name": "tmp"}]},
                {"name": "sidecar", "image": "y:1"},
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "imagePullSecrets": [{"name": "pull"}],
            "tolerations": [{"key": "b"}],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["x"]}],
        }}));
        let agent = at(&out, "/spec/containers/0");
        assert_eq!(agent["image"], "x:1");
        assert_eq!(agent["command"], json!(["c"]));
        assert_eq!(
            agent["env"],
            json!([{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}])
        );
        assert_eq!(
            agent["ports"],
            json!([{"containerPort": 8000, "name": "http", "protocol": "TCP", "hostIP": "::"},
                   {"containerPort": 8000, "protocol": "UDP"}])
        );
        assert_eq!(agent["volumeMounts"][0], json!({"name": "other", "mountPath": "/files"}));
        assert_eq!(at(&out, "/spec/containers/1/name"), "sidecar");
        assert_eq!(at(&out, "/spec/tolerations"), &json!([{"key": "b"}]));
        assert_eq!(at(&out, "/spec/volumes/1/name"), "tmp");
    }

    #[test]
    fn directives_delete_and_replace() {
        let out = merged(&json!({"spec": {
            "containers": [{"name": "agent", "livenessProbe": {"$patch": "delete"}, "command": null,
                "env": [{"name": "A", "$patch": "delete"}], "ports": [{"$patch": "replace"}, {"containerPort": 9}]}],
            "volumes": [{"name": "files", "$patch": "replace", "emptyDir": {}}],
        }, "metadata": {"labels": {"$patch": "replace", "b": "2"}}}));
        let agent = at(&out, "/spec/containers/0");
        assert_eq!(agent.get("livenessProbe"), None);
        assert_eq!(agent.get("command"), None);
        assert_eq!(agent["env"], json!([{"name": "B", "value": "2"}]));
        assert_eq!(agent["ports"], json!([{"containerPort": 9}]));
        assert_eq!(at(&out, "/spec/volumes"), &json!([{"name": "files", "emptyDir": {}}]));
        assert_eq!(at(&out, "/metadata/labels"), &json!({"b": "2"}));
        let out = merged(
            &json!({"spec": {"$retainKeys": ["containers"], "containers": [{"name": "gone", "$patch": "delete"}]}}),
        );
        assert_eq!(at(&out, "/spec").as_object().map(Map::len), Some(1));
    }

    #[test]
    fn one_of_several_gives_way() {
        let out = merged(&json!({"spec": {
            "containers": [{"name": "agent",
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"exec": {"command": ["true"]}}}],
            "volumes": [{"name": "files", "secret": {"secretName": "s"}}],
        }}));
        let agent = at(&out, "/spec/containers/0");
        assert_eq!(agent["env"][0], json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}));
        assert_eq!(agent["livenessProbe"], json!({"exec": {"command": ["true"]}, "periodSeconds": 5}));
        assert_eq!(at(&out, "/spec/volumes/0"), &json!({"name": "files", "secret": {"secretName": "s"}}));
    }

    #[test]
    fn what_cannot_be_merged_is_refused() {
        for (patch, path) in [
            (json!([]), ""),
            (json!({"containers": []}), "containers"),
            (json!({"spec": {"containers": [{"image": "x"}]}}), "spec.containers"),
            (json!({"spec": {"containers": ["agent"]}}), "spec.containers"),
            (json!({"spec": {"$patch": "remove"}}), "spec"),
            (json!({"spec": {"$delete": 1}}), "spec"),
            (json!({"spec": {"$retainKeys": "x"}}), "spec"),
            (json!({"spec": {"$deleteFromPrimitiveList/x": "x"}}), "spec"),
        ] {
            let refused = strategic_merge(&mut template(), &patch).expect_err("refused");
            assert_eq!(refused.path, path, "{refused}");
        }
    }

    #[test]
    fn elements_of_a_primitive_list_can_go() {
        let mut target = json!({"metadata": {"finalizers": ["a", "b"]}});
        strategic_merge(
            &mut target,
            &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["b", "c"]}}),
        )
        .expect("a patch");
        assert_eq!(target, json!({"metadata": {"finalizers": ["b", "c"]}}));
    }
}
