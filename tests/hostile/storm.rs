//! R4: a storm of webhooks, through the real listener and the real poller, is one running and one queued look at Git.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use backstay::daemon::config::{HookSecrets, Secret};
use backstay::daemon::{Metrics, Status};
use backstay::source::{Mirror, Poller, SourceConfig, SystemClock, Wishes};
use backstay::web::{App, Limits, serve};
use hmac::{Hmac, KeyInit as _, Mac as _};
use tokio_util::sync::CancellationToken;

use crate::git::{Answer, GitServer, TestRepo};

const POSTS: usize = 100_000;
const CALLERS: usize = 8;
/// Requests that are sent before their answers are read.
const AHEAD: usize = 50;

#[test]
fn a_hundred_thousand_posts_are_one_running_and_one_queued_look() {
    let repo = TestRepo::with_one_commit();
    let gate = Arc::new((Mutex::new(true), Condvar::new()));
    let (hold, waiting) = (Arc::clone(&gate), AtomicBool::new(false));
    let waiting = Arc::new(waiting);
    let told = Arc::clone(&waiting);
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
    let mut status = poller.status();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut round = |at_least: u64| {
        runtime.block_on(async {
            let there = status.wait_for(|status| status.round >= at_least && status.busy_since.is_none());
            let now = tokio::time::timeout(Duration::from_mins(1), there).await.expect("in time");
            now.expect("the poller runs").round
        })
    };
    let first = round(1);
    let asked = server.requests().len();

    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let hinter = poller.hinter();
    let app = App {
        status: Status::serving(["production".parse().expect("a name")]),
        metrics: Arc::new(Metrics::new()),
        secrets: HookSecrets { gitea: Some(Secret::new("hunter2")), ..HookSecrets::default() },
        hint: Arc::new(move || hinter.hint()),
    };
    let stop = CancellationToken::new();
    let web = runtime.spawn(serve(listener, app, Limits::default(), stop.clone()));

    // The look that runs is held until the storm is over.
    *gate.0.lock().expect("the gate") = false;
    waiting.store(false, Ordering::Release);
    let tag = Hmac::<sha2::Sha256>::new_from_slice(b"hunter2").expect("a key").chain_update(b"{}").finalize();
    let tag: String = tag.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let one = format!(
        "POST /hooks/gitea HTTP/1.1\r\nHost: x\r\nX-Gitea-Signature: {tag}\r\nX-Gitea-Event: push\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let many = one.repeat(AHEAD);
    let taken: usize = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = TcpStream::connect(address).expect("connected");
                    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
                    let (mut taken, mut buffer) = (0, vec![0; 64 * 1024]);
                    for _ in 0..POSTS / CALLERS / AHEAD {
                        stream.write_all(many.as_bytes()).expect("sent");
                        let (mut text, mut answers) = (String::new(), 0);
                        while answers < AHEAD {
                            let read = stream.read(&mut buffer).expect("answers");
                            text += &String::from_utf8_lossy(&buffer[..read]);
                            answers = text.matches("looking at Git\n").count();
                        }
                        taken += text.matches("HTTP/1.1 202").count();
                    }
                    taken
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("answered")).sum()
    });
    assert_eq!(taken, POSTS);
    assert!(waiting.load(Ordering::Acquire), "a look began, and is held");
    *gate.0.lock().expect("the gate") = true;
    gate.1.notify_all();
    let last = round(first + 2);
    assert_eq!(last, first + 2, "one that ran, and one that was queued");
    assert_eq!(server.requests().len(), asked + 2, "each asked once");
    stop.cancel();
    runtime.block_on(web).expect("joined").expect("ended well");
}
