//! The table as it is used, and the switch from one to the next.

mod instance;
mod outlier;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::HeaderMap;

pub(crate) use instance::{Instance, InstanceKey, Open};
pub(crate) use outlier::Went;

use self::instance::Slot;
use super::assign::{self, Routes};
use super::figures::{Registry, Shared};
use super::table::{Agent, Drain, Sticky, Table};
use crate::model::{AgentName, Digest, ReleaseId};

/// The table in use; every request is assigned by the one that is in use at that moment.
pub(crate) struct Switch {
    current: RwLock<Arc<Live>>,
    instances: Mutex<BTreeMap<InstanceKey, Arc<Instance>>>,
    chance: AtomicU64,
    pub(crate) figures: Registry,
}

/// One table, resolved.
pub(crate) struct Live {
    pub(crate) table: Arc<Table>,
    pub(crate) digest: Digest,
    routes: Routes,
    agents: BTreeMap<AgentName, Vec<Arm>>,
    /// Its addresses are of another boot: nobody is sent there.
    pub(crate) stale: bool,
}

struct Arm {
    release: ReleaseId,
    slots: Vec<Arc<Slot>>,
    figures: Arc<Shared>,
}

/// Where one request goes.
pub(crate) struct Assigned {
    pub(crate) figures: Arc<Shared>,
    pub(crate) release: ReleaseId,
    /// The release is told to the client.
    pub(crate) show: bool,
    /// The value of a cookie that the client is given, with its name.
    pub(crate) issue: Option<(String, String)>,
    pub(crate) mirror: Option<Copy>,
    agent: AgentName,
}

/// Where a copy of a request goes.
pub(crate) struct Copy {
    pub(crate) open: Open,
    pub(crate) figures: Arc<Shared>,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nowhere {
    /// No route has this host and path.
    NoRoute,
    /// Nothing is ready to take it.
    NotReady,
}

// === impl Switch ===

impl Switch {
    /// Begins with `table`; `boot` is the id of this boot.
    pub(crate) fn new(table: Table, digest: Digest, boot: &str) -> Self {
        let figures = Registry::default();
        let mut instances = BTreeMap::new();
        let live = Live::new(table, digest, boot, &mut instances, &figures);
        let seed = u64::from(std::process::id()) ^ seed();
        Self {
            current: RwLock::new(Arc::new(live)),
            instances: Mutex::new(instances),
            chance: AtomicU64::new(seed),
            figures,
        }
    }

    /// The table in use.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses `table` from now on.
    ///
    /// # Guarantees
    ///
    /// When it returns, every request that was assigned by an older table is counted at its instance, and every later
    /// one is assigned by this one: assigning and counting happen under the lock that this takes.
    pub(crate) fn load(&self, table: Table, digest: Digest, boot: &str) {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let live = Arc::new(Live::new(table, digest, boot, &mut instances, &self.figures));
        let before = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, live.clone())
        };
        let named = live.named();
        for (name, agent) in &before.table.agents {
            let gone = before.agents.get(name).into_iter().flatten().flat_map(|arm| &arm.slots);
            for slot in gone.filter(|slot| !named.contains(&slot.instance.key)) {
                let now = live.table.agents.get(name).unwrap_or(agent);
                if now.drain == Drain::Cut || agent.drain == Drain::Cut {
                    slot.instance.cut.cancel();
                }
            }
        }
        drop(before);
        instances.retain(|key, instance| named.contains(key) || !instance.open().is_empty());
    }

    /// An instance that `table` names like one that is known, and that is another.
    pub(crate) fn clash(&self, table: &Table) -> Option<InstanceKey> {
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let arms = table.agents.values().flat_map(|agent| &agent.arms);
        let mut named = arms.flat_map(|arm| arm.instances.iter().map(|instance| (arm.release, instance)));
        named.find_map(|(release, instance)| {
            let key = (instance.id.clone(), instance.generation);
            let known = instances.get(&key)?;
            let same =
                known.address == instance.address && known.release == release && known.protocol == instance.protocol;
            (!same).then_some(key)
        })
    }

    /// Assigns a request, and counts it.
    pub(crate) fn assign(&self, host: &str, path: &str, headers: &HeaderMap) -> Result<(Assigned, Open), Nowhere> {
        let chance = self.chance();
        let live = self.current.read().unwrap_or_else(PoisonError::into_inner);
        live.assign(host, path, headers, chance)
    }

    /// Assigns a request anew within its arm, to another instance than those in `not`.
    pub(crate) fn again(&self, assigned: &Assigned, not: &[InstanceKey]) -> Option<Open> {
        let chance = self.chance();
        let live = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let same = live.agents.get(&assigned.agent)?.iter().find(|arm| arm.release == assigned.release)?;
        let rest: Vec<&Arc<Slot>> = same.slots.iter().filter(|slot| !not.contains(&slot.instance.key)).collect();
        choose(&rest, chance).map(|slot| slot.enter())
    }

    /// All instances that are named by the table or have open requests.
    pub(crate) fn instances(&self) -> Vec<Arc<Instance>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// 64 bits of chance (`SplitMix64`).
    pub(crate) fn chance(&self) -> u64 {
        let mut bits = self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Forgets what is over: idle connections, instances without requests, releases without figures.
    pub(crate) fn sweep(&self) {
        let named = self.live().named();
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        instances.retain(|key, instance| {
            instance.pool.sweep();
            named.contains(key) || !instance.open().is_empty()
        });
        drop(instances);
        self.figures.sweep();
    }
}

// === impl Live ===

impl Live {
    fn new(
        table: Table,
        digest: Digest,
        boot: &str,
        instances: &mut BTreeMap<InstanceKey, Arc<Instance>>,
        figures: &Registry,
    ) -> Self {
        let mut slot = |instance: &super::table::Instance, agent: &AgentName, release: ReleaseId| {
            let fresh = || Arc::new(Instance::new(instance, agent, release));
            let known = instances.entry((instance.id.clone(), instance.generation)).or_insert_with(fresh);
            // The same name at another place is another process, whoever wrote that.
            if known.address != instance.address || known.release != release || known.protocol != instance.protocol {
                *known = fresh();
            }
            known.slot(table.generation)
        };
        let mut agents = BTreeMap::new();
        for (name, agent) in &table.agents {
            let arms = agent.arms.iter().map(|arm| Arm {
                release: arm.release,
                slots: arm.instances.iter().map(|instance| slot(instance, name, arm.release)).collect(),
                figures: figures.of(name, &arm.release),
            });
            agents.insert(name.clone(), arms.collect());
        }
        let stale = !boot.is_empty() && !table.boot_id.is_empty() && table.boot_id != boot;
        Self { routes: Routes::of(&table), table: Arc::new(table), digest, agents, stale }
    }

    pub(crate) fn named(&self) -> BTreeSet<InstanceKey> {
        let slots = self.agents.values().flatten().flat_map(|arm| &arm.slots);
        slots.map(|slot| slot.instance.key.clone()).collect()
    }

    fn assign(&self, host: &str, path: &str, headers: &HeaderMap, chance: u64) -> Result<(Assigned, Open), Nowhere> {
        let route = self.routes.find(host, path).and_then(|index| self.table.routes.get(index));
        let route = route.ok_or(Nowhere::NoRoute)?;
        let agent = self.table.agents.get(&route.agent).ok_or(Nowhere::NoRoute)?;
        let arms = self.agents.get(&route.agent).ok_or(Nowhere::NoRoute)?;
        if self.stale {
            return Err(Nowhere::NotReady);
        }
        let issue = agent.sticky.as_ref().and_then(|sticky| issue(sticky, headers, chance));
        let drawn = match (&issue, &agent.sticky) {
            // Whoever is given a cookie is placed by it at once.
            (Some((_, value)), Some(sticky)) => assign::place(&sticky.salt, value.as_bytes()),
            (Some(_) | None, Some(_) | None) => assign::scale(low(chance)),
        };
        let index = assign::arm_of(agent, route, headers, drawn).ok_or(Nowhere::NotReady)?;
        let arm = arms.get(index).ok_or(Nowhere::NotReady)?;
        let slot = choose(&arm.slots, chance.rotate_left(17)).ok_or(Nowhere::NotReady)?;
        let mirror = mirrored(agent, arms, arm, chance.rotate_left(41));
        let assigned = Assigned {
            figures: arm.figures.clone(),
            release: arm.release,
            show: agent.show_release,
            issue,
            mirror,
            agent: route.agent.clone(),
        };
        Ok((assigned, slot.enter()))
    }
}

/// The copy that a request has, where it has one.
fn mirrored(agent: &Agent, arms: &[Arm], taken: &Arm, chance: u64) -> Option<Copy> {
    let mirror = agent.mirror.as_ref()?;
    let drawn = (u64::from(low(chance)) * 100) >> 32;
    if taken.release == mirror.to || drawn >= u64::from(mirror.percent) {
        return None;
    }
    let arm = arms.iter().find(|arm| arm.release == mirror.to)?;
    let open = choose(&arm.slots, chance)?.enter();
    Some(Copy { open, figures: arm.figures.clone() })
}

// === impl Assigned ===

impl Assigned {
    /// Whose request it is.
    pub(crate) fn agent(&self) -> &AgentName {
        &self.agent
    }
}

/// The less busy of two that are drawn; those that fail are left out unless there are no others.
fn choose<S: AsRef<Slot>>(slots: &[S], chance: u64) -> Option<&S> {
    let takes = |slot: &&S| !slot.as_ref().instance.is_drained();
    let well = |slot: &&S| takes(slot) && !slot.as_ref().instance.is_ejected();
    if let [only] = slots {
        return Some(only).filter(takes);
    }
    // The last one is never ejected: if all fail, all are asked.
    let mut able: Vec<&S> = slots.iter().filter(well).collect();
    if able.is_empty() {
        able = slots.iter().filter(takes).collect();
    }
    let count = able.len() as u64;
    if count == 0 {
        return None;
    }
    let draw = |chance: u64| able.get(usize::try_from((u64::from(low(chance)) * count) >> 32).unwrap_or(0)).copied();
    let (one, other) = (draw(chance)?, draw(chance >> 32)?);
    Some(if other.as_ref().count() < one.as_ref().count() { other } else { one })
}

/// A cookie for whoever has none.
fn issue(sticky: &Sticky, headers: &HeaderMap, chance: u64) -> Option<(String, String)> {
    match &sticky.by {
        super::table::StickyBy::Cookie(name) if sticky.issue && assign::key(sticky, headers).is_none() => {
            Some((name.clone(), format!("{chance:016x}")))
        }
        super::table::StickyBy::Cookie(_) | super::table::StickyBy::Header(_) | super::table::StickyBy::User(_) => None,
    }
}

fn low(chance: u64) -> u32 {
    u32::try_from(chance & u64::from(u32::MAX)).unwrap_or(0)
}

/// A start for chance that differs between processes; it guards nothing.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::SystemTime::now())
}
