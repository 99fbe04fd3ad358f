//! The daemon: its configuration, its tasks, and what it says of itself.

#![allow(clippy::disallowed_methods, reason = "the room where clock, files and tasks are at home")]

pub mod config;
mod environment;
mod git;
mod metrics;
mod run;
mod status;
pub mod telemetry;
mod word;
pub mod write_back;

pub use environment::Settled;
pub use git::GitError;
pub use metrics::{Ended, HintFate, Metrics};
pub use run::{Daemon, DaemonError};
pub use status::{Status, WaitingFor};
