//! Backstay: a GitOps daemon for AI agents.
//!
//! ```text
//! git ─► source ─► desired ─► plan ─► apply ─► observe ─► judge ─┐
//!         ▲                     ▲        │                        │
//!         │                     └─ ledger◄┘                       │
//!         └──────────────── revert ◄──────────────────────────────┘
//! ```
//!
//! Rooms stand in river order; a room imports only rooms above it. Pure rooms have no async, clock, file or client.

// No panic reaches the process from data: nothing here may panic on purpose.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod model;
pub mod flag;
pub mod migration;
pub mod record;
pub mod source;
pub mod desired;
pub mod render;
pub mod judge;
pub mod rollout;
pub mod plan;
pub mod revert;
pub mod reconcile;
pub mod observe;
pub mod apply;
pub mod ledger;
pub mod sys;
pub mod host;
pub mod keeper;
pub mod proxy;
pub mod supervisor;
pub mod measure;
pub mod daemon;
pub mod web;
pub mod cli;
