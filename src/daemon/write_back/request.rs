//! What shall be written to Git, what was, and why it cannot be.

use std::path::PathBuf;

use super::ForgeError;
use crate::desired::WriteBack;
use crate::model::{AgentName, CommitId, EnvironmentName, ReleaseId};
use crate::reconcile::FailureKind;
use crate::record::Standing;
use crate::source::{Person, PushError, SourceError, WriteError};

/// A commit that shall make Git ask for `back_to`.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose release.
    pub agent: AgentName,
    /// Where.
    pub environment: EnvironmentName,
    /// The release that Git asks for now and shall no more.
    pub left: ReleaseId,
    /// Where Git asked for it when it was tried: what was written back before that was of an earlier time.
    pub left_at: Option<CommitId>,
    /// Where it shall be.
    pub back_to: Standing,
    /// The person it is made for, or else who writes it.
    pub author: Person,
    /// Who writes it.
    pub committer: Person,
    /// Nobody asked for it: a commit that was written here is then never taken back.
    pub automatic: bool,
    /// Takes back what came after `left`, too: a person names the release.
    pub even_if_newer: bool,
    /// Why, as one word.
    pub word: String,
    /// Who asked or what failed, and why, in a sentence.
    pub reason: String,
    /// The figures behind it, one line each.
    pub evidence: Vec<String>,
    /// How Git is told.
    pub write_back: WriteBack,
    /// What the followed branch was accepted at last, if that is known.
    pub accepted: Option<CommitId>,
    /// The private key that signs the commit.
    pub signing_key: Option<PathBuf>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// This commit, in this way.
    Commit(CommitId, Way),
    /// This commit was written before, and is on the branch.
    Known(CommitId),
    /// A pull request is open with this commit.
    Proposed {
        /// The commit, on a branch of its own.
        commit: CommitId,
        /// Where the pull request is looked at.
        address: String,
    },
    /// Nothing: the branch asks for it already.
    Nothing,
    /// Nothing: the branch asks for another release than the one that was left.
    Newer,
}

/// How a commit takes a release back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The commits that changed it are reverted.
    Reverted,
    /// The agent's own paths are as they were.
    Restored,
    /// The agent is pinned in the environment's file.
    Pinned,
}

/// Git could not be told.
#[derive(Debug, thiserror::Error)]
pub enum CannotTell {
    /// It cannot be read or written.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The remote does not take it.
    #[error(transparent)]
    Push(#[from] PushError),
    /// No commit can be made.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What is made would not be accepted.
    #[error("a commit on `{branch}` would not be accepted: {why}")]
    NotAccepted {
        /// The followed branch.
        branch: String,
        /// Why not.
        why: String,
        /// The way out.
        hint: &'static str,
    },
    /// None of the ways gives the release.
    #[error("no commit on `{branch}` can bring `{agent}` back to {back_to}: {why}")]
    NoWay {
        /// The followed branch.
        branch: String,
        /// Whose release.
        agent: AgentName,
        /// Where it shall be.
        back_to: ReleaseId,
        /// Why not.
        why: String,
    },
    /// It was taken back here once, and somebody asked for it again.
    #[error("{commit} took {left} of `{agent}` back, and somebody asked for it again on `{branch}`")]
    AskedAgain {
        /// The followed branch.
        branch: String,
        /// Whose release.
        agent: AgentName,
        /// Which release.
        left: ReleaseId,
        /// What took it back.
        commit: CommitId,
    },
    /// What would be taken back was written here.
    #[error("{commit} was written here: it is not taken back by itself")]
    OwnCommit {
        /// Which commit.
        commit: CommitId,
    },
    /// The branch moved at every try.
    #[error("`{0}` kept moving while a commit was made for it")]
    Restless(String),
    /// There is nowhere to open a pull request.
    #[error("`writeBack: pullRequest`, and the daemon's configuration does not say where one is opened")]
    NoForge,
    /// A pull request cannot be opened.
    #[error(transparent)]
    Forge(#[from] ForgeError),
}

// === impl CannotTell ===

impl CannotTell {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Push(PushError::Source(SourceError::Refused { .. })) => {
                "look at the token, password or key, and whether it may push to the repository; or set \
                 `writeBack: pullRequest` or `none`"
            }
            Self::Source(error) => return error.hint(),
            Self::Push(error) => return error.hint(),
            Self::Forge(error) => return error.hint(),
            Self::NoWay { .. } => "restore it by hand, or pin it in the environment's file",
            Self::NotAccepted { hint, .. } => *hint,
            Self::AskedAgain { .. } => {
                "revert it by hand, or let it try again: `backstay retry`, or a consent file with `allow: retry`"
            }
            Self::OwnCommit { .. } => "revert it by hand, or pin the release that shall run",
            Self::Restless(_) => "nothing: it is tried again",
            Self::NoForge => {
                "add `[source.pull_request]` with `forge` and `token_file`, or set `writeBack: revert`, `pin` or `none`"
            }
            Self::Write(_) => return None,
        };
        Some(hint.to_owned())
    }

    /// What follows for who asked.
    pub fn kind(&self) -> FailureKind {
        let unavailable = FailureKind::Unavailable { retry_after: None };
        match self {
            Self::Source(error) | Self::Push(PushError::Source(error)) | Self::Write(WriteError::Source(error)) => {
                match error {
                    SourceError::Refused { .. }
                    | SourceError::HostKey { .. }
                    | SourceError::Certificate { .. }
                    | SourceError::Redirect { .. } => FailureKind::Forbidden,
                    SourceError::Config { .. }
                    | SourceError::Setup { .. }
                    | SourceError::File { .. }
                    | SourceError::Busy { .. }
                    | SourceError::Unreachable { .. }
                    | SourceError::Timeout { .. }
                    | SourceError::NoRepository { .. }
                    | SourceError::TooMuch { .. }
                    | SourceError::Remote { .. }
                    | SourceError::Damaged { .. }
                    | SourceError::NoCommit { .. }
                    | SourceError::Lost { .. }
                    | SourceError::Internal { .. } => unavailable,
                }
            }
            Self::Forge(error) => error.kind(),
            Self::Push(PushError::Moved { .. }) | Self::Restless(_) => unavailable,
            Self::Push(PushError::Refused { .. })
            | Self::NoWay { .. }
            | Self::NotAccepted { .. }
            | Self::AskedAgain { .. }
            | Self::OwnCommit { .. }
            | Self::NoForge
            | Self::Write(_) => FailureKind::Refused,
        }
    }
}
