//! The whole way on a host, with real parts: a push, the daemon, keepers, the proxy, and what the agents answer.
#![expect(clippy::disallowed_methods, reason = "tests have clocks and tasks of their own")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "machine/lab.rs"]
mod lab;
#[path = "support/stories.rs"]
mod stories;

use daemon::{Repo, River};
use lab::lab;

#[tokio::test]
async fn a_push_deploys_and_a_revert_takes_it_back() {
    let river = River::new(lab("push").await, Repo::whole()).await;
    let daemon = river.start().await;
    stories::push_and_revert(&river, &daemon).await;
}
