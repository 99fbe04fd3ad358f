//! D9: pushes that are refused, raced, or whose answer is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay::model::{CommitId, Timestamp};
use backstay::source::{Edit, Mirror, PushError, SourceError};

use crate::git::{Answer, GitServer, TestRepo};
use crate::{config, main_and_tags, mirror};

/// A commit of ours on top of `base`, made in the mirror only.
fn ours(mirror: &Mirror, base: &CommitId) -> CommitId {
    let mut draft = mirror.store().draft(base).expect("a draft");
    draft.edit(&[Edit::Write { path: "ours.txt".to_owned(), bytes: b"ours\n".to_vec() }]).expect("an edit");
    let person = "Backstay <backstay@example.com>".parse().expect("a person");
    draft.commit(&person, &person, Timestamp::UNIX_EPOCH, "Ours\n").expect("a commit")
}

/// The same for a folder and for HTTP.
fn both(test: impl Fn(&TestRepo, &Mirror)) {
    let repo = TestRepo::with_one_commit();
    let local = mirror(config(repo.url()));
    local.poll(&main_and_tags()).expect("a poll");
    test(&repo, &local);

    let repo = TestRepo::with_one_commit();
    let server = GitServer::http(repo.parent());
    let remote = mirror(config(server.url("agents.git")));
    remote.poll(&main_and_tags()).expect("a poll");
    test(&repo, &remote);
}

#[test]
fn a_push_arrives_and_a_second_one_is_known() {
    both(|repo, mirror| {
        let base = repo.id("main");
        let commit = ours(mirror, &base);
        mirror.push(&commit, "main", Some(&base)).expect("a push");
        assert_eq!(repo.id("main"), commit);
        assert_eq!(repo.git(&["show", "main:ours.txt"]), "ours");
        mirror.push(&commit, "main", Some(&base)).expect("it is there already");
        mirror.push(&commit, "backstay/revert-a-1", None).expect("a new branch");
        assert_eq!(repo.id("backstay/revert-a-1"), commit);
        let polled = mirror.poll(&main_and_tags()).expect("a poll");
        assert_eq!(polled.tips.get("refs/heads/main"), Some(&commit));
        repo.git(&["fsck", "--strict"]);
    });
}

#[test]
fn a_branch_that_moved_is_never_overwritten() {
    both(|repo, mirror| {
        let base = repo.id("main");
        let commit = ours(mirror, &base);
        let theirs = repo.commit(&[("a.txt", "theirs\n")], "a person was quicker");
        let moved = mirror.push(&commit, "main", Some(&base)).expect_err("moved");
        assert!(matches!(&moved, PushError::Moved { at: Some(at), .. } if *at == theirs), "{moved:?}");
        assert_eq!(repo.id("main"), theirs);
        // Rewound below what was looked at: our commit would bring back what a person took away.
        let above = repo.commit(&[("a.txt", "more\n")], "more");
        mirror.poll(&main_and_tags()).expect("a poll");
        let commit = ours(mirror, &above);
        repo.force("main", &theirs);
        assert!(matches!(mirror.push(&commit, "main", Some(&above)), Err(PushError::Moved { .. })));
        assert_eq!(repo.id("main"), theirs);
        assert!(matches!(mirror.push(&commit, "main", None), Err(PushError::Moved { .. })), "it must not be there");
        assert!(matches!(mirror.push(&commit, "gone", Some(&above)), Err(PushError::Moved { at: None, .. })));
    });
}

#[test]
fn a_commit_that_does_not_descend_is_not_pushed() {
    both(|repo, mirror| {
        let base = repo.id("main");
        let sideways = ours(mirror, &base);
        let tip = repo.commit(&[("a.txt", "two\n")], "second");
        mirror.poll(&main_and_tags()).expect("a poll");
        assert!(matches!(mirror.push(&sideways, "main", Some(&tip)), Err(PushError::Moved { .. })));
        assert_eq!(repo.id("main"), tip);
    });
}

#[test]
fn a_hooks_refusal_is_an_error_with_its_words() {
    let repo = TestRepo::with_one_commit();
    let base = repo.id("main");
    let server = GitServer::http(repo.parent());
    let remote = mirror(config(server.url("agents.git")));
    remote.poll(&main_and_tags()).expect("a poll");
    let commit = ours(&remote, &base);
    for hook in ["pre-receive", "update"] {
        repo.hook(hook, "echo 'only on Tuesdays' >&2; printf '\\033[31m' >&2; exit 1");
        let error = remote.push(&commit, "main", Some(&base)).expect_err("refused");
        let PushError::Refused { message, .. } = &error else { panic!("{error:?}") };
        assert!(message.contains("only on Tuesdays") && !message.contains('\x1b'), "{message:?}");
        assert!(error.hint().is_some());
        assert_eq!(repo.id("main"), base);

        let local = mirror(config(repo.url()));
        local.poll(&main_and_tags()).expect("a poll");
        let error = local.push(&ours(&local, &base), "main", Some(&base)).expect_err("a hook stands there");
        assert!(matches!(&error, PushError::Refused { message, .. } if message.contains(hook)), "{error:?}");
        std::fs::remove_file(repo.path().join("hooks").join(hook)).expect("the hook");
    }
    remote.push(&commit, "main", Some(&base)).expect("no hook any more");
}

#[test]
fn a_lost_answer_is_known_by_the_next_look() {
    let repo = TestRepo::with_one_commit();
    let base = repo.id("main");
    let lossy = Arc::new(AtomicBool::new(false));
    let losing = Arc::clone(&lossy);
    let server = GitServer::http_with(repo.parent(), move |request| {
        if request.method == "POST" && losing.load(Ordering::Acquire) { Answer::Lose } else { Answer::Serve }
    });
    let mirror = mirror(config(server.url("agents.git")));
    mirror.poll(&main_and_tags()).expect("a poll");
    let commit = ours(&mirror, &base);
    lossy.store(true, Ordering::Release);
    let error = mirror.push(&commit, "main", Some(&base)).expect_err("no answer");
    assert!(matches!(error, PushError::Source(_)), "{error:?}");
    assert_eq!(repo.id("main"), commit, "it happened");
    lossy.store(false, Ordering::Release);
    let polled = mirror.poll(&main_and_tags()).expect("a poll");
    assert_eq!(polled.tips.get("refs/heads/main"), Some(&commit));
    mirror.push(&commit, "main", Some(&base)).expect("done already");
}

#[test]
fn a_folder_with_files_checked_out_is_not_pushed_over() {
    let repo = TestRepo::with_one_commit();
    let base = repo.id("main");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clone = folder.path().join("clone");
    repo.plain(&["clone", "-q", repo.path().to_str().expect("a path"), clone.to_str().expect("a path")]);
    let url = clone.to_str().expect("a path").parse().expect("an address");
    let mirror = mirror(config(url));
    mirror.poll(&main_and_tags()).expect("a poll");
    let commit = ours(&mirror, &base);
    assert!(matches!(mirror.push(&commit, "main", Some(&base)), Err(PushError::Refused { .. })));
    mirror.push(&commit, "other", None).expect("another branch is free");
    std::fs::remove_dir_all(&clone).expect("the clone");
    let gone = mirror.push(&commit, "main", Some(&base)).expect_err("gone");
    assert!(matches!(gone, PushError::Source(SourceError::NoRepository { .. })), "{gone:?}");
}
