//! Linux: `/proc`, pidfds, cgroup version 2.

mod cage;
mod listener;
mod lock;
mod pipe;
mod process;
mod tree;

pub use cage::{
    cgroup_enter, cgroup_is_populated, cgroup_kill, die_with_parent, keep_descriptors, new_session, replace_stderr,
    replace_stdin, replace_stdout, set_limit, set_mask, subreaper,
};
pub use listener::{connect, is_listener, listening, peer, send, send_to_name, socket_path};
pub use lock::{FolderLock, file_system, lock_folder};
pub use pipe::{open_pipe, pour, reopen_pipe, spill};
pub use process::{age, boot_id, hold_process, own_process, own_uid, process, reap, signal};
pub use tree::{descendants, descends_from, is_marked, marked};
