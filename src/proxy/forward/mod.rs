//! One request through the proxy: assigned, sent on, tried again where that is safe, and answered.

mod answer;
mod body;
mod headers;
mod measure;
mod mirror;
mod upgrade;
mod upstream;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

pub(crate) use answer::Answer;
pub(crate) use upstream::Pool;

use self::body::{BodyFailure, Sending, Source};
use self::headers::{From, RELEASE, REQUEST_ID};
use self::measure::{End, Measure};
use self::upstream::Connection;
use super::live::{Assigned, Nowhere, Went};
use super::serve::access::Entry;
use super::serve::{Line, Proxy};
use super::table::Protocol;

/// Instances that are tried when one cannot be reached.
const TRIES: usize = 3;

/// Who asks, and how.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) peer: Option<IpAddr>,
    pub(crate) scheme: &'static str,
}

/// A request that is on its way.
struct Way<'p> {
    proxy: &'p Arc<Proxy>,
    client: &'p Client,
    head: request::Parts,
    host: String,
    id: HeaderValue,
    upgrade: bool,
    body: Source,
    assigned: Assigned,
}

/// What came of it.
enum Came {
    Answer(Response<Incoming>, Option<Connection>),
    /// No instance could be reached.
    Unreachable,
    /// The request's body is not right.
    Body(BodyFailure),
    /// The instance took longer than allowed.
    Late,
    /// The instance broke off.
    Broken,
    /// The instance was cut off.
    Cut,
}

/// Answers one request.
pub(crate) async fn answer(
    proxy: &Arc<Proxy>,
    client: &Client,
    line: &Arc<Line>,
    request: Request<Incoming>,
) -> Response<Answer> {
    let one = request.version() < Version::HTTP_2;
    let upgrade = one && headers::asks_upgrade(request.headers()) && request.body().is_end_stream();
    let id = {
        let chance = u128::from(proxy.switch.chance()) << 64 | u128::from(proxy.switch.chance());
        headers::request_id(request.headers(), chance)
    };
    let mut response = pass(proxy, client, request, &id, upgrade).await;
    response.headers_mut().insert(REQUEST_ID, id);
    if one {
        if upgrade {
            line.decide(response.status() == StatusCode::SWITCHING_PROTOCOLS);
        }
        let close = proxy.draining.is_cancelled()
            || response.status() == StatusCode::BAD_REQUEST && response.extensions().get::<Ours>().is_some();
        if close && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    response
}

/// Marks an answer of ours.
#[derive(Clone)]
struct Ours;

fn own(status: StatusCode, why: &str) -> Response<Answer> {
    let mut response = answer::own(status, why);
    response.extensions_mut().insert(Ours);
    response
}

async fn pass(
    proxy: &Arc<Proxy>,
    client: &Client,
    request: Request<Incoming>,
    id: &HeaderValue,
    upgrade: bool,
) -> Response<Answer> {
    if request.method() == Method::CONNECT {
        return own(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy");
    }
    if request.body().size_hint().lower() > proxy.limits.body {
        return own(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
    }
    let (mut head, incoming) = request.into_parts();
    let Some(host) = host_of(&head) else { return own(StatusCode::BAD_REQUEST, "it says no host") };
    let (mut assigned, open) = match proxy.switch.assign(&host, head.uri.path(), &head.headers) {
        Ok(assigned) => assigned,
        Err(Nowhere::NoRoute) => return own(StatusCode::NOT_FOUND, "nothing is served here"),
        Err(Nowhere::NotReady) => return own(StatusCode::SERVICE_UNAVAILABLE, "nothing is ready"),
    };
    let show = assigned.show || head.headers.contains_key(RELEASE);
    let log = proxy.access.clone().map(|log| (log, entry(&head, &host, id, &assigned)));
    let mut measure = Measure::begin(assigned.figures.clone(), open, log);
    let source = if upgrade { Source::empty() } else { Source::new(incoming, proxy.limits.body) };
    let joint = upgrade.then(|| head.extensions.remove::<OnUpgrade>()).flatten();
    let (copy, issue, release) = (assigned.mirror.take(), assigned.issue.take(), assigned.release);
    let way = Way { proxy, client, head, host, id: id.clone(), upgrade, body: source, assigned };
    if let Some(copy) = copy.filter(|_| !upgrade) {
        let parts = (way.head.method.clone(), way.target(Protocol::Http1), way.onward());
        mirror::send(proxy, copy, parts, way.body.copy());
    }
    let came = way.go(&mut measure).await;
    let mut response = match came {
        Came::Answer(theirs, connection) => way.deliver(theirs, connection, joint, measure),
        Came::Body(BodyFailure::TooLarge) => fail(measure, 413, "the body is too long"),
        Came::Body(BodyFailure::Client) => fail(measure, 400, "the body is not right"),
        Came::Unreachable => fail(measure, 503, "the agent cannot be reached"),
        Came::Late => fail(measure, 504, "the agent did not answer in time"),
        Came::Broken => fail(measure, 502, "the agent broke off"),
        Came::Cut => fail(measure, 503, "the agent was taken out of traffic"),
    };
    let headers = response.headers_mut();
    if show && let Ok(value) = HeaderValue::from_str(&release.short()) {
        headers.insert(RELEASE, value);
    }
    if let Some((name, value)) = issue {
        let cookie = format!("{name}={value}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    response
}

fn fail(measure: Measure, status: u16, why: &'static str) -> Response<Answer> {
    measure.failed(status, why);
    own(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), why)
}

/// The host that was asked for; that of an absolute target wins (RFC 9112, section 3.2.2).
fn host_of(head: &request::Parts) -> Option<String> {
    if let Some(authority) = head.uri.authority() {
        let text = authority.as_str();
        return Some(text.rsplit_once('@').map_or(text, |(_, host)| host).to_owned());
    }
    match head.headers.get(header::HOST) {
        Some(host) => host.to_str().ok().map(str::to_owned),
        // HTTP/1.0 may have none.
        None => (head.version == Version::HTTP_10).then(String::new),
    }
}

fn entry(head: &request::Parts, host: &str, id: &HeaderValue, assigned: &Assigned) -> Entry {
    Entry {
        id: String::from_utf8_lossy(id.as_bytes()).into_owned(),
        agent: assigned.agent().to_string(),
        release: assigned.release.short(),
        instance: String::new(),
        method: head.method.to_string(),
        host: host.to_owned(),
        // What stands after `?` may be a secret.
        path: head.uri.path().to_owned(),
        status: 0,
        first_byte: None,
        micros: 0,
        why: "",
    }
}

// === impl Way ===

impl Way<'_> {
    fn onward(&self) -> HeaderMap {
        let from = From {
            peer: self.client.peer,
            scheme: self.client.scheme,
            host: &self.host,
            id: &self.id,
            trusted_hops: self.proxy.trusted_hops,
            upgrade: self.upgrade,
        };
        headers::onward(&self.head.headers, &from)
    }

    /// The target as an instance is asked for it.
    fn target(&self, protocol: Protocol) -> Uri {
        let path = self.head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        match protocol {
            Protocol::Http1 => Uri::from(path),
            Protocol::H2c => {
                let host = if self.host.is_empty() { "localhost" } else { &self.host };
                let whole = Uri::builder().scheme("http").authority(host).path_and_query(path.clone());
                whole.build().unwrap_or_else(|_| Uri::from(path))
            }
        }
    }

    fn request(&self, protocol: Protocol) -> Request<Sending> {
        let mut request = Request::new(self.body.send());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.target(protocol);
        *request.headers_mut() = self.onward();
        if protocol == Protocol::H2c {
            request.headers_mut().remove(header::HOST);
            *request.version_mut() = Version::HTTP_2;
        }
        request
    }

    /// Passes the answer on, or joins both sides where the protocol changed.
    fn deliver(
        &self,
        mut theirs: Response<Incoming>,
        connection: Option<Connection>,
        joint: Option<OnUpgrade>,
        mut measure: Measure,
    ) -> Response<Answer> {
        let status = theirs.status();
        measure.answered(status.as_u16());
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(connection), Some(joint)) = (connection, joint) else {
                measure.ended(End::Broken);
                return own(StatusCode::BAD_GATEWAY, "the agent changed the protocol unasked");
            };
            let mut request = Request::new(());
            request.extensions_mut().insert(joint);
            upgrade::join(&self.proxy.tasks, request, &mut theirs, connection, measure);
            let (mut parts, _) = theirs.into_parts();
            headers::back(&mut parts.headers, true);
            return Response::from_parts(parts, Answer::empty());
        }
        self.body.settle();
        let (mut parts, incoming) = theirs.into_parts();
        headers::back(&mut parts.headers, false);
        parts.version = Version::HTTP_11;
        Response::from_parts(parts, Answer::theirs(incoming, connection, measure, self.proxy.limits.silence))
    }

    /// Sends it until there is an answer, or a second try would do harm.
    async fn go(&self, measure: &mut Measure) -> Came {
        let mut unreachable = Vec::new();
        let mut fresh = self.upgrade;
        let cut = measure.open().0.instance.cut.clone();
        loop {
            let slot = measure.open().0.clone();
            let instance = &slot.instance;
            let tried = async {
                match instance.protocol {
                    Protocol::Http1 => self.http1(instance, fresh).await,
                    // Boxed: the usual way does not hold the room of the other.
                    Protocol::H2c => Box::pin(self.h2c(instance)).await,
                }
            };
            let limit = tokio::time::timeout(self.proxy.limits.first_byte, tried);
            let tried = match cut.run_until_cancelled(limit).await {
                None => return Came::Cut,
                Some(Err(_)) => {
                    instance.saw(Went::Badly);
                    return Came::Late;
                }
                Some(Ok(tried)) => tried,
            };
            match tried {
                Ok((response, connection)) => return Came::Answer(response, connection),
                Err(Tried::Again) if !fresh => {
                    fresh = true;
                    measure.count(|counts| counts.retried += 1);
                }
                Err(Tried::Again | Tried::Broken) => {
                    instance.saw(Went::Badly);
                    return self.body.failure().map_or(Came::Broken, Came::Body);
                }
                Err(Tried::Unreachable(error)) => {
                    tracing::debug!(instance = %instance.address, %error, "an instance cannot be reached");
                    instance.saw(Went::Nowhere);
                    unreachable.push(instance.key.clone());
                    let other = self.proxy.switch.again(&self.assigned, &unreachable);
                    match other.filter(|_| unreachable.len() < TRIES) {
                        Some(open) => measure.moved(open),
                        None => return Came::Unreachable,
                    }
                }
                Err(Tried::Body(failure)) => return Came::Body(failure),
            }
        }
    }

    async fn http1(
        &self,
        instance: &super::live::Instance,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Option<Connection>), Tried> {
        let kept = if fresh { None } else { instance.pool.take() };
        let reused = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let opening = Connection::open(&instance.address, self.proxy.limits.connect);
                Box::pin(opening).await.map_err(Tried::Unreachable)?
            }
        };
        let before = connection.written();
        match connection.exchange(self.request(Protocol::Http1)).await {
            Ok(response) => Ok((response, Some(connection))),
            Err(error) => {
                if let Some(failure) = self.body.failure() {
                    return Err(Tried::Body(failure));
                }
                let nothing_sent = connection.written() == before;
                let safe = nothing_sent || headers::idempotent(&self.head.method);
                // An answer that began, and is none, would be the same again.
                let began = error.is_parse() || error.is_parse_status() || error.is_parse_too_large();
                tracing::debug!(%error, reused, nothing_sent, "an instance gave no answer");
                Err(if reused && safe && !began && self.body.again() { Tried::Again } else { Tried::Broken })
            }
        }
    }

    async fn h2c(&self, instance: &super::live::Instance) -> Result<(Response<Incoming>, Option<Connection>), Tried> {
        let opened = instance.pool.h2(&instance.address, self.proxy.limits.connect, &self.proxy.tasks).await;
        let (mut send, reused) = opened.map_err(Tried::Unreachable)?;
        match send.send_request(self.request(Protocol::H2c)).await {
            Ok(response) => Ok((response, None)),
            Err(error) => {
                if let Some(failure) = self.body.failure() {
                    return Err(Tried::Body(failure));
                }
                tracing::debug!(%error, reused, "an instance gave no answer");
                let safe = error.is_canceled() || headers::idempotent(&self.head.method);
                Err(if reused && safe && self.body.again() { Tried::Again } else { Tried::Broken })
            }
        }
    }
}

/// Why a try brought no answer.
enum Tried {
    /// On a kept connection, with nothing done that a second try would do twice.
    Again,
    Broken,
    Unreachable(io::Error),
    Body(BodyFailure),
}
