//! The record of one agent in one environment.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Operation, OperationId, Outcome, RolloutRecord};
use crate::model::{Digest, ObjectRef, ReleaseId, Revision, Timestamp, Uid};

/// The format of records that this version writes where an older one may go on with them.
pub const FORMAT: u32 = 1;
/// The format of records of releases with a set of their own, which an older version would take for one that rolls.
pub const ROLLOUT_FORMAT: u32 = 2;
/// Lines of evidence that a quarantined release keeps.
pub const MAX_EVIDENCE: usize = 10;
/// Finished operations that a record keeps.
pub const MAX_OPERATIONS: usize = 50;
/// Objects that one agent may own, old releases' ConfigMaps apart.
pub const MAX_INVENTORY: usize = 64;
/// Objects that operations set out to make and that nobody has looked for since.
pub const MAX_MAKING: usize = 2 * MAX_INVENTORY;
/// Releases that a record keeps in quarantine.
pub const MAX_QUARANTINE: usize = 32;
/// Bytes of settings that a record keeps.
pub const MAX_SETTINGS: usize = 8 * 1024;
/// Bytes of a record as JSON; the oldest operations go first to keep it.
pub const MAX_BYTES: usize = 32 * 1024;

/// What is remembered of one agent in one environment: the `status` of its `AgentRelease`.
///
/// # Guarantees
///
/// Written with compare-and-swap only. Fields of a newer version are kept as they are (`unknown`), and a record of a
/// newer `format` is never written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentRecord {
    /// [`FORMAT`] of the version that wrote it; 0 for a record that nothing has written yet.
    pub format: u32,
    /// Whether the agent is there at all.
    pub phase: Phase,
    /// The release that holds the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<Standing>,
    /// The settings of what is stable, as the very bytes that their digest names: with them a rollback needs no Git.
    /// Absent where they are longer than [`MAX_SETTINGS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// The release on its way; present while an operation of kind `Release` is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Standing>,
    /// The operation that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// The rollout on its way; absent where the target replaces instances by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutRecord>,
    /// Finished operations, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
    /// The objects that are ours; nothing else is ever pruned.
    #[serde(skip_serializing_if = "Inventory::is_empty")]
    pub inventory: Inventory,
    /// Objects that operations set out to make and that the inventory does not have: what of them stands with the mark
    /// of an operation is ours, whoever restarts and whatever Git asks for by then. At most [`MAX_MAKING`].
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(schema_with = "identities")]
    pub making: BTreeSet<ObjectRef>,
    /// Releases that were stable here, the newest first: what a rollback can go back to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Standing>,
    /// Releases that failed here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
    /// Set by a rollback: the release that is not rolled forward to again while Git still asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The candidate that was taken back last, as it stood: what Git is told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Standing>,
    /// When candidates went back by themselves within the last hour: too many of them wait for a person.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub rollbacks: Vec<Timestamp>,
    /// Where Git and the target differ, since when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<Differs>,
    /// The request of each kind that was handled last, by its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub handled: BTreeMap<String, String>,
    /// The ledger was lost and made anew: nothing is pruned until a person confirms it by a retry.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
    /// Times that drift was healed.
    #[serde(skip_serializing_if = "is_zero")]
    pub drift_healed: u64,
    /// `metadata.generation` that the conditions speak of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Progressing, Degraded, Stalled, Contested, PruneBlocked, Suspended, GitBehind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Fields of a newer version.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: BTreeMap<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn identities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["kind", "name"],
            "properties": {
                "group": {"type": "string"}, "kind": {"type": "string"}, "namespace": {"type": "string"},
                "name": {"type": "string"},
            },
        },
    })
}

/// Whether the agent is there at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Git asks for it, or asked for it and it is not yet gone.
    #[default]
    Active,
    /// It is gone: a tombstone that keeps quarantine and history.
    Removed,
}

/// A release where it stood: how to find it again without Git.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The whole digest.
    #[schemars(with = "String")]
    pub release: ReleaseId,
    /// Where it was read.
    #[schemars(with = "String")]
    pub revision: Revision,
    /// The digest of the settings it was applied with.
    #[schemars(with = "String")]
    pub settings: Digest,
    /// The version of the renderer that first rendered it here, and renders it ever after.
    pub renderer: u32,
    /// Since when it stands so; for an entry of the history, since when it was stable.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// It has a set of instances of its own; else the agent has one set, which rolls from release to release.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_set: bool,
}

/// A release that failed here and is not tried again without consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The whole digest.
    #[schemars(with = "String")]
    pub release: ReleaseId,
    /// When it failed.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// What failed, in one sentence.
    pub reason: String,
    /// The same in one word: `error_rate_high`, `health_check_failed`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub word: String,
    /// The figures behind it, at most [`MAX_EVIDENCE`] lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// Whether Git was asked to agree, and how that stands.
    #[serde(default, skip_serializing_if = "Told::is_by_hand")]
    pub git: Told,
}

/// A person left a release by a rollback: it is not rolled forward to while Git still asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The release that was left.
    #[schemars(with = "String")]
    pub left: ReleaseId,
    /// Who left it.
    pub by: String,
    /// When.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// Whether Git was asked to agree, and how that stands.
    #[serde(default)]
    pub git: Told,
}

/// Whether Git has been told of a rollback.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Told {
    /// A person does it.
    #[default]
    ByHand,
    /// Still to be written.
    Pending,
    /// This commit was pushed.
    Commit(String),
    /// It cannot be written, in one sentence; tried again.
    Refused(String),
}

/// Git and the target differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Differs {
    /// What Git asks for.
    #[schemars(with = "String")]
    pub desired: ReleaseId,
    /// Since when.
    #[schemars(with = "String")]
    pub since: Timestamp,
    /// Why, in one sentence.
    pub why: String,
}

/// One object of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owned {
    /// Which object.
    #[serde(flatten)]
    #[schemars(skip)]
    pub object: ObjectRef,
    /// Its UID: another object of the same name is not ours.
    #[schemars(with = "String")]
    pub uid: Uid,
}

/// The objects that are ours, by identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Owned>", into = "Vec<Owned>")]
pub struct Inventory(pub BTreeMap<ObjectRef, Uid>);

/// One condition, as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Ready, Progressing, …
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: Truth,
    /// One word.
    pub reason: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When `status` last changed.
    #[schemars(with = "String")]
    pub last_transition_time: Timestamp,
    /// `metadata.generation` that it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionKind {
    /// The stable release is what Git asks for, whole and healthy.
    Ready,
    /// An operation is open.
    Progressing,
    /// What runs is not healthy, or Git asks for what failed.
    Degraded,
    /// It cannot go on by itself: the message says what a person must do.
    Stalled,
    /// Somebody else keeps changing our fields.
    Contested,
    /// Something is not pruned that Git no longer asks for.
    PruneBlocked,
    /// A person suspended it.
    Suspended,
    /// Git does not yet say what the target does.
    GitBehind,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

// === impl AgentRecord ===

impl AgentRecord {
    /// Whether this version may write it.
    pub fn is_writable(&self) -> bool {
        self.format <= ROLLOUT_FORMAT
    }

    /// The lowest format in which all of it is understood.
    pub fn least_format(&self) -> u32 {
        let mut standing = self.stable.iter().chain(&self.candidate);
        if self.rollout.is_some() || standing.any(|standing| standing.own_set) { ROLLOUT_FORMAT } else { FORMAT }
    }

    /// The number for the next operation.
    pub fn next_operation(&self) -> OperationId {
        let newest = self.operation.iter().chain(&self.operations).map(|operation| operation.id).max();
        OperationId(newest.map_or(1, |OperationId(number)| number + 1))
    }

    /// Ends the open operation and puts it first in the list.
    pub fn finish(&mut self, outcome: Outcome, now: Timestamp) {
        if let Some(mut operation) = self.operation.take() {
            operation.finished = Some(now);
            operation.outcome = Some(outcome);
            self.operations.insert(0, operation);
        }
    }

    /// Where `release` stood here before, if it was ever stable.
    pub fn stood(&self, release: ReleaseId) -> Option<&Standing> {
        self.stable.iter().chain(&self.history).find(|standing| standing.release == release)
    }

    /// Why `release` is in quarantine, if it is.
    pub fn quarantined(&self, release: ReleaseId) -> Option<&Quarantined> {
        self.quarantine.iter().find(|entry| entry.release == release)
    }

    /// One condition.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Sets a condition; its time moves only when `status` does.
    pub fn set_condition(&mut self, kind: ConditionKind, status: Truth, reason: &str, message: &str, now: Timestamp) {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        let observed_generation = self.observed_generation;
        Condition { kind, status, reason, message, last_transition_time: now, observed_generation }
            .put_into(&mut self.conditions);
    }

    /// Takes a condition away.
    pub fn clear_condition(&mut self, kind: ConditionKind) {
        self.conditions.retain(|condition| condition.kind != kind);
    }

    /// Cuts lists to their bounds, the oldest first, and a quarantined release that is `desired` never.
    pub fn bound(&mut self, history: usize, desired: Option<ReleaseId>) {
        self.history.truncate(history.max(1));
        self.operations.truncate(MAX_OPERATIONS);
        while self.quarantine.len() > MAX_QUARANTINE {
            let oldest = self.quarantine.iter().rposition(|entry| Some(entry.release) != desired);
            self.quarantine.remove(oldest.unwrap_or(0));
        }
        while self.operations.len() > 1 && serde_json::to_vec(self).map_or(0, |bytes| bytes.len()) > MAX_BYTES {
            self.operations.pop();
        }
    }
}

// === impl Quarantined ===

impl Quarantined {
    /// A failure that a person tells Git of.
    pub fn new(release: ReleaseId, since: Timestamp, reason: impl Into<String>) -> Self {
        Self { release, since, reason: reason.into(), word: String::new(), evidence: vec![], git: Told::ByHand }
    }
}

// === impl Told ===

impl Told {
    /// Whether a person does it.
    #[must_use]
    pub fn is_by_hand(&self) -> bool {
        *self == Self::ByHand
    }

    /// Whether it is still to be written.
    pub fn is_due(&self) -> bool {
        matches!(self, Self::Pending | Self::Refused(_))
    }
}

// === impl Condition ===

impl Condition {
    /// Takes the place of the condition of its kind; its time is the older one's where `status` is the same.
    pub(super) fn put_into(mut self, conditions: &mut Vec<Self>) {
        match conditions.iter_mut().find(|old| old.kind == self.kind) {
            Some(old) => {
                if old.status == self.status {
                    self.last_transition_time = old.last_transition_time;
                }
                *old = self;
            }
            None => conditions.push(self),
        }
        conditions.sort_by_key(|condition| condition.kind);
    }
}

// === impl Inventory ===

impl Inventory {
    /// Whether nothing is owned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this very object, by UID, is ours.
    pub fn owns(&self, object: &ObjectRef, uid: &Uid) -> bool {
        self.0.get(object) == Some(uid)
    }
}

impl From<Vec<Owned>> for Inventory {
    fn from(owned: Vec<Owned>) -> Self {
        Self(owned.into_iter().map(|entry| (entry.object, entry.uid)).collect())
    }
}

impl From<Inventory> for Vec<Owned> {
    fn from(inventory: Inventory) -> Self {
        inventory.0.into_iter().map(|(object, uid)| Owned { object, uid }).collect()
    }
}

impl JsonSchema for Inventory {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Inventory".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kind", "name", "uid"],
                "properties": {
                    "group": {"type": "string"}, "kind": {"type": "string"}, "namespace": {"type": "string"},
                    "name": {"type": "string"}, "uid": {"type": "string"},
                },
            },
        })
    }
}
