//! What is: the target's API server, asked and watched.
//!
//! [`connect()`] makes the one client per identity, [`Api`] sends every request of `observe`, `apply` and `ledger`, and
//! [`Observer`] keeps the live state of all agents of a namespace by watches.
#![allow(clippy::disallowed_methods, reason = "this room speaks to API servers: it reads kubeconfigs and waits")]

mod api;
mod connect;
mod kept;
mod kinds;
mod lean;
mod limiter;
mod live;
mod observer;
mod watch;

pub(crate) use api::{Call, Refusal, segment};
pub(crate) use kinds::Resource;
pub(crate) use limiter::Jitter;
pub(crate) use watch::{Read, Told, Watch, listed};

pub use api::Api;
pub use connect::{Account, Cluster, ConnectError, connect};
pub use kinds::Kinds;
pub use limiter::Limiter;
pub use live::Changed;
pub use observer::Observer;
pub use watch::Pace;
