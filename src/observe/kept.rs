//! One live object as it is kept: whole while its agent is at work, as text while it rests.

use std::sync::Arc;

use serde_json::Value;

use super::live::slim;
use crate::model::{AgentName, LiveObject, ObjectRef, ResourceVersion};
use crate::render::AGENT_LABEL;

/// A live object, with what must be at hand of it whether it is whole or not.
///
/// As text it takes a tenth of the memory that its values take: agents that rest are the most by far.
pub(crate) struct Kept {
    pub(super) object: Arc<ObjectRef>,
    pub(super) version: ResourceVersion,
    /// Whose it is by its label.
    pub(super) agent: Option<AgentName>,
    body: Body,
}

enum Body {
    Whole(Arc<LiveObject>),
    Text(Box<[u8]>),
}

// === impl Kept ===

impl Kept {
    pub(crate) fn of(live: LiveObject) -> Self {
        Self {
            object: Arc::new(live.object.clone()),
            version: live.version.clone(),
            agent: live.label(AGENT_LABEL).and_then(|name| name.parse().ok()),
            body: Body::Whole(Arc::new(live)),
        }
    }

    /// What an event brought: it will be looked at soon.
    pub(crate) fn told(body: Value) -> Option<Self> {
        LiveObject::of(slim(body)).map(Self::of)
    }

    /// What stood in a list: one of many.
    pub(crate) fn listed(body: Value) -> Option<Self> {
        let mut kept = Self::told(body)?;
        kept.cool();
        Some(kept)
    }

    /// Keeps the text alone.
    pub(crate) fn cool(&mut self) {
        if let Body::Whole(live) = &self.body
            && let Ok(text) = serde_json::to_vec(&*live.body)
        {
            self.body = Body::Text(text.into());
        }
    }

    /// The object, which is kept whole from now on.
    pub(crate) fn warm(&mut self) -> Option<Arc<LiveObject>> {
        let live = match &self.body {
            Body::Whole(live) => return Some(Arc::clone(live)),
            // Our own text: it can be read, or was never JSON.
            Body::Text(text) => Arc::new(LiveObject::of(serde_json::from_slice(text).ok()?)?),
        };
        self.body = Body::Whole(Arc::clone(&live));
        Some(live)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_cooled_is_the_same_when_it_is_warm_again() {
        let labels = json!({AGENT_LABEL: "support"});
        let metadata = json!({"name": "one", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": labels});
        let numbers = json!({"a": 1, "b": -1, "c": 1.5, "d": u64::MAX, "e": null, "f": "\u{0}\"\u{1f600}"});
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": numbers});
        let whole = LiveObject::of(body.clone()).expect("an object");
        let mut kept = Kept::listed(body).expect("an object");
        assert!(matches!(kept.body, Body::Text(_)));
        assert_eq!(kept.warm().as_deref(), Some(&whole));
        assert!(matches!(kept.body, Body::Whole(_)));
        assert_eq!(kept.agent.map(|agent| agent.to_string()).as_deref(), Some("support"));
    }
}
