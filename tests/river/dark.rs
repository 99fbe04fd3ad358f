//! What a person can still do when Git is away, its mirror is gone, and the daemon has just started.

use serde_json::Value;

use crate::daemon::{Repo, River, condition, holds, until};
use crate::lab::lab;

// R8
#[tokio::test]
async fn a_rollback_and_a_suspension_need_no_git() {
    let Some(lab) = lab("dark").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let bad = river.repo.commit_greeting("Ahoy!");
    river.settled(&bad).await;
    river.greets("Ahoy!").await;
    daemon.kill();

    // Another folder for its state is a mirror that was never made.
    let (here, away) = (river.repo.bare(), river.repo.parent().join("away.git"));
    std::fs::rename(&here, &away).expect("Git is away");
    let daemon = river.spawn("two", "");
    until("the record says that Git cannot be read", async || {
        river
            .environment()
            .await
            .filter(|record| condition(record, "Ready").is_some_and(|ready| ready["reason"] == "NoRepository"))
    })
    .await;
    daemon.done(&["rollback", "support", "--reason", "three in the morning"]);
    assert_eq!(river.greets("Hello!").await, first);
    let status = daemon.done(&["status"]);
    assert!(status.contains("Git cannot be read") && status.contains(&first), "{status}");
    daemon.done(&["suspend", "support", "--reason", "let me look"]);
    river.recorded("it is suspended", |record| holds(record, "Suspended", "")).await;
    daemon.done(&["resume", "support"]);

    std::fs::rename(&away, &here).expect("Git is back");
    let agrees = |record: &Value| holds(record, "Ready", "") && record["differs"].is_null();
    let remote = async || river.repo.git(&["ls-remote", "origin", "main"]);
    until("Git is told", async || (!remote().await.starts_with(&bad)).then_some(())).await;
    river.recorded("Git agrees", |record| agrees(record) && condition(record, "GitBehind").is_none()).await;
    river.repo.git(&["pull", "-q", "--ff-only", "origin", "main"]);
    let message = river.repo.git(&["log", "-1", "--format=%B"]);
    assert!(message.contains(&format!("This reverts commit {bad}")), "{message}");
    assert_eq!(river.greets("Hello!").await, first);
}
