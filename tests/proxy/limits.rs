//! How much one client, and all together, may ask.

use std::time::{Duration, Instant};

use crate::support::agent;
use crate::support::client::{Raw, get};
use crate::support::process::{Proxy, to_one};

#[test]
fn heads_and_bodies_have_an_end() {
    let agent = agent::Agent::start("one");
    let more = "---[proxy.limits]\nhead_bytes = 8192\nheaders = 20\nbody_bytes = 1000";
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), more);
    let mut raw = Raw::connect(proxy.address);
    raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000))).unwrap();
    assert_eq!(raw.answer(false).unwrap().status, 431);
    assert!(raw.ended());
    let mut raw = Raw::connect(proxy.address);
    raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(30))).unwrap();
    assert_eq!(raw.answer(false).unwrap().status, 431);
    assert!(raw.ended());
    let body = vec![b'x'; 1001];
    assert_eq!(Raw::connect(proxy.address).call("POST", "a", "/", &[], &body).unwrap().status, 413);
    assert_eq!(Raw::connect(proxy.address).call("POST", "a", "/", &[], &body[1..]).unwrap().status, 200);
    let mut raw = Raw::connect(proxy.address);
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..3 {
        // It may be refused, and closed, before all was sent.
        let _ = raw.send(format!("190\r\n{}\r\n", "x".repeat(400)));
    }
    assert_eq!(raw.answer(false).unwrap().status, 413);
}

#[test]
fn a_slow_head_and_an_idle_connection_end() {
    let agent = agent::Agent::start("one");
    let more = "---[proxy.limits]\nhead = '400ms'\nidle = '900ms'";
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), more);
    // Drops of a head buy no time.
    let (mut raw, start) = (Raw::connect(proxy.address), Instant::now());
    let mut bytes = "GET / HTTP/1.1\r\nHost: a\r\n".bytes().chain(std::iter::repeat_n(b'X', 10_000));
    while raw.send([bytes.next().unwrap()]).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(20), "a slow head is waited for without end");
    }
    // Silence from the start, and after a request.
    assert!(Raw::connect(proxy.address).ended());
    let mut raw = Raw::connect(proxy.address);
    assert_eq!(raw.get("a", "/", &[]).unwrap().status, 200);
    assert!(raw.ended());
    assert_eq!(get(proxy.address, "/", &[]).status, 200);
}

#[test]
fn an_open_answer_is_no_idle_connection() {
    let agent = agent::Agent::start("one");
    let more = "---[proxy.limits]\nhead = '100ms'\nidle = '100ms'\nstall = '100ms'";
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), more);
    let mut raw = Raw::connect(proxy.address);
    raw.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    raw.head().unwrap();
    raw.chunk().unwrap();
    // Longer than every limit of the client's side.
    std::thread::sleep(Duration::from_millis(500));
    agent.open_gate();
    assert_eq!(raw.chunk().unwrap().unwrap(), b"data: 2\n\n");
}

#[test]
fn an_agent_that_says_nothing_is_not_waited_for_without_end() {
    let agent = agent::Agent::start("one");
    let more = "---[proxy.limits]\nanswer = '200ms'\nsilence = '200ms'";
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), more);
    assert_eq!(get(proxy.address, "/hang", &[]).status, 504);
    let mut raw = Raw::connect(proxy.address);
    raw.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    raw.head().unwrap();
    raw.chunk().unwrap();
    assert!(raw.chunk().is_err());
    let counts = proxy.until("both are counted", |state| state.releases[0].counts.broken == 1).releases[0].counts;
    assert_eq!((counts.c5xx, counts.failed), (1, 1));
}

#[test]
fn connections_beyond_the_limit_wait() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), "---[proxy.limits]\nconnections = 2");
    let mut held: Vec<Raw> = (0..2).map(|_| Raw::connect(proxy.address)).collect();
    for raw in &mut held {
        assert_eq!(raw.get("a", "/", &[]).unwrap().status, 200);
    }
    let mut third = Raw::connect(proxy.address);
    third.send("GET /third HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let seen = |agent: &agent::Agent| agent.all().iter().any(|seen| seen.target == "/third");
    held[0].get("a", "/", &[]).unwrap();
    assert!(!seen(&agent));
    held.remove(0);
    assert_eq!(third.answer(false).unwrap().status, 200);
}
