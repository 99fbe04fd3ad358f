//! Migrations of an agent's memory: how their files are named, and the chain they make.
//!
//! The layout is that of golang-migrate and sqlx: `<number>_<name>.up.sql`, `.down.sql`, and optionally `.verify.sql`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod chain;

pub use chain::{IRREVERSIBLE, Migration, Problem, chain};
