//! Git, from remote to [`Checkout`]: mirror, poll, hints, verification, and commits written back.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`SourceConfig`] | where the repository is, how to get in, how much is taken from it |
//! | [`Mirror`] | a bare copy of all branches and tags, made anew whenever it is lost |
//! | [`Poller`] | the thread that keeps the mirror current, and says how that goes |
//! | [`Store`] | everything that is read from commits: trees, history, what a name points at |
//! | [`Signers`], [`NoVerification`] | whether a commit may be used |
//! | [`Move`], [`Settled`] | whether a reference may move to where the remote has it |
//! | [`Draft`], [`Mirror::push`] | commits written back |
//! | [`Mirror::add_notes`] | lines beside commits |
//!
//! Nothing in a repository is executed, filtered or checked out, and neither the system's nor a user's Git
//! configuration is read.

#![allow(
    clippy::disallowed_methods,
    reason = "a shell room: it keeps the mirror's folder, and its real clock is the one place that asks for the time"
)]

mod checkout;
mod config;
mod error;
mod folder_tree;
mod git_tree;
mod hermetic;
mod history;
mod mirror;
mod movement;
mod names;
mod notes;
mod poll;
mod push;
mod remote;
mod resolve;
mod store;
mod sweep;
mod tree;
mod verify;
mod watch;
mod wire;
mod write;

pub use checkout::{Checkout, CommitInfo, NoVerification, Unverified, Verified, Verify};
pub use config::{Auth, InvalidUrl, Limits, RemoteUrl, Rewind, Secret, SourceConfig, SshKey};
pub use error::SourceError;
pub use folder_tree::FolderTree;
pub use git_tree::GitTree;
pub use history::{Changed, PathChange, Walk};
pub use mirror::{Followed, Mirror, Polled};
pub use movement::{Move, MovePolicy, NotVerified, RefusedMove, Settled};
pub use poll::{Bell, Clock, Hinter, Pace, Poller, Ring, SourceStatus, SystemClock, Wishes};
pub use push::PushError;
pub use resolve::Track;
pub use store::{Content, Store};
pub use tree::{ContentId, Entry, EntryKind, MemoryTree, Tree, TreeError};
pub use verify::{
    AllowedSigners, InvalidKeyring, InvalidSigners, Keyring, SignError, Signers, SignersError, SigningKey, Trusted,
};
pub use write::{Conflict, Draft, Edit, Person, Reverted, WriteError};
