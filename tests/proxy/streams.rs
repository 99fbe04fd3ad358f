//! Streams, changed protocols, and what ends them.

use std::io::Read;

use backstay::proxy::{Agent, Drain, Role, WHOLE};

use crate::support::agent;
use crate::support::client::{Raw, get};
use crate::support::process::{Proxy, arm, table, to_one};

#[test]
fn an_event_arrives_before_the_next_is_sent() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    raw.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(raw.head().unwrap().header("content-type"), Some("text/event-stream"));
    assert_eq!(raw.chunk().unwrap().unwrap(), b"data: 1\n\n");
    assert_eq!(proxy.state().instances[0].in_flight, 1);
    agent.open_gate();
    assert_eq!(raw.chunk().unwrap().unwrap(), b"data: 2\n\n");
    assert_eq!(raw.chunk().unwrap(), None);
    assert_eq!(raw.get("a.example", "/", &[]).unwrap().status, 200, "the connection is kept");
    proxy.until("nothing is open", |state| state.instances[0].in_flight == 0);
}

#[test]
fn a_websocket_passes_both_ways_and_is_one_request() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    let head =
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    raw.send(head).unwrap();
    let answer = raw.head().unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(agent.last().header("sec-websocket-key"), Some("x"));
    for message in [&b"hello"[..], b"\0\r\n\r\nGET / HTTP/1.1\r\n\r\n", &[0xff; 700]] {
        raw.send(message).unwrap();
        let mut back = vec![0; message.len()];
        raw.input.read_exact(&mut back).unwrap();
        assert_eq!(back, message);
    }
    let state = proxy.state();
    assert_eq!((state.instances[0].in_flight, state.releases[0].counts.c1xx), (1, 1));
    drop(raw);
    proxy.until("nothing is open", |state| state.instances[0].in_flight == 0);
}

#[test]
fn a_refused_change_of_protocol_leaves_the_connection_in_use() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    let ask = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    // The next request is sent before the answer, as nobody should.
    raw.send([ask, "GET /y HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).unwrap();
    assert_eq!(raw.answer(false).unwrap().text(), "one GET /x");
    assert_eq!(raw.answer(false).unwrap().text(), "one GET /y");
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    for target in ["/hang", "/sse"] {
        let mut raw = Raw::connect(proxy.address);
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
        proxy.until("it is open", |state| state.instances[0].in_flight == 1);
        drop(raw);
        proxy.until("it is not open", |state| state.instances[0].in_flight == 0);
    }
    assert_eq!(proxy.state().releases[0].counts.cancelled, 2);
}

#[test]
fn open_streams_outlive_a_switch_or_are_cut_as_the_table_says() {
    let (old, new) = (agent::Agent::start("old"), agent::Agent::start("new"));
    for drain in [Drain::Finish, Drain::Cut] {
        let with = |generation, name: &str, agent: &agent::Agent| {
            let arms = vec![arm(name, Role::Stable, WHOLE, &[agent])];
            table(generation, Agent { arms, drain, ..Agent::default() })
        };
        let proxy = Proxy::start(&with(1, "old", &old));
        let mut raw = Raw::connect(proxy.address);
        raw.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        raw.head().unwrap();
        assert!(raw.chunk().unwrap().is_some());
        proxy.load(&with(2, "new", &new));
        assert_eq!(get(proxy.address, "/", &[]).text(), "new GET /");
        if drain == Drain::Finish {
            let state = proxy.state();
            let gone = state.instances.iter().find(|instance| instance.id == "old-0").unwrap();
            assert_eq!((gone.in_flight, gone.listed, gone.by_table.get(&1)), (1, false, Some(&1)));
            old.open_gate();
            assert_eq!(raw.chunk().unwrap().unwrap(), b"data: 2\n\n");
            assert_eq!(raw.chunk().unwrap(), None);
        } else {
            assert!(raw.chunk().is_err(), "it ends, and not as if it were whole");
            // Its handler still waits.
            old.open_gate();
        }
        proxy.until("the old one is forgotten", |state| state.instances.iter().all(|one| one.id != "old-0"));
    }
}

#[test]
fn a_drained_instance_gets_nothing_new_and_may_be_cut() {
    let (one, two) = (agent::Agent::start("one"), agent::Agent::start("two"));
    let proxy = Proxy::start(&to_one(1, "s", &[&one, &two]));
    let mut raw = Raw::connect(proxy.address);
    // Both are busy with a stream.
    let mut streams = vec![];
    while one.hits() == 0 || two.hits() == 0 {
        let mut stream = Raw::connect(proxy.address);
        stream.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream.head().unwrap();
        stream.chunk().unwrap();
        streams.push(stream);
    }
    let before = one.hits();
    let open = proxy.block(proxy.client(1).drain("s-0", 1, false)).unwrap();
    assert_eq!(usize::try_from(open), Ok(before));
    for _ in 0..50 {
        assert_eq!(raw.get("a.example", "/", &[]).unwrap().text(), "two GET /");
    }
    proxy.block(proxy.client(1).drain("s-0", 1, true)).unwrap();
    proxy.until("nothing is open there", |state| state.instances[0].in_flight == 0);
    assert!(proxy.block(proxy.client(1).drain("nobody", 1, false)).is_err());
}

#[test]
fn a_slow_reader_slows_nobody_else() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::with(Some(&to_one(1, "s", &[&agent])), "---[proxy.limits]\nstall = '300ms'");
    let mut slow = Raw::connect(proxy.address);
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    for _ in 0..20 {
        assert_eq!(get(proxy.address, "/", &[]).status, 200);
    }
    // A body that stops coming ends the request: 400 where that can still be said, then the connection.
    match slow.answer(false) {
        Ok(answer) => assert_eq!(answer.status, 400),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof),
    }
    assert!(slow.ended());
}
