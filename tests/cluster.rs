//! The Kubernetes rooms against a real API server, each test in a namespace of its own.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

#[path = "support/lab.rs"]
mod lab;

#[path = "support/script.rs"]
mod script;

#[path = "cluster/apply.rs"]
mod apply;
#[path = "cluster/cli.rs"]
mod cli;
#[path = "cluster/gate.rs"]
mod gate;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/observe.rs"]
mod observe;
#[path = "cluster/ledger.rs"]
mod ledger;
#[path = "cluster/election.rs"]
mod election;
#[path = "cluster/manifests.rs"]
mod manifests;
#[path = "cluster/verbs.rs"]
mod verbs;
