//! Commits made here: files written, removed or restored, and commits reverted, all in memory and the object store.

use std::str::FromStr;
use std::sync::Arc;

use git2::{MergeOptions, ObjectType, Oid, Repository, Signature, Time};

use super::error::plain;
use super::names;
use super::store::commit_id;
use super::{Changed, GitTree, SignError, SigningKey, SourceError, Store, Tree, TreeError};
use crate::model::{CommitId, Timestamp};

/// One change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The file gets these bytes, and is made when it is not there.
    Write {
        /// Its path.
        path: String,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// The file or folder goes; nothing happens when it is not there.
    Remove {
        /// Its path.
        path: String,
    },
    /// The file or folder becomes what it was at a commit, absent if it was.
    Restore {
        /// Its path.
        path: String,
        /// When it was right.
        from: CommitId,
    },
}

/// Who made a commit: written as `Name <address>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
}

/// How a revert went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a conflict leaves the draft as it was"]
pub enum Reverted {
    /// All of them are taken back in the draft.
    Clean,
    /// One could not be taken back; the draft is as it was.
    Conflict(Conflict),
}

/// A commit that cannot be taken back, because later ones changed the same lines or files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which.
    pub commit: CommitId,
    /// Where, escaped.
    pub paths: Vec<String>,
}

/// Why no commit was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Something cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A path cannot be written.
    #[error(transparent)]
    Path(#[from] TreeError),
    /// The first commit of a history cannot be reverted: nothing would be left.
    #[error("commit {0} has no parent, so it cannot be reverted")]
    Root(CommitId),
    /// Nothing would be left.
    #[error("the commit would leave no file")]
    Empty,
    /// Nothing would change.
    #[error("the commit would change nothing")]
    Unchanged,
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The text does not name a person.
    #[error("`{0}` names no person: `Name <address>` is expected")]
    Person(String),
}

/// The folder of a commit that is being made, on top of another one.
///
/// Nothing can be seen of it until [`Draft::commit`], and nothing at the remote until [`super::Mirror::push`].
#[derive(Debug, Clone)]
#[must_use = "a draft does nothing until it is committed"]
pub struct Draft {
    store: Store,
    base: CommitId,
    base_tree: Oid,
    tree: Oid,
}

// === impl Person ===

impl FromStr for Person {
    type Err = WriteError;

    fn from_str(text: &str) -> Result<Self, WriteError> {
        let wrong = || WriteError::Person(plain(text));
        if text.chars().any(char::is_control) {
            return Err(wrong());
        }
        let (name, rest) = text.split_once('<').ok_or_else(wrong)?;
        let email = rest.strip_suffix('>').ok_or_else(wrong)?;
        let legal = |text: &str| !text.is_empty() && !text.contains(['<', '>']);
        let name = name.trim();
        if legal(name) && legal(email) && !email.contains(' ') {
            Ok(Self { name: name.to_owned(), email: email.to_owned() })
        } else {
            Err(wrong())
        }
    }
}

impl Person {
    fn signature(&self, at: Timestamp) -> Result<Signature<'static>, WriteError> {
        Signature::new(&self.name, &self.email, &Time::new(at.as_second(), 0))
            .map_err(|_| WriteError::Person(format!("{} <{}>", plain(&self.name), plain(&self.email))))
    }
}

// === impl Store ===

impl Store {
    /// Begins a commit on top of `base`.
    pub fn draft(&self, base: &CommitId) -> Result<Draft, SourceError> {
        let tree = self.with(|repository| Ok::<_, SourceError>(self.find(repository, base)?.tree_id()))?;
        Ok(Draft { store: self.clone(), base: base.clone(), base_tree: tree, tree })
    }
}

// === impl Draft ===

impl Draft {
    /// Changes files.
    ///
    /// # Errors
    ///
    /// A path that cannot be used, or that leads through a file. The draft is then as it was.
    pub fn edit(&mut self, edits: &[Edit]) -> Result<(), WriteError> {
        let store = self.store.clone();
        self.tree = store.with(|repository| {
            let failed = |error: git2::Error| WriteError::Source(store.failed("write a file", &error));
            let mut tree = self.tree;
            for edit in edits {
                let (path, change) = match edit {
                    Edit::Write { path, bytes } => {
                        let blob = repository.blob(bytes).map_err(failed)?;
                        (path, Change::File(blob))
                    }
                    Edit::Remove { path } => (path, Change::Nothing),
                    Edit::Restore { path, from } => {
                        let then = store.find(repository, from)?.tree_id();
                        (path, entry(repository, then, path).map_err(failed)?.map_or(Change::Nothing, Change::Entry))
                    }
                };
                let parts = names::split(path)?;
                if parts.is_empty() {
                    let why = "it is the whole repository";
                    return Err(TreeError::Name { path: path.clone(), why }.into());
                }
                let changed = put(repository, Some(tree), &parts, change).map_err(|error| match error {
                    Refused::Through => WriteError::Path(TreeError::Kind {
                        path: path.clone(),
                        found: "beneath a file",
                        expected: "a place in folders",
                    }),
                    Refused::Git(error) => failed(error),
                })?;
                tree = match changed {
                    Some(tree) => tree,
                    None => empty(repository).map_err(failed)?,
                };
            }
            Ok::<_, WriteError>(tree)
        })?;
        Ok(())
    }

    /// Takes commits back, in the order given (the newest first), merges against their first parent.
    ///
    /// Renames are not followed: a file that moved since is a conflict.
    pub fn revert(&mut self, commits: &[CommitId]) -> Result<Reverted, WriteError> {
        let store = self.store.clone();
        let mut options = MergeOptions::new();
        options.find_renames(false);
        let result = store.with(|repository| {
            let failed = |error: git2::Error| WriteError::Source(store.failed("revert a commit", &error));
            let mut tree = self.tree;
            for id in commits {
                let commit = store.find(repository, id)?;
                let Ok(parent) = commit.parent_id(0) else { return Err(WriteError::Root(id.clone())) };
                let parent = store.find(repository, &commit_id(parent))?;
                let then = commit.tree().map_err(failed)?;
                let ours = repository.find_tree(tree).map_err(failed)?;
                let before = parent.tree().map_err(failed)?;
                let mut index = repository.merge_trees(&then, &ours, &before, Some(&options)).map_err(failed)?;
                if index.has_conflicts() {
                    let paths = conflicts(&index).map_err(failed)?;
                    return Ok(Err(Conflict { commit: id.clone(), paths }));
                }
                tree = index.write_tree_to(repository).map_err(failed)?;
            }
            Ok(Ok(tree))
        })?;
        Ok(match result {
            Ok(tree) => {
                self.tree = tree;
                Reverted::Clean
            }
            Err(conflict) => Reverted::Conflict(conflict),
        })
    }

    /// Its files as they are now.
    pub fn tree(&self) -> Arc<dyn Tree> {
        Arc::new(GitTree::new(self.store.clone(), self.tree))
    }

    /// What it changes.
    pub fn changed(&self) -> Result<Changed, SourceError> {
        self.store.with(|repository| self.store.compare(repository, Some(self.base_tree), Some(self.tree), &[]))
    }

    /// Makes the commit, in the object store only.
    ///
    /// # Errors
    ///
    /// It would change nothing, or leave nothing.
    pub fn commit(
        &self,
        author: &Person,
        committer: &Person,
        at: Timestamp,
        message: &str,
    ) -> Result<CommitId, WriteError> {
        self.signed_commit(author, committer, at, message, None)
    }

    /// The same, signed with a key.
    ///
    /// # Errors
    ///
    /// The key cannot sign, too.
    pub fn signed_commit(
        &self,
        author: &Person,
        committer: &Person,
        at: Timestamp,
        message: &str,
        key: Option<&SigningKey>,
    ) -> Result<CommitId, WriteError> {
        if self.tree == self.base_tree {
            return Err(WriteError::Unchanged);
        }
        let (author, committer) = (author.signature(at)?, committer.signature(at)?);
        self.store.with(|repository| {
            let failed = |error: git2::Error| WriteError::Source(self.store.failed("make a commit", &error));
            let tree = repository.find_tree(self.tree).map_err(failed)?;
            if tree.is_empty() {
                return Err(WriteError::Empty);
            }
            let parent = self.store.find(repository, &self.base)?;
            let id = match key {
                None => repository.commit(None, &author, &committer, message, &tree, &[&parent]).map_err(failed)?,
                Some(key) => {
                    let made = repository.commit_create_buffer(&author, &committer, message, &tree, &[&parent]);
                    let made = made.map_err(failed)?;
                    let text = String::from_utf8_lossy(&made);
                    let signature = key.sign(text.as_bytes())?;
                    repository.commit_signed(&text, signature.trim_end(), Some("gpgsig")).map_err(failed)?
                }
            };
            Ok(commit_id(id))
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    File(Oid),
    Entry((i32, Oid)),
    Nothing,
}

enum Refused {
    Through,
    Git(git2::Error),
}

impl From<git2::Error> for Refused {
    fn from(error: git2::Error) -> Self {
        Self::Git(error)
    }
}

const FILE: i32 = 0o100_644;
const EXECUTABLE: i32 = 0o100_755;
const FOLDER: i32 = 0o040_000;

/// Mode and id of what stands at a path.
fn entry(repository: &Repository, tree: Oid, path: &str) -> Result<Option<(i32, Oid)>, git2::Error> {
    match repository.find_tree(tree)?.get_path(path.as_ref()) {
        Ok(entry) => Ok(Some((entry.filemode(), entry.id()))),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The folder with one path changed; nothing when that leaves it empty, as Git has no empty folders.
fn put(repository: &Repository, tree: Option<Oid>, path: &[&str], change: Change) -> Result<Option<Oid>, Refused> {
    let [name, rest @ ..] = path else { return Ok(tree) };
    let unchanged = tree;
    let tree = tree.map(|tree| repository.find_tree(tree)).transpose()?;
    let there = tree.as_ref().and_then(|tree| tree.get_name(name));
    let mut builder = repository.treebuilder(tree.as_ref())?;
    let (there_mode, there_folder) = match &there {
        Some(entry) => (Some(entry.filemode()), (entry.kind() == Some(ObjectType::Tree)).then(|| entry.id())),
        None => (None, None),
    };
    let new = if rest.is_empty() {
        match change {
            Change::File(blob) => Some((if there_mode == Some(EXECUTABLE) { EXECUTABLE } else { FILE }, blob)),
            Change::Entry(entry) => Some(entry),
            Change::Nothing => None,
        }
    } else if there.is_some() && there_folder.is_none() {
        match change {
            Change::Nothing => return Ok(unchanged),
            Change::File(_) | Change::Entry(_) => return Err(Refused::Through),
        }
    } else {
        put(repository, there_folder, rest, change)?.map(|id| (FOLDER, id))
    };
    match new {
        Some((mode, id)) => drop(builder.insert(*name, id, mode)?),
        None if there.is_some() => builder.remove(*name)?,
        None => {}
    }
    Ok(if builder.is_empty() { None } else { Some(builder.write()?) })
}

fn empty(repository: &Repository) -> Result<Oid, git2::Error> {
    repository.treebuilder(None)?.write()
}

fn conflicts(index: &git2::Index) -> Result<Vec<String>, git2::Error> {
    let mut paths = Vec::new();
    for conflict in index.conflicts()?.take(100) {
        let conflict = conflict?;
        let side = conflict.our.or(conflict.their).or(conflict.ancestor);
        paths.extend(side.map(|entry| names::shown(&entry.path)));
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_a_name_and_an_address() {
        let person: Person = "Alice Example <alice@example.com>".parse().expect("a person");
        assert_eq!((person.name.as_str(), person.email.as_str()), ("Alice Example", "alice@example.com"));
        for bad in
            ["", "alice", "alice@example.com", "<alice@example.com>", "Alice <>", "A <a> <b>", "A <a b>", "A\n <a>"]
        {
            assert!(bad.parse::<Person>().is_err(), "{bad:?}");
        }
    }
}
