//! Whether a reference may move to where the remote has it.

use std::collections::BTreeSet;
use std::fmt;

use super::resolve::version;
use super::store::{commit_id, oid};
use super::{Checkout, Rewind, SourceError, Store, Track, Unverified, Verified, Verify};
use crate::model::{CommitId, Revision};

/// How a reference moved since the commit that was accepted last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// It points nowhere, and nothing was ever accepted: an empty repository, or a branch that is not there yet.
    Absent,
    /// Nothing was accepted before.
    First,
    /// It is where it was.
    Unchanged,
    /// Its new commit descends from the accepted one.
    Forward,
    /// Git asks for another branch or tag than before, by a commit of its own; history does not matter.
    Chosen,
    /// The accepted commit is not in its history any more: rewound, or rewritten from `base` on.
    Rewound {
        /// The newest commit that both share; the new one itself when it was only taken back.
        base: Option<CommitId>,
    },
    /// Its history has nothing in common with the accepted commit.
    Unrelated,
    /// A tag points at another commit.
    MovedTag,
    /// It is gone; of several tags, the one that was served.
    Deleted,
}

/// What may happen without a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MovePolicy {
    /// What is configured.
    pub rewind: Rewind,
    /// Commits that a person accepted, whatever way leads there.
    pub accepted: BTreeSet<CommitId>,
}

/// What to serve, and what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The revision to serve; nothing when there never was one.
    pub serve: Option<Revision>,
    /// How the reference moved.
    pub moved: Move,
    /// The movement, when it was not followed.
    pub refused: Option<RefusedMove>,
}

/// A movement that was not followed: the last accepted commit stays. `Display` says what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedMove {
    /// What stays.
    pub kept: Revision,
    /// What the remote has now; nothing when the reference is gone.
    pub offered: Option<Revision>,
    /// How it moved.
    pub moved: Move,
}

/// Why there is no verified checkout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotVerified {
    /// It cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It did not pass.
    #[error(transparent)]
    Unverified(#[from] Unverified),
}

// === impl Store ===

impl Store {
    /// How `track` moved from `last`, and what that means under `policy`.
    ///
    /// `last` is the accepted revision as the ledger has it. Gone or moved against its history, it stays, unless the
    /// policy allows the other one. Where there is no other one, it always stays.
    ///
    /// # Errors
    ///
    /// [`SourceError::Lost`] when the accepted commit stays but is not in the store: see
    /// [`super::Mirror::recover`].
    pub fn settle(&self, track: &Track, last: Option<&Revision>, policy: &MovePolicy) -> Result<Settled, SourceError> {
        let tip = self.resolve(track)?;
        let moved = self.judge_move(track, last, tip.as_ref())?;
        let allowed = match (&moved, &tip) {
            (Move::Absent | Move::First | Move::Unchanged | Move::Forward | Move::Chosen, _) => true,
            (Move::Rewound { .. } | Move::Unrelated | Move::MovedTag | Move::Deleted, Some(tip)) => {
                policy.rewind == Rewind::Accept || policy.accepted.contains(&tip.commit)
            }
            (Move::Rewound { .. } | Move::Unrelated | Move::MovedTag | Move::Deleted, None) => false,
        };
        match (allowed, last) {
            (true, _) | (false, None) => Ok(Settled { serve: tip, moved, refused: None }),
            (false, Some(last)) if self.contains(&last.commit)? => {
                let refused = RefusedMove { kept: last.clone(), offered: tip, moved: moved.clone() };
                Ok(Settled { serve: Some(last.clone()), moved, refused: Some(refused) })
            }
            (false, Some(last)) => {
                Err(SourceError::Lost { reference: last.reference.clone(), commit: last.commit.clone() })
            }
        }
    }

    /// How `track` moved from `last` to `tip`.
    pub fn judge_move(
        &self,
        track: &Track,
        last: Option<&Revision>,
        tip: Option<&Revision>,
    ) -> Result<Move, SourceError> {
        let (last, tip) = match (last, tip) {
            (None, None) => return Ok(Move::Absent),
            (None, Some(_)) => return Ok(Move::First),
            (Some(last), None) => return Ok(if passed_over(track, last) { Move::Absent } else { Move::Deleted }),
            (Some(last), Some(tip)) => (last, tip),
        };
        match track {
            _ if last == tip => Ok(Move::Unchanged),
            Track::Branch(_) if last.reference == tip.reference => self.descent(&last.commit, &tip.commit),
            Track::Tag(_) | Track::Tags { .. } if last.reference == tip.reference => Ok(Move::MovedTag),
            Track::Branch(_) | Track::Tag(_) => Ok(Move::Chosen),
            Track::Tags { pattern, .. } => {
                // The last one was deleted, if a lower one is the highest now and nobody asked to pass it over.
                let lower = version(pattern, &tip.reference) < version(pattern, &last.reference);
                Ok(match (passed_over(track, last), lower) {
                    (true, _) => Move::Chosen,
                    (false, false) => Move::Forward,
                    (false, true) => Move::Deleted,
                })
            }
        }
    }

    /// How `new` descends from `old`, on one branch.
    fn descent(&self, old: &CommitId, new: &CommitId) -> Result<Move, SourceError> {
        if old == new {
            return Ok(Move::Unchanged);
        }
        self.with(|repository| {
            let failed = |error: git2::Error| self.failed("walk the history", &error);
            let new = self.find(repository, new)?.id();
            // A commit that the mirror does not have is in no history that it has.
            let Some(old) = oid(old).filter(|&old| repository.find_commit(old).is_ok()) else {
                return Ok(Move::Rewound { base: None });
            };
            if repository.graph_descendant_of(new, old).map_err(failed)? {
                return Ok(Move::Forward);
            }
            match repository.merge_base(old, new) {
                Ok(base) => Ok(Move::Rewound { base: Some(commit_id(base)) }),
                Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(Move::Unrelated),
                Err(error) => Err(failed(error)),
            }
        })
    }

    /// Gives a checkout to `desired`: the only way there is.
    ///
    /// `last_good` is the last verified commit of the reference; the verifier looks at the way from there.
    pub fn verified(
        &self,
        revision: &Revision,
        last_good: Option<&CommitId>,
        verifier: &dyn Verify,
    ) -> Result<Verified<Checkout>, NotVerified> {
        Ok(Verified::check(self, self.checkout(revision)?, last_good, verifier)?)
    }
}

/// Whether Git itself asks to leave the tag that was served: it is excluded, or the pattern is another one.
fn passed_over(track: &Track, last: &Revision) -> bool {
    match track {
        Track::Tags { pattern, exclude } => {
            exclude.contains(&last.reference) || version(pattern, &last.reference).is_none()
        }
        Track::Branch(name) | Track::Tag(name) => *name != last.reference,
    }
}

// === impl RefusedMove ===

impl RefusedMove {
    /// The way out.
    pub fn hint(&self) -> String {
        match &self.offered {
            None => format!("push `{}` again", self.kept.reference),
            Some(offered) => format!(
                "if that was meant: `backstay sync --accept-rewind {}`; if not, push {} again",
                offered.commit,
                self.kept.commit.short()
            ),
        }
    }
}

impl fmt::Display for RefusedMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, offered, moved } = self;
        let to = offered.as_ref().map_or("nothing", |offered| offered.commit.short());
        let name = &kept.reference;
        match moved {
            Move::Rewound { base: Some(base) } if Some(base) == offered.as_ref().map(|offered| &offered.commit) => {
                write!(f, "`{name}` was taken back to {to}")?;
            }
            Move::Rewound { .. } => write!(f, "`{name}` was rewritten and is now at {to}")?,
            Move::Unrelated => write!(f, "`{name}` is now at {to}, which has no history in common with it")?,
            Move::MovedTag => write!(f, "the tag `{name}` was moved to {to}")?,
            Move::Deleted => write!(f, "`{name}` was deleted")?,
            Move::Absent | Move::First | Move::Unchanged | Move::Forward | Move::Chosen => {
                write!(f, "`{name}` is now at {to}")?;
            }
        }
        write!(f, "; {} stays", kept.commit.short())
    }
}
