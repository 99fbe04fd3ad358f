//! Law 11: a secret that lies wherever it may is searched for in all that the daemon leaves behind.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::daemon::{Daemon, Repo, River, Server, condition, holds, until};
use crate::lab::lab;

/// Put together here, so that no scanner takes this file for a leak.
fn canary() -> String {
    ["sk", "C4n4ryTh4tMustNeverBeSeen", "987"].join("-")
}

/// All that the daemon keeps, shows and says, by what it is; what it wrote to Git apart.
async fn kept(river: &River, daemon: &Daemon) -> Vec<(&'static str, String)> {
    let mut words = vec![];
    for arguments in [
        &["status"][..],
        &["status", "-o", "json"],
        &["status", "support"],
        &["status", "support", "-o", "json"],
        &["history", "support"],
        &["history", "support", "-o", "json"],
        &["plan"],
        &["plan", "-o", "json"],
        &["diff", "support"],
        &["diff", "support", "-o", "json"],
    ] {
        words.push(("a command", format!("{arguments:?} {:?}", daemon.run(arguments))));
    }
    for page in ["/metrics", "/readyz", "/healthz"] {
        words.push(("a page", daemon.get(page).await.expect("a page").1));
    }
    for collection in [
        "events",
        "events.k8s.io/v1/events",
        "backstay.dev/v1alpha1/agentreleases",
        "backstay.dev/v1alpha1/agentenvironments",
        "configmaps",
        "coordination.k8s.io/v1/leases",
    ] {
        let list = river.lab.ask(http::Method::GET, &river.lab.path(collection), None).await.expect("a list");
        assert!(list["items"].is_array(), "{collection}");
        words.push((collection, list.to_string()));
    }
    let journal = daemon.config.with_extension("journal");
    words.push(("the journal", std::fs::read_to_string(journal).expect("a journal")));
    words.push(("the log", daemon.log()));
    words
}

#[tokio::test]
async fn a_secret_is_found_nowhere_that_words_are_kept() {
    let Some(lab) = lab("canary").await else { return };
    let repo = Repo::small();
    let server = Server::http(repo.parent());
    let file = |name: &str| {
        let path = repo.parent().join(name);
        std::fs::write(&path, canary()).expect("a secret");
        path
    };
    // The token that opens Git, and the secret of the webhooks.
    let (token, hook) = (file("token"), file("hook"));
    let source = format!(
        "url = \"http://{}/repo.git\"\ninterval = \"1s\"\ntoken_file = \"{}\"\n",
        server.address,
        token.display()
    );
    // What agents read, and what lies beside it.
    let secret = json!({"metadata": {"name": "canary"}, "stringData": {"key": canary(), "url": format!("postgres://u:{}@db/x", canary())}});
    lab.make("secrets", secret).await;
    let river = River::with_source(lab, repo, source).await;
    let daemon = river.start_as("one", &format!("webhooks.github.secret_file = \"{}\"", hook.display())).await;
    river.settled(&river.repo.head()).await;

    // Somebody writes it onto a live object by hand: it is drift, and told of.
    let drift = json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "env": [{"name": "LOG_LEVEL", "value": canary()}]}]}}}});
    let path = format!("{}/support?fieldManager=somebody", river.lab.path("apps/v1/deployments"));
    let request = http::Request::patch(path).header("content-type", "application/strategic-merge-patch+json");
    let request = request.body(drift.to_string().into_bytes()).expect("a request");
    river.lab.client.request::<serde_json::Value>(request).await.expect("changed by hand");
    let plan = daemon.run(&["plan"]);
    let diff = daemon.run(&["diff", "support"]);
    until("the drift is healed", async || {
        let live = river.lab.see("apps/v1/deployments", "support").await?;
        (!live.to_string().contains(&canary())).then_some(())
    })
    .await;

    // A commit that holds it in plain text is refused, and told of.
    let overlay = "environments/development/support.yaml";
    let from = "env: {LOG_LEVEL: DEBUG}";
    river.repo.edit(overlay, from, &format!("env: {{LOG_LEVEL: DEBUG, OPENAI_API_KEY: {}}}", canary()));
    river.repo.commit("Write a secret down");
    let status = until("the status names the place", async || {
        Some(daemon.done(&["status"])).filter(|status| status.contains(&format!("{overlay}:")))
    })
    .await;
    // A hook that is not signed, with it in the body and in a header.
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = http.post(format!("http://127.0.0.1:{}/hooks/github", daemon.port)).body(canary());
    let answer = request.header("x-hub-signature-256", format!("sha256={}", canary())).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 401);
    let answer = answer.text().await.expect("text");
    river.repo.revert(&["HEAD"]);
    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
    river.repo.revert(&["HEAD"]);
    river.settled(&river.repo.head()).await;

    let mut words = vec![
        ("plan", format!("{plan:?}")),
        ("diff", format!("{diff:?}")),
        ("status of the bad commit", status),
        ("the hook's answer", answer),
    ];
    words.extend(kept(&river, &daemon).await);
    let bare = river.repo.bare();
    words.push((
        "messages of commits",
        river.repo.git(&["--git-dir", bare.to_str().expect("a path"), "log", "--all", "--format=%B%an%cn"]),
    ));
    for (what, text) in &words {
        assert!(!text.contains("C4n4ryTh4tMust"), "{what}: {text}");
    }
    assert!(words.iter().all(|(_, text)| !text.is_empty()), "all of it says something");
}

/// A way to a Git server for those who have the token. Who has not is told all that he said, wherever there is room for it.
struct Guard {
    address: SocketAddr,
    /// What opens it.
    token: Arc<Mutex<String>>,
    /// Whether it may be written to.
    writable: Arc<AtomicBool>,
}

impl Guard {
    fn before(server: String, token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let guard = Self {
            address: listener.local_addr().expect("an address"),
            token: Arc::new(Mutex::new(token.to_owned())),
            writable: Arc::new(AtomicBool::new(true)),
        };
        let (token, writable) = (Arc::clone(&guard.token), Arc::clone(&guard.writable));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, token, writable) = (server.clone(), Arc::clone(&token), Arc::clone(&writable));
                std::thread::spawn(move || {
                    let token = token.lock().expect("no panic before").clone();
                    let _ = pass(stream, &server, &token, writable.load(Ordering::Acquire));
                });
            }
        });
        guard
    }
}

/// Lets one connection through, or answers its first request itself.
fn pass(mut near: TcpStream, server: &str, token: &str, writable: bool) -> std::io::Result<()> {
    let mut head = vec![];
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match near.read(&mut buffer)? {
            0 => return Ok(()),
            read => head.extend(&buffer[..read]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let says = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let Some(said) = says("authorization") else {
        let asks = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return near.write_all(asks.as_bytes());
    };
    let right = said == format!("Basic {}", base64(&format!("x-access-token:{token}")));
    if !right || text.contains("git-receive-pack") && !writable {
        let body = format!("{said} may not, and {} neither\n", decoded(&said));
        let no = format!(
            "HTTP/1.1 403 {said}\r\nX-Said: {said}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        return near.write_all(no.as_bytes());
    }
    let mut far = TcpStream::connect(server)?;
    far.write_all(&head)?;
    let (mut back, mut there) = (far.try_clone()?, near.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut there);
        let _ = there.shutdown(std::net::Shutdown::Both);
    });
    std::io::copy(&mut near, &mut far)?;
    far.shutdown(std::net::Shutdown::Write)
}

fn base64(text: &str) -> String {
    by_base64(&["-w", "0"], text)
}

/// The credentials of a header, as they were before they were coded.
fn decoded(header: &str) -> String {
    by_base64(&["-d"], header.trim_start_matches("Basic "))
}

fn by_base64(arguments: &[&str], text: &str) -> String {
    use std::process::{Command, Stdio};
    let mut command = Command::new("base64");
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("base64 runs");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    String::from_utf8_lossy(&child.wait_with_output().expect("base64 ends").stdout).trim().to_owned()
}

// Law 11
#[tokio::test]
async fn what_opens_git_signs_and_asks_for_figures_is_found_nowhere() {
    let Some(lab) = lab("keys").await else { return };
    let repo = Repo::small();
    let named = |of: &str| ["c4n4ry", of, "Th4tMustNeverBeSeen"].join("-");
    let (right, wrong) = (named("right"), named("wrong"));
    let file = |name: &str, text: &str| {
        let path = repo.parent().join(name);
        std::fs::write(&path, text).expect("a secret");
        path.display().to_string()
    };
    let (token, hook, bearer) = (file("token", &right), file("hook", &named("hook")), file("bearer", &named("bearer")));
    let key = repo.parent().join("signing");
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "daemon@example.com", "-f"]).arg(&key);
    assert!(keygen.status().expect("ssh-keygen runs").success());
    let private = std::fs::read_to_string(&key).expect("a key");
    // Past what every such key begins with, and the public half.
    let private: Vec<&str> = private.lines().rev().skip(1).take(2).collect();

    let server = Server::http(repo.parent());
    let guard = Guard::before(server.address.clone(), &right);
    let source = format!(
        "url = \"http://{}/repo.git\"\ninterval = \"1s\"\ntoken_file = \"{token}\"\nsigning_key = \"{}\"\n",
        guard.address,
        key.display()
    );
    let river = River::with_source(lab, repo, source).await;
    let values = json!({"stringData": {"openai-api-key": named("agent"), "database-url": format!("postgres://u:{}@db/x", named("database"))}});
    river.lab.merge("secrets", "agent-secrets", "somebody", &values).await;
    let more = format!(
        "webhooks.generic.secret_file = \"{hook}\"\n[metrics.main.prometheus]\nurl = \"http://{}/\"\ntoken_file = \"{bearer}\"\n",
        guard.address
    );
    let daemon = river.start_as("one", &more).await;
    river.settled(&river.repo.head()).await;
    let hello = river.greets("Hello!").await;
    let north = river.repo.commit_greeting("Moin!");
    river.settled(&north).await;
    river.greets("Moin!").await;
    let mut words = vec![];

    // It may read, and not write: the target goes back, Git is not told, and why is said in words that hold no token.
    guard.writable.store(false, Ordering::Release);
    words.push(("rollback", daemon.done(&["rollback", "support", "--reason", "too northern"])));
    assert_eq!(river.greets("Hello!").await, hello);
    let behind = river.recorded("Git is not told", |record| condition(record, "GitBehind").is_some()).await;
    words.push(("the record while Git is not told", behind.to_string()));
    words.push(("the status while Git is not told", daemon.done(&["status", "support"])));
    words.push(("a revert by hand", format!("{:?}", daemon.run(&["revert", "support"]))));
    // It may not even read, with a token that is wrong.
    std::fs::write(&token, &wrong).expect("a secret");
    let failing = |record: &Value| {
        condition(record, "Ready").is_some_and(|ready| ready["status"] != "True") && record.to_string().contains("403")
    };
    let record = until("it says that Git refuses it", async || river.environment().await.filter(failing)).await;
    words.push(("the record while Git refuses", record.to_string()));
    words.push(("the status while Git refuses", daemon.done(&["status"])));
    words.push(("a plan while Git refuses", format!("{:?}", daemon.run(&["plan"]))));

    // All is well again: Backstay's own commit is signed, and a note or a message says no more than it should.
    std::fs::write(&token, &right).expect("a secret");
    guard.writable.store(true, Ordering::Release);
    let remote = async || river.repo.git(&["ls-remote", "origin", "main"]);
    until("Git is told", async || (!remote().await.starts_with(&north)).then_some(())).await;
    river.recorded("Git agrees", |record| holds(record, "Ready", "") && record["differs"].is_null()).await;
    river.repo.git(&["pull", "-q", "--ff-only", "origin", "main"]);
    assert!(river.repo.git(&["cat-file", "commit", "HEAD"]).contains("BEGIN SSH SIGNATURE"), "it is signed");
    // A hook that says the secrets of all others, and is signed by none.
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let all = format!("{:?}", [named("hook"), named("bearer"), right.clone()]);
    let post = http.post(format!("http://127.0.0.1:{}/hooks/generic", daemon.port)).body(all);
    let answer = post.header("x-signature-256", format!("sha256={}", named("hook"))).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 401);
    words.push(("the hook's answer", answer.text().await.expect("text")));

    words.extend(kept(&river, &daemon).await);
    let bare = river.repo.bare();
    let bare = bare.to_str().expect("a path");
    words.push(("commits and notes", river.repo.git(&["--git-dir", bare, "log", "--all", "-p", "--format=raw"])));
    let mut secrets: Vec<String> =
        ["hook", "bearer", "agent", "database"].iter().map(|of| named(of)).chain([right, wrong]).collect();
    for secret in secrets.clone() {
        secrets.extend([base64(&secret), base64(&format!("x-access-token:{secret}"))]);
    }
    secrets.extend(private.iter().map(|line| (*line).to_owned()));
    let mut found = vec![];
    for (what, text) in &words {
        assert!(!text.is_empty(), "{what} says something");
        // Parts too: nothing is cut short and then shown.
        for secret in &secrets {
            let part = &secret[..secret.len().min(16)];
            if text.contains(part) || text.contains("Th4tMust") {
                found.push(format!("{what}: {part}…: {text}"));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
