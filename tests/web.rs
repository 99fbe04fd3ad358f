//! The HTTP server on a real listener: who is let in, what is shown, and what a flood does.
#![expect(clippy::disallowed_methods, reason = "a test: it measures how long a stop takes")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay::daemon::config::{HookSecrets, Secret};
use backstay::daemon::{Ended, Metrics, Status};
use backstay::web::{App, Limits, serve};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "hunter2";

/// A server of its own, with room for one hint: what is full is coalesced.
struct Server {
    address: SocketAddr,
    status: Status,
    metrics: Arc<Metrics>,
    hints: mpsc::Receiver<()>,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
    runtime: Runtime,
}

fn server(limits: Limits, secrets: HookSecrets) -> Server {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let status = Status::serving(["production".parse().expect("a name")]);
    let (hint, hints) = mpsc::channel(1);
    let metrics = Arc::new(Metrics::new());
    let app = App {
        status: status.clone(),
        metrics: Arc::clone(&metrics),
        secrets,
        hint: Arc::new(move || {
            // Full: one is waiting already.
            let _ = hint.try_send(());
        }),
    };
    let stop = CancellationToken::new();
    let task = runtime.spawn(serve(listener, app, limits, stop.clone()));
    Server { address, status, metrics, hints, stop, task, runtime }
}

fn all_doors() -> HookSecrets {
    let secret = || Some(Secret::new(SECRET));
    HookSecrets { github: secret(), gitlab: secret(), gitea: secret(), generic: secret() }
}

fn sign(body: &[u8]) -> String {
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET.as_bytes()).expect("a key").chain_update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

impl Server {
    /// Sends bytes, and gives back the status and the whole answer.
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        // A server that has answered already may have closed: what it said still counts.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> u16 {
        let mut request =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let mut request = request.into_bytes();
        request.extend(b"\r\n");
        request.extend(body);
        self.raw(&request).0
    }

    fn hinted(&mut self) -> bool {
        self.hints.try_recv().is_ok()
    }

    fn stopped(self) -> Duration {
        let asked = Instant::now();
        self.stop.cancel();
        self.runtime.block_on(self.task).expect("joined").expect("ended well");
        asked.elapsed()
    }
}

#[test]
fn health_and_readiness() {
    let server = server(Limits::default(), HookSecrets::default());
    assert_eq!(server.get("/healthz").0, 200);
    let (status, text) = server.get("/readyz");
    assert_eq!(status, 503);
    assert!(text.contains("waiting for the first look") && text.contains("ledger of `production`"), "{text}");
    server.status.git_seen();
    server.status.ledger(&"production".parse().expect("a name"), true);
    assert_eq!(server.get("/readyz").0, 200);
    assert_eq!(server.get("/").0, 404);
    assert_eq!(server.post("/healthz", &[], b""), 405);
    server.stopped();
}

#[test]
fn metrics_are_shown() {
    let server = server(Limits::default(), HookSecrets::default());
    server.metrics.fetched(Ended::Success);
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("application/openmetrics-text"), "{text}");
    assert!(text.contains("backstay_source_fetches_total{result=\"success\"} 1"), "{text}");
    assert!(text.contains("backstay_build_info"), "{text}");
    server.stopped();
}

#[test]
fn a_door_without_a_secret_does_not_exist() {
    let server = server(Limits::default(), HookSecrets { gitea: Some(Secret::new(SECRET)), ..HookSecrets::default() });
    for path in ["/hooks/github", "/hooks/gitlab", "/hooks/generic", "/hooks/other"] {
        assert_eq!(server.post(path, &[], b"{}"), 404, "{path}");
    }
    assert_eq!(server.post("/hooks/gitea", &[], b"{}"), 401);
    assert_eq!(server.get("/hooks/gitea").0, 405);
    server.stopped();
}

#[test]
fn a_genuine_push_brings_the_look_forward() {
    let mut server = server(Limits::default(), all_doors());
    let body = br#"{"ref": "refs/heads/main"}"#;
    let (tag, prefixed) = (sign(body), format!("sha256={}", sign(body)));
    for (path, headers) in [
        ("/hooks/github", vec![("X-Hub-Signature-256", prefixed.as_str()), ("X-GitHub-Event", "push")]),
        ("/hooks/gitlab", vec![("X-Gitlab-Token", SECRET), ("X-Gitlab-Event", "Push Hook")]),
        ("/hooks/gitea", vec![("X-Gitea-Signature", tag.as_str()), ("X-Gitea-Event", "push")]),
        ("/hooks/generic", vec![("X-Backstay-Signature", prefixed.as_str())]),
        ("/hooks/generic", vec![("X-Signature-256", prefixed.as_str())]),
    ] {
        assert_eq!(server.post(path, &headers, body), 202, "{path}");
        assert!(server.hinted(), "{path}");
        assert_eq!(server.post(path, &headers[1..], body), 401, "{path}");
        assert!(!server.hinted(), "{path}");
    }
    let ping = [("X-Hub-Signature-256", prefixed.as_str()), ("X-GitHub-Event", "ping")];
    assert_eq!(server.post("/hooks/github", &ping, body), 200);
    assert!(!server.hinted());
    let (_, text) = server.get("/metrics");
    assert!(text.contains(r#"backstay_webhook_hints_total{provider="github",result="ignored"} 1"#), "{text}");
    server.stopped();
}

#[test]
fn a_wrong_signature_is_refused_with_nothing_parsed() {
    let mut server = server(Limits::default(), all_doors());
    let tag = format!("sha256={}", sign(b"{}"));
    // No JSON at all, and another body than the signed one: the answer is about the signature, not about the body.
    for body in [&b"\xff\xfe not JSON"[..], b"{} ", b""] {
        let headers =
            [("X-Hub-Signature-256", tag.as_str()), ("X-GitHub-Event", "push"), ("Content-Type", "application/json")];
        assert_eq!(server.post("/hooks/github", &headers, body), 401);
    }
    // Genuine and no JSON: nothing in it is needed.
    let tag = sign(b"\xff\xfe");
    assert_eq!(
        server.post("/hooks/gitea", &[("X-Gitea-Signature", &tag), ("X-Gitea-Event", "push")], b"\xff\xfe"),
        202
    );
    assert!(server.hinted());
    server.stopped();
}

#[test]
fn a_large_body_is_cut_off() {
    let mut server = server(Limits::default(), all_doors());
    let most = vec![b'x'; 1024 * 1024];
    let tag = sign(&most);
    assert_eq!(server.post("/hooks/gitea", &[("X-Gitea-Signature", &tag)], &most), 202);
    assert!(server.hinted());
    let (head, length) = ("POST /hooks/gitea HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", most.len() + 1);
    assert_eq!(server.raw(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes()).0, 413, "as announced");
    // In chunks, the length is only known once it is too long.
    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n").into_bytes();
    chunked.resize(chunked.len() + length, b'x');
    chunked.extend(b"\r\n0\r\n\r\n");
    assert_eq!(server.raw(&chunked).0, 413, "as counted");
    assert!(!server.hinted());
    server.stopped();
}

/// Section 3, the network: a gigabyte is cut at the limit, whether it is announced or not, and whatever it is signed with.
#[test]
fn a_gigabyte_is_not_read() {
    const GIGABYTE: usize = 1 << 30;
    let mut server = server(Limits::default(), all_doors());
    let chunk = vec![b'x'; 64 * 1024];
    for announced in [true, false] {
        let mut stream = TcpStream::connect(server.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let length =
            if announced { format!("Content-Length: {GIGABYTE}") } else { "Transfer-Encoding: chunked".to_owned() };
        let head = format!(
            "POST /hooks/github HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256={}\r\n{length}\r\n\r\n",
            sign(b"{}")
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut sent = 0;
        while sent < GIGABYTE {
            let line = format!("{:x}\r\n", chunk.len());
            let framed = if announced { Ok(()) } else { stream.write_all(line.as_bytes()) };
            if framed.and_then(|()| stream.write_all(&chunk)).is_err() {
                break;
            }
            if !announced && stream.write_all(b"\r\n").is_err() {
                break;
            }
            sent += chunk.len();
        }
        // The limit, and what the system's buffers took before they were full.
        assert!(sent < 64 << 20, "{sent} bytes were taken");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert_eq!(server.get("/healthz").0, 200);
    }
    assert!(!server.hinted());
    server.stopped();
}

/// R2: who opens connections and says nothing keeps nobody out for long.
#[test]
fn idle_connections_give_their_places_back() {
    let limits = Limits { connections: 8, head_time: Duration::from_millis(300), ..Limits::default() };
    let server = server(limits, HookSecrets::default());
    let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(server.address).expect("connected")).collect();
    // Some begin a head, and say a byte now and then.
    for mut stream in idle.iter().take(20) {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").expect("sent");
    }
    assert_eq!(server.get("/healthz").0, 200, "its turn comes while all of them stay");
    for mut stream in &idle {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut answer = Vec::new();
        // An error is an end too.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    }
    server.stopped();
}

/// R2: who asks again and again and takes no answer keeps nobody out for long either.
#[test]
fn callers_that_take_no_answers_give_their_places_back() {
    let limits = Limits { connections: 2, stall: Duration::from_millis(300), ..Limits::default() };
    let server = server(limits, HookSecrets::default());
    let ask = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64);
    let stuck: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).expect("connected");
            stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
            // Until nothing more fits in either direction.
            while stream.write_all(&ask).is_ok() {}
            stream
        })
        .collect();
    assert_eq!(server.get("/healthz").0, 200, "its turn comes while both of them stay");
    drop(stuck);
    server.stopped();
}

/// R2: who sends a body byte by byte holds a place no longer than any request may take, whatever it is signed with.
#[test]
fn bodies_that_drip_give_their_places_back() {
    let limits = Limits { connections: 4, request: Duration::from_millis(500), ..Limits::default() };
    let mut server = server(limits, all_doors());
    let address = server.address;
    let head = format!(
        "POST /hooks/gitea HTTP/1.1\r\nHost: x\r\nX-Gitea-Signature: {}\r\nContent-Length: 1000000\r\n\r\n",
        sign(b"{}")
    );
    // Each of them takes up a place again and again; a byte comes long before anybody would call it idle.
    let answers: Vec<String> = std::thread::scope(|scope| {
        let drips: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = TcpStream::connect(address).expect("connected");
                    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
                    let (mut sent, mut answer) = (stream.write_all(head.as_bytes()).is_ok(), vec![]);
                    let mut buffer = [0; 1024];
                    let began = Instant::now();
                    loop {
                        assert!(began.elapsed() < Duration::from_mins(1), "it is never let go");
                        match stream.read(&mut buffer) {
                            Ok(0) => break,
                            Ok(read) => answer.extend(&buffer[..read]),
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                            Err(_) => break,
                        }
                        sent = sent && stream.write_all(b"x").is_ok();
                    }
                    String::from_utf8_lossy(&answer).into_owned()
                })
            })
            .collect();
        for _ in 0..4 {
            assert_eq!(server.get("/healthz").0, 200, "its turn comes while all of them drip");
        }
        // Nobody is left to wait for: each was answered, or cut, within its time.
        drips.into_iter().map(|drip| drip.join().expect("it is let go")).collect()
    });
    for answer in &answers {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 408")), "{answers:?}");
    assert!(!server.hinted());
    server.stopped();
}

/// Section 3, the network: what may be read in two ways is read in none.
#[test]
fn ambiguous_requests_are_refused() {
    let mut server = server(Limits::default(), all_doors());
    let tag = sign(b"{}");
    let head = format!("POST /hooks/gitea HTTP/1.1\r\nHost: x\r\nX-Gitea-Signature: {tag}\r\nConnection: close\r\n");
    for rest in [
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        "Content-Length: +2\r\n\r\n{}",
        "Content-Length: 2, 3\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\n{}",
        "X: y\r\n folded\r\nContent-Length: 2\r\n\r\n{}",
        "X\0: y\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let (status, answer) = server.raw(format!("{head}{rest}").as_bytes());
        assert!(status == 0 || (400..500).contains(&status), "{rest:?}: {answer}");
        assert!(!server.hinted(), "{rest:?}");
    }
    for target in ["/hooks/gitea/../github", "/hooks//gitea", "/hooks/gitea/", "//hooks/gitea", "/hooks/%67itea/x"] {
        assert_eq!(server.post(target, &[("X-Gitea-Signature", &tag)], b"{}"), 404, "{target}");
    }
    assert_eq!(server.get("/healthz").0, 200);
    server.stopped();
}

#[test]
fn slow_and_huge_requests_end() {
    let quick = Duration::from_millis(200);
    let limits = Limits { head_time: quick, request: quick, head: 8 * 1024, headers: 16, ..Limits::default() };
    let server = server(limits, all_doors());
    let head = "POST /hooks/gitea HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n";
    assert_eq!(server.raw(format!("{head}Connection: close\r\n\r\nabc").as_bytes()).0, 408, "a body that never ends");
    assert_eq!(server.raw(head.as_bytes()).0, 0, "a head that never ends is cut");
    let many = (0..40).map(|n| format!("X-{n}: y\r\n")).collect::<Vec<_>>().concat();
    assert_eq!(server.raw(format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).0, 431);
    let long = "y".repeat(64 * 1024);
    assert_eq!(server.raw(format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n").as_bytes()).0, 431);
    assert_eq!(server.get("/healthz").0, 200, "others are served all the while");
    server.stopped();
}

#[test]
fn more_connections_than_allowed_wait_for_their_turn() {
    let server = server(
        Limits { connections: 1, head_time: Duration::from_secs(20), ..Limits::default() },
        HookSecrets::default(),
    );
    let idle = TcpStream::connect(server.address).expect("connected");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.get("/healthz").0);
        drop(idle);
        assert_eq!(waiting.join().expect("answered"), 200);
    });
    server.stopped();
}

/// R4: a storm of webhooks is one running and one queued fetch.
#[test]
fn ten_thousand_posts_are_at_most_one_hint_ahead() {
    const POSTS: usize = 10_000;
    const CALLERS: usize = 8;
    let mut server = server(Limits::default(), all_doors());
    let tag = sign(b"{}");
    let one = format!(
        "POST /hooks/gitea HTTP/1.1\r\nHost: x\r\nX-Gitea-Signature: {tag}\r\nX-Gitea-Event: push\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let address = server.address;
    let accepted: usize = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = TcpStream::connect(address).expect("connected");
                    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
                    stream.set_nodelay(true).expect("no delay");
                    let mut answer = vec![0; 4096];
                    (0..POSTS / CALLERS)
                        .filter(|_| {
                            stream.write_all(one.as_bytes()).expect("sent");
                            let mut read = 0;
                            while !answer[..read].ends_with(b"looking at Git\n") {
                                read += stream.read(&mut answer[read..]).expect("an answer");
                                assert!(read < answer.len(), "another answer");
                            }
                            answer.starts_with(b"HTTP/1.1 202")
                        })
                        .count()
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("answered")).sum()
    });
    assert_eq!(accepted, POSTS);
    assert!(server.hinted(), "one is waiting");
    assert!(!server.hinted(), "and no more than one");
    assert!(
        server.get("/metrics").1.contains(r#"backstay_webhook_hints_total{provider="gitea",result="taken"} 10000"#)
    );
    server.stopped();
}

#[test]
fn a_stop_ends_idle_connections_at_once_and_stuck_ones_after_the_grace() {
    let idle = server(Limits::default(), HookSecrets::default());
    let stream = TcpStream::connect(idle.address).expect("connected");
    assert_eq!(idle.get("/healthz").0, 200);
    assert!(idle.stopped() < Duration::from_secs(4), "an idle connection holds nothing up");
    drop(stream);

    let grace = Duration::from_millis(100);
    let stuck = server(Limits { grace, request: Duration::from_mins(1), ..Limits::default() }, all_doors());
    let mut stream = TcpStream::connect(stuck.address).expect("connected");
    stream.write_all(b"POST /hooks/gitea HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").expect("sent");
    assert_eq!(stuck.get("/healthz").0, 200, "the stuck one was accepted before");
    let address = stuck.address;
    assert!(stuck.stopped() < Duration::from_secs(4));
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}
