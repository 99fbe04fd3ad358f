//! Feature flags: flagd's definitions (schema v0), read and checked.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod definition;

pub use definition::{Flag, FlagSet, Problem, VariantKind, parse};
