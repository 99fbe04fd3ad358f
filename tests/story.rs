//! The core, told as stories over plain values: a commit, a crash, a person, and what becomes of it.
//!
//! Three laws hold in every story: it ends as told, the next round writes nothing, and a crash at any effect changes
//! nothing of the end.
#![expect(
    clippy::wildcard_enum_match_arm,
    clippy::match_same_arms,
    clippy::struct_excessive_bools,
    clippy::unused_self,
    clippy::unnecessary_wraps,
    clippy::needless_range_loop,
    clippy::semicolon_if_nothing_returned,
    clippy::print_stdout,
    reason = "the world is plain values, and its table is printed"
)]

#[path = "story/cluster.rs"]
mod cluster;
#[path = "story/git.rs"]
mod git;
#[path = "story/oracle.rs"]
mod oracle;
#[path = "story/plane.rs"]
mod plane;
#[path = "story/scenarios.rs"]
mod scenarios;
#[path = "support/turn.rs"]
mod turn;
#[path = "story/world.rs"]
mod world;

#[path = "story/admission.rs"]
mod admission;
#[path = "story/back.rs"]
mod back;
#[path = "story/dark.rs"]
mod dark;
#[path = "story/environment.rs"]
mod environment;
#[path = "story/experiment.rs"]
mod experiment;
#[path = "story/faults.rs"]
mod faults;
#[path = "story/guards.rs"]
mod guards;
#[path = "story/ownership.rs"]
mod ownership;
#[path = "story/poison.rs"]
mod poison;
#[path = "story/property.rs"]
mod property;
#[path = "story/quiet.rs"]
mod quiet;
#[path = "story/replay.rs"]
mod replay;
#[path = "story/river.rs"]
mod river;
#[path = "story/shapes.rs"]
mod shapes;
#[path = "story/soak.rs"]
mod soak;
#[path = "story/table.rs"]
mod table;
#[path = "story/speed.rs"]
mod speed;
#[path = "story/traffic.rs"]
mod traffic;
#[path = "story/rollout.rs"]
mod rollout;
