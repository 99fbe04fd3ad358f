//! All that Git asks of one environment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Freeze, Release, Settings};
use crate::model::{AgentName, CommitId, Diagnostics, EnvironmentName, Origin, ReleaseId, Revision, Timestamp};
pub use crate::source::Track;

/// All that Git asks of one environment, at the revisions that were chosen for it.
#[derive(Debug, Clone)]
pub struct DesiredState {
    /// Which environment.
    pub environment: EnvironmentName,
    /// Where its own file and the consents were read: the followed branch.
    pub head: Revision,
    /// Where the agents were read, pinned ones apart.
    pub tracked: Revision,
    /// The environment's own file.
    pub spec: EnvironmentSpec,
    /// Every agent that the environment lists and the tree declares. A bad agent is its diagnostics, and never stops
    /// the others.
    pub agents: BTreeMap<AgentName, Result<Arc<DesiredAgent>, Diagnostics>>,
    /// Deeds that somebody allowed.
    pub consents: Vec<Consent>,
    /// Warnings about the repository as a whole.
    pub warnings: Diagnostics,
}

/// What Git asks of one agent in one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredAgent {
    /// Its name.
    pub name: AgentName,
    /// The revision that it was read from: the tracked one or its pin.
    pub revision: Revision,
    /// What shall run.
    pub release: Arc<Release>,
    /// How, beside the release.
    pub settings: Arc<Settings>,
    /// The name it had before.
    pub renamed_from: Option<AgentName>,
    /// Where it is declared.
    pub origin: Origin,
    /// What a person should know: a model near its end, migrations that are not delivered yet.
    pub warnings: Diagnostics,
}

/// The environment's own file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSpec {
    /// What it follows; absent: the followed branch itself.
    pub track: Option<Track>,
    /// Only what has been stable in that environment that long.
    pub after: Option<After>,
    /// The agents it takes; absent: all.
    pub agents: Option<BTreeSet<AgentName>>,
    /// Agents held at a commit.
    pub pins: BTreeMap<AgentName, CommitId>,
    /// Whether images must be named by digest.
    pub images: ImagePolicy,
    /// How many agents of one commit roll out at a time.
    pub waves: Waves,
    /// When nothing new is rolled out.
    pub freezes: Vec<Freeze>,
    /// People who must agree before a rollout, none of them the author of the commit.
    pub approvals: u32,
    /// How Git is told of a rollback.
    pub write_back: WriteBack,
    /// Where it is declared.
    pub origin: Origin,
}

/// How many agents roll out at a time, first releases and ways back not counted; nothing: as many as there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waves {
    /// Agents.
    pub max_agents: Option<u32>,
    /// No agent starts that waited while that many others went back.
    pub stop_after_aborts: Option<u32>,
}

/// Only what has been stable in another environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// Which one.
    pub environment: EnvironmentName,
    /// How long.
    pub stable_for: Duration,
}

/// How an image may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImagePolicy {
    /// By digest only.
    #[default]
    Digest,
    /// By digest or by a tag other than `latest`.
    Tags,
}

/// What an environment is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetKind {
    /// A namespace of a cluster.
    Kubernetes,
    /// A machine.
    Host,
}

/// How Git is told of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WriteBack {
    /// A commit that reverts those that did it.
    #[default]
    Revert,
    /// A pin in the environment's file.
    Pin,
    /// A pull request with the revert.
    PullRequest,
    /// Nothing: a person does it.
    None,
}

/// A file that allows one deed on one thing until a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// For which agent.
    pub agent: AgentName,
    /// In which environment.
    pub environment: EnvironmentName,
    /// What it allows.
    pub allow: Allow,
    /// Until when.
    pub expires: Timestamp,
    /// Where it is written.
    pub origin: Origin,
}

/// A deed that needs consent, with the thing it is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// To try a quarantined release again.
    Retry(ReleaseRef),
    /// To take over an object that exists already: `Kind/name`.
    Adopt(String),
    /// To delete an object that is kept otherwise: `Kind/name`.
    Prune(String),
    /// To delete and make anew an object with a changed immutable field: `Kind/name`.
    Replace(String),
    /// To run a migration downwards that loses rows.
    LossyDown(ReleaseRef),
}

/// A release as a person writes it: `r-` and 12 hex digits, or the whole digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseRef(pub String);

// === impl ReleaseRef ===

impl ReleaseRef {
    /// Whether this names `id`.
    pub fn names(&self, id: &ReleaseId) -> bool {
        self.0 == id.short() || self.0 == id.digest().to_string()
    }
}
