//! What the formats allow and this version does not do: refused with a clear word, never ignored.

use super::TargetKind;
use super::read::{Field, Kind, Node};
use crate::model::Diagnostic;

const HINT: &str = "take it away until a version delivers it";

fn refuse(field: &Field, what: &str, found: &mut Vec<Diagnostic>) {
    found.push(field.spot.error(format!("`{what}` is not delivered by this version")).hint(HINT));
}

/// Refuses what an agent's `spec` asks for in vain.
pub(super) fn refuse_agent(spec: &Node, target: Option<TargetKind>, found: &mut Vec<Diagnostic>) {
    if target == Some(TargetKind::Kubernetes) {
        for key in ["route", "drain"] {
            if let Some(field) = spec.field(key) {
                refuse(field, key, found);
            }
        }
        if let Some(field) = spec.get("code").and_then(|code| code.field("artifact")) {
            let error = field.spot.error("`code.artifact` is for a host, and this environment runs on Kubernetes");
            found.push(error.hint("an overlay takes it away here: `code: {artifact: null}`"));
        }
    }
    for field in spec.get("rollout").map(Node::fields).unwrap_or_default() {
        if field.key != "strategy" {
            refuse(field, &format!("rollout.{}", field.key), found);
            continue;
        }
        for strategy in
            field.value.fields().iter().filter(|strategy| ["canary", "blueGreen", "abTest"].contains(&&*strategy.key))
        {
            refuse(strategy, &format!("rollout.strategy.{}", strategy.key), found);
        }
    }
}

/// Refuses what an environment's `spec` asks for in vain.
pub(super) fn refuse_environment(spec: &Node, found: &mut Vec<Diagnostic>) {
    for key in ["waves", "freezes"] {
        let empty = |field: &&Field| !matches!(&field.value.kind, Kind::List(items) if items.is_empty());
        if let Some(field) = spec.field(key).filter(empty) {
            refuse(field, key, found);
        }
    }
    if let Some(field) = spec.get("approvals").and_then(|approvals| approvals.field("required"))
        && field.value.to_value().as_u64().is_some_and(|required| required > 0)
    {
        refuse(field, "approvals", found);
    }
}
