//! Git is told: what ended stands beside its commit, and what is missing for a pull request is said.

use serde_json::Value;

use crate::daemon::{Repo, River, holds, until};
use crate::lab::lab;

/// The operations that stand beside a commit at the remote.
fn beside(repo: &Repo, commit: &str) -> Vec<Value> {
    let bare = repo.bare();
    let bare = bare.to_str().expect("a path");
    let text = repo.git(&["--git-dir", bare, "log", "-1", "--notes=backstay", "--format=%N", commit]);
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn each_operation_stands_beside_the_commit_that_it_deployed() {
    let repo = Repo::small();
    let source = format!("url = \"{}\"\ninterval = \"1s\"\nnotes = true\n", repo.bare().display());
    let river = River::with_source(lab("notes").await, repo, source).await;
    let daemon = river.start().await;
    let first = river.repo.head();
    river.settled(&first).await;
    let north = river.repo.commit_greeting("Moin!");
    river.settled(&north).await;
    let one = |commit: String| {
        let repo = &river.repo;
        async move || beside(repo, &commit).first().cloned()
    };
    let line = until("it stands beside its commit", one(north.clone())).await;
    assert_eq!(
        (&line["agent"], &line["outcome"], &line["kind"]),
        (&"support".into(), &"succeeded".into(), &"Release".into())
    );
    assert!(line["revision"].to_string().contains(&north), "{line}");
    until("so does the first", one(first.clone())).await;

    // A daemon that begins anew writes nothing twice.
    daemon.kill();
    let _daemon = river.start_as("two", "").await;
    let south = river.repo.commit_greeting("Servus!");
    river.settled(&south).await;
    until("it goes on", one(south.clone())).await;
    for commit in [&first, &north, &south] {
        assert_eq!(beside(&river.repo, commit).len(), 1, "once");
    }
}

#[tokio::test]
async fn a_pull_request_that_nobody_can_open_is_a_condition_with_the_way_out() {
    let river = River::new(lab("no-forge").await, Repo::small()).await;
    let path = "environments/development.yaml";
    let file = river.repo.read(path);
    river.repo.write(path, &format!("{}  writeBack: pullRequest\n", file.trim_end().to_owned() + "\n"));
    river.repo.commit("By pull request");
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let north = river.repo.commit_greeting("Moin!");
    river.settled(&north).await;
    daemon.done(&["rollback", "support", "--reason", "too northern"]);
    assert_eq!(river.greets("Hello!").await, first, "the target moves all the same");
    let behind = |record: &Value| holds(record, "GitBehind", "[source.pull_request]");
    river.recorded("it says what to do", behind).await;
    assert!(
        river.repo.git(&["ls-remote", "origin"]).lines().all(|line| !line.contains("backstay/")),
        "nothing is pushed"
    );
}
