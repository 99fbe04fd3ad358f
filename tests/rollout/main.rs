//! Rollouts on plain values: stories, whatever happens in any order, and what `plan` will print.

#![expect(clippy::wildcard_enum_match_arm, reason = "tests look at some of many kinds")]

mod bench;
mod kept;
mod outline;
mod property;
mod walk;
