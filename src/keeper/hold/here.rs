//! The folder of the instance, as this keeper has it open.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys;

/// The folder: its path, and the folder itself, should the path mean another one later.
pub(super) struct Here {
    path: PathBuf,
    folder: File,
    number: (u64, u64),
}

// === impl Here ===

impl Here {
    /// Opens the folder; refuses one that anybody may write.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let folder = File::open(path)?;
        let found = folder.metadata()?;
        if !found.is_dir() || found.mode() & 0o002 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is not a folder, or everybody may write there",
            ));
        }
        Ok(Self { path: path.to_owned(), folder, number: (found.dev(), found.ino()) })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it that is short, and means this folder wherever it is moved to.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        sys::socket_path(self.folder.as_fd(), name)
    }

    /// Whether its path leads elsewhere or nowhere. What cannot be looked at has not vanished.
    pub(super) fn has_vanished(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(found) => (found.dev(), found.ino()) != self.number,
            Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }
}
