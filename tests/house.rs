//! The floor plan is a test: who imports whom, what pure rooms may say, and what stands where.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: it reads files, and a panic is its failure"
)]

#[path = "house/lints.rs"]
mod lints;
#[path = "house/promises.rs"]
mod promises;
#[path = "house/source.rs"]
mod source;
#[path = "house/walk.rs"]
mod walk;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use source::{code, crate_paths, modules, words};

/// Rooms that are plain functions of their arguments.
const PURE: [&str; 12] = [
    "model",
    "flag",
    "migration",
    "record",
    "wire",
    "desired",
    "render",
    "judge",
    "rollout",
    "plan",
    "revert",
    "reconcile",
];

/// What a pure room never says: time, chance, files, network and tasks are arguments or somebody else's.
const NOT_PURE: [&str; 20] = [
    "async",
    "await",
    "tokio",
    "futures",
    "SystemTime",
    "Instant",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "Timestamp::now",
    "Zoned::now",
    "TcpStream",
    "reqwest",
    "git2",
    "kube::Api",
    "rand",
    "thread_rng",
    "disallowed_methods",
];

/// Lines at which a file must have been split.
const LONGEST: usize = 800;

/// What may stand at the top, beside tool settings in dot-files.
const TOP: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "example-repo",
    "manifests",
    "tests",
    "systemd",
    "Dockerfile",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// All files beneath `folder` with that extension, sorted.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|found| found == extension) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The rooms in river order: the `pub mod` lines of `lib.rs`.
fn rooms() -> Vec<String> {
    let lib = code(&read(&root().join("src/lib.rs")));
    let rooms = modules(&lib).into_iter().map(|module| module.name).collect::<Vec<_>>();
    assert!(rooms.len() > 10, "the rooms of src/lib.rs were not found: {rooms:?}");
    rooms
}

/// Every source file of a room.
fn files_of(room: &str) -> Vec<PathBuf> {
    let single = root().join(format!("src/{room}.rs"));
    let mut found = files(&root().join("src").join(room), "rs");
    found.extend(single.exists().then_some(single));
    assert!(!found.is_empty(), "src/{room} has no file");
    found
}

#[test]
fn imports_point_upstream() {
    let rooms = rooms();
    let mut wrong = vec![];
    for (floor, room) in rooms.iter().enumerate() {
        for file in files_of(room) {
            for used in crate_paths(&code(&read(&file))) {
                let upstream = rooms[..=floor].contains(&used);
                let faces = matches!((room.as_str(), used.as_str()), ("web", "cli") | ("cli", "web"));
                if !upstream || faces {
                    wrong.push(format!("{}: `{room}` may not import `{used}`", shown(&file)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_are_pure() {
    let mut wrong = vec![];
    for room in rooms().iter().filter(|room| PURE.contains(&room.as_str())) {
        for file in files_of(room) {
            let text = code(&read(&file));
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let said = words(text);
            for word in NOT_PURE {
                if source::says(text, &said, word) {
                    wrong.push(format!("{}: a pure room says `{word}`", shown(&file)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn shell_rooms_say_that_they_are() {
    const LINE: &str = "#![allow(clippy::disallowed_methods, reason = \"";
    let mut wrong = vec![];
    for room in rooms().iter().filter(|room| !PURE.contains(&room.as_str())) {
        let door = root().join(format!("src/{room}/mod.rs"));
        let text = if door.exists() { read(&door) } else { read(&root().join(format!("src/{room}.rs"))) };
        let empty = code(&text).trim().is_empty();
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
        if !empty && !joined.contains(LINE) {
            wrong.push(format!("{}: a shell room opens with `{LINE}…`", shown(&door)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_file_is_forgotten() {
    let tests = root().join("tests");
    let manifest = read(&root().join("Cargo.toml"));
    assert!(!manifest.contains("autotests"), "the test files are found by their place: no `autotests` in Cargo.toml");
    let is_root = |path: &Path| {
        let folder = path.parent().unwrap();
        // A bench is named by its path: beside tests it would be taken for one.
        let named = manifest.contains(&format!("path = \"{}\"", shown(path)));
        named || folder == tests || (path.ends_with("main.rs") && folder.parent() == Some(&tests))
    };
    let all: BTreeSet<PathBuf> = files(&tests, "rs").into_iter().collect();
    let mut reached: BTreeSet<PathBuf> = all.iter().filter(|path| is_root(path)).cloned().collect();
    let mut left: Vec<PathBuf> = reached.iter().cloned().collect();
    while let Some(file) = left.pop() {
        let folder = file.parent().unwrap();
        let own = if is_root(&file) || file.ends_with("mod.rs") { folder.to_owned() } else { file.with_extension("") };
        for module in modules(&code(&read(&file))) {
            let own = module.within.iter().fold(own.clone(), |path, name| path.join(name));
            let candidates = match &module.path {
                Some(path) => vec![folder.join(path)],
                None => vec![own.join(format!("{}.rs", module.name)), own.join(&module.name).join("mod.rs")],
            };
            for candidate in candidates {
                let candidate = plain(&candidate);
                if all.contains(&candidate) && reached.insert(candidate.clone()) {
                    left.push(candidate);
                }
            }
        }
    }
    let forgotten: Vec<String> = all.difference(&reached).map(|path| shown(path)).collect();
    assert!(forgotten.is_empty(), "no test includes {}", forgotten.join(", "));
    assert!(reached.len() >= 2, "{reached:?}");
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        if part == std::path::Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
        plain
    })
}

#[test]
fn no_file_is_too_long() {
    let all = ["src", "tests"].into_iter().flat_map(|folder| files(&root().join(folder), "rs"));
    let long = all.map(|path| (read(&path).lines().count(), shown(&path))).filter(|(lines, _)| *lines > LONGEST);
    let long: Vec<_> = long.collect();
    assert!(long.is_empty(), "split these: {long:?}");
}

#[test]
fn only_what_belongs_stands_at_the_top() {
    let ignored = read(&root().join(".gitignore"));
    let ignored: BTreeSet<&str> = ignored.lines().filter_map(|line| line.strip_prefix('/')).collect();
    let mut wrong = vec![];
    for entry in std::fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let setting =
            name.starts_with('.') && (entry.file_type().unwrap().is_file() || [".ci", ".git"].contains(&name.as_str()));
        if !setting && !TOP.contains(&name.as_str()) && !ignored.contains(name.as_str()) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "at the top stand {wrong:?}, which are neither tool settings nor {TOP:?}");
}

// Run with `--nocapture` it prints which test holds which promise.
#[test]
fn every_promise_has_a_test_by_name() {
    let files = ["src", "tests"].into_iter().flat_map(|folder| files(&root().join(folder), "rs"));
    let files: Vec<_> = files.filter(|path| !path.ends_with("house/promises.rs")).collect();
    let index = promises::index(files.iter().map(|path| (shown(path), read(path))));
    println!("{}", promises::table(&index));
    let wrong = promises::missing(&index);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// What a person is told to run is what is run here, word by word.
#[test]
fn the_readmes_walk_runs() {
    let walk = walk::Walk::start(root());
    for step in walk::blocks(&read(&root().join("README.md"))) {
        if let Err(told) = walk.run(&step) {
            panic!("{told}");
        }
    }
}
