//! Rollouts on a host, with everything real: the proxy splits and measures, the judge decides, and Git is told.

use crate::daemon::{Daemon, River};
use crate::lab::lab;
use crate::rollouts::{self, CANARY};
use crate::users::Front;

const HOST: &str = "support.localhost";

async fn river(name: &str, lines: &str) -> (River, Daemon, Front) {
    let river = River::new(lab(name).await, rollouts::repo(&lines.replace("HOST", HOST))).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let front = Front::Named { address: river.lab.front.clone(), host: HOST.to_owned() };
    (river, daemon, front)
}

#[tokio::test]
async fn a_good_candidate_gets_half_and_then_all_of_the_traffic() {
    let (river, daemon, front) = river("canary", CANARY).await;
    rollouts::good(&river, &daemon, &front).await;
}

#[tokio::test]
async fn a_bad_candidate_is_taken_back_and_backstay_writes_the_revert() {
    let (river, daemon, front) = river("abort", CANARY).await;
    rollouts::bad(&river, &daemon, &front).await;
}

#[tokio::test]
async fn people_hold_a_rollout_promote_and_abort_it() {
    let (river, daemon, _) = river("people", CANARY).await;
    rollouts::people(&river, &daemon).await;
}

#[tokio::test]
async fn a_change_of_strategy_fails_nobody() {
    let (river, _daemon, front) = river("strategy", "\n").await;
    rollouts::every_strategy(&river, &front).await;
}

#[tokio::test]
async fn what_people_take_back_in_git_is_known_by_its_content() {
    let (river, daemon, front) = river("reverts", CANARY).await;
    rollouts::reverts_by_people(&river, &daemon, &front).await;
}

#[tokio::test]
async fn a_second_set_has_a_preview_and_is_switched_to_at_once() {
    let (river, daemon, front) = river("switch", rollouts::BLUE_GREEN).await;
    rollouts::switched_at_once(&river, &daemon, &front).await;
}

#[tokio::test]
async fn an_experiment_has_its_segment_and_a_mirror_its_copies() {
    let (river, daemon, front) = river("segment", rollouts::EXPERIMENT).await;
    rollouts::segment_and_mirror(&river, &daemon, &front).await;
}
