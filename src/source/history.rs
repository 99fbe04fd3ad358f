//! What commits changed, as plain values: who reverts what is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use git2::{ErrorCode, ObjectType, Oid, Repository};

use super::names::{self, LEVELS};
use super::store::{commit_id, oid};
use super::{CommitInfo, ContentId, SourceError, Store};
use crate::model::CommitId;

/// Changes of one comparison that are listed.
const CHANGES: usize = 50_000;

/// One file that differs between two commits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathChange {
    /// Its path; a name that cannot be used is escaped.
    pub path: String,
    /// Its content before; nothing when it is new.
    pub old: Option<ContentId>,
    /// Its content after; nothing when it was removed.
    pub new: Option<ContentId>,
}

/// The files that differ between two commits, sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Which, and how.
    pub paths: Vec<PathChange>,
    /// Whether these are all: false beyond 50,000, or deeper than 32 folders.
    pub complete: bool,
}

/// Commits on the first-parent path from one to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// The newest first; the one it ends at is not among them.
    pub commits: Vec<CommitInfo>,
    /// Whether that one was reached: false when it is on no first-parent path, or too far away.
    pub reached: bool,
}

// === impl PathChange ===

impl PathChange {
    /// The change that takes this one back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { path: self.path.clone(), old: self.new.clone(), new: self.old.clone() }
    }
}

// === impl Changed ===

impl Changed {
    /// Whether this takes back exactly what `other` did.
    pub fn is_inverse_of(&self, other: &Self) -> bool {
        self.complete
            && other.complete
            && self.paths.iter().eq(other.paths.iter().map(PathChange::inverse).collect::<Vec<_>>().iter())
    }
}

// === impl Store ===

impl Store {
    /// The commits from `new` back to `old` (without it), by first parents, at most `limit`.
    pub fn commits_between(&self, old: &CommitId, new: &CommitId, limit: usize) -> Result<Walk, SourceError> {
        let mut walk = Walk::default();
        let mut at = Some(new.clone());
        while let Some(id) = at {
            if id == *old {
                walk.reached = true;
                break;
            }
            if walk.commits.len() >= limit {
                break;
            }
            let commit = self.commit(&id)?;
            at = commit.parents.first().cloned();
            walk.commits.push(commit);
        }
        Ok(walk)
    }

    /// The commits in the history of `new`, itself among them, that are not in that of `old`, by whatever branch they came;
    /// all of `new`'s, when `old` is not there. Nothing where they are more than `limit`.
    ///
    /// # Errors
    ///
    /// When `new` is not there, or the mirror cannot be read.
    pub fn commits_since(
        &self,
        old: &CommitId,
        new: &CommitId,
        limit: usize,
    ) -> Result<Option<Vec<CommitInfo>>, SourceError> {
        let new = self.not_in(old, new, limit.saturating_add(1))?;
        (new.len() <= limit).then(|| new.iter().map(|id| self.commit(id)).collect()).transpose()
    }

    /// Commits in the history of `new`, itself among them, that are not in the history of `old`; all of them, when
    /// `old` is not there. At most `limit`.
    pub(super) fn not_in(
        &self,
        old: &CommitId,
        new: &CommitId,
        limit: usize,
    ) -> Result<BTreeSet<CommitId>, SourceError> {
        self.with(|repository| {
            let new = self.find(repository, new)?.id();
            let old = oid(old).filter(|&id| repository.find_commit(id).is_ok());
            let walked = || {
                let mut walk = repository.revwalk()?;
                walk.push(new)?;
                if let Some(old) = old {
                    walk.hide(old)?;
                }
                walk.take(limit).map(|id| id.map(commit_id)).collect::<Result<_, git2::Error>>()
            };
            walked().map_err(|error| self.failed("walk the history", &error))
        })
    }

    /// Whether `ancestor` is `commit` itself or in its history.
    pub fn is_ancestor(&self, ancestor: &CommitId, commit: &CommitId) -> Result<bool, SourceError> {
        self.with(|repository| {
            let commit = self.find(repository, commit)?.id();
            let Some(ancestor) = oid(ancestor).filter(|&id| repository.find_commit(id).is_ok()) else {
                return Ok(false);
            };
            let walked = repository.graph_descendant_of(commit, ancestor);
            Ok(commit == ancestor || walked.map_err(|error| self.failed("walk the history", &error))?)
        })
    }

    /// The newest commit that both histories share.
    pub fn merge_base(&self, one: &CommitId, other: &CommitId) -> Result<Option<CommitId>, SourceError> {
        self.with(|repository| {
            let (one, other) = (self.find(repository, one)?.id(), self.find(repository, other)?.id());
            match repository.merge_base(one, other) {
                Ok(base) => Ok(Some(commit_id(base))),
                Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
                Err(error) => Err(self.failed("walk the history", &error)),
            }
        })
    }

    /// What a commit changed against its first parent; everything, for one without parents.
    pub fn changed_paths(&self, commit: &CommitId) -> Result<Changed, SourceError> {
        self.with(|repository| {
            let commit = self.find(repository, commit)?;
            let before = match commit.parent_id(0) {
                Ok(parent) => Some(self.find(repository, &commit_id(parent))?.tree_id()),
                Err(_) => None,
            };
            self.compare(repository, before, Some(commit.tree_id()), &[])
        })
    }

    /// What differs from `old` to `new`, in and beneath `paths`; everywhere when there are none.
    pub fn diff(&self, old: &CommitId, new: &CommitId, paths: &[&str]) -> Result<Changed, SourceError> {
        self.with(|repository| {
            let (old, new) = (self.find(repository, old)?.tree_id(), self.find(repository, new)?.tree_id());
            self.compare(repository, Some(old), Some(new), paths)
        })
    }

    /// What differs between two folders.
    pub(super) fn compare(
        &self,
        repository: &Repository,
        old: Option<Oid>,
        new: Option<Oid>,
        paths: &[&str],
    ) -> Result<Changed, SourceError> {
        let mut changed = Changed { paths: Vec::new(), complete: true };
        compare(repository, old, new, "", 0, paths, &mut changed)
            .map_err(|error| self.failed("compare two commits", &error))?;
        changed.paths.sort();
        Ok(changed)
    }
}

/// Whether something at `path` may lie in or beneath, or hold, one of `paths`.
fn touches(path: &str, paths: &[&str]) -> bool {
    let within = |inner: &str, outer: &str| {
        outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    paths.is_empty() || paths.iter().any(|wanted| within(path, wanted) || within(wanted, path))
}

type Raw = BTreeMap<Vec<u8>, (Oid, bool)>;

/// Names, ids, and whether each is a folder.
fn entries(repository: &Repository, tree: Option<Oid>) -> Result<Raw, git2::Error> {
    let Some(tree) = tree else { return Ok(Raw::new()) };
    let tree = repository.find_tree(tree)?;
    let entry = |entry: git2::TreeEntry<'_>| {
        (entry.name_bytes().to_vec(), (entry.id(), entry.kind() == Some(ObjectType::Tree)))
    };
    Ok(tree.iter().map(entry).collect())
}

fn compare(
    repository: &Repository,
    old: Option<Oid>,
    new: Option<Oid>,
    folder: &str,
    depth: usize,
    paths: &[&str],
    changed: &mut Changed,
) -> Result<(), git2::Error> {
    if old == new {
        return Ok(());
    }
    if depth > LEVELS || changed.paths.len() >= CHANGES {
        changed.complete = false;
        return Ok(());
    }
    let (before, after) = (entries(repository, old)?, entries(repository, new)?);
    let mut names: Vec<&Vec<u8>> =
        before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))).collect();
    names.sort();
    for name in names {
        let (was, is) = (before.get(name), after.get(name));
        let path = names::join(folder, &names::shown(name));
        if was == is || !touches(&path, paths) {
            continue;
        }
        if changed.paths.len() >= CHANGES {
            changed.complete = false;
            return Ok(());
        }
        let part = |entry: Option<&(Oid, bool)>, folder: bool| {
            entry.filter(|&&(_, is_folder)| is_folder == folder).map(|&(id, _)| id)
        };
        let content = |id: Oid| ContentId(id.to_string().into());
        let (old, new) = (part(was, false), part(is, false));
        if old != new {
            changed.paths.push(PathChange { path: path.clone(), old: old.map(content), new: new.map(content) });
        }
        compare(repository, part(was, true), part(is, true), &path, depth + 1, paths, changed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::touches;

    #[test]
    fn paths_are_compared_by_whole_names() {
        assert!(touches("agents", &["agents/a"]) && touches("agents/a/x", &["agents/a"]) && touches("b", &[]));
        assert!(!touches("agents/ab", &["agents/a"]) && !touches("shared", &["agents/a"]));
    }
}
