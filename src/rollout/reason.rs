//! Why a rollout went back, and what follows.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Person;
use crate::judge::{Decision, Why};
use crate::model::ReleaseId;

/// Why a rollout went back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reason {
    /// The judge says so, with the figures behind it.
    Judged(Box<Decision>),
    /// The candidate failed by itself, in one sentence.
    Failed {
        /// What failed.
        why: String,
    },
    /// A person took it back.
    Person {
        /// Who.
        by: Person,
        /// In their words.
        reason: String,
    },
    /// Git asks for stable again.
    Reverted,
    /// Git asks for another release.
    Superseded {
        /// Which.
        by: ReleaseId,
    },
    /// The experiment says that the candidate is not better, in one sentence.
    Lost {
        /// What it found.
        sentence: String,
    },
}

/// What follows when the traffic is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aftermath {
    /// The release failed: it is not tried again without consent.
    pub quarantine: bool,
    /// Git still asks for it: it is not rolled forward to again while it does.
    pub hold: bool,
    /// Git is told, in the way of the environment.
    pub tell_git: bool,
}

// === impl Reason ===

impl Reason {
    /// What follows.
    ///
    /// Harm and failure quarantine. A deadline and missing data blame nobody: the release is held, and Git is not
    /// rewritten by them. What Git itself asked for needs nothing more.
    pub fn aftermath(&self) -> Aftermath {
        let (quarantine, hold, tell_git) = match self {
            Self::Judged(decision) => match decision.why {
                Why::Failed | Why::Harm => (true, false, true),
                Why::NoData | Why::Undecided | Why::NoHarm | Why::Waiting => (false, true, false),
            },
            Self::Failed { .. } => (true, false, true),
            Self::Person { .. } | Self::Lost { .. } => (false, true, true),
            Self::Reverted | Self::Superseded { .. } => (false, false, false),
        };
        Aftermath { quarantine, hold, tell_git }
    }

    /// Whether nobody asked for it: what is counted against too many of them.
    pub fn is_automatic(&self) -> bool {
        matches!(self, Self::Judged(_) | Self::Failed { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Judged(decision) => f.write_str(&decision.sentence),
            Self::Failed { why } => f.write_str(why),
            Self::Person { by, reason } if reason.is_empty() => write!(f, "{by} took it back"),
            Self::Person { by, reason } => write!(f, "{by} took it back: {reason}"),
            Self::Reverted => f.write_str("Git asks for the stable release again"),
            Self::Superseded { by } => write!(f, "Git asks for {by} now"),
            Self::Lost { sentence } => f.write_str(sentence),
        }
    }
}
