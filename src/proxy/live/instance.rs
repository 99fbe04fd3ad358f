//! One process behind the proxy, as long as requests are open there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::outlier::{Outlier, Went};
use crate::model::{AgentName, ReleaseId};
use crate::proxy::forward::Pool;
use crate::proxy::table::{self, Address, Protocol};

/// An instance by its id and the generation of its launch.
pub(crate) type InstanceKey = (String, u64);

/// One process behind the proxy: it outlives the tables that name it while requests are open there.
pub(crate) struct Instance {
    pub(crate) key: InstanceKey,
    pub(crate) agent: AgentName,
    pub(crate) release: ReleaseId,
    pub(crate) address: Address,
    pub(crate) protocol: Protocol,
    pub(crate) pool: Pool,
    /// Ends every request that is open there.
    pub(crate) cut: CancellationToken,
    drained: AtomicBool,
    trouble: AtomicBool,
    outlier: Mutex<Outlier>,
    started: Instant,
    slots: Mutex<Vec<Weak<Slot>>>,
}

/// The place of an instance in one table: requests are counted by the table that assigned them.
pub(crate) struct Slot {
    pub(crate) instance: Arc<Instance>,
    pub(crate) generation: u64,
    open: AtomicUsize,
}

/// One request at one instance, counted until it is dropped.
pub(crate) struct Open(pub(crate) Arc<Slot>);

// === impl Instance ===

impl Instance {
    pub(super) fn new(instance: &table::Instance, agent: &AgentName, release: ReleaseId) -> Self {
        Self {
            key: (instance.id.clone(), instance.generation),
            agent: agent.clone(),
            release,
            address: instance.address.clone(),
            protocol: instance.protocol,
            pool: Pool::default(),
            cut: CancellationToken::new(),
            drained: AtomicBool::new(false),
            trouble: AtomicBool::new(false),
            outlier: Mutex::default(),
            started: Instant::now(),
            slots: Mutex::default(),
        }
    }

    /// Its place in the table of `generation`.
    pub(super) fn slot(self: &Arc<Self>, generation: u64) -> Arc<Slot> {
        let slot = Arc::new(Slot { instance: self.clone(), generation, open: AtomicUsize::new(0) });
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // A place ends with its table and its last request.
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(&slot));
        slot
    }

    /// Open requests by the generation of the table that assigned them.
    pub(crate) fn open(&self) -> BTreeMap<u64, usize> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = BTreeMap::new();
        for slot in slots.iter().filter_map(Weak::upgrade) {
            let count = slot.open.load(Ordering::Acquire);
            if count > 0 {
                *open.entry(slot.generation).or_default() += count;
            }
        }
        open
    }

    /// Takes no new requests from now on.
    pub(crate) fn drain(&self) {
        self.drained.store(true, Ordering::Release);
    }

    /// Whether it takes no new requests, whatever the table says.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    /// Takes in how a request went there.
    pub(crate) fn saw(&self, went: Went) {
        // The usual way costs no lock.
        if went == Went::Well && !self.trouble.load(Ordering::Acquire) {
            return;
        }
        let mut outlier = self.outlier.lock().unwrap_or_else(PoisonError::into_inner);
        outlier.saw(went, self.started.elapsed());
        self.trouble.store(!outlier.fine(), Ordering::Release);
    }

    /// Whether it failed so often that it is left alone.
    pub(crate) fn is_ejected(&self) -> bool {
        self.trouble.load(Ordering::Acquire) && self.ejected_at(self.started.elapsed())
    }

    fn ejected_at(&self, now: Duration) -> bool {
        self.outlier.lock().unwrap_or_else(PoisonError::into_inner).ejected(now)
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn enter(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::AcqRel);
        Open(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}
