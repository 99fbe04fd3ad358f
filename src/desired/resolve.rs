//! All that Git asks of one environment.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::agent::{Place, Resolved, names, sorted};
use super::cache::Cache;
use super::layer::{Layer, refused};
use super::{DesiredAgent, DesiredState, EnvironmentSpec, TargetKind, consents, environment};
use crate::model::{
    AgentName, Diagnostic, Diagnostics, EnvironmentName, ObjectRef, Origin, Revision, Severity, Timestamp,
};
use crate::source::{Checkout, EntryKind, Tree, Verified};

/// Names of nobody that are listed.
const MAX_STRANGERS: usize = 200;
/// Bytes of memory that the agents of one environment may take, about.
const MAX_WEIGHT: usize = 640 << 20;
/// Names that are compared with those of all agents, for a hint.
const MAX_HINTS: usize = 50;
/// Agents that are followed from one to another in search of circles, all together.
const MAX_STEPS: usize = 2_000_000;

/// A tree at a revision.
///
/// The daemon makes one from a [`Verified`] checkout and in no other way.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    revision: &'a Revision,
    tree: &'a dyn Tree,
}

/// What to resolve.
#[derive(Debug)]
pub struct Resolve<'a> {
    /// Which environment.
    pub environment: &'a EnvironmentName,
    /// Where its own file and the consents are read: the followed branch.
    pub head: At<'a>,
    /// Where the agents are read.
    pub tracked: At<'a>,
    /// Agents that are read elsewhere: the pinned ones, and those that `after` holds back.
    pub pinned: &'a BTreeMap<AgentName, At<'a>>,
    /// The time, for models that retire.
    pub now: Timestamp,
    /// What the environment is bound to, where that is known.
    pub target: Option<TargetKind>,
}

// === impl At ===

impl<'a> At<'a> {
    /// A tree that nobody verified: to look at, never to apply.
    pub fn unverified_for_display(revision: &'a Revision, tree: &'a dyn Tree) -> Self {
        Self { revision, tree }
    }
}

impl<'a> From<&'a Verified<Checkout>> for At<'a> {
    fn from(checkout: &'a Verified<Checkout>) -> Self {
        Self { revision: &checkout.revision, tree: &*checkout.tree }
    }
}

/// Resolves one environment.
///
/// # Guarantees
///
/// A bad agent is its own error, and never stops the others. The same trees give the same result, whatever `cache`
/// holds; what did not change since the last time is not read again.
///
/// # Errors
///
/// Of the environment or the repository as a whole: its file, `backstay.yaml`, `variables.yaml`, the folder `agents/`.
pub fn resolve(cache: &mut Cache, request: &Resolve<'_>) -> Result<DesiredState, Diagnostics> {
    let (spec, file) = environment::read(request.head.tree, request.environment)?;
    let tracked = layer(request.tracked, request.environment);
    tracked.repository()?;
    tracked.variables()?;
    let (declared, mut warnings) = declared(request.tracked.tree)?;
    let elsewhere: HashMap<&str, Layer<'_>> =
        request.pinned.values().map(|at| (at.revision.commit.as_str(), layer(*at, request.environment))).collect();
    let wanted = |name: &AgentName| spec.agents.as_ref().is_none_or(|agents| agents.contains(name));
    let pinned = request.pinned.keys().chain(spec.pins.keys());
    let candidates: BTreeSet<AgentName> = declared.iter().chain(pinned).filter(|name| wanted(name)).cloned().collect();
    let (mut read, mut weight) = (BTreeMap::new(), 0_usize);
    for name in candidates {
        if weight > MAX_WEIGHT {
            let message = format!(
                "the agents before it take {weight} bytes of memory, {MAX_WEIGHT} are allowed in one environment"
            );
            let error = Diagnostic::error(Origin::file(format!("agents/{name}")), message);
            read.insert(name, (&tracked, Err(error.hint("divide the agents among several environments").into())));
            continue;
        }
        let layer = match request.pinned.get(&name) {
            Some(at) => elsewhere.get(at.revision.commit.as_str()),
            None => Some(&tracked),
        };
        let pin = spec.pins.get(&name);
        let held = layer.filter(|layer| pin.is_none_or(|pin| *pin == layer.revision.commit));
        let result = match held {
            Some(layer) if layer.id(&format!("agents/{name}")).is_ok_and(|id| id.is_none()) => {
                // Pinned to a commit that does not have it.
                let spot = file.nearest(["spec", "pins", name.as_str()]);
                let missing =
                    spot.error(format!("the agent `{name}` does not exist at {}", layer.revision.commit.short()));
                (layer, Err(missing.into()))
            }
            Some(layer) => (layer, cache.agent(layer, &name, spec.images, request.target)),
            None => {
                let spot = file.nearest(["spec", "pins", name.as_str()]);
                let error = spot.error(format!("the commit that `{name}` is pinned to was not found"));
                (&tracked, Err(error.hint("it must be reachable from a branch or a tag").into()))
            }
        };
        weight += result.1.as_ref().map_or(0, |resolved| resolved.weight);
        read.insert(name, result);
    }
    cache.forget_others(request.environment, |name| read.contains_key(name));
    warnings.extend(strangers(&spec, &file, request, &declared)?);
    let (found, bad_consents) = consents(request.head.tree);
    let consents = found.into_iter().filter(|consent| consent.environment == *request.environment).collect();
    warnings.extend(bad_consents.0);
    let agents = assemble(read, &declared, request.now);
    Ok(DesiredState {
        environment: request.environment.clone(),
        head: request.head.revision.clone(),
        tracked: request.tracked.revision.clone(),
        spec,
        agents,
        consents,
        warnings: sorted(warnings),
    })
}

fn layer<'a>(at: At<'a>, environment: &EnvironmentName) -> Layer<'a> {
    Layer::new(at.revision, at.tree, Some(environment.clone()))
}

/// The agents of a tree, and what else stands beside them.
pub(super) fn declared(tree: &dyn Tree) -> Result<(BTreeSet<AgentName>, Vec<Diagnostic>), Diagnostics> {
    let entries = tree.list("agents").map_err(|error| refused("agents", &error))?;
    let (mut names, mut found) = (BTreeSet::new(), vec![]);
    for entry in entries {
        let origin = Origin::file(format!("agents/{}", entry.name));
        match (entry.kind, entry.name.parse::<AgentName>()) {
            (EntryKind::Folder | EntryKind::Link | EntryKind::Submodule, Ok(name)) => {
                names.insert(name);
            }
            (EntryKind::File, _) if entry.name.starts_with('.') || &*entry.name == "README.md" => {}
            (EntryKind::File, _) => {
                let error = Diagnostic::error(origin, "a file stands where the folders of agents do");
                found.push(error.hint("each agent is a folder with an `agent.yaml`"));
            }
            (_, Err(error)) => found.push(Diagnostic::error(origin, error.to_string())),
        }
    }
    Ok((names, found))
}

/// What the environment names that no agent answers to: entries of its list, pins, overlays.
fn strangers(
    spec: &EnvironmentSpec,
    file: &super::read::Node,
    request: &Resolve<'_>,
    declared: &BTreeSet<AgentName>,
) -> Result<Vec<Diagnostic>, Diagnostics> {
    let hints = Cell::new(MAX_HINTS);
    let near = |name: &str| {
        hints.set(hints.get().checked_sub(1)?);
        super::read::closest(name, declared.iter().map(AgentName::as_str))
    };
    let hinted = |found: Diagnostic, name: &str| match near(name) {
        Some(meant) => found.hint(format!("did you mean `{meant}`?")),
        None => found,
    };
    let mut found = vec![];
    let is_known = |name: &AgentName| declared.contains(name) || request.pinned.contains_key(name);
    for name in spec.agents.iter().flatten().filter(|name| !is_known(name)).take(MAX_STRANGERS) {
        let items = file.at(["spec", "agents"]).and_then(super::read::Node::list).unwrap_or_default();
        let spot = items.iter().find(|item| item.text() == Some(name.as_str())).map_or(&file.spot, |item| &item.spot);
        found.push(hinted(spot.warning(format!("the agent `{name}` does not exist")), name.as_str()));
    }
    let is_none_of_ours = |name: &&AgentName| spec.agents.as_ref().is_some_and(|agents| !agents.contains(*name));
    for name in spec.pins.keys().filter(is_none_of_ours).take(MAX_STRANGERS) {
        let spot = file.nearest(["spec", "pins", name.as_str()]);
        found.push(spot.warning(format!("`{name}` is pinned, and not one of the environment's agents")));
    }
    let folder = format!("environments/{}", request.environment);
    let overlays = request.tracked.tree.list(&folder).map_err(|error| refused(&folder, &error))?;
    for entry in overlays {
        if found.len() >= MAX_STRANGERS {
            break;
        }
        let origin = Origin::file(format!("{folder}/{}", entry.name));
        let Some(stem) = entry.name.strip_suffix(".yaml").filter(|_| entry.kind == EntryKind::File) else {
            if !entry.name.starts_with('.') && &*entry.name != "README.md" {
                let error = Diagnostic::error(origin, "this is no overlay");
                found.push(error.hint("`<agent>.yaml`, `models.yaml` and `variables.yaml` are read here"));
            }
            continue;
        };
        let is_agent = stem.parse::<AgentName>().is_ok_and(|name| is_known(&name));
        if !is_agent && !matches!(stem, "models" | "variables") {
            found.push(hinted(
                Diagnostic::error(origin, format!("the overlay is for an agent `{stem}` that does not exist")),
                stem,
            ));
        }
    }
    Ok(found)
}

type Read<'l, 'a> = BTreeMap<AgentName, (&'l Layer<'a>, Result<Arc<Resolved>, Diagnostics>)>;

/// What each agent is, after all that agents have to do with one another and with the time.
#[expect(clippy::needless_pass_by_value, reason = "what was read ends here")]
fn assemble(
    read: Read<'_, '_>,
    declared: &BTreeSet<AgentName>,
    now: Timestamp,
) -> BTreeMap<AgentName, Result<Arc<DesiredAgent>, Diagnostics>> {
    let good: BTreeMap<&AgentName, &Resolved> =
        read.iter().filter_map(|(name, (_, result))| Some((name, &**result.as_ref().ok()?))).collect();
    let known: BTreeSet<&AgentName> = read.keys().collect();
    let against = conflicts(&good, &known, declared);
    let mut agents = BTreeMap::new();
    for (name, (layer, result)) in &read {
        let agent = result.clone().and_then(|resolved| {
            let mut found = against.get(name).cloned().unwrap_or_default();
            let said = resolved.retirements.iter().filter_map(|retirement| retirement.at(now));
            let (errors, warnings): (Vec<_>, Vec<_>) = said.partition(|said| said.severity == Severity::Error);
            found.extend(errors);
            if !found.is_empty() {
                return Err(sorted(found));
            }
            Ok(Arc::new(DesiredAgent {
                name: name.clone(),
                revision: layer.revision.clone(),
                release: Arc::clone(&resolved.release),
                settings: Arc::clone(&resolved.settings),
                renamed_from: resolved.renamed_from.as_ref().map(|(name, _)| name.clone()),
                origin: resolved.origin.clone(),
                warnings: sorted(resolved.warnings.iter().cloned().chain(warnings).collect()),
            }))
        });
        agents.insert(name.clone(), agent);
    }
    agents
}

/// What agents have against one another: objects declared twice, agents waited for in vain, names taken.
fn conflicts(
    good: &BTreeMap<&AgentName, &Resolved>,
    known: &BTreeSet<&AgentName>,
    declared: &BTreeSet<AgentName>,
) -> BTreeMap<AgentName, Vec<Diagnostic>> {
    let mut against: BTreeMap<AgentName, Vec<Diagnostic>> = BTreeMap::new();
    let mut say = |name: &AgentName, error: Diagnostic| against.entry(name.clone()).or_default().push(error);
    let mut owners: HashMap<&ObjectRef, (&AgentName, &Origin)> = HashMap::new();
    for (name, resolved) in good {
        let declared = resolved.settings.manifests.iter().map(|manifest| (&manifest.object, &manifest.origin));
        let generated = resolved.generated.iter().map(|object| (object, &resolved.origin));
        for (object, origin) in declared.chain(generated) {
            match owners.get(object) {
                Some((other, there)) if other != name => {
                    let twice = |origin: &Origin, other: &AgentName| {
                        let message = format!("`{object}` is declared by the agent `{other}` too");
                        Place::at(origin.clone()).error(message).hint("one object belongs to one agent")
                    };
                    say(name, twice(origin, other));
                    say(other, twice(there, name));
                }
                _ => {
                    owners.insert(object, (name, origin));
                }
            }
        }
    }
    let mut renamed: BTreeMap<&AgentName, &AgentName> = BTreeMap::new();
    let (mut hints, mut steps) = (MAX_HINTS, MAX_STEPS);
    let waiting = never_ready(good);
    for (name, resolved) in good {
        if let Some((from, place)) = &resolved.renamed_from {
            if declared.contains(from) {
                let error = place.error(format!("the agent `{from}` still exists: this cannot be its new name"));
                say(name, error.hint("take its folder away in the same commit, or this line"));
            } else if let Some(other) = renamed.insert(from, name) {
                say(name, place.error(format!("`{other}` says that it was `{from}` too")));
            }
        }
        for (on, place) in &resolved.depends_on {
            if !known.contains(on) {
                let error = place.error(format!("the agent `{on}` is not in this environment"));
                let names = known.iter().map(|name| name.as_str()).filter(|_| hints > 0);
                let meant = super::read::closest(on.as_str(), names);
                hints = hints.saturating_sub(1);
                say(
                    name,
                    match meant {
                        Some(meant) if meant != name.as_str() => error.hint(format!("did you mean `{meant}`?")),
                        _ => error,
                    },
                );
            }
        }
        if !waiting.contains(name) {
            continue;
        }
        if let Some((circle, place)) = circle(name, good, &mut steps) {
            say(name, place.error(format!("agents wait for one another in a circle: {}", names(circle))));
        } else if let (0, Some((_, place))) = (steps, resolved.depends_on.first()) {
            say(name, place.error("agents wait for one another in a circle, in more ways than can be followed"));
        }
    }
    against
}

/// The agents that wait, through others, for some that wait for one another in a circle.
fn never_ready<'a>(good: &BTreeMap<&'a AgentName, &'a Resolved>) -> BTreeSet<&'a AgentName> {
    let mut waiters: BTreeMap<&AgentName, Vec<&'a AgentName>> = BTreeMap::new();
    let mut lacks: BTreeMap<&'a AgentName, usize> = BTreeMap::new();
    for (name, resolved) in good {
        let on: BTreeSet<&AgentName> =
            resolved.depends_on.iter().map(|(on, _)| on).filter(|on| good.contains_key(*on)).collect();
        lacks.insert(name, on.len());
        on.into_iter().for_each(|on| waiters.entry(on).or_default().push(name));
    }
    let mut ready: Vec<&AgentName> = lacks.iter().filter(|(_, lacks)| **lacks == 0).map(|(name, _)| *name).collect();
    while let Some(name) = ready.pop() {
        lacks.remove(name);
        for waiter in waiters.remove(name).unwrap_or_default() {
            if let Some(lacking) = lacks.get_mut(waiter) {
                *lacking -= 1;
                if *lacking == 0 {
                    ready.push(waiter);
                }
            }
        }
    }
    lacks.into_keys().collect()
}

/// The agents through which `name` waits for itself, if it does.
fn circle<'a>(
    name: &AgentName,
    good: &BTreeMap<&'a AgentName, &'a Resolved>,
    steps: &mut usize,
) -> Option<(Vec<&'a AgentName>, &'a Place)> {
    let (start, resolved) = good.get_key_value(name)?;
    for (first, place) in &resolved.depends_on {
        let (mut seen, mut next) = (BTreeMap::new(), vec![first]);
        while let Some(at) = next.pop() {
            let Some((at, there)) = good.get_key_value(at) else { continue };
            for (further, _) in &there.depends_on {
                *steps = steps.saturating_sub(1);
                if *steps == 0 {
                    return None;
                }
                if further == name {
                    let mut way = vec![*at];
                    while let Some(before) = seen.get(way[way.len() - 1]) {
                        way.push(*before);
                    }
                    way.push(start);
                    way.reverse();
                    return Some((way, place));
                }
                if !seen.contains_key(further) && further != first {
                    seen.insert(further, *at);
                    next.push(further);
                }
            }
        }
    }
    None
}
