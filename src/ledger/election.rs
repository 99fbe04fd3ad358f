//! One writer for each target: a Lease elects, an epoch counts, a fence is asked before each effect.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Clock, Ledger};
use crate::apply::Fence;
use crate::model::ResourceVersion;
use crate::observe::{Api, Call, Jitter, Refusal, segment};
use crate::reconcile::FailureKind;

/// How an election keeps time.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// A lease that was not renewed for so long may be taken.
    pub lease: Duration,
    /// How often a leader renews, and a follower looks.
    pub renew: Duration,
    /// The fence closes so long before the lease ends.
    pub margin: Duration,
}

/// What this process is for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Another process leads, or none does yet: its name, where it is known.
    Following(Option<String>),
    /// This one leads, in this epoch.
    Leading(u64),
    /// Another installation is at home here: this one only reads, and why.
    ReadOnly(String),
}

/// The fence of a leader: holds while its lease is surely valid and no later epoch was seen.
#[derive(Clone)]
pub struct LeaseFence {
    clock: Arc<dyn Clock>,
    /// Monotonic nanoseconds; 0: closed.
    valid_until: Arc<AtomicU64>,
    epoch: Arc<AtomicU64>,
    seen: Arc<AtomicU64>,
}

/// Takes part in the election for one target, until it is stopped.
pub struct Election {
    ledger: Ledger,
    api: Api,
    identity: String,
    terms: Terms,
    clock: Arc<dyn Clock>,
    fence: LeaseFence,
    role: watch::Sender<Role>,
    jitter: Jitter,
    /// The lease as it was seen last, and since when (monotonic) it has not changed.
    observed: Mutex<Option<(ResourceVersion, Duration)>>,
}

/// A Lease, as far as an election needs it.
struct Held {
    version: ResourceVersion,
    holder: String,
    seconds: u64,
    transitions: u64,
    acquired: Value,
}

// === impl Terms ===

impl Default for Terms {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(5), margin: Duration::from_secs(2) }
    }
}

// === impl LeaseFence ===

impl LeaseFence {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, valid_until: Arc::default(), epoch: Arc::default(), seen: Arc::default() }
    }

    /// Tells of an epoch that was read from the ledger: a later one than ours closes the fence for good.
    pub fn saw_epoch(&self, epoch: u64) {
        self.seen.fetch_max(epoch, Ordering::SeqCst);
    }

    /// The epoch that this process leads or led; 0 where it never did.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn open(&self, epoch: u64, until: Duration) {
        self.epoch.store(epoch, Ordering::SeqCst);
        self.saw_epoch(epoch);
        self.valid_until.store(nanos(until), Ordering::SeqCst);
    }

    /// Holds longer; no where it has closed in between, since what was refused then is refused for the whole epoch.
    fn renew(&self, until: Duration) -> bool {
        let longer = |held| (nanos(self.clock.monotonic()) < held).then(|| nanos(until).max(held));
        self.valid_until.fetch_update(Ordering::SeqCst, Ordering::SeqCst, longer).is_ok()
    }

    fn close(&self) {
        self.valid_until.store(0, Ordering::SeqCst);
    }
}

impl Fence for LeaseFence {
    fn holds(&self) -> bool {
        let now = nanos(self.clock.monotonic());
        let epoch = self.epoch.load(Ordering::SeqCst);
        epoch > 0 && now < self.valid_until.load(Ordering::SeqCst) && self.seen.load(Ordering::SeqCst) <= epoch
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Election ===

impl Election {
    /// Takes part as `identity`, which no other process has; `api` should take no turns with the rest, so that a busy
    /// target costs no lease.
    pub fn new(
        ledger: Ledger,
        api: Api,
        identity: impl Into<String>,
        terms: Terms,
        clock: Arc<dyn Clock>,
    ) -> (Self, LeaseFence, watch::Receiver<Role>) {
        let fence = LeaseFence::new(clock.clone());
        let (role, receiver) = watch::channel(Role::Following(None));
        let ledger = Ledger { api: api.clone(), ..ledger };
        let (identity, jitter) = (identity.into(), Jitter::new(Jitter::seed()));
        let election = Self {
            ledger,
            api,
            identity,
            terms,
            clock,
            fence: fence.clone(),
            role,
            jitter,
            observed: Mutex::default(),
        };
        (election, fence, receiver)
    }

    /// Takes part until `stop`; then the fence is closed and a lease that is held is given back.
    ///
    /// Whoever stops it has ended the writing first.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let wait = self.round().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        let led = self.fence.epoch() > 0 && self.fence.holds();
        self.fence.close();
        if led {
            self.give_back().await;
        }
    }

    /// One look at the lease, and what follows from it; gives the time to the next one.
    async fn round(&self) -> Duration {
        let asked = self.clock.monotonic();
        match self.take_or_renew(asked).await {
            Ok(Role::Leading(epoch)) => {
                self.told(Role::Leading(epoch));
                self.terms.renew
            }
            Ok(role) => {
                self.fence.close();
                self.told(role);
                self.terms.renew / 2 + self.jitter.up_to(self.terms.renew / 2)
            }
            Err(refusal) => {
                tracing::warn!(environment = %self.ledger.environment, why = refusal.why(), "cannot renew the lease");
                // The fence closes by itself when the lease runs out; a leader that cannot renew tries again soon.
                if !self.fence.holds() {
                    self.told(Role::Following(None));
                }
                self.terms.renew / 4 + self.jitter.up_to(self.terms.renew / 4)
            }
        }
    }

    fn told(&self, role: Role) {
        self.role.send_if_modified(|held| {
            let changed = *held != role;
            *held = role;
            changed
        });
    }

    async fn take_or_renew(&self, asked: Duration) -> Result<Role, Refusal> {
        let path = self.path()?;
        let until = (asked + self.terms.lease).saturating_sub(self.terms.margin);
        let held = match self.api.call(Call::get(path.clone())).await {
            Ok(body) => Held::of(&body)
                .ok_or_else(|| Refusal::Here(FailureKind::Refused, "the Lease cannot be read".to_owned()))?,
            Err(refusal) if refusal.kind() == FailureKind::Gone => {
                let collection = path.rsplit_once('/').map_or(path.as_str(), |(collection, _)| collection);
                let body = self.lease(None, 0, None);
                self.api.call(Call::new(Method::POST, collection.to_owned()).json(body)).await?;
                return self.lead(until).await;
            }
            Err(refusal) => return Err(refusal),
        };
        let ours = held.holder == self.identity;
        // The very lease that this process holds, and held without a gap.
        if ours && self.fence.holds() {
            let body = self.lease(Some(&held.version), held.transitions, Some(&held.acquired));
            self.api.call(Call::new(Method::PUT, path).json(body)).await?;
            if self.fence.renew(until) {
                return Ok(Role::Leading(self.fence.epoch()));
            }
            // The answer came after the fence had closed: who was held off meanwhile begins anew with a new epoch.
            return self.lead(until).await;
        }
        if !ours && !held.holder.is_empty() && !self.has_expired(&held) {
            return Ok(Role::Following(Some(held.holder)));
        }
        let body = self.lease(Some(&held.version), held.transitions + 1, None);
        match self.api.call(Call::new(Method::PUT, path).json(body)).await {
            Ok(_) => self.lead(until).await,
            // Somebody else was faster.
            Err(refusal) if refusal.kind() == FailureKind::Conflict => Ok(Role::Following(None)),
            Err(refusal) => Err(refusal),
        }
    }

    /// A lease has expired when it did not change for its whole length while we looked: no clock of others is believed.
    fn has_expired(&self, held: &Held) -> bool {
        // Taken after the answer: what changed while the request was under way was not seen before it.
        let now = self.clock.monotonic();
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match &*observed {
            Some((version, since)) if version == &held.version => *since,
            Some(_) | None => {
                *observed = Some((held.version.clone(), now));
                now
            }
        };
        now.saturating_sub(since) >= self.terms.lease.max(Duration::from_secs(held.seconds))
    }

    /// The lease is ours: a new epoch makes all earlier writers late.
    async fn lead(&self, until: Duration) -> Result<Role, Refusal> {
        match self.ledger.begin_epoch().await {
            Ok(Ok(epoch)) => {
                self.fence.open(epoch, until);
                tracing::info!(environment = %self.ledger.environment, epoch, "leading");
                Ok(Role::Leading(epoch))
            }
            Ok(Err(why)) => {
                self.give_back().await;
                Ok(Role::ReadOnly(why))
            }
            Err(failure) => Err(Refusal::Here(failure.kind, failure.message)),
        }
    }

    /// Lets the next one lead at once; when that fails, it waits for the end of the lease.
    async fn give_back(&self) {
        let Ok(path) = self.path() else { return };
        let Ok(body) = self.api.call(Call::get(path.clone())).await else { return };
        let Some(held) = Held::of(&body).filter(|held| held.holder == self.identity) else { return };
        let mut lease = self.lease(Some(&held.version), held.transitions, Some(&held.acquired));
        lease["spec"]["holderIdentity"] = "".into();
        if let Err(refusal) = self.api.call(Call::new(Method::PUT, path).json(lease)).await {
            tracing::debug!(why = refusal.why(), "cannot give the lease back");
        }
    }

    fn path(&self) -> Result<String, Refusal> {
        let (namespace, name) = (segment(&self.ledger.namespace)?, self.name());
        Ok(format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"))
    }

    fn name(&self) -> String {
        format!("backstay-{}", self.ledger.environment)
    }

    fn lease(&self, version: Option<&ResourceVersion>, transitions: u64, acquired: Option<&Value>) -> Value {
        let now = format!("{:.6}", self.clock.now());
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": self.name(), "namespace": self.ledger.namespace, "resourceVersion": version,
                "labels": {"app.kubernetes.io/name": "backstay"},
            },
            "spec": {
                "holderIdentity": self.identity, "leaseDurationSeconds": self.terms.lease.as_secs().max(1),
                "acquireTime": acquired.cloned().unwrap_or_else(|| now.clone().into()), "renewTime": now,
                "leaseTransitions": transitions,
            },
        })
    }
}

// === impl Held ===

impl Held {
    fn of(body: &Value) -> Option<Self> {
        let spec = body.get("spec").unwrap_or(&Value::Null);
        let number = |field: &str| spec.get(field).and_then(Value::as_u64).unwrap_or_default();
        Some(Self {
            version: ResourceVersion(body.pointer("/metadata/resourceVersion")?.as_str()?.to_owned()),
            holder: spec.get("holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned(),
            seconds: number("leaseDurationSeconds"),
            transitions: number("leaseTransitions"),
            acquired: spec.get("acquireTime").cloned().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands still until it is told.
    #[derive(Default)]
    struct Hand(Mutex<Duration>);

    impl Clock for Hand {
        fn now(&self) -> crate::model::Timestamp {
            crate::model::Timestamp::UNIX_EPOCH
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock().expect("not poisoned")
        }
    }

    // F1, F2
    #[test]
    fn a_fence_holds_for_its_time_and_its_epoch() {
        let hand = Arc::new(Hand::default());
        let fence = LeaseFence::new(hand.clone());
        assert!(!fence.holds(), "closed before anything was won");
        fence.open(3, Duration::from_secs(13));
        assert!(fence.holds());
        *hand.0.lock().expect("not poisoned") = Duration::from_secs(13);
        assert!(!fence.holds(), "the lease may be over");
        assert!(!fence.renew(Duration::from_secs(20)), "whom it held off waits for another epoch");
        assert!(!fence.holds());
        fence.open(4, Duration::from_secs(20));
        assert!(fence.holds() && fence.renew(Duration::from_secs(30)));
        *hand.0.lock().expect("not poisoned") = Duration::from_secs(29);
        assert!(fence.holds());
        fence.saw_epoch(4);
        assert!(fence.holds());
        fence.saw_epoch(5);
        assert!(!fence.holds(), "somebody leads a later epoch");
        fence.renew(Duration::from_secs(90));
        assert!(!fence.holds(), "for good");
    }
}
