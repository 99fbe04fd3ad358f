//! The core, told as stories over plain values: a commit, a crash, a person, and what becomes of it.
//!
//! Three laws hold in every story: it ends as told, the next round writes nothing, and a crash at any effect changes
//! nothing of the end.

#[path = "story/world.rs"]
mod world;

#[path = "story/back.rs"]
mod back;
#[path = "story/environment.rs"]
mod environment;
#[path = "story/faults.rs"]
mod faults;
#[path = "story/guards.rs"]
mod guards;
#[path = "story/ownership.rs"]
mod ownership;
#[path = "story/quiet.rs"]
mod quiet;
#[path = "story/replay.rs"]
mod replay;
#[path = "story/river.rs"]
mod river;
#[path = "story/shapes.rs"]
mod shapes;
