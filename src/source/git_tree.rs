//! The files of one commit, read from the object store.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ObjectType, Oid};

use super::names::{self, ENTRIES, FOLDER, NAME};
use super::{ContentId, Entry, EntryKind, Store, Tree, TreeError};

/// The files of one commit, as blobs of the object store.
///
/// # Guarantees
///
/// Bytes are those of the blob: no filter, no change of line ends, no cut byte order mark. Besides what [`Tree`] says,
/// listing refuses a folder with more than 20,000 entries, and a commit in which more than 500,000 entries are
/// listed: a few objects can stand for any number of paths.
pub struct GitTree {
    store: Store,
    root: Oid,
    budget: Mutex<Budget>,
    folders: Mutex<HashMap<String, Oid>>,
}

/// Folders whose place is remembered, so that their files need no walk from the root.
const PLACES: usize = 4096;

/// The folders that were listed, as hashes of their paths, and how many entries they had.
#[derive(Default)]
struct Budget {
    hasher: RandomState,
    listed: HashSet<u64>,
    entries: usize,
}

/// One folder, read and judged: entries sorted by name, each with what is wrong with its name.
pub(super) struct Folder {
    entries: Box<[(Entry, Option<&'static str>)]>,
    bad: Option<(String, &'static str)>,
}

// === impl Folder ===

impl Folder {
    /// More bytes than any folder within the limits has.
    pub(super) const BYTES: usize = FOLDER * (NAME + 32);

    /// Reads a tree object: `<mode> <name>\0<20 bytes>`, again and again.
    pub(super) fn parse(bytes: &[u8], path: &str) -> Result<Self, TreeError> {
        let damaged = || TreeError::Store { path: path.to_owned(), why: "the folder's object is malformed".to_owned() };
        let mut rest = bytes;
        let mut raw: Vec<(&[u8], EntryKind, Oid, bool)> = Vec::new();
        let mut bad = None;
        while !rest.is_empty() {
            if raw.len() >= FOLDER {
                return Err(TreeError::Budget { path: path.to_owned(), what: "entries", limit: FOLDER });
            }
            let space = rest.iter().take(8).position(|&byte| byte == b' ').ok_or_else(damaged)?;
            let nul = rest.iter().position(|&byte| byte == 0).filter(|&nul| nul > space).ok_or_else(damaged)?;
            let id = rest.get(nul + 1..nul + 21).ok_or_else(damaged)?;
            let id = Oid::from_bytes(id).map_err(|_| damaged())?;
            let name = &rest[space + 1..nul];
            let mode = std::str::from_utf8(&rest[..space]).ok().and_then(|mode| u32::from_str_radix(mode, 8).ok());
            let kind = match mode.map(|mode| mode & 0o170_000) {
                Some(0o040_000) => EntryKind::Folder,
                Some(0o100_000) => EntryKind::File,
                Some(0o120_000) => EntryKind::Link,
                Some(0o160_000) => EntryKind::Submodule,
                _ => return Err(damaged()),
            };
            match names::refuse(name) {
                Some(why) => bad = bad.or_else(|| Some((names::shown(name), why))),
                None => {
                    let executable = kind == EntryKind::File && mode.is_some_and(|mode| mode & 0o100 != 0);
                    raw.push((name, kind, id, executable));
                }
            }
            rest = &rest[nul + 21..];
        }
        raw.sort_unstable_by_key(|&(name, ..)| name);
        // All names passed `refuse`, so they are UTF-8.
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let texts: Vec<String> = raw.iter().map(|&(name, ..)| text(name)).collect();
        let collisions = names::Collisions::among(texts.iter().map(String::as_str));
        let entries: Box<[_]> = raw
            .iter()
            .zip(&texts)
            .map(|(&(_, kind, id, executable), name)| {
                let why = collisions.has(name).then_some("another name in its folder differs by case alone");
                let entry =
                    Entry { name: name.as_str().into(), kind, id: ContentId(id.to_string().into()), executable };
                (entry, why)
            })
            .collect();
        let collision =
            entries.iter().find_map(|(entry, why)| why.map(|why| (names::shown(entry.name.as_bytes()), why)));
        Ok(Self { entries, bad: bad.or(collision) })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry with this very name.
    fn find(&self, name: &str, path: &str) -> Result<Option<&Entry>, TreeError> {
        match self.entries.binary_search_by(|(entry, _)| (*entry.name).cmp(name)) {
            Ok(at) => match &self.entries[at] {
                (_, Some(why)) => Err(TreeError::Name { path: names::join(path, name), why }),
                (entry, None) => Ok(Some(entry)),
            },
            Err(_) => Ok(None),
        }
    }

    /// All entries, when all their names can be used.
    fn all(&self, path: &str) -> Result<Vec<Entry>, TreeError> {
        match &self.bad {
            Some((name, why)) => Err(TreeError::Name { path: names::join(path, name), why }),
            None => Ok(self.entries.iter().map(|(entry, _)| entry.clone()).collect()),
        }
    }
}

// === impl GitTree ===

impl GitTree {
    pub(super) fn new(store: Store, root: Oid) -> Self {
        Self { store, root, budget: Mutex::default(), folders: Mutex::default() }
    }

    /// What stands at `path`, and its object.
    fn walk(&self, path: &str) -> Result<Option<(Entry, Oid)>, TreeError> {
        let names = names::split(path)?;
        let Some((name, above)) = names.split_last() else {
            let id = ContentId(self.root.to_string().into());
            return Ok(Some((Entry { name: "".into(), kind: EntryKind::Folder, id, executable: false }, self.root)));
        };
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let Some(folder) = self.place(parent, above)? else { return Ok(None) };
        let folder = self.store.folder(folder, parent)?;
        let Some(entry) = folder.find(name, parent)? else { return Ok(None) };
        Ok(Some((entry.clone(), object_id(entry, path)?)))
    }

    /// The object of the folder at `path`; nothing where there is none.
    fn place(&self, path: &str, names: &[&str]) -> Result<Option<Oid>, TreeError> {
        if names.is_empty() {
            return Ok(Some(self.root));
        }
        let known = self.folders.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        if known.is_some() {
            return Ok(known);
        }
        let mut at = self.root;
        let mut above = String::new();
        for name in names {
            let folder = self.store.folder(at, &above)?;
            let Some(entry) = folder.find(name, &above)? else { return Ok(None) };
            above = names::join(&above, name);
            match entry.kind {
                EntryKind::Folder => at = object_id(entry, &above)?,
                EntryKind::File => return Ok(None),
                EntryKind::Link | EntryKind::Submodule => return Err(kind(&above, entry.kind, "a folder")),
            }
        }
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if folders.len() >= PLACES {
            folders.clear();
        }
        folders.insert(path.to_owned(), at);
        Ok(Some(at))
    }

    /// Counts the entries of a folder, once per path.
    fn count(&self, path: &str, entries: usize) -> Result<(), TreeError> {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let key = budget.hasher.hash_one(path);
        if !budget.listed.contains(&key) {
            if budget.entries + entries + 1 > ENTRIES {
                return Err(TreeError::Budget { path: path.to_owned(), what: "entries in the commit", limit: ENTRIES });
            }
            budget.entries += entries + 1;
            budget.listed.insert(key);
        }
        Ok(())
    }
}

fn object_id(entry: &Entry, path: &str) -> Result<Oid, TreeError> {
    Oid::from_str(&entry.id.0)
        .map_err(|error| TreeError::Store { path: path.to_owned(), why: error.message().to_owned() })
}

pub(super) fn kind(path: &str, found: EntryKind, expected: &'static str) -> TreeError {
    let found = match found {
        EntryKind::File => "a file",
        EntryKind::Folder => "a folder",
        EntryKind::Link => "a symbolic link",
        EntryKind::Submodule => "a submodule",
    };
    TreeError::Kind { path: path.to_owned(), found, expected }
}

impl Tree for GitTree {
    fn find(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        Ok(self.walk(path)?.map(|(entry, _)| entry))
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, TreeError> {
        match self.walk(path)? {
            None => Ok(Vec::new()),
            Some((entry, id)) if entry.kind == EntryKind::Folder => {
                let folder = self.store.folder(id, path)?;
                self.count(path, folder.len())?;
                folder.all(path)
            }
            Some((entry, _)) => Err(kind(path, entry.kind, "a folder")),
        }
    }

    fn read(&self, path: &str, limit: usize) -> Result<Option<Arc<[u8]>>, TreeError> {
        let Some((entry, id)) = self.walk(path)? else { return Ok(None) };
        if entry.kind != EntryKind::File {
            return Err(kind(path, entry.kind, "a file"));
        }
        let within = |size| {
            if size > limit { Err(TreeError::Budget { path: path.to_owned(), what: "bytes", limit }) } else { Ok(()) }
        };
        let bytes: Arc<[u8]> = self.store.object(id, ObjectType::Blob, path, within, |bytes| bytes.into())?;
        if names::is_lfs_pointer(&bytes) {
            return Err(TreeError::LfsPointer { path: path.to_owned() });
        }
        Ok(Some(bytes))
    }

    fn link(&self, path: &str) -> Result<Option<Arc<str>>, TreeError> {
        let Some((entry, id)) = self.walk(path)? else { return Ok(None) };
        if entry.kind != EntryKind::Link {
            return Ok(None);
        }
        let within = |size| {
            let (path, limit) = (path.to_owned(), names::PATH);
            if size > limit { Err(TreeError::Budget { path, what: "bytes", limit }) } else { Ok(()) }
        };
        let target: Vec<u8> = self.store.object(id, ObjectType::Blob, path, within, <[u8]>::to_vec)?;
        target_of(path, target).map(Some)
    }
}

/// The target of a link as text.
pub(super) fn target_of(path: &str, target: Vec<u8>) -> Result<Arc<str>, TreeError> {
    let why = "where the link leads is not UTF-8";
    String::from_utf8(target).map(Into::into).map_err(|_| TreeError::Name { path: path.to_owned(), why })
}

impl fmt::Debug for GitTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GitTree").field(&self.root).finish()
    }
}
