//! A whole repository at once: what `backstay validate` says.

use std::collections::BTreeMap;

use super::agent::sorted;
use super::layer::Layer;
use super::resolve::declared;
use super::{At, Cache, EnvironmentSpec, ImagePolicy, Resolve, consents, environment, environments, resolve};
use crate::model::{
    AgentName, CommitId, Diagnostic, Diagnostics, EnvironmentName, Origin, Revision, Severity, Timestamp,
};
use crate::source::{EntryKind, Tree};

/// All that is wrong with a repository: every environment, every agent in each of them, every consent.
///
/// Each environment is looked at as if it followed this tree; pins and `after`, which lead to other commits, are
/// taken as met. What several environments share is said once. Warnings are among it.
pub fn validate(tree: &dyn Tree, now: Timestamp) -> Diagnostics {
    let Some(revision) = somewhere() else { return Diagnostics::default() };
    let mut found = vec![];
    let alone = Layer::new(&revision, tree, None);
    // Said here once, instead of by each environment.
    let repository = alone.repository().err();
    let usable = repository.is_none();
    found.extend(repository.into_iter().flat_map(|errors| errors.0));
    found.extend(alone.catalogue().err().into_iter().flat_map(|errors| errors.0));
    found.extend(consents(tree).1.0);
    let agents = match declared(tree) {
        Ok((agents, strangers)) => {
            found.extend(strangers);
            agents
        }
        Err(errors) => {
            found.extend(errors.0);
            return sorted(found);
        }
    };
    let names = match environments(tree) {
        Ok(names) => names,
        Err(errors) => {
            found.extend(errors.0);
            vec![]
        }
    };
    found.extend(folders_without_a_file(tree, &names));
    let mut cache = Cache::default();
    let mut looked_at = std::collections::BTreeSet::new();
    for name in &names {
        let spec = match environment(tree, name) {
            Ok(spec) => spec,
            Err(errors) => {
                found.extend(errors.0);
                continue;
            }
        };
        if usable {
            looked_at.extend(agents.iter().filter(|agent| takes(&spec, agent)).cloned());
            found.extend(in_environment(&mut cache, tree, name, &spec, now));
        }
    }
    // An agent that no environment takes is looked at alone.
    for name in agents.difference(&looked_at).filter(|_| usable) {
        match cache.agent(&alone, name, ImagePolicy::Tags, None) {
            Ok(agent) => {
                found.extend(agent.warnings.iter().cloned());
                found.extend(agent.retirements.iter().filter_map(|retirement| retirement.at(now)));
            }
            Err(errors) => found.extend(errors.0),
        }
    }
    sorted(found)
}

fn takes(spec: &EnvironmentSpec, agent: &AgentName) -> bool {
    spec.agents.as_ref().is_none_or(|agents| agents.contains(agent))
}

/// A revision for what is in no commit yet.
fn somewhere() -> Option<Revision> {
    let commit: CommitId = "0".repeat(40).parse().ok()?;
    Some(Revision { reference: "HEAD".to_owned(), commit })
}

fn in_environment(
    cache: &mut Cache,
    tree: &dyn Tree,
    name: &EnvironmentName,
    spec: &EnvironmentSpec,
    now: Timestamp,
) -> Vec<Diagnostic> {
    // Each pinned agent as it stands here.
    let pins: BTreeMap<&AgentName, Revision> = spec
        .pins
        .iter()
        .map(|(agent, commit)| (agent, Revision { reference: "HEAD".to_owned(), commit: commit.clone() }))
        .collect();
    let Some(revision) = somewhere() else { return vec![] };
    let at = At::unverified_for_display(&revision, tree);
    let exists = |agent: &AgentName| tree.find(&format!("agents/{agent}")).is_ok_and(|found| found.is_some());
    let pinned = pins
        .iter()
        .filter(|(agent, _)| exists(agent))
        .map(|(agent, revision)| ((*agent).clone(), At::unverified_for_display(revision, tree)))
        .collect();
    let mut found = vec![];
    let request = Resolve { environment: name, head: at, tracked: at, pinned: &pinned, now, target: None };
    match resolve(cache, &request) {
        Err(errors) => found.extend(errors.0),
        Ok(state) => {
            // What an environment lists must be here, where both are one commit.
            let stricter = |warning: Diagnostic| {
                let listed = warning.severity == Severity::Warning && warning.origin.file == spec.origin.file;
                Diagnostic { severity: if listed { Severity::Error } else { warning.severity }, ..warning }
            };
            found.extend(state.warnings.0.into_iter().map(stricter));
            for (agent, result) in state.agents {
                let pinned_elsewhere = spec.pins.contains_key(&agent) && !pinned.contains_key(&agent);
                match result {
                    Ok(agent) => found.extend(agent.warnings.0.iter().cloned()),
                    // It may live at the commit that it is pinned to.
                    Err(_) if pinned_elsewhere => {}
                    Err(errors) => found.extend(errors.0),
                }
            }
        }
    }
    found
}

/// Overlays of an environment that is not there are read by nobody.
fn folders_without_a_file(tree: &dyn Tree, names: &[EnvironmentName]) -> Vec<Diagnostic> {
    let folders =
        tree.list("environments").unwrap_or_default().into_iter().filter(|entry| entry.kind == EntryKind::Folder);
    let lonely = folders.filter(|entry| !names.iter().any(|name| name.as_str() == &*entry.name));
    let error = |entry: crate::source::Entry| {
        let origin = Origin::file(format!("environments/{}", entry.name));
        let error = Diagnostic::error(
            origin,
            format!("the folder belongs to no environment: `{}.yaml` is missing beside it", entry.name),
        );
        match super::read::closest(&entry.name, names.iter().map(EnvironmentName::as_str)) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error,
        }
    };
    lonely.map(error).collect()
}
