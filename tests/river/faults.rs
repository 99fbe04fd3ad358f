//! What goes wrong: a bad commit, a release that fails, one that cannot start, a daemon that dies, two of them.

use serde_json::Value;

use crate::daemon::{Repo, River, holds};
use crate::lab::lab;
use crate::stories;

const OVERLAY: &str = "environments/development/support.yaml";

fn quarantine(record: &Value) -> usize {
    record["quarantine"].as_array().map_or(0, Vec::len)
}

// S3
#[tokio::test]
async fn a_bad_commit_leaves_what_runs() {
    let Some(lab) = lab("bad").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    stories::bad_commit(&river, &daemon).await;
}

#[tokio::test]
async fn a_release_that_crashes_is_taken_back_and_not_tried_again_unasked() {
    let Some(lab) = lab("crash").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    stories::crash(&river, &daemon).await;
}

#[tokio::test]
async fn a_release_that_cannot_be_pulled_is_blamed_on_nobody() {
    let Some(lab) = lab("pull").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;

    river.repo.edit(OVERLAY, "registry.example.com/", "registry.invalid/");
    river.repo.edit(OVERLAY, "progressDeadline: 60s\n", "progressDeadline: 10s\n");
    river.repo.greet("Nowhere!");
    river.repo.commit("Take an image from nowhere");
    let record = river.recorded("it is Stalled with its cause", |record| holds(record, "Stalled", "registry.invalid"));
    let record = record.await;
    assert_eq!(quarantine(&record), 0, "{record}");
    let status = daemon.done(&["status"]);
    assert!(status.contains("registry.invalid"), "{status}");
    let said = river.ask_serving("support").await;
    assert!(!said.is_empty() && said.iter().all(|said| said.release == first), "{said:?}");

    river.repo.revert(&["HEAD"]);
    river.recorded("it is Ready", |record| holds(record, "Ready", "") && record["candidate"].is_null()).await;
    assert_eq!(river.greets("Hello!").await, first);
}

// R1
#[tokio::test]
async fn a_daemon_that_is_killed_goes_on_where_it_was() {
    let Some(lab) = lab("killed").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;

    let pushed = river.repo.commit_greeting("Ahoy!");
    river.recorded("the roll-out is on its way", |record| record["operation"].is_object()).await;
    daemon.kill();
    let daemon = river.start().await;
    let record = river.settled(&pushed).await;
    river.greets("Ahoy!").await;
    assert_eq!(record["operations"][0]["outcome"], "succeeded");
    assert_eq!(record["operations"].as_array().map(Vec::len), Some(2), "one operation, not two: {record}");

    // A second one follows, and takes over when the first is gone.
    let second = river.start_as("two", "").await;
    let pushed = river.repo.commit_greeting("Two of us!");
    river.settled(&pushed).await;
    let leads = || second.log().contains("\"leading\"");
    assert!(!leads(), "{}", second.log());
    daemon.kill();
    let pushed = river.repo.commit_greeting("Alone!");
    river.settled(&pushed).await;
    river.greets("Alone!").await;
    assert!(leads(), "{}", second.log());
    assert!(holds(&river.record("support").await.expect("a record"), "Ready", ""));
}
