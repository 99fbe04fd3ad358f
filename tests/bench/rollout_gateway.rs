//! How fast a rollout goes back, and whom it costs anything: in the lab, behind Contour and Envoy.
//!
//! `tests/lab/with --gateway cargo bench --offline --bench rollout-gateway -- [--case NAME] [--json FILE]`
#![expect(clippy::disallowed_methods, reason = "a bench has clocks, files and tasks of its own")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to people")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "rollout/cases.rs"]
mod cases;
#[path = "cost.rs"]
mod cost;
#[path = "counted.rs"]
#[expect(dead_code, reason = "requests are the users' here")]
mod counted;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "rollout/hollow.rs"]
mod hollow;
#[path = "../support/lab.rs"]
mod lab;
#[path = "rollout/many.rs"]
mod many;
#[path = "rollout/gateway.rs"]
mod place;
#[path = "../support/rollouts.rs"]
mod rollouts;
#[path = "table.rs"]
mod table;
#[path = "../support/users.rs"]
mod users;

fn main() {
    cases::main(many::at_once);
}
