//! What people may want to know, as Kubernetes Events on the agent's `AgentRelease`.

use http::Method;
use serde_json::json;

use super::crd::{GROUP, VERSION};
use super::store::Ledger;
use crate::model::{AgentName, Timestamp};
use crate::observe::{Call, segment};
use crate::reconcile::Announcement;

/// The API server's bound for the text of an Event, in bytes.
const MAX_NOTE: usize = 1024;

// === impl Ledger ===

impl Ledger {
    /// Writes an Event; `instance` names this process. That it cannot be written is logged, and no error for anybody.
    pub async fn announce(&self, agent: &AgentName, announcement: &Announcement, now: Timestamp, instance: &str) {
        let Ok(namespace) = segment(&self.namespace) else { return };
        let mut note = announcement.message.clone();
        while note.len() > MAX_NOTE {
            note.pop();
        }
        let action = announcement.operation.map_or_else(|| "Reconcile".to_owned(), |id| format!("Operation{id}"));
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": format!("{agent}.{:x}", now.as_nanosecond()), "namespace": self.namespace},
            "eventTime": format!("{now:.6}"),
            "reportingController": format!("{GROUP}/daemon"), "reportingInstance": instance,
            "action": action, "reason": announcement.reason, "note": note,
            "type": if announcement.warning { "Warning" } else { "Normal" },
            "regarding": {
                "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "AgentRelease", "name": agent,
                "namespace": self.namespace, "uid": self.uid(agent),
            },
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        if let Err(refusal) = self.api.call(Call::new(Method::POST, path).json(event)).await {
            tracing::debug!(%agent, reason = announcement.reason, why = refusal.why(), "cannot write an Event");
        }
    }
}
