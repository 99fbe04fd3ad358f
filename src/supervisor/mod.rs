//! The processes of a host: what a cluster's Deployment controller and kubelet do, for one machine.
//!
//! ```text
//! Deployment ─► ReplicaSet ─► Pod ─► keeper ─► probes ─► status
//!                                                 └────► the proxy's table ◄─ HTTPRoute
//! ```
//!
//! Deployments, Services, routes and Pods are read from the host's own API, so that whoever plans and judges need not know
//! which kind of target it is. A Pod is the recorded intent of a launch: it stands before its process does, and goes
//! after it. What is to be done is decided by pure functions (`decide`, `status`, `table`); `run` does it.
//!
//! # Two launchers
//!
//! A keeper is a process that this one starts, with the same account; or it is a unit of systemd, which has started it
//! with an account, secrets and a sandbox of its own ([`Launcher`]). Beside that nothing differs.
//!
//! # The switch
//!
//! A Deployment that carries traffic gets its new instances beside the old ones. When all of them are ready the proxy
//! is given a table with the new ones alone; only when it answers that every new request uses it are the old ones
//! retired. They run on for a while, so that going back is another table and nothing else. Processes without traffic
//! are replaced after that: the old ones end before the new ones start.
//!
//! # Two releases at once
//!
//! Where an `HTTPRoute` has the agent's name, the table's arms are what it asks for: each of its backends is a Service, and
//! the Deployment that this selects. All of the above holds for each Deployment. What has nothing ready leaves its part to
//! the other. The route says of itself what is in force, once the proxy has answered that it is. A Deployment of one
//! release that is scaled to none, or is gone, ends as what was switched away from does: when the proxy sends it nothing
//! more and nothing is open there; it too is kept for a while, and is back at once where its Deployment is.

#![allow(clippy::disallowed_methods, reason = "a shell room: it starts processes and has a clock")]

mod arms;
mod artifact;
mod care;
mod decide;
mod deeds;
mod ground;
mod http_route;
mod instance;
mod launch;
mod launcher;
mod ports;
mod probe;
mod run;
#[cfg(test)]
mod split_tests;
mod status;
#[cfg(test)]
mod story_tests;
mod systemctl;
mod table;
mod tell;
mod unit;
mod view;

pub use artifact::{ArtifactError, ArtifactSource, Artifacts};
pub use launcher::Launcher;
pub use run::{Code, CodeError, Settings, Supervisor, SupervisorError};
pub use unit::{Enrolment, EnrolmentError};
