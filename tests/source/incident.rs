//! D9: what Git does to the commit that tells it: refuses it, loses its answer, moves, or is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use backstay::daemon::write_back::{CannotTell, Way, Written};
use backstay::model::CommitId;
use backstay::reconcile::FailureKind;
use backstay::source::{PushError, SourceError};

use crate::back::{Back, repository};
use crate::git::{Answer, GitServer, Request, TestRepo};

const AWAY: FailureKind = FailureKind::Unavailable { retry_after: None };

/// A release that failed, in a repository that a server has.
struct Scene {
    repo: Arc<TestRepo>,
    good: CommitId,
    bad: CommitId,
}

impl Scene {
    fn new() -> Self {
        let repo = Arc::new(repository());
        let good = repo.id("main");
        let bad = repo.commit(&[("agents/a/system.md", "Be loud.\n")], "Be loud");
        Self { repo, good, bad }
    }

    fn back(&self, server: &GitServer) -> Back<'_> {
        Back::failed(&self.repo, "a", &self.good, &self.bad).over(server)
    }

    fn reverts(&self) -> usize {
        self.repo.git(&["log", "--format=%s", "main"]).lines().filter(|subject| subject.starts_with("Revert")).count()
    }
}

fn is_push(request: &Request) -> bool {
    request.method == "POST" && request.path.ends_with("git-receive-pack")
}

/// What the condition says: the failure and the way out.
fn told(error: &CannotTell) -> String {
    format!("{error} ({})", error.hint().expect("a way out"))
}

#[test]
fn a_hook_or_a_protected_branch_refuses() {
    let scene = Scene::new();
    let server = GitServer::http(scene.repo.parent());
    let back = scene.back(&server);
    for (hook, script, words) in [
        ("pre-receive", "echo 'only on Tuesdays' >&2; exit 1", "only on Tuesdays"),
        (
            "update",
            "case $1 in refs/heads/main) echo 'GH006: Protected branch update failed' >&2; exit 1;; esac",
            "Protected branch",
        ),
    ] {
        scene.repo.hook(hook, script);
        let error = back.write().expect_err("refused");
        assert!(matches!(&error, CannotTell::Push(PushError::Refused { .. })), "{error:?}");
        assert_eq!(error.kind(), FailureKind::Refused);
        let told = told(&error);
        assert!(told.contains(words) && told.contains("writeBack: pullRequest"), "{told}");
        assert_eq!(scene.repo.id("main"), scene.bad);
        std::fs::remove_file(scene.repo.path().join("hooks").join(hook)).expect("the hook");
    }
    back.done();
}

#[test]
fn an_account_that_may_only_read_is_told_so() {
    let scene = Scene::new();
    let server = GitServer::http_with(scene.repo.parent(), |request| {
        let writes = request.path.ends_with("git-receive-pack") || request.query.contains("git-receive-pack");
        if writes { Answer::Status("403 Forbidden", vec![]) } else { Answer::Serve }
    });
    let error = scene.back(&server).write().expect_err("refused");
    assert!(matches!(&error, CannotTell::Push(PushError::Source(SourceError::Refused { .. }))), "{error:?}");
    assert_eq!(error.kind(), FailureKind::Forbidden);
    assert!(told(&error).contains("may push"), "{error}");
}

#[test]
fn a_lost_answer_is_found_at_once() {
    let scene = Scene::new();
    let server = GitServer::http_with(
        scene.repo.parent(),
        |request| {
            if is_push(request) { Answer::Lose } else { Answer::Serve }
        },
    );
    let back = scene.back(&server);
    let written = back.write().expect("it arrived");
    assert_eq!(written, Written::Commit(scene.repo.id("main"), Way::Reverted));
    assert_eq!(back.write().expect("looked at"), Written::Known(scene.repo.id("main")));
    assert_eq!(scene.reverts(), 1);
}

#[test]
fn a_lost_answer_is_found_when_git_is_back() {
    let scene = Scene::new();
    let away = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&away);
    let server = GitServer::http_with(scene.repo.parent(), move |request| {
        if is_push(request) {
            flag.store(true, Ordering::Release);
            return Answer::Lose;
        }
        if flag.load(Ordering::Acquire) { Answer::Status("503 Service Unavailable", vec![]) } else { Answer::Serve }
    });
    let back = scene.back(&server);
    let request = back.request();
    let error = back.carry_out(&request).expect_err("nobody knows");
    assert_eq!(error.kind(), AWAY, "{error}");
    let ours = scene.repo.id("main");
    assert_ne!(ours, scene.bad, "it happened");
    away.store(false, Ordering::Release);
    assert_eq!(back.carry_out(&request).expect("looked at"), Written::Known(ours), "and is known, not made again");
    assert_eq!(scene.reverts(), 1);
}

#[test]
fn a_push_that_never_arrived_is_made_again_by_the_next_try() {
    let scene = Scene::new();
    let once = AtomicBool::new(true);
    let server = GitServer::http_with(scene.repo.parent(), move |request| {
        if is_push(request) && once.swap(false, Ordering::AcqRel) { Answer::Raw(vec![]) } else { Answer::Serve }
    });
    let back = scene.back(&server);
    let error = back.write().expect_err("it did not arrive");
    assert_eq!((error.kind(), scene.reverts()), (AWAY, 0), "{error}");
    back.done();
    assert_eq!(scene.reverts(), 1);
}

#[test]
fn a_branch_that_never_rests_is_left_after_five_looks() {
    let scene = Scene::new();
    let (quicker, times) = (Arc::clone(&scene.repo), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&times);
    let server = GitServer::http_with(scene.repo.parent(), move |request| {
        if is_push(request) {
            let time = count.fetch_add(1, Ordering::AcqRel);
            if time < 5 {
                quicker.commit(&[("docs/notes.md", &format!("Note {time}.\n"))], &format!("A person, {time}"));
            }
        }
        Answer::Serve
    });
    let back = scene.back(&server);
    let error = back.write().expect_err("restless");
    assert!(matches!(&error, CannotTell::Restless(_)), "{error:?}");
    assert_eq!((error.kind(), times.load(Ordering::Acquire), scene.reverts()), (AWAY, 5, 0));
    assert!(told(&error).contains("tried again"), "{error}");
    assert_eq!(scene.repo.git(&["show", "main:docs/notes.md"]), "Note 4.", "what people pushed is there");
    back.done();
}

#[test]
fn a_person_who_takes_it_back_meanwhile_is_enough() {
    let scene = Scene::new();
    let (quicker, bad, once) = (Arc::clone(&scene.repo), scene.bad.clone(), AtomicBool::new(true));
    let server = GitServer::http_with(scene.repo.parent(), move |request| {
        if is_push(request) && once.swap(false, Ordering::AcqRel) {
            quicker.revert(&[&bad]);
        }
        Answer::Serve
    });
    assert_eq!(scene.back(&server).write().expect("looked again"), Written::Nothing);
    assert_eq!(scene.repo.git(&["log", "-1", "--format=%an", "main"]), "Alice Example");
    assert_eq!(scene.reverts(), 1);
}

#[test]
fn a_server_that_is_gone_is_tried_again() {
    let scene = Scene::new();
    let server = GitServer::http(scene.repo.parent());
    let back = scene.back(&server);
    let request = back.request();
    drop(server);
    let error = back.carry_out(&request).expect_err("gone");
    assert!(matches!(&error, CannotTell::Source(SourceError::Unreachable { .. })), "{error:?}");
    assert_eq!(error.kind(), AWAY);
    assert!(told(&error).contains("tried again"), "{error}");
    assert_eq!(scene.repo.id("main"), scene.bad);
}
