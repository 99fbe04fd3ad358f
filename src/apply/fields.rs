//! Who owns which fields: `managedFields` rewritten, so that a server-side apply can drop what it no longer says.

use serde_json::{Map, Value, json};

/// Whose fields become ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// Those that we wrote by a creation.
    Own,
    /// Those, and what kubectl and Helm wrote.
    Tools,
    /// What anybody wrote into those items of ours that hold one of several kinds of thing: a variable, a volume, a probe.
    Unions,
}

/// `managedFields` in which the fields of `take` are ours by apply; nothing when that changes nothing.
///
/// Fields in another version of the API than `api_version` cannot be carried over: nobody owns them afterwards.
pub(super) fn taken_over(entries: &[Value], take: Take, manager: &str, api_version: &str) -> Option<Vec<Value>> {
    let is_ours = |entry: &Value| text(entry, "manager") == manager && text(entry, "operation") == "Apply";
    if take == Take::Unions {
        let own = taken_over(entries, Take::Own, manager, api_version).unwrap_or_else(|| entries.to_vec());
        let (ours, others) = own.into_iter().partition::<Vec<_>, _>(is_ours);
        return unions(ours.into_iter().next()?, others);
    }
    let gives = |entry: &&Value| {
        let whole = text(entry, "subresource").is_empty();
        let name = text(entry, "manager");
        whole
            && match take {
                Take::Own => name == manager && text(entry, "operation") == "Update",
                Take::Tools => name == manager && text(entry, "operation") == "Update" || is_tool(name),
                Take::Unions => false,
            }
    };
    let giving: Vec<_> = entries.iter().filter(gives).collect();
    if giving.is_empty() {
        return None;
    }
    let mut fields = Map::new();
    let mut time = None;
    let same = |entry: &&Value| text(entry, "apiVersion") == api_version;
    for entry in entries.iter().filter(|entry| is_ours(entry)).chain(giving.iter().copied()).filter(same) {
        if let Some(more) = entry.get("fieldsV1").and_then(Value::as_object) {
            unite(&mut fields, more);
        }
        // RFC 3339 in UTC, so that texts compare as times do.
        time = time.max(entry.get("time").and_then(Value::as_str));
    }
    let mut ours = json!({
        "manager": manager, "operation": "Apply", "apiVersion": api_version, "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    });
    if let (Some(time), Some(ours)) = (time, ours.as_object_mut()) {
        ours.insert("time".to_owned(), time.into());
    }
    let left = entries.iter().filter(|entry| !is_ours(entry) && !gives(entry)).cloned();
    Some(std::iter::once(ours).chain(left).collect())
}

/// The same with what `others` have in unions of `ours`.
fn unions(mut ours: Value, mut others: Vec<Value>) -> Option<Vec<Value>> {
    let version = text(&ours, "apiVersion").to_owned();
    let held = ours.get_mut("fieldsV1")?.as_object_mut()?;
    let mut moved = false;
    for other in others.iter_mut().filter(|other| text(other, "apiVersion") == version) {
        if let Some(fields) = other.get_mut("fieldsV1").and_then(Value::as_object_mut) {
            moved |= move_unions(held, fields, false);
        }
    }
    moved.then(|| std::iter::once(ours).chain(others).collect())
}

/// Moves what is within unions that both trees have; whether there was any. `items`: the keys here are items of a list
/// whose items are unions.
fn move_unions(ours: &mut Map<String, Value>, theirs: &mut Map<String, Value>, items: bool) -> bool {
    let mut moved = false;
    for (key, theirs) in theirs {
        let (Some(ours), Some(theirs)) = (ours.get_mut(key).and_then(Value::as_object_mut), theirs.as_object_mut())
        else {
            continue;
        };
        let probe = ["f:livenessProbe", "f:readinessProbe", "f:startupProbe"].contains(&key.as_str());
        if probe || items && key.starts_with("k:") {
            moved |= !theirs.is_empty();
            unite(ours, theirs);
            theirs.clear();
        } else {
            moved |= move_unions(ours, theirs, ["f:env", "f:volumes"].contains(&key.as_str()));
        }
    }
    moved
}

/// Managers of people's tools whose fields an adoption takes over.
fn is_tool(manager: &str) -> bool {
    manager == "kubectl" || manager.starts_with("kubectl-") || manager == "helm" || manager == "Helm"
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The union of two sets of fields, which are trees of `f:`, `k:` and `v:` keys.
fn unite(into: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (key, value) in more {
        match (into.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
            (Some(held), Some(inner)) => unite(held, inner),
            (_, _) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, api_version: &str, fields: &Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": api_version, "fieldsType": "FieldsV1",
            "fieldsV1": fields, "time": "2026-11-24T10:00:00Z"})
    }

    #[test]
    fn our_creation_becomes_an_apply() {
        let managed = [
            entry("backstay", "Update", "v1", &json!({"f:data": {"f:a": {}, "f:b": {}}})),
            entry("backstay", "Apply", "v1", &json!({"f:data": {".": {}, "f:b": {}, "f:c": {}}})),
            entry("kubectl-edit", "Update", "v1", &json!({"f:data": {"f:d": {}}})),
        ];
        let rewritten = taken_over(&managed, Take::Own, "backstay", "v1").expect("something to do");
        assert_eq!(rewritten.len(), 2);
        assert_eq!(rewritten[0]["operation"], "Apply");
        assert_eq!(rewritten[0]["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}}}));
        assert_eq!(rewritten[1], managed[2]);
        assert_eq!(taken_over(&rewritten, Take::Own, "backstay", "v1"), None);
    }

    #[test]
    fn what_others_wrote_into_our_variable_becomes_ours() {
        let within = |env: Value| json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:env": env}}}});
        let ours = json!({"k:{\"name\":\"A\"}": {".": {}, "f:name": {}}});
        let theirs = json!({"k:{\"name\":\"A\"}": {"f:value": {}}, "k:{\"name\":\"B\"}": {"f:value": {}}});
        let managed = [
            entry("kubectl-set", "Update", "apps/v1", &within(theirs)),
            entry("backstay", "Update", "apps/v1", &within(ours)),
        ];
        let rewritten = taken_over(&managed, Take::Unions, "backstay", "apps/v1").expect("something to do");
        let ours = json!({"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}});
        assert_eq!(rewritten[0]["fieldsV1"], within(ours));
        let left = json!({"k:{\"name\":\"A\"}": {}, "k:{\"name\":\"B\"}": {"f:value": {}}});
        assert_eq!(rewritten[1]["fieldsV1"], within(left));
        assert_eq!(taken_over(&rewritten, Take::Unions, "backstay", "apps/v1"), None);
    }

    #[test]
    fn an_adoption_takes_what_tools_wrote_and_leaves_controllers_theirs() {
        let mut status = entry("kubectl-edit", "Update", "apps/v1", &json!({"f:status": {}}));
        status["subresource"] = "status".into();
        let managed = [
            entry("kubectl-client-side-apply", "Update", "apps/v1", &json!({"f:spec": {"f:replicas": {}}})),
            entry("helm", "Update", "apps/v1", &json!({"f:spec": {"f:paused": {}}})),
            entry("kubectl-create", "Update", "apps/v1beta1", &json!({"f:spec": {"f:old": {}}})),
            entry("kube-controller-manager", "Update", "apps/v1", &json!({"f:metadata": {}})),
            status,
        ];
        let rewritten = taken_over(&managed, Take::Tools, "backstay", "apps/v1").expect("something to do");
        assert_eq!(rewritten.len(), 3);
        assert_eq!(rewritten[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}));
        assert_eq!(rewritten[1..], managed[3..]);
    }
}
