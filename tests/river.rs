//! The whole way, with real parts: a push, the daemon, a real API server, and what the agents answer.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

#[path = "support/audit.rs"]
mod audit;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/forbidden.rs"]
mod forbidden;
#[path = "support/lab.rs"]
mod lab;
#[path = "support/rights.rs"]
mod rights;
#[path = "support/stories.rs"]
mod stories;

#[path = "river/admission.rs"]
mod admission;
#[path = "river/approved.rs"]
mod approved;
#[path = "river/canary.rs"]
mod canary;
#[path = "river/push.rs"]
mod push;
#[path = "river/shapes.rs"]
mod shapes;
#[path = "river/soak.rs"]
mod soak;
#[path = "river/faults.rs"]
mod faults;
#[path = "river/dark.rs"]
mod dark;
#[path = "river/disk.rs"]
mod disk;
#[path = "river/people.rs"]
mod people;
#[path = "river/telling.rs"]
mod telling;
#[path = "river/pod.rs"]
mod pod;
#[path = "river/drift.rs"]
mod drift;
#[path = "river/gate.rs"]
mod gate;
#[path = "river/health.rs"]
mod health;
#[path = "river/looks.rs"]
mod looks;
#[path = "river/tags.rs"]
mod tags;
#[path = "river/verify.rs"]
mod verify;
#[path = "river/openpgp.rs"]
mod openpgp;
