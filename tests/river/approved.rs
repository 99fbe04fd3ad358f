//! Approvals: a release waits for somebody who did not write it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::daemon::{Repo, River, condition, until};
use crate::lab::lab;

const OVERLAY: &str = "environments/development/support.yaml";
const ENVIRONMENT: &str = "environments/development.yaml";
/// As whom the lab's administrator commits, who approves.
const CAROL: &str = "Carol Example <carol@example.com>";

/// Waits until the release of a commit waits for somebody to agree.
async fn waits(river: &River, commit: &str) {
    let asks = |record: &Value| {
        let asks = condition(record, "Progressing").is_some_and(|found| found.to_string().contains("than the author"));
        let here = record["candidate"]["revision"].as_str().is_some_and(|revision| revision.ends_with(commit));
        here && asks
    };
    river.recorded("it waits for somebody to agree", asks).await;
}

/// Pushes so many commits that change nothing.
fn pile_up(repo: &Repo, count: usize) {
    let mut text = String::new();
    for number in 0..count {
        let from = if number == 0 { "from refs/heads/main^0\n" } else { "" };
        text += &format!("commit refs/heads/main\ncommitter {CAROL} 1790000000 +0000\ndata 1\n.\n{from}\n");
    }
    let mut command = Command::new("git");
    command.args(["fast-import", "--quiet"]).current_dir(repo.work()).stdin(Stdio::piped());
    let mut child = command.spawn().expect("git runs");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());
    repo.push();
}

#[tokio::test]
async fn who_wrote_a_part_of_it_does_not_approve_it() {
    let Some(lab) = lab("approved").await else { return };
    let repo = Repo::small();
    repo.edit(ENVIRONMENT, "images: tags\n", "images: tags\n  approvals: {required: 1}\n");
    let steps = "
rollout:
  strategy: {canary: {steps: [{pause: {}}, {weight: 50, for: 1s}]}}
  rollback: {bake: 1s, cooldown: 0s}
";
    repo.write(OVERLAY, &format!("{}{steps}", repo.read(OVERLAY).trim_end()));
    repo.commit("Ask somebody first");
    let river = River::new(lab, repo).await;
    let daemon = river.start_as("one", &format!("person = [{{ username = \"admin\", git = \"{CAROL}\" }}]")).await;
    river.settled(&river.repo.head()).await;

    // Alice wrote it, and Carol agrees.
    let alices = river.repo.commit_greeting("Moin!");
    waits(&river, &alices).await;
    daemon.done(&["promote", "support"]);
    let paused = |record: &Value| {
        condition(record, "Progressing").is_some_and(|found| found.to_string().contains("backstay promote"))
            && !condition(record, "Progressing").is_some_and(|found| found.to_string().contains("than the author"))
    };
    river.recorded("its first step waits for a person", paused).await;
    // Nobody asks it anything, which promotes nothing: a person does, step by step.
    until("it is stable", async || {
        let record = river.record("support").await?;
        if record["operation"].is_null() {
            return record["stable"]["revision"].as_str()?.ends_with(&alices).then_some(());
        }
        // Not while a step begins.
        daemon.run(&["promote", "support"]);
        None
    })
    .await;

    // Carol wrote it on a branch, and Alice merged that: Carol does not agree with herself.
    let repo = &river.repo;
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.greet("Servus!");
    repo.git(&["commit", "-q", "-a", "--author", CAROL, "-m", "Greet as in the south"]);
    repo.git(&["checkout", "-q", "main"]);
    repo.write("NOTES.md", "Alice looks after it.\n");
    repo.commit("Say who looks after it");
    repo.git(&["merge", "-q", "--no-ff", "-m", "Take the south in", "side"]);
    let merged = repo.push();
    waits(&river, &merged).await;
    let refused = daemon.run(&["promote", "support"]);
    assert!(refused.code != 0 && refused.err.contains("somebody else must agree"), "{refused:?}");
    let record = river.record("support").await.expect("a record");
    assert!(record["stable"]["revision"].as_str().is_some_and(|stable| stable.ends_with(&alices)), "{record}");

    // Who wrote the next one cannot be told any more: nobody agrees to that.
    pile_up(repo, 10_001);
    let last = repo.commit_greeting("Ahoy!");
    until("the commit is seen", async || {
        river.environment().await.filter(|record| record["accepted"].to_string().contains(&last))
    })
    .await;
    daemon.done(&["abort", "support", "--reason", "it is another one that Git asks for"]);
    let unknown = |record: &Value| {
        condition(record, "Stalled").is_some_and(|found| found.to_string().contains("authors are not known"))
    };
    let record = river.recorded("it is held", unknown).await;
    assert!(record["stable"]["revision"].as_str().is_some_and(|stable| stable.ends_with(&alices)), "{record}");
    let status = daemon.done(&["status", "support"]);
    assert!(status.contains("authors are not known"), "{status}");
}
