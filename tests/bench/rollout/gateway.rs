//! `support` in a namespace of the lab, behind its gateway.

use crate::daemon::{Daemon, River, until};
use crate::lab::lab;
use crate::rollouts;
use crate::users::Front;

/// From the verdict to the last question that the candidate was given, in seconds.
pub(crate) const BACK: f64 = 1.0;

/// `support` settled, with these lines in its overlay.
pub(crate) async fn site(name: &str, lines: &str) -> (River, Daemon, Front) {
    let address = std::env::var("LAB_GATEWAY").expect("run it with tests/lab/with --gateway");
    let address = address.trim_start_matches("http://").to_owned();
    let lab = lab(name).await.expect("the lab");
    let host = format!("{}.example.com", lab.namespace);
    let route = format!("\nroute: {{hosts: [{host}], gateway: {{name: public, namespace: gateways}}}}{lines}");
    let river = River::new(lab, rollouts::repo(&route)).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let front = Front::Named { address, host };
    let http = front.client();
    until("the gateway answers", async || front.ask(&http, &[]).await.1.ok()).await;
    (river, daemon, front)
}
