//! A read-only view of the files of one commit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::model::Digest;

/// Names the content of a blob or a tree: equal ids are equal content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub Arc<str>);

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, executable or not.
    File,
    /// A folder.
    Folder,
    /// A symbolic link: refused wherever it is read.
    Link,
    /// A submodule: refused wherever it is read.
    Submodule,
}

/// One entry of a folder. Its name is UTF-8 without control characters; others fail the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File name, without the path.
    pub name: Arc<str>,
    /// What it is.
    pub kind: EntryKind,
    /// Its content.
    pub id: ContentId,
    /// Whether it is a file that its owner may execute.
    pub executable: bool,
}

/// The files of one commit, as blobs: nothing is checked out, filtered or executed.
///
/// Paths are relative to the root of the repository, with `/` between names, without a leading or trailing `/`; the
/// root is the empty path.
///
/// # Guarantees
///
/// The same path always gives the same answer: a tree never changes. A link, a submodule, a Git LFS pointer, a name
/// that is not plain text, or more than the budget allows is an error, never silently other content.
pub trait Tree: Send + Sync + fmt::Debug {
    /// What stands at `path`; nothing when there is nothing.
    fn find(&self, path: &str) -> Result<Option<Entry>, TreeError>;

    /// The entries of the folder at `path`, sorted by name; empty when there is none.
    fn list(&self, path: &str) -> Result<Vec<Entry>, TreeError>;

    /// The bytes of the file at `path`, at most `limit` of them; nothing when there is nothing.
    fn read(&self, path: &str, limit: usize) -> Result<Option<Arc<[u8]>>, TreeError>;

    /// Where the symbolic link at `path` leads, unfollowed; nothing where there is nothing, or no such link.
    fn link(&self, path: &str) -> Result<Option<Arc<str>>, TreeError>;
}

/// Why a part of a tree cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A name is not UTF-8, has control characters, is too long, or differs from another by case alone.
    #[error("the name `{path}` cannot be used: {why}")]
    Name {
        /// The path, escaped.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A symbolic link, a submodule, or a folder where a file is expected (or the other way round).
    #[error("`{path}` is {found}, {expected} is expected")]
    Kind {
        /// The path, escaped.
        path: String,
        /// What stands there.
        found: &'static str,
        /// What may stand there.
        expected: &'static str,
    },
    /// A Git LFS pointer stands where content is expected.
    #[error("`{path}` is a Git LFS pointer, the file itself is expected")]
    LfsPointer {
        /// The path, escaped.
        path: String,
    },
    /// More entries, bytes or levels than allowed.
    #[error("`{path}` has more than {limit} {what}")]
    Budget {
        /// The path, escaped.
        path: String,
        /// What is too many.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// The store does not give what the commit names: a missing or damaged object.
    #[error("`{path}` cannot be read from the mirror: {why}")]
    Store {
        /// The path, escaped.
        path: String,
        /// What the store said.
        why: String,
    },
}

/// Files held in memory, for tests and for a folder that was read.
#[derive(Debug, Clone, Default)]
pub struct MemoryTree {
    files: BTreeMap<String, Arc<[u8]>>,
}

// === impl ContentId ===

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(..8).unwrap_or(&self.0))
    }
}

// === impl MemoryTree ===

impl MemoryTree {
    /// Puts a file at `path`.
    #[must_use]
    pub fn with(mut self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.insert(path, bytes);
        self
    }

    /// Puts a file at `path`, in place of one that stands there.
    pub fn insert(&mut self, path: &str, bytes: impl AsRef<[u8]>) {
        self.files.insert(path.to_owned(), bytes.as_ref().into());
    }

    /// Takes the file at `path` away.
    pub fn remove(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// Path and content of all files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), &**bytes))
    }

    fn beneath<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a Arc<[u8]>)> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        self.files
            .range(prefix.clone()..)
            .take_while({
                let prefix = prefix.clone();
                move |(path, _)| path.starts_with(&prefix)
            })
            .map(move |(path, bytes)| (&path[prefix.len()..], bytes))
    }

    fn folder_id(&self, folder: &str) -> ContentId {
        let listing = self.beneath(folder).map(|(path, bytes)| format!("{path}\0{}\n", Digest::of(bytes)));
        ContentId(Digest::of(listing.collect::<String>().as_bytes()).to_string().into())
    }
}

impl Tree for MemoryTree {
    fn find(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let name: Arc<str> = path.rsplit('/').next().unwrap_or_default().into();
        if let Some(bytes) = self.files.get(path) {
            let id = ContentId(Digest::of(bytes).to_string().into());
            return Ok(Some(Entry { name, kind: EntryKind::File, id, executable: false }));
        }
        let exists = self.beneath(path).next().is_some();
        Ok(exists.then(|| Entry { name, kind: EntryKind::Folder, id: self.folder_id(path), executable: false }))
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, TreeError> {
        let mut names: Vec<&str> = self.beneath(path).filter_map(|(rest, _)| rest.split('/').next()).collect();
        names.dedup();
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let found = names.into_iter().map(|name| self.find(&format!("{prefix}{name}")));
        Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    fn read(&self, path: &str, limit: usize) -> Result<Option<Arc<[u8]>>, TreeError> {
        match self.files.get(path) {
            Some(bytes) if bytes.len() > limit => {
                Err(TreeError::Budget { path: path.to_owned(), what: "bytes", limit })
            }
            Some(bytes) => Ok(Some(Arc::clone(bytes))),
            None if self.beneath(path).next().is_some() => {
                Err(TreeError::Kind { path: path.to_owned(), found: "a folder", expected: "a file" })
            }
            None => Ok(None),
        }
    }

    /// There are no links in it.
    fn link(&self, _: &str) -> Result<Option<Arc<str>>, TreeError> {
        Ok(None)
    }
}
