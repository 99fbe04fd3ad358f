//! What the formats allow and a target does not do: refused with a clear word, never ignored.

use super::TargetKind;
use super::read::Node;
use crate::model::Diagnostic;

/// Refuses what an agent's `spec` asks for in vain.
pub(super) fn refuse_agent(spec: &Node, target: Option<TargetKind>, found: &mut Vec<Diagnostic>) {
    if target != Some(TargetKind::Kubernetes) {
        return;
    }
    if let Some(field) = spec.field("drain") {
        let error = field.spot.error("`drain` is not delivered by this version");
        found.push(error.hint("take it away until a version delivers it"));
    }
    if let Some(field) = spec.get("code").and_then(|code| code.field("artifact")) {
        let error = field.spot.error("`code.artifact` is for a host, and this environment runs on Kubernetes");
        found.push(error.hint("an overlay takes it away here: `code: {artifact: null}`"));
    }
}
