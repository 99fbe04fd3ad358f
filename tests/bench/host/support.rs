//! The proxy as a process, agents behind it and clients before it, as its tests have them.

#[path = "../../proxy/support/agent.rs"]
pub(crate) mod agent;
#[path = "../../proxy/support/client.rs"]
pub(crate) mod client;
#[path = "../../proxy/support/process.rs"]
pub(crate) mod process;
