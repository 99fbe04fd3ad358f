//! What keeps a process of a host from running, as the host's own supervisor says it.
//!
//! Unlike a kubelet's, these sentences are our own: they are made of names and paths, never of a value of the environment,
//! and are repeated as they stand, with the way out that they tell.

use serde_json::Value;

use super::fault::{Cause, Failure, Fault};
use super::health::{Health, at, condition};
use crate::model::one_line;

/// Characters of a sentence.
const LONGEST: usize = 600;
/// Annotation of a host's Pods: milliseconds since 1970 of the launch; tells it from an earlier one of the same name.
pub const LAUNCH_ANNOTATION: &str = "backstay.dev/launch";

/// Reason of a Deployment's condition `Available` while the proxy does not take the table.
pub const PROXY_UNREACHABLE: &str = "ProxyUnreachable";

/// Why a process of a host does not run, or is not let have traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostReason {
    /// What the release declares cannot be had here: a secret, a variable, a volume.
    Config,
    /// Its command cannot be run.
    Command,
    /// Its artifact is not there, and may come.
    Artifact,
    /// Its artifact is not what the release says.
    WrongArtifact,
    /// Somebody else answers at its address.
    Address,
    /// The machine does not let it.
    Machine,
}

// === impl HostReason ===

impl HostReason {
    const ALL: [Self; 6] =
        [Self::Config, Self::Command, Self::Artifact, Self::WrongArtifact, Self::Address, Self::Machine];

    /// The reason that a container of a host's Pod waits for. No kubelet says one of these.
    pub fn word(self) -> &'static str {
        match self {
            Self::Config => "HostConfig",
            Self::Command => "HostCommand",
            Self::Artifact => "HostArtifact",
            Self::WrongArtifact => "HostWrongArtifact",
            Self::Address => "HostAddress",
            Self::Machine => "HostMachine",
        }
    }

    /// Whose fault it is, what it is, how its sentence begins, and whether waiting would hardly heal it.
    fn judged(self) -> (Fault, Cause, &'static str, bool) {
        match self {
            Self::Config => (Fault::Release, Cause::Config, "cannot be started", true),
            Self::Command => (Fault::Release, Cause::Command, "cannot run its command", true),
            Self::Artifact => (Fault::Environment, Cause::Pull, "waits for its artifact", false),
            Self::WrongArtifact => (Fault::Release, Cause::NoImage, "has an artifact that cannot be used", true),
            Self::Address => (Fault::Environment, Cause::Node, "gets no traffic", false),
            Self::Machine => (Fault::Environment, Cause::Node, "cannot be started by this machine", false),
        }
    }
}

/// Whether a Pod is a process of a host.
pub(super) fn is_process(pod: &Value) -> bool {
    at(pod, &["metadata", "annotations", LAUNCH_ANNOTATION]).is_some()
}

/// What a container fails by that waits for one of [`HostReason`]; nothing for every other reason.
pub(super) fn failure(reason: &str, message: &str) -> Option<Failure> {
    let reason = HostReason::ALL.into_iter().find(|known| known.word() == reason)?;
    let (fault, cause, begin, certain) = reason.judged();
    Some((fault, cause, format!("{begin}: {}", plain(message)), certain))
}

/// How a Deployment is whose traffic cannot be switched: its `Available` says so.
pub(super) fn proxy_away(deployment: &Value) -> Option<Health> {
    let away = condition(deployment, "Available").filter(|available| available.reason == PROXY_UNREACHABLE)?;
    let why = plain(away.message);
    let reason = format!(
        "the proxy does not take the routes: {why}; its agents run on, and none that serves is stopped before it answers: see that `backstay proxy` runs"
    );
    Some(Health::degraded(reason, Some(Fault::Environment)))
}

fn plain(message: &str) -> String {
    one_line(message, LONGEST, ' ').trim().trim_end_matches('.').to_owned()
}
