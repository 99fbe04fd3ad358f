//! What a release becomes, how it is compared with what runs, what may be written, and whether it is well.

#![expect(clippy::needless_pass_by_value, reason = "tables read better without a borrow at every `json!`")]

#[path = "render/agent.rs"]
mod agent;
#[path = "render/difference.rs"]
mod difference;
#[path = "render/gate.rs"]
mod gate;
#[path = "render/health.rs"]
mod health;
#[path = "render/host.rs"]
mod host;
#[path = "render/objects.rs"]
mod objects;
#[path = "render/route.rs"]
mod route;
