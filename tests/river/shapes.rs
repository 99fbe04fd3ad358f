//! Every shape in which people take something back.

use serde_json::{Value, json};

use crate::daemon::{Repo, River, holds, until};
use crate::lab::lab;

/// The commits that a cause names, sorted.
fn of(cause: &Value) -> Vec<String> {
    let list = cause["revert"]["of"].as_array().cloned().unwrap_or_default();
    let mut of: Vec<_> = list.iter().map(|commit| commit.as_str().expect("text").to_owned()).collect();
    of.sort();
    of
}

#[tokio::test]
async fn every_shape_of_a_revert_is_known() {
    let Some(lab) = lab("shapes").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let repo = &river.repo;
    let comes_to = async |commit: &str, greeting: &str, evidence: &str, named: &[&String]| {
        river.settled(commit).await;
        let release = river.greets(greeting).await;
        let cause = daemon.newest()["cause"].take();
        let mut named: Vec<String> = named.iter().map(|commit| (*commit).clone()).collect();
        named.sort();
        assert_eq!((&cause["revert"]["evidence"], of(&cause)), (&json!(evidence), named), "{greeting}: {cause}");
        release
    };

    let one = repo.commit_greeting("One!");
    river.settled(&one).await;
    let second = river.greets("One!").await;
    let reverted = repo.revert(&["HEAD"]);
    assert_eq!(comes_to(&reverted, "Hello!", "Verified", &[&one]).await, first);

    // The revert of a revert.
    let again = repo.revert(&["HEAD"]);
    assert_eq!(comes_to(&again, "One!", "Verified", &[&reverted]).await, second);

    // A merge, taken back against its first parent.
    repo.git(&["checkout", "-q", "-b", "topic"]);
    repo.greet("Merged!");
    repo.git(&["commit", "-q", "-a", "-m", "Greet otherwise"]);
    repo.git(&["checkout", "-q", "main"]);
    repo.git(&["merge", "-q", "--no-ff", "-m", "Merge branch 'topic'", "topic"]);
    let merge = repo.push();
    river.settled(&merge).await;
    river.greets("Merged!").await;
    let unmerged = repo.revert(&["-m", "1", "HEAD"]);
    assert_eq!(comes_to(&unmerged, "One!", "Verified", &[&merge]).await, second);

    // Two commits in one.
    let three = repo.commit_greeting("Three!");
    let four = repo.commit_greeting("Four!");
    river.settled(&four).await;
    river.greets("Four!").await;
    repo.git(&["revert", "--no-commit", "HEAD", "HEAD~1"]);
    let message = format!("Take two back\n\nThis reverts commit {four}.\nThis reverts commit {three}.");
    let squashed = repo.commit(&message);
    assert_eq!(comes_to(&squashed, "One!", "Verified", &[&three, &four]).await, second);

    // The button of GitHub names a pull request, not a commit.
    let five = repo.commit_greeting("Five!");
    river.settled(&five).await;
    repo.git(&["revert", "--no-commit", "HEAD"]);
    let pressed = repo.commit("Revert \"Greet with Five!\" (#12)\n\nReverts example/agents#11");
    river.settled(&pressed).await;
    assert_eq!(river.greets("One!").await, second);
    let cause = daemon.newest()["cause"].take();
    assert!(cause["revert"].is_object(), "{cause}");

    // By hand, in other words.
    repo.greet("Hello!");
    let by_hand = repo.commit("Say hello again");
    assert_eq!(comes_to(&by_hand, "Hello!", "KnownRelease", &[]).await, first);

    // A reset needs a person's word.
    let six = repo.commit_greeting("Six!");
    river.settled(&six).await;
    river.greets("Six!").await;
    repo.git(&["reset", "-q", "--hard", "HEAD~1"]);
    repo.git(&["push", "-q", "--force", "origin", "main"]);
    until("the rewind is refused", async || {
        river.environment().await.filter(|record| record["refused"]["to"] == by_hand)
    })
    .await;
    let status = daemon.done(&["status"]);
    assert!(status.contains("is not followed") && status.contains(&by_hand[..8]), "{status}");
    river.greets("Six!").await;
    assert_eq!(daemon.run(&["sync", "--accept-rewind", &one]).code, 3, "another commit than the one it was moved to");
    daemon.done(&["sync", "--accept-rewind", &by_hand]);
    assert_eq!(comes_to(&by_hand, "Hello!", "KnownRelease", &[]).await, first);
    until("the environment is as it should be", async || {
        let ready = |record: &Value| holds(record, "Ready", "");
        river.environment().await.filter(|record| record["refused"].is_null() && ready(record))
    })
    .await;
}
