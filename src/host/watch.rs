//! Watches: what changes of one kind in one namespace, as it happens.

use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::kinds::Kind;
use super::recent::{Change, Following, Labels, Over};
use super::refused::Refused;
use super::store::Store;

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
    following: Following,
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
        self.fits(|key| labels?.get(key)?.as_str())
    }

    fn fits<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let mut all = self.0.iter();
        all.all(|(key, wanted)| label(key).is_some_and(|label| wanted.as_deref().is_none_or(|wanted| wanted == label)))
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
    let running = Running {
        kind,
        namespace: namespace.to_owned(),
        selector,
        following: store.since(from)?,
        until: Instant::now() + Duration::from_secs(seconds.clamp(1, LONGEST)),
        ended: false,
    };
    Ok(futures::stream::unfold(running, |mut running| async {
        let line = running.next().await?;
        Some((Ok(Bytes::from(line)), running))
    }))
}

// === impl Running ===

impl Running {
    /// The next line, its end included.
    async fn next(&mut self) -> Option<String> {
        while !self.ended {
            let change = match tokio::time::timeout_at(self.until, self.following.next()).await {
                Ok(Ok(change)) => change,
                Err(_) | Ok(Err(Over::Closed)) => {
                    self.ended = true;
                    return Some(format!("{}\n", self.bookmark()));
                }
                Ok(Err(Over::Expired)) => {
                    self.ended = true;
                    return Some(format!("{}\n", json!({"type": "ERROR", "object": Refused::expired().status()})));
                }
            };
            if let Some(line) = self.told(&change) {
                return Some(line);
            }
        }
        None
    }

    fn told(&self, change: &Change) -> Option<String> {
        if change.key.kind != self.kind || change.key.namespace != self.namespace {
            return None;
        }
        let selects = |labels: &Labels| self.selector.fits(|key| labels.get(key));
        let event = match (change.was.as_deref().is_some_and(selects), change.is.as_deref().is_some_and(selects)) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(format!("{{\"type\":\"{event}\",\"object\":{}}}\n", change.text))
    }

    fn bookmark(&self) -> Value {
        json!({"type": "BOOKMARK", "object": {
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": self.following.at().to_string()},
        }})
    }
}
