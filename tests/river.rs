//! The whole way, with real parts: a push, the daemon, a real API server, and what the agents answer.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/lab.rs"]
mod lab;

#[path = "river/push.rs"]
mod push;
#[path = "river/shapes.rs"]
mod shapes;
#[path = "river/faults.rs"]
mod faults;
#[path = "river/people.rs"]
mod people;
#[path = "river/pod.rs"]
mod pod;
#[path = "river/verify.rs"]
mod verify;
