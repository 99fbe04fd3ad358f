//! One request to the API server: its deadline, its place in the queue, and what a refusal means.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use kube::client::Body;
use kube::core::Status;
use serde_json::Value;

use super::Limiter;
use super::lean::Lean;
use crate::model::one_line;
use crate::reconcile::{Failure, FailureKind};

/// Longest text of the server's that a message quotes.
const MAX_QUOTE: usize = 400;
/// What the server is given before our own deadline ends a request, so that a late effect is rare.
const MARGIN: Duration = Duration::from_secs(2);

/// One API server as one identity: all requests of all rooms go through here.
///
/// # Assumptions
///
/// The client was made by [`connect`](super::connect()), so that it does not retry by itself: the core decides.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    limiter: Arc<Limiter>,
    timeout: Duration,
}

/// One request, not yet sent.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Option<(&'static str, Value)>,
    /// The answer is read with `managedFields`.
    pub(crate) whole: bool,
}

/// Why a request gave nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server said no.
    Server {
        /// The HTTP status.
        code: u16,
        /// What it said.
        status: Box<Status>,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// No answer, or one that cannot be read; it may or may not have happened.
    Unreachable(String),
    /// The queue was closed by the server's `Retry-After` for too long.
    Held(u64),
    /// It was decided here, without asking.
    Here(FailureKind, String),
}

// === impl Api ===

impl Api {
    /// Speaks through `client`, taking turns by `limiter`; each request ends after 15 s.
    pub fn new(client: kube::Client, limiter: Arc<Limiter>) -> Self {
        Self { client, limiter, timeout: Duration::from_secs(15) }
    }

    /// The same with another deadline for each request, at least 1 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.max(Duration::from_secs(1));
        self
    }

    pub(crate) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Whether few requests are under way: time for those that can wait.
    pub(crate) fn is_calm(&self) -> bool {
        self.limiter.is_calm()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends `call` and reads the JSON that comes back, without `managedFields` unless it asks for them.
    pub(crate) async fn call(&self, call: Call) -> Result<Value, Refusal> {
        self.call_if(call, &|| true).await
    }

    /// Sends `call` if `holds` says so when its turn has come: the last look before an effect.
    pub(crate) async fn call_if(&self, call: Call, holds: &(dyn Fn() -> bool + Sync)) -> Result<Value, Refusal> {
        let whole = call.whole;
        let request = call.request(self.timeout)?;
        let _turn = self.limiter.admit().await.map_err(Refusal::Held)?;
        if !holds() {
            let why = "another instance took over, or the lease is too old to be sure".to_owned();
            return Err(Refusal::Here(FailureKind::Fenced, why));
        }
        let answer = match tokio::time::timeout(self.timeout, self.exchange(request, whole)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unreachable(format!("no answer within {} s", self.timeout.as_secs()))),
        };
        if let Err(Refusal::Server { code: 429 | 503, retry_after: Some(seconds), .. }) = &answer {
            self.limiter.hold(*seconds);
        }
        answer
    }

    async fn exchange(&self, request: Request<Body>, whole: bool) -> Result<Value, Refusal> {
        let answer = self.client.send(request).await.map_err(|error| Refusal::of(&error))?;
        let (head, body) = answer.into_parts();
        let seconds = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = body.collect_bytes().await.map_err(|error| Refusal::of(&error))?;
        if head.status.is_success() {
            let read = if whole {
                serde_json::from_slice(&bytes)
            } else {
                serde_json::from_slice(&bytes).map(|Lean(read)| read)
            };
            return read.map_err(|_| Refusal::Unreachable("the answer was cut off or is no JSON".to_owned()));
        }
        let code = head.status.as_u16();
        let status = serde_json::from_slice::<Status>(&bytes)
            .unwrap_or_else(|_| Status::failure(&String::from_utf8_lossy(&bytes), ""));
        let asked = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds));
        let retry_after = seconds.or(asked.filter(|seconds| *seconds > 0));
        Err(Refusal::Server { code, status: Box::new(status), retry_after })
    }
}

// === impl Call ===

impl Call {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self { method, path, query: Vec::new(), body: None, whole: false }
    }

    pub(crate) fn get(path: String) -> Self {
        Self::new(Method::GET, path)
    }

    /// Reads `managedFields` of the answer too, which are passed over else.
    pub(crate) fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    pub(crate) fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    pub(crate) fn json(self, body: Value) -> Self {
        self.body("application/json", body)
    }

    pub(crate) fn body(mut self, content_type: &'static str, body: Value) -> Self {
        self.body = Some((content_type, body));
        self
    }

    /// The request without a body, for a watch.
    pub(crate) fn empty(self) -> Result<Request<Vec<u8>>, Refusal> {
        let request = Request::builder().method(self.method.clone()).uri(self.uri(None));
        request.header(http::header::ACCEPT, "application/json").body(Vec::new()).map_err(|error| unsendable(&error))
    }

    fn uri(&self, own: Option<&(&'static str, String)>) -> String {
        let mut uri = self.path.clone();
        for (n, (key, value)) in self.query.iter().chain(own).enumerate() {
            uri.push(if n == 0 { '?' } else { '&' });
            uri.push_str(key);
            uri.push('=');
            encode(value, &mut uri);
        }
        uri
    }

    fn request(self, timeout: Duration) -> Result<Request<Body>, Refusal> {
        let own = (self.method != Method::GET)
            .then(|| ("timeout", format!("{}s", timeout.saturating_sub(MARGIN).as_secs().max(1))));
        let uri = self.uri(own.as_ref());
        let request = Request::builder().method(self.method).uri(uri).header(http::header::ACCEPT, "application/json");
        let request = match self.body {
            None => request.body(Body::empty()),
            Some((content_type, body)) => {
                request.header(http::header::CONTENT_TYPE, content_type).body(Body::from(body.to_string().into_bytes()))
            }
        };
        request.map_err(|error| unsendable(&error))
    }
}

fn unsendable(error: &http::Error) -> Refusal {
    Refusal::Here(FailureKind::Refused, format!("no such request: {error}"))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// One segment of a path: a name that the API server would not take for anything else.
pub(crate) fn segment(name: &str) -> Result<String, Refusal> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']) {
        let why = format!("`{}` cannot be the name of an object", name.escape_debug());
        return Err(Refusal::Here(FailureKind::Refused, why));
    }
    let mut out = String::new();
    encode(name, &mut out);
    Ok(out)
}

// === impl Refusal ===

impl Refusal {
    /// What kube's own errors mean: whatever they are, nobody knows whether it happened.
    pub(crate) fn of(error: &kube::Error) -> Self {
        if let kube::Error::Api(status) = error {
            // Something that stands before the API server answers in words of its own.
            if status.code == 0 {
                let words = if status.message.is_empty() { "" } else { ": " };
                return Self::Unreachable(quote(&format!("the answer says no code{words}{}", status.message)));
            }
            let retry_after = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds));
            let retry_after = retry_after.filter(|seconds| *seconds > 0);
            return Self::Server { code: status.code, status: status.clone(), retry_after };
        }
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error).and_then(std::error::Error::source);
        // The outermost sentence of hyper says little ("client error (Connect)").
        for _ in 0..4 {
            let Some(inner) = source else { break };
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            source = inner.source();
        }
        Self::Unreachable(quote(&text))
    }

    /// The HTTP status, where the server answered.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Server { code, .. } => Some(*code),
            Self::Unreachable(_) | Self::Held(_) | Self::Here(..) => None,
        }
    }

    /// Seconds that the server asked to wait.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Server { retry_after, .. } => *retry_after,
            Self::Held(seconds) => Some(*seconds),
            Self::Unreachable(_) | Self::Here(..) => None,
        }
    }

    /// What the core is told; `deed` reads after "cannot".
    pub(crate) fn failure(&self, deed: &str) -> Failure {
        Failure { kind: self.kind(), message: format!("cannot {deed}: {}", self.why()) }
    }

    /// What kind of failure it is.
    pub(crate) fn kind(&self) -> FailureKind {
        let (code, status, retry_after) = match self {
            Self::Server { code, status, retry_after } => (*code, status, *retry_after),
            Self::Unreachable(_) => return FailureKind::Unavailable { retry_after: None },
            Self::Held(seconds) => return FailureKind::Unavailable { retry_after: Some(*seconds) },
            Self::Here(kind, _) => return kind.clone(),
        };
        let says = |text: &str| status.message.contains(text);
        let by_admission = says("admission webhook ") || says("ValidatingAdmissionPolicy ");
        match code {
            401 => FailureKind::Forbidden,
            403 if by_admission => FailureKind::Refused,
            // Right after a quota was made, the server does not know yet what is used.
            403 if says("status unknown for quota") => FailureKind::Unavailable { retry_after },
            403 if says("exceeded quota")
                || says("because it is being terminated")
                || says("attempting to grant RBAC permissions")
                || (says("User \"") && says("\" cannot ")) =>
            {
                FailureKind::Forbidden
            }
            // The target itself is missing: not the object's fault.
            404 if self.is_missing_namespace() => FailureKind::Forbidden,
            404 if self.is_unserved() => FailureKind::Refused,
            404 => FailureKind::Gone,
            409 if status.reason == "AlreadyExists" => FailureKind::Exists,
            409 | 412 => FailureKind::Conflict,
            // Another object of the same name: the server takes our precondition for a change of its UID.
            422 if status
                .details
                .iter()
                .flat_map(|details| &details.causes)
                .any(|cause| cause.field == "metadata.uid") =>
            {
                FailureKind::Conflict
            }
            422 if !by_admission && immutable(status) => FailureKind::Immutable,
            429 | 500..=599 => FailureKind::Unavailable { retry_after },
            _ => FailureKind::Refused,
        }
    }

    /// Whether the namespace does not exist.
    pub(crate) fn is_missing_namespace(&self) -> bool {
        match self {
            Self::Server { code: 404, status, .. } => {
                status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
            }
            Self::Server { .. } | Self::Unreachable(_) | Self::Held(_) | Self::Here(..) => false,
        }
    }

    /// Whether the server does not serve this kind (any more).
    pub(crate) fn is_unserved(&self) -> bool {
        match self {
            Self::Server { code: 404, status, .. } => {
                status.details.as_ref().is_none_or(|details| details.name.is_empty())
            }
            Self::Server { .. } | Self::Unreachable(_) | Self::Held(_) | Self::Here(..) => false,
        }
    }

    /// Whether an object would hold two things where only one of several may be.
    pub(crate) fn is_two_of_one(&self) -> bool {
        match self {
            Self::Server { code: 422, status, .. } => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                let texts = causes.map(|cause| &cause.message).chain([&status.message]);
                let mut texts = texts.map(String::as_str);
                texts.any(|text| {
                    text.contains("may not be specified when") || text.contains("may not specify more than 1")
                })
            }
            Self::Server { .. } | Self::Unreachable(_) | Self::Held(_) | Self::Here(..) => false,
        }
    }

    /// The cause in one sentence, without the bodies and values that the server quotes.
    pub(crate) fn why(&self) -> String {
        match self {
            Self::Unreachable(why) | Self::Here(_, why) => why.clone(),
            Self::Held(seconds) => format!("the API server asks to wait {seconds} s"),
            Self::Server { code, status, .. } => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                let named: Vec<_> = causes.filter(|cause| !cause.field.is_empty()).take(5).collect();
                if matches!(*code, 400 | 422) && !named.is_empty() {
                    let lines = named.iter().map(|cause| format!("{}: {}", cause.field, without_value(&cause.message)));
                    return quote(&lines.collect::<Vec<_>>().join("; "));
                }
                let text = if status.message.trim().is_empty() { &status.reason } else { &status.message };
                format!("{} ({code})", quote(&without_value(text)))
            }
        }
    }
}

/// Whether the server says that a field cannot change.
fn immutable(status: &Status) -> bool {
    const SAYINGS: [&str; 8] = [
        "immutable",
        "may not change once set",
        "updates to statefulset spec",
        "pod updates may not change fields",
        "cannot change roleRef",
        "may not be changed in an update",
        "are forbidden after creation",
        "cannot be changed",
    ];
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut texts: Vec<_> = causes.map(|cause| without_value(&cause.message)).collect();
    if texts.is_empty() {
        texts.push(without_value(&status.message));
    }
    texts.iter().any(|text| SAYINGS.iter().any(|saying| text.contains(saying)))
}

/// Cuts out what the server quotes after `Invalid value:`, which may be a whole body.
fn without_value(text: &str) -> String {
    const MARK: &str = "Invalid value: ";
    match text.split_once(MARK) {
        None => text.to_owned(),
        Some((before, rest)) => {
            let detail = rest.rsplit_once(": ").map_or("not accepted", |(_, detail)| detail);
            format!("{before}invalid: {detail}")
        }
    }
}

/// One line of printable text, cut to a bound.
fn quote(text: &str) -> String {
    let mut out = one_line(text.trim(), MAX_QUOTE, ' ');
    if text.trim().chars().count() > MAX_QUOTE {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(code: u16, reason: &str, message: &str) -> Refusal {
        Refusal::Server { code, status: Box::new(Status::failure(message, reason)), retry_after: None }
    }

    fn invalid(field: &str, message: &str) -> Refusal {
        let status = json!({
            "message": format!("Thing is invalid: {field}: {message}"), "reason": "Invalid", "code": 422,
            "details": {"causes": [{"field": field, "message": message, "reason": "FieldValueInvalid"}]},
        });
        let status = serde_json::from_value(status).expect("a status");
        Refusal::Server { code: 422, status: Box::new(status), retry_after: None }
    }

    #[test]
    fn what_the_server_says_decides_the_kind() {
        let unavailable = FailureKind::Unavailable { retry_after: None };
        for (code, reason, message, kind) in [
            (401, "Unauthorized", "Unauthorized", FailureKind::Forbidden),
            (403, "Forbidden", "x is forbidden: User \"u\" cannot create resource \"x\"", FailureKind::Forbidden),
            (403, "Forbidden", "x is forbidden: exceeded quota: q, requested: pods=1", FailureKind::Forbidden),
            (403, "Forbidden", "unable to create new content because it is being terminated", FailureKind::Forbidden),
            (403, "Forbidden", "x is forbidden: status unknown for quota: q", unavailable.clone()),
            (403, "Forbidden", "x is forbidden: violates PodSecurity \"restricted\"", FailureKind::Refused),
            (
                403,
                "Forbidden",
                "admission webhook \"w\" denied the request: User \"u\" cannot do that",
                FailureKind::Refused,
            ),
            (400, "BadRequest", "strict decoding error", FailureKind::Refused),
            (409, "AlreadyExists", "x already exists", FailureKind::Exists),
            (409, "Conflict", "the object has been modified", FailureKind::Conflict),
            (412, "", "precondition", FailureKind::Conflict),
            (422, "Invalid", "ValidatingAdmissionPolicy 'p' denied: this is immutable", FailureKind::Refused),
            (422, "Invalid", "x is not valid", FailureKind::Refused),
            (422, "Invalid", "spec: Forbidden: updates to statefulset spec for …", FailureKind::Immutable),
            (413, "RequestEntityTooLarge", "too large", FailureKind::Refused),
            (429, "", "Too many requests", unavailable.clone()),
            (500, "InternalError", "failed calling webhook", unavailable.clone()),
            (503, "", "", unavailable),
        ] {
            assert_eq!(refusal(code, reason, message).kind(), kind, "{code} {message}");
        }
        assert_eq!(invalid("spec.selector", "Invalid value: {}: field is immutable").kind(), FailureKind::Immutable);
        assert_eq!(invalid("metadata.uid", "Invalid value: \"u\": field is immutable").kind(), FailureKind::Conflict);
        assert_eq!(invalid("spec.x", "Invalid value: \"immutable\": must be a number").kind(), FailureKind::Refused);
    }

    #[test]
    fn an_answer_without_a_code_is_nobodys() {
        let status = serde_json::from_value(json!({"message": "upstream\u{1b}[2J is down"})).expect("a status");
        let refusal = Refusal::of(&kube::Error::Api(Box::new(status)));
        assert_eq!(refusal.kind(), FailureKind::Unavailable { retry_after: None });
        assert_eq!(refusal.why(), "the answer says no code: upstream [2J is down");
    }

    #[test]
    fn a_message_quotes_no_value_and_no_body() {
        let told = invalid("data.token", "Invalid value: \"s3cret: yes\": illegal base64").failure("create Secret/a/b");
        assert_eq!(told.message, "cannot create Secret/a/b: data.token: invalid: illegal base64");
        let told = refusal(400, "BadRequest", &format!("a\u{1b}[31m\n{}", "x".repeat(5000))).failure("create it");
        assert!(told.message.len() < 600 && !told.message.contains('\u{1b}') && !told.message.contains('\n'));
    }

    #[test]
    fn a_name_never_leaves_its_place_in_the_path() {
        for bad in ["", ".", "..", "a/b", "..%2f"] {
            assert!(segment(bad).is_err(), "{bad}");
        }
        assert_eq!(segment("system:a b").expect("a segment"), "system%3Aa%20b");
    }
}
