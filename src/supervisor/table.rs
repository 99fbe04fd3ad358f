//! The proxy's table, from what is ready.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde::Deserialize;

use super::arms::{Side, arms};
use super::http_route::Asked;
use super::view::{Process, Set, View};
use crate::desired::rollout::Field;
use crate::model::{AgentName, ReleaseId};
use crate::proxy::{Address, Agent, Arm, Drain, Match, Mirror, Role, Route, Sticky, StickyBy, Table};
use crate::render::{DRAIN_ANNOTATION, ROUTE_ANNOTATION};

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

/// By Deployment, the set of it that requests go to.
pub(super) type Serving = BTreeMap<String, String>;

/// What a table was made of.
pub(super) struct Chosen {
    pub(super) table: Table,
    /// What serves once the table is in use.
    pub(super) serving: Serving,
    /// What is to be said of each HTTPRoute once the table is in use.
    pub(super) words: BTreeMap<AgentName, Word>,
    /// Releases that a route sends requests to, and of which nothing is ready.
    short: Vec<(AgentName, ReleaseId)>,
}

/// What becomes of an HTTPRoute in a table; where nothing is wrong, all that it asks for is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// Of the HTTPRoute.
    pub(super) generation: i64,
    /// What it asks for is nothing that a table can have.
    pub(super) refused: Option<String>,
    /// A backend is not there.
    pub(super) missing: Option<String>,
    /// Nothing of a backend is ready that requests are to be sent to.
    pub(super) short: Option<String>,
}

fn root() -> String {
    "/".to_owned()
}

/// The table for what is ready now. `address` is where a Pod answers, `serving` what serves by the table in use.
pub(super) fn choose(
    view: &View,
    processes: &[Process<'_>],
    serving: &Serving,
    address: impl Fn(&str) -> Option<Address>,
    empty: Table,
) -> Chosen {
    let mut chosen = Chosen { table: empty, serving: BTreeMap::new(), words: BTreeMap::new(), short: vec![] };
    let mut mains: BTreeMap<AgentName, Vec<&Process<'_>>> = BTreeMap::new();
    for process in processes.iter().filter(|process| process.carries_traffic) {
        mains.entry(process.agent.clone()).or_default().push(process);
    }
    let routed = view.routes.iter().filter_map(|route| route.name_any().parse().ok());
    for name in routed.filter(|name| view.route(name).is_some()) {
        mains.entry(name).or_default();
    }
    let mut previews = vec![];
    for (name, mains) in mains {
        let asked = view.route(&name).map(|route| (route.generation(), route.asked()));
        let mut agent = Agent { drain: draining(view, &name).mode, ..Agent::default() };
        match asked {
            Some((generation, asked)) => {
                let mut word = Word { generation, refused: asked.unreadable.clone(), ..Word::default() };
                let sides = sides(view, &mains, &asked, serving, &address);
                // A route that names nobody who is there takes the requests from nobody.
                if sides.iter().any(|side| side.process.is_some()) {
                    previews.extend(split(&name, &mut agent, &sides, &asked, &mut word, &mut chosen));
                } else {
                    chosen.by_service(view, &name, &mut agent, &mains, serving, &address);
                }
                let gone = sides.iter().find(|side| side.process.is_none());
                word.missing = match gone {
                    Some(side) => Some(format!("there is no Deployment behind the Service `{}`", side.name)),
                    None => sides.is_empty().then(|| "it names no backend".to_owned()),
                };
                chosen.words.insert(name.clone(), word);
            }
            None => chosen.by_service(view, &name, &mut agent, &mains, serving, &address),
        }
        chosen.table.routes.extend(route(view, &name));
        chosen.table.agents.insert(name, agent);
    }
    // A host that is taken already takes no other host's route away.
    for preview in previews {
        let name = preview.agent.clone();
        chosen.table.routes.push(preview);
        if let Err(error) = chosen.table.check() {
            chosen.table.routes.pop();
            chosen.words.entry(name).or_default().refused.get_or_insert(error.to_string());
        }
    }
    chosen
}

// === impl Chosen ===

impl Chosen {
    /// Everything to the one Deployment that the agent's Service selects.
    fn by_service(
        &mut self,
        view: &View,
        name: &AgentName,
        agent: &mut Agent,
        mains: &[&Process<'_>],
        serving: &Serving,
        address: &impl Fn(&str) -> Option<Address>,
    ) {
        let Some(process) = selected(view, name, mains, serving) else { return };
        let side = Side::of(name.to_string(), 1, Some(process), serving, address);
        self.serving.extend(side.serving());
        agent.arms = arms(&[side]);
    }

    /// Whether a release that a route sends requests to would lose the instances that a table has of it.
    pub(super) fn is_short_of(&self, last: &Table) -> bool {
        self.short.iter().any(|(agent, release)| {
            let arm = last.agents.get(agent).and_then(|agent| agent.arm(release));
            arm.is_some_and(|arm| !arm.instances.is_empty())
        })
    }
}

/// The sides of a route, in its order.
fn sides<'p>(
    view: &View,
    mains: &[&'p Process<'p>],
    asked: &Asked,
    serving: &Serving,
    address: &impl Fn(&str) -> Option<Address>,
) -> Vec<Side<'p>> {
    let behind = |service: &str| mains.iter().find(|process| view.selects(service, process)).copied();
    let backends = asked.backends.iter();
    let sides = backends.map(|backend| {
        Side::of(backend.name.clone(), u64::from(backend.weight), behind(&backend.name), serving, address)
    });
    sides.collect()
}

/// Splits an agent's requests as its route asks; gives the route of its preview.
fn split(
    name: &AgentName,
    agent: &mut Agent,
    sides: &[Side<'_>],
    asked: &Asked,
    word: &mut Word,
    chosen: &mut Chosen,
) -> Option<Route> {
    chosen.serving.extend(sides.iter().filter_map(Side::serving));
    agent.arms = arms(sides);
    let candidate = sides.get(1);
    let mirrored = candidate.is_some_and(|side| asked.mirror.as_ref() == Some(&side.name));
    let further = mirrored || asked.split.reach.is_some() || asked.split.preview.is_some();
    for (index, side) in sides.iter().enumerate().filter(|(_, side)| side.instances.is_empty()) {
        if side.weight > 0 || index == 1 && further {
            word.short.get_or_insert_with(|| format!("nothing of `{}` is ready", side.name));
            chosen.short.extend(side.release.map(|release| (name.clone(), release)));
        }
    }
    let release = candidate.and_then(|side| side.release);
    let ready = release.filter(|release| agent.arm(release).is_some_and(|arm| !arm.instances.is_empty()));
    agent.sticky = asked.split.sticky.as_ref().map(|field| sticky(name, field));
    if let Some(release) = ready {
        agent.mirror = mirrored.then_some(Mirror { to: release, percent: 100 });
        agent.matches = asked.split.reach.iter().map(|reach| matched(reach, release)).collect();
    }
    // What no proxy takes is left out, so that the weights are kept at least.
    if let Err(error) = alone(name, agent).check() {
        word.refused.get_or_insert(error.to_string());
        (agent.sticky, agent.mirror, agent.matches) = (None, None, vec![]);
    }
    let (host, release) = (asked.split.preview.clone()?, release?);
    // Beside others it is there without an instance too: nobody answers in its place.
    if ready.is_none() && !agent.arms.is_empty() && agent.arm(&release).is_none() {
        agent.arms.push(Arm { release, role: Role::Preview, weight: 0, instances: vec![] });
    }
    agent.arm(&release)?;
    Some(Route { hosts: vec![host], path: root(), agent: name.clone(), release: Some(release) })
}

/// A table with one agent.
fn alone(name: &AgentName, agent: &Agent) -> Table {
    let mut table = Table::empty(0, 0, "");
    table.agents.insert(name.clone(), agent.clone());
    table
}

/// What keeps a user with one release. The agent's own header or cookie names the user: none is given out.
fn sticky(name: &AgentName, field: &Field) -> Sticky {
    let by = match field {
        Field::Header(header) => StickyBy::Header(header.to_ascii_lowercase()),
        Field::Cookie(cookie) => StickyBy::Cookie(cookie.clone()),
    };
    Sticky { by, salt: name.to_string(), issue: false }
}

fn matched(reach: &crate::desired::rollout::Match, release: ReleaseId) -> Match {
    let (header, cookie) = match &reach.field {
        Field::Header(header) => (header.to_ascii_lowercase(), None),
        Field::Cookie(cookie) => ("cookie".to_owned(), Some(cookie.clone())),
    };
    Match { header, cookie, value: Some(reach.value.clone()), release }
}

/// The one Deployment that gets everything where no route says otherwise: what the Service selects, once that is whole;
/// until then what serves.
fn selected<'p>(
    view: &View,
    name: &AgentName,
    mains: &[&'p Process<'p>],
    serving: &Serving,
) -> Option<&'p Process<'p>> {
    if let [only] = mains {
        return Some(only);
    }
    let serves = |process: &&&Process<'_>| {
        let set = serving.get(&process.deployment.name_any()).and_then(|set| process.set(set));
        set.is_some_and(|set| set.ready(u32::MAX).next().is_some())
    };
    let is_whole = |process: &&Process<'_>| {
        let ready = process.set(&process.newest()).map_or(0, |set| set.ready(process.wanted()).count());
        process.wanted() > 0 && u32::try_from(ready).unwrap_or(u32::MAX) >= process.wanted()
    };
    let wanted = mains.iter().find(|process| view.selects(name.as_str(), process)).copied();
    match wanted {
        Some(wanted) if is_whole(&wanted) || serves(&&wanted) => Some(wanted),
        Some(_) | None => mains.iter().find(serves).copied().or(wanted).or_else(|| mains.first().copied()),
    }
}

/// Whether an agent that one table sends requests to has nothing ready in the next one.
pub(super) fn loses(last: &Table, next: &Table) -> bool {
    let serves = |table: &Table, agent: &AgentName| table.agents.get(agent).is_some_and(|agent| !agent.arms.is_empty());
    last.agents.keys().any(|agent| serves(last, agent) && !serves(next, agent))
}

/// Whether a table names an instance.
pub(super) fn names(table: &Table, pod: &str) -> bool {
    let arms = table.agents.values().flat_map(|agent| &agent.arms);
    arms.flat_map(|arm| &arm.instances).any(|instance| instance.id == pod)
}

/// What serves by a table: Pods are named after their set, and sets after their Deployment.
pub(super) fn serving_of(table: &Table) -> Serving {
    let ids = table.agents.values().flat_map(|agent| &agent.arms).filter_map(|arm| arm.instances.first());
    let sets = ids.filter_map(|instance| Some(instance.id.rsplit_once('-')?.0));
    sets.filter_map(|set| Some((set.rsplit_once('-')?.0.to_owned(), set.to_owned()))).collect()
}

/// How long open requests of what left the table may last; none: the supervisor's own bound.
pub(super) fn drain_max(view: &View, agent: &AgentName) -> Option<std::time::Duration> {
    let max = draining(view, agent).max?;
    let seconds: u64 = max.trim_end_matches('s').parse().ok()?;
    Some(std::time::Duration::from_secs(seconds))
}

/// The number of a launch.
pub(super) fn launch(annotations: &BTreeMap<String, String>) -> u64 {
    annotations.get(super::view::LAUNCH).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The set that requests go to: the new one when all of it is ready, else what serves, and the new one's ready part
/// only where nothing else answers.
pub(super) fn serving_set<'p>(process: &'p Process<'_>, serves: Option<&str>) -> Option<(&'p Set<'p>, u32)> {
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

/// An annotation of the agent's HTTPRoute, else of its Service.
fn annotation<'v>(view: &'v View, agent: &AgentName, key: &str) -> Option<&'v str> {
    let of_route = view.route(agent).and_then(|route| route.annotations().get(key));
    of_route.or_else(|| view.service(agent.as_str())?.annotations().get(key)).map(String::as_str)
}

fn route(view: &View, agent: &AgentName) -> Option<Route> {
    let declared = match annotation(view, agent, ROUTE_ANNOTATION) {
        Some(text) => serde_json::from_str::<Declared>(text).ok()?,
        None => Declared { hosts: vec![format!("{agent}.localhost")], path: root() },
    };
    Some(Route { hosts: declared.hosts, path: declared.path, agent: agent.clone(), release: None })
}

fn draining(view: &View, agent: &AgentName) -> Draining {
    let text = annotation(view, agent, DRAIN_ANNOTATION);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::WHOLE;

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
