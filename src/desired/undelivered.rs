//! What the formats allow and this version does not do: refused with a clear word, never ignored.

use super::TargetKind;
use super::read::{Field, Node};
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
    let strategies = spec.get("rollout").and_then(|rollout| rollout.get("strategy")).map(Node::fields);
    for strategy in strategies.unwrap_or_default() {
        let what = format!("rollout.strategy.{}", strategy.key);
        if target == Some(TargetKind::Kubernetes) && strategy.key != "rolling" {
            refuse(strategy, &format!("{what} on Kubernetes"), found);
        }
    }
}
