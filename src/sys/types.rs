//! The words of this room that are the same on every system.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names one process for the time of one boot.
///
/// `start` is the kernel's count from boot until the process began, in ticks of 10 ms. A number that is given to another process later
/// comes with another `start`; across boots it means nothing, so it is kept beside a boot id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// The number of the process.
    pub pid: u32,
    /// When it began, in ticks since boot.
    pub start: u64,
}

/// A signal that may be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Word {
    /// Hang up: by custom "read your files again".
    Hup,
    /// What a terminal sends on Ctrl-C.
    Int,
    /// What a terminal sends on Ctrl-\.
    Quit,
    /// Stop, please.
    Term,
    /// Stop, at once: cannot be caught.
    Kill,
    /// The agent's own meaning.
    Usr1,
    /// The agent's own meaning.
    Usr2,
    /// Pause: cannot be caught.
    Stop,
    /// Go on after a pause.
    Cont,
}

/// A limit of one process that the kernel holds, inherited by what it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Limit {
    /// Open files.
    OpenFiles,
    /// Processes and threads of the account (not of the instance).
    Processes,
    /// Address space in bytes.
    AddressSpace,
    /// Data segment and private mappings in bytes.
    Data,
    /// Stack of the first thread in bytes.
    Stack,
    /// Largest file that may be written, in bytes.
    FileSize,
    /// Largest core dump in bytes.
    Core,
    /// Seconds of processor time.
    CpuSeconds,
    /// Bytes that may be locked in memory.
    LockedMemory,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    /// Its number.
    pub pid: u32,
    /// The status it left with, if it left by itself.
    pub code: Option<i32>,
    /// The signal that ended it otherwise.
    pub signal: Option<i32>,
}

/// Who is at the other end of a Unix socket, as the kernel saw it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process. It may have ended since.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
}

/// Where a process listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Listen {
    /// A Unix socket at this path.
    Socket(PathBuf),
    /// A TCP port, on whichever address.
    Port(u16),
}

/// Whose the listeners of a place are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Listening {
    /// Nobody listens.
    Nobody,
    /// Every listener belongs to the processes that were asked about.
    Ours,
    /// Somebody else listens there, alone or beside them.
    Another,
}

/// What a folder lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Its kind: the name in the mount table, or the number of the kernel.
    pub name: String,
    /// Whether locks on it may not be seen by other machines that write it.
    pub network: bool,
}

/// Why a folder could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("`{}` is held by another process", .0.display())]
    Held(PathBuf),
    /// A lock there would not be seen from another machine.
    #[error("`{}` lies on a network file system ({name}), where locks cannot be trusted", folder.display())]
    Network {
        /// The folder.
        folder: PathBuf,
        /// What it lies on.
        name: String,
    },
    /// The operating system refused.
    #[error("cannot lock `{}`", folder.display())]
    Refused {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
