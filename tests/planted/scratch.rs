//! A copy of the sources to plant bugs in, with a place of its own to build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Seconds that a test may take before it counts as hung.
const PATIENCE: &str = "300";
/// Lines of what a build or a test said that are shown.
const SHOWN: usize = 25;

/// A copy of the sources.
pub(crate) struct Scratch {
    root: PathBuf,
    sources: PathBuf,
    target: PathBuf,
}

/// How the tests ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that were named ran, and passed.
    Passed,
    /// One of them failed by a panic of its own.
    Failed,
    /// The sources do not build; what was said last.
    Unbuilt(String),
    /// Something else: a hang, a crash, a test that is not there; what was said last.
    Odd(String),
}

// === impl Scratch ===

impl Scratch {
    /// The copy that was used last, brought up to date; `PLANTED_DIR` says where it is kept.
    pub(crate) fn open(root: &Path) -> Self {
        let kept = std::env::var_os("PLANTED_DIR").map_or_else(|| root.join("target/planted"), PathBuf::from);
        let scratch = Self { root: root.to_owned(), sources: kept.join("sources"), target: kept.join("target") };
        std::fs::create_dir_all(&scratch.sources).expect("a folder");
        scratch.copy();
        scratch.seed();
        scratch
    }

    /// Copies what differs, so that what was built of the rest is still good.
    fn copy(&self) {
        let mut list = Command::new("git");
        list.args(["ls-files", "-z", "-c", "-o", "--exclude-standard"]).current_dir(&self.root);
        let list = list.output().expect("git runs");
        assert!(list.status.success(), "a checkout is needed: {}", String::from_utf8_lossy(&list.stderr));
        let names = String::from_utf8(list.stdout).expect("names in UTF-8");
        let names: BTreeSet<&str> = names.split('\0').filter(|name| self.root.join(name).is_file()).collect();
        for name in &names {
            let (from, to) = (self.root.join(name), self.sources.join(name));
            if std::fs::read(&from).ok() != std::fs::read(&to).ok() {
                std::fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
                std::fs::copy(&from, &to).expect("copied");
            }
        }
        let mut folders = vec![self.sources.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(&self.sources).expect("beneath it").to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if !names.contains(&*name) {
                    std::fs::remove_file(&path).expect("removed");
                }
            }
        }
    }

    /// Where nothing was built yet: the dependencies of the build that runs this are linked, and not built again.
    fn seed(&self) {
        let built = std::env::current_exe().expect("this test").ancestors().nth(2).map(Path::to_owned);
        let Some(built) = built.filter(|built| built.join("deps").is_dir() && !self.target.exists()) else { return };
        let to = self.target.join("debug");
        for folder in ["deps", "build", ".fingerprint"] {
            std::fs::create_dir_all(&to).expect("a folder");
            let linked = Command::new("cp").arg("-al").arg(built.join(folder)).arg(to.join(folder)).status();
            if !linked.is_ok_and(|status| status.success()) {
                // Another file system: built from nothing.
                let _ = std::fs::remove_dir_all(&self.target);
                return;
            }
        }
        // What is built of the sources themselves is never shared: it would be written over.
        let tests = std::fs::read_dir(self.root.join("tests")).expect("the tests").filter_map(Result::ok);
        let tests = tests.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned));
        let own: Vec<String> = tests.chain(["backstay", "libbackstay"].map(str::to_owned)).collect();
        for folder in ["deps", ".fingerprint"] {
            for entry in std::fs::read_dir(to.join(folder)).expect("linked").filter_map(Result::ok) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if own.iter().any(|own| name.strip_prefix(&**own).is_some_and(|rest| rest.starts_with('-'))) {
                    let path = entry.path();
                    let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                    gone.expect("removed");
                }
            }
        }
    }

    /// Does something while these files are as they are said; then they are as they were.
    pub(crate) fn with<T>(&self, files: &BTreeMap<String, String>, work: impl FnOnce() -> T) -> T {
        let put = |name: &String, text: &[u8]| std::fs::write(self.sources.join(name), text).expect("written");
        let before: Vec<_> =
            files.keys().map(|name| (name, std::fs::read(self.sources.join(name)).expect("read"))).collect();
        files.iter().for_each(|(name, text)| put(name, text.as_bytes()));
        let done = work();
        before.iter().for_each(|(name, text)| put(name, text));
        done
    }

    /// Builds a test target, `lib` for the tests beside the code, and runs these tests of it.
    pub(crate) fn run(&self, target: &str, tests: &[&str], lab: bool) -> Outcome {
        let which: &[&str] = if target == "lib" { &["--lib"] } else { &["--test", target] };
        let cargo = [&["cargo", "test", "--locked", "--offline"], which].concat();
        // Inside the lab there is no network, and its time is better spent on tests.
        let built = self.command(&[&cargo[..], &["--no-run"]].concat());
        if !built.status.success() {
            return Outcome::Unbuilt(last(&built));
        }
        let with = self.root.join("tests/lab/with").display().to_string();
        let lab: &[&str] = if lab { &[&with] } else { &[] };
        let ran = self.command(&[&["timeout", "-k", "5", PATIENCE], lab, &cargo, &["--", "--exact"], tests].concat());
        let out = String::from_utf8_lossy(&ran.stdout);
        let ended = |how: &str| tests.iter().filter(|test| out.contains(&format!("test {test} ... {how}"))).count();
        let skipped = String::from_utf8_lossy(&ran.stderr).contains("skipped: ");
        if ran.status.success() && ended("ok") == tests.len() && !skipped {
            Outcome::Passed
        } else if ended("FAILED") > 0 && out.contains("panicked at") {
            Outcome::Failed
        } else {
            Outcome::Odd(last(&ran))
        }
    }

    fn command(&self, line: &[&str]) -> Output {
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).current_dir(&self.sources).stdin(Stdio::null());
        command.env("CARGO_TARGET_DIR", &self.target).env("CARGO_INCREMENTAL", "1").env("CARGO_TERM_COLOR", "never");
        // What the runner of this very test set is not for the inner one.
        for name in ["PLANTED", "RUST_TEST_THREADS", "CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        command.output().unwrap_or_else(|error| panic!("cannot run {}: {error}", line[0]))
    }
}

/// The end of what a command said.
fn last(output: &Output) -> String {
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
