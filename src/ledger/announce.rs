//! What people may want to know, as Kubernetes Events on the agent's `AgentRelease`.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::crd::{GROUP, VERSION};
use super::store::Ledger;
use crate::model::{AgentName, Timestamp};
use crate::observe::{Call, segment};
use crate::reconcile::Announcement;

/// The API server's bound for the text of an Event, in bytes.
const MAX_NOTE: usize = 1024;
/// News that wait to be told; more than that are dropped, since all of them are in the record and the journal too.
const MAX_WAITING: usize = 20_000;
/// How long news wait for a moment in which the API server has little else to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often that moment is looked for.
const PAUSE: Duration = Duration::from_millis(50);

/// Tells people, one news after the other: after the work, never before it.
pub struct Herald {
    /// Nothing: it was ended.
    waiting: Option<mpsc::Sender<News>>,
    ledger: Ledger,
    instance: String,
    /// What waits until somebody says the first word.
    silent: Option<mpsc::Receiver<News>>,
    telling: JoinSet<()>,
}

struct News {
    agent: AgentName,
    announcement: Announcement,
    now: Timestamp,
    since: Instant,
}

// === impl Herald ===

impl Herald {
    /// Tells through `ledger`; `instance` names this process.
    pub fn new(ledger: Ledger, instance: impl Into<String>) -> Self {
        let (waiting, silent) = mpsc::channel(MAX_WAITING);
        let (waiting, silent) = (Some(waiting), Some(silent));
        Self { waiting, ledger, instance: instance.into(), silent, telling: JoinSet::new() }
    }

    /// Tells it soon; what is told at once too often is only logged.
    pub fn tell(&mut self, agent: AgentName, announcement: Announcement, now: Timestamp) {
        if let Some(news) = self.silent.take() {
            self.telling.spawn(tell_all(self.ledger.clone(), self.instance.clone(), news));
        }
        let news = News { agent, announcement, now, since: Instant::now() };
        if let Some(Err(refused)) = self.waiting.as_ref().map(|waiting| waiting.try_send(news)) {
            tracing::debug!(%refused, "an Event is not written: too many wait");
        }
    }

    /// Tells what still waits, for at most so long.
    pub async fn end(mut self, longest: Duration) {
        self.waiting = None;
        let all = async { while self.telling.join_next().await.is_some() {} };
        if timeout(longest, all).await.is_err() {
            tracing::debug!("some Events are not written: there was no time for them");
        }
    }
}

async fn tell_all(ledger: Ledger, instance: String, mut waiting: mpsc::Receiver<News>) {
    while let Some(News { agent, announcement, now, since }) = waiting.recv().await {
        while !ledger.api.is_calm() && !waiting.is_closed() && since.elapsed() < PATIENCE {
            sleep(PAUSE).await;
        }
        ledger.announce(&agent, &announcement, now, &instance).await;
    }
}

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
