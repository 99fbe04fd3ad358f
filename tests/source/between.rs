//! What happens between two looks: the mirror is changed under a verified commit, or somebody pushes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use backstay::desired::{At, Cache, Resolve, resolve};
use backstay::model::{CommitId, ReleaseId, Timestamp};
use backstay::source::{Checkout, Entry, Mirror, NoVerification, Track, Tree, TreeError, Verified};

use crate::back::{agent_yaml, production, repository};
use crate::git::{Answer, GitServer, TestRepo};
use crate::{TestMirror, at, config, main_and_tags, mirror};

/// The release of each agent and its prompt, or that it cannot be read; nothing where no agent can.
type Asked = Option<BTreeMap<String, Option<(ReleaseId, String)>>>;

fn asked(at: At<'_>) -> Asked {
    let (environment, pinned) = (production(), BTreeMap::new());
    let now = Timestamp::UNIX_EPOCH;
    let ask = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target: None };
    let state = resolve(&mut Cache::default(), &ask).ok()?;
    let prompt = |release: &backstay::desired::Release| {
        release.prompts.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect::<String>()
    };
    let one = |agent: &backstay::desired::DesiredAgent| (agent.release.id, prompt(&agent.release));
    Some(
        state
            .agents
            .iter()
            .map(|(name, agent)| (name.to_string(), agent.as_ref().ok().map(|agent| one(agent))))
            .collect(),
    )
}

fn verified(mirror: &Mirror, commit: &CommitId) -> Verified<Checkout> {
    mirror.store().verified(&at("main", commit), None, &NoVerification).expect("verified")
}

// === the mirror is changed ===

/// A mirror whose objects are files of their own.
fn loose(repo: &TestRepo) -> (TestMirror, PathBuf) {
    let TestMirror { mirror: first, folder } = mirror(config(repo.url()));
    first.poll(&main_and_tags()).expect("a poll");
    // Whoever has read a pack has it open.
    drop(first);
    let git_dir = folder.path().join("mirror/mirror.git");
    let packs = git_dir.join("objects/pack");
    for entry in std::fs::read_dir(&packs).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "pack") {
            let aside = folder.path().join("aside.pack");
            std::fs::rename(&path, &aside).expect("aside");
            std::fs::remove_file(path.with_extension("idx")).expect("its index");
            let pack = std::fs::File::open(&aside).expect("a pack");
            let mut unpack = Command::new("git");
            unpack.arg("--git-dir").arg(&git_dir).args(["unpack-objects", "-q"]).stdin(Stdio::from(pack));
            assert!(unpack.status().expect("git runs").success());
        }
    }
    let mirror = Mirror::open(folder.path().join("mirror"), config(repo.url())).expect("a mirror");
    (TestMirror { mirror, folder }, git_dir)
}

/// The object that a name comes to, as Git says it.
fn id(repo: &TestRepo, name: &str) -> git2::Oid {
    repo.git(&["rev-parse", name]).parse().expect("an id")
}

/// Puts the content of one object in the place of another, under that one's name.
fn replace(git_dir: &Path, id: git2::Oid, by: git2::Oid) {
    let path = |id: git2::Oid| {
        let text = id.to_string();
        git_dir.join("objects").join(&text[..2]).join(&text[2..])
    };
    std::fs::remove_file(path(id)).expect("it is there");
    std::fs::copy(path(by), path(id)).expect("the other is there");
}

// S1
#[test]
fn what_is_changed_in_the_mirror_after_it_was_verified_is_never_used() {
    type Change = fn(&TestRepo, &Path);
    // What the second commit has is evil; the first one was verified.
    let changes: [(&str, bool, Change); 7] = [
        ("a file", true, |repo, dir| {
            replace(dir, id(repo, "main~1:agents/a/system.md"), id(repo, "main:agents/a/system.md"));
        }),
        ("a folder", true, |repo, dir| replace(dir, id(repo, "main~1:agents/a"), id(repo, "main:agents/a"))),
        ("the whole tree", true, |repo, dir| replace(dir, id(repo, "main~1^{tree}"), id(repo, "main^{tree}"))),
        ("a file that is gone", true, |repo, dir| {
            let text = id(repo, "main~1:agents/a/system.md").to_string();
            std::fs::remove_file(dir.join("objects").join(&text[..2]).join(&text[2..])).expect("it is there");
        }),
        ("the commit", false, |repo, dir| replace(dir, id(repo, "main~1"), id(repo, "main"))),
        ("the branch", false, |repo, dir| {
            std::fs::write(dir.join("refs/heads/main"), format!("{}\n", id(repo, "main"))).expect("a branch");
        }),
        ("what Git takes in its place", false, |repo, dir| {
            let folder = dir.join("refs/replace");
            std::fs::create_dir_all(&folder).expect("a folder");
            for name in ["", "^{tree}", ":agents/a", ":agents/a/system.md"] {
                let (good, evil) = (id(repo, &format!("main~1{name}")), id(repo, &format!("main{name}")));
                std::fs::write(folder.join(good.to_string()), format!("{evil}\n")).expect("a replacement");
            }
        }),
    ];
    for (what, stops, change) in changes {
        let repo = repository();
        let good = repo.id("main");
        let wanted = asked(At::from(&verified(&loose(&repo).0, &good))).expect("a good commit");
        repo.commit(&[("agents/a/system.md", "Be evil.\n")], "evil");
        let (mirror, git_dir) = loose(&repo);
        let checkout = verified(&mirror, &good);
        change(&repo, &git_dir);
        let found = asked(At::from(&checkout));
        let agents = found.iter().flatten();
        for (agent, found) in agents {
            assert!(found.is_none() || *found == wanted[agent], "{what}: {agent} is {found:?}");
        }
        let stopped = found.as_ref().is_none_or(|found| found["a"].is_none());
        assert_eq!(stopped, stops, "{what}: {found:?}");
        // The mirror is mended by the next look, and gives what was verified.
        mirror.poll(&main_and_tags()).expect("a poll");
        assert_eq!(asked(At::from(&verified(&mirror, &good))), Some(wanted), "{what}");
    }
}

// === somebody pushes ===

/// Every file of every agent says the number of its commit.
fn say(repo: &TestRepo, number: usize) -> CommitId {
    let text = format!("number {number}\n");
    let files: Vec<(&str, &str)> =
        ["agents/a/system.md", "agents/b/system.md", "agents/c/system.md", "shared/safety.md", "shared/tone.md"]
            .map(|path| (path, &*text))
            .to_vec();
    let more = agent_yaml("d", &format!("  workload: {{env: {{N: \"{number}\"}}}}\n"));
    repo.commit(&[&*files, &[("agents/d/agent.yaml", &*more)]].concat(), &text)
}

/// The one number that everything of a commit says.
fn number(asked: &Asked) -> usize {
    let asked = asked.as_ref().expect("it can be read");
    let prompts = asked.iter().filter(|(name, _)| *name != "d");
    let texts: Vec<_> = prompts.map(|(name, agent)| &agent.as_ref().unwrap_or_else(|| panic!("{name}")).1).collect();
    let numbers: std::collections::BTreeSet<usize> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.strip_prefix("number ")?.parse().ok())
        .collect();
    assert_eq!((texts.len(), numbers.len()), (3, 1), "a mix: {texts:?}");
    numbers.into_iter().next().expect("one")
}

/// What the mirror has as `main` now: its commit, and the number that it says.
fn newest(mirror: &Mirror) -> (CommitId, usize) {
    let settled =
        mirror.store().settle(&Track::Branch("main".to_owned()), None, &backstay::source::MovePolicy::default());
    let commit = settled.expect("settled").serve.expect("a branch").commit;
    let said = number(&asked(At::from(&verified(mirror, &commit))));
    (commit, said)
}

/// The commits by their numbers, and at which call the next one comes.
#[derive(Default)]
struct Pushes {
    made: BTreeMap<CommitId, usize>,
    at: Option<usize>,
    calls: usize,
}

impl Pushes {
    fn push(&mut self, repo: &TestRepo) {
        let number = self.made.len();
        self.made.insert(say(repo, number), number);
    }

    /// Somebody asks: is it now?
    fn call(&mut self, repo: &TestRepo) {
        self.calls += 1;
        if self.at == Some(self.calls) {
            self.at = None;
            self.push(repo);
        }
    }
}

// S10
#[test]
fn a_push_at_each_call_of_a_fetch_gives_one_commit_whole_and_then_the_newer() {
    let repo = Arc::new(repository());
    let pushes = Arc::new(Mutex::new(Pushes::default()));
    let (asked_repo, asked) = (Arc::clone(&repo), Arc::clone(&pushes));
    let server = GitServer::http_with(repo.parent(), move |_| {
        asked.lock().expect("the pushes").call(&asked_repo);
        Answer::Serve
    });
    let mirror = mirror(config(server.url("agents.git")));
    let mut hit = 0;
    for call in 1.. {
        {
            let mut pushes = pushes.lock().expect("the pushes");
            pushes.push(&repo);
            (pushes.at, pushes.calls) = (Some(call), 0);
        }
        mirror.poll(&main_and_tags()).expect("a poll");
        let (commit, said) = newest(&mirror);
        let (missed, last) = {
            let mut pushes = pushes.lock().expect("the pushes");
            let last = pushes.made.len() - 1;
            assert_eq!(pushes.made.get(&commit), Some(&said), "one commit whole at call {call}");
            assert!(said == last || said + 1 == last, "{said} of {last} at call {call}");
            (pushes.at.take().is_some(), last)
        };
        // And then the newer.
        mirror.poll(&main_and_tags()).expect("a poll");
        assert_eq!(newest(&mirror).1, last, "after call {call}");
        if missed {
            break;
        }
        hit += 1;
    }
    assert!(hit >= 2, "the list and the pack are two calls, and {hit} were hit");
}

/// A tree of one commit, while somebody is busy: at its `at`th call a deed is done first.
struct Meanwhile<'a> {
    tree: Arc<dyn Tree>,
    calls: AtomicUsize,
    at: usize,
    deed: &'a (dyn Fn() + Sync),
}

impl std::fmt::Debug for Meanwhile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tree.fmt(f)
    }
}

impl Meanwhile<'_> {
    fn call(&self) -> &dyn Tree {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            (self.deed)();
        }
        &*self.tree
    }
}

impl Tree for Meanwhile<'_> {
    fn find(&self, path: &str) -> Result<Option<Entry>, TreeError> {
        self.call().find(path)
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, TreeError> {
        self.call().list(path)
    }

    fn read(&self, path: &str, limit: usize) -> Result<Option<Arc<[u8]>>, TreeError> {
        self.call().read(path, limit)
    }

    fn link(&self, path: &str) -> Result<Option<Arc<str>>, TreeError> {
        self.call().link(path)
    }
}

// S10
#[test]
fn a_push_at_each_call_of_a_resolve_gives_the_commit_that_was_begun() {
    let repo = repository();
    let mut pushes = Pushes::default();
    pushes.push(&repo);
    let mirror = mirror(config(repo.url()));
    mirror.poll(&main_and_tags()).expect("a poll");
    let pushes = Mutex::new(pushes);
    // Each push is in the mirror, and the branch moved, before the call is answered.
    let deed = || {
        pushes.lock().expect("the pushes").push(&repo);
        assert!(mirror.poll(&main_and_tags()).expect("a poll").fetched);
    };
    let mut hit = 0;
    for call in 1.. {
        let (commit, said) = newest(&mirror);
        let checkout = verified(&mirror, &commit);
        let tree = Meanwhile { tree: Arc::clone(&checkout.tree), calls: AtomicUsize::new(0), at: call, deed: &deed };
        let found = number(&asked(At::unverified_for_display(&checkout.revision, &tree)));
        assert_eq!(found, said, "at call {call}");
        if tree.calls.load(Ordering::Relaxed) < call {
            break;
        }
        hit += 1;
        assert_eq!(newest(&mirror).1, pushes.lock().expect("the pushes").made.len() - 1, "after call {call}");
    }
    assert!(hit > 10, "a resolve of four agents is more than {hit} calls");
}
