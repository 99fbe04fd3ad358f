//! The walk of the README: each block fenced as ```` ```console ```` is run line by line.
//!
//! A line `$ command` is run by `bash` and must end well. The lines under it must stand in what it says, in that
//! order, where `…` is any text. All blocks share one empty folder, in which `example-repo` is a copy of the project's.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A command and what it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its line in the README.
    pub(crate) line: usize,
    pub(crate) command: String,
    pub(crate) says: Vec<String>,
}

/// The folder that the walk is taken in.
pub(crate) struct Walk {
    dir: TempDir,
    binaries: PathBuf,
}

/// The commands of every console block.
pub(crate) fn blocks(readme: &str) -> Vec<Step> {
    let (mut steps, mut within) = (Vec::<Step>::new(), false);
    for (line, text) in readme.lines().enumerate() {
        if text.starts_with("```") {
            within = text == "```console";
        } else if !within {
        } else if let Some(command) = text.strip_prefix("$ ") {
            steps.push(Step { line: line + 1, command: command.to_owned(), says: vec![] });
        } else if let Some(step) = steps.last_mut().filter(|_| !text.trim().is_empty()) {
            step.says.push(text.to_owned());
        }
    }
    steps
}

/// Whether `said` has these lines in this order; the first that is missing otherwise.
fn missing<'a>(said: &str, lines: &'a [String]) -> Option<&'a str> {
    let mut said = said.lines();
    lines.iter().map(String::as_str).find(|line| !said.any(|said| matches(said.trim_end(), line.trim_end())))
}

/// Whether `text` is `pattern`, in which `…` is any text.
fn matches(text: &str, pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('…').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return text == pattern };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

// === impl Walk ===

impl Walk {
    /// Lays the folder out.
    pub(crate) fn start(root: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-r").arg(root.join("example-repo")).arg(dir.path()).status().unwrap();
        assert!(copied.success());
        let binaries = Path::new(env!("CARGO_BIN_EXE_backstay")).parent().unwrap().to_owned();
        Self { dir, binaries }
    }

    /// Runs one command, with a home and a Git of its own; the error is what to tell a person.
    pub(crate) fn run(&self, step: &Step) -> Result<(), String> {
        let path = format!("{}:{}", self.binaries.display(), std::env::var("PATH").unwrap_or_default());
        let git = [("GIT_AUTHOR_NAME", "Alice"), ("GIT_COMMITTER_NAME", "Alice"), ("GIT_CONFIG_NOSYSTEM", "1")];
        let mail = [("GIT_AUTHOR_EMAIL", "alice@example.com"), ("GIT_COMMITTER_EMAIL", "alice@example.com")];
        let ended = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &step.command])
            .current_dir(self.dir.path())
            .env("PATH", path)
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env("NO_COLOR", "1")
            .envs(git)
            .envs(mail)
            .output()
            .unwrap();
        let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let at = format!("README.md:{}: `{}`", step.line, step.command);
        if !ended.status.success() {
            return Err(format!("{at}: {}\n{said}", ended.status));
        }
        match missing(&said, &step.says) {
            Some(missing) => Err(format!("{at} does not say `{missing}` where it should, but\n{said}")),
            None => Ok(()),
        }
    }
}

#[test]
fn a_walk_is_read_and_its_failures_are_seen() {
    let readme = "text\n```console\n$ echo one two; echo three\none …\nthree\n\n$ true\n```\n```sh\n$ false\n```\n";
    let steps = blocks(readme);
    let step = |line, command: &str, says: &[&str]| Step {
        line,
        command: command.to_owned(),
        says: says.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(steps, [step(3, "echo one two; echo three", &["one …", "three"]), step(7, "true", &[])]);
    let walk = Walk::start(Path::new(env!("CARGO_MANIFEST_DIR")));
    for right in steps.iter().chain([&step(0, "test -f example-repo/backstay.yaml", &[])]) {
        assert_eq!(walk.run(right), Ok(()));
    }
    for wrong in [step(1, "exit 3", &[]), step(1, "echo three; echo one", &["one", "three"])] {
        assert!(walk.run(&wrong).is_err(), "{wrong:?} was not seen to fail");
    }
}

#[test]
fn three_dots_are_any_text() {
    for (text, pattern, expected) in [
        ("abc", "abc", true),
        ("abc", "a…c", true),
        ("abc", "…", true),
        ("abc", "a…d", false),
        ("axbyc", "a…b…c", true),
    ] {
        assert_eq!(matches(text, pattern), expected, "{text} {pattern}");
    }
}
