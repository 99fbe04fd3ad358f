//! Releases that are at fault: each leaves what serves alone, and the status says what is wrong and what to do.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use backstay::model::Digest;
use http::Method;
use serde_json::Value;

use crate::daemon::{BACKSTAY, Daemon, River, holds, until};
use crate::golden;
use crate::lab::lab;
use crate::serving::{CODE, OVERLAY, knock, serving};

const DEADLINE: &str = "progressDeadline: 60s\n";

/// Pushes a release with this code, or more lines in its overlay.
fn push(river: &River, code: &str, more: &str) -> String {
    river.repo.edit(OVERLAY, CODE, &format!("{code}\n"));
    river.repo.edit(OVERLAY, DEADLINE, &format!("progressDeadline: 5s\n{more}"));
    river.repo.commit("Change the code")
}

/// A command of the shell: `PROGRAM` stands for the example agent.
fn shell(script: &str) -> String {
    let script = script.replace("PROGRAM", &format!("{BACKSTAY} example-agent"));
    format!("code: {{command: [sh, -c, '{script}']}}")
}

/// Waits until the release was taken back, and what served still does.
async fn taken_back(name: &str, river: &River, daemon: &Daemon) {
    let back =
        |record: &Value| record["operation"].is_null() && record["quarantine"].as_array().map_or(0, Vec::len) == 1;
    river.recorded("it is back and in quarantine", back).await;
    golden::says(name, river, daemon).await;
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    assert_eq!(knock(river).await, Some(200), "what served still does");
}

/// Waits until it waits for something that is not the release's fault; then a revert makes all well.
async fn stalled(name: &str, word: &str, river: &River, daemon: &Daemon) {
    let record = river.recorded("it is Stalled", |record| holds(record, "Stalled", word)).await;
    assert!(record["quarantine"].as_array().is_none_or(Vec::is_empty), "{record}");
    golden::says(name, river, daemon).await;
    assert_eq!(knock(river).await, Some(200), "what served still does");
    river.repo.revert(&["HEAD"]);
    river.recorded("it is Ready", |record| holds(record, "Ready", "") && record["candidate"].is_null()).await;
}

#[tokio::test]
async fn a_command_that_is_not_found() {
    let (river, daemon) = serving(lab("command").await).await;
    push(&river, "code: {command: [python4, -m, support]}", "");
    taken_back("command-not-found", &river, &daemon).await;
}

#[tokio::test]
async fn an_artifact_that_is_missing() {
    let (river, daemon) = serving(lab("missing").await).await;
    std::fs::create_dir_all(river.lab.at("artifacts")).expect("a folder");
    push(&river, &format!("code: {{artifact: {{path: /support.tar.gz, sha256: \"{}\"}}}}", "ab".repeat(32)), "");
    stalled("artifact-missing", "artifact", &river, &daemon).await;
}

#[tokio::test]
async fn an_artifact_that_is_another_one() {
    let (river, daemon) = serving(lab("digest").await).await;
    std::fs::create_dir_all(river.lab.at("artifacts")).expect("a folder");
    std::fs::write(river.lab.at("artifacts/support.tar.gz"), "something else").expect("written");
    push(&river, &format!("code: {{artifact: {{path: /support.tar.gz, sha256: \"{}\"}}}}", "ab".repeat(32)), "");
    taken_back("artifact-digest", &river, &daemon).await;
}

/// A file over HTTPS by a server with an authority of its own; ends when it is dropped.
struct Https {
    server: std::process::Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Https {
    fn new(file: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(file), text).expect("written");
        let openssl = |arguments: &str| {
            let mut command = std::process::Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(folder.path());
            command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
            command.stderr(std::process::Stdio::null());
            command
        };
        let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        for made in [
            format!("{key} -keyout ca.key -out ca.pem -subj /CN=authority"),
            format!(
                "{key} -keyout leaf.key -out leaf.pem -subj /CN=leaf -CA ca.pem -CAkey ca.key \
                 -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
            ),
        ] {
            assert!(openssl(&made).status().expect("openssl runs").success(), "{made}");
        }
        let port = crate::daemon::free_port();
        let server = openssl(&format!("s_server -accept 127.0.0.1:{port} -cert leaf.pem -key leaf.key -WWW -quiet"));
        let server = { server }.spawn().expect("a server");
        Self { server, folder, port }
    }

    fn authority(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test]
async fn an_artifact_of_a_server_that_only_an_own_authority_vouches_for() {
    let (river, daemon) = serving(lab("https").await).await;
    let program = format!("#!/bin/sh\nexec {BACKSTAY} example-agent\n");
    let https = Https::new("agent", &program);
    until("the server listens", async || std::net::TcpStream::connect(("127.0.0.1", https.port)).ok().map(drop)).await;
    let (url, digest) = (format!("https://127.0.0.1:{}/agent", https.port), Digest::of(program.as_bytes()));
    let sha256 = digest.to_string();
    let pushed = push(
        &river,
        &format!("code: {{artifact: {{url: \"{url}\", sha256: \"{}\"}}}}", sha256.trim_start_matches("sha256:")),
        "",
    );
    river.recorded("it is Stalled", |record| holds(record, "Stalled", "certificate")).await;
    golden::says("artifact-not-trusted", &river, &daemon).await;
    assert_eq!(knock(&river).await, Some(200), "what served still does");
    daemon.kill();
    let _daemon = river.spawn_with("one", "", &[("SSL_CERT_FILE", &https.authority())]);
    river.settled(&pushed).await;
    until("it answers", async || (knock(&river).await == Some(200)).then_some(())).await;
}

#[tokio::test]
async fn a_port_that_a_stranger_has() {
    let (river, daemon) = serving(lab("port").await).await;
    let ports = async || -> Vec<u16> {
        let pods = river.lab.ask(Method::GET, &river.lab.path("pods"), None).await.expect("the pods");
        let port = |pod: &Value| pod["metadata"]["annotations"]["backstay.dev/port"].as_str()?.parse().ok();
        pods["items"].as_array().expect("a list").iter().filter_map(port).collect()
    };
    let before = ports().await;
    push(&river, &shell("exec sleep 3600"), "");
    let leased =
        until("a port is leased", async || ports().await.into_iter().find(|port| !before.contains(port))).await;
    let listener = TcpListener::bind(("127.0.0.1", leased)).expect("the agent does not listen");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    stalled("port-taken", "another process", &river, &daemon).await;
}

#[tokio::test]
async fn one_that_never_gets_ready() {
    let (river, daemon) = serving(lab("never").await).await;
    push(&river, CODE.trim_end(), "config: {demo: {notReady: true}}\n");
    taken_back("never-ready", &river, &daemon).await;
}

#[tokio::test]
async fn one_that_exits_at_once() {
    let (river, daemon) = serving(lab("exits").await).await;
    push(&river, CODE.trim_end(), "config: {demo: {crash: true}}\n");
    taken_back("exits-at-once", &river, &daemon).await;
}

#[tokio::test]
async fn one_that_exits_later_again_and_again_is_said_and_heals_by_itself() {
    let (river, daemon) = serving(lab("later").await).await;
    let broken = river.lab.at("broken");
    let script = "PROGRAM & while ! [ -e BROKEN ]; do sleep 0.1; done; kill $!; exit 3";
    let pushed = push(&river, &shell(&script.replace("BROKEN", &broken.display().to_string())), "");
    river.settled(&pushed).await;
    std::fs::write(&broken, "").expect("written");
    river.recorded("it is Degraded", |record| holds(record, "Degraded", "exit code 3")).await;
    golden::says("exits-later", &river, &daemon).await;
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    assert_eq!(knock(&river).await, Some(503), "nothing is ready");
    std::fs::remove_file(&broken).expect("removed");
    river.recorded("it is Ready", |record| holds(record, "Ready", "")).await;
    until("it answers", async || (knock(&river).await == Some(200)).then_some(())).await;
}

#[tokio::test]
async fn one_that_writes_a_lot_is_kept_and_its_log_is_bounded() {
    const MOST: u64 = (5 + 1) * (16 << 20);
    let (river, daemon) = serving(lab("log").await).await;
    let pushed = push(&river, &shell("yes 0123456789abcdef | head -c 200000000; exec PROGRAM"), "");
    river.settled(&pushed).await;
    golden::says("much-log", &river, &daemon).await;
    let folders = std::fs::read_dir(river.lab.at("state/host/logs/support")).expect("the logs");
    let files = folders.flatten().flat_map(|folder| std::fs::read_dir(folder.path()).expect("a log")).flatten();
    let bytes: u64 = files.map(|file| file.metadata().map_or(0, |meta| meta.len())).sum();
    assert!((16 << 20..MOST).contains(&bytes), "{bytes} bytes are kept");
}

#[tokio::test]
async fn one_that_ignores_sigterm_ends_all_the_same() {
    let mut lab = lab("stubborn").await;
    lab.more = "keep_old = \"1s\"\n".to_owned();
    let (river, daemon) = serving(lab).await;
    let pushed = push(&river, &shell("trap \"\" TERM; PROGRAM & while true; do sleep 1; done"), "");
    river.settled(&pushed).await;
    let alone = async |what: &str| until(what, async || <[_; 1]>::try_from(river.lab.instances()).ok()).await;
    let [stubborn] = alone("the release before has ended").await;
    river.repo.revert(&["HEAD"]);
    river.recorded("it is Ready", |record| holds(record, "Ready", "") && record["candidate"].is_null()).await;
    until("it has ended", async || (!stubborn.exists()).then_some(())).await;
    golden::says("ignores-sigterm", &river, &daemon).await;
    tokio::time::timeout(Duration::from_secs(5), alone("only one runs")).await.expect("nothing is left over");
}
