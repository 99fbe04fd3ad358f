//! What a process answers for itself, and how the answers of several become one.

use std::collections::BTreeMap;

use super::{Active, InstanceState, Metrics, ReleaseSeconds, ReleaseState, State};
use crate::model::{AgentName, ReleaseId};
use crate::proxy::figures;
use crate::proxy::live::{Live, Switch};

/// The table in use.
pub(super) fn active(live: &Live) -> Active {
    let (epoch, generation) = live.table.order();
    Active { epoch, generation, digest: live.digest }
}

/// What this process knows of itself.
pub(super) fn state(switch: &Switch, fallback: Option<String>) -> State {
    let live = switch.live();
    let named = live.named();
    let instances = switch.instances().into_iter().map(|instance| {
        let by_table: BTreeMap<u64, u64> =
            instance.open().into_iter().map(|(generation, open)| (generation, open as u64)).collect();
        InstanceState {
            id: instance.key.0.clone(),
            generation: instance.key.1,
            agent: instance.agent.clone(),
            release: instance.release,
            in_flight: by_table.values().sum(),
            by_table,
            listed: named.contains(&instance.key),
            drained: instance.is_drained(),
            ejected: instance.is_ejected(),
        }
    });
    let instances: Vec<InstanceState> = instances.collect();
    let mut open: BTreeMap<(AgentName, ReleaseId), u64> = BTreeMap::new();
    for instance in &instances {
        *open.entry((instance.agent.clone(), instance.release)).or_default() += instance.in_flight;
    }
    let releases = switch.figures.all().into_iter().map(|(agent, release, shared)| {
        let in_flight = open.get(&(agent.clone(), release)).copied().unwrap_or(0);
        ReleaseState { agent, release, counts: *shared.read().total(), in_flight }
    });
    State {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        active: active(&live),
        stale: live.stale,
        fallback,
        releases: releases.collect(),
        instances,
        draining: Vec::new(),
        silent: Vec::new(),
    }
}

/// What this process measured after the second `since`.
pub(super) fn metrics(switch: &Switch, since: u64) -> Metrics {
    let until = figures::second().saturating_sub(1);
    let releases = switch.figures.all().into_iter().filter_map(|(agent, release, shared)| {
        let mut seconds = shared.read().since(since);
        seconds.retain(|second| second.second <= until);
        (!seconds.is_empty()).then_some(ReleaseSeconds { agent, release, seconds })
    });
    Metrics { until, releases: releases.collect() }
}

// === impl State ===

impl State {
    /// Adds what is open and was counted in a process that drains.
    pub(super) fn add(&mut self, other: State) {
        self.draining.push(other.pid);
        for theirs in other.instances {
            let key = (&theirs.id, theirs.generation);
            match self.instances.iter_mut().find(|own| (&own.id, own.generation) == key) {
                Some(own) => {
                    own.in_flight += theirs.in_flight;
                    for (generation, open) in theirs.by_table {
                        *own.by_table.entry(generation).or_default() += open;
                    }
                }
                None if theirs.in_flight > 0 => self.instances.push(InstanceState { listed: false, ..theirs }),
                None => {}
            }
        }
        for theirs in other.releases {
            let key = (&theirs.agent, theirs.release);
            match self.releases.iter_mut().find(|own| (&own.agent, own.release) == key) {
                Some(own) => {
                    own.counts.add(&theirs.counts);
                    own.in_flight += theirs.in_flight;
                }
                None => self.releases.push(theirs),
            }
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Adds what a process that drains measured in the same time.
    pub(super) fn add(&mut self, other: Metrics) {
        for theirs in other.releases {
            let key = (&theirs.agent, theirs.release);
            let Some(own) = self.releases.iter_mut().find(|own| (&own.agent, own.release) == key) else {
                self.releases.push(theirs);
                continue;
            };
            for second in theirs.seconds {
                match own.seconds.binary_search_by_key(&second.second, |own| own.second) {
                    Ok(at) => own.seconds[at].add(&second),
                    Err(at) => own.seconds.insert(at, second),
                }
            }
        }
        // Later seconds than both know are asked for again.
        self.until = self.until.min(other.until);
    }
}
