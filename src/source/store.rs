//! Everything that is read from commits: a pool of handles on one repository, and the folders that were read.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ErrorClass, ErrorCode, ObjectType, Oid, Repository};

use super::git_tree::Folder;
use super::{Checkout, CommitInfo, GitTree, SourceError, TreeError, hermetic};
use crate::model::{CommitId, Revision, Timestamp};

/// Handles that are kept open while nobody uses them.
const IDLE: usize = 4;
/// Bytes of a commit or a tag, message and signature included: they are read whole.
pub(super) const COMMIT: usize = 1 << 20;
/// Entries of folders that are kept in memory, all together.
const KEPT: usize = 400_000;

/// Reads one repository: a mirror, or the one of a person who runs `validate` or `plan`.
///
/// # Guarantees
///
/// Cheap to clone; may be used by many threads at once. Every object is compared with its id when it is read.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    git_dir: PathBuf,
    idle: Mutex<Vec<(u64, Repository)>>,
    generation: AtomicU64,
    folders: Mutex<Folders>,
    damaged: AtomicBool,
}

/// A file or a folder of the repository, outside of any commit.
#[derive(Debug)]
pub enum Content {
    /// A file's bytes.
    File(Arc<[u8]>),
    /// A folder.
    Folder(GitTree),
}

/// Folders that were read, by their object id; emptied when there are too many.
#[derive(Default)]
struct Folders {
    known: HashMap<Oid, Arc<Folder>>,
    entries: usize,
}

// === impl Store ===

impl Store {
    /// Opens the repository that `path` lies in: a bare one, or a folder with work trees.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        hermetic::seal()?;
        let repository = Repository::discover(path).map_err(|error| SourceError::NoRepository {
            url: path.display().to_string(),
            why: super::error::plain(error.message()),
        })?;
        if repository.is_shallow() {
            return Err(SourceError::Config {
                why: format!("`{}` is a shallow clone", path.display()),
                hint: "fetch its whole history: `git fetch --unshallow`",
            });
        }
        Ok(Self::at(repository.path().to_owned()))
    }

    /// The repository in `git_dir`, which need not be there yet.
    pub(super) fn at(git_dir: PathBuf) -> Self {
        Self(Arc::new(Shared {
            git_dir,
            idle: Mutex::default(),
            generation: AtomicU64::default(),
            folders: Mutex::default(),
            damaged: AtomicBool::default(),
        }))
    }

    pub(super) fn git_dir(&self) -> &Path {
        &self.0.git_dir
    }

    /// Whether an object was missing or damaged since the last [`Store::renew`].
    pub(super) fn is_damaged(&self) -> bool {
        self.0.damaged.load(Ordering::Acquire)
    }

    pub(super) fn note_damage(&self) {
        self.0.damaged.store(true, Ordering::Release);
    }

    /// Lets go of all handles: files that they have open were taken away, and stay open as long as they do.
    pub(super) fn reopen(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets all handles: the repository was made anew.
    pub(super) fn renew(&self) {
        self.reopen();
        self.0.damaged.store(false, Ordering::Release);
    }

    /// Runs `deed` with a handle of its own.
    pub(super) fn with<T, E: From<SourceError>>(&self, deed: impl FnOnce(&Repository) -> Result<T, E>) -> Result<T, E> {
        let generation = self.0.generation.load(Ordering::Acquire);
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let repository = match idle {
            Some((of, repository)) if of == generation => repository,
            _ => {
                hermetic::seal()?;
                Repository::open(&self.0.git_dir).map_err(|error| {
                    self.note_damage();
                    SourceError::Damaged { why: super::error::plain(error.message()) }
                })?
            }
        };
        let result = deed(&repository);
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE && self.0.generation.load(Ordering::Acquire) == generation {
            idle.push((generation, repository));
        }
        result
    }

    /// What a failed read means; damage is remembered.
    pub(super) fn failed(&self, deed: &'static str, error: &git2::Error) -> SourceError {
        let why = super::error::plain(error.message());
        if is_damage(error) {
            self.note_damage();
            SourceError::Damaged { why }
        } else {
            SourceError::Internal { deed, why }
        }
    }

    /// The folder with this object id, read or remembered.
    pub(super) fn folder(&self, id: Oid, path: &str) -> Result<Arc<Folder>, TreeError> {
        let known = |folders: &Mutex<Folders>| {
            folders.lock().unwrap_or_else(PoisonError::into_inner).known.get(&id).map(Arc::clone)
        };
        if let Some(folder) = known(&self.0.folders) {
            return Ok(folder);
        }
        let folder = Arc::new(self.object(
            id,
            ObjectType::Tree,
            path,
            |size| {
                if size > Folder::BYTES {
                    Err(TreeError::Budget { path: path.to_owned(), what: "entries", limit: super::names::FOLDER })
                } else {
                    Ok(())
                }
            },
            |bytes| Folder::parse(bytes, path),
        )??);
        let mut folders = self.0.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if folders.entries > KEPT {
            *folders = Folders::default();
        }
        folders.entries += folder.len() + 1;
        folders.known.insert(id, Arc::clone(&folder));
        Ok(folder)
    }

    /// Reads an object of a kind; `allowed` is asked with its size before it is unpacked.
    pub(super) fn object<T>(
        &self,
        id: Oid,
        kind: ObjectType,
        path: &str,
        allowed: impl FnOnce(usize) -> Result<(), TreeError>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, TreeError> {
        let store = |why: String| TreeError::Store { path: path.to_owned(), why };
        let failed = |error: &git2::Error| {
            if is_damage(error) {
                self.note_damage();
            }
            store(super::error::plain(error.message()))
        };
        let result = self.with(|repository| -> Result<Result<T, TreeError>, SourceError> {
            let read = || {
                let odb = repository.odb().map_err(|error| failed(&error))?;
                let (size, found) = odb.read_header(id).map_err(|error| failed(&error))?;
                if found != kind {
                    return Err(store(format!("the object is a {found}, not a {kind}")));
                }
                allowed(size)?;
                let object = odb.read(id).map_err(|error| failed(&error))?;
                Ok(read(object.data()))
            };
            Ok(read())
        });
        result.map_err(|error| store(error.to_string()))?
    }

    /// The file or the folder with this object id, whatever commit it is part of; a file has `limit` bytes at most.
    ///
    /// # Errors
    ///
    /// Nothing has this id, or it is neither.
    pub fn content(&self, id: &str, limit: usize) -> Result<Content, TreeError> {
        let oid = Oid::from_str(id)
            .map_err(|error| TreeError::Store { path: id.to_owned(), why: super::error::plain(error.message()) })?;
        let failed = |error: SourceError| TreeError::Store { path: id.to_owned(), why: error.to_string() };
        let kind = self.with(|repository| {
            let odb = repository.odb().map_err(|error| self.failed("open the objects", &error))?;
            // What the remote has taken away is no damage.
            odb.read_header(oid).map(|(_, kind)| kind).map_err(|error| SourceError::NoCommit {
                name: id.to_owned(),
                why: super::error::plain(error.message()),
            })
        });
        match kind.map_err(failed)? {
            ObjectType::Tree => Ok(Content::Folder(GitTree::new(self.clone(), oid))),
            ObjectType::Any | ObjectType::Blob | ObjectType::Commit | ObjectType::Tag => {
                let within = |size| {
                    let path = id.to_owned();
                    if size > limit { Err(TreeError::Budget { path, what: "bytes", limit }) } else { Ok(()) }
                };
                self.object(oid, ObjectType::Blob, id, within, |bytes| bytes.into()).map(Content::File)
            }
        }
    }

    /// What a commit says of itself.
    pub fn commit(&self, commit: &CommitId) -> Result<CommitInfo, SourceError> {
        self.with(|repository| Ok(info(&self.find(repository, commit)?)))
    }

    /// The bytes of a commit, as they are hashed and signed.
    pub(super) fn raw_commit(&self, commit: &CommitId) -> Result<Vec<u8>, SourceError> {
        let none = |why: String| SourceError::NoCommit { name: commit.to_string(), why };
        let id = oid(commit).ok_or_else(|| none("ids of this length are not supported".to_owned()))?;
        let allowed = |size: usize| {
            let (path, limit) = (commit.to_string(), COMMIT);
            if size > limit { Err(TreeError::Budget { path, what: "bytes", limit }) } else { Ok(()) }
        };
        let raw = self.object(id, ObjectType::Commit, commit.as_str(), allowed, <[u8]>::to_vec);
        raw.map_err(|error| none(error.to_string()))
    }

    /// When a commit was made, by its committer's clock.
    pub fn commit_time(&self, commit: &CommitId) -> Result<Timestamp, SourceError> {
        self.with(|repository| {
            let seconds = self.find(repository, commit)?.time().seconds();
            Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
        })
    }

    /// Whether a commit is there.
    pub fn contains(&self, commit: &CommitId) -> Result<bool, SourceError> {
        match self.with(|repository| self.find(repository, commit).map(drop)) {
            Ok(()) => Ok(true),
            Err(SourceError::NoCommit { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The commit and its files. Its tree shares what was read with all others of this store.
    pub fn checkout(&self, revision: &Revision) -> Result<Checkout, SourceError> {
        let (commit, root) = self.with(|repository| {
            let commit = self.find(repository, &revision.commit)?;
            Ok::<_, SourceError>((info(&commit), commit.tree_id()))
        })?;
        Ok(Checkout { revision: revision.clone(), commit, tree: Arc::new(GitTree::new(self.clone(), root)) })
    }

    /// Finds a commit, in a handle's repository.
    pub(super) fn find<'a>(
        &self,
        repository: &'a Repository,
        commit: &CommitId,
    ) -> Result<git2::Commit<'a>, SourceError> {
        let none = |why: &str| SourceError::NoCommit { name: commit.to_string(), why: why.to_owned() };
        let id = oid(commit).ok_or_else(|| none("ids of this length are not supported"))?;
        repository.find_commit(id).map_err(|error| {
            if error.code() == ErrorCode::NotFound {
                none("nothing has this id")
            } else if error.class() == ErrorClass::Invalid {
                none("it is another kind of object")
            } else {
                self.failed("read a commit", &error)
            }
        })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.git_dir).finish()
    }
}

/// Whether the store itself is at fault: an object is missing, or is not what its id says.
fn is_damage(error: &git2::Error) -> bool {
    matches!(error.code(), ErrorCode::NotFound | ErrorCode::HashsumMismatch)
        || matches!(error.class(), ErrorClass::Odb | ErrorClass::Zlib | ErrorClass::Os | ErrorClass::Object)
}

/// The object id as libgit2 takes it; nothing for ids of SHA-256.
pub(super) fn oid(commit: &CommitId) -> Option<Oid> {
    if commit.as_str().len() == 40 { Oid::from_str(commit.as_str()).ok() } else { None }
}

/// The object id as the other rooms take it.
pub(super) fn commit_id(id: Oid) -> CommitId {
    let mut bytes = [0; 20];
    bytes.iter_mut().zip(id.as_bytes()).for_each(|(to, from)| *to = *from);
    CommitId::of_sha1(bytes)
}

fn info(commit: &git2::Commit<'_>) -> CommitInfo {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let author = commit.author();
    CommitInfo {
        id: commit_id(commit.id()),
        parents: commit.parent_ids().map(commit_id).collect(),
        author: format!("{} <{}>", lossy(author.name_bytes()), lossy(author.email_bytes())),
        message: lossy(commit.message_bytes()),
    }
}
