//! What the later of two commits changes, in each environment, by component: pure Git.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::markdown;
use crate::cli::verbs::Known;
use crate::cli::{CliError, Exit, Format, Out};
use crate::desired::{
    At, Break, Cache, Change, ChangeKind, Component, ComponentChanges, DesiredAgent, DesiredState, Resolve, Track,
    compare, environments, resolve,
};
use crate::model::{AgentName, Diagnostics, EnvironmentName, Revision, Severity, Timestamp};
use crate::source::{Checkout, SourceError, Store};

/// What the later commit changes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Between {
    pub(super) from: Revision,
    pub(super) to: Revision,
    pub(super) environments: Vec<Environment>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Environment {
    #[serde(rename = "environment")]
    pub(super) name: EnvironmentName,
    /// When the change gets there, where that is not at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) when: Option<String>,
    /// Why the environment cannot be read at the later commit.
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) errors: Diagnostics,
    pub(super) agents: Vec<Agent>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Agent {
    #[serde(rename = "agent")]
    pub(super) name: AgentName,
    pub(super) what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) changes: BTreeSet<Change>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) breaks: BTreeSet<Break>,
    /// How it is taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) way_back: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) errors: Diagnostics,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) warnings: Diagnostics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum What {
    /// It is new.
    Added,
    /// Another release of it runs.
    Release,
    /// The same release, otherwise.
    Settings,
    /// It goes.
    Removed,
    /// It cannot be used: what runs stays as it is.
    Invalid,
}

fn is_empty(diagnostics: &Diagnostics) -> bool {
    diagnostics.0.is_empty()
}

/// Reads both commits, and compares every agent of every environment.
pub(super) fn between(
    repo: &Path,
    from: &str,
    to: &str,
    agent: Option<&AgentName>,
    environment: Option<&EnvironmentName>,
) -> Result<Between, CliError> {
    let store = Store::open(repo).map_err(|error| {
        let missing = matches!(error, SourceError::NoRepository { .. });
        let error = CliError::from(error);
        if missing { error.hint("name it with `--repo FOLDER`") } else { error }
    })?;
    let (from, to) = (store.revision(from)?, store.revision(to)?);
    let (old, new) = (store.checkout(&from)?, store.checkout(&to)?);
    let of = |checkout: &Checkout| environments(&*checkout.tree);
    let after = of(&new).map_err(|found| {
        CliError::invalid(Exit::No, format!("the environments cannot be read at {}", to.commit.short()), found)
    })?;
    // What the earlier commit got wrong is mended by the later one, or said of it.
    let all: BTreeSet<_> = after.into_iter().chain(of(&old).unwrap_or_default()).collect();
    if let Some(wanted) = environment.filter(|wanted| !all.contains(*wanted)) {
        let known: Known = all.iter().map(EnvironmentName::as_str).collect();
        let message = format!("neither commit has an environment `{wanted}`");
        return Err(CliError::usage(message).hint(known.hint(wanted.as_str())));
    }
    let mut reader = Reader { store: &store, now: Timestamp::now(), old: Cache::default(), new: Cache::default() };
    let mut found = Vec::new();
    let (mut seen, mut names) = (false, BTreeSet::new());
    for name in all.iter().filter(|name| environment.is_none_or(|wanted| wanted == *name)) {
        let one = reader.environment(name, &old, &new, &mut names);
        let mut one = one;
        if let Some(agent) = agent {
            seen |= names.contains(agent);
            one.agents.retain(|found| found.name == *agent);
        }
        found.push(one);
    }
    if let (Some(agent), false) = (agent, seen) {
        let known: Known = names.iter().map(AgentName::as_str).collect();
        let message = format!("neither commit has an agent `{agent}` there");
        return Err(CliError::usage(message).hint(known.hint(agent.as_str())));
    }
    Ok(Between { from, to, environments: found })
}

struct Reader<'a> {
    store: &'a Store,
    now: Timestamp,
    old: Cache,
    new: Cache,
}

impl Reader<'_> {
    fn environment(
        &mut self,
        name: &EnvironmentName,
        old: &Checkout,
        new: &Checkout,
        names: &mut BTreeSet<AgentName>,
    ) -> Environment {
        let before = read(self.store, &mut self.old, name, old, self.now).ok();
        let after = match read(self.store, &mut self.new, name, new, self.now) {
            Ok(after) => after,
            Err(errors) => return Environment { name: name.clone(), when: None, errors, agents: vec![] },
        };
        let mut agents = Vec::new();
        let no_agents = BTreeMap::new();
        let earlier = before.as_ref().map_or(&no_agents, |state| &state.agents);
        let all: BTreeSet<&AgentName> = earlier.keys().chain(after.agents.keys()).collect();
        for agent in all {
            names.insert(agent.clone());
            let was = earlier.get(agent).and_then(|was| was.as_ref().ok());
            agents.extend(agent_change(agent, was.map(AsRef::as_ref), after.agents.get(agent)));
        }
        let errors = after.warnings.0.iter().filter(|found| found.severity == Severity::Error).cloned().collect();
        Environment { name: name.clone(), when: when(&after), errors: Diagnostics(errors), agents }
    }
}

fn read(
    store: &Store,
    cache: &mut Cache,
    environment: &EnvironmentName,
    checkout: &Checkout,
    now: Timestamp,
) -> Result<DesiredState, Diagnostics> {
    let spec = crate::desired::environment(&*checkout.tree, environment)?;
    // A commit that is not there is an error of the agents that are pinned to it, told by `resolve`.
    let pins: Vec<_> = spec
        .pins
        .iter()
        .filter_map(|(agent, commit)| {
            let revision = store.pinned(commit).ok()?;
            Some((agent.clone(), store.checkout(&revision).ok()?))
        })
        .collect();
    let at = At::unverified_for_display(&checkout.revision, &*checkout.tree);
    let pinned = pins
        .iter()
        .map(|(agent, checkout)| (agent.clone(), At::unverified_for_display(&checkout.revision, &*checkout.tree)));
    let request = Resolve { environment, head: at, tracked: at, pinned: &pinned.collect(), now, target: None };
    resolve(cache, &request)
}

/// When a change of the branch gets to the environment.
fn when(state: &DesiredState) -> Option<String> {
    let follows = match &state.spec.track {
        None | Some(Track::Branch(_)) => None,
        Some(Track::Tag(tag)) => Some(format!("it follows the tag `{tag}`: once that is moved")),
        Some(Track::Tags { pattern, .. }) => Some(format!("it follows the tags `{pattern}`: with the next one")),
    };
    let after = state.spec.after.as_ref().map(|after| {
        format!("once it has been stable in `{}` for {} s", after.environment, after.stable_for.as_secs())
    });
    match (follows, after) {
        (Some(follows), Some(after)) => Some(format!("{follows}, {after}")),
        (follows, after) => follows.or(after),
    }
}

fn agent_change(
    name: &AgentName,
    was: Option<&DesiredAgent>,
    is: Option<&Result<std::sync::Arc<DesiredAgent>, Diagnostics>>,
) -> Option<Agent> {
    let short = |agent: &DesiredAgent| agent.release.id.short();
    let mut change = Agent {
        name: name.clone(),
        what: What::Added,
        from: was.map(short),
        to: None,
        changes: BTreeSet::new(),
        breaks: BTreeSet::new(),
        way_back: None,
        errors: Diagnostics::default(),
        warnings: Diagnostics::default(),
    };
    match (was, is) {
        (None, None) => return None,
        (Some(_), None) => {
            change.what = What::Removed;
            change.way_back = Some("a revert declares it again, and its objects are made anew".to_owned());
        }
        (_, Some(Err(errors))) => {
            change.what = What::Invalid;
            change.errors = errors.clone();
        }
        (None, Some(Ok(is))) => {
            change.to = Some(short(is));
            change.warnings = is.warnings.clone();
            change.way_back = Some("a revert removes it".to_owned());
        }
        (Some(was), Some(Ok(is))) => {
            let changes = compare(was, is);
            if changes.is_empty() {
                return None;
            }
            change.what = if was.release.id == is.release.id { What::Settings } else { What::Release };
            change.to = Some(short(is));
            change.way_back = Some(way_back(was, &changes));
            change.warnings = is.warnings.clone();
            ComponentChanges { changes: change.changes, breaks: change.breaks } = changes;
        }
    }
    Some(change)
}

fn way_back(was: &DesiredAgent, changes: &ComponentChanges) -> String {
    let migrated = changes.components().contains(&Component::Memory);
    let memory = if migrated { "; migrations are not run in either direction by this version" } else { "" };
    if changes.is_release() {
        format!("a revert brings `{}` back{memory}", was.release.id)
    } else {
        "a revert applies the settings of before, in place".to_owned()
    }
}

impl Between {
    /// Whether something at the later commit cannot be used.
    pub(super) fn is_invalid(&self) -> bool {
        let invalid =
            |one: &Environment| one.errors.has_errors() || one.agents.iter().any(|agent| agent.what == What::Invalid);
        self.environments.iter().any(invalid)
    }

    /// Whether anything would change.
    pub(super) fn is_change(&self) -> bool {
        self.environments.iter().any(|one| !one.agents.is_empty())
    }
}

pub(super) fn print(found: &Between, out: &mut Out) -> Result<(), CliError> {
    match out.format {
        Format::Json => out.json(found),
        Format::Markdown => out.line(markdown::of(found).trim_end()),
        Format::Text => {
            for (n, one) in found.environments.iter().enumerate() {
                if n > 0 {
                    out.line("")?;
                }
                lines(one).into_iter().try_for_each(|line| out.line(line))?;
                for agent in &one.agents {
                    if !agent.errors.0.is_empty() {
                        out.show(&agent.errors)?;
                    }
                }
                if !one.errors.0.is_empty() {
                    out.show(&one.errors)?;
                }
            }
            Ok(())
        }
    }
}

fn lines(one: &Environment) -> Vec<String> {
    let mut lines = vec![one.name.to_string()];
    lines.extend(one.when.iter().map(|when| format!("  {when}")));
    if one.agents.is_empty() && one.errors.0.is_empty() {
        lines.push("  nothing changes".to_owned());
    }
    for agent in &one.agents {
        lines.push(format!("  {} {}  {}", mark(agent.what), agent.name, releases(agent)));
        lines
            .extend(agent.changes.iter().map(|change| format!("      {} {}", change_mark(change.kind), named(change))));
        lines.extend(agent.breaks.iter().map(|found| {
            let sure = if found.certain { "breaks" } else { "may break" };
            format!("      ! {sure} {}: {}", label(found.component, &found.name), found.why)
        }));
        lines.extend(agent.warnings.0.iter().map(|warning| format!("      ! {}", warning.message)));
        lines.extend(agent.way_back.iter().map(|way| format!("      way back: {way}")));
    }
    lines
}

/// The releases of before and after, as people read them.
pub(super) fn releases(agent: &Agent) -> String {
    match (agent.what, &agent.from, &agent.to) {
        (What::Invalid, Some(from), _) => format!("cannot be used; {from} stays"),
        (What::Invalid, None, _) => "cannot be used".to_owned(),
        (What::Removed, Some(from), _) => format!("{from} goes"),
        (What::Settings, _, Some(to)) => format!("{to}, other settings"),
        (_, Some(from), Some(to)) => format!("{from} -> {to}"),
        (_, None, Some(to)) => format!("{to}, new"),
        (_, from, None) => from.clone().unwrap_or_default(),
    }
}

fn mark(what: What) -> char {
    match what {
        What::Added => '+',
        What::Release | What::Settings => '~',
        What::Removed => '-',
        What::Invalid => '!',
    }
}

fn change_mark(kind: ChangeKind) -> char {
    match kind {
        ChangeKind::Added => '+',
        ChangeKind::Changed => '~',
        ChangeKind::Removed => '-',
    }
}

/// `prompts/system`, or `code` where the part has no parts.
pub(super) fn named(change: &Change) -> String {
    label(change.component, &change.name)
}

pub(super) fn label(component: Component, name: &str) -> String {
    let component = match component {
        Component::Code => "code",
        Component::Prompts => "prompts",
        Component::Models => "models",
        Component::Tools => "tools",
        Component::Memory => "memory",
        Component::Config => "config",
        Component::Workload => "workload",
        Component::Settings => "settings",
    };
    if name.is_empty() { component.to_owned() } else { format!("{component}/{name}") }
}
