//! `support` on a host of one's own, behind its proxy.

use crate::daemon::{Daemon, River};
use crate::lab::lab;
use crate::rollouts;
use crate::users::Front;

/// From the verdict to the last question that the candidate was given, in seconds.
pub(crate) const BACK: f64 = 0.2;

/// `support` settled, with these lines in its overlay.
pub(crate) async fn site(name: &str, lines: &str) -> (River, Daemon, Front) {
    let river = River::new(lab(name).await, rollouts::repo(lines)).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let front = Front::Named { address: river.lab.front.clone(), host: "support.localhost".to_owned() };
    (river, daemon, front)
}
