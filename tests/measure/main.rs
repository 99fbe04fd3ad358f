//! Measurements: every provider against what really answers it, or against answers as their makers document them.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: it reads files and has a clock, and a panic is its failure"
)]

mod ask;
#[path = "../support/prometheus.rs"]
mod prometheus;
#[path = "../support/server.rs"]
mod server;

mod gate;
mod hostile;
mod proxied;
mod queried;
mod recorded;
mod scrape;

/// The proxy as a process, as its own tests run it.
#[path = "../proxy/support"]
mod support {
    #![allow(dead_code, reason = "the proxy's own tests use all of it")]
    pub(crate) mod agent;
    pub(crate) mod client;
    pub(crate) mod process;
}
