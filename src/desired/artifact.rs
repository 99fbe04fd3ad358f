//! The artifact that a host runs: a file, a folder or an archive, named by its content.
//!
//! | artifact | its `sha256` |
//! | --- | --- |
//! | a file | of its bytes; it is run as [`SINGLE`], and is executable |
//! | a `tar.gz` (told by its first two bytes) | of its bytes, before it is unpacked |
//! | a folder | of its [`Listing`] |
//!
//! The listing of a folder is text: the line `backstay-artifact 1`, then one line per file and link,
//! `<mode> <sha256> <path>`, sorted by the bytes of the path. The mode is `644`, `755` (the owner may execute it) or
//! `link`, whose SHA-256 is that of its target. Folders have no line of their own. A file that begins as a listing does
//! is refused, so that no file stands for a folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::layer::Reader;
use crate::model::Digest;
use crate::source::{ContentId, Entry, EntryKind, TreeError};

/// Bytes of an artifact, unpacked.
pub const MAX_ARTIFACT: u64 = 256 << 20;
/// Files, links and folders of an artifact.
pub const MAX_ENTRIES: usize = 20_000;
/// The name of an artifact that is one file.
pub const SINGLE: &str = "agent";

/// The first line of a listing.
const HEADER: &str = "backstay-artifact 1\n";
/// How a gzip file begins (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes of the target of a link.
const MAX_TARGET: usize = 4096;

/// Where the bytes of an artifact come from; no part of a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactSource {
    /// A blob or a tree of the config repository, by its object id.
    Git(String),
    /// A path beneath the folder of artifacts that the daemon's configuration names.
    Folder(String),
    /// Where it is fetched over HTTPS.
    Url(String),
}

/// What stands at a path of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A file.
    Plain,
    /// A file that the owner may execute.
    Executable,
    /// A symbolic link.
    Link,
}

/// All files and links of a folder, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing(BTreeMap<String, (Mode, Digest)>);

/// What kind of artifact it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// One file.
    File,
    /// A `tar.gz`.
    Archive,
    /// A folder.
    Folder(Listing),
}

/// An artifact of the repository, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: ContentId,
    pub(super) sha256: Digest,
    pub(super) shape: Shape,
}

// === impl Mode ===

impl Mode {
    /// Of a file.
    pub fn of(executable: bool) -> Self {
        if executable { Self::Executable } else { Self::Plain }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Plain => "644",
            Self::Executable => "755",
            Self::Link => "link",
        }
    }
}

// === impl Listing ===

impl Listing {
    /// Notes what stands at `path`, by its content: that of a link is its target.
    pub fn insert(&mut self, path: String, mode: Mode, content: Digest) {
        self.0.insert(path, (mode, content));
    }

    /// What stands at `path`.
    pub fn at(&self, path: &str) -> Option<(Mode, &Digest)> {
        self.0.get(path).map(|(mode, digest)| (*mode, digest))
    }

    /// The paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As it is hashed.
    pub fn text(&self) -> String {
        let lines = self.0.iter().map(|(path, (mode, digest))| format!("{} {digest} {path}\n", mode.word()));
        std::iter::once(HEADER.to_owned()).chain(lines).collect()
    }

    /// The SHA-256 of the folder.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }
}

/// Whether a file begins as a listing does.
pub fn poses_as_listing(start: &[u8]) -> bool {
    start.starts_with(HEADER.trim_end().as_bytes())
}

/// Whether a file begins as an archive does.
pub fn is_archive(start: &[u8]) -> bool {
    start.starts_with(&GZIP)
}

/// Whether a link at `path` with this target stays within the artifact.
///
/// `..` may stand at its beginning alone: after a name it could lead out through another link.
pub fn link_stays(path: &str, target: &str) -> bool {
    let depth = path.matches('/').count();
    let mut up = 0;
    let mut named = false;
    if target.is_empty() || target.starts_with('/') || target.len() > MAX_TARGET || target.chars().any(char::is_control)
    {
        return false;
    }
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." if named => return false,
            ".." => up += 1,
            _ => named = true,
        }
    }
    up <= depth
}

/// An artifact of the repository; nothing where there is nothing at `path`.
///
/// # Errors
///
/// In one sentence: what may not be part of one, or what is too much, with the largest.
pub(super) fn read(reader: &Reader<'_>, path: &str) -> Result<Option<Known>, String> {
    let Some(id) = reader.consult(path).map_err(|error| error.to_string())? else { return Ok(None) };
    if let Some(known) = reader.artifacts.borrow().get(&id) {
        return Ok(Some(known.clone()));
    }
    let tree = reader.layer.tree;
    let said =
        |error: TreeError| reader.noting::<()>(Err(error)).err().map_or(String::new(), |error| error.to_string());
    let Some(entry) = tree.find(path).map_err(said)? else { return Ok(None) };
    let known = match entry.kind {
        EntryKind::File => {
            let limit = usize::try_from(MAX_ARTIFACT).unwrap_or(usize::MAX);
            let Some(bytes) = tree.read(path, limit).map_err(said)? else { return Ok(None) };
            if poses_as_listing(&bytes) {
                return Err(format!("`{path}` begins as the listing of a folder does, and cannot be an artifact"));
            }
            let shape = if is_archive(&bytes) { Shape::Archive } else { Shape::File };
            Known { id: id.clone(), sha256: Digest::of(&bytes), shape }
        }
        EntryKind::Folder => {
            let listing = Walk::new(reader, path).listing()?;
            if listing.is_empty() {
                return Err(format!("the folder `{path}` has no files"));
            }
            Known { id: id.clone(), sha256: listing.digest(), shape: Shape::Folder(listing) }
        }
        EntryKind::Link => return Err(format!("`{path}` is a symbolic link, a file or a folder is expected")),
        EntryKind::Submodule => return Err(format!("`{path}` is a submodule, a file or a folder is expected")),
    };
    reader.artifacts.borrow_mut().insert(id, known.clone());
    Ok(Some(known))
}

/// A walk through a folder of the repository, with what was met.
struct Walk<'a> {
    reader: &'a Reader<'a>,
    root: &'a str,
    entries: usize,
    bytes: u64,
    largest: (u64, String),
    fullest: (usize, String),
}

impl<'a> Walk<'a> {
    fn new(reader: &'a Reader<'a>, root: &'a str) -> Self {
        Self { reader, root, entries: 0, bytes: 0, largest: (0, String::new()), fullest: (0, String::new()) }
    }

    fn listing(mut self) -> Result<Listing, String> {
        let tree = self.reader.layer.tree;
        let mut listing = Listing::default();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let entries = tree.list(&join(self.root, &folder)).map_err(|error| self.said(error))?;
            self.entries += entries.len();
            if entries.len() > self.fullest.0 {
                self.fullest = (entries.len(), folder.clone());
            }
            if self.entries > MAX_ENTRIES {
                let (most, fullest) = self.fullest;
                return Err(format!(
                    "the folder `{}` has more than {MAX_ENTRIES} entries; the most, {most}, are in `{}`",
                    self.root,
                    join(self.root, &fullest)
                ));
            }
            for entry in entries {
                let path = join(&folder, &entry.name);
                match entry.kind {
                    EntryKind::Folder => folders.push(path),
                    EntryKind::File | EntryKind::Link | EntryKind::Submodule => {
                        let (mode, digest) = self.content(&path, &entry)?;
                        listing.insert(path, mode, digest);
                    }
                }
            }
        }
        Ok(listing)
    }

    fn content(&mut self, path: &str, entry: &Entry) -> Result<(Mode, Digest), String> {
        let tree = self.reader.layer.tree;
        let whole = join(self.root, path);
        let missing = || format!("`{whole}` cannot be read");
        match entry.kind {
            EntryKind::Link => {
                let target = tree.link(&whole).map_err(|error| self.said(error))?.ok_or_else(missing)?;
                if !link_stays(path, &target) {
                    return Err(format!(
                        "the link `{whole}` leads to `{}`, out of the artifact",
                        target.escape_debug()
                    ));
                }
                Ok((Mode::Link, Digest::of(target.as_bytes())))
            }
            EntryKind::Submodule => Err(format!("`{whole}` is a submodule, which no artifact may have")),
            EntryKind::File | EntryKind::Folder => {
                let limit = usize::try_from(MAX_ARTIFACT).unwrap_or(usize::MAX);
                let bytes = tree.read(&whole, limit).map_err(|error| self.said(error))?.ok_or_else(missing)?;
                let count = bytes.len() as u64;
                self.bytes += count;
                if count > self.largest.0 {
                    self.largest = (count, whole);
                }
                if self.bytes > MAX_ARTIFACT {
                    let (count, largest) = &self.largest;
                    return Err(format!(
                        "the folder `{}` has more than {} MiB; the largest is `{largest}` with {count} bytes",
                        self.root,
                        MAX_ARTIFACT >> 20
                    ));
                }
                Ok((Mode::of(entry.executable), Digest::of(&bytes)))
            }
        }
    }

    fn said(&self, error: TreeError) -> String {
        self.reader.noting::<()>(Err(error)).err().map_or(String::new(), |error| error.to_string())
    }
}

fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        (folder, "") => folder.to_owned(),
        ("", name) => name.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_within() {
        for (path, target) in [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d/e"), ("a", "./b"), ("a/b", "..")] {
            assert!(link_stays(path, target), "{path} -> {target}");
        }
        // The last would lead out where `f` is a link upwards.
        for (path, target) in [
            ("a", ".."),
            ("a", "../b"),
            ("a/b", "../../c"),
            ("a", "/etc/passwd"),
            ("a", ""),
            ("a", "b\nc"),
            ("d/e/g", "f/../.."),
        ] {
            assert!(!link_stays(path, target), "{path} -> {target}");
        }
    }

    #[test]
    fn the_listing_is_what_the_documentation_says() {
        let mut listing = Listing::default();
        listing.insert("lib/a".to_owned(), Mode::Plain, Digest::of(b"a"));
        listing.insert("bin".to_owned(), Mode::Executable, Digest::of(b"b"));
        listing.insert("lib.so".to_owned(), Mode::Link, Digest::of(b"lib/a"));
        let (a, b, link) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"lib/a"));
        let text = format!("backstay-artifact 1\n755 {b} bin\nlink {link} lib.so\n644 {a} lib/a\n");
        assert_eq!(listing.text(), text);
        assert_eq!(listing.digest(), Digest::of(text.as_bytes()));
        assert!(poses_as_listing(text.as_bytes()) && !poses_as_listing(b"#!/bin/sh"));
    }
}
