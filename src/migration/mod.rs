//! Migrations of an agent's memory: how their files are named, and the chain they make.
//!
//! The layout is that of golang-migrate and sqlx: `<number>_<name>.up.sql`, `.down.sql`, and optionally `.verify.sql`.

mod chain;

pub use chain::{IRREVERSIBLE, Migration, Problem, chain};
