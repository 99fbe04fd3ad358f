//! The record of one environment.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Condition, ConditionKind, Request, Truth};
use crate::model::{CommitId, Revision, Timestamp};

/// What is remembered of one environment: the `status` of its `AgentEnvironment`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentRecord {
    /// [`FORMAT`](super::FORMAT) of the version that wrote it.
    pub format: u32,
    /// The installation that writes here; another one only reads.
    pub installation: String,
    /// Grows by one with every leader: a write of a lower epoch is late.
    pub epoch: u64,
    /// The revision that was accepted last, per followed reference: `heads/main`, `tags/v*`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub accepted: BTreeMap<String, Revision>,
    /// A rewind that was refused: what the reference points at, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedMove>,
    /// What is wrong with the repository or the environment's file: first lines, at most ten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// The request of each kind that was handled last, by its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub handled: BTreeMap<String, String>,
    /// Ready, PruneBlocked, Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Fields of a newer version.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: BTreeMap<String, Value>,
}

impl EnvironmentRecord {
    /// Sets a condition; its time moves only when `status` does.
    pub fn set_condition(&mut self, kind: ConditionKind, status: Truth, reason: &str, message: &str, now: Timestamp) {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        Condition { kind, status, reason, message, last_transition_time: now, observed_generation: None }
            .put_into(&mut self.conditions);
    }
}

/// A reference moved in a way that needs consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedMove {
    /// The branch or tag.
    pub reference: String,
    /// Where it points now; absent: it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub to: Option<CommitId>,
    /// What happened, in one sentence with the way out.
    pub why: String,
    /// Since when.
    #[schemars(with = "String")]
    pub since: Timestamp,
}

/// What people ask of an environment: the `spec` of its `AgentEnvironment`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentRequests {
    /// Looks at Git now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncRequest>,
}

/// Somebody asks to look at Git now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncRequest {
    /// Id, name and reason.
    #[serde(flatten)]
    pub request: Request,
    /// Accepts that a followed reference was rewound to this very commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub accept_rewind: Option<CommitId>,
}
