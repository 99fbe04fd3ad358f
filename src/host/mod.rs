//! One machine as a target: an API server of its own, in this process, for what a cluster's would hold.
//!
//! The host target speaks the very requests of the Kubernetes target, so that plans, records, leases, watches and the
//! promises about them are one code path. What answers is [`HostApi`]: a few kinds of the Kubernetes API, with its
//! preconditions, server-side apply and watches, on an embedded database.

#![allow(clippy::disallowed_methods, reason = "a shell room: it holds a database and has a clock")]

mod api;
mod connect;
mod fields;
mod frozen;
mod kinds;
mod recent;
mod refused;
mod serve;
mod store;
mod watch;

pub use api::{Caller, HostApi};
pub use connect::{answers, client};
pub use serve::{ListenError, listen, serve};
pub use store::{Opened, Store, StoreError};
