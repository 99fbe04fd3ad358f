//! The proxy as a process: real sockets, real clients, and agents that behave well or badly.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: it reads files and has a clock, and a panic is its failure"
)]

mod support {
    pub(crate) mod agent;
    pub(crate) mod client;
    pub(crate) mod process;
}

mod control;
mod forward;
mod hostile;
mod limits;
mod routing;
mod streams;
mod takeover;
mod tls;
mod trouble;
