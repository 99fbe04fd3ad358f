//! The daemon: its configuration, its tasks, and what it says of itself.

#![allow(clippy::disallowed_methods, reason = "the room where clock, files and tasks are at home")]

pub mod config;
