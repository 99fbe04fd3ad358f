//! The whole way on a host, with real parts: a push, the daemon, keepers, the proxy, and what the agents answer.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

#[path = "support/asker.rs"]
mod asker;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "machine/lab.rs"]
mod lab;
#[path = "support/rollouts.rs"]
mod rollouts;
#[path = "support/standing.rs"]
mod standing;
#[path = "support/stories.rs"]
mod stories;
#[path = "support/tally.rs"]
mod tally;
#[path = "support/users.rs"]
mod users;

#[path = "machine/disk.rs"]
mod disk;
#[path = "machine/files.rs"]
mod files;
#[path = "machine/golden.rs"]
mod golden;
#[path = "machine/machinery.rs"]
mod machinery;
#[path = "machine/names.rs"]
mod names;
#[path = "machine/release.rs"]
mod release;
#[path = "machine/river.rs"]
mod river;
#[path = "machine/rollout.rs"]
mod rollout;
#[path = "machine/serving.rs"]
mod serving;
#[path = "machine/split.rs"]
mod split;
#[path = "machine/store.rs"]
mod store;
#[path = "machine/telling.rs"]
mod telling;
#[path = "machine/trust.rs"]
mod trust;
#[path = "machine/upgrade.rs"]
mod upgrade;
