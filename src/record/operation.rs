//! One entry of the ledger: what was done to an agent, and why.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{AgentName, CommitId, ReleaseId, Revision, Timestamp};

/// Numbers the operations of one agent in one environment, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct OperationId(pub u64);

/// One operation: begun with its intent, ended with its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// Why it was begun.
    pub cause: Cause,
    /// The release that was stable when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ShortId>,
    /// The release that shall be stable when it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ShortId>,
    /// Where `to` was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub revision: Option<Revision>,
    /// When its intent was recorded.
    #[schemars(with = "String")]
    pub started: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub finished: Option<Timestamp>,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What an experiment found, in at most [`MAX_EVIDENCE`](super::MAX_EVIDENCE) lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// `r-` and 12 hex digits, as the ledger's bounded list keeps a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ShortId(pub String);

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// Moves the target to another release, settings included.
    Release,
    /// Applies changed settings in place.
    Settings,
    /// Takes the agent away.
    Removal,
}

/// Why an operation was begun: data, never prose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cause {
    /// A commit asked for something new.
    Commit {},
    /// A commit took earlier ones back.
    Revert {
        /// How sure that is.
        evidence: Evidence,
        /// The commits that it takes back, as its message names them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(with = "Vec<String>")]
        of: Vec<CommitId>,
    },
    /// A person moved the target back.
    Rollback {
        /// Who.
        by: String,
        /// In their words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// Whether Git is told.
        #[serde(default)]
        tell_git: bool,
    },
    /// The release failed, and the last stable one was brought back.
    Failed {
        /// What failed, in one sentence.
        why: String,
    },
    /// A person let a quarantined release try again.
    Retry {
        /// Who.
        by: String,
    },
    /// The agent was renamed.
    Rename {
        /// Its name before.
        #[schemars(with = "String")]
        from: AgentName,
    },
    /// The ledger was lost and made anew from what runs.
    Rebuilt {},
}

/// How sure it is that a commit is a revert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Evidence {
    /// The release was stable here before, the message names the commits, and the diff is their inverse.
    Verified,
    /// The release was stable here before and the message names commits, but the diff is not just their inverse.
    Claimed,
    /// The release was stable here before: a reset, a hand-made edit.
    KnownRelease,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All of it is done and healthy.
    Succeeded,
    /// It failed, in one sentence; what ran before still does.
    Failed(String),
    /// Another operation took its place before it ended.
    Superseded,
}

// === impl Operation ===

impl Operation {
    /// Whether it still runs.
    pub fn is_open(&self) -> bool {
        self.outcome.is_none()
    }
}

// === impl ShortId ===

impl From<ReleaseId> for ShortId {
    fn from(id: ReleaseId) -> Self {
        Self(id.short())
    }
}

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Cause ===

impl Cause {
    /// Whether it brings back what ran before, which freezes and waits for new releases do not hold up.
    pub fn goes_back(&self) -> bool {
        match self {
            Self::Revert { .. } | Self::Rollback { .. } | Self::Failed { .. } => true,
            Self::Commit {} | Self::Retry { .. } | Self::Rename { .. } | Self::Rebuilt {} => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit {} => f.write_str("commit"),
            Self::Revert { evidence, of } => {
                let what = match evidence {
                    Evidence::Verified => "verified revert",
                    Evidence::Claimed => "claimed revert",
                    Evidence::KnownRelease => "return to a known release",
                };
                f.write_str(what)?;
                let named: Vec<_> = of.iter().map(CommitId::short).collect();
                if named.is_empty() { Ok(()) } else { write!(f, " of {}", named.join(", ")) }
            }
            Self::Rollback { by, reason, .. } if reason.is_empty() => write!(f, "rollback by {by}"),
            Self::Rollback { by, reason, .. } => write!(f, "rollback by {by}: {reason}"),
            Self::Failed { why } => write!(f, "back from a failed release: {why}"),
            Self::Retry { by } => write!(f, "retry by {by}"),
            Self::Rename { from } => write!(f, "renamed from {from}"),
            Self::Rebuilt {} => f.write_str("ledger rebuilt from what runs"),
        }
    }
}
