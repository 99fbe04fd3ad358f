//! The daemon: its configuration, its tasks, and what it says of itself.

#![allow(clippy::disallowed_methods, reason = "the room where clock, files and tasks are at home")]

mod app;
pub mod config;
mod effect;
mod environment;
mod git;
mod host;
mod look;
mod machines;
mod metrics;
mod notes;
mod parts;
mod run;
mod smoke;
mod status;
pub mod telemetry;
mod told;
mod word;
pub mod write_back;

pub use app::{App, Serve, Serving};
pub use git::GitError;
pub use host::{Asks, Between, HostError};
pub use look::{Looked, Rolled, look};
pub use metrics::{Ended, HintFate, Metrics};
pub use parts::Settled;
pub use run::{COMMITTER, Daemon, DaemonError};
pub use status::{Status, WaitingFor};
