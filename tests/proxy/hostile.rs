//! Requests that two parties could read differently: refused with 400, and the connection ends.

use crate::support::agent;
use crate::support::client::{Raw, get};
use crate::support::process::{Proxy, to_one};

/// What stands after a request line and a host.
const EVIL: &[(&str, &str)] = &[
    ("both lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    (
        "both lengths, turned",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("the same length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"),
    ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
    ("a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
    ("another coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("two codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    (
        "the coding twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a coding in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
    ("a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rGET /evil HTTP/1.1\r\n\r\n"),
    ("bare LFs", "GET / HTTP/1.1\nHost: a\n\n"),
    ("a NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ("a host that is a list", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no version", "GET /\r\n\r\n"),
    ("another version", "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
];

const EVIL_CHUNKS: &[(&str, &str)] = &[
    ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a size with a space", "5 \r\nhello\r\n0\r\n\r\n"),
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("a size that overflows", "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n"),
    ("a size with a bare LF", "5\nhello\r\n0\r\n\r\n"),
    ("a chunk that is too long", "5\r\nhello!\r\n0\r\n\r\n"),
    ("a chunk that ends with LF", "5\r\nhello\n0\r\n\r\n"),
    ("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("a length among the trailers", "5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"),
];

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    for (what, bytes) in EVIL {
        let mut raw = Raw::connect(proxy.address);
        raw.send([bytes, "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).unwrap();
        assert_eq!(raw.answer(false).unwrap().status, 400, "{what}");
        assert!(raw.ended(), "{what}: the connection goes on");
    }
    assert_eq!(agent.hits(), 0, "nothing of it reached the agent");
}

#[test]
fn it_is_refused_behind_a_good_request_too() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    for (what, bytes) in EVIL {
        let mut raw = Raw::connect(proxy.address);
        raw.send(["GET /good HTTP/1.1\r\nHost: a\r\n\r\n", bytes].concat()).unwrap();
        assert_eq!(raw.answer(false).unwrap().text(), "one GET /good", "{what}");
        assert_eq!(raw.answer(false).unwrap().status, 400, "{what}");
        assert!(raw.ended(), "{what}: the connection goes on");
    }
    assert!(agent.all().iter().all(|seen| seen.target == "/good"));
}

#[test]
fn a_body_that_is_framed_badly_ends_the_request_and_the_connection() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    for (what, chunks) in EVIL_CHUNKS {
        let mut raw = Raw::connect(proxy.address);
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        raw.send([chunks, "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).unwrap();
        assert_eq!(raw.answer(false).unwrap().status, 400, "{what}");
        assert!(raw.ended(), "{what}: the connection goes on");
    }
    assert!(agent.all().iter().all(|seen| seen.target != "/evil"));
    assert_eq!(get(proxy.address, "/", &[]).status, 200);
    assert!(proxy.state().instances.iter().all(|instance| !instance.ejected), "the agent is not to blame");
}

#[test]
fn what_can_be_read_in_one_way_passes() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let good = [
        "\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /2 HTTP/1.1\r\nhOsT:a\r\nX:\t y \t\r\n\r\n",
        "POST /3 HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n0000A;q=\"v\"\r\n0123456789\r\n00\r\nT: u\r\n\r\n",
        "POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\nhello",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for bytes in good {
        // All at once, and byte by byte.
        let mut raw = Raw::connect(proxy.address);
        raw.send(bytes).unwrap();
        assert_eq!(raw.answer(false).unwrap().status, 200, "{bytes:?}");
        for byte in bytes.bytes() {
            raw.send([byte]).unwrap();
        }
        assert_eq!(raw.answer(false).unwrap().status, 200, "{bytes:?}");
    }
}

#[test]
fn an_agent_that_answers_in_two_ways_is_not_passed_on() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    assert_eq!(get(proxy.address, "/bad", &[]).status, 502);
    let mut raw = Raw::connect(proxy.address);
    raw.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(raw.answer(false).is_err(), "half an answer does not look whole");
    assert_eq!(get(proxy.address, "/", &[]).status, 200);
}

#[test]
fn this_is_no_forward_proxy() {
    let agent = agent::Agent::start("one");
    let proxy = Proxy::start(&to_one(1, "s", &[&agent]));
    let mut raw = Raw::connect(proxy.address);
    raw.send("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n").unwrap();
    assert_eq!(raw.head().unwrap().status, 405);
    assert_eq!(agent.hits(), 0);
}
