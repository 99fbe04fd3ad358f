//! Watches: what changes of one kind in one namespace, as it happens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

use super::kinds::Kind;
use super::refused::Refused;
use super::store::{Change, Store};

/// Bounds of `timeoutSeconds`.
const LONGEST: u64 = 600;

/// Which objects by their labels: all that is asked for must be so.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector(Vec<(String, Option<String>)>);

/// One running watch.
struct Running {
    kind: &'static Kind,
    namespace: String,
    selector: Selector,
    missed: VecDeque<Arc<Change>>,
    coming: broadcast::Receiver<Arc<Change>>,
    /// The newest change that was looked at, told or not.
    at: u64,
    until: Instant,
    ended: bool,
}

// === impl Selector ===

impl Selector {
    /// Reads `key=value` and `key`, joined by commas.
    pub(super) fn parse(text: &str) -> Result<Self, Refused> {
        let mut all = vec![];
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            if term.contains(['!', '(', '<', '>']) {
                return Err(Refused::bad(format!("a host does not have the selector `{term}`")));
            }
            let (key, value) = match term.split_once('=') {
                Some((key, value)) => (key, Some(value.trim_start_matches('=').trim().to_owned())),
                None => (term, None),
            };
            all.push((key.trim().to_owned(), value));
        }
        Ok(Self(all))
    }

    pub(super) fn selects(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.0.iter().all(|(key, wanted)| {
            let label = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
            label.is_some_and(|label| wanted.as_deref().is_none_or(|wanted| wanted == label))
        })
    }
}

/// Follows a kind from a version on, as lines of JSON, until `seconds` are over.
pub(super) fn follow(
    store: &Store,
    kind: &'static Kind,
    namespace: &str,
    selector: Selector,
    from: u64,
    seconds: u64,
) -> Result<impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + use<>, Refused> {
    let (missed, coming) = store.since(from)?;
    let running = Running {
        kind,
        namespace: namespace.to_owned(),
        selector,
        missed: missed.into(),
        coming,
        at: from,
        until: Instant::now() + Duration::from_secs(seconds.clamp(1, LONGEST)),
        ended: false,
    };
    Ok(futures::stream::unfold(running, |mut running| async {
        let line = running.next().await?;
        Some((Ok(Bytes::from(format!("{line}\n"))), running))
    }))
}

// === impl Running ===

impl Running {
    async fn next(&mut self) -> Option<Value> {
        while !self.ended {
            let change = match self.missed.pop_front() {
                Some(change) => change,
                None => match tokio::time::timeout_at(self.until, self.coming.recv()).await {
                    Ok(Ok(change)) => change,
                    Err(_) | Ok(Err(RecvError::Closed)) => {
                        self.ended = true;
                        return Some(self.bookmark());
                    }
                    Ok(Err(RecvError::Lagged(_))) => {
                        self.ended = true;
                        return Some(json!({"type": "ERROR", "object": Refused::expired().status()}));
                    }
                },
            };
            // What came while the past was read is in both.
            if change.version <= self.at {
                continue;
            }
            self.at = change.version;
            if let Some(line) = self.told(&change) {
                return Some(line);
            }
        }
        None
    }

    fn told(&self, change: &Change) -> Option<Value> {
        if change.key.kind != self.kind || change.key.namespace != self.namespace {
            return None;
        }
        let before = change.before.as_ref().is_some_and(|before| self.selector.selects(before));
        let now = !change.gone && self.selector.selects(&change.object);
        let event = match (before, now) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(json!({"type": event, "object": change.object}))
    }

    fn bookmark(&self) -> Value {
        json!({"type": "BOOKMARK", "object": {
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": self.at.to_string()},
        }})
    }
}
