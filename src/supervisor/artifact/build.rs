//! A folder that becomes an artifact, entry by entry; and what a folder on disk is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Flaw;
use crate::desired::artifact::{Listing, MAX_ARTIFACT, MAX_ENTRIES, Mode, link_stays};
use crate::model::Digest;
use crate::sys::remove_tree;

/// Bytes of a file that tell what kind it is.
const START: usize = 64;
/// Bytes that are read at once.
const CHUNK: usize = 128 * 1024;
/// Bytes of a path.
const MAX_PATH: usize = 1024;
/// Bytes of a name.
const MAX_NAME: usize = 255;
/// Folders within folders.
const MAX_LEVELS: usize = 64;

/// A folder on its way to be an artifact.
pub(super) struct Build {
    root: PathBuf,
    /// What stands where: a folder, or something else.
    seen: BTreeMap<String, bool>,
    bytes: u64,
    largest: (u64, String),
}

// === impl Build ===

impl Build {
    /// Begins with an empty folder of its own at `root`, in place of what stands there.
    pub(super) fn new(root: &Path) -> Result<Self, Flaw> {
        remove_tree(root).map_err(|source| Flaw::File { deed: "remove", path: root.to_owned(), source })?;
        make_folder(root)?;
        Ok(Self { root: root.to_owned(), seen: BTreeMap::new(), bytes: 0, largest: (0, String::new()) })
    }

    /// A folder; once more is no error.
    pub(super) fn folder(&mut self, path: &str) -> Result<(), Flaw> {
        match self.seen.get(path) {
            Some(true) => Ok(()),
            Some(false) => Err(refused(path, "stands there twice")),
            None => {
                self.enter(path, true)?;
                make_folder(&self.root.join(path))
            }
        }
    }

    /// A file; gives its digest and its first bytes.
    pub(super) fn file(
        &mut self,
        path: &str,
        executable: bool,
        mut bytes: impl Read,
    ) -> Result<(Digest, Vec<u8>), Flaw> {
        self.enter(path, false)?;
        let at = self.root.join(path);
        let failed = |deed| {
            let path = at.clone();
            move |source| Flaw::File { deed, path, source }
        };
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at).map_err(failed("make"))?;
        let (mut hash, mut start, mut count) = (Sha256::new(), Vec::new(), 0_u64);
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match bytes.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read")(error)),
            };
            let read = &chunk[..read];
            count += read.len() as u64;
            if count > self.largest.0 {
                self.largest = (count, path.to_owned());
            }
            if self.bytes + count > MAX_ARTIFACT {
                return Err(self.too_large());
            }
            hash.update(read);
            start.extend(read.iter().take(START.saturating_sub(start.len())));
            file.write_all(read).map_err(failed("write"))?;
        }
        self.bytes += count;
        let mode = if executable { 0o555 } else { 0o444 };
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("write"))?;
        file.sync_all().map_err(failed("write"))?;
        Ok((digest(hash), start))
    }

    /// A link that stays within.
    pub(super) fn link(&mut self, path: &str, target: &str) -> Result<(), Flaw> {
        if !link_stays(path, target) {
            return Err(Flaw::Refused(format!(
                "the link `{}` leads to `{}`, out of it",
                path.escape_debug(),
                target.escape_debug()
            )));
        }
        self.enter(path, false)?;
        let at = self.root.join(path);
        std::os::unix::fs::symlink(target, &at).map_err(|source| Flaw::File { deed: "make", path: at, source })
    }

    /// What was put at `path` before, if it is a file.
    pub(super) fn made(&self, path: &str) -> Option<PathBuf> {
        let at = self.root.join(path);
        let is_file = || fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_file());
        (self.seen.get(path) == Some(&false) && is_file()).then_some(at)
    }

    /// Copies all that stands in a folder.
    pub(super) fn copy(&mut self, from: &Path) -> Result<(), Flaw> {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let at = from.join(&folder);
            let failed = |source| Flaw::File { deed: "read", path: at.clone(), source };
            for entry in fs::read_dir(&at).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().into_string().map_err(|name| {
                    Flaw::Refused(format!("the name `{}` is not UTF-8", name.to_string_lossy().escape_debug()))
                })?;
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                let failed = |source| Flaw::File { deed: "read", path: entry.path(), source };
                let meta = fs::symlink_metadata(entry.path()).map_err(failed)?;
                if meta.is_dir() {
                    self.folder(&path)?;
                    folders.push(path);
                } else if meta.is_symlink() {
                    let target = fs::read_link(entry.path()).map_err(failed)?;
                    let target = target.to_str().ok_or_else(|| refused(&path, "leads to what is not UTF-8"))?;
                    self.link(&path, target)?;
                } else if meta.is_file() {
                    let mode = meta.permissions().mode();
                    refuse_mode(&path, mode)?;
                    let file = fs::OpenOptions::new()
                        .read(true)
                        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                        .open(entry.path())
                        .map_err(failed)?;
                    self.file(&path, mode & 0o100 != 0, file)?;
                } else {
                    return Err(refused(&path, "is a device, a pipe or a socket"));
                }
            }
        }
        Ok(())
    }

    /// Makes its folders read-only and sees to it that all is on the disk.
    pub(super) fn finish(self) -> Result<(), Flaw> {
        let folders = self.seen.iter().filter(|(_, is_folder)| **is_folder).map(|(path, _)| self.root.join(path));
        for path in folders.chain([self.root.clone()]) {
            let failed = |source| Flaw::File { deed: "write", path: path.clone(), source };
            fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).map_err(failed)?;
            fs::File::open(&path).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    /// Notes an entry, whose folder is made where nobody named it.
    fn enter(&mut self, path: &str, is_folder: bool) -> Result<(), Flaw> {
        let plain = |name: &str| {
            !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
        };
        if path.len() > MAX_PATH || path.matches('/').count() >= MAX_LEVELS || !path.split('/').all(plain) {
            return Err(refused(path, "is no path that may be in it"));
        }
        if self.seen.contains_key(path) {
            return Err(refused(path, "stands there twice"));
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            match self.seen.get(parent) {
                Some(true) => {}
                Some(false) => return Err(refused(path, "lies beneath what is no folder")),
                None => self.folder(parent)?,
            }
        }
        if self.seen.len() >= MAX_ENTRIES {
            let (bytes, largest) = &self.largest;
            let why = format!("it has more than {MAX_ENTRIES} entries; the largest is `{largest}` with {bytes} bytes");
            return Err(Flaw::Refused(why));
        }
        self.seen.insert(path.to_owned(), is_folder);
        Ok(())
    }

    fn too_large(&self) -> Flaw {
        let (bytes, largest) = &self.largest;
        Flaw::Refused(format!(
            "it has more than {} MiB; the largest is `{}` with {bytes} bytes or more",
            MAX_ARTIFACT >> 20,
            largest.escape_debug()
        ))
    }
}

/// Refuses bits that give a process more than its account has.
pub(super) fn refuse_mode(path: &str, mode: u32) -> Result<(), Flaw> {
    if mode & 0o6000 == 0 { Ok(()) } else { Err(refused(path, "has the setuid or the setgid bit")) }
}

pub(super) fn refused(path: &str, why: &str) -> Flaw {
    Flaw::Refused(format!("`{}` {why}", path.escape_debug()))
}

fn make_folder(path: &Path) -> Result<(), Flaw> {
    let made = fs::DirBuilder::new().mode(0o755).create(path);
    made.map_err(|source| Flaw::File { deed: "make the folder", path: path.to_owned(), source })
}

/// All files and links of a folder on disk; within the bounds of an artifact.
pub(super) fn listing_of(root: &Path) -> Result<Listing, Flaw> {
    let mut listing = Listing::default();
    let (mut entries, mut bytes) = (0_usize, 0_u64);
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let at = root.join(&folder);
        let failed = |source| Flaw::File { deed: "read", path: at.clone(), source };
        for entry in fs::read_dir(&at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            entries += 1;
            let name = entry.file_name().into_string().map_err(|_| refused(&folder, "has a name that is not UTF-8"))?;
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let failed = |source| Flaw::File { deed: "read", path: entry.path(), source };
            let meta = fs::symlink_metadata(entry.path()).map_err(failed)?;
            if meta.is_dir() {
                folders.push(path);
            } else if meta.is_symlink() {
                let target = fs::read_link(entry.path()).map_err(failed)?;
                listing.insert(path, Mode::Link, Digest::of(target.as_os_str().as_encoded_bytes()));
            } else if meta.is_file() {
                let mode = meta.permissions().mode();
                refuse_mode(&path, mode)?;
                bytes += meta.len();
                if bytes > MAX_ARTIFACT {
                    return Err(refused(&path, "is one file too many: the folder is larger than an artifact may be"));
                }
                let digest = digest_of(&entry.path()).map_err(failed)?;
                listing.insert(path, Mode::of(mode & 0o100 != 0), digest);
            } else {
                return Err(refused(&path, "is a device, a pipe or a socket"));
            }
            if entries > MAX_ENTRIES {
                return Err(Flaw::Refused(format!("it has more than {MAX_ENTRIES} entries")));
            }
        }
    }
    Ok(listing)
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = fs::File::open(path)?.take(MAX_ARTIFACT + 1);
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(digest(hash)),
            Ok(read) => hash.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn digest(hash: Sha256) -> Digest {
    Digest::from_bytes(hash.finalize().into())
}
