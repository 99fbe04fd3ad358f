//! Every shape of a revert that hosts and versions of Git write: what its message says, checked against what it did.

use std::collections::BTreeMap;

use backstay::model::CommitId;
use backstay::record::Evidence::{self, Claimed, KnownRelease, Verified};
use backstay::revert::{History, Step, evidence, named};
use backstay::source::{Changed, CommitInfo, ContentId, PathChange};

const FILE: &str = "agents/support/prompts/system.md";

fn id(n: u32) -> CommitId {
    format!("{n:x}{}", "c".repeat(39)).parse().expect("a commit id")
}

/// A commit on the followed branch that turns the prompt from one text into another.
fn commit(n: u32, message: &str, old: &str, new: &str) -> Step {
    let content = |text: &str| Some(ContentId(text.into()));
    let change = PathChange { path: FILE.to_owned(), old: content(old), new: content(new) };
    let author = "Alice Example <alice@example.com>".to_owned();
    Step {
        info: CommitInfo { id: id(n), parents: vec![], author, message: message.to_owned() },
        changed: Changed { paths: vec![change], complete: true },
    }
}

/// What `back` on top of `before` is taken for; both the newest first.
fn taken_for(before: &[Step], back: &[Step]) -> (Evidence, Vec<CommitId>) {
    let all = || back.iter().chain(before);
    let earlier: Vec<_> = all().map(|step| step.info.clone()).collect();
    let mut changed = BTreeMap::new();
    for step in back {
        for id in named(&step.info.message).among(&earlier) {
            let step = all().find(|step| step.info.id == id).expect("a commit that was named is there");
            changed.insert(id, step.changed.clone());
        }
    }
    evidence(&History { steps: back.to_vec(), earlier, changed }, &["agents/support/".to_owned()])
}

#[test]
fn the_button_of_github_whatever_it_is_set_to() {
    let reverts = "Reverts acme/agents#11";
    for (shipped, back) in [
        // Squash and merge.
        ("Ship it (#11)".to_owned(), format!("Revert \"Ship it\" (#12)\n\n{reverts}")),
        // Create a merge commit: the revert itself is not on the path of first parents.
        (
            "Merge pull request #11 from alice/topic\n\nShip it".to_owned(),
            "Merge pull request #12 from acme/revert-11-topic\n\nRevert \"Ship it\"".to_owned(),
        ),
        // Rebase and merge: the numbers are lost.
        ("Ship it".to_owned(), format!("Revert \"Ship it\"\n\n{reverts}\n\nCo-authored-by: Bob <bob@example.com>")),
        ("Ship it".to_owned(), format!("Revert \"Ship it\"\n\nThis reverts commit {}.", id(1))),
    ] {
        let before = [commit(2, "Something else (#9)", "x", "y"), commit(1, &shipped, "old", "new")];
        assert_eq!(taken_for(&before, &[commit(3, &back, "new", "old")]), (Verified, vec![id(1)]), "{back}");
        assert_eq!(taken_for(&before, &[commit(3, &back, "new", "other")]), (Claimed, vec![id(1)]), "{back}");
    }
}

#[test]
fn the_button_of_gitlab() {
    let merged = "Merge branch 'topic' into 'main'\n\nShip it\n\nSee merge request acme/agents!11";
    for (shipped, back) in [
        (merged, "Revert \"Merge branch 'topic' into 'main'\"\n\nThis reverts merge request !11".to_owned()),
        (
            merged,
            "Merge branch 'revert-1cccccc' into 'main'\n\nRevert \"Ship it\"\n\nSee merge request acme/agents!12"
                .to_owned(),
        ),
        ("Ship it", format!("Revert \"Ship it\"\n\nThis reverts commit {}", id(1))),
        // A squashed revert, with both said.
        (
            "Ship it",
            format!("Revert \"Ship it\"\n\n\nThis reverts commit {}\n\nSee merge request acme/agents!13", id(1)),
        ),
    ] {
        let before = [commit(1, shipped, "old", "new")];
        assert_eq!(taken_for(&before, &[commit(2, &back, "new", "old")]), (Verified, vec![id(1)]), "{back}");
    }
}

#[test]
fn a_revert_of_a_revert_by_any_git() {
    let before = [
        commit(2, &format!("Revert \"Ship it\"\n\nThis reverts commit {}.", id(1)), "new", "old"),
        commit(1, "Ship it", "old", "new"),
    ];
    for back in [
        format!("Reapply \"Ship it\"\n\nThis reverts commit {}.", id(2)),
        format!("Revert \"Revert \"Ship it\"\"\n\nThis reverts commit {}.", id(2)),
        // Without its body: the subject of the revert is what it takes back, not the commit that it brings again.
        "Reapply \"Ship it\"".to_owned(),
        "Revert \"Revert \"Ship it\"\"".to_owned(),
    ] {
        assert_eq!(taken_for(&before, &[commit(3, &back, "old", "new")]), (Verified, vec![id(2)]), "{back}");
    }
    // Off and on in one push: two reverts on the way, which together take nothing back.
    let on = commit(3, &format!("Reapply \"Ship it\"\n\nThis reverts commit {}.", id(2)), "old", "new");
    let off = commit(4, &format!("Revert \"Reapply \"Ship it\"\"\n\nThis reverts commit {}.", id(3)), "new", "old");
    assert_eq!(taken_for(&before, &[off, on]).0, Verified);
}

#[test]
fn a_message_alone_is_no_evidence() {
    let before = [commit(1, "Ship it", "old", "new")];
    let says = format!("Revert \"Ship it\"\n\nThis reverts commit {}.", id(1));
    assert_eq!(taken_for(&before, &[commit(2, &says, "new", "evil")]).0, Claimed);
    assert_eq!(taken_for(&before, &[commit(2, "Say hello again", "new", "old")]), (KnownRelease, vec![]));
    let unknown = format!("Revert \"Other\"\n\nThis reverts commit {}.", id(9));
    assert_eq!(taken_for(&before, &[commit(2, &unknown, "new", "old")]), (KnownRelease, vec![]), "it names nobody");
}
