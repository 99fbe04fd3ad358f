//! What goes wrong: a bad commit, a release that fails, one that cannot start, a daemon that dies, two of them.

use serde_json::Value;

use crate::daemon::{Repo, River, holds, until};
use crate::lab::lab;

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
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;

    let file = "agents/support/agent.yaml";
    river.repo.edit(file, "  prompts:\n", "  promts:\n");
    let line = 1 + river.repo.read(file).lines().position(|line| line == "  promts:").expect("the line");
    river.repo.commit("Mistype");
    let at = format!("{file}:{line}");
    let status = until("the status names the place", async || {
        Some(daemon.done(&["status"])).filter(|status| status.contains(&at))
    });
    let status = status.await;
    assert!(status.contains("promts"), "{status}");
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    assert_eq!(river.greets("Hello!").await, first);

    river.repo.edit(file, "  promts:\n", "  prompts:\n");
    river.repo.greet("Ahoy!");
    let good = river.repo.commit("Mend it");
    river.settled(&good).await;
    river.greets("Ahoy!").await;
    let status = daemon.done(&["status", "--exit-code"]);
    assert!(!status.contains(&at), "{status}");
}

#[tokio::test]
async fn a_release_that_crashes_is_taken_back_and_not_tried_again_unasked() {
    let Some(lab) = lab("crash").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;

    river.repo.edit(OVERLAY, "progressDeadline: 60s\n", "progressDeadline: 10s\nconfig: {demo: {crash: true}}\n");
    river.repo.greet("Crash!");
    river.repo.commit("Crash at start");
    let back = |record: &Value| quarantine(record) == 1 && record["operation"].is_null();
    let record = river.recorded("it is back and in quarantine", |record| back(record)).await;
    assert!(record["stable"]["release"].as_str().is_some_and(|id| id.contains(&first[2..])), "{record}");
    assert_eq!(river.greets("Hello!").await, first);
    let status = daemon.run(&["status", "--exit-code"]);
    assert_eq!(status.code, 1, "Git asks for something else: {status:?}");
    let failed = record["operations"].as_array().expect("operations").len();

    // It is left alone until somebody asks, and then it fails again.
    daemon.done(&["retry", "support", "--reason", "once more"]);
    let record = river.recorded("it was tried again", |record| {
        back(record) && record["operations"].as_array().is_some_and(|operations| operations.len() > failed)
    });
    let record = record.await;
    let causes: Vec<_> = record["operations"].as_array().expect("a list").iter().map(|one| &one["cause"]).collect();
    assert!(causes.iter().any(|cause| cause["retry"].is_object()), "{causes:?}");
    assert_eq!(river.greets("Hello!").await, first);

    river.repo.revert(&["HEAD"]);
    let ready = |record: &Value| holds(record, "Ready", "") && record["differs"].is_null();
    river.recorded("Git agrees again", |record| ready(record)).await;
    assert_eq!(river.greets("Hello!").await, first);
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
