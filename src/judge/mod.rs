//! Live state becomes health, and a failure gets a cause: the release's own, or not.

mod agent;
mod fault;
mod health;
mod host;

pub use agent::{AgentHealth, agent_health};
pub use fault::{Cause, Fault, Finding};
pub use health::{Health, health};
pub use host::{HostReason, LAUNCH_ANNOTATION, PROXY_UNREACHABLE};
