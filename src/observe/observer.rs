//! The watches of one namespace, and the snapshots made of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::kept::Kept;
use super::live::{Changed, Live};
use super::watch::{Pace, Read, Told, Watch};
use super::{Api, Jitter, Kinds, Refusal};
use crate::model::{AgentName, GroupKind, LiveObject, LiveState};
use crate::reconcile::FailureKind;
use crate::render::{MANAGED_BY, MANAGED_BY_LABEL};

/// What every agent may have: watched from the start.
const BASE: [(&str, &str); 9] = [
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("", "Pod"),
    ("", "ConfigMap"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("policy", "PodDisruptionBudget"),
    ("batch", "Job"),
];

/// Keeps the live state of all agents of a namespace, by one watch for each kind. Cheap to clone.
///
/// # Guarantees
///
/// A snapshot is never older than an earlier one, nor than an object given to [`note`](Self::note). Dropped, merged and
/// late events cost latency only: each watch ends within a minute and goes on from its version, or lists again.
///
/// # Assumptions
///
/// Resource versions are comparable (KEP-5504). One task asks [`changed`](Self::changed).
#[derive(Clone)]
pub struct Observer(Arc<Shared>);

struct Shared {
    api: Api,
    kinds: Arc<Kinds>,
    namespace: String,
    pace: Pace,
    jitter: Arc<Jitter>,
    live: Mutex<Live>,
    /// Somebody's state changed.
    news: Notify,
    /// Kinds to watch that no task watches yet.
    wanted: Mutex<BTreeSet<GroupKind>>,
    more: Notify,
}

// === impl Observer ===

impl Observer {
    /// Observes `namespace` through `api`, once [`run`](Self::run) runs.
    pub fn new(api: Api, kinds: Arc<Kinds>, namespace: impl Into<String>, pace: Pace) -> Self {
        let mut live = Live::default();
        let base = BASE.iter().map(|(group, kind)| GroupKind { group: (*group).into(), kind: (*kind).into() });
        let wanted: BTreeSet<_> = base.collect();
        for kind in &wanted {
            live.begin(kind.clone(), true);
        }
        Self(Arc::new(Shared {
            api,
            kinds,
            namespace: namespace.into(),
            pace,
            jitter: Arc::new(Jitter::new(Jitter::seed())),
            live: Mutex::new(live),
            news: Notify::new(),
            wanted: Mutex::new(wanted),
            more: Notify::new(),
        }))
    }

    /// Runs the watches until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            let wanted = std::mem::take(&mut *self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner));
            for kind in wanted {
                let shared = self.0.clone();
                tasks.spawn(async move { shared.watch(kind).await });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.0.more.notified() => {}
            }
        }
    }

    /// Watches one more kind, from now on; until its first list it is unseen.
    pub fn watch_kind(&self, kind: GroupKind) {
        if self.0.live().begin(kind.clone(), false) {
            self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(kind);
            self.0.more.notify_one();
            self.0.news.notify_one();
        }
    }

    /// What is known of one agent now; it takes much memory until [`rest`](Self::rest).
    pub fn snapshot(&self, agent: &AgentName) -> LiveState {
        self.0.live().state(agent)
    }

    /// Nobody looks at an agent until it changes: what is known of it may be kept small.
    pub fn rest(&self, agent: &AgentName) {
        self.0.live().rest(agent);
    }

    /// Whether the first list of every kind is there.
    pub fn is_synced(&self) -> bool {
        self.0.live().is_synced()
    }

    /// Agents of which any object is known, whether Git knows them or not.
    pub fn agents(&self) -> BTreeSet<AgentName> {
        self.0.live().agents()
    }

    /// Waits until somebody's state is another than at the last call.
    pub async fn changed(&self) -> Changed {
        loop {
            let changed = self.0.live().take_changed();
            if let Some(changed) = changed {
                return changed;
            }
            self.0.news.notified().await;
        }
    }

    /// Takes in an object as a write's answer had it.
    pub fn note(&self, live: &LiveObject) {
        self.0.live().note(live);
        self.0.news.notify_one();
    }
}

// === impl Shared ===

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches one kind for ever.
    async fn watch(&self, kind: GroupKind) {
        let path = self.path(&kind).await;
        // Whole ConfigMaps of up to a megabyte: fewer of them to a page.
        let page = if kind.kind == "ConfigMap" { 50 } else { 500 };
        let selector = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
        let read = Read { listed: Kept::listed, told: Kept::told };
        let (api, pace, jitter) = (self.api.clone(), self.pace.clone(), self.jitter.clone());
        let mut watch = Watch::new(api, path, &selector, page, read, pace, jitter);
        loop {
            let told = watch.next().await;
            self.take(&kind, told);
            self.news.notify_one();
        }
    }

    fn take(&self, kind: &GroupKind, told: Told<Kept>) {
        let of_kind = |kept: &Kept| kept.object.group == kind.group && kept.object.kind == kind.kind;
        match told {
            Told::Listed(objects, at) => {
                self.live().listed(kind, objects.into_iter().filter(of_kind).collect(), &at);
            }
            Told::Changed(kept) if of_kind(&kept) => self.live().changed(kind, kept),
            Told::Gone(kept) if of_kind(&kept) => self.live().gone(kind, &kept),
            Told::Changed(_) | Told::Gone(_) => {}
            Told::At(version) => self.live().told(kind, &version),
            Told::Trouble(refusal, failures) => self.trouble(kind, &refusal, failures),
        }
    }

    fn trouble(&self, kind: &GroupKind, refusal: &Refusal, failures: u32) {
        let failure = refusal.failure(&format!("watch {kind} in {}", self.namespace));
        tracing::debug!(%kind, failures, why = failure.message, "a watch broke");
        let clear = !matches!(failure.kind, FailureKind::Unavailable { .. } | FailureKind::Conflict);
        self.live().trouble(kind, failure.message, clear, failures);
        self.news.notify_one();
    }

    /// Where a kind is served; asked until it is known.
    async fn path(&self, kind: &GroupKind) -> String {
        let mut failures = 0;
        loop {
            let found = self.kinds.find(&kind.group, None, &kind.kind).await;
            match found.and_then(|resource| resource.collection(&self.namespace)) {
                Ok(path) => return path,
                Err(refusal) => {
                    failures += 1;
                    self.trouble(kind, &refusal, failures);
                }
            }
            let doubled = self.pace.first_wait.saturating_mul(1 << failures.min(16));
            let wait = doubled.min(self.pace.longest_wait).max(Duration::from_millis(1));
            tokio::time::sleep(wait / 2 + self.jitter.up_to(wait / 2)).await;
        }
    }
}
