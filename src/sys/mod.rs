//! Everything that differs between operating systems: processes, their trees and limits, who stands behind a socket,
//! locks and file systems.
//!
//! On Linux all of it stands on `/proc`, pidfds and cgroup version 2. Elsewhere every function answers with
//! [`std::io::ErrorKind::Unsupported`]: there is no keeper and no host target yet on a system without subreapers, and
//! a word that says so is better than an agent that cannot be stopped whole.

#![allow(clippy::disallowed_methods, reason = "a shell room: it asks the operating system")]

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;
mod account;
mod heap;
mod name;
mod notify;
mod tree;
mod types;

pub use account::{account, uid};
pub use heap::{few_heaps, give_back_memory};
#[cfg(target_os = "linux")]
pub use linux::{
    FolderLock, age, boot_id, cgroup_enter, cgroup_is_populated, cgroup_kill, connect, descendants, descends_from,
    die_with_parent, file_system, hold_process, is_listener, is_marked, keep_descriptors, listening, lock_folder,
    marked, new_session, open_pipe, own_process, own_uid, peer, pour, process, reap, reopen_pipe, replace_stderr,
    replace_stdin, replace_stdout, send, send_to_name, set_limit, set_mask, signal, socket_path, spill, subreaper,
};
pub use name::machine_name;
pub use notify::{notify, watchdog};
#[cfg(not(target_os = "linux"))]
pub use other::{
    FolderLock, age, boot_id, cgroup_enter, cgroup_is_populated, cgroup_kill, connect, descendants, descends_from,
    die_with_parent, file_system, hold_process, is_listener, is_marked, keep_descriptors, listening, lock_folder,
    marked, new_session, open_pipe, own_process, own_uid, peer, pour, process, reap, reopen_pipe, replace_stderr,
    replace_stdin, replace_stdout, send, send_to_name, set_limit, set_mask, signal, socket_path, spill, subreaper,
};
pub use tree::remove_tree;
pub use types::{Exited, FileSystem, Limit, Listen, Listening, LockError, Peer, ProcessId, Word};
