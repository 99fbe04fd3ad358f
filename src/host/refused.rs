//! Why a request is refused, in the words of the Kubernetes API.

use http::StatusCode;
use serde_json::{Value, json};

use super::kinds::Key;

/// A refusal, with what its `Status` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: StatusCode,
    reason: &'static str,
    message: String,
    details: Value,
}

// === impl Refused ===

impl Refused {
    fn new(code: StatusCode, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: json!({}) }
    }

    fn about(mut self, key: &Key) -> Self {
        self.details = json!({"name": key.name, "group": key.kind.group, "kind": key.kind.plural});
        self
    }

    /// Nothing is served at this path.
    pub(super) fn unserved() -> Self {
        let message = "a host does not have this kind of object".to_owned();
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(super) fn not_found(key: &Key) -> Self {
        let message = format!("{} \"{}\" not found", key.kind.plural, key.name);
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(key)
    }

    pub(super) fn exists(key: &Key) -> Self {
        let message = format!("{} \"{}\" already exists", key.kind.plural, key.name);
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(key)
    }

    /// A precondition does not hold.
    pub(super) fn conflict(key: &Key, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{}\": {why}", key.kind.plural, key.name);
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(key)
    }

    /// The version to go on from is too old.
    pub(super) fn expired() -> Self {
        Self::new(StatusCode::GONE, "Expired", "too old resource version".to_owned())
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message.into())
    }

    pub(super) fn invalid(key: &Key, why: &str) -> Self {
        let message = format!("{} \"{}\" is invalid: {why}", key.kind.kind, key.name);
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(key)
    }

    /// The caller has no such right.
    pub(super) fn forbidden(who: &str, method: &http::Method, path: &str) -> Self {
        let message = format!(
            "User \"{who}\" cannot {method} {path}: on a host the daemon alone writes; root, its own account and \
             every `[[person]]` of its configuration may ask"
        );
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// What a person sends is no request of theirs.
    pub(super) fn not_a_request(who: &str, key: &Key, why: &str) -> Self {
        let message = format!("User \"{who}\" cannot change {} \"{}\": {why}", key.kind.plural, key.name);
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(key)
    }

    pub(super) fn method() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// The database does not take it now: a full disk, a lock, one of a newer version.
    pub(super) fn unavailable(why: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why.into())
    }

    /// The body of the answer.
    pub(super) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.code.as_u16(),
        })
    }
}
