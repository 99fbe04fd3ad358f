//! Feature flags: flagd's definitions (schema v0), read and checked.

mod definition;

pub use definition::{Flag, FlagSet, Problem, VariantKind, parse};
