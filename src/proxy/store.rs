//! Tables in files: written whole or not at all, read with their digest, the one before kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::table::{InvalidTable, Table};
use crate::model::Digest;

/// Bytes that a table may have.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The file: a table and the digest of its canonical form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    digest: Digest,
    table: Table,
}

/// A table that was read, and whence.
#[derive(Debug)]
pub struct Loaded {
    /// The table, checked.
    pub table: Table,
    /// Its digest.
    pub digest: Digest,
    /// Why it is the one before and not the one that was meant, if so.
    pub fallback: Option<StoreError>,
}

/// A table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refuses.
    #[error("cannot {deed} the routing table `{}`", path.display())]
    Io {
        /// `read` or `write`.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no table.
    #[error("the routing table `{}` cannot be understood", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody changed it.
    #[error("the routing table `{}` was changed: its content does not have the digest that it names", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
    },
    /// It breaks a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidTable),
    /// A later one stands there already.
    #[error("the routing table of epoch {epoch}, generation {generation} is older than the one in `{}`", path.display())]
    Older {
        /// Of the one that was to be written.
        epoch: u64,
        /// Of the one that was to be written.
        generation: u64,
        /// The file.
        path: PathBuf,
    },
}

/// Where the table before the one at `path` is kept.
pub fn previous_path(path: &Path) -> PathBuf {
    with_suffix(path, ".previous")
}

/// Writes `table` to `path`, and keeps the one that stood there as `<path>.previous`.
///
/// # Guarantees
///
/// A reader sees the whole old table or the whole new one, also after a crash; a damaged one never replaces the one
/// before. The table itself again is no error.
///
/// # Errors
///
/// A table that breaks a rule, or is older than the one that stands there, is not written.
pub fn write_table(path: &Path, table: &Table) -> Result<Digest, StoreError> {
    table.check()?;
    let sealed = Sealed { digest: table.digest(), table: table.clone() };
    let current = read_one(path);
    if let Ok((standing, digest)) = &current {
        if *digest == sealed.digest {
            return Ok(sealed.digest);
        }
        if standing.order() >= table.order() {
            let (epoch, generation) = table.order();
            return Err(StoreError::Older { epoch, generation, path: path.to_owned() });
        }
    }
    let cannot = |source| StoreError::Io { deed: "write", path: path.to_owned(), source };
    let bytes = serde_json::to_vec_pretty(&sealed).map_err(|error| cannot(error.into()))?;
    let keep = current.is_ok();
    replace(path, &bytes, keep).map_err(cannot)?;
    Ok(sealed.digest)
}

/// Reads the table at `path`; the one before it where that one is damaged.
///
/// # Errors
///
/// That of the table at `path`, where there is no good one before it either.
pub fn load_table(path: &Path) -> Result<Loaded, StoreError> {
    match read_one(path) {
        Ok((table, digest)) => Ok(Loaded { table, digest, fallback: None }),
        Err(why) => match read_one(&previous_path(path)) {
            Ok((table, digest)) => Ok(Loaded { table, digest, fallback: Some(why) }),
            Err(_) => Err(why),
        },
    }
}

// === impl StoreError ===

impl StoreError {
    /// Whether the disk did not give it: another time it may.
    pub fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Io { .. }) && !self.is_missing()
    }

    /// Whether there simply is no table yet.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn read_one(path: &Path) -> Result<(Table, Digest), StoreError> {
    let cannot = |source| StoreError::Io { deed: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(cannot(io::Error::other(format!("it has more than {MAX_BYTES} bytes"))));
    }
    let sealed: Sealed =
        serde_json::from_slice(&bytes).map_err(|source| StoreError::Syntax { path: path.to_owned(), source })?;
    if sealed.table.digest() != sealed.digest {
        return Err(StoreError::Digest { path: path.to_owned() });
    }
    sealed.table.check()?;
    Ok((sealed.table, sealed.digest))
}

/// Puts `bytes` at `path` by a rename; what stood there becomes the one before if `keep`.
fn replace(path: &Path, bytes: &[u8], keep: bool) -> io::Result<()> {
    let fresh = with_suffix(path, &format!(".{}.new", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if keep {
            let second = with_suffix(path, &format!(".{}.old", std::process::id()));
            let _ = fs::remove_file(&second);
            fs::hard_link(path, &second)?;
            fs::rename(&second, previous_path(path))?;
        }
        fs::rename(&fresh, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
