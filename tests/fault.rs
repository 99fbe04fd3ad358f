//! The fault plane on a real API server: every call of the daemon, and what may go wrong at it; its process, its Git
//! and the parts of the cluster, killed and stopped. `BACKSTAY_FAULTS=all` runs what is too long for every change.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

use std::io::Write as _;

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/git.rs"]
mod git;
#[path = "support/inside.rs"]
mod inside;
#[path = "support/lab.rs"]
mod lab;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/rights.rs"]
mod rights;
#[path = "support/rules.rs"]
mod rules;
#[path = "support/server.rs"]
mod server;
#[path = "support/standing.rs"]
mod standing;
#[path = "support/tally.rs"]
mod tally;

#[path = "fault/actors.rs"]
mod actors;
#[path = "fault/away.rs"]
mod away;
#[path = "fault/calls.rs"]
mod calls;
#[path = "fault/figures.rs"]
mod figures;
#[path = "fault/killed.rs"]
mod killed;
#[path = "fault/oracle.rs"]
mod oracle;
#[path = "fault/process.rs"]
mod process;
#[path = "fault/pushes.rs"]
mod pushes;
#[path = "fault/rollouts.rs"]
mod rollouts;
#[path = "fault/scene.rs"]
mod scene;
#[path = "fault/traffic.rs"]
mod traffic;

/// Whether everything is tried, and not only what fits into the time of a change.
fn everything() -> bool {
    std::env::var_os("BACKSTAY_FAULTS").is_some_and(|which| which == "all")
}

/// A line past the harness, which keeps what a passing test prints to itself.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
