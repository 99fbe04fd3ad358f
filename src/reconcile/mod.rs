//! The core: state machines without IO, `step(&State, Observation, now, seed) -> (State, Vec<Action>)`.
//!
//! The agent's machine executes, the environment's admits. The state holds nothing that ledger, checkout and live
//! state cannot rebuild, so that a crash between any two actions loses nothing.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod action;
mod agent;
mod course;
mod environment;
mod execute;
mod learn;
mod preview;
mod rebuild;
mod roll;
mod sides;
mod state;
mod target;

pub use crate::model::LiveState;
pub use action::{
    Action, Admission, Announcement, Done, Failure, FailureKind, How, LedgerEntry, Observation, Reason, Smoke, TellGit,
    Wanted, Write,
};
pub use agent::step;
pub use environment::{Admitted, EnvironmentInput, Followed, PruneLimits, Ties, admit, after, returns};
pub use preview::{Preview, preview};
pub use state::{AgentConfig, AgentState, read_release};
