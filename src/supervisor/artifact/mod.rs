//! The artifacts of a host, each in a folder that is named by its SHA-256.
//!
//! What they are and what their digest is taken of: [`crate::desired::artifact`]. Beside an unpacked archive stands
//! `<hex>.listing`, the listing of what was unpacked, since the digest of an archive says nothing of a folder.

mod build;
mod code;
mod fetch;
mod unpack;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use crate::desired::ArtifactSource;
use crate::desired::artifact::{Listing, MAX_ARTIFACT, SINGLE, is_archive, poses_as_listing};
use crate::model::Digest;
use crate::source::{Content, Store, Tree};
use crate::sys;
use build::{Build, listing_of};

/// What stands beside an unpacked archive.
const LISTING: &str = ".listing";
/// How a folder begins that is not whole.
const HALF_MADE: char = '.';

/// The artifacts of a host.
///
/// # Guarantees
///
/// A folder is given out only when its content has the digest that it is named by; a half-made one never. Files are
/// 0444 or 0555, folders 0555; there are no devices, no setuid bits, and no link that leads out. One process at a time
/// may have the folder.
#[derive(Debug)]
pub struct Artifacts {
    folder: PathBuf,
    outside: Option<PathBuf>,
    mirror: Option<Store>,
    /// Held while one is made: two agents may want the same.
    making: Mutex<()>,
}

/// An artifact cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// It is not here, and nobody says where its bytes come from.
    #[error("the artifact {sha256} is not on this host, and nothing says where its bytes come from")]
    NoSource {
        /// Which one.
        sha256: Digest,
    },
    /// The config repository does not have it.
    #[error("cannot read the artifact {sha256} from the config repository: {why}")]
    Repository {
        /// Which one.
        sha256: Digest,
        /// What the mirror said.
        why: String,
    },
    /// It should come from the folder of artifacts, and none is configured.
    #[error("the artifact `{path}` is outside the repository, and no folder of artifacts is configured")]
    NoFolder {
        /// The path in it.
        path: String,
    },
    /// What stands in the folder of artifacts cannot be used.
    #[error("cannot use `{path}` of the folder of artifacts: {why}")]
    Folder {
        /// The path in it.
        path: String,
        /// Why not.
        why: String,
    },
    /// It cannot be fetched.
    #[error("cannot fetch the artifact from `{url}`: {why}")]
    Fetch {
        /// Where from.
        url: String,
        /// Why not.
        why: String,
    },
    /// The bytes are other ones.
    #[error("the artifact from {from} has the digest {found}, not {expected}")]
    Digest {
        /// Where from.
        from: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// It has something that no artifact may have.
    #[error("the artifact {sha256} cannot be used: {why}")]
    Refused {
        /// Which one.
        sha256: Digest,
        /// What it has.
        why: String,
    },
    /// The operating system.
    #[error("cannot {deed} `{}`", path.display())]
    File {
        /// What was tried.
        deed: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why something cannot be built: by itself, or because of the system.
#[derive(Debug)]
enum Flaw {
    Refused(String),
    File { deed: &'static str, path: PathBuf, source: io::Error },
}

// === impl Artifacts ===

impl Artifacts {
    /// The artifacts in `folder`, which is made where it is not there; what an earlier process left half-made goes.
    ///
    /// `outside` is the folder of artifacts of the daemon's configuration, `mirror` the config repository.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub fn new(folder: PathBuf, outside: Option<PathBuf>, mirror: Option<Store>) -> Result<Self, ArtifactError> {
        fs::create_dir_all(&folder).map_err(file("make the folder", &folder))?;
        let artifacts = Self { folder, outside, mirror, making: Mutex::default() };
        artifacts.sweep(|_| true)?;
        Ok(artifacts)
    }

    /// The folder of an artifact, made from `source` where it is not there, or not what its name says.
    ///
    /// Blocks while it reads, fetches and hashes: up to 256 MiB.
    pub fn ensure(&self, sha256: &Digest, source: Option<&ArtifactSource>) -> Result<PathBuf, ArtifactError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder.join(sha256.to_string());
        if self.is_whole(&folder, sha256) {
            return Ok(folder);
        }
        let source = source.ok_or(ArtifactError::NoSource { sha256: *sha256 })?;
        let half = self.folder.join(format!("{HALF_MADE}{sha256}.{}", std::process::id()));
        remove(&half)?;
        let made = self.make(&half, sha256, source).and_then(|listing| self.keep(&half, &folder, listing));
        if let Err(error) = made {
            // What it could not remove is swept at the next start.
            remove(&half).ok();
            return Err(error);
        }
        Ok(folder)
    }

    /// Whether an artifact is there, and is what its name says.
    pub fn has(&self, sha256: &Digest) -> bool {
        self.is_whole(&self.folder.join(sha256.to_string()), sha256)
    }

    /// Removes what is half-made, and every artifact that `keep` does not want.
    pub fn sweep(&self, keep: impl Fn(&Digest) -> bool) -> Result<(), ArtifactError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let list = |error| file("read the folder", &self.folder)(error);
        let mut gone = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).map_err(list)? {
            let path = entry.map_err(list)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let named = name.strip_suffix(LISTING).unwrap_or(&name).parse::<Digest>().ok();
            if name.starts_with(HALF_MADE) || named.is_some_and(|named| !keep(&named)) {
                gone.insert(path);
            }
        }
        gone.iter().try_for_each(|path| remove(path))
    }

    /// Whether a folder has the digest that it is named by.
    fn is_whole(&self, folder: &Path, sha256: &Digest) -> bool {
        let Ok(listing) = listing_of(folder) else { return false };
        let single = || {
            let alone = listing.paths().eq([SINGLE]);
            alone && listing.at(SINGLE).is_some_and(|(_, digest)| digest == sha256)
        };
        let unpacked = || fs::read(self.listing_beside(sha256)).is_ok_and(|noted| noted == listing.text().as_bytes());
        listing.digest() == *sha256 || single() || unpacked()
    }

    fn listing_beside(&self, sha256: &Digest) -> PathBuf {
        self.folder.join(format!("{sha256}{LISTING}"))
    }

    /// Makes the artifact at `half`; for an archive it gives the listing of what was unpacked.
    fn make(&self, half: &Path, sha256: &Digest, source: &ArtifactSource) -> Result<Option<Listing>, ArtifactError> {
        let why = |flaw: Flaw| flaw.of(*sha256);
        match source {
            ArtifactSource::Git(id) => {
                let said = |why: String| ArtifactError::Repository { sha256: *sha256, why };
                let mirror = self.mirror.as_ref().ok_or_else(|| said("there is no mirror of it".to_owned()))?;
                let limit = usize::try_from(MAX_ARTIFACT).unwrap_or(usize::MAX);
                match mirror.content(id, limit).map_err(|error| said(error.to_string()))? {
                    Content::File(bytes) => self.file(half, sha256, "the config repository", &*bytes),
                    Content::Folder(tree) => {
                        let mut build = Build::new(half).map_err(why)?;
                        copy_tree(&tree, &mut build).map_err(why)?;
                        build.finish().map_err(why)?;
                        is_asked_for(half, sha256, "the config repository").map(|()| None)
                    }
                }
            }
            ArtifactSource::Folder(path) => {
                let from = self.outside(path)?;
                let shown = format!("`{}`", from.display());
                let meta = fs::metadata(&from).map_err(file("look at", &from))?;
                if meta.is_dir() {
                    let mut build = Build::new(half).map_err(why)?;
                    build.copy(&from).map_err(why)?;
                    build.finish().map_err(why)?;
                    return is_asked_for(half, sha256, &shown).map(|()| None);
                }
                if !meta.is_file() {
                    let why = "it is neither a file nor a folder".to_owned();
                    return Err(ArtifactError::Folder { path: path.clone(), why });
                }
                let opened = fs::File::open(&from).map_err(file("open", &from))?;
                self.file(half, sha256, &shown, opened)
            }
            ArtifactSource::Url(url) => {
                let body = fetch::open(url).map_err(|why| ArtifactError::Fetch { url: url.clone(), why })?;
                let made = self.file(half, sha256, &format!("`{url}`"), body);
                if let Err(ArtifactError::File { deed: "read", source, .. }) = &made {
                    return Err(ArtifactError::Fetch { url: url.clone(), why: source.to_string() });
                }
                made
            }
        }
    }

    /// A file or an archive, whose bytes are hashed before anything looks into them.
    fn file(
        &self,
        half: &Path,
        sha256: &Digest,
        from: &str,
        bytes: impl io::Read,
    ) -> Result<Option<Listing>, ArtifactError> {
        let why = |flaw: Flaw| flaw.of(*sha256);
        let mut build = Build::new(half).map_err(why)?;
        let (found, start) = build.file(SINGLE, true, bytes).map_err(why)?;
        if found != *sha256 {
            return Err(ArtifactError::Digest { from: from.to_owned(), expected: *sha256, found });
        }
        if poses_as_listing(&start) {
            let why = "it begins as the listing of a folder does".to_owned();
            return Err(ArtifactError::Refused { sha256: *sha256, why });
        }
        if !is_archive(&start) {
            build.finish().map_err(why)?;
            return Ok(None);
        }
        let packed = self.folder.join(format!("{HALF_MADE}{sha256}.{}.packed", std::process::id()));
        let unpacked = (|| {
            fs::rename(half.join(SINGLE), &packed).map_err(file("move", &packed))?;
            let archive = fs::File::open(&packed).map_err(file("open", &packed))?;
            let mut build = Build::new(half).map_err(why)?;
            unpack::unpack(archive, &mut build).map_err(why)?;
            build.finish().map_err(why)?;
            listing_of(half).map_err(why).map(Some)
        })();
        remove(&packed)?;
        unpacked
    }

    /// Puts what is whole in its place.
    fn keep(&self, half: &Path, folder: &Path, listing: Option<Listing>) -> Result<(), ArtifactError> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(listing) = listing {
            let (beside, new) = (self.folder.join(format!("{name}{LISTING}")), half.with_extension("listing"));
            fs::write(&new, listing.text()).map_err(file("write", &new))?;
            fs::File::open(&new).and_then(|file| file.sync_all()).map_err(file("write", &new))?;
            fs::rename(&new, &beside).map_err(file("move", &beside))?;
        }
        // What stands there is not what its name says; a process that still runs from it keeps what it has open.
        let old = self.folder.join(format!("{HALF_MADE}{name}.{}.old", std::process::id()));
        remove(&old)?;
        match fs::rename(folder, &old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(file("move", folder)(error)),
        }
        fs::rename(half, folder).map_err(file("move", folder))?;
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(file("write", &self.folder))?;
        remove(&old)
    }

    /// A path of the folder of artifacts, which it does not leave.
    fn outside(&self, path: &str) -> Result<PathBuf, ArtifactError> {
        let root = self.outside.as_ref().ok_or_else(|| ArtifactError::NoFolder { path: path.to_owned() })?;
        let wrong = |why: String| ArtifactError::Folder { path: path.to_owned(), why };
        let root = root.canonicalize().map_err(|error| wrong(format!("`{}`: {error}", root.display())))?;
        // Written whole, or from that folder on.
        let whole = Path::new("/").join(path);
        let asked = if whole.starts_with(&root) { whole } else { root.join(path.trim_start_matches('/')) };
        let found = asked.canonicalize().map_err(|error| wrong(error.to_string()))?;
        if found.starts_with(&root) { Ok(found) } else { Err(wrong("it leads out of that folder".to_owned())) }
    }
}

// === impl ArtifactError ===

impl ArtifactError {
    /// Whether the artifact itself is to blame: another try gives nothing else.
    pub fn is_wrong(&self) -> bool {
        match self {
            Self::Digest { .. } | Self::Refused { .. } => true,
            Self::NoSource { .. }
            | Self::Repository { .. }
            | Self::NoFolder { .. }
            | Self::Folder { .. }
            | Self::Fetch { .. }
            | Self::File { .. } => false,
        }
    }

    /// The way out, in one sentence without a full stop.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSource { .. } => {
                Some("its release is an older one: put the artifact back into the repository, or go to another release")
            }
            Self::Repository { .. } => Some("the object must be reachable from a branch or a tag of the remote"),
            Self::NoFolder { .. } => {
                Some("name the folder in the daemon's configuration: `host = { artifacts = \"…\" }`")
            }
            Self::Folder { .. } => Some("put it there; a path is taken from that folder on"),
            Self::Fetch { .. } => Some("it is tried again; `artifact: {path}` needs no other server"),
            Self::Digest { .. } => {
                Some("look at what was changed there, and write the new digest only if you trust it")
            }
            Self::Refused { .. } => Some("build the artifact without it"),
            Self::File { .. } => Some("look at the state folder: its owner, its rights and the room on its disk"),
        }
    }
}

// === impl Flaw ===

impl Flaw {
    fn of(self, sha256: Digest) -> ArtifactError {
        match self {
            Self::Refused(why) => ArtifactError::Refused { sha256, why },
            Self::File { deed, path, source } => ArtifactError::File { deed, path, source },
        }
    }
}

/// Whether a folder that was made has the digest that was asked for.
fn is_asked_for(half: &Path, expected: &Digest, from: &str) -> Result<(), ArtifactError> {
    let found = listing_of(half).map_err(|flaw| flaw.of(*expected))?.digest();
    let other = || ArtifactError::Digest { from: from.to_owned(), expected: *expected, found };
    if found == *expected { Ok(()) } else { Err(other()) }
}

/// Copies a folder of the repository.
fn copy_tree(tree: &dyn Tree, build: &mut Build) -> Result<(), Flaw> {
    use crate::source::EntryKind;
    let said = |error: crate::source::TreeError| Flaw::Refused(error.to_string());
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in tree.list(&folder).map_err(said)? {
            let path = if folder.is_empty() { entry.name.to_string() } else { format!("{folder}/{}", entry.name) };
            let limit = usize::try_from(MAX_ARTIFACT).unwrap_or(usize::MAX);
            let missing = || Flaw::Refused(format!("`{path}` is missing"));
            match entry.kind {
                EntryKind::Folder => {
                    build.folder(&path)?;
                    folders.push(path);
                }
                EntryKind::File => {
                    let bytes = tree.read(&path, limit).map_err(said)?.ok_or_else(missing)?;
                    build.file(&path, entry.executable, &*bytes)?;
                }
                EntryKind::Link => build.link(&path, &tree.link(&path).map_err(said)?.ok_or_else(missing)?)?,
                EntryKind::Submodule => return Err(Flaw::Refused(format!("`{path}` is a submodule"))),
            }
        }
    }
    Ok(())
}

/// Removes a file or a folder, read-only ones too; nothing is no error.
fn remove(path: &Path) -> Result<(), ArtifactError> {
    sys::remove_tree(path).map_err(file("remove", path))
}

fn file<'a>(deed: &'static str, path: &'a Path) -> impl Fn(io::Error) -> ArtifactError + 'a {
    move |source| ArtifactError::File { deed, path: path.to_owned(), source }
}
