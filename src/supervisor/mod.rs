//! What runs the agents of one machine.

#![allow(clippy::disallowed_methods, reason = "a shell room: it keeps the folders of a host")]

mod artifact;

pub use artifact::{ArtifactError, ArtifactSource, Artifacts};
