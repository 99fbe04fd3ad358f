//! D9: pull requests: the commit on a branch of its own at a real Git server, and the request at a host's API.

use std::sync::Arc;

use backstay::daemon::write_back::{CannotTell, Forge, ForgeError, Host, Written, propose};
use backstay::desired::WriteBack;
use backstay::model::{CommitId, Timestamp};
use backstay::reconcile::FailureKind;
use backstay::revert::{named, trailers};
use backstay::source::{NoVerification, PushError, Secret};

use crate::back::{Back, repository};
use crate::forge::{HUSH, Mood, StandIn};
use crate::git::{Answer, GitServer, TestRepo};

const HOSTS: [Host; 3] = [Host::GitHub, Host::GitLab, Host::Gitea];

/// A release that failed, a Git server that protects its branch, and a host's API beside it.
struct Scene {
    repo: Arc<TestRepo>,
    bad: CommitId,
    good: CommitId,
    server: GitServer,
    api: StandIn,
}

impl Scene {
    fn new(host: Host) -> Self {
        Self::with(host, |_| Answer::Serve)
    }

    fn with(host: Host, judge: impl Fn(&crate::git::Request) -> Answer + Send + Sync + 'static) -> Self {
        let repo = Arc::new(repository());
        let good = repo.id("main");
        let bad = repo.commit(&[("agents/a/system.md", "Be loud.\n")], "Be loud");
        repo.hook("update", "case $1 in refs/heads/main) echo 'protected branch hook declined' >&2; exit 1;; esac");
        let server = GitServer::http_with(repo.parent(), judge);
        let api = StandIn::start(host, &repo);
        Self { repo, bad, good, server, api }
    }

    fn back(&self) -> Back<'_> {
        let back = Back::failed(&self.repo, "a", &self.good, &self.bad).over(&self.server);
        Back { write_back: WriteBack::PullRequest, ..back }
    }

    fn propose(&self, back: &Back<'_>) -> Result<Written, CannotTell> {
        propose_at(back, &self.api.forge())
    }

    /// The branches that were made, with their commits.
    fn branches(&self) -> Vec<(String, CommitId)> {
        let all = self.repo.git(&["for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads/backstay/"]);
        let one = |line: &str| {
            let (name, id) = line.split_once(' ').expect("a name and an id");
            (name.to_owned(), id.parse().expect("a commit id"))
        };
        all.lines().map(one).collect()
    }
}

fn propose_at(back: &Back<'_>, forge: &Forge) -> Result<Written, CannotTell> {
    propose(&back.mirror, &NoVerification, &back.request(), forge, Timestamp::UNIX_EPOCH)
}

fn address(written: Written) -> String {
    let Written::Proposed { address, .. } = written else { panic!("{written:?}") };
    address
}

#[test]
fn each_host_gets_one_pull_request_with_the_message() {
    for host in HOSTS {
        let scene = Scene::new(host);
        let back = scene.back();
        let written = scene.propose(&back).expect("a pull request");
        let branches = scene.branches();
        let [(branch, commit)] = &*branches else { panic!("{branches:?}") };
        assert!(branch.starts_with("backstay/revert-a-"), "{branch}");
        assert_eq!(written, Written::Proposed { commit: commit.clone(), address: scene.api.address(1) });
        assert_eq!(scene.repo.id("main"), scene.bad, "the followed branch is people's to merge into");
        assert_eq!(scene.repo.git(&["rev-parse", &format!("{branch}^")]), scene.bad.to_string());
        assert_eq!(back.asks("a", commit), back.asks("a", &scene.good));
        let message = scene.repo.git(&["log", "-1", "--format=%B", commit.as_str()]);
        assert!(trailers(&message).is_some() && named(&message).commits == [scene.bad.to_string()], "{message}");

        let [opened] = &*scene.api.opened() else { panic!("one is opened") };
        assert_eq!((opened.head.as_str(), opened.base.as_str()), (branch.as_str(), "main"));
        assert_eq!(opened.title, "Revert \"Be loud\"");
        let body = message.split_once('\n').expect("a body").1.trim();
        assert!(opened.body.contains(body) && opened.body.starts_with("```text\n"), "{}", opened.body);

        // The same again: nothing is made twice.
        assert_eq!(scene.propose(&back).expect("found again"), written);
        let posts = scene.api.requests().iter().filter(|line| line.starts_with("POST ")).count();
        assert_eq!((posts, scene.branches()), (1, branches.clone()));

        // It is merged, and Git asks for what is stable: nothing is left to do.
        std::fs::remove_file(scene.repo.path().join("hooks/update")).expect("the hook");
        scene.repo.merge(branch);
        assert_eq!(scene.propose(&back).expect("looked at"), Written::Nothing);
    }
}

#[test]
fn a_lost_answer_of_the_api_is_found_again() {
    for host in HOSTS {
        let scene = Scene::new(host);
        scene.api.be(Mood::LosesAnswers);
        assert_eq!(address(scene.propose(&scene.back()).expect("found again")), scene.api.address(1));
        assert_eq!(scene.api.opened().len(), 1);

        // Not even the list can be had then: the next try finds it.
        let scene = Scene::new(host);
        scene.api.be(Mood::LosesAnswersAndGoes);
        let error = scene.propose(&scene.back()).expect_err("nobody knows");
        assert_eq!(error.kind(), FailureKind::Unavailable { retry_after: None }, "{error}");
        scene.api.be(Mood::Good);
        assert_eq!(address(scene.propose(&scene.back()).expect("found again")), scene.api.address(1));
        assert_eq!((scene.api.opened().len(), scene.branches().len()), (1, 1));
    }
}

#[test]
fn one_that_the_list_does_not_show_yet_is_found_when_a_second_is_refused() {
    for host in HOSTS {
        let scene = Scene::new(host);
        let first = scene.propose(&scene.back()).expect("a pull request");
        scene.api.be(Mood::HidesOnce);
        assert_eq!(scene.propose(&scene.back()).expect("found again"), first);
        assert_eq!(scene.api.opened().len(), 1);
        let posts = scene.api.requests().iter().filter(|line| line.starts_with("POST ")).count();
        assert_eq!(posts, 2, "the host said that it is there");
    }
}

#[test]
fn what_a_person_closed_stays_closed() {
    for host in HOSTS {
        let scene = Scene::new(host);
        scene.propose(&scene.back()).expect("a pull request");
        scene.api.close(1);
        let (branch, _) = scene.branches().remove(0);
        scene.repo.delete_branch(&branch);
        let error = scene.propose(&scene.back()).expect_err("closed");
        assert!(matches!(&error, CannotTell::Forge(ForgeError::Closed { .. })), "{error:?}");
        assert_eq!(error.kind(), FailureKind::Refused);
        assert!(error.to_string().contains(&scene.api.address(1)) && error.hint().is_some(), "{error}");
        assert!(scene.branches().is_empty() && scene.api.opened().len() == 1, "nothing is made again");
    }
}

#[test]
fn the_answer_of_git_may_be_lost_too() {
    let scene = Scene::with(Host::Gitea, |request| {
        let pushes = request.method == "POST" && request.path.ends_with("git-receive-pack");
        if pushes { Answer::Lose } else { Answer::Serve }
    });
    assert_eq!(address(scene.propose(&scene.back()).expect("found")), scene.api.address(1));
    assert_eq!((scene.branches().len(), scene.api.opened().len()), (1, 1));
}

#[test]
fn a_branch_of_that_name_by_somebody_else_is_left_alone() {
    let scene = Scene::new(Host::GitHub);
    scene.propose(&scene.back()).expect("a pull request");
    let (branch, ours) = scene.branches().remove(0);
    // A person went on from ours: it is still the one.
    let theirs = scene.repo.commit_on(&branch, &[("docs/notes.md", "Notes.\n")], "And say so");
    let again = scene.propose(&scene.back()).expect("found again");
    assert_eq!(again, Written::Proposed { commit: ours, address: scene.api.address(1) });
    assert_eq!(scene.repo.id(&branch), theirs);
    // Something else altogether.
    scene.repo.force(&branch, &scene.good);
    let error = scene.propose(&scene.back()).expect_err("not ours");
    assert!(matches!(&error, CannotTell::NoWay { .. }) && error.to_string().contains(&branch), "{error:?}");
    assert_eq!(scene.repo.id(&branch), scene.good);
}

#[test]
fn what_a_host_answers_instead_is_told_with_the_way_out() {
    let forbidden = |error: &CannotTell| error.kind() == FailureKind::Forbidden;
    for host in HOSTS {
        let scene = Scene::new(host);
        let wrong = Forge { token: Secret::Value("wrong".to_owned()), ..scene.api.forge() };
        let error = propose_at(&scene.back(), &wrong).expect_err("not let in");
        assert!(forbidden(&error), "{error}");
        let told = format!("{error} ({})", error.hint().expect("a way out"));
        assert!(told.contains("401") && told.contains("[source.pull_request]") && !told.contains("wrong"), "{told}");
        let elsewhere = Forge { repository: "acme/other".to_owned(), ..scene.api.forge() };
        let error = propose_at(&scene.back(), &elsewhere).expect_err("not there");
        assert!(error.kind() == FailureKind::Refused && error.to_string().contains("404"), "{error}");

        scene.api.be(Mood::Busy);
        let error = scene.propose(&scene.back()).expect_err("busy");
        assert_eq!(error.kind(), FailureKind::Unavailable { retry_after: Some(7) }, "{error}");
        for mood in [Mood::Nonsense, Mood::Endless, Mood::Redirects, Mood::Hostile] {
            if mood == Mood::Hostile {
                assert!(scene.branches().is_empty(), "the API is asked before anything is pushed");
            }
            scene.api.be(mood);
            let error = scene.propose(&scene.back()).expect_err("no answer");
            let told = format!("{error} ({})", error.hint().expect("a way out"));
            assert!(told.len() < 1000 && !told.chars().any(char::is_control), "{mood:?}: {told:?}");
            assert!(!told.contains(HUSH), "{mood:?}: {told}");
        }
        scene.api.be(Mood::Good);
        scene.propose(&scene.back()).expect("a pull request");
    }
}

#[test]
fn no_text_of_a_host_gets_out_of_its_line() {
    let scene = Scene::new(Host::GitHub);
    scene.api.be(Mood::Refuses);
    let error = scene.propose(&scene.back()).expect_err("refused");
    assert_eq!(error.kind(), FailureKind::Refused);
    assert!(error.to_string().contains("422: Validation Failed; No commits between main and x"), "{error}");
    assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
    assert_eq!(scene.branches().len(), 1);
}

#[test]
fn a_git_server_that_refuses_the_branch_is_no_pull_request() {
    let scene = Scene::new(Host::GitLab);
    scene.repo.hook("pre-receive", "echo 'nobody pushes here' >&2; exit 1");
    let error = scene.propose(&scene.back()).expect_err("refused");
    assert!(matches!(&error, CannotTell::Push(PushError::Refused { .. })), "{error:?}");
    assert!(error.to_string().contains("nobody pushes here"), "{error}");
    assert!(scene.api.opened().is_empty());
}

#[test]
fn the_api_is_spoken_to_over_tls_that_is_checked() {
    let repo = Arc::new(repository());
    let good = repo.id("main");
    let bad = repo.commit(&[("agents/a/system.md", "Be loud.\n")], "Be loud");
    let Some((api, authority)) = StandIn::start_tls(Host::GitLab, &repo) else {
        return crate::skipped("there is no `openssl` to make certificates with");
    };
    let back = Back { write_back: WriteBack::PullRequest, ..Back::failed(&repo, "a", &good, &bad) };
    let error = propose_at(&back, &api.forge()).expect_err("not trusted");
    assert!(matches!(&error, CannotTell::Forge(ForgeError::Unreachable { .. })), "{error:?}");
    assert!(api.requests().is_empty(), "the token is not shown to who is not trusted");
    let trusting = Forge { ca_file: Some(authority.path().to_owned()), ..api.forge() };
    assert_eq!(address(propose_at(&back, &trusting).expect("a pull request")), api.address(1));
}
