//! Which headers go on, and which are ours: plain functions.

use std::net::IpAddr;

use http::header::{
    CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method};

/// The id of a request, from the client where it gave a good one.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// On a request: the answer shall name its release. On an answer: its release.
pub(crate) const RELEASE: HeaderName = HeaderName::from_static("backstay-release");
/// On a copy that a mirror gets.
pub(crate) const MIRROR: HeaderName = HeaderName::from_static("backstay-mirror");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Bytes of a request id that is taken from a client.
const LONGEST_ID: usize = 128;

/// What is known of a request beside its own headers.
#[derive(Debug, Clone)]
pub(super) struct From<'r> {
    /// Who is connected; none for a Unix socket.
    pub(super) peer: Option<IpAddr>,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// The authority that was asked for.
    pub(super) host: &'r str,
    pub(super) id: &'r HeaderValue,
    /// How many proxies stand before this one and tell the truth.
    pub(super) trusted_hops: usize,
    /// The protocol that it asks to change to.
    pub(super) upgrade: bool,
}

/// The headers that an instance gets.
pub(super) fn onward(theirs: &HeaderMap, from: &From<'_>) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(theirs.len() + 6);
    let named = Named::of(theirs);
    for (name, value) in theirs {
        if !(one_hop(name) || ours(name) || named.has(name)) {
            out.append(name, value.clone());
        }
    }
    if let Ok(host) = HeaderValue::from_str(from.host) {
        out.insert(HOST, host);
    }
    // HTTP/2 may send one cookie a line; HTTP/1.1 has one line.
    if theirs.get_all(COOKIE).iter().nth(1).is_some() {
        let lines: Vec<&[u8]> = theirs.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
            out.insert(COOKIE, joined);
        }
    }
    if theirs.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        out.insert(TE, HeaderValue::from_static("trailers"));
    }
    forwarded(theirs, from, &mut out);
    out.insert(REQUEST_ID, from.id.clone());
    if from.upgrade
        && let Some(protocol) = theirs.get(UPGRADE)
    {
        out.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        out.insert(UPGRADE, protocol.clone());
    }
    out
}

/// Takes from an answer what is for one hop, and what only we may say.
pub(super) fn back(headers: &mut HeaderMap, upgraded: bool) {
    let named = Named::of(headers);
    let drop: Vec<HeaderName> = headers
        .keys()
        .filter(|name| (one_hop(name) && !(upgraded && matches!(**name, UPGRADE | CONNECTION))) || named.has(name))
        .cloned()
        .collect();
    for name in drop {
        headers.remove(name);
    }
    headers.remove(RELEASE);
}

/// The id of a request: the client's where it is visible ASCII and short, else a new one.
pub(super) fn request_id(headers: &HeaderMap, chance: u128) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(|byte| (0x21..0x7f).contains(byte))
    });
    let fresh = || HeaderValue::from_str(&format!("{chance:032x}"));
    given.cloned().or_else(|| fresh().ok()).unwrap_or_else(|| HeaderValue::from_static("-"))
}

/// Whether a request asks to change the protocol, and may (RFC 9110, section 7.8).
pub(super) fn asks_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && Named::of(headers).0.iter().any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// Whether a second try does no more than the first (RFC 9110, section 9.2.2).
pub(super) fn idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// `X-Forwarded-*`: of what came, only what trusted hops wrote, then what we see ourselves.
fn forwarded(theirs: &HeaderMap, from: &From<'_>, out: &mut HeaderMap) {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let came: Vec<String> = theirs.get_all(FORWARDED_FOR).iter().map(text).collect();
    let came: Vec<&str> = came.iter().flat_map(|line| line.split(',')).map(str::trim).collect();
    // Each trusted hop wrote one entry: what stands before theirs, anybody may have written.
    let mut chain: Vec<String> =
        came[came.len().saturating_sub(from.trusted_hops)..].iter().map(|hop| (*hop).to_owned()).collect();
    chain.extend(from.peer.map(|peer| peer.to_canonical().to_string()));
    if let (false, Ok(value)) = (chain.is_empty(), HeaderValue::from_str(&chain.join(", "))) {
        out.insert(FORWARDED_FOR, value);
    }
    let told = |name: &HeaderName| theirs.get(name).filter(|_| from.trusted_hops > 0).cloned();
    out.insert(FORWARDED_PROTO, told(&FORWARDED_PROTO).unwrap_or(HeaderValue::from_static(from.scheme)));
    if let Some(host) = told(&FORWARDED_HOST).or_else(|| HeaderValue::from_str(from.host).ok()) {
        out.insert(FORWARDED_HOST, host);
    }
    if from.trusted_hops > 0 {
        for name in [FORWARDED, REAL_IP] {
            for value in theirs.get_all(&name) {
                out.append(&name, value.clone());
            }
        }
    }
}

/// Headers that hold for one hop alone (RFC 9110, section 7.6.1).
fn one_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRAILER | TRANSFER_ENCODING | UPGRADE | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION)
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || *name == HTTP2_SETTINGS
}

/// Headers that we write anew, and what only we may say.
fn ours(name: &HeaderName) -> bool {
    let own = [&FORWARDED_FOR, &FORWARDED_PROTO, &FORWARDED_HOST, &REAL_IP, &REQUEST_ID, &RELEASE, &MIRROR];
    matches!(*name, HOST | EXPECT | FORWARDED) || own.contains(&name)
}

/// What `Connection` names.
struct Named(Vec<String>);

impl Named {
    fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
        Self(lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned()).collect())
    }

    fn has(&self, name: &HeaderName) -> bool {
        // What the message cannot do without cannot be taken away by naming it.
        self.0.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()))
            && !matches!(*name, HOST | COOKIE | http::header::CONTENT_LENGTH | CONNECTION | UPGRADE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn from(trusted_hops: usize, id: &HeaderValue) -> From<'_> {
        let peer = Some(IpAddr::from([10, 0, 0, 9]));
        From { peer, scheme: "https", host: "a.example", id, trusted_hops, upgrade: false }
    }

    #[test]
    fn nobody_writes_forwarded_headers_but_trusted_hops() {
        let id = HeaderValue::from_static("1");
        let theirs = headers(&[
            ("x-forwarded-for", "6.6.6.6, 1.2.3.4"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
        ]);
        let out = onward(&theirs, &from(0, &id));
        assert_eq!(
            (&out[FORWARDED_FOR], &out[FORWARDED_PROTO], &out[FORWARDED_HOST]),
            (&"10.0.0.9".parse().unwrap(), &"https".parse().unwrap(), &"a.example".parse().unwrap())
        );
        assert!(!out.contains_key(FORWARDED) && !out.contains_key(REAL_IP));
        let out = onward(&theirs, &from(1, &id));
        assert_eq!(out[FORWARDED_FOR], "1.2.3.4, 10.0.0.9");
        assert_eq!(out[FORWARDED_PROTO], "http");
    }

    #[test]
    fn what_is_for_one_hop_stays_here() {
        let id = HeaderValue::from_static("1");
        let theirs = headers(&[
            ("connection", "close, X-Secret, Content-Length"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("content-length", "3"),
            ("proxy-authorization", "x"),
            ("accept", "*/*"),
        ]);
        let out = onward(&theirs, &from(0, &id));
        assert!(
            !out.contains_key("x-secret")
                && !out.contains_key("keep-alive")
                && !out.contains_key("proxy-authorization")
        );
        assert_eq!(
            (&out["accept"], &out["te"], &out["content-length"]),
            (&"*/*".parse().unwrap(), &"trailers".parse().unwrap(), &"3".parse().unwrap())
        );
    }

    #[test]
    fn a_good_id_is_kept_and_another_is_made() {
        assert_eq!(request_id(&headers(&[("x-request-id", "abc-1")]), 7), "abc-1");
        assert_eq!(request_id(&headers(&[("x-request-id", "a b")]), 7), "00000000000000000000000000000007");
        assert_eq!(request_id(&HeaderMap::new(), 255).len(), 32);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(asks_upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])));
        assert!(!asks_upgrade(&headers(&[("upgrade", "websocket")])));
    }
}
