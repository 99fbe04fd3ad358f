//! What commits changed.

use std::collections::BTreeSet;

use backstay::source::{SourceError, Store};

use crate::git::TestRepo;

#[test]
fn changes_are_plain_values_and_a_revert_is_an_inverse() {
    let repo = TestRepo::new();
    let first = repo.commit(&[("agents/a/x", "1\n"), ("shared/s", "s\n")], "first");
    let bad = repo.commit(&[("agents/a/x", "2\n"), ("agents/a/new", "n\n"), ("agents/b/y", "y\n")], "bad");
    let revert = repo.revert(&[&bad]);
    let store = Store::open(&repo.path()).expect("a repository");
    let (did, undid) = (store.changed_paths(&bad).expect("changes"), store.changed_paths(&revert).expect("changes"));
    let paths: Vec<&str> = did.paths.iter().map(|change| &*change.path).collect();
    assert_eq!(paths, ["agents/a/new", "agents/a/x", "agents/b/y"]);
    assert!(did.paths[0].old.is_none() && did.paths[1].old.is_some() && did.complete);
    assert!(undid.is_inverse_of(&did) && did.is_inverse_of(&undid) && !did.is_inverse_of(&did));
    assert_eq!(store.changed_paths(&first).expect("changes").paths.len(), 2, "the first commit made everything");
    let only = store.diff(&first, &bad, &["agents/a"]).expect("changes");
    assert_eq!(only.paths.len(), 2);
    assert_eq!(store.diff(&first, &revert, &[]).expect("changes").paths, []);
    let message = store.commit(&revert).expect("a commit").message;
    assert!(
        message.starts_with("Revert \"bad\"") && message.contains(&format!("This reverts commit {bad}.")),
        "{message}"
    );
}

#[test]
fn a_file_may_become_a_folder_and_a_mode_is_no_change() {
    let repo = TestRepo::new();
    let (blob, other) = (repo.blob(b"x"), repo.blob(b"y"));
    let folder = repo.tree(&[("100644", b"f", other)]);
    let one =
        repo.commit_tree(repo.tree(&[("100644", b"a", blob), ("100644", b"b", blob), ("100644", b"c\xff", blob)]));
    let two = repo.commit_tree(repo.tree(&[("40000", b"a", folder), ("100755", b"b", blob)]));
    let store = Store::open(&repo.path()).expect("a repository");
    let changed = store.diff(&one, &two, &[]).expect("changes");
    let paths: Vec<&str> = changed.paths.iter().map(|change| &*change.path).collect();
    assert_eq!(paths, ["a", "a/f", "c\\xff"]);
}

#[test]
fn the_way_between_two_commits_is_by_first_parents() {
    let repo = TestRepo::new();
    let first = repo.commit(&[("a", "1\n")], "first");
    repo.force("side", &first);
    let side = repo.commit_on("side", &[("s", "s\n")], "side");
    let second = repo.commit(&[("a", "2\n")], "second");
    let merge = repo.merge("side");
    let store = Store::open(&repo.path()).expect("a repository");
    let walk = store.commits_between(&first, &merge, 100).expect("a walk");
    let ids: Vec<_> = walk.commits.iter().map(|commit| commit.id.clone()).collect();
    assert_eq!((ids, walk.reached), (vec![merge.clone(), second.clone()], true));
    let cut = store.commits_between(&first, &merge, 1).expect("a walk");
    assert_eq!((cut.commits.len(), cut.reached), (1, false));
    let since = |old, limit| {
        let commits = store.commits_since(old, &merge, limit).expect("a walk")?;
        Some(commits.into_iter().map(|commit| commit.id).collect::<BTreeSet<_>>())
    };
    let all = BTreeSet::from([merge.clone(), second.clone(), side.clone()]);
    assert_eq!(since(&first, 3), Some(all), "by whatever branch they came");
    assert_eq!(since(&first, 2), None, "they are more");
    assert_eq!(since(&side, 10), Some(BTreeSet::from([merge.clone(), second.clone()])));
    let aside = store.commits_between(&side, &merge, 100).expect("a walk");
    assert_eq!((aside.commits.len(), aside.reached), (3, false), "it is on no first-parent path");
    assert!(store.is_ancestor(&side, &merge).expect("walked") && !store.is_ancestor(&side, &second).expect("walked"));
    assert_eq!(store.merge_base(&side, &second).expect("walked"), Some(first.clone()));
    assert_eq!(store.commit(&merge).expect("a commit").parents, [second.clone(), side.clone()]);
    assert_eq!(store.commit_time(&first).expect("a time").as_second(), 1_790_000_060);
    let nowhere = "12".repeat(20).parse().expect("an id");
    assert_eq!(since(&nowhere, 10).map(|all| all.len()), Some(4), "all there is");
    assert!(matches!(store.commits_since(&merge, &nowhere, 10), Err(SourceError::NoCommit { .. })));
    assert_eq!(store.is_ancestor(&nowhere, &merge), Ok(false));
    assert!(matches!(store.changed_paths(&nowhere), Err(SourceError::NoCommit { .. })));
    let unrelated = repo.commit_on("island", &[("i", "i\n")], "island");
    assert_eq!(store.merge_base(&unrelated, &merge).expect("walked"), None);
}
