//! A server between the daemon and the API server that knows every call, and does one of them wrong.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Bytes, Frame, Incoming};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// How late a slow call arrives, and how late its answer.
pub(crate) const SLOW: std::time::Duration = std::time::Duration::from_secs(2);

/// Where a watch breaks off.
const HALF_AN_EVENT: &[u8] = br#"{"type":"MODIFIED","object":{"metadata":{"na"#;

/// What goes wrong at one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The daemon dies, and the call never arrives.
    CrashBefore,
    /// The call has its effect, and the daemon dies before it hears of it.
    CrashAfter,
    /// The call has its effect, and the connection breaks instead of the answer.
    Lost,
    /// The server answers with this code, and does nothing.
    Code(u16),
    /// The call has its effect, and the connection breaks in the middle of the answer; of a watch, in its first event.
    Reset,
    /// The call has its effect, and half of the answer comes as if it were whole; of a watch, half of its first event.
    Truncated,
    /// The call has its effect, and no answer comes for as long as the caller waits.
    Silence,
    /// The call arrives twice; the second answer comes.
    Twice,
    /// The daemon dies after the call; the next one is first shown the lists and objects of a while ago.
    Stale,
    /// One event of a watch never comes.
    Dropped,
    /// Two events of a watch come in each other's place.
    Swapped,
    /// Git moves on at this call.
    Push,
    /// The process is stopped before the call goes out; it arrives when the process goes on.
    Held,
    /// The call arrives late, and so does its answer.
    Slow,
    /// The daemon dies after the call; the next one is elsewhere, where the clock is so many hours ahead.
    Clock(i64),
}

/// Which call: by what it does to what, and how often that was done before in its stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    pub(crate) stage: &'static str,
    pub(crate) verb: String,
    /// `apps/deployments`, `agentreleases/status`; `configmaps` for the core group.
    pub(crate) resource: String,
    /// Empty for lists; `*` where the name is another one each time.
    pub(crate) name: String,
    pub(crate) nth: usize,
}

/// One call as it came, in the order in which they came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) call: Call,
    /// As whom, where somebody is impersonated.
    pub(crate) acting_as: Option<String>,
    pub(crate) dry_run: bool,
    pub(crate) body: Value,
    /// What the API server said; nothing while it was not asked or has not answered.
    pub(crate) code: Option<u16>,
}

/// The server; ends with its value.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    /// None while there is nothing to ask.
    upstream: Mutex<Option<kube::Client>>,
    inner: Mutex<Inner>,
    /// The fault has been met; what the test does then is its own.
    hit: Notify,
    hits: AtomicUsize,
    /// While set, lists and reads are answered from the past.
    stale: AtomicBool,
    /// Held calls go on once this is true.
    go_on: watch::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    stage: &'static str,
    counts: BTreeMap<Call, usize>,
    log: Vec<Seen>,
    armed: Option<(Call, Fault)>,
    /// Answers of a while ago, by path and query.
    past: BTreeMap<String, Bytes>,
    /// Reads that were asked for, whose answers a snapshot takes.
    asked: BTreeMap<String, String>,
    /// Who looks at each write, and what was found. What goes wrong with a watch goes wrong later than in the stage that
    /// opened it, then.
    watched: Option<Watched>,
}

/// Looks at a write into a namespace before it arrives; what is wrong with it.
pub(crate) type Look = Arc<dyn Fn(kube::Client, String, Call, Value) -> BoxFuture<'static, Vec<String>> + Send + Sync>;

struct Watched {
    look: Look,
    found: Vec<String>,
}

/// An answer's body: bytes, then an end, an error, nothing, or what the server streams.
pub(crate) struct Reply {
    first: VecDeque<Bytes>,
    then: Then,
}

enum Then {
    End,
    Break,
    Nothing,
    Stream(Body),
    Events(Box<Events>),
}

/// A watch whose events are counted.
struct Events {
    body: Body,
    part: Vec<u8>,
    kept: Option<Bytes>,
    fault: Fault,
    state: Arc<State>,
    /// Nothing goes wrong with it in this stage.
    opened: Option<&'static str>,
    done: bool,
}

/// The connection ends here.
#[derive(Debug)]
pub(crate) struct Broken;

// === impl Broken ===

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}

// === impl Fault ===

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrashBefore => f.write_str("crash before"),
            Self::CrashAfter => f.write_str("crash after"),
            Self::Lost => f.write_str("lost reply"),
            Self::Code(code) => write!(f, "{code}"),
            Self::Reset => f.write_str("reset mid-body"),
            Self::Truncated => f.write_str("truncated JSON"),
            Self::Silence => f.write_str("silence"),
            Self::Twice => f.write_str("delivered twice"),
            Self::Stale => f.write_str("stale after restart"),
            Self::Dropped => f.write_str("dropped event"),
            Self::Swapped => f.write_str("events reordered"),
            Self::Push => f.write_str("push at a call"),
            Self::Held => f.write_str("paused before a write"),
            Self::Slow => f.write_str("slow"),
            Self::Clock(hours) => write!(f, "clock {hours:+} h"),
        }
    }
}

// === impl Call ===

impl Call {
    fn of(request: &Request<Incoming>) -> Self {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => ("", &[][..]),
        };
        let rest = match rest {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            rest => rest,
        };
        let (resource, name, part) = match rest {
            [] => ("discovery", parts.last().copied().unwrap_or_default(), None),
            [resource] => (*resource, "", None),
            [resource, name] => (*resource, *name, None),
            [resource, name, part, ..] => (*resource, *name, Some(*part)),
        };
        let one = !name.is_empty();
        let verb = match request.method().as_str() {
            "GET" if query.contains("watch=true") => "watch",
            "GET" if one => "get",
            "GET" => "list",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            other => other,
        };
        let plain = group.is_empty() || group == "backstay.dev" || rest.is_empty();
        let short = if plain { String::new() } else { format!("{group}/") };
        let part = part.map(|part| format!("/{part}")).unwrap_or_default();
        Self {
            stage: "",
            verb: verb.to_owned(),
            resource: format!("{short}{resource}{part}"),
            name: name.to_owned(),
            nth: 0,
        }
    }

    /// The verb and the kind, for classes that are tried once for each.
    pub(crate) fn sort(&self) -> (String, String) {
        (self.verb.clone(), self.resource.clone())
    }

    pub(crate) fn writes(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete")
    }

    /// The daemon's own lease, which no end state depends on.
    pub(crate) fn is_lease(&self) -> bool {
        self.resource.ends_with("/leases")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {} {} #{}", self.stage, self.verb, self.resource, self.name, self.nth)
    }
}

// === impl Proxy ===

impl Proxy {
    /// A server on a port of its own, that speaks to the API server through `upstream`.
    pub(crate) async fn start(upstream: kube::Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            upstream: Mutex::new(Some(upstream)),
            inner: Mutex::default(),
            hit: Notify::new(),
            hits: AtomicUsize::new(0),
            stale: AtomicBool::new(false),
            go_on: watch::Sender::new(false),
        });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| Arc::clone(&state).answer(request));
                    // Ends with its client, or where a fault breaks it.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, state, task }
    }

    /// From now on asks another server, or none.
    pub(crate) fn reach(&self, upstream: Option<kube::Client>) {
        *self.state.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// A client of this server.
    pub(crate) fn client(&self) -> kube::Client {
        let url = format!("http://127.0.0.1:{}", self.port).parse().expect("an address");
        let mut config = kube::Config::new(url);
        config.default_retry = false;
        kube::Client::try_from(config).expect("a client")
    }

    /// Begins a stage: calls are counted anew.
    pub(crate) fn stage(&self, stage: &'static str) {
        let mut inner = self.state.inner();
        inner.stage = stage;
        inner.counts.clear();
    }

    /// Does this wrong, once, when this call comes.
    pub(crate) fn arm(&self, call: Call, fault: Fault) {
        self.state.inner().armed = Some((call, fault));
    }

    /// Waits until the fault was met.
    pub(crate) async fn hit(&self) {
        self.state.hit.notified().await;
    }

    /// How often a fault was met.
    pub(crate) fn hits(&self) -> usize {
        self.state.hits.load(Ordering::SeqCst)
    }

    /// Lets held calls go on.
    pub(crate) fn go_on(&self) {
        self.state.go_on.send_replace(true);
    }

    /// From now on lists and reads are answered as they were at the last [`snapshot`](Self::snapshot), or no more.
    pub(crate) fn stale(&self, stale: bool) {
        self.state.stale.store(stale, Ordering::SeqCst);
    }

    /// Keeps what the server answers now to every list and read that was asked for so far.
    pub(crate) async fn snapshot(&self) {
        let asked = self.state.inner().asked.clone();
        for (path, accept) in asked {
            let request = Request::get(&path).header(header::ACCEPT, accept).body(Body::empty()).expect("a request");
            let Ok(upstream) = self.state.upstream() else { return };
            let Ok(answer) = upstream.send(request).await else { continue };
            if answer.status().is_success()
                && let Ok(bytes) = answer.into_body().collect_bytes().await
            {
                self.state.inner().past.insert(path, bytes);
            }
        }
    }

    /// From now on each write is looked at before it arrives.
    pub(crate) fn watch(&self, look: Look) {
        self.state.inner().watched = Some(Watched { look, found: vec![] });
    }

    /// What was wrong with writes that were looked at.
    pub(crate) fn found(&self) -> Vec<String> {
        self.state.inner().watched.as_ref().map(|watched| watched.found.clone()).unwrap_or_default()
    }

    /// All calls so far.
    pub(crate) fn log(&self) -> Vec<Seen> {
        self.state.inner().log.clone()
    }

    /// How many calls there were so far.
    pub(crate) fn count(&self) -> usize {
        self.state.inner().log.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl State ===

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upstream(&self) -> Result<kube::Client, Broken> {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Broken)
    }

    fn met(&self) {
        self.hits.fetch_add(1, Ordering::SeqCst);
        self.hit.notify_one();
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Reply>, Broken> {
        let mut call = Call::of(&request);
        let (head, mut incoming) = request.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            let Ok(frame) = frame else { return Err(Broken) };
            if let Some(data) = frame.data_ref() {
                body.extend_from_slice(data);
            }
        }
        let body = Bytes::from(body);
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        if call.verb == "create" {
            call.name = parsed["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        }
        if call.resource.ends_with("/events") {
            "*".clone_into(&mut call.name);
        }
        let query = head.uri.query().unwrap_or_default().to_owned();
        let (number, fault) = {
            let mut inner = self.inner();
            call.stage = inner.stage;
            let count = inner.counts.entry(call.clone()).or_default();
            call.nth = *count;
            *count += 1;
            if matches!(call.verb.as_str(), "get" | "list") {
                let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                let accept = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
                inner.asked.insert(path, accept.unwrap_or("application/json").to_owned());
            }
            let acting_as = head.headers.get("impersonate-user").and_then(|name| name.to_str().ok());
            inner.log.push(Seen {
                call: call.clone(),
                acting_as: acting_as.map(str::to_owned),
                dry_run: query.contains("dryRun="),
                body: parsed,
                code: None,
            });
            let number = inner.log.len() - 1;
            let is_it = inner.armed.as_ref().is_some_and(|(armed, _)| *armed == call);
            (number, if is_it { inner.armed.take().map(|(_, fault)| fault) } else { None })
        };
        // Nobody leads on an old answer about the environment: compare-and-swap sees to that.
        let elects = call.resource.starts_with("agentenvironments");
        if self.stale.load(Ordering::SeqCst) && !elects {
            if call.verb == "watch" {
                // What is new comes only later.
                while self.stale.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            } else if matches!(call.verb.as_str(), "get" | "list") && !call.is_lease() {
                let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                let past = self.inner().past.get(&path).cloned();
                if let Some(bytes) = past {
                    return Ok(whole(StatusCode::OK, bytes));
                }
            }
        }
        // What never arrives does nothing.
        if !matches!(fault, Some(Fault::CrashBefore | Fault::Code(_))) {
            self.look_at(&head, number, &call).await;
        }
        let Some(fault) = fault else { return self.pass(&head, body, number, None).await };
        self.wrong(fault, &head, body, number, &call).await
    }

    async fn look_at(&self, head: &http::request::Parts, number: usize, call: &Call) {
        let (look, body) = {
            let inner = self.inner();
            let seen = &inner.log[number];
            let Some(watched) = inner.watched.as_ref().filter(|_| call.writes() && !seen.dry_run) else { return };
            (Arc::clone(&watched.look), seen.body.clone())
        };
        let mut parts = head.uri.path().split('/').skip_while(|part| *part != "namespaces");
        let (Some(namespace), Ok(upstream)) = (parts.nth(1), self.upstream()) else { return };
        let wrong = look(upstream, namespace.to_owned(), call.clone(), body).await;
        if let Some(watched) = &mut self.inner().watched {
            watched.found.extend(wrong.into_iter().map(|what| format!("{what}: {call}")));
        }
    }

    /// The call as the fault has it.
    async fn wrong(
        self: Arc<Self>,
        fault: Fault,
        head: &http::request::Parts,
        body: Bytes,
        number: usize,
        call: &Call,
    ) -> Result<Response<Reply>, Broken> {
        match fault {
            Fault::CrashBefore => {
                self.met();
                std::future::pending().await
            }
            // A watch has no end to wait for.
            Fault::CrashAfter if call.verb == "watch" => {
                self.met();
                self.pass(head, body, number, None).await
            }
            Fault::Lost if call.verb == "watch" => {
                self.met();
                Err(Broken)
            }
            Fault::Reset | Fault::Truncated if call.verb == "watch" => {
                self.met();
                let mut answer = whole(StatusCode::OK, Bytes::from_static(HALF_AN_EVENT));
                answer.body_mut().then = if fault == Fault::Reset { Then::Break } else { Then::End };
                Ok(answer)
            }
            Fault::CrashAfter | Fault::Stale | Fault::Clock(_) => {
                let _ = self.forward(head, body, number).await;
                self.met();
                std::future::pending().await
            }
            Fault::Lost => {
                let _ = self.forward(head, body, number).await;
                self.met();
                Err(Broken)
            }
            Fault::Code(code) => {
                self.met();
                Ok(refusal(code, call))
            }
            Fault::Silence if call.verb == "watch" => {
                self.met();
                let mut answer = whole(StatusCode::OK, Bytes::new());
                answer.body_mut().then = Then::Nothing;
                Ok(answer)
            }
            Fault::Reset | Fault::Truncated | Fault::Silence => {
                let (status, bytes) = self.forward(head, body, number).await?;
                self.met();
                let half = bytes.slice(..bytes.len() / 2);
                if fault == Fault::Truncated {
                    return Ok(whole(status, half));
                }
                // What is announced does not come.
                let first = if fault == Fault::Reset { half } else { Bytes::new() };
                let mut answer = whole(status, first);
                answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                answer.body_mut().then = if fault == Fault::Reset { Then::Break } else { Then::Nothing };
                Ok(answer)
            }
            Fault::Twice => {
                let _ = self.forward(head, body.clone(), number).await;
                self.met();
                self.pass(head, body, number, None).await
            }
            Fault::Dropped | Fault::Swapped => self.pass(head, body, number, Some(fault)).await,
            Fault::Push => {
                self.met();
                self.pass(head, body, number, None).await
            }
            Fault::Slow => {
                self.met();
                tokio::time::sleep(SLOW).await;
                let answer = self.pass(head, body, number, None).await;
                tokio::time::sleep(SLOW).await;
                answer
            }
            Fault::Held => {
                self.met();
                // It is on its way, whether its sender still waits for the answer or not.
                let (state, head) = (Arc::clone(&self), head.clone());
                let late = tokio::spawn(async move {
                    let mut go_on = state.go_on.subscribe();
                    let _ = go_on.wait_for(|go_on| *go_on).await;
                    state.forward(&head, body, number).await
                });
                let (status, bytes) = late.await.map_err(|_| Broken)??;
                Ok(whole(status, bytes))
            }
        }
    }

    /// Asks the API server, and gives its answer as it comes.
    async fn pass(
        self: Arc<Self>,
        head: &http::request::Parts,
        body: Bytes,
        number: usize,
        events: Option<Fault>,
    ) -> Result<Response<Reply>, Broken> {
        let answer = self.send(head, body, number).await?;
        let (parts, body) = answer.into_parts();
        let then = match events {
            None => Then::Stream(body),
            Some(fault) => {
                let state = Arc::clone(&self);
                let opened = {
                    let inner = state.inner();
                    inner.watched.is_some().then_some(inner.stage)
                };
                Then::Events(Box::new(Events { body, part: vec![], kept: None, fault, state, opened, done: false }))
            }
        };
        let mut answer = Response::new(Reply { first: VecDeque::new(), then });
        *answer.status_mut() = parts.status;
        for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
            if let Some(value) = parts.headers.get(&name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        Ok(answer)
    }

    async fn forward(
        self: &Arc<Self>,
        head: &http::request::Parts,
        body: Bytes,
        number: usize,
    ) -> Result<(StatusCode, Bytes), Broken> {
        let answer = self.send(head, body, number).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect_bytes().await.map_err(|_| Broken)?))
    }

    async fn send(
        self: &Arc<Self>,
        head: &http::request::Parts,
        body: Bytes,
        number: usize,
    ) -> Result<Response<Body>, Broken> {
        let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::builder().method(head.method.clone()).uri(path);
        for name in ["accept", "content-type", "impersonate-user"] {
            if let Some(value) = head.headers.get(name) {
                request = request.header(name, value);
            }
        }
        let request = request.body(Body::from(body)).map_err(|_| Broken)?;
        // What is on its way arrives, and is known, whether its sender lives on or not.
        let state = Arc::clone(self);
        let sent = tokio::spawn(async move {
            let answer = state.upstream()?.send(request).await.map_err(|_| Broken)?;
            if let Some(seen) = state.inner().log.get_mut(number) {
                // What arrives twice had its effect where either did.
                seen.code = seen.code.filter(|code| *code < 300).or(Some(answer.status().as_u16()));
            }
            Ok(answer)
        });
        sent.await.map_err(|_| Broken)?
    }
}

fn whole(status: StatusCode, bytes: Bytes) -> Response<Reply> {
    let mut answer = Response::new(Reply { first: VecDeque::from([bytes]), then: Then::End });
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// What the server would say with this code.
fn refusal(code: u16, call: &Call) -> Response<Reply> {
    let reason = match (code, call.verb.as_str()) {
        (403, _) => "Forbidden",
        (409, "create") => "AlreadyExists",
        (409, _) => "Conflict",
        (410, _) => "Expired",
        (429, _) => "TooManyRequests",
        (503, _) => "ServiceUnavailable",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
        "message": "refused on purpose", "metadata": {},
    });
    let mut answer = whole(StatusCode::from_u16(code).expect("a code"), Bytes::from(body.to_string()));
    if code == 429 {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

// === impl Reply ===

impl hyper::body::Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if let Some(bytes) = this.first.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut this.then {
            Then::End => Poll::Ready(None),
            Then::Break => Poll::Ready(Some(Err(Broken))),
            Then::Nothing => Poll::Pending,
            Then::Stream(body) => Pin::new(body).poll_frame(cx).map_err(|_| Broken),
            Then::Events(events) => events.poll(cx),
        }
    }
}

// === impl Events ===

impl Events {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            let end = self.part.iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line = Bytes::from(self.part.drain(..=end).collect::<Vec<_>>());
                // A bookmark is no event: it stays where it is.
                if line.windows(8).any(|word| word == b"BOOKMARK") {
                    let both = [self.kept.take().unwrap_or_default(), line].concat();
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from(both)))));
                }
                if self.opened == Some(self.state.inner().stage) {
                    return Poll::Ready(Some(Ok(Frame::data(line))));
                }
                match (self.fault, self.done, self.kept.take()) {
                    (Fault::Dropped, false, _) => {
                        self.done = true;
                        self.state.met();
                    }
                    (Fault::Swapped, false, None) => self.kept = Some(line),
                    (Fault::Swapped, false, Some(first)) => {
                        self.done = true;
                        self.state.met();
                        let both = [line, first].concat();
                        return Poll::Ready(Some(Ok(Frame::data(Bytes::from(both)))));
                    }
                    (_, _, _) => return Poll::Ready(Some(Ok(Frame::data(line)))),
                }
                continue;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    // What was kept back for an event that never came.
                    return Poll::Ready(self.kept.take().map(|line| Ok(Frame::data(line))));
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(Broken))),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.part.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
