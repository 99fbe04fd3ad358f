//! What people may want to know, as Kubernetes Events on the agent's `AgentRelease`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::sync::Notify;
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
const PATIENCE: Duration = Duration::from_mins(1);
/// How often that moment is looked for.
const PAUSE: Duration = Duration::from_millis(50);
/// What is told when an operation begins.
const BEGUN: &str = "Started";

/// Tells people, one news after the other: after the work, never before it.
///
/// That an operation began is left out where its end is known before it could be told: the end says why it began, too.
pub struct Herald {
    waiting: Arc<Waiting>,
    ledger: Ledger,
    instance: String,
    telling: JoinSet<()>,
}

/// What waits to be told.
#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Default)]
struct Queue {
    /// In the order in which they came.
    news: BTreeMap<u64, News>,
    next: u64,
    /// Of each agent, the beginning that waits to be told.
    begun: HashMap<AgentName, u64>,
    /// Many agents are at work.
    crowded: bool,
    /// Nothing more will come.
    ended: bool,
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
        Self { waiting: Arc::default(), ledger, instance: instance.into(), telling: JoinSet::new() }
    }

    /// Tells it soon; what is told at once too often is only logged.
    pub fn tell(&mut self, agent: AgentName, announcement: Announcement, now: Timestamp) {
        // Nobody tells anything until somebody says the first word.
        if self.telling.is_empty() {
            self.telling.spawn(tell_all(self.ledger.clone(), self.instance.clone(), Arc::clone(&self.waiting)));
        }
        if !self.waiting.queue().push(News { agent, announcement, now, since: Instant::now() }) {
            tracing::debug!("an Event is not written: too many wait");
        }
        self.waiting.more.notify_one();
    }

    /// While many agents are at work, news wait longer: the API server and its controllers are busy with that work.
    pub fn crowded(&self, crowded: bool) {
        self.waiting.queue().crowded = crowded;
    }

    /// Tells what still waits, for at most so long.
    pub async fn end(mut self, longest: Duration) {
        self.waiting.queue().ended = true;
        self.waiting.more.notify_one();
        let all = async { while self.telling.join_next().await.is_some() {} };
        if timeout(longest, all).await.is_err() {
            tracing::debug!("some Events are not written: there was no time for them");
        }
    }
}

// === impl Waiting ===

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The news that have waited longest, once it is time for them; nothing: none will come any more.
    async fn next(&self, ledger: &Ledger) -> Option<News> {
        loop {
            let told = self.queue().due(ledger.api.is_calm());
            match told {
                Due::Now(news) => return Some(*news),
                Due::Later => sleep(PAUSE).await,
                Due::Nothing => self.more.notified().await,
                Due::Never => return None,
            }
        }
    }
}

/// What is to be told now.
enum Due {
    Now(Box<News>),
    /// There are news, and others have more urgent things to do.
    Later,
    Nothing,
    Never,
}

// === impl Queue ===

impl Queue {
    /// No where too many wait.
    fn push(&mut self, news: News) -> bool {
        let operation = news.announcement.operation;
        if let Some(number) = self.begun.get(&news.agent)
            && self.news.get(number).is_some_and(|begun| begun.announcement.operation == operation)
        {
            self.news.remove(number);
            self.begun.remove(&news.agent);
        }
        if self.news.len() >= MAX_WAITING {
            return false;
        }
        if news.announcement.reason == BEGUN && operation.is_some() {
            self.begun.insert(news.agent.clone(), self.next);
        }
        self.news.insert(self.next, news);
        self.next += 1;
        true
    }

    fn due(&mut self, calm: bool) -> Due {
        let Some((number, first)) = self.news.first_key_value() else {
            return if self.ended { Due::Never } else { Due::Nothing };
        };
        let urgent = self.ended || first.since.elapsed() >= PATIENCE;
        if !urgent && (self.crowded || !calm) {
            return Due::Later;
        }
        let (number, agent) = (*number, first.agent.clone());
        if self.begun.get(&agent) == Some(&number) {
            self.begun.remove(&agent);
        }
        self.news.remove(&number).map_or(Due::Nothing, |news| Due::Now(Box::new(news)))
    }
}

async fn tell_all(ledger: Ledger, instance: String, waiting: Arc<Waiting>) {
    while let Some(News { agent, announcement, now, .. }) = waiting.next(&ledger).await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::OperationId;

    fn news(agent: &str, reason: &'static str, operation: Option<u64>) -> News {
        let operation = operation.map(OperationId);
        let announcement = Announcement { warning: false, reason, message: String::new(), operation };
        let agent = agent.parse().expect("a name");
        News { agent, announcement, now: Timestamp::UNIX_EPOCH, since: Instant::now() }
    }

    fn told(queue: &mut Queue) -> Option<(String, &'static str)> {
        match queue.due(true) {
            Due::Now(news) => Some((news.agent.to_string(), news.announcement.reason)),
            Due::Later | Due::Nothing | Due::Never => None,
        }
    }

    #[test]
    fn a_beginning_is_told_unless_its_end_is_known_already() {
        let mut queue = Queue::default();
        assert!(queue.push(news("a", BEGUN, Some(1))));
        assert_eq!(told(&mut queue), Some(("a".to_owned(), BEGUN)));
        for one in [
            news("a", "Deployed", Some(1)),
            news("a", BEGUN, Some(2)),
            news("b", BEGUN, Some(7)),
            news("a", "Failed", Some(2)),
            // A beginning that another operation follows is no news of that one's.
            news("b", BEGUN, Some(8)),
            news("b", "DriftHealed", None),
        ] {
            assert!(queue.push(one));
        }
        let all: Vec<_> = std::iter::from_fn(|| told(&mut queue)).map(|(agent, reason)| agent + " " + reason).collect();
        assert_eq!(all, ["a Deployed", "b Started", "a Failed", "b Started", "b DriftHealed"]);
        assert!(queue.begun.is_empty());
    }

    #[test]
    fn news_wait_for_those_at_work_but_not_for_ever() {
        let mut queue = Queue::default();
        assert!(matches!(queue.due(true), Due::Nothing));
        assert!(queue.push(news("a", "Deployed", Some(1))));
        assert!(matches!(queue.due(false), Due::Later));
        queue.crowded = true;
        assert!(matches!(queue.due(true), Due::Later));
        queue.news.values_mut().for_each(|news| news.since -= PATIENCE);
        assert!(matches!(queue.due(false), Due::Now(_)));
        assert!(queue.push(news("b", "Deployed", Some(1))));
        queue.ended = true;
        assert!(matches!(queue.due(false), Due::Now(_)));
        assert!(matches!(queue.due(true), Due::Never));
    }
}
