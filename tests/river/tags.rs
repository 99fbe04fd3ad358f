//! An environment that follows tags: forwards by a new one, back by a commit that passes it over, and never by a tag
//! that somebody moved.

use serde_json::json;

use crate::daemon::{Repo, River, until};
use crate::lab::lab;

const FILE: &str = "environments/development.yaml";

#[tokio::test]
async fn a_tag_that_was_moved_back_waits_for_a_person_and_one_that_is_passed_over_does_not() {
    let Some(lab) = lab("tags").await else { return };
    let repo = Repo::small();
    let tag = |repo: &Repo, name: &str, at: &str| {
        repo.git(&["tag", "-f", name, at]);
        repo.git(&["push", "-q", "--force", "origin", &format!("refs/tags/{name}")]);
    };
    repo.edit(FILE, "track: {branch: main}", "track: {tags: \"v*\"}");
    let one = repo.commit("Follow tags");
    tag(&repo, "v1.0.0", &one);
    let river = River::new(lab, repo).await;
    let repo = &river.repo;
    let daemon = river.start().await;
    river.settled(&one).await;
    let first = river.greets("Hello!").await;

    // What is not tagged is not deployed; the highest version is.
    let two = repo.commit_greeting("Ahoy!");
    tag(repo, "v1.1.0", &two);
    river.settled(&two).await;
    let second = river.greets("Ahoy!").await;
    assert_ne!(first, second);

    // Passed over by a commit of its own: back at once, and known for what it is.
    repo.edit(FILE, "track: {tags: \"v*\"}", "track: {tags: \"v*\", exclude: [v1.1.0]}");
    repo.commit("Pass v1.1.0 over");
    river.settled(&one).await;
    assert_eq!(river.greets("Hello!").await, first);
    assert_eq!(daemon.newest()["cause"]["revert"]["evidence"], json!("KnownRelease"));

    // One tag by name, and then that tag moved back.
    repo.edit(FILE, "track: {tags: \"v*\", exclude: [v1.1.0]}", "track: {tag: v1.1.0}");
    repo.commit("Take v1.1.0 after all");
    river.settled(&two).await;
    assert_eq!(river.greets("Ahoy!").await, second);
    tag(repo, "v1.1.0", &one);
    until("the moved tag is refused", async || {
        river.environment().await.filter(|record| record["refused"]["to"] == *one)
    })
    .await;
    let status = daemon.done(&["status"]);
    assert!(status.contains("was moved") && status.contains(&one[..8]), "{status}");
    assert_eq!(river.greets("Ahoy!").await, second);
    daemon.done(&["sync", "--accept-rewind", &one]);
    river.settled(&one).await;
    assert_eq!(river.greets("Hello!").await, first);
    assert_eq!(daemon.newest()["cause"]["revert"]["evidence"], json!("KnownRelease"));
    until("nothing is refused any more", async || {
        river.environment().await.filter(|record| record["refused"].is_null())
    })
    .await;
}
