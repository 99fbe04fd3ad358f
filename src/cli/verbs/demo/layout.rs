//! The folder of a demo: what lies where, whose it is, and how it goes again.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::cli::{CliError, Exit};
use crate::sys::{FolderLock, LockError, lock_folder, remove_tree};

/// Says that a folder is a demo's: only such a one is emptied.
const MARKER: &str = "this-is-a-backstay-demo";
const LOCK: &str = ".lock";
/// All that a demo makes in its folder.
const OURS: [&str; 8] =
    ["agents.git", "work", "backstay.toml", "secrets", "state", "proxy", "keepers", "journal.jsonl"];
/// Bytes of the folder's path at most: there are sockets beneath it, whose paths have 107.
const LONGEST: usize = 80;

/// The folder of a demo, held by this process.
pub(super) struct Layout {
    dir: PathBuf,
    _lock: FolderLock,
}

/// The folder that is meant: the one that was named, or one of the account's own.
pub(super) fn folder(named: Option<&Path>) -> Result<PathBuf, CliError> {
    if let Some(named) = named {
        let absolute = std::path::absolute(named);
        return absolute.map_err(|error| CliError::usage(format!("`{}` is no folder", named.display())).because(error));
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| home().map(|home| home.join(".local/share")));
    data.map(|data| data.join("backstay/demo"))
        .ok_or_else(|| CliError::usage("this account has no home").hint("name a folder: `backstay demo --dir DIR`"))
}

// === impl Layout ===

impl Layout {
    /// Takes the folder, which is made where it is missing. One that is not empty must be a demo's.
    pub(super) fn take(dir: &Path) -> Result<Self, CliError> {
        let shown = dir.display();
        if dir.as_os_str().len() > LONGEST {
            return Err(CliError::usage(format!("the path `{shown}` is longer than {LONGEST} bytes"))
                .hint("sockets lie beneath it, whose paths are short: `--dir /tmp/demo`"));
        }
        let cannot = |error| CliError::new(Exit::Broken, format!("cannot use the folder `{shown}`")).because(error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
        let marker = dir.join(MARKER);
        let is_empty =
            fs::read_dir(dir).map_err(cannot)?.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK));
        if !is_empty && !marker.exists() {
            return Err(CliError::new(
                Exit::Refused,
                format!("`{shown}` is not empty, and not a demo's: nothing was touched"),
            )
            .hint("name a new folder: `backstay demo --dir DIR`"));
        }
        let lock = lock_folder(dir, LOCK).map_err(|error| match error {
            LockError::Held(_) => CliError::new(Exit::Refused, format!("another demo is at work in `{shown}`"))
                .hint("wait for its end, or name another folder with `--dir`"),
            LockError::Network { .. } => CliError::new(Exit::Refused, error.to_string())
                .hint("name a folder of this machine's own disk: `backstay demo --dir DIR`"),
            LockError::Refused { .. } => {
                CliError::new(Exit::Broken, format!("cannot use the folder `{shown}`")).because(error)
            }
        })?;
        fs::write(&marker, "Made by `backstay demo`, which may empty this folder.\n").map_err(cannot)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// Removes what a demo made, so that the next one begins anew.
    pub(super) fn empty(&self) -> Result<(), CliError> {
        OURS.iter().map(|name| self.dir.join(name)).try_for_each(|path| {
            remove_tree(&path).map_err(|error| {
                CliError::new(Exit::Broken, format!("cannot remove `{}`", path.display())).because(error)
            })
        })
    }

    /// Removes the folder itself, with all that a demo made.
    pub(super) fn remove(self) -> Result<(), CliError> {
        self.empty()?;
        let removed = [MARKER, LOCK].iter().try_for_each(|name| fs::remove_file(self.dir.join(name)));
        let removed = removed.and_then(|()| match fs::remove_dir(&self.dir) {
            // Somebody put something there: it stays.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed,
        });
        removed.map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot remove `{}`", self.dir.display())).because(error)
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The repository that everybody pushes to.
    pub(super) fn repository(&self) -> PathBuf {
        self.dir.join("agents.git")
    }

    /// A person's checkout of it.
    pub(super) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("backstay.toml")
    }

    pub(super) fn secrets(&self) -> PathBuf {
        self.dir.join("secrets")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(super) fn proxy(&self) -> PathBuf {
        self.dir.join("proxy")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("journal.jsonl")
    }

    /// The keepers of daemon and proxy.
    pub(super) fn keepers(&self) -> PathBuf {
        self.dir.join("keepers")
    }

    /// The keepers of agents, which are the daemon's.
    pub(super) fn instances(&self) -> PathBuf {
        self.state().join("host/instances")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.state().join("host/api.sock")
    }
}

/// Makes a folder for its owner alone.
pub(super) fn make(folder: &Path) -> Result<(), CliError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| CliError::new(Exit::Broken, format!("cannot make `{}`", folder.display())).because(error))
}

/// Writes a file for its owner alone.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let written = fs::write(path, text).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o600)));
    written.map_err(|error| CliError::new(Exit::Broken, format!("cannot write `{}`", path.display())).because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_others_is_not_touched_and_one_of_ours_begins_anew() {
        let outside = tempfile::tempdir().unwrap();
        let dir = outside.path().join("demo");
        let layout = Layout::take(&dir).unwrap();
        let release = layout.state().join("host/releases/r1");
        fs::create_dir_all(&release).unwrap();
        fs::write(release.join("release.json"), "{}").unwrap();
        fs::write(dir.join("notes"), "mine").unwrap();
        fs::set_permissions(&release, Permissions::from_mode(0o555)).unwrap();
        let second = Layout::take(&dir).err().unwrap();
        assert!(second.to_string().starts_with("another demo is at work"), "{second}");
        drop(layout);

        let layout = Layout::take(&dir).unwrap();
        layout.empty().unwrap();
        assert!(!layout.state().exists() && dir.join("notes").exists());
        layout.remove().unwrap();
        assert!(dir.join("notes").exists() && !dir.join(MARKER).exists());
        let refused = Layout::take(&dir).err().unwrap();
        assert_eq!(refused.exit(), Exit::Refused, "{refused}");
        fs::remove_file(dir.join("notes")).unwrap();
        Layout::take(&dir).unwrap().remove().unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_path_that_is_too_long_for_sockets_is_refused() {
        let refused = Layout::take(Path::new(&format!("/tmp/{}", "a".repeat(LONGEST)))).err().unwrap();
        assert!(refused.way_out().is_some_and(|way| way.contains("--dir")), "{refused:?}");
    }
}
