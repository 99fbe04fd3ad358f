//! `environments/<name>.yaml`.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;

use super::agent::sorted;
use super::layer::{refused, source};
use super::read::{MAX_BYTES, Node, Period, check, closest, list_of, one_document};
use super::written::{self, TrackSpec, WriteBackSpec};
use super::{After, EnvironmentSpec, Freeze, Track, Waves, WriteBack};
use crate::model::{AgentName, Diagnostic, Diagnostics, EnvironmentName, Origin};
use crate::source::{EntryKind, Tree};

/// Environments that one may wait for another behind.
const MAX_CHAIN: usize = 16;
/// The longest freeze.
const LONGEST_FREEZE: Duration = Duration::from_hours(24 * 366);

/// The environments that a tree declares, sorted by name.
///
/// # Errors
///
/// When the folder cannot be listed, or a file in it has a name that no environment can have.
pub fn environments(tree: &dyn Tree) -> Result<Vec<EnvironmentName>, Diagnostics> {
    let entries = tree.list("environments").map_err(|error| refused("environments", &error))?;
    let (mut names, mut found) = (vec![], vec![]);
    for entry in entries {
        let origin = Origin::file(format!("environments/{}", entry.name));
        match (entry.kind, entry.name.strip_suffix(".yaml")) {
            (EntryKind::File, Some(stem)) => match stem.parse::<EnvironmentName>() {
                Ok(name) => names.push(name),
                Err(error) => found.push(Diagnostic::error(origin, error.to_string())),
            },
            (EntryKind::File, None) if entry.name.ends_with(".yml") => {
                found.push(Diagnostic::error(origin, "this file is not read").hint("call it `.yaml`"));
            }
            (EntryKind::File | EntryKind::Folder, _) => {}
            (EntryKind::Link | EntryKind::Submodule, _) => {
                found.push(Diagnostic::error(origin, "links and submodules are not followed"));
            }
        }
    }
    if found.is_empty() { Ok(names) } else { Err(Diagnostics(found)) }
}

/// Reads one environment's own file.
///
/// # Errors
///
/// All that is wrong with it; one error when there is none.
pub fn environment(tree: &dyn Tree, name: &EnvironmentName) -> Result<EnvironmentSpec, Diagnostics> {
    read(tree, name).map(|(spec, _)| spec)
}

/// The same, with the tree of the file, for pointing into it.
pub(super) fn read(tree: &dyn Tree, name: &EnvironmentName) -> Result<(EnvironmentSpec, Node), Diagnostics> {
    let path = format!("environments/{name}.yaml");
    let Some(source) = source(tree, &path, MAX_BYTES)? else {
        let error = Diagnostic::error(Origin::file(&*path), format!("the environment `{name}` does not exist"));
        let known = environments(tree).unwrap_or_default();
        return Err(match closest(name.as_str(), known.iter().map(EnvironmentName::as_str)) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None if known.is_empty() => error.hint("write `environments/<name>.yaml`"),
            None => error.hint(format!("there are {}", list_of(known.iter().map(EnvironmentName::as_str), "and"))),
        }
        .into());
    };
    let node = one_document(&source)?;
    let mut found = check(written::environment(), &node).0;
    if let Some(spec) = node.get("spec") {
        freezes_last(spec, &mut found);
    }
    if !found.is_empty() {
        return Err(sorted(found));
    }
    let declared: written::Environment = serde_json::from_value(node.to_value())
        .map_err(|error| node.spot.error(format!("the environment cannot be read: {error}")))?;
    if declared.metadata.name != *name {
        let message = format!("the environment calls itself `{}`, its file `{name}`", declared.metadata.name);
        found.push(node.nearest(["metadata", "name"]).error(message).hint(format!("write `name: {name}`")));
    }
    let spec = declared.spec;
    if let Some(after) = &spec.after {
        follows(tree, name, &after.environment, &node, &mut found);
    }
    if let Some(TrackSpec::Tags { tags, exclude }) = &spec.track {
        for tag in exclude.iter().filter(|tag| tags.0 == tag.0) {
            let spot = node.nearest(["spec", "track", "exclude"]);
            found.push(spot.error(format!("every tag would be excluded by `{}`", tag.0)));
        }
    }
    if !found.is_empty() {
        return Err(sorted(found));
    }
    let write_back = match (spec.write_back, &spec.track) {
        (Some(WriteBackSpec::Revert), _) | (None, None | Some(TrackSpec::Branch { .. })) => WriteBack::Revert,
        (Some(WriteBackSpec::Pin), _) | (None, Some(TrackSpec::Tag { .. } | TrackSpec::Tags { .. })) => WriteBack::Pin,
        (Some(WriteBackSpec::PullRequest), _) => WriteBack::PullRequest,
        (Some(WriteBackSpec::None), _) => WriteBack::None,
    };
    let origin = Origin::file(path);
    let read = EnvironmentSpec {
        pins: spec.pins(),
        track: spec.track.map(|track| match track {
            TrackSpec::Branch { branch } => Track::Branch(branch.0),
            TrackSpec::Tag { tag } => Track::Tag(tag.0),
            TrackSpec::Tags { tags, exclude } => {
                Track::Tags { pattern: tags.0, exclude: exclude.into_iter().map(|tag| tag.0).collect() }
            }
        }),
        after: spec.after.map(|after| After { environment: after.environment, stable_for: after.r#for.duration() }),
        agents: spec.agents.map(|agents| agents.into_iter().collect::<BTreeSet<AgentName>>()),
        images: spec.images,
        waves: spec.waves.map_or_else(Waves::default, |waves| Waves {
            max_agents: waves.max_agents,
            stop_after_aborts: waves.stop_after_aborts,
        }),
        freezes: spec.freezes.into_iter().map(freeze).collect(),
        approvals: spec.approvals.map_or(0, |approvals| approvals.required),
        write_back,
        origin,
    };
    Ok((read, node))
}

fn freeze(declared: written::Freeze) -> Freeze {
    Freeze {
        lasts: SignedDuration::try_from(declared.r#for.duration()).unwrap_or(SignedDuration::MAX),
        cron: declared.cron.0,
        zone: declared.timezone.map_or_else(|| "UTC".to_owned(), |zone| zone.0),
        message: declared.message.unwrap_or_default(),
    }
}

/// Each freeze lasts some time, and less than a year.
fn freezes_last(spec: &Node, found: &mut Vec<Diagnostic>) {
    for freeze in spec.get("freezes").and_then(Node::list).unwrap_or_default() {
        let Some(lasts) = freeze.get("for") else { continue };
        let period: Option<Period> = serde_json::from_value(lasts.to_value()).ok();
        let Some(span) = period.map(|period| period.duration()) else { continue };
        let error = if span.is_zero() {
            "the freeze is over as soon as it begins"
        } else if span > LONGEST_FREEZE {
            "the freeze lasts longer than a year"
        } else {
            continue;
        };
        found.push(lasts.spot.error(error).hint("write how long it holds, such as `64h`"));
    }
}

/// The environment in `after` exists, and none waits for itself in the end.
fn follows(tree: &dyn Tree, name: &EnvironmentName, first: &EnvironmentName, node: &Node, found: &mut Vec<Diagnostic>) {
    let spot = node.nearest(["spec", "after", "environment"]);
    if first == name {
        return found.push(spot.error(format!("`{name}` cannot wait for itself")));
    }
    let mut at = first.clone();
    for step in 0..MAX_CHAIN {
        let path = format!("environments/{at}.yaml");
        let read = match source(tree, &path, MAX_BYTES) {
            Ok(Some(source)) => one_document(&source).ok(),
            Ok(None) if step == 0 => {
                let error = spot.error(format!("the environment `{first}` does not exist"));
                let known = environments(tree).unwrap_or_default();
                let others = || known.iter().filter(|known| *known != name).map(EnvironmentName::as_str);
                return found.push(match closest(first.as_str(), others()) {
                    Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                    None => error,
                });
            }
            // What is wrong with another environment is said there.
            Ok(None) | Err(_) => None,
        };
        let next = read.as_ref().and_then(|node| node.at(["spec", "after", "environment"])?.text()?.parse().ok());
        match next {
            None => return,
            Some(next) if next == *name => {
                return found
                    .push(spot.error(format!("`{name}` waits for `{first}`, which waits for `{name}` in the end")));
            }
            Some(next) => at = next,
        }
    }
}
