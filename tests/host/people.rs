//! The command line for a host: its verbs over the socket, and the logs of its agents.

use std::fs;
use std::path::Path;
use std::process::Command;

use backstay::ledger::Ledger;
use backstay::reconcile::LedgerEntry;
use backstay::sys;

use super::socket::{Served, ledger};

/// A configuration beside the state folder, whose repository nobody asks.
pub(crate) fn configuration(folder: &Path) {
    let text = format!(
        "[source]\nurl = \"{}\"\n[state]\nfolder = \"{}\"\n[[target]]\nenvironment = \"development\"\nhost = {{}}\n",
        folder.join("agents.git").display(),
        folder.join("state").display()
    );
    fs::write(folder.join("backstay.toml"), text).expect("written");
}

/// What a command says, and how it ends.
pub(crate) async fn typed(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
    command.args(args).arg("--config").arg(folder.join("backstay.toml")).env("NO_COLOR", "1");
    command.current_dir(folder).env_remove("KUBECONFIG");
    let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("run");
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (ran.status.code(), said)
}

async fn suspended_by(ledger: &Ledger) -> Option<String> {
    let entry = ledger.agent(&"support".parse().expect("a name")).await.expect("read");
    let LedgerEntry::Present { requests, .. } = entry else { panic!("{entry:?}") };
    let requests = serde_json::to_value(requests).expect("JSON");
    requests.pointer("/suspend/by").and_then(|by| by.as_str()).map(str::to_owned)
}

#[tokio::test]
async fn the_verbs_ask_the_daemon_of_this_machine() {
    let served = Served::start().await;
    let folder = served.folder.path().to_owned();
    configuration(&folder);
    let (code, said) = typed(&folder, &["status"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("development") && said.contains("support"), "{said}");
    let (code, said) = typed(&folder, &["suspend", "support", "--no-wait"]).await;
    assert_eq!(code, Some(0), "{said}");
    let me = sys::account(sys::own_uid());
    assert_eq!(suspended_by(&ledger(served.api.client())).await, Some(me));
    let (code, said) = typed(&folder, &["history", "supporter"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("did you mean `support`?"), "{said}");
    let _folder = served.end().await;
    for verb in [&["status"][..], &["suspend", "support"], &["sync"], &["plan"]] {
        let (code, said) = typed(&folder, verb).await;
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains("the daemon of this machine is not running") && said.contains("backstay run"), "{said}");
    }
}

#[tokio::test]
async fn logs_are_read_without_a_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    configuration(folder.path());
    let host = folder.path().join("state/host");
    for (process, pod, text) in [
        ("support", "support-1-0", "one\ntwo\n\u{1b}[31mthree\nfour"),
        ("support", "support-2-0", "of the second\n"),
        ("support--indexer", "support--indexer-1-0", "indexed\n"),
    ] {
        let logs = host.join("logs").join(process).join(pod);
        fs::create_dir_all(&logs).expect("a folder");
        fs::write(logs.join("00000001-1764000000.log"), text).expect("written");
    }
    fs::create_dir_all(host.join("instances/support-1-0")).expect("a folder");
    let said = async |args: &[&str]| typed(folder.path(), args).await;
    let running = "one\ntwo\n\\u{1b}[31mthree\nfour\n".to_owned();
    assert_eq!(said(&["logs", "support"]).await, (Some(0), running), "what runs; nothing that a terminal obeys");
    assert_eq!(said(&["logs", "support", "--tail", "1"]).await, (Some(0), "four\n".to_owned()));
    let second = said(&["logs", "support", "--instance", "support-2-0"]).await;
    assert_eq!(second, (Some(0), "of the second\n".to_owned()));
    assert_eq!(said(&["logs", "support", "--worker", "indexer"]).await, (Some(0), "indexed\n".to_owned()));
    fs::create_dir_all(host.join("instances/support-2-0")).expect("a folder");
    let (_, both) = said(&["logs", "support"]).await;
    assert!(both.contains("support-1-0 | one\n") && both.contains("support-2-0 | of the second\n"), "{both}");
    for (args, hint) in [
        (&["logs", "research"][..], "there are logs of `support`"),
        (&["logs", "support", "--instance", "support-3-0"], "did you mean `support-1-0`?"),
        (&["logs", "support", "--worker", "../x"], "cannot be the name of a worker"),
    ] {
        let (code, said) = said(args).await;
        assert!(code == Some(2) && said.contains(hint), "{args:?} {code:?} {said}");
    }
}

#[tokio::test]
async fn logs_are_followed_into_what_begins_later() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().expect("a folder");
    configuration(folder.path());
    let logs = folder.path().join("state/host/logs/support");
    let write = |pod: &str, text: &str| {
        fs::create_dir_all(logs.join(pod)).expect("a folder");
        fs::write(logs.join(pod).join("00000001-1764000000.log"), text).expect("written");
    };
    write("support-1-0", "old\n");
    let mut following = Command::new(env!("CARGO_BIN_EXE_backstay"))
        .args(["logs", "support", "--follow", "--config"])
        .arg(folder.path().join("backstay.toml"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("run");
    let mut lines = BufReader::new(following.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("read");
    assert_eq!(next(), "support-1-0 | old");
    write("support-2-0", "new\n");
    assert_eq!(next(), "support-2-0 | new");
    following.kill().expect("killed");
    following.wait().expect("ended");
}
