//! A push deploys, and a revert takes it back, over each way to Git.

use crate::audit::{self, Audit};
use crate::daemon::{Daemon, Repo, River, Server, condition, until};
use crate::lab::lab;
use crate::stories;

/// Waits until the daemon has looked at Git that many times more.
async fn looks(daemon: &Daemon, times: f64) {
    let series = "backstay_source_polls_total{result=\"success\"}";
    let before = daemon.metric(series).await;
    until("more looks at Git", async || (daemon.metric(series).await >= before + times).then_some(())).await;
}

/// Waits until the daemon has not looked at Git for a second; gives how often it did before.
async fn quiet(daemon: &Daemon) -> f64 {
    let (mut last, mut same) = (0.0, 0);
    until("no more looks at Git", async || {
        let now = daemon.metric("backstay_source_polls_total{result=\"success\"}").await;
        same = if now.total_cmp(&last).is_eq() { same + 1 } else { 0 };
        last = now;
        (same >= 20).then_some(now)
    })
    .await
}

// K13
#[tokio::test]
async fn a_push_deploys_and_a_revert_takes_it_back() {
    let Some(lab) = lab("push").await else { return };
    let repo = Repo::whole();
    let server = Server::http(repo.parent());
    let source = server.http_source("1s");
    let river = River::with_source(lab, repo, source).await;
    let daemon = river.start().await;
    stories::push_and_revert(&river, &daemon).await;

    river.at_rest().await;
    let (before, audit) = (river.versions().await, Audit::now());
    looks(&daemon, 5.0).await;
    assert_eq!(river.versions().await, before, "who has nothing to do writes nothing");
    // Nor does it ask for a write that changes nothing: its Lease apart, as the server's own record has it.
    let calls = audit.calls(&river.lab.namespace);
    let by_us = |call: &&audit::Call| call.user == "admin" && call.writes() && call.right.1 != "leases";
    let writes: Vec<_> = calls.iter().filter(by_us).collect();
    assert!(writes.is_empty(), "{writes:?}");
    assert!(calls.iter().any(|call| call.user == "admin"), "the record shows this time");
}

#[tokio::test]
async fn over_ssh_too_and_only_from_the_host_that_is_known() {
    let Some(lab) = lab("ssh").await else { return };
    let repo = Repo::small();
    let server = Server::ssh();
    let wrong = server.ssh_source(&repo, "other");
    let river = River::with_source(lab, repo, wrong).await;
    let daemon = river.spawn("stranger", "");
    until("the host key is refused", async || {
        river.environment().await.filter(|record| {
            let ready = condition(record, "Ready");
            ready.is_some_and(|ready| ready["status"] == "False" && ready["reason"] == "UnknownHostKey")
        })
    })
    .await;
    let status = daemon.done(&["status"]);
    assert!(status.contains("Git cannot be read: the host key of") && status.contains("hint:"), "{status}");
    daemon.kill();
    assert!(river.record("support").await.is_none(), "nothing came from a host that is not known");

    server.ssh_source(&river.repo, "host");
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
    river.greets("Ahoy!").await;
    let reverted = river.repo.revert(&["HEAD"]);
    river.settled(&reverted).await;
    assert_eq!(river.greets("Hello!").await, first);
    assert_eq!(daemon.newest()["cause"]["revert"]["evidence"], "Verified");
}

#[tokio::test]
async fn a_signed_hook_wakes_it() {
    use hmac::{KeyInit as _, Mac as _};
    let Some(lab) = lab("hook").await else { return };
    let repo = Repo::small();
    // Not from a folder, which is watched.
    let server = Server::http(repo.parent());
    let source = server.http_source("10m");
    let river = River::with_source(lab, repo, source).await;
    let file = river.repo.parent().join("secret");
    std::fs::write(&file, "very secret, this one").expect("a secret");
    let door = format!("webhooks.github.secret_file = \"{}\"", file.display());
    let daemon = river.start_as("one", &door).await;
    river.settled(&river.repo.head()).await;
    let before = quiet(&daemon).await;

    let pushed = river.repo.commit_greeting("Ahoy!");
    let body = format!("{{\"ref\": \"refs/heads/main\", \"after\": \"{pushed}\"}}");
    let knock = async |secret: &str| {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
        mac.update(body.as_bytes());
        let hex: Vec<_> = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let signature = hex.concat();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = http.post(format!("http://127.0.0.1:{}/hooks/github", daemon.port)).body(body.clone());
        let request = request.header("x-github-event", "push").header("content-type", "application/json");
        let request = request.header("x-hub-signature-256", format!("sha256={signature}"));
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(knock("another").await, 401);
    let refused = "backstay_webhook_hints_total{provider=\"github\",result=\"refused\"}";
    assert_eq!((daemon.metric(refused).await, quiet(&daemon).await), (1.0, before), "nothing happens");

    assert!((200..300).contains(&knock("very secret, this one").await));
    river.settled(&pushed).await;
    river.greets("Ahoy!").await;
}
