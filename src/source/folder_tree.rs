//! The files of a plain folder, for `validate` before anything is committed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::names::{self, FOLDER};
use super::{ContentId, Entry, EntryKind, Tree, TreeError};

/// Tells the ids of two folders apart: equal ids must mean equal content.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The files of a plain folder, under the same rules as those of a commit; `.git` at its top is passed over.
///
/// # Guarantees
///
/// What was read once is answered again without looking, so that one run sees one state of each file.
#[derive(Debug)]
pub struct FolderTree {
    root: PathBuf,
    number: u64,
    listed: Mutex<BTreeMap<String, Result<Vec<Entry>, TreeError>>>,
    read: Mutex<BTreeMap<String, Arc<[u8]>>>,
}

// === impl FolderTree ===

impl FolderTree {
    /// The files beneath `root`.
    ///
    /// # Errors
    ///
    /// `root` is no folder.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self, super::SourceError> {
        let root = root.into();
        let failed = |why: String| super::SourceError::File { deed: "open the folder", path: root.clone(), why };
        let meta = fs::metadata(&root).map_err(|error| failed(error.to_string()))?;
        if !meta.is_dir() {
            return Err(failed("it is no folder".to_owned()));
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { root, number, listed: Mutex::default(), read: Mutex::default() })
    }

    fn id(&self, path: &str) -> ContentId {
        ContentId(format!("folder-{}:{path}", self.number).into())
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// Kind of what stands at a path, without following it; nothing where nothing stands.
    fn kind(&self, path: &str) -> Result<Option<EntryKind>, TreeError> {
        if path.is_empty() {
            return Ok(Some(EntryKind::Folder));
        }
        match fs::symlink_metadata(self.at(path)) {
            Ok(meta) if meta.is_dir() => Ok(Some(EntryKind::Folder)),
            Ok(meta) if meta.is_file() => Ok(Some(EntryKind::File)),
            // A socket, a device or a pipe is no more to be read than a link.
            Ok(_) => Ok(Some(EntryKind::Link)),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(store(path, &error)),
        }
    }

    fn is_executable(&self, path: &str) -> bool {
        use std::os::unix::fs::PermissionsExt as _;
        fs::symlink_metadata(self.at(path)).is_ok_and(|meta| meta.permissions().mode() & 0o100 != 0)
    }

    fn list_now(&self, path: &str) -> Result<Vec<Entry>, TreeError> {
        let mut entries = Vec::new();
        let mut bad: Option<(String, &'static str)> = None;
        let reading = fs::read_dir(self.at(path)).map_err(|error| store(path, &error))?;
        for found in reading {
            let found = found.map_err(|error| store(path, &error))?;
            let name = found.file_name();
            let name = name.as_encoded_bytes();
            if path.is_empty() && name == b".git" {
                continue;
            }
            if entries.len() >= FOLDER {
                return Err(TreeError::Budget { path: path.to_owned(), what: "entries", limit: FOLDER });
            }
            if let Some(why) = names::refuse(name) {
                let found = (names::shown(name), why);
                bad = Some(bad.map_or(found.clone(), |bad| bad.min(found)));
                continue;
            }
            let name = String::from_utf8_lossy(name).into_owned();
            let child = names::join(path, &name);
            if let Some(kind) = self.kind(&child)? {
                let executable = kind == EntryKind::File && self.is_executable(&child);
                entries.push(Entry { name: name.into(), kind, id: self.id(&child), executable });
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let collisions = names::Collisions::among(entries.iter().map(|entry: &Entry| &*entry.name));
        let collision = entries.iter().find(|entry| collisions.has(&entry.name));
        let why = "another name in its folder differs by case alone";
        match bad.or_else(|| collision.map(|entry| (names::shown(entry.name.as_bytes()), why))) {
            Some((name, why)) => Err(TreeError::Name { path: names::join(path, &name), why }),
            None => Ok(entries),
        }
    }
}

fn store(path: &str, error: &std::io::Error) -> TreeError {
    TreeError::Store { path: names::shown(path.as_bytes()), why: error.to_string() }
}

fn read_at_most(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Tree for FolderTree {
    fn find(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        let parts = names::split(path)?;
        let mut above = String::new();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            above = names::join(&above, part);
            match self.kind(&above)? {
                None | Some(EntryKind::File) => return Ok(None),
                Some(EntryKind::Folder) => {}
                Some(kind) => return Err(super::git_tree::kind(&above, kind, "a folder")),
            }
        }
        let name = parts.last().copied().unwrap_or_default();
        let entry = |kind| Entry {
            name: name.into(),
            kind,
            id: self.id(path),
            executable: kind == EntryKind::File && self.is_executable(path),
        };
        Ok(self.kind(path)?.map(entry))
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, TreeError> {
        if let Some(known) = self.listed.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return known.clone();
        }
        let entries = match self.find(path)? {
            None => Ok(Vec::new()),
            Some(entry) if entry.kind == EntryKind::Folder => self.list_now(path),
            Some(entry) => Err(super::git_tree::kind(path, entry.kind, "a folder")),
        };
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), entries.clone());
        entries
    }

    fn read(&self, path: &str, limit: usize) -> Result<Option<Arc<[u8]>>, TreeError> {
        let too_long = || TreeError::Budget { path: path.to_owned(), what: "bytes", limit };
        if let Some(known) = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return if known.len() > limit { Err(too_long()) } else { Ok(Some(Arc::clone(known))) };
        }
        let Some(entry) = self.find(path)? else { return Ok(None) };
        if entry.kind != EntryKind::File {
            return Err(super::git_tree::kind(path, entry.kind, "a file"));
        }
        let bytes = read_at_most(&self.at(path), limit).map_err(|error| store(path, &error))?;
        if bytes.len() > limit {
            return Err(too_long());
        }
        if names::is_lfs_pointer(&bytes) {
            return Err(TreeError::LfsPointer { path: path.to_owned() });
        }
        let bytes: Arc<[u8]> = bytes.into();
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), Arc::clone(&bytes));
        Ok(Some(bytes))
    }

    fn link(&self, path: &str) -> Result<Option<Arc<str>>, TreeError> {
        let Some(entry) = self.find(path)?.filter(|entry| entry.kind == EntryKind::Link) else { return Ok(None) };
        let at = self.at(path);
        let meta = fs::symlink_metadata(&at).map_err(|error| store(path, &error))?;
        if !meta.is_symlink() {
            let expected = "a file, a folder or a link";
            return Err(TreeError::Kind {
                path: entry.name.to_string(),
                found: "a device, a pipe or a socket",
                expected,
            });
        }
        let target = fs::read_link(&at).map_err(|error| store(path, &error))?;
        super::git_tree::target_of(path, target.into_os_string().into_encoded_bytes()).map(Some)
    }
}
