//! The proxy's table, from what is ready.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde::Deserialize;

use super::view::{Process, Set, View};
use crate::model::AgentName;
use crate::proxy::{Address, Agent, Arm, Drain, Instance, Role, Route, Table, WHOLE};

/// Annotation of a Service: where requests come in.
const ROUTE: &str = "backstay.dev/route";
/// Annotation of a Service: what becomes of open requests.
const DRAIN: &str = "backstay.dev/drain";

/// Hosts and a path that lead to an agent.
#[derive(Debug, Deserialize)]
struct Declared {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default = "root")]
    path: String,
}

#[derive(Debug, Default, Deserialize)]
struct Draining {
    #[serde(default)]
    mode: Drain,
    max: Option<String>,
}

/// What a table was made of.
pub(super) struct Chosen {
    pub(super) table: Table,
    /// The set that serves each agent once the table is in use.
    pub(super) serving: BTreeMap<AgentName, String>,
}

fn root() -> String {
    "/".to_owned()
}

/// The table for what is ready now. `address` is where a Pod answers, `serving` the sets of the table in use.
pub(super) fn choose(
    view: &View,
    processes: &[Process<'_>],
    serving: &BTreeMap<AgentName, String>,
    address: impl Fn(&str) -> Option<Address>,
    empty: Table,
) -> Chosen {
    let mut chosen = Chosen { table: empty, serving: BTreeMap::new() };
    for process in processes.iter().filter(|process| process.carries_traffic) {
        let Some(service) = view.services.iter().find(|service| service.name_any() == process.agent.as_str()) else {
            continue;
        };
        let serves = serving.get(&process.agent).map(String::as_str);
        let set = serving_set(process, serves);
        let mut agent = Agent { drain: draining(service).mode, ..Agent::default() };
        if let Some((set, wanted)) = set
            && let Some(release) = set.release()
        {
            let instances: Vec<_> = set
                .ready(wanted)
                .filter_map(|member| {
                    let id = member.object.name_any();
                    let address = address(&id)?;
                    Some(Instance {
                        generation: launch(member.object.annotations()),
                        id,
                        address,
                        protocol: crate::proxy::Protocol::default(),
                    })
                })
                .collect();
            if !instances.is_empty() {
                agent.arms = vec![Arm { release, role: Role::Stable, weight: WHOLE, instances }];
            }
            chosen.serving.insert(process.agent.clone(), set.object.name_any());
        }
        chosen.table.routes.extend(route(service, &process.agent));
        chosen.table.agents.insert(process.agent.clone(), agent);
    }
    chosen
}

/// Whether an agent that one table sends requests to has nothing ready in the next one.
pub(super) fn loses(last: &Table, next: &Table) -> bool {
    let serves = |table: &Table, agent: &AgentName| table.agents.get(agent).is_some_and(|agent| !agent.arms.is_empty());
    last.agents.keys().any(|agent| serves(last, agent) && !serves(next, agent))
}

/// How long open requests of what left the table may last; none: the supervisor's own bound.
pub(super) fn drain_max(service: &Service) -> Option<std::time::Duration> {
    let max = draining(service).max?;
    let seconds: u64 = max.trim_end_matches('s').parse().ok()?;
    Some(std::time::Duration::from_secs(seconds))
}

/// The number of a launch.
pub(super) fn launch(annotations: &BTreeMap<String, String>) -> u64 {
    annotations.get(super::view::LAUNCH).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The set that requests go to: the new one when all of it is ready, else what serves, and the new one's ready part
/// only where nothing else answers.
fn serving_set<'p>(process: &'p Process<'_>, serves: Option<&str>) -> Option<(&'p Set<'p>, u32)> {
    let wanted = process.wanted();
    let new = process.set(&process.newest());
    let ready = |set: &Set<'_>, wanted: u32| u32::try_from(set.ready(wanted).count()).unwrap_or(u32::MAX);
    let old = serves.and_then(|name| process.set(name)).map(|set| (set, u32::MAX));
    let new = new.map(|set| (set, wanted));
    match (new, old) {
        (Some((set, wanted)), _) if ready(set, wanted) >= wanted => Some((set, wanted)),
        (Some((new, _)), Some((old, _))) if new.object.name_any() == old.object.name_any() => Some((new, wanted)),
        (_, Some((set, all))) if ready(set, all) > 0 => Some((set, all)),
        (Some((set, wanted)), _) if ready(set, wanted) > 0 => Some((set, wanted)),
        (_, old) => old,
    }
}

fn route(service: &Service, agent: &AgentName) -> Option<Route> {
    let text = service.annotations().get(ROUTE);
    let declared = match text {
        Some(text) => serde_json::from_str::<Declared>(text).ok()?,
        None => Declared { hosts: vec![format!("{agent}.localhost")], path: root() },
    };
    Some(Route { hosts: declared.hosts, path: declared.path, agent: agent.clone(), release: None })
}

fn draining(service: &Service) -> Draining {
    let text = service.annotations().get(DRAIN);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ReleaseId;

    #[test]
    fn a_table_loses_who_has_nothing_ready_in_the_next_one() {
        let name: AgentName = "support".parse().expect("a name");
        let arm = Arm { release: ReleaseId::of(b"r"), role: Role::Stable, weight: WHOLE, instances: vec![] };
        let with = |arms: Vec<Arm>| {
            let mut table = Table::empty(1, 1, "boot");
            table.agents.insert(name.clone(), Agent { arms, ..Agent::default() });
            table
        };
        let (serves, waits, gone) = (with(vec![arm]), with(vec![]), Table::empty(1, 2, "boot"));
        assert!(loses(&serves, &waits) && loses(&serves, &gone));
        assert!(!loses(&serves, &serves) && !loses(&waits, &gone) && !loses(&waits, &serves));
    }
}
