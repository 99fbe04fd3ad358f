//! Bugs that are planted on purpose: each must be caught by the test that is named for it.
//!
//! `tests/planted/*.toml` names them: what each breaks, which promise that is, where, and the test that must fail then.
//! Each edit replaces a text that stands exactly once in its file, so that the code around it may move. `tests/run
//! --planted` plants them one by one in a copy of the sources, and runs their tests there.
#![expect(clippy::disallowed_methods, reason = "a test: it reads and writes files, and has a clock")]

#[path = "planted/scratch.rs"]
mod scratch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;

use scratch::{Outcome, Scratch};

/// How many are tried in every run: those that the commit chooses.
const FEW: usize = 5;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    bug: Vec<Bug>,
}

/// One bug.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bug {
    name: String,
    /// `K4`, or the law or section that says it where no promise of the list does.
    promise: String,
    /// In one line: what it breaks.
    breaks: String,
    /// The test target (or `lib`) and the full name of the test that must fail.
    test: String,
    /// Whether that test needs the lab.
    #[serde(default)]
    lab: bool,
    edit: Vec<Edit>,
}

/// One place that is changed.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    /// Stands exactly once there.
    find: String,
    plant: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// All of them, by file and place in it.
fn bugs() -> Vec<Bug> {
    let folder = std::fs::read_dir(root().join("tests/planted")).expect("the folder of bugs");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let parse = |path: &PathBuf| {
        let file: File = toml::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.bug
    };
    files.iter().flat_map(parse).collect()
}

/// The files that a bug changes, as they are with it in.
fn planted(bug: &Bug, root: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for Edit { file, find, plant } in &bug.edit {
        let text = files.entry(file.clone()).or_insert_with(|| read(&root.join(file)));
        match text.matches(find.as_str()).count() {
            1 => *text = text.replacen(find.as_str(), plant, 1),
            times => return Err(format!("{}: this stands {times} times in {file}, not once:\n{find}", bug.name)),
        }
    }
    Ok(files)
}

/// The target and the name of the test that must fail.
fn test_of(bug: &Bug) -> (&str, &str) {
    bug.test.split_once(' ').unwrap_or_else(|| panic!("{}: `test` is a target and a name", bug.name))
}

/// The source files that a test of this target may stand in.
fn sources_of(target: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) =
        (vec![root().join(format!("tests/{target}.rs"))], vec![root().join("tests").join(target)]);
    if target == "lib" {
        (files, folders) = (vec![], vec![root().join("src")]);
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn every_planted_bug_still_applies_and_names_a_test_that_is_there() {
    let bugs = bugs();
    assert!(bugs.len() >= 24, "only {} bugs", bugs.len());
    let names: BTreeSet<&str> = bugs.iter().map(|bug| &*bug.name).collect();
    assert_eq!(names.len(), bugs.len(), "each has a name of its own");
    let mut wrong = vec![];
    for bug in &bugs {
        match planted(bug, root()) {
            Err(why) => wrong.push(why),
            Ok(files) => {
                let same = files.iter().any(|(file, text)| *text == read(&root().join(file)));
                assert!(!same && !files.is_empty(), "{}: an edit changes nothing", bug.name);
            }
        }
        assert!(!bug.breaks.is_empty() && !bug.promise.is_empty(), "{}: what does it break?", bug.name);
        let (target, test) = test_of(bug);
        let function = format!("fn {}(", test.rsplit("::").next().unwrap_or(test));
        if !sources_of(target).iter().any(|path| path.exists() && read(path).contains(&function)) {
            wrong.push(format!("{}: there is no test `{}`", bug.name, bug.test));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A number that a text decides (FNV-1a).
fn number(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Those that are asked for: `all`, `few:<commit>`, or those whose name or promise is said.
fn chosen(mut bugs: Vec<Bug>, asked: &str) -> Vec<Bug> {
    match asked.split_once(':') {
        None if asked == "all" => {}
        Some(("few", commit)) => {
            bugs.retain(|bug| !bug.lab);
            bugs.sort_by_key(|bug| number(&format!("{commit} {}", bug.name)));
            bugs.truncate(FEW);
        }
        _ => bugs.retain(|bug| bug.name.contains(asked) || bug.promise == asked),
    }
    // One target after another: what was built for one serves the next.
    bugs.sort_by(|one, other| (one.lab, &one.test, &one.name).cmp(&(other.lab, &other.test, &other.name)));
    bugs
}

#[test]
fn every_commit_chooses_few_and_not_the_same() {
    let names = |commit: &str| -> BTreeSet<String> {
        chosen(bugs(), &format!("few:{commit}")).into_iter().map(|bug| bug.name).collect()
    };
    let (one, other) = (names("3f9c2ab1d0"), names("aaaa2ab1d0"));
    assert_eq!((one.len(), one == names("3f9c2ab1d0")), (FEW, true));
    assert_ne!(one, other);
    assert_eq!(chosen(bugs(), "K13").iter().filter(|bug| bug.promise == "K13").count(), chosen(bugs(), "K13").len());
}

// Plants in a copy of the sources, and builds there: asked for by name alone.
#[test]
#[ignore = "takes minutes: `tests/run --planted` runs it"]
fn planted_bugs_are_caught() {
    let asked = std::env::var("PLANTED").unwrap_or_else(|_| "all".to_owned());
    let bugs = chosen(bugs(), &asked);
    assert!(!bugs.is_empty(), "no planted bug is named like `{asked}`");
    let begun = Instant::now();
    let scratch = Scratch::open(root());
    let mut targets: BTreeMap<(bool, &str), BTreeSet<&str>> = BTreeMap::new();
    for bug in &bugs {
        let (target, test) = test_of(bug);
        targets.entry((bug.lab, target)).or_default().insert(test);
    }
    for ((lab, target), tests) in &targets {
        let from = Instant::now();
        let outcome = scratch.run(target, &tests.iter().copied().collect::<Vec<_>>(), *lab);
        assert_eq!(outcome, Outcome::Passed, "without any bug, {target} must pass: {tests:?}");
        println!("{target}: {} tests pass without a bug ({} s)", tests.len(), from.elapsed().as_secs());
    }
    println!("{:<34} {:<8} {:<92} {:<12} seconds", "planted bug", "promise", "test", "");
    let mut missed = vec![];
    for bug in &bugs {
        let from = Instant::now();
        let files = planted(bug, root()).unwrap_or_else(|why| panic!("{why}"));
        let (target, test) = test_of(bug);
        let outcome = scratch.with(&files, || scratch.run(target, &[test], bug.lab));
        let told = match &outcome {
            Outcome::Failed => "caught",
            Outcome::Passed => "NOT CAUGHT",
            Outcome::Unbuilt(_) => "NOT BUILT",
            Outcome::Odd(_) => "ENDED ODDLY",
        };
        println!("{:<34} {:<8} {:<92} {told:<12} {}", bug.name, bug.promise, bug.test, from.elapsed().as_secs());
        match outcome {
            Outcome::Failed => {}
            Outcome::Passed => missed.push(format!("{}: {} ({})", bug.name, bug.breaks, bug.test)),
            Outcome::Unbuilt(said) | Outcome::Odd(said) => missed.push(format!("{}: {said}", bug.name)),
        }
    }
    let (all, seconds) = (bugs.len(), begun.elapsed().as_secs());
    println!("{} of {all} planted bugs were caught, in {seconds} s", all - missed.len());
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}
