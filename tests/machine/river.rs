//! The stories of every target, on a host.

use crate::daemon::{Repo, River, until};
use crate::lab::lab;
use crate::stories;

#[tokio::test]
async fn a_push_deploys_and_a_revert_takes_it_back() {
    let river = River::new(lab("push").await, Repo::whole()).await;
    let daemon = river.start().await;
    stories::push_and_revert(&river, &daemon).await;
}

#[tokio::test]
async fn a_bad_commit_leaves_what_runs() {
    let river = River::new(lab("bad").await, Repo::small()).await;
    let daemon = river.start().await;
    stories::bad_commit(&river, &daemon).await;
}

#[tokio::test]
async fn a_release_that_crashes_is_taken_back_and_not_tried_again_unasked() {
    let river = River::new(lab("crash").await, Repo::small()).await;
    let daemon = river.start().await;
    stories::crash(&river, &daemon).await;
}

#[tokio::test]
async fn a_release_that_never_gets_ready_is_taken_back() {
    let river = River::new(lab("unready").await, Repo::small()).await;
    let daemon = river.start().await;
    stories::never_ready(&river, &daemon).await;
}

#[tokio::test]
async fn what_is_gone_from_git_ends_with_its_route_and_its_processes() {
    let river = River::new(lab("removal").await, Repo::whole()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let knocks = async |agent: &str| river.lab.knock(agent, "/health/ready").await;
    until("both are routed", async || {
        (knocks("research").await == Some(200) && knocks("support").await == Some(200)).then_some(())
    })
    .await;
    stories::removal(&river, &daemon).await;
    until("no request is led to it", async || (knocks("research").await == Some(404)).then_some(())).await;
    assert_eq!(knocks("support").await, Some(200));
    let of_research = || river.lab.instances().iter().any(|folder| folder.to_string_lossy().contains("research"));
    until("nothing of it is left", async || (!of_research()).then_some(())).await;
}
