//! What happens between us and the API server: silence, cuts, and a server that asks to wait.
//!
//! A server of one's own says here what the real one says only under load: canned bytes, one connection after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backstay::apply::{Target, Unfenced};
use backstay::model::ObjectRef;
use backstay::observe::{Api, Kinds, Limiter, Observer, Pace};
use backstay::reconcile::FailureKind;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::lab::{Wire, eventually, lab};

/// Answers every request with what `say` gives for its path; nothing: says nothing for ever.
async fn server(say: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> (Api, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (say, asked) = (Arc::new(say), Arc::new(AtomicUsize::new(0)));
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (say, asked) = (say.clone(), counted.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                if stream.read_line(&mut line).await.is_err() {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                match say(line.split(' ').nth(1).unwrap_or_default()) {
                    Some(answer) => {
                        let _ = stream.get_mut().write_all(&answer).await;
                        let _ = stream.get_mut().shutdown().await;
                    }
                    None => std::future::pending().await,
                }
            });
        }
    });
    let mut config = kube::Config::new(url.parse().expect("a URL"));
    config.default_retry = false;
    let client = kube::Client::try_from(config).expect("a client");
    (Api::new(client, Limiter::seeded(4, 1)).with_timeout(Duration::from_secs(1)), asked)
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}").into_bytes()
}

fn target(api: Api) -> Target {
    Target::new(api.clone(), Arc::new(Kinds::new(api)), "n", Arc::new(Unfenced))
}

fn object() -> ObjectRef {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}});
    ObjectRef::of(&body, "n").expect("an identity")
}

#[tokio::test]
async fn whatever_is_no_answer_may_or_may_not_have_happened() {
    let cases: [(&str, Option<Vec<u8>>); 5] = [
        ("silence", None),
        ("a cut", Some(Vec::new())),
        ("a torn answer", Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"kind\":".to_vec())),
        ("torn JSON", Some(answer("200 OK", "", "{\"kind\":"))),
        ("no object", Some(answer("200 OK", "", "{}"))),
    ];
    for (what, said) in cases {
        let (api, _) = server(move |_| said.clone()).await;
        let failure = target(api).read(&object()).await.expect_err("nothing");
        assert_eq!(failure.kind, FailureKind::Unavailable { retry_after: None }, "{what}: {}", failure.message);
        assert!(failure.message.starts_with("cannot read ConfigMap/n/one: "), "{what}: {}", failure.message);
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let mut config = kube::Config::new(format!("http://{closed}").parse().expect("a URL"));
    config.default_retry = false;
    let api = Api::new(kube::Client::try_from(config).expect("a client"), Limiter::seeded(1, 1));
    let failure = target(api).read(&object()).await.expect_err("nobody listens");
    assert_eq!(failure.kind, FailureKind::Unavailable { retry_after: None });
    assert!(failure.message.contains("refused"), "{}", failure.message);
}

#[tokio::test]
async fn a_server_that_asks_to_wait_is_waited_for_by_all() {
    // K10
    let begun = Instant::now();
    let quiet = Duration::from_secs(1);
    let (api, asked) = server(move |_| {
        if begun.elapsed() < quiet {
            return Some(answer("429 Too Many Requests", "retry-after: 1\r\n", "Too many requests, please try again."));
        }
        Some(answer(
            "404 Not Found",
            "",
            &json!({"code": 404, "reason": "NotFound", "details": {"name": "one"}}).to_string(),
        ))
    })
    .await;
    let target = target(api);
    let failure = target.read(&object()).await.expect_err("busy");
    assert_eq!(failure.kind, FailureKind::Unavailable { retry_after: Some(1) });
    assert!(failure.message.contains("Too many requests"), "{}", failure.message);
    let reads = futures::future::join_all((0..20).map(|_| async {
        let done = target.read(&object()).await;
        (done.is_ok(), begun.elapsed())
    }))
    .await;
    assert!(reads.iter().all(|(done, at)| *done && *at >= quiet), "nobody came earlier: {reads:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 21, "and nobody came twice");
    let (first, last) = (reads.iter().map(|(_, at)| *at).min(), reads.iter().map(|(_, at)| *at).max());
    let spread = last.zip(first).and_then(|(last, first)| last.checked_sub(first));
    assert!(spread.is_some_and(|spread| spread > Duration::from_millis(150)), "no herd: {spread:?}");
}

#[tokio::test]
async fn a_busy_server_is_not_believed_for_ever() {
    let (api, _) = server(|_| Some(answer("503 Service Unavailable", "retry-after: 100000\r\n", ""))).await;
    let failure = target(api).read(&object()).await.expect_err("busy");
    assert_eq!(failure.kind, FailureKind::Unavailable { retry_after: Some(100_000) });
}

/// A pace for tests: everything shorter.
pub(crate) fn pace() -> Pace {
    Pace {
        watch: Duration::from_secs(2),
        grace: Duration::from_millis(500),
        first_wait: Duration::from_millis(100),
        longest_wait: Duration::from_secs(1),
    }
}

#[tokio::test]
async fn a_server_that_always_says_gone_is_not_asked_in_a_tight_loop() {
    // K11
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "5"}, "items": []});
    let gone =
        json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}});
    for watch in [
        answer("410 Gone", "", &gone["object"].to_string()),
        answer("200 OK", "", &format!("{gone}\n")),
        answer("200 OK", "", ""),
        answer("200 OK", "", "garbage\n"),
        answer("500 Internal Server Error", "", ""),
    ] {
        let list = list.to_string();
        let said = String::from_utf8_lossy(&watch).into_owned();
        let (api, asked) = server(move |path| {
            Some(if path.contains("watch=true") { watch.clone() } else { answer("200 OK", "", &list) })
        })
        .await;
        let stop = CancellationToken::new();
        let observer = Observer::new(api.clone(), Arc::new(Kinds::new(api)), "n", pace());
        let running = tokio::spawn({
            let (observer, stop) = (observer.clone(), stop.clone());
            async move { observer.run(stop).await }
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.cancel();
        running.await.expect("ended");
        let asked = asked.load(Ordering::SeqCst);
        // Nine kinds; without waiting there would be thousands.
        assert!(asked < 9 * 30, "{asked} requests in 2 s for {said}");
        assert!(asked >= 9 * 2, "{asked} requests in 2 s for {said}");
    }
}

#[tokio::test]
async fn a_list_whose_continue_expired_is_begun_again_and_is_never_taken_for_whole() {
    // K4
    let expired = Arc::new(AtomicUsize::new(0));
    let count = expired.clone();
    let item = |name: &str| {
        json!({"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "3",
        "labels": {"backstay.dev/agent": "support", "app.kubernetes.io/managed-by": "backstay"}}})
    };
    let page = |items: Value, more: &str| {
        let metadata = json!({"resourceVersion": "5", "continue": more});
        json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items}).to_string()
    };
    let (first, last) = (page(json!([item("one")]), "next"), page(json!([item("two")]), ""));
    let empty =
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "5"}, "items": []}).to_string();
    let (api, _) = server(move |path| {
        if path.contains("watch=true") {
            return None;
        }
        Some(match (path.contains("configmaps"), path.contains("continue=next")) {
            (false, _) => answer("200 OK", "", &empty),
            (true, false) => answer("200 OK", "", &first),
            (true, true) if count.fetch_add(1, Ordering::SeqCst) < 4 => {
                answer("410 Gone", "", &json!({"code": 410, "reason": "Expired"}).to_string())
            }
            (true, true) => answer("200 OK", "", &last),
        })
    })
    .await;
    let observer = Observer::new(api.clone(), Arc::new(Kinds::new(api)), "n", pace());
    let stop = CancellationToken::new();
    let _running = tokio::spawn({
        let (observer, stop) = (observer.clone(), stop.clone());
        async move { observer.run(stop).await }
    });
    let agent = "support".parse().expect("a name");
    let whole = eventually("the whole list", async || {
        let state = observer.snapshot(&agent);
        let configs = state.of_kind("", "ConfigMap").count();
        let unseen = state.unseen.keys().any(|kind| kind.kind == "ConfigMap");
        assert!(configs == 2 || configs == 0 && (unseen || !state.synced), "half a list: {state:?}");
        (configs == 2 && !unseen).then_some(state)
    })
    .await;
    assert!(whole.synced);
    assert!(expired.load(Ordering::SeqCst) >= 5);
    stop.cancel();
}

#[tokio::test]
async fn a_write_over_a_dead_wire_ends_in_time() {
    let Some(lab) = lab("a_write_over_a_dead_wire_ends_in_time").await else { return };
    let wire = Wire::to(lab.server()).await;
    let api = lab.api_over(&wire).await;
    let target = Target::new(api.clone(), Arc::new(Kinds::new(api)), lab.namespace.clone(), Arc::new(Unfenced));
    let mut object = object();
    object.namespace.clone_from(&lab.namespace);
    target.read(&object).await.expect("it speaks");
    wire.fall_silent();
    let asked = Instant::now();
    let failure = target.read(&object).await.expect_err("silence");
    assert_eq!(failure.kind, FailureKind::Unavailable { retry_after: None });
    assert!(asked.elapsed() < Duration::from_secs(4));
    wire.speak();
    wire.cut();
    eventually("it speaks again", async || target.read(&object).await.ok()).await;
}

/// A server that knows no kind at all.
pub(crate) async fn empty_server() -> Api {
    server(|_| Some(answer("404 Not Found", "content-type: text/plain\r\n", "404 page not found\n"))).await.0
}
