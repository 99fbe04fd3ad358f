//! Git, from remote to [`Checkout`]: mirror, poll, hints, verification, and commits written back.

mod checkout;
mod tree;

pub use checkout::{Checkout, CommitInfo, NoVerification, Unverified, Verified, Verify};
pub use tree::{ContentId, Entry, EntryKind, MemoryTree, Tree, TreeError};
