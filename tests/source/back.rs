//! D9, D10, D11: the commit that takes a release back, in every way that there is, and never over what people did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay::daemon::write_back::{CannotTell, Request, Way, Written, write};
use backstay::desired::{At, Cache, Resolve, WriteBack, resolve};
use backstay::model::{AgentName, CommitId, Digest, EnvironmentName, ReleaseId, Timestamp};
use backstay::record::Standing;
use backstay::source::{Mirror, NoVerification, Person, PushError};

use crate::git::{Answer, GitServer, TestRepo};
use crate::{TestMirror, at, config, main_and_tags, mirror};

const IMAGE: &str = "a@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

pub(crate) fn agent_yaml(name: &str, more: &str) -> String {
    format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  code: {{image: \"{IMAGE}\"}}\n{more}"
    )
}

/// Two agents that share one file, and one that has a shared file for itself.
pub(crate) fn repository() -> TestRepo {
    let repo = TestRepo::new();
    let prompts = |shared: &str| format!("  prompts:\n    system: [/shared/{shared}, system.md]\n");
    repo.commit(
        &[
            ("backstay.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Repository\n"),
            (
                "environments/prod.yaml",
                "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\nspec:\n  track: {branch: main}\n",
            ),
            ("agents/a/agent.yaml", &agent_yaml("a", &prompts("safety.md"))),
            ("agents/a/system.md", "Be kind.\n"),
            ("agents/b/agent.yaml", &agent_yaml("b", &prompts("safety.md"))),
            ("agents/b/system.md", "Be brief.\n"),
            ("agents/c/agent.yaml", &agent_yaml("c", &prompts("tone.md"))),
            ("agents/c/system.md", "Be exact.\n"),
            ("shared/safety.md", "Be safe.\n"),
            ("shared/tone.md", "Be warm.\n"),
        ],
        "Begin",
    );
    repo
}

pub(crate) fn production() -> EnvironmentName {
    "prod".parse().expect("a name")
}

/// What a commit asks for, of one agent.
fn asks(mirror: &Mirror, agent: &str, commit: &CommitId) -> ReleaseId {
    let revision = at("main", commit);
    let checkout = mirror.store().checkout(&revision).expect("a checkout");
    let here = At::unverified_for_display(&revision, &*checkout.tree);
    let spec = backstay::desired::environment(&*checkout.tree, &production()).expect("an environment");
    let pins: BTreeMap<_, _> = spec
        .pins
        .iter()
        .map(|(agent, commit)| {
            let revision = mirror.store().pinned(commit).expect("a pin");
            (agent.clone(), mirror.store().checkout(&revision).expect("a checkout"))
        })
        .collect();
    let pinned = pins
        .iter()
        .map(|(agent, checkout)| (agent.clone(), At::unverified_for_display(&checkout.revision, &*checkout.tree)))
        .collect();
    let (environment, now) = (production(), Timestamp::UNIX_EPOCH);
    let asked = Resolve { environment: &environment, head: here, tracked: here, pinned: &pinned, now, target: None };
    let state = resolve(&mut Cache::default(), &asked).expect("a good environment");
    let agent: AgentName = agent.parse().expect("a name");
    state.agents[&agent].as_ref().expect("a good agent").release.id
}

/// Goes back from `main` to what stood at `good`.
pub(crate) struct Back<'a> {
    pub(crate) repo: &'a TestRepo,
    pub(crate) mirror: TestMirror,
    pub(crate) agent: &'static str,
    pub(crate) good: CommitId,
    /// Where the release was tried that is left; nothing: the tip, and a person asks.
    pub(crate) failed: Option<CommitId>,
    pub(crate) write_back: WriteBack,
}

impl<'a> Back<'a> {
    pub(crate) fn new(repo: &'a TestRepo, agent: &'static str, good: &CommitId) -> Self {
        let mirror = mirror(config(repo.url()));
        Self { repo, mirror, agent, good: good.clone(), failed: None, write_back: WriteBack::Revert }
    }

    /// The release that was tried at a commit failed, and nobody has to ask.
    pub(crate) fn failed(repo: &'a TestRepo, agent: &'static str, good: &CommitId, bad: &CommitId) -> Self {
        Self { failed: Some(bad.clone()), ..Self::new(repo, agent, good) }
    }

    /// The same over this server.
    pub(crate) fn over(self, server: &GitServer) -> Self {
        Self { mirror: mirror(config(server.url("agents.git"))), ..self }
    }

    pub(crate) fn asks(&self, agent: &str, commit: &CommitId) -> ReleaseId {
        self.mirror.poll(&main_and_tags()).expect("a poll");
        asks(&self.mirror, agent, commit)
    }

    pub(crate) fn request(&self) -> Request {
        let back_to = Standing {
            release: self.asks(self.agent, &self.good),
            revision: at("main", &self.good),
            settings: Digest::of(b""),
            renderer: 1,
            own_set: false,
            since: Timestamp::UNIX_EPOCH,
        };
        let automatic = self.failed.is_some();
        let committer = "Backstay <backstay@example.com>".parse().expect("a person");
        let alice = "Alice Example <alice@example.com>".parse().expect("a person");
        Request {
            agent: self.agent.parse().expect("a name"),
            environment: production(),
            left: self.asks(self.agent, &self.failed.clone().unwrap_or_else(|| self.repo.id("main"))),
            left_at: self.failed.clone(),
            back_to,
            author: if automatic { Person::clone(&committer) } else { alice },
            committer,
            automatic,
            even_if_newer: false,
            word: if automatic { "error_rate_high" } else { "manual" }.to_owned(),
            reason: if automatic { "`a` failed: too many errors" } else { "alice asked for it: too loud" }.to_owned(),
            evidence: if automatic { vec!["errors 4.1 % of 2,000 requests".to_owned()] } else { vec![] },
            write_back: self.write_back,
            accepted: None,
            signing_key: None,
        }
    }

    pub(crate) fn write(&self) -> Result<Written, CannotTell> {
        self.carry_out(&self.request())
    }

    pub(crate) fn carry_out(&self, request: &Request) -> Result<Written, CannotTell> {
        write(&self.mirror, &NoVerification, request, Timestamp::UNIX_EPOCH)
    }

    /// Writes it, and looks whether Git asks for the old release, and of the others for what it asked before.
    pub(crate) fn done(&self) -> (CommitId, Way) {
        let tip = self.repo.id("main");
        let written = self.write().expect("a commit");
        let Written::Commit(commit, way) = written else { panic!("{written:?}") };
        assert_eq!(self.repo.id("main"), commit);
        assert_eq!(self.repo.git(&["rev-parse", "main^"]), tip.to_string(), "on top of what people did");
        assert_eq!(self.asks(self.agent, &commit), self.asks(self.agent, &self.good));
        for other in ["a", "b", "c"].iter().filter(|other| **other != self.agent) {
            assert_eq!(self.asks(other, &commit), self.asks(other, &tip), "agent `{other}` stays as it is");
        }
        let author = if self.failed.is_some() { "Backstay" } else { "Alice Example" };
        assert_eq!(self.repo.git(&["log", "-1", "--format=%an, %cn", "main"]), format!("{author}, Backstay"));
        self.repo.git(&["fsck", "--strict"]);
        (commit, way)
    }

    pub(crate) fn message(&self) -> String {
        self.repo.git(&["log", "-1", "--format=%B", "main"])
    }
}

#[test]
fn only_what_changed_this_agent_is_reverted_and_the_rest_is_kept() {
    let repo = repository();
    let good = repo.id("main");
    let bad = repo.commit(&[("agents/a/system.md", "Be loud.\n"), ("docs/loud.md", "Loud.\n")], "Be loud");
    let worse = repo.commit(&[("agents/a/system.md", "Be very loud.\n")], "Be louder");
    repo.commit(&[("agents/b/system.md", "Be briefer.\n")], "Another agent");
    repo.commit(&[("docs/notes.md", "Notes.\n")], "A person's notes");
    let back = Back::new(&repo, "a", &good);
    assert_eq!(back.done().1, Way::Reverted);
    let message = back.message();
    for commit in [&bad, &worse] {
        assert!(message.contains(&format!("This reverts commit {commit}.")), "{message}");
    }
    assert!(message.contains("too loud") && message.contains("Backstay-Agent: a"), "{message}");
    assert_eq!(repo.git(&["show", "main:docs/notes.md"]), "Notes.", "later commits of people are kept");
    // It says so already: a second one writes nothing.
    let tip = repo.id("main");
    assert_eq!(back.write().expect("looked at"), Written::Nothing);
    assert_eq!(repo.id("main"), tip);
}

#[test]
fn a_shared_file_goes_back_too_where_nobody_else_reads_it() {
    let repo = repository();
    let good = repo.id("main");
    repo.commit(&[("shared/tone.md", "Be cold.\n")], "Be cold");
    assert_eq!(Back::new(&repo, "c", &good).done().1, Way::Reverted);
    assert_eq!(repo.git(&["show", "main:shared/tone.md"]), "Be warm.");
}

#[test]
fn a_merge_is_taken_back_against_its_first_parent() {
    let repo = repository();
    let good = repo.id("main");
    repo.git(&["branch", "-f", "topic", "main"]);
    repo.commit_on("topic", &[("agents/a/system.md", "Be loud.\n")], "Be loud");
    let merge = repo.merge("topic");
    let back = Back::new(&repo, "a", &good);
    assert_eq!(back.done().1, Way::Reverted);
    let message = back.message();
    assert!(message.contains(&format!("This reverts commit {merge}, reversing")), "{message}");
}

#[test]
fn where_the_revert_conflicts_the_agents_own_paths_are_restored() {
    let repo = repository();
    let good = repo.id("main");
    let declared =
        |more: &str| agent_yaml("a", &format!("  prompts:\n    system: [/shared/safety.md, system.md]\n{more}"));
    repo.commit(&[("agents/a/agent.yaml", &declared("  config: {loud: true}\n"))], "Be loud");
    // Does not change the release, and stands where the revert must change something.
    repo.commit(&[("agents/a/agent.yaml", &declared("  # so loud\n  config: {loud: true}\n  # is it\n"))], "Say so");
    repo.commit(&[("docs/notes.md", "Notes.\n")], "A person's notes");
    assert_eq!(Back::new(&repo, "a", &good).done().1, Way::Restored);
    assert_eq!(repo.git(&["show", "main:docs/notes.md"]), "Notes.");
    assert_eq!(repo.git(&["diff", "--stat", good.as_str(), "main", "--", "agents/a"]), "");
}

#[test]
fn where_others_need_the_new_file_it_is_pinned() {
    let repo = repository();
    let good = repo.id("main");
    repo.commit(&[("shared/safety.md", "Be careless.\n")], "Be careless");
    assert_eq!(Back::new(&repo, "a", &good).done().1, Way::Pinned);
    assert_eq!(repo.git(&["show", "main:shared/safety.md"]), "Be careless.", "`b` reads it too");
    let file = repo.git(&["show", "main:environments/prod.yaml"]);
    assert!(file.contains(&format!("pins: {{a: {good}}}")), "{file}");
    assert_eq!(repo.git(&["diff", "--name-only", "main^", "main"]), "environments/prod.yaml");
}

#[test]
fn a_pin_where_the_environment_asks_for_pins() {
    let repo = repository();
    let good = repo.id("main");
    repo.commit(&[("agents/a/system.md", "Be loud.\n")], "Be loud");
    let back = Back { write_back: WriteBack::Pin, ..Back::new(&repo, "a", &good) };
    assert_eq!(back.done().1, Way::Pinned);
    assert_eq!(repo.git(&["show", "main:agents/a/system.md"]), "Be loud.");
}

#[test]
fn over_a_rewritten_history_nothing_is_emptied() {
    let repo = repository();
    let good = repo.id("main");
    repo.tag("keep", &good);
    // Another root with the same files, and a change on top.
    let tree = repo.git(&["rev-parse", "main^{tree}"]);
    let root = repo.git(&["commit-tree", "-m", "Begin anew", &tree]);
    repo.force("main", &root.parse().expect("a commit id"));
    repo.commit(&[("agents/a/system.md", "Be loud.\n")], "Be loud");
    let files = repo.git(&["ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(Back::new(&repo, "a", &good).done().1, Way::Restored);
    assert_eq!(repo.git(&["ls-tree", "-r", "--name-only", "main"]), files);
}

#[test]
fn a_refused_push_is_an_error_and_leaves_the_branch() {
    let repo = repository();
    let good = repo.id("main");
    let bad = repo.commit(&[("agents/a/system.md", "Be loud.\n")], "Be loud");
    let server = GitServer::http(repo.parent());
    let back = Back::new(&repo, "a", &good).over(&server);
    repo.hook("pre-receive", "echo 'only on Tuesdays' >&2; exit 1");
    let error = back.write().expect_err("refused");
    assert!(matches!(&error, CannotTell::Push(PushError::Refused { .. })), "{error:?}");
    assert!(error.to_string().contains("only on Tuesdays"), "{error}");
    assert_eq!(repo.id("main"), bad);
}

#[test]
fn who_pushes_at_the_same_time_is_not_overwritten() {
    let repo = Arc::new(repository());
    let good = repo.id("main");
    repo.commit(&[("agents/a/system.md", "Be loud.\n")], "Be loud");
    let (quicker, once) = (Arc::clone(&repo), AtomicBool::new(true));
    let server = GitServer::http_with(repo.parent(), move |request| {
        let pushes = request.method == "POST" && request.path.ends_with("git-receive-pack");
        if pushes && once.swap(false, Ordering::AcqRel) {
            quicker.commit(&[("docs/notes.md", "Notes.\n")], "A person was quicker");
        }
        Answer::Serve
    });
    let back = Back::new(&repo, "a", &good).over(&server);
    let written = back.write().expect("a commit");
    assert!(matches!(written, Written::Commit(_, Way::Reverted)), "{written:?}");
    let subjects = repo.git(&["log", "--format=%s", "main"]);
    assert_eq!(subjects, "Revert \"Be loud\"\nA person was quicker\nBe loud\nBegin");
    assert_eq!(repo.git(&["show", "main:agents/a/system.md"]), "Be kind.");
}
