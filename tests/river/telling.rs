//! Git is told of what was taken back, over each way to it, and what it refuses is no success.

use crate::daemon::{Repo, River, Server, holds, until};
use crate::lab::{Lab, lab};

/// Rolls back, and awaits the commit that says so.
async fn a_rollback_is_told(lab: Lab, over: impl FnOnce(&Repo) -> (Server, String)) {
    let repo = Repo::small();
    let (_server, source) = over(&repo);
    let river = River::with_source(lab, repo, source).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let north = river.repo.commit_greeting("Moin!");
    river.settled(&north).await;
    river.greets("Moin!").await;

    daemon.done(&["rollback", "support", "--reason", "too northern"]);
    assert_eq!(river.greets("Hello!").await, first);
    let told = async || Some(river.repo.git(&["ls-remote", "origin", "main"])).filter(|now| !now.starts_with(&north));
    until("Git is told", told).await;
    river.repo.git(&["pull", "-q", "--ff-only", "origin", "main"]);
    let message = river.repo.git(&["log", "-1", "--format=%an%n%B"]);
    assert!(message.starts_with("Backstay\n"), "{message}");
    assert!(message.contains(&format!("This reverts commit {north}")) && message.contains("too northern"), "{message}");
    assert_eq!(river.repo.git(&["diff", "--stat", "HEAD~2", "HEAD"]), "", "what was there before is there again");
    let agrees = |record: &serde_json::Value| holds(record, "Ready", "") && record["differs"].is_null();
    river.recorded("Git agrees", agrees).await;
    assert_eq!(river.greets("Hello!").await, first);
    assert_eq!(river.repo.git(&["rev-list", "--count", &format!("{north}..origin/main")]), "1", "told once");
}

// D9
#[tokio::test]
async fn a_rollback_is_told_over_http() {
    let Some(lab) = lab("told-http").await else { return };
    let over = |repo: &Repo| {
        let server = Server::http(repo.parent());
        let source = server.http_source("1s");
        (server, source)
    };
    a_rollback_is_told(lab, over).await;
}

// D9
#[tokio::test]
async fn a_rollback_is_told_over_ssh() {
    let Some(lab) = lab("told-ssh").await else { return };
    let over = |repo: &Repo| {
        let server = Server::ssh();
        let source = server.ssh_source(repo, "host");
        (server, source)
    };
    a_rollback_is_told(lab, over).await;
}

// D9
#[tokio::test]
async fn a_revert_that_the_server_refuses_is_an_error() {
    let Some(lab) = lab("refused").await else { return };
    let repo = Repo::small();
    let server = Server::http(repo.parent());
    let source = server.http_source("1s");
    let river = River::with_source(lab, repo, source).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let pushed = river.repo.commit_greeting("Moin!");
    river.settled(&pushed).await;

    let revert = || {
        let who = "Alice Example <alice@example.com>";
        daemon.run(&["revert", "support", "-e", "development", "--author", who, "--reason", "too northern"])
    };
    river.repo.hook("pre-receive", "echo 'nobody pushes on a Friday' >&2\nexit 1");
    let ran = revert();
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.out.is_empty() && ran.err.contains("nobody pushes on a Friday"), "{ran:?}");
    assert!(ran.err.contains("hint:"), "the way out is named: {ran:?}");
    assert!(river.repo.git(&["ls-remote", "origin", "main"]).starts_with(&pushed), "nothing was pushed");
    river.greets("Moin!").await;

    // A rollback moves the target all the same, and says that Git was not told.
    daemon.done(&["rollback", "support", "--reason", "at once"]);
    assert_eq!(river.greets("Hello!").await, first);
    let behind = |record: &serde_json::Value| holds(record, "GitBehind", "nobody pushes on a Friday");
    river.recorded("it says why Git is not told", behind).await;

    river.repo.hook("pre-receive", "exit 0");
    let ran = revert();
    assert!(ran.code == 0, "{ran:?}");
    let agrees = |record: &serde_json::Value| holds(record, "Ready", "") && record["differs"].is_null();
    river.recorded("Git agrees", agrees).await;
    assert_eq!(river.greets("Hello!").await, first);
}
