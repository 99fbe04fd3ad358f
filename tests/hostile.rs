//! Input that is meant to hurt: trees, Git servers, forbidden objects, storms; and where secrets must not come out.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests have files and clocks of their own, and say how long things took"
)]

#[path = "support/forbidden.rs"]
mod forbidden;
#[path = "support/git.rs"]
mod git;

#[path = "hostile/forge.rs"]
mod forge;
#[path = "hostile/evil.rs"]
mod evil;
#[path = "hostile/gate.rs"]
mod gate;
#[path = "hostile/newer.rs"]
mod newer;
#[path = "hostile/raw.rs"]
mod raw;
#[path = "hostile/secrets.rs"]
mod secrets;
#[path = "hostile/server.rs"]
mod server;
#[path = "hostile/storm.rs"]
mod storm;
