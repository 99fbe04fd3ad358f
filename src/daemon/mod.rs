//! The daemon: its configuration, its tasks, and what it says of itself.

#![allow(clippy::disallowed_methods, reason = "the room where clock, files and tasks are at home")]

pub mod config;
mod metrics;
mod status;
pub mod telemetry;

pub use metrics::{Ended, HintFate, Metrics};
pub use status::{Status, WaitingFor};
