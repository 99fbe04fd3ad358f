//! Commits sent to the remote: never by force, and never over what somebody else sent.

use std::path::Path;

use git2::{ErrorCode, Oid, Repository};

use super::error::plain;
use super::store::{commit_id, oid};
use super::{Mirror, SourceError, remote};
use crate::model::CommitId;

/// Hooks that decide whether a push is taken. A push by path runs none of them.
const HOOKS: [&str; 3] = ["pre-receive", "update", "reference-transaction"];

/// Why a commit did not get to the remote, or nobody knows whether it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The branch moved since: look again.
    #[error("`{reference}` moved while a commit was made for it")]
    Moved {
        /// The branch, by full name.
        reference: String,
        /// Where it is now, as far as it was seen.
        at: Option<CommitId>,
    },
    /// The remote does not take it: a hook, a protected branch.
    #[error("the remote refuses the push to `{reference}`: {message}")]
    Refused {
        /// The branch, by full name.
        reference: String,
        /// What it said.
        message: String,
    },
    /// The talk with the remote failed. The push may have happened: the next poll shows the commit as the tip.
    #[error(transparent)]
    Source(#[from] SourceError),
}

// === impl PushError ===

impl PushError {
    /// The way out, in one sentence without a full stop.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Moved { .. } => Some("nothing: it is looked at again".to_owned()),
            Self::Refused { .. } => {
                Some("allow this account to push there, or set `writeBack: pullRequest` or `none`".to_owned())
            }
            Self::Source(error) => error.hint(),
        }
    }
}

// === impl Mirror ===

impl Mirror {
    /// Sends `commit` to `branch`, which must still be at `expected` (nothing: must not be there).
    ///
    /// A branch that is at `commit` already is done: the reply to an earlier push was lost.
    ///
    /// # Errors
    ///
    /// [`PushError::Moved`] when the branch is elsewhere, [`PushError::Refused`] when the remote does not take it.
    pub fn push(&self, commit: &CommitId, branch: &str, expected: Option<&CommitId>) -> Result<(), PushError> {
        let id = self.store().with(|repository| Ok::<_, SourceError>(self.store().find(repository, commit)?.id()))?;
        self.push_reference(id, &format!("refs/heads/{branch}"), expected)
    }

    /// The same for any reference, by full name.
    pub(super) fn push_reference(
        &self,
        commit: Oid,
        reference: &str,
        expected: Option<&CommitId>,
    ) -> Result<(), PushError> {
        let _exclusive = self.exclusive();
        self.store().with(|repository| match self.config().url.local() {
            Some(path) => self.push_to_path(repository, path, commit, reference, expected),
            None => remote::push(repository, self.config(), self.folder(), commit, reference, expected),
        })
    }

    /// A push to a folder, by steps that cannot overwrite what another process does there at the same time.
    fn push_to_path(
        &self,
        repository: &Repository,
        path: &Path,
        commit: Oid,
        reference: &str,
        expected: Option<&CommitId>,
    ) -> Result<(), PushError> {
        let url = || self.config().url.to_string();
        let failed = |error: git2::Error| {
            PushError::Source(SourceError::Remote { deed: "push to", url: url(), why: plain(error.message()) })
        };
        let refused = |message: String| PushError::Refused { reference: reference.to_owned(), message };
        let to = Repository::open(path).map_err(|error| {
            PushError::Source(SourceError::NoRepository { url: url(), why: plain(error.message()) })
        })?;
        let now = to.refname_to_id(reference).ok();
        if now == Some(commit) {
            return Ok(());
        }
        let moved = |at: Option<Oid>| PushError::Moved { reference: reference.to_owned(), at: at.map(commit_id) };
        if now != expected.and_then(oid) {
            return Err(moved(now));
        }
        if let Some(now) = now
            && !repository.graph_descendant_of(commit, now).unwrap_or(false)
        {
            return Err(moved(Some(now)));
        }
        if let Some(hook) = HOOKS.iter().find(|hook| is_executable(&to.commondir().join("hooks").join(hook))) {
            let way = "give its address as `ssh://` or `https://`";
            return Err(refused(format!(
                "the repository has a hook `{hook}`, which a push by path would pass by; {way}"
            )));
        }
        let checked_out = !to.is_bare()
            && to.find_reference("HEAD").is_ok_and(|head| head.symbolic_target().ok().flatten() == Some(reference));
        if checked_out {
            return Err(refused("the branch is checked out there; use a bare repository".to_owned()));
        }
        let known: Vec<Oid> = now.into_iter().collect();
        copy(repository, to.commondir(), commit, &known).map_err(failed)?;
        let set = match now {
            Some(now) => to.reference_matching(reference, commit, true, now, "push"),
            None => to.reference(reference, commit, false, "push"),
        };
        match set {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Exists | ErrorCode::Locked) => {
                Err(moved(to.refname_to_id(reference).ok()))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Copies a commit and all that belongs to it, but for the histories of `known`, into the object store of `git_dir`.
pub(super) fn copy(from: &Repository, git_dir: &Path, commit: Oid, known: &[Oid]) -> Result<(), git2::Error> {
    let mut walk = from.revwalk()?;
    walk.push(commit)?;
    for &known in known {
        walk.hide(known)?;
    }
    let mut builder = from.packbuilder()?;
    builder.insert_walk(&mut walk)?;
    if builder.object_count() > 0 {
        builder.write(&git_dir.join("objects/pack"), 0)?;
    }
    Ok(())
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
