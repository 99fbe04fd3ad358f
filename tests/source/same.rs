//! The same files by different histories.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay::desired::{At, Cache, Resolve, resolve};
use backstay::model::{CommitId, ReleaseId, Timestamp};
use backstay::source::{Mirror, NoVerification, SourceError, Tree};
use git2::{Commit, Oid, Repository, Signature, Time};

use crate::back::{production, repository};
use crate::git::{GitServer, TestRepo};
use crate::{at, config, main_and_tags, mirror};

/// Set in the process that reads them all: its memory is its own.
const ALONE: &str = "SOURCE_SAME";
/// Commits of the long history.
const MANY: i64 = 5000;

fn person(seconds: i64, offset: i32) -> Signature<'static> {
    Signature::new("Alice Example", "alice@example.com", &Time::new(seconds, offset)).expect("a signature")
}

fn commit(raw: &Repository, tree: Oid, seconds: i64, message: &str, parents: &[Oid]) -> Oid {
    let who = person(seconds, 0);
    let parents: Vec<_> = parents.iter().map(|id| raw.find_commit(*id).expect("a commit")).collect();
    let tree = raw.find_tree(tree).expect("a tree");
    raw.commit(None, &who, &who, message, &tree, &parents.iter().collect::<Vec<&Commit<'_>>>()).expect("a commit")
}

/// A folder with one file more.
fn with_file(raw: &Repository, tree: Oid, text: &str) -> Oid {
    let tree = raw.find_tree(tree).expect("a tree");
    let mut builder = raw.treebuilder(Some(&tree)).expect("a builder");
    builder.insert("notes.txt", raw.blob(text.as_bytes()).expect("a blob"), 0o100_644).expect("a file");
    builder.write().expect("a tree")
}

/// One commit, and no history.
fn root_only(raw: &Repository, tree: Oid) -> Vec<Oid> {
    vec![commit(raw, tree, 1_790_000_000, "All of it", &[])]
}

/// Thousands of commits, each of which changes a file; the last one takes it away.
fn long(raw: &Repository, tree: Oid) -> Vec<Oid> {
    let mut tip = commit(raw, with_file(raw, tree, "0"), 1_700_000_000, "0", &[]);
    let first = tip;
    for n in 1..MANY {
        tip = commit(raw, with_file(raw, tree, &n.to_string()), 1_700_000_000 + n, &n.to_string(), &[tip]);
    }
    vec![first, commit(raw, tree, 1_790_000_000, "The end", &[tip])]
}

/// Roots that have nothing in common, merges across each other, twenty parents, times before the epoch and long after
/// us, messages that are empty or large, and the same commit twice on the way.
fn odd(raw: &Repository, tree: Oid) -> Vec<Oid> {
    let other = |text: &str| with_file(raw, tree, text);
    let first = commit(raw, other("first"), -2_000_000_000, "", &[]);
    let island = commit(raw, other("island"), 4_000_000_000, "an island", &[]);
    let (mut left, mut right) = (first, island);
    for n in 0..40 {
        let l = commit(raw, other(&format!("l{n}")), 4_000_000_000 - n, "left", &[left, right]);
        let r = commit(raw, other(&format!("r{n}")), n, "right", &[right, left]);
        (left, right) = (l, r);
    }
    let arms: Vec<_> =
        (0..20).map(|n| commit(raw, other(&format!("arm {n}")), n, &"x".repeat(40_000), &[left])).collect();
    let many = commit(raw, other("all arms"), 7, "Merge", &[&[left], &*arms].concat());
    // Somebody merged what was merged already, by hand.
    let again = commit(raw, other("again"), 8, "Merge", &[many, many, left, right]);
    let who = person(9, 14 * 60 + 59);
    let tree = raw.find_tree(tree).expect("a tree");
    let parents = [again, island].map(|id| raw.find_commit(id).expect("a commit"));
    let buffer = raw.commit_create_buffer(&who, &who, "Merge\n\n\u{1b}[31m", &tree, &[&parents[0], &parents[1]]);
    let text = String::from_utf8(buffer.expect("a buffer").to_vec()).expect("UTF-8");
    // A signature that nobody can read, and a header that nobody knows.
    let text = text.replacen(
        "\n\n",
        "\nencoding ISO-8859-1\nx-unknown 1\ngpgsig -----BEGIN NONSENSE-----\n \n -----END\n\n",
        1,
    );
    let tip = raw.odb().expect("objects").write(git2::ObjectType::Commit, text.as_bytes()).expect("a commit");
    vec![first, tip]
}

/// What there is of every file, by its path.
fn files(tree: &dyn Tree, path: &str, into: &mut BTreeMap<String, String>) {
    for entry in tree.list(path).expect("a listing") {
        let path = if path.is_empty() { entry.name.to_string() } else { format!("{path}/{}", entry.name) };
        if entry.kind == backstay::source::EntryKind::Folder {
            files(tree, &path, into);
        } else {
            into.insert(path, entry.id.0.to_string());
        }
    }
}

/// The digests of all files, and the release of each agent.
fn read(
    mirror: &Mirror,
    commit: &CommitId,
    last_good: Option<&CommitId>,
) -> (BTreeMap<String, String>, BTreeMap<String, ReleaseId>) {
    let checkout = mirror.store().verified(&at("main", commit), last_good, &NoVerification).expect("verified");
    let mut digests = BTreeMap::new();
    files(&*checkout.tree, "", &mut digests);
    let (environment, pinned, at) = (production(), BTreeMap::new(), At::from(&checkout));
    let now = Timestamp::UNIX_EPOCH;
    let ask = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target: None };
    let state = resolve(&mut Cache::default(), &ask).expect("a state");
    let release = |agent: &Result<Arc<backstay::desired::DesiredAgent>, _>| agent.as_ref().expect("good").release.id;
    (digests, state.agents.iter().map(|(name, agent)| (name.to_string(), release(agent))).collect())
}

fn commit_id(id: Oid) -> CommitId {
    id.to_string().parse().expect("a commit id")
}

type History = fn(&Repository, Oid) -> Vec<Oid>;
const HISTORIES: [(&str, History); 3] = [("one commit", root_only), ("thousands", long), ("odd", odd)];

#[expect(clippy::print_stdout, reason = "how long it took is told")]
fn compare() {
    let mut first = None;
    for (name, history) in HISTORIES {
        let repo = repository();
        let raw = repo.raw();
        let tree = raw.find_reference("refs/heads/main").and_then(|main| main.peel_to_tree()).expect("a tree").id();
        let ends = history(&raw, tree);
        let (start, tip) = (commit_id(ends[0]), commit_id(ends[ends.len() - 1]));
        repo.force("main", &tip);
        let server = GitServer::http(repo.parent());
        let mirror = mirror(config(server.url("agents.git")));
        let began = Instant::now();
        mirror.poll(&main_and_tags()).expect("a poll");
        let fetched = began.elapsed();
        let found = read(&mirror, &tip, Some(&start));
        assert_eq!(found, read(&mirror, &tip, None), "{name}: where it came from changes nothing");
        assert_eq!((found.0.len(), found.1.len()), (10, 3), "{name}");
        assert!(mirror.store().is_ancestor(&start, &tip).expect("walked"), "{name}: its history is whole");
        let took = began.elapsed();
        println!("{name}: fetched in {fetched:?}, read after {took:?}");
        assert!(took < Duration::from_mins(2), "{name}: {took:?}");
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(*first, found, "{name}: the same files are the same release"),
        }
    }
}

// S6
#[test]
fn the_same_files_by_three_histories_are_the_same_releases() {
    if std::env::var_os(ALONE).is_some() {
        compare();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        return println!("peak:{}", peak.trim());
    }
    let me = std::env::current_exe().expect("this program");
    let mut command = Command::new(me);
    command.args(["--exact", "same::the_same_files_by_three_histories_are_the_same_releases", "--nocapture"]);
    let output = command.env(ALONE, "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    let peak = said.lines().find_map(|line| line.strip_prefix("peak:")).expect("a peak");
    let kilobytes: u64 = peak.trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(kilobytes < 256 * 1024, "{kilobytes} kB");
}

// S6
#[test]
fn a_mirror_that_was_made_shallow_is_made_anew() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let tip = repo.commit(&[("a.txt", "two\n")], "second");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || Mirror::open(folder.path(), config(repo.url())).expect("a mirror");
    open().poll(&main_and_tags()).expect("a poll");
    std::fs::write(folder.path().join("mirror.git/shallow"), format!("{tip}\n")).expect("a file");
    let mirror = open();
    mirror.poll(&main_and_tags()).expect("a poll");
    assert!(!folder.path().join("mirror.git/shallow").exists());
    assert!(mirror.store().is_ancestor(&first, &tip).expect("walked"), "its history is whole");
}

// S6
#[test]
fn a_remote_without_its_history_is_refused() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let tip = repo.commit(&[("a.txt", "two\n")], "second");
    let from = format!("file://{}", repo.path().display());
    let shallow = repo.parent().join("shallow.git");
    repo.plain(&["clone", "-q", "--bare", "--depth", "1", &from, shallow.to_str().expect("a path")]);
    let server = GitServer::http(repo.parent());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let urls = [server.url("shallow.git"), shallow.to_str().expect("a path").parse().expect("an address")];
    for (number, url) in urls.into_iter().enumerate() {
        let mirror = Mirror::open(folder.path().join(number.to_string()), config(url.clone())).expect("a mirror");
        let error = mirror.poll(&main_and_tags()).expect_err("half of a history");
        assert!(!matches!(error, SourceError::Busy { .. }), "{error:?}");
        assert!(!error.to_string().is_empty());
        assert!(!mirror.store().contains(&first).unwrap_or(false));
        // Nothing of it is served, and the status says why each time.
        let tips = mirror.store().resolve(&backstay::source::Track::Branch("main".to_owned()));
        assert!(!matches!(tips, Ok(Some(_))), "{tip}: {tips:?}");
        assert!(mirror.poll(&main_and_tags()).is_err());
    }
}
