//! Runs command lines as a person would type them, and compares what they say with what was kept.
//!
//! A script is a text: files to begin with (`-- path --`, then their content, up to the next such line or `--`),
//! comments (`#`), and lines to type (`$ …`), which `sh` runs one after another in one folder. What is kept beside it
//! (`.out`) has each line again, its standard output, its standard error behind `! `, and `[exit N]` unless it was 0.
//! `BLESS=1` keeps what is said now.
#![expect(clippy::disallowed_methods, reason = "a test: it reads and writes files")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variables that a script is given beside the usual ones.
pub(crate) type Variables<'a> = &'a [(&'a str, String)];

/// Runs every script of `folder`, and fails with what differs.
pub(crate) fn run_all(folder: &str, variables: Variables<'_>, mask: impl Fn(String) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut scripts = named(&folder, "txt");
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", folder.display());
    let mut wrong = Vec::new();
    for script in &scripts {
        let kept_at = script.with_extension("out");
        let said = mask(run(script, variables));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&kept_at, &said).expect("kept");
        }
        let kept = std::fs::read_to_string(&kept_at).unwrap_or_default();
        if kept != said {
            let diff = similar::TextDiff::from_lines(&kept, &said);
            wrong.push(format!("{}\n{}", script.display(), diff.unified_diff().header("kept", "said")));
        }
    }
    for kept in named(&folder, "out") {
        let script = kept.with_extension("txt");
        assert!(script.exists(), "{} has no script", kept.display());
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 keeps what is said now", wrong.join("\n"));
}

fn named(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn run(script: &Path, variables: Variables<'_>) -> String {
    let text = std::fs::read_to_string(script).expect("a script");
    let folder = tempfile::tempdir().expect("a folder");
    let (home, work) = (folder.path().join("home"), folder.path().join("work"));
    for made in [&home, &work] {
        std::fs::create_dir(made).expect("a folder");
    }
    let mut said = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(typed) = line.strip_prefix("$ ") {
            let _ = writeln!(said, "{line}");
            said.push_str(&answer(typed, &home, &work, variables));
        } else if let Some(path) = line.strip_prefix("-- ").and_then(|line| line.strip_suffix(" --")) {
            let mut content = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("-- ") && *line != "--") {
                let _ = writeln!(content, "{line}");
            }
            let path = work.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, content).expect("written");
        } else {
            assert!(line.is_empty() || line.starts_with('#') || line == "--", "{}: {line}", script.display());
            if line.starts_with('#') {
                let _ = writeln!(said, "{line}");
            }
        }
    }
    said.replace(&*work.to_string_lossy(), "$WORK").replace(&*home.to_string_lossy(), "$HOME")
}

/// What one line says: nothing of this machine or of who runs the test gets in.
fn answer(typed: &str, home: &Path, work: &Path, variables: Variables<'_>) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_backstay"));
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", program.parent().expect("a folder").display());
    let mut command = Command::new("sh");
    command
        .args(["-c", typed])
        .current_dir(work)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env("TERM", "dumb")
        .env("LC_ALL", "C.UTF-8")
        .env("EXAMPLE", Path::new(env!("CARGO_MANIFEST_DIR")).join("example-repo"))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Alice Example")
        .env("GIT_AUTHOR_EMAIL", "alice@example.com")
        .env("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z")
        .env("GIT_COMMITTER_NAME", "Alice Example")
        .env("GIT_COMMITTER_EMAIL", "alice@example.com")
        .env("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z")
        .stdin(Stdio::null());
    for (name, value) in variables {
        command.env(name, value);
    }
    let output = command.output().expect("sh");
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !said.is_empty() && !said.ends_with('\n') {
        said.push_str("(no line feed)\n");
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        let _ = writeln!(said, "! {line}");
    }
    match output.status.code() {
        Some(0) => {}
        Some(code) => {
            let _ = writeln!(said, "[exit {code}]");
        }
        None => said.push_str("[killed]\n"),
    }
    said.push('\n');
    said
}
