//! A host where `support` serves, and what is done with it again and again.

use std::process::Command;

use crate::daemon::{Daemon, Repo, River, until};
use crate::lab::Lab;

/// The overlay of `support` on a host.
pub(crate) const OVERLAY: &str = "environments/development/support.yaml";
/// What it says of its code.
pub(crate) const CODE: &str = "code: {image: \"registry.example.com/support-agent:1.5.0-dev.3\"}\n";

/// A host where `support` serves, seen by the proxy.
pub(crate) async fn serving(lab: Lab) -> (River, Daemon) {
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    answers(&river).await;
    (river, daemon)
}

/// What the proxy answers to a request for `support`.
pub(crate) async fn knock(river: &River) -> Option<u16> {
    river.lab.knock("support", "/health/ready").await
}

/// Waits until `support` answers.
pub(crate) async fn answers(river: &River) {
    until("it answers", async || (knock(river).await == Some(200)).then_some(())).await;
}

/// Kills a process at once.
pub(crate) fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success(), "{pid} is there");
}
