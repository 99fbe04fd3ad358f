//! What is declared for a host: its artifact and drain, and what has no effect there.

use super::agent::Context;
use super::artifact::{self, ArtifactSource, Shape};
use super::read::{Node, Sha256Text, Spot};
use super::settings::{ArtifactOrigin, Drain, DrainMode, HostSettings};
use super::{TargetKind, written};
use crate::model::{Digest, Manifest};

/// Kinds of `manifests/` that a host does something with.
const KINDS: [(&str, &str); 1] = [("", "ConfigMap")];
/// Kinds whose objects something must run, fill or answer for before they are healthy. Nothing on a host does.
const NEVER_HEALTHY: [(&str, &str); 10] = [
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "ReplicationController"),
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("batch", "CronJob"),
    ("batch", "Job"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
];

/// The artifact, and what kind it is where that is known.
type Found = (ArtifactOrigin, Option<Shape>);

/// What is declared for a host, read and checked.
pub(super) fn read(context: &Context<'_>, spec: &written::AgentSpec, at: &Node) -> HostSettings {
    let found = artifact(context, spec, at);
    if context.target == Some(TargetKind::Host) {
        commands(context, spec, at, found.as_ref());
        without_effect(context, at);
    }
    let artifact = found.map(|(origin, _)| origin);
    HostSettings { artifact, drain: drain(context, spec, at) }
}

/// The artifact, and where its bytes come from.
fn artifact(context: &Context<'_>, spec: &written::AgentSpec, at: &Node) -> Option<Found> {
    let spot = |key| at.nearest(["code", "artifact", key]);
    let digest = |text: &Sha256Text| text.0.parse::<Digest>().ok();
    let origin = |sha256, from| ArtifactOrigin { sha256, from };
    match spec.code.artifact.as_ref()? {
        written::Artifact::Path { path, sha256: Some(sha256) } => {
            let Some(beneath) = path.0.strip_prefix('/') else {
                let error = spot("path").error("with `sha256` the path is outside the repository, and begins with `/`");
                context.error(error.hint("take `sha256` away for a file or folder of the repository"));
                return None;
            };
            Some((origin(digest(sha256)?, ArtifactSource::Folder(beneath.to_owned())), None))
        }
        written::Artifact::Path { path, sha256: None } => {
            let from_root = context.path(&path.0);
            match artifact::read(context.reader, &from_root) {
                Ok(Some(known)) => {
                    let from = ArtifactSource::Git(known.id.0.to_string());
                    Some((origin(known.sha256, from), Some(known.shape)))
                }
                Ok(None) => {
                    let error = spot("path").error(format!("`{from_root}` does not exist"));
                    context.error(match context.reader.near(&from_root) {
                        Some(near) => error.hint(format!("did you mean `/{near}`?")),
                        None => error.hint("a leading `/` is the root of the repository; with `sha256` it is the folder of artifacts that the daemon's configuration names"),
                    });
                    None
                }
                Err(why) => {
                    context.error(spot("path").error(why));
                    None
                }
            }
        }
        written::Artifact::Url { url, sha256 } => {
            if !is_safe(&url.0) {
                let error = spot("url").error("an artifact is fetched over HTTPS");
                context.error(
                    error.hint("`http://` is allowed for this machine alone: `localhost`, `127.0.0.1`, `[::1]`"),
                );
                return None;
            }
            Some((origin(digest(sha256)?, ArtifactSource::Url(url.0.clone())), None))
        }
    }
}

/// Whether an address is HTTPS, or this machine's.
pub fn is_safe(url: &str) -> bool {
    if url.starts_with("https://") {
        return true;
    }
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// That each process says what runs, and that it is there.
fn commands(context: &Context<'_>, spec: &written::AgentSpec, at: &Node, found: Option<&Found>) {
    let declared = spec.code.artifact.is_some();
    let shape = found.and_then(|(_, shape)| shape.as_ref());
    let main =
        std::iter::once((&["code", "command"][..], spec.code.command.as_ref(), spec.workload.manifest.is_some()));
    let paths: Vec<[&str; 3]> = spec.workers.0.keys().map(|name| ["workers", name.as_str(), "command"]).collect();
    let workers = spec.workers.0.values().zip(&paths).map(|(worker, path)| (&path[..], worker.command.as_ref(), false));
    for (path, command, brought) in main.chain(workers) {
        let spot = at.nearest(path.iter().copied());
        match (command.and_then(|command| command.first()), shape) {
            (Some(word), _) => word_is_there(context, word, spot, declared, shape),
            (None, _) if brought => {}
            (None, None) if declared => {}
            (None, Some(Shape::File)) => {}
            (None, None) => {
                let error = spot.error("nothing says what runs: a host needs an artifact or a command");
                context.error(error.hint(
                    "for example `artifact: {path: /dist/support-agent}`, or `command: [python3, -m, support]` with an interpreter that the daemon's configuration names",
                ));
            }
            (None, Some(Shape::Archive | Shape::Folder(_))) => {
                let error = spot.error("the artifact is a folder, and nothing says which file of it runs");
                context.error(error.hint("add a command, such as `command: [bin/agent]`"));
            }
        }
    }
}

fn word_is_there(context: &Context<'_>, word: &str, spot: &Spot, declared: bool, shape: Option<&Shape>) {
    if !word.contains('/') {
        return;
    }
    if word.starts_with('/') || word.split('/').any(|name| name == "..") {
        let error = spot.error(format!("the command `{word}` leaves the artifact"));
        context.error(error.hint("write its path in the artifact, or the name of an interpreter without `/`"));
        return;
    }
    if !declared {
        let error = spot.error(format!("the command `{word}` is a path in the artifact, and there is none"));
        context.error(error.hint("add `code.artifact`, or name an interpreter without `/`"));
        return;
    }
    let path = word.split('/').filter(|name| !matches!(*name, "" | ".")).collect::<Vec<_>>().join("/");
    match shape {
        Some(Shape::Folder(listing)) if !reaches(listing, &path) => {
            let error = spot.error(format!("the artifact has no file `{path}`"));
            context.error(match super::read::closest(&path, listing.paths()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("paths are from the artifact's folder"),
            });
        }
        Some(Shape::File) if path != artifact::SINGLE => {
            let error = spot.error(format!("the artifact is one file, and is called `{}`", artifact::SINGLE));
            context.error(error.hint(format!("write `./{}`, or leave the command away", artifact::SINGLE)));
        }
        Some(_) | None => {}
    }
}

/// Whether a path is a file of the listing, or leads through a link of it.
fn reaches(listing: &artifact::Listing, path: &str) -> bool {
    let linked = path.match_indices('/').any(|(at, _)| listing.at(&path[..at]).is_some());
    linked || listing.at(path).is_some()
}

/// Warns of what nothing on a host looks at.
fn without_effect(context: &Context<'_>, at: &Node) {
    let hint = "it does no harm; an overlay takes it away for this environment";
    let warn = |spot: &Spot, what: &str| {
        context.warn(spot.warning(format!("`{what}` has no effect on a host")).hint(hint));
    };
    for key in ["autoscaling", "disruptionBudget"] {
        if let Some(field) = at.field(key) {
            warn(&field.spot, key);
        }
    }
    if let Some(field) = at.get("route").and_then(|route| route.field("gateway")) {
        warn(&field.spot, "route.gateway");
    }
}

/// Refuses the objects of `manifests/` that would be waited for in vain, and warns of those that do nothing.
pub(super) fn inert(context: &Context<'_>, manifests: &[Manifest]) {
    if context.target != Some(TargetKind::Host) {
        return;
    }
    for manifest in manifests {
        let object = &manifest.object;
        if NEVER_HEALTHY.contains(&(&*object.group, &*object.kind)) {
            let error =
                crate::model::Diagnostic::error(manifest.origin.clone(), format!("a host cannot run `{object}`"));
            context.error(error.hint(match &*object.kind {
                "HTTPRoute" => "say `route: {hosts: […]}` in the agent's file",
                "PersistentVolumeClaim" => {
                    "an agent's `$HOME` is a folder of its instance; what lasts belongs into its database"
                }
                _ => "make it one of the agent's `workers`, or let the machine's own timers and services run it",
            }));
        } else if !KINDS.contains(&(&*object.group, &*object.kind)) {
            let message = format!("`{object}` has no effect on a host");
            let warning = crate::model::Diagnostic::warning(manifest.origin.clone(), message);
            context.warn(warning.hint("of `manifests/` a host reads ConfigMaps alone"));
        }
    }
}

fn drain(context: &Context<'_>, spec: &written::AgentSpec, at: &Node) -> Option<Drain> {
    let drain = spec.drain.as_ref()?;
    // Where it is not known which target it is, nothing is refused, and nothing is promised.
    if let (None, Some(field)) = (context.target, at.field("drain")) {
        let warning = field.spot.warning("`drain` is delivered on a host alone by this version");
        context.warn(warning.hint("an environment on Kubernetes refuses it; an overlay takes it away there"));
    }
    let default = Drain::default();
    let mode = match drain.mode {
        Some(written::DrainMode::Cut) => DrainMode::Cut,
        Some(written::DrainMode::Finish) | None => DrainMode::Finish,
    };
    let seconds = |period: &super::read::Period| {
        let span = period.duration();
        span.as_secs() + u64::from(span.subsec_nanos() > 0)
    };
    Some(Drain { mode, max: drain.max.as_ref().map_or(default.max, seconds) })
}
