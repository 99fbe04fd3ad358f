//! How fast a rollout goes back, and whom it costs anything: on this machine.
//!
//! `cargo bench --bench rollout -- [--case NAME] [--json FILE]`
#![expect(clippy::disallowed_methods, reason = "a bench has clocks, files and tasks of its own")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to people")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "rollout/cases.rs"]
mod cases;
#[path = "cost.rs"]
#[expect(dead_code, reason = "what it costs is not asked here")]
mod cost;
#[path = "counted.rs"]
#[expect(dead_code, reason = "requests are the users' here")]
mod counted;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../machine/lab.rs"]
mod lab;
#[path = "rollout/host.rs"]
mod place;
#[path = "../support/rollouts.rs"]
mod rollouts;
#[path = "table.rs"]
mod table;
#[path = "../support/users.rs"]
mod users;

fn main() {
    // Many at once would be thousands of processes here.
    cases::main(async |_, _| {});
}
