//! What records say while the database is not written: the daemon's last word is old, and whoever asks is told so.

use serde_json::{Value, json};

use crate::ledger::GROUP;

/// Puts into every record of an answer, one object or a list, that nothing is written and why, since `since`.
pub(super) fn tell(answer: &mut Value, why: &str, since: &str) {
    if let Some(items) = answer.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(|item| tell(item, why, since));
        return;
    }
    let group = answer.get("apiVersion").and_then(Value::as_str).and_then(|version| version.split_once('/'));
    if group.is_none_or(|(group, _)| group != GROUP) {
        return;
    }
    let Some(conditions) = answer.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    conditions.retain(|condition| condition["type"] != "Ready" && condition["type"] != "Stalled");
    let condition = |kind: &str, status: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": "ReadOnly", "message": message, "lastTransitionTime": since,
        })
    };
    let stalled = format!("nothing is decided or written on this host, and what runs goes on: {why}");
    conditions.push(condition("Ready", "Unknown", "what is said here is the last that was written"));
    conditions.push(condition("Stalled", "True", &stalled));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_of_and_nothing_else_is() {
        let ready = json!([{"type": "Ready", "status": "True"}, {"type": "Contested", "status": "False"}]);
        let object = |version: &str| json!({"apiVersion": version, "status": {"conditions": ready}});
        let record = object(&format!("{GROUP}/v1alpha1"));
        let mut list = json!({"items": [record, object("apps/v1")]});
        tell(&mut list, "it is locked", "2026-01-02T03:04:05Z");
        let kinds: Vec<_> = list["items"][0]["status"]["conditions"].as_array().expect("a list").iter().collect();
        let said: Vec<_> = kinds.iter().map(|one| format!("{}={}", one["type"], one["status"])).collect();
        assert_eq!(said, [r#""Contested"="False""#, r#""Ready"="Unknown""#, r#""Stalled"="True""#]);
        assert!(kinds[2]["message"].as_str().is_some_and(|text| text.ends_with("it is locked")));
        assert_eq!(list["items"][1], object("apps/v1"));
    }
}
