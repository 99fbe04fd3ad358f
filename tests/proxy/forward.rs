//! What an instance gets and what the client gets back.

use std::time::{Duration, Instant};

use backstay::proxy::{Address, Agent, Instance, Protocol, Role, WHOLE};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::agent;
use crate::support::client::{Raw, get};
use crate::support::process::{Proxy, arm, release, table, to_one};

#[test]
fn headers_are_ours_where_they_must_be() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), "trusted_hops = 1");
    let sent = [
        ("X-Forwarded-For", "6.6.6.6, 1.2.3.4"),
        ("X-Forwarded-Proto", "https"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Expect", "100-continue"),
        ("X-Request-Id", "mine-1"),
        ("X-Other", "kept"),
    ];
    let mut raw = Raw::connect(proxy.address);
    let answer = raw.get("a.example:18080", "/echo?q=1", &sent).unwrap();
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("mine-1")));
    assert_eq!(answer.header("backstay-release"), None, "an agent cannot say which release it is");
    assert_eq!(answer.header("keep-alive"), None);
    let seen = agent.last();
    let local = raw.input.get_ref().local_addr().unwrap().ip();
    assert_eq!(seen.header("x-forwarded-for"), Some(&*format!("1.2.3.4, {local}")));
    assert_eq!(
        (seen.header("x-forwarded-proto"), seen.header("x-forwarded-host")),
        (Some("https"), Some("a.example:18080"))
    );
    assert_eq!((seen.header("x-hop"), seen.header("connection"), seen.header("expect")), (None, None, None));
    assert_eq!((seen.header("host"), seen.header("x-other")), (Some("a.example:18080"), Some("kept")));
    assert_eq!((seen.header("x-request-id"), seen.target.as_str()), (Some("mine-1"), "/echo?q=1"));
    let asked = get(proxy.address, "/", &[("Backstay-Release", "?")]);
    assert_eq!(asked.header("backstay-release"), Some(&*release("s").short()));
    assert_eq!(agent.last().header("backstay-release"), None);
}

#[test]
fn without_trusted_hops_no_word_of_a_client_is_believed() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let sent = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Real-IP", "6"),
    ];
    get(proxy.address, "/", &sent);
    let seen = agent.last();
    assert!(!seen.header("x-forwarded-for").unwrap().contains("6.6.6.6"));
    assert_eq!(
        (seen.header("x-forwarded-proto"), seen.header("forwarded"), seen.header("x-real-ip")),
        (Some("http"), None, None)
    );
}

#[test]
fn bodies_pass_whole_in_both_framings() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    let body = vec![b'x'; 300_000];
    assert_eq!(raw.call("POST", "a.example", "/p", &[], &body).unwrap().status, 200);
    assert_eq!(agent.last().body, body);
    raw.send("PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").unwrap();
    raw.send("6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\n").unwrap();
    assert_eq!(raw.answer(false).unwrap().status, 200);
    assert_eq!(agent.last().body, b"hello world");
    // Three at once, and their answers in their order.
    raw.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    for number in 1..=3 {
        assert_eq!(raw.answer(false).unwrap().text(), format!("one GET /{number}"));
    }
    assert_eq!(raw.call("HEAD", "a.example", "/", &[], b"").unwrap().status, 200);
    assert_eq!(raw.get("a.example", "/status/204", &[]).unwrap().status, 204);
}

#[test]
fn connections_to_an_agent_are_kept_and_let_go_after_a_second() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    for _ in 0..100 {
        raw.get("a.example", "/", &[]).unwrap();
    }
    assert_eq!(agent.connections(), 1);
    std::thread::sleep(Duration::from_millis(1300));
    raw.get("a.example", "/", &[]).unwrap();
    assert_eq!(agent.connections(), 2);
}

#[test]
fn no_idempotent_request_is_lost_where_an_agent_closes_at_once() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    for _ in 0..500 {
        assert_eq!(raw.get("a.example", "/close", &[]).unwrap().text(), "ok");
    }
    // It closes a kept connection only when the next request is there: seen by no look before.
    agent.deaf(true);
    for method in ["GET", "PUT", "DELETE"].iter().cycle().take(200) {
        let body = if *method == "PUT" { &b"content"[..] } else { b"" };
        assert_eq!(raw.call(method, "a.example", "/", &[], body).unwrap().status, 200);
        if *method == "PUT" {
            assert_eq!(agent.last().body, b"content", "the body is sent again, whole");
        }
    }
    let state = proxy.state();
    assert!(state.releases[0].counts.retried >= 190, "{:?}", state.releases[0].counts);
    assert_eq!(state.releases[0].counts.c5xx, 0);
}

#[test]
fn a_request_that_may_have_done_something_is_not_sent_twice() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    raw.get("a.example", "/", &[]).unwrap();
    agent.deaf(true);
    let before = agent.hits();
    assert_eq!(raw.call("POST", "a.example", "/", &[], b"once").unwrap().status, 502);
    assert_eq!(agent.hits(), before);
}

#[test]
fn http2_goes_in_and_http1_comes_out() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let body = proxy.block(async {
        let stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let (send, drive) = made;
        let driven = tokio::spawn(drive);
        let calls = (0..20).map(|number| {
            let mut send = send.clone();
            async move {
                let request = http::Request::post(format!("http://a.example/n{number}"))
                    .header("cookie", "a=b")
                    .header("cookie", "c=d")
                    .body(Full::new(Bytes::from("hello")))
                    .unwrap();
                let answer = send.send_request(request).await.unwrap();
                assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
                answer.into_body().collect().await.unwrap().to_bytes()
            }
        });
        let mut bodies = vec![];
        for call in calls {
            bodies.push(call.await);
        }
        drop(send);
        driven.await.unwrap().unwrap();
        bodies
    });
    assert_eq!(body[7], "one POST /n7");
    let seen = agent.last();
    assert_eq!(
        (seen.header("host"), seen.header("cookie"), &seen.body[..]),
        (Some("a.example"), Some("a=b; c=d"), &b"hello"[..])
    );
}

#[test]
fn http2_goes_out_where_the_table_says_so() {
    let proxy = Proxy::with(None, "");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let told = format!("{:?} {} {}", request.version(), request.method(), request.uri());
                    let body = request.into_body().collect().await?.to_bytes();
                    Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(format!("{told} {}", body.len())))))
                });
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(async move { served.serve_connection(TokioIo::new(stream), service).await });
            }
        });
    });
    let instances =
        vec![Instance { id: "h2".into(), generation: 1, address: Address::Tcp(address), protocol: Protocol::H2c }];
    let arms = vec![backstay::proxy::Arm { release: release("s"), role: Role::Stable, weight: WHOLE, instances }];
    proxy.load(&table(1, Agent { arms, ..Agent::default() }));
    let mut raw = Raw::connect(proxy.address);
    for _ in 0..3 {
        let answer = raw.call("POST", "a.example", "/x?y", &[], b"hello").unwrap();
        assert_eq!(answer.text(), "HTTP/2.0 POST http://a.example/x?y 5");
    }
}

#[test]
fn the_access_log_has_one_line_for_each_request_and_no_secret() {
    let agent = agent::Agent::start("one");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), &format!("access_log = '{}'", log.display()));
    for _ in 0..3 {
        get(proxy.address, "/x?token=secret", &[("x-request-id", "r-1")]);
    }
    let start = Instant::now();
    let lines = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.lines().count() == 3 {
            break text;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{text}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(!lines.contains("secret"));
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&line["id"], &line["path"], &line["status"], &line["instance"]),
        (&"r-1".into(), &"/x".into(), &200.into(), &"s-0".into())
    );
}

#[test]
fn two_arms_with_a_shared_instance_name_are_told_apart_by_generation() {
    let (old, new) = (agent::Agent::start("old"), agent::Agent::start("new"));
    let proxy = Proxy::start(&to_one(1, "s", &[&old]));
    let mut next = to_one(2, "s", &[&new]);
    let agent = next.agents.values_mut().next().unwrap();
    agent.arms[0].instances[0].generation = 2;
    proxy.load(&next);
    assert_eq!(get(proxy.address, "/", &[]).text(), "new GET /");
    // The same name and generation at another place is refused.
    let mut wrong = to_one(3, "s", &[&old]);
    wrong.agents.values_mut().next().unwrap().arms = vec![arm("s", Role::Stable, WHOLE, &[&old])];
    wrong.agents.values_mut().next().unwrap().arms[0].instances[0].generation = 2;
    backstay::proxy::write_table(&proxy.table_path(), &wrong).unwrap();
    let refused = proxy.block(proxy.client(1).load(3)).unwrap_err().to_string();
    assert!(refused.contains("is another than before"), "{refused}");
}
