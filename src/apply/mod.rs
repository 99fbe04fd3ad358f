//! Carries out one action at a time on a target, with its precondition.
#![allow(clippy::disallowed_methods, reason = "this room writes to API servers")]

mod fence;
mod fields;
mod target;

pub use fence::{Fence, Unfenced};
pub use target::{HANDOVER, Target};
