//! `environments/<name>.yaml`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ApiVersion, Keyed};
use crate::desired::ImagePolicy;
use crate::desired::read::{CronText, Period, Reference, TagPattern, ZoneName};
use crate::model::{AgentName, CommitId, EnvironmentName};

/// Where releases go: `environments/<name>.yaml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "what the schema has checked is not looked at again")]
pub(in crate::desired) struct Environment {
    /// Version of this format.
    api_version: ApiVersion,
    /// Always `Environment`.
    kind: EnvironmentKind,
    /// Its name.
    pub(in crate::desired) metadata: EnvironmentMetadata,
    /// What it takes, and from where.
    #[serde(default)]
    pub(in crate::desired) spec: EnvironmentFile,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
enum EnvironmentKind {
    Environment,
}

/// Names an environment.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct EnvironmentMetadata {
    /// The stem of its file.
    pub(in crate::desired) name: EnvironmentName,
}

/// What an environment takes, and from where.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct EnvironmentFile {
    /// What it follows; absent: the branch that the daemon follows.
    pub(in crate::desired) track: Option<TrackSpec>,
    /// Only what has been stable in another environment.
    pub(in crate::desired) after: Option<AfterSpec>,
    /// The agents it takes; absent: all.
    #[schemars(extend("uniqueItems" = true))]
    pub(in crate::desired) agents: Option<Vec<AgentName>>,
    /// Agents held at a commit.
    #[serde(default)]
    pub(in crate::desired) pins: Keyed<AgentName, CommitId>,
    /// How many agents change at once.
    pub(in crate::desired) waves: Option<Waves>,
    /// Whether images must be named by digest.
    #[serde(default)]
    pub(in crate::desired) images: ImagePolicy,
    /// When nothing new is rolled out.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub(in crate::desired) freezes: Vec<Freeze>,
    /// How many people agree before a rollout.
    pub(in crate::desired) approvals: Option<Approvals>,
    /// How Git is told of a rollback.
    pub(in crate::desired) write_back: Option<WriteBackSpec>,
}

/// What an environment follows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(in crate::desired) enum TrackSpec {
    /// The tip of a branch.
    Branch {
        /// Its name.
        branch: Reference,
    },
    /// One tag.
    Tag {
        /// Its name.
        tag: Reference,
    },
    /// The tag of the highest semantic version.
    Tags {
        /// Which tags, with `*`.
        tags: TagPattern,
        /// Tags that are passed over.
        #[serde(default)]
        exclude: BTreeSet<Reference>,
    },
}

/// Only what has been stable in another environment.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct AfterSpec {
    /// Which one.
    pub(in crate::desired) environment: EnvironmentName,
    /// How long.
    pub(in crate::desired) r#for: Period,
}

/// How many agents change at once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct Waves {
    /// Agents.
    #[schemars(range(min = 1))]
    pub(in crate::desired) max_agents: Option<u32>,
    /// No further wave after that many aborts.
    #[schemars(range(min = 1))]
    pub(in crate::desired) stop_after_aborts: Option<u32>,
}

/// A time in which nothing new is rolled out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Freeze {
    /// When it begins: minute, hour, day of the month, month, day of the week.
    pub(in crate::desired) cron: CronText,
    /// How long it lasts.
    pub(in crate::desired) r#for: Period,
    /// Whose clock; absent: UTC.
    pub(in crate::desired) timezone: Option<ZoneName>,
    /// Why.
    #[schemars(length(min = 1, max = 256))]
    pub(in crate::desired) message: Option<String>,
}

/// How many people agree before a rollout.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Approvals {
    /// People, none of them the author of the commit.
    #[schemars(range(max = 10))]
    pub(in crate::desired) required: u32,
}

/// How Git is told of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::desired) enum WriteBackSpec {
    /// A commit that reverts those that did it.
    Revert,
    /// A pin in this file.
    Pin,
    /// A pull request with the revert.
    PullRequest,
    /// Nothing.
    None,
}

// === impl EnvironmentFile ===

impl EnvironmentFile {
    pub(in crate::desired) fn pins(&self) -> BTreeMap<AgentName, CommitId> {
        self.pins.0.clone()
    }
}
