//! What all rooms share: names, ids, revisions, objects and the words for what is wrong with a file.
//!
//! Everything here is parsed once, at the door: a value of one of these types is the proof that it was checked.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod diagnostic;
mod id;
mod live;
mod name;
mod object;
mod revision;
mod text;

pub use diagnostic::{Diagnostic, Diagnostics, Origin, Severity};
pub use id::{Digest, InvalidDigest, ReleaseId};
pub use jiff::Timestamp;
pub use live::LiveState;
pub use name::{AgentName, EnvironmentName, InvalidName, MAX_AGENT_AND_WORKER, WorkerName};
pub use object::{GroupKind, LiveObject, Manifest, ObjectRef, ResourceVersion, Uid};
pub use revision::{CommitId, InvalidCommitId, InvalidRevision, Revision};
pub use text::one_line;
