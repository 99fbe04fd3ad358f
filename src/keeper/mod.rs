//! Holds one agent process of a host: a process of its own (`backstay-keeper hold FOLDER`), without an async runtime.
//!
//! # The folder of an instance
//!
//! | name | what it is | whose |
//! | --- | --- | --- |
//! | `spec.json` | what is run, and how ([`spec::Spec`]) | the launcher's |
//! | `lock` | held while a keeper lives | the keeper's |
//! | `keeper.json` | who the keeper is ([`wire::Identity`]) | the keeper's |
//! | `state.json` | where the agent stands ([`wire::Status`]) | the keeper's |
//! | `s` | the socket over which the keeper is asked ([`wire`]) | the keeper's |
//! | `log` | the named pipe that the agent writes to | both |
//!
//! # Guarantees
//!
//! - A keeper that dies takes nothing with it: the agent goes on, what it writes stays in the pipe, and the next keeper of the folder
//!   takes both over. How such an agent ends cannot be known to its second keeper. (What is in the pipe, 64 KiB at most, is lost only
//!   if keeper and agent both die before a next keeper starts.)
//! - An agent is ended whole: what called `setsid` or lost its parent comes to the keeper, or is known by `BACKSTAY_INSTANCE` in its
//!   environment.
//! - A keeper whose folder vanishes ends its agent, then itself.
//! - It never waits for a caller, for a full disk or for a command of the spec.

#![allow(clippy::disallowed_methods, reason = "a shell room: it holds a process")]

mod cage;
pub mod client;
mod command;
mod file;
pub mod folder;
mod hold;
pub mod logs;
pub mod spec;
pub mod wire;

pub use command::main;
