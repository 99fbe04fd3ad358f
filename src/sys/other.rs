//! Systems other than Linux: what is missing says so. What is the same everywhere stands in the keeper itself.
//!
//! macOS has neither a subreaper nor pidfds nor `/proc`, so an agent could not be stopped whole, nor a keeper known by its start time.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Exited, FileSystem, Limit, Listen, Listening, LockError, Peer, ProcessId, Word};

fn missing<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the host target runs on Linux only"))
}

/// A lock on a folder: none here.
#[derive(Debug)]
pub struct FolderLock(File);

impl FolderLock {
    /// Not available.
    pub fn inherited(_: OwnedFd, folder: &Path, _: &str) -> Result<Self, LockError> {
        lock_folder(folder, "")
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// Not available.
pub fn lock_folder(folder: &Path, _: &str) -> Result<FolderLock, LockError> {
    missing().map_err(|source| LockError::Refused { folder: folder.to_owned(), source })
}

/// The effective user of the process that asks.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Sets which permissions new files do not get.
pub fn set_mask(_: u32) {}

/// Nothing descends from anything.
pub fn descends_from(_: u32, _: u32) -> bool {
    false
}

/// Nothing is marked.
pub fn is_marked(_: u32, _: &str) -> bool {
    false
}

/// A path in a folder.
pub fn socket_path(_: BorrowedFd<'_>, name: &str) -> PathBuf {
    PathBuf::from(name)
}

/// Functions that are not available.
macro_rules! missing {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        /// Not available.
        pub fn $name($(_: $argument),*) -> io::Result<$result> {
            missing()
        }
    )*};
}

missing! {
    age(ProcessId) -> Duration;
    boot_id() -> String;
    connect(&Path) -> UnixStream;
    is_listener(impl AsFd) -> bool;
    send(impl AsFd, &[u8]) -> usize;
    cgroup_enter(&Path) -> ();
    cgroup_is_populated(&Path) -> bool;
    cgroup_kill(&Path) -> ();
    descendants(u32) -> Vec<ProcessId>;
    die_with_parent(u32) -> ();
    file_system(&Path) -> FileSystem;
    hold_process(ProcessId) -> Option<OwnedFd>;
    keep_descriptors() -> ();
    listening(&Listen, &[ProcessId]) -> Listening;
    marked(&str) -> Vec<ProcessId>;
    new_session() -> ();
    open_pipe(&Path) -> File;
    own_process() -> ProcessId;
    peer(impl AsFd) -> Peer;
    pour(impl AsFd, &File, u64, usize) -> usize;
    process(u32) -> Option<ProcessId>;
    reap() -> Option<Exited>;
    reopen_pipe(impl AsFd) -> File;
    replace_stderr(impl AsFd) -> ();
    replace_stdin(impl AsFd) -> ();
    replace_stdout(impl AsFd) -> ();
    send_to_name(&UnixDatagram, &[u8], &[u8]) -> ();
    set_limit(Limit, u64) -> ();
    signal(ProcessId, Word) -> bool;
    spill(impl AsFd, &File, usize) -> usize;
    subreaper() -> ();
}
