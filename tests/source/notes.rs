//! Lines beside commits: `git log --notes=backstay` shows them, and those of others stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use backstay::model::{CommitId, Timestamp};
use backstay::source::{Mirror, Person, PushError, SourceError};

use crate::git::{Answer, GitServer, Request, TestRepo};
use crate::{TestMirror, config, main_and_tags, mirror};

fn add(mirror: &Mirror, lines: &[(&CommitId, &str)]) -> Result<usize, PushError> {
    let by: Person = "Backstay <backstay@example.com>".parse().expect("a person");
    let lines: Vec<_> = lines.iter().map(|(commit, line)| ((*commit).clone(), (*line).to_owned())).collect();
    mirror.add_notes(&lines, &by, Timestamp::UNIX_EPOCH)
}

/// What `git log` shows beside a commit.
fn shown(repo: &TestRepo, commit: &CommitId) -> String {
    repo.git(&["log", "-1", "--notes=backstay", "--format=%N", commit.as_str()])
}

/// A person writes into the same notes.
fn by_hand(repo: &TestRepo, commit: &CommitId, line: &str) {
    repo.git(&["notes", "--ref=backstay", "append", "-m", line, commit.as_str()]);
}

fn polled(url: backstay::source::RemoteUrl) -> TestMirror {
    let mirror = mirror(config(url));
    mirror.poll(&main_and_tags()).expect("a poll");
    mirror
}

fn is_push(request: &Request) -> bool {
    request.method == "POST" && request.path.ends_with("git-receive-pack")
}

#[test]
fn lines_are_added_and_none_twice() {
    let over_http = |repo: &TestRepo| {
        let server = GitServer::http(repo.parent());
        (polled(server.url("agents.git")), Some(server))
    };
    for remote in [(|repo: &TestRepo| (polled(repo.url()), None)) as fn(&TestRepo) -> _, over_http] {
        let repo = TestRepo::with_one_commit();
        let first = repo.id("main");
        let second = repo.commit(&[("a.txt", "two\n")], "second");
        let (mirror, _server) = remote(&repo);
        assert_eq!(add(&mirror, &[(&first, r#"{"id":1}"#), (&second, r#"{"id":2}"#)]).expect("notes"), 2);
        assert_eq!((shown(&repo, &first), shown(&repo, &second)), (r#"{"id":1}"#.into(), r#"{"id":2}"#.into()));
        assert_eq!(add(&mirror, &[(&first, r#"{"id":1}"#), (&first, r#"{"id":3}"#)]).expect("notes"), 1);
        by_hand(&repo, &first, "looked at by Alice");
        assert_eq!(add(&mirror, &[(&first, r#"{"id":4}"#)]).expect("notes"), 1);
        let lines = shown(&repo, &first);
        let lines: Vec<_> = lines.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, [r#"{"id":1}"#, r#"{"id":3}"#, "looked at by Alice", r#"{"id":4}"#]);
        // Another daemon, which knows nothing of this one.
        let tip = repo.git(&["rev-parse", "refs/notes/backstay"]);
        let (other, _server) = remote(&repo);
        assert_eq!(add(&other, &[(&first, r#"{"id":4}"#)]).expect("notes"), 0);
        assert_eq!(repo.git(&["rev-parse", "refs/notes/backstay"]), tip, "nothing new is nothing pushed");
        assert_eq!(repo.id("main"), second, "the branch is as it was");
        let polled = mirror.poll(&main_and_tags()).expect("a poll");
        assert_eq!(polled.tips.len(), 1, "notes are no branch: {polled:?}");
        repo.git(&["fsck", "--strict"]);
    }
}

#[test]
fn who_writes_at_the_same_time_is_kept() {
    let repo = Arc::new(TestRepo::with_one_commit());
    let first = repo.id("main");
    let (quicker, commit, once) = (Arc::clone(&repo), first.clone(), AtomicBool::new(true));
    let server = GitServer::http_with(repo.parent(), move |request| {
        if is_push(request) && once.swap(false, Ordering::AcqRel) {
            by_hand(&quicker, &commit, "looked at by Alice");
        }
        Answer::Serve
    });
    let mirror = polled(server.url("agents.git"));
    assert_eq!(add(&mirror, &[(&first, r#"{"id":1}"#)]).expect("notes"), 1);
    assert_eq!(shown(&repo, &first), "looked at by Alice\n{\"id\":1}");
}

#[test]
fn notes_that_never_rest_are_left_after_five_looks() {
    let repo = Arc::new(TestRepo::with_one_commit());
    let first = repo.id("main");
    let (quicker, commit, times) = (Arc::clone(&repo), first.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&times);
    let server = GitServer::http_with(repo.parent(), move |request| {
        if is_push(request) {
            by_hand(&quicker, &commit, &format!("Alice, {}", count.fetch_add(1, Ordering::AcqRel)));
        }
        Answer::Serve
    });
    let mirror = polled(server.url("agents.git"));
    let error = add(&mirror, &[(&first, r#"{"id":1}"#)]).expect_err("restless");
    assert!(matches!(&error, PushError::Moved { .. }), "{error:?}");
    assert_eq!(times.load(Ordering::Acquire), 5);
    assert!(shown(&repo, &first).contains("Alice, 4") && !shown(&repo, &first).contains("id"));
}

#[test]
fn a_refusal_and_a_lost_answer_are_errors_that_do_no_harm() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let lossy = Arc::new(AtomicBool::new(false));
    let losing = Arc::clone(&lossy);
    let server = GitServer::http_with(repo.parent(), move |request| {
        if is_push(request) && losing.load(Ordering::Acquire) { Answer::Lose } else { Answer::Serve }
    });
    let mirror = polled(server.url("agents.git"));
    repo.hook("update", "case $1 in refs/notes/*) echo 'no notes here' >&2; exit 1;; esac");
    let error = add(&mirror, &[(&first, r#"{"id":1}"#)]).expect_err("refused");
    assert!(matches!(&error, PushError::Refused { message, .. } if message.contains("no notes here")), "{error:?}");
    std::fs::remove_file(repo.path().join("hooks/update")).expect("the hook");
    lossy.store(true, Ordering::Release);
    let error = add(&mirror, &[(&first, r#"{"id":1}"#)]).expect_err("no answer");
    assert!(matches!(&error, PushError::Source(_)), "{error:?}");
    lossy.store(false, Ordering::Release);
    assert_eq!(add(&mirror, &[(&first, r#"{"id":1}"#)]).expect("looked at"), 0, "it is there");
    assert_eq!(shown(&repo, &first), r#"{"id":1}"#);
    drop(server);
    let error = add(&mirror, &[(&first, r#"{"id":2}"#)]).expect_err("gone");
    assert!(matches!(&error, PushError::Source(SourceError::Unreachable { .. })), "{error:?}");
}

#[test]
fn one_commit_takes_no_more_than_it_may() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let mirror = polled(repo.url());
    let long = "x".repeat(100 * 1024);
    let lines: Vec<_> = (0..4).map(|n| format!("{n}{long}")).collect();
    let asked: Vec<_> = lines.iter().map(|line| (&first, &**line)).collect();
    assert_eq!(add(&mirror, &asked).expect("notes"), 2);
    assert_eq!(shown(&repo, &first).lines().count(), 2);
}
