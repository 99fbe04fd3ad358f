//! The fault plane on a host: every call of the daemon and of its supervisor to the host's own API, and what may go wrong at
//! it, with a real proxy, real keepers and real agents. `BACKSTAY_FAULTS=all` tries all of it.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

use std::io::Write as _;

#[path = "support/asker.rs"]
mod asker;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/inside.rs"]
mod inside;
#[path = "machine/lab.rs"]
mod lab;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/rules.rs"]
mod rules;
#[path = "support/standing.rs"]
mod standing;
#[path = "support/tally.rs"]
mod tally;

#[path = "fault_host/calls.rs"]
mod calls;
#[path = "fault_host/canary.rs"]
mod canary;
#[path = "fault_host/scene.rs"]
mod scene;

/// Whether everything is tried, and not only what fits into the time of a change.
fn everything() -> bool {
    std::env::var_os("BACKSTAY_FAULTS").is_some_and(|which| which == "all")
}

/// A line past the harness, which keeps what a passing test prints to itself.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
