//! `backstay demo`, as a person runs it.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: it reads files and starts processes, and a panic is its failure"
)]

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn demo(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
    // The keeper stands beside it; Cargo builds it for every test.
    assert!(Path::new(env!("CARGO_BIN_EXE_backstay-keeper")).exists());
    command.args(["demo", "--output", "json", "--dir"]).arg(dir).args(args).output().unwrap()
}

fn backstay(dir: &Path, args: &[&str]) -> String {
    let ran = Command::new(env!("CARGO_BIN_EXE_backstay"))
        .args(args)
        .env("BACKSTAY_CONFIG", dir.join("backstay.toml"))
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ran.status.success(), "{args:?}: {said}");
    said
}

/// The processes whose command line or environment names a folder.
fn processes(dir: &Path) -> Vec<String> {
    let name = dir.display().to_string();
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = entries.filter(|name| name.bytes().all(|c| c.is_ascii_digit()));
    let names = |pid: &String| {
        ["cmdline", "environ"].iter().any(|file| {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&name)
        })
    };
    let own = std::process::id().to_string();
    pids.filter(|pid| *pid != own).filter(names).collect()
}

/// Ends a demo that a failed test left.
struct Ended<'a>(&'a Path);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if self.0.exists() {
            let _ = demo(self.0, &["--stop"]);
        }
    }
}

fn report(ran: &Output) -> Value {
    let (out, told) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}\n{out}\n{told}", ran.status);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}\n{out}"))
}

/// What every run must show.
fn check(report: &Value) {
    let text = |at: &str| report.pointer(at).and_then(Value::as_str).unwrap_or_else(|| panic!("{at} in {report}"));
    let number = |at: &str| report.pointer(at).and_then(Value::as_u64).unwrap_or_else(|| panic!("{at} in {report}"));
    assert!(text("/first/answer").contains("three working days"));
    assert!(text("/good/answer").contains("five working days"));
    assert_eq!(text("/unready/answer"), text("/good/answer"), "traffic is untouched");
    assert_eq!(number("/unready/given"), 0, "what never gets ready is given nothing");
    assert!(text("/unready/reason").contains("ready"));
    assert!(text("/reverted/bad_answer").contains("five working years"));
    assert_eq!(text("/reverted/answer"), text("/good/answer"));
    assert_eq!(text("/reverted/release"), text("/good/release"), "the very release that ran before");
    assert!(text("/killed/answer").starts_with("Welcome!"));
    assert!(number("/killed/processes") > 0);
    assert_eq!(number("/killed/same"), number("/killed/processes"), "no process of an agent noticed");
    // The main act: what the canary said, why it went back, what Git says, and that it stays out.
    let said: Vec<_> =
        report["canary"]["said"].as_array().unwrap().iter().map(|said| said["answer"].to_string()).collect();
    assert!(said.iter().any(|answer| answer.contains("refund_everything")), "{said:?}");
    assert!(said.iter().any(|answer| answer.contains("FREE-4-ALL")), "{said:?}");
    assert!(["prompt_injection", "unexpected_tool_use"].contains(&text("/canary/word")), "{report}");
    assert!(text("/canary/reason").contains("nothing is allowed"), "{report}");
    assert!(number("/canary/given") > 0 && number("/canary/given") < number("/canary/traffic/requests") / 2);
    let message = text("/canary/commit/message");
    for part in [
        "Revert \"refunds made easy\"",
        "This reverts commit ",
        "nothing is allowed",
        "Backstay-Agent: support",
        "Backstay-Environment: development",
        &format!("Backstay-Release: {}", text("/canary/release").trim_start_matches("r-")),
        &format!("Backstay-Reason: {}", text("/canary/word")),
    ] {
        assert!(message.contains(part), "`{part}` in {message}");
    }
    assert_eq!(text("/canary/answer"), text("/killed/answer"), "the old answers");
    assert!(text("/again/why").contains(text("/canary/reason")), "{report}");
    assert_eq!((text("/again/answer"), number("/again/given")), (text("/canary/answer"), 0));
    for act in ["good", "unready", "reverted", "killed", "canary", "again"] {
        assert!(number(&format!("/{act}/traffic/requests")) >= 100);
        assert_eq!(number(&format!("/{act}/traffic/failed")), 0, "{act} in {report}");
    }
}

#[test]
fn the_demo_shows_the_whole_promise_and_ends_clean() {
    let outside = tempfile::tempdir().unwrap();
    let dir = outside.path().join("demo");
    let _ended = Ended(&dir);
    check(&report(&demo(&dir, &["--exit"])));
    assert_eq!(processes(&dir), Vec::<String>::new(), "nothing is left running");
}

#[test]
fn a_demo_runs_on_beside_another_and_a_second_run_begins_anew() {
    let outside = tempfile::tempdir().unwrap();
    let (one, other) = (outside.path().join("one"), outside.path().join("other"));
    let _ended = (Ended(&one), Ended(&other));
    // Both at once: each finds ports of its own.
    let both = std::thread::scope(|scope| {
        let first = scope.spawn(|| report(&demo(&one, &[])));
        let second = scope.spawn(|| report(&demo(&other, &["--exit"])));
        [first.join().unwrap(), second.join().unwrap()]
    });
    both.iter().for_each(check);
    assert_eq!(processes(&other), Vec::<String>::new());
    assert!(backstay(&one, &["status"]).contains("support"), "it can be played with");
    assert!(backstay(&one, &["history", "support"]).contains("revert"));
    assert!(backstay(&one, &["logs", "support"]).contains("answered"), "what an agent wrote");

    check(&report(&demo(&one, &["--exit"])));
    assert_eq!(processes(&one), Vec::<String>::new());
    let config = fs::read_to_string(one.join("backstay.toml")).unwrap();
    let port = config.split("listen = [\"127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "nobody listens any more");
}
