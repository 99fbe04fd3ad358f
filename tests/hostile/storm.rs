//! R4: a storm of webhooks, through the real listener and the real poller, is one running and one queued look at Git.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use backstay::daemon::config::{HookSecrets, Secret};
use backstay::daemon::{Metrics, Status};
use backstay::source::{Mirror, Poller, SourceConfig, SystemClock, Wishes};
use backstay::web::{App, Limits, serve};
use hmac::{Hmac, KeyInit as _, Mac as _};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::git::{Answer, GitServer, TestRepo};

const POSTS: usize = 100_000;
const CALLERS: usize = 8;
/// Requests that are sent before their answers are read.
const AHEAD: usize = 50;

/// A repository behind a server that can be held, the poller that looks at it, and the doors that bring a look forward.
struct Scene {
    server: GitServer,
    /// Whether requests are answered, and whether one waits.
    gate: Arc<(Mutex<bool>, Condvar)>,
    waiting: Arc<AtomicBool>,
    poller: Poller,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    stop: CancellationToken,
    web: JoinHandle<std::io::Result<()>>,
    runtime: Runtime,
    _files: (TestRepo, tempfile::TempDir),
}

/// A post with this body, signed with `secret`.
fn post(secret: &[u8], body: &str) -> String {
    let tag = Hmac::<sha2::Sha256>::new_from_slice(secret).expect("a key").chain_update(body).finalize();
    let tag: String = tag.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "POST /hooks/gitea HTTP/1.1\r\nHost: x\r\nX-Gitea-Signature: {tag}\r\nX-Gitea-Event: push\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

// === impl Scene ===

impl Scene {
    fn new() -> Self {
        let repo = TestRepo::with_one_commit();
        let gate = Arc::new((Mutex::new(true), Condvar::new()));
        let waiting = Arc::new(AtomicBool::new(false));
        let (hold, told) = (Arc::clone(&gate), Arc::clone(&waiting));
        let server = GitServer::http_with(repo.parent(), move |_| {
            let (open, changed) = &*hold;
            told.store(true, Ordering::Release);
            let guard = open.lock().expect("the gate");
            drop(changed.wait_while(guard, |open| !*open).expect("the gate"));
            Answer::Serve
        });
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = SourceConfig { interval: Duration::from_hours(1), ..SourceConfig::new(server.url("agents.git")) };
        let mirror = Arc::new(Mirror::open(folder.path(), config).expect("a mirror"));
        let poller = Poller::start(mirror, Wishes::default(), 7, Arc::new(SystemClock)).expect("a poller");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (hinter, metrics) = (poller.hinter(), Arc::new(Metrics::new()));
        let app = App {
            status: Status::serving(["production".parse().expect("a name")]),
            metrics: Arc::clone(&metrics),
            secrets: HookSecrets { gitea: Some(Secret::new("hunter2")), ..HookSecrets::default() },
            hint: Arc::new(move || hinter.hint()),
        };
        let stop = CancellationToken::new();
        let web = runtime.spawn(serve(listener, app, Limits::default(), stop.clone()));
        Self { server, gate, waiting, poller, metrics, address, stop, web, runtime, _files: (repo, folder) }
    }

    /// Waits until so many looks have ended and none runs; gives how many.
    fn round(&self, at_least: u64) -> u64 {
        let mut status = self.poller.status();
        self.runtime.block_on(async {
            let there = status.wait_for(|status| status.round >= at_least && status.busy_since.is_none());
            let now = tokio::time::timeout(Duration::from_mins(1), there).await.expect("in time");
            now.expect("the poller runs").round
        })
    }

    /// Lets requests wait from here on, or go on.
    fn open(&self, open: bool) {
        *self.gate.0.lock().expect("the gate") = open;
        self.gate.1.notify_all();
    }

    /// Sends the same post so often; gives how many got this answer.
    fn storm(&self, one: &str, posts: usize, answer: &str, ends: &str) -> usize {
        let many = one.repeat(AHEAD);
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut stream = TcpStream::connect(self.address).expect("connected");
                        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
                        let (mut taken, mut buffer) = (0, vec![0; 64 * 1024]);
                        for _ in 0..posts / CALLERS / AHEAD {
                            stream.write_all(many.as_bytes()).expect("sent");
                            let (mut text, mut answers) = (String::new(), 0);
                            while answers < AHEAD {
                                let read = stream.read(&mut buffer).expect("answers");
                                assert!(read > 0, "it is closed: {text}");
                                text += &String::from_utf8_lossy(&buffer[..read]);
                                answers = text.matches(ends).count();
                            }
                            taken += text.matches(answer).count();
                        }
                        taken
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().expect("answered")).sum()
        })
    }

    /// Sends one post; gives the first line of the answer.
    fn send(&self, post: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        stream.write_all(post.as_bytes()).expect("sent");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    /// What was counted of hints that ended so.
    fn hints(&self, result: &str) -> String {
        let text = self.metrics.render().expect("metrics");
        let series = format!("backstay_webhook_hints_total{{provider=\"gitea\",result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or("0").to_owned()
    }

    fn end(self) {
        self.stop.cancel();
        self.runtime.block_on(self.web).expect("joined").expect("ended well");
    }
}

#[test]
fn a_hundred_thousand_posts_are_one_running_and_one_queued_look() {
    let scene = Scene::new();
    let first = scene.round(1);
    let asked = scene.server.requests().len();
    // The look that runs is held until the storm is over.
    scene.open(false);
    scene.waiting.store(false, Ordering::Release);
    let taken = scene.storm(&post(b"hunter2", "{}"), POSTS, "HTTP/1.1 202", "looking at Git\n");
    assert_eq!(taken, POSTS);
    assert!(scene.waiting.load(Ordering::Acquire), "a look began, and is held");
    scene.open(true);
    let last = scene.round(first + 2);
    assert_eq!(last, first + 2, "one that ran, and one that was queued");
    assert_eq!(scene.server.requests().len(), asked + 2, "each asked once");
    scene.end();
}

// Section 3, the network: what is not signed starts nothing, whatever is in it; what is signed is a hint, however often
// it comes: each time it is one look more at what Git has, and changes nothing else.
#[test]
fn a_flood_that_nobody_signed_starts_nothing_and_a_replay_is_one_look() {
    const FLOOD: usize = 20_000;
    let scene = Scene::new();
    let first = scene.round(1);
    let asked = scene.server.requests().len();
    // Whoever reads it would be told of it: it is no JSON, nested without end, and names a repository.
    let evil = format!("{{\"repository\": {{\"clone_url\": \"http://127.0.0.1:1/\"}}, \"x\": {}", "[".repeat(1000));
    let refused = scene.storm(&post(b"hunter3", &evil), FLOOD, "HTTP/1.1 401", "wrong or missing\n");
    assert_eq!(refused, FLOOD, "each is refused for its signature, none for what is in it");
    assert_eq!((scene.hints("refused"), scene.hints("taken")), (FLOOD.to_string(), "0".to_owned()));

    // The same bytes that were right once are one look each time: had the flood begun any, there would be more.
    let right = post(b"hunter2", &evil);
    for replay in 1..=3 {
        assert!(scene.send(&right).starts_with("HTTP/1.1 202"));
        assert_eq!(scene.round(first + replay), first + replay);
        assert_eq!(u64::try_from(scene.server.requests().len() - asked), Ok(replay), "each look asks Git once");
    }
    // The signature of one body is none of another.
    let (head, _) = right.split_once("\r\n\r\n").expect("a head");
    let forged = format!("{head}\r\n\r\n{}", evil.replace("127.0.0.1", "127.0.0.2"));
    assert!(scene.send(&forged).starts_with("HTTP/1.1 401"));
    assert_eq!(scene.hints("taken"), "3");
    scene.end();
}
