//! The processes of a host: what a cluster's Deployment controller and kubelet do, for one machine.
//!
//! ```text
//! Deployment ─► ReplicaSet ─► Pod ─► keeper ─► probes ─► status
//!                                                 └────► the proxy's table
//! ```
//!
//! Deployments, Services and Pods are read from the host's own API, so that whoever plans and judges need not know
//! which kind of target it is. A Pod is the recorded intent of a launch: it stands before its process does, and goes
//! after it. What is to be done is decided by pure functions (`decide`, `status`, `table`); `run` does it.
//!
//! # The switch
//!
//! A Deployment that carries traffic gets its new instances beside the old ones. When all of them are ready the proxy
//! is given a table with the new ones alone; only when it answers that every new request uses it are the old ones
//! retired. They run on for a while, so that going back is another table and nothing else. Processes without traffic
//! are replaced after that: the old ones end before the new ones start.

#![allow(clippy::disallowed_methods, reason = "a shell room: it starts processes and has a clock")]

mod artifact;
mod care;
mod decide;
mod instance;
mod launch;
mod ports;
mod probe;
mod run;
mod status;
#[cfg(test)]
mod story_tests;
mod table;
mod view;

pub use artifact::{ArtifactError, ArtifactSource, Artifacts};
pub use run::{Code, CodeError, Settings, Supervisor, SupervisorError};
