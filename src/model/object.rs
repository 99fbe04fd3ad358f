//! Kubernetes objects: their identity, as rendered, and as seen.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Origin;

/// A group and a kind: `apps/Deployment`, or `Service` of the core group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupKind {
    /// API group; empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind, as in manifests.
    pub kind: String,
}

/// The identity of an object in a cluster: group, kind, namespace, name.
///
/// The version of the API is not part of it, so that one object asked for in two versions is one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// API group; empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind, as in manifests.
    pub kind: String,
    /// Namespace; empty for objects of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// The server's unique id of one object in time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub String);

/// The server's version of an object, comparable (KEP-5504).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceVersion(pub String);

/// One object as Git asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Which object.
    pub object: ObjectRef,
    /// The whole rendered object, with `apiVersion` and `kind`; only fields that are ours.
    pub body: Arc<Value>,
    /// Where it was declared.
    pub origin: Origin,
}

/// One object as the API server showed it.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveObject {
    /// Which object.
    pub object: ObjectRef,
    /// Its id in time.
    pub uid: Uid,
    /// The version that was read.
    pub version: ResourceVersion,
    /// The whole object, `metadata.managedFields` included where it was read for a write.
    pub body: Arc<Value>,
}

// === impl ObjectRef ===

impl ObjectRef {
    /// Reads the identity of an object from its body; nothing when a part is missing or no text.
    ///
    /// An object without a namespace gets `namespace`.
    pub fn of(body: &Value, namespace: &str) -> Option<Self> {
        let api_version = body.get("apiVersion")?.as_str()?;
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let metadata = body.get("metadata")?;
        Some(Self {
            group: group.to_owned(),
            kind: body.get("kind")?.as_str()?.to_owned(),
            namespace: metadata.get("namespace").and_then(Value::as_str).unwrap_or(namespace).to_owned(),
            name: metadata.get("name")?.as_str()?.to_owned(),
        })
    }

    /// Its group and kind.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (Shown(&self.kind), Shown(&self.name));
        if self.namespace.is_empty() {
            write!(f, "{kind}/{name}")
        } else {
            write!(f, "{kind}/{}/{name}", Shown(&self.namespace))
        }
    }
}

// === impl GroupKind ===

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = Shown(&self.kind);
        if self.group.is_empty() { kind.fmt(f) } else { write!(f, "{}/{kind}", Shown(&self.group)) }
    }
}

/// A word of a manifest, which may be no name at all: control characters are escaped.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| if c.is_control() { c.escape_default().fmt(f) } else { f.write_char(c) })
    }
}

// === impl ResourceVersion ===

impl ResourceVersion {
    /// Whether this is the same or a later version than `other`.
    ///
    /// Versions are decimal numbers of any length (KEP-5504); anything else is older than every number.
    pub fn is_at_least(&self, other: &Self) -> bool {
        self.number() >= other.number()
    }

    /// Its digits, to be compared by length first; nothing where it is no number.
    fn number(&self) -> Option<(usize, &str)> {
        let digits = self.0.trim_start_matches('0');
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some((digits.len(), digits))
    }
}

impl fmt::Debug for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

// === impl LiveObject ===

impl LiveObject {
    /// Reads what the API server sent; nothing when it carries no identity, UID or version.
    pub fn of(body: Value) -> Option<Self> {
        let object = ObjectRef::of(&body, "")?;
        let text = |field: &str| body.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).map(str::to_owned);
        let (uid, version) = (Uid(text("uid")?), ResourceVersion(text("resourceVersion")?));
        Some(Self { object, uid, version, body: Arc::new(body) })
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.body.get("metadata")?.get("annotations")?.get(key)?.as_str()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.body.get("metadata")?.get("labels")?.get(key)?.as_str()
    }

    /// Whether its deletion has begun.
    pub fn is_terminating(&self) -> bool {
        self.body.pointer("/metadata/deletionTimestamp").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let at = |version: &str| ResourceVersion(version.to_owned());
        assert!(at("10").is_at_least(&at("9")));
        assert!(at("10").is_at_least(&at("10")));
        assert!(!at("99").is_at_least(&at("100")));
        assert!(!at("abc").is_at_least(&at("0")));
    }

    #[test]
    fn an_object_is_known_by_group_kind_namespace_and_name() {
        let body = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "support"}});
        let object = ObjectRef::of(&body, "agents").expect("an identity");
        assert_eq!(object.to_string(), "Deployment/agents/support");
        assert_eq!(object.group_kind().to_string(), "apps/Deployment");
        assert_eq!(ObjectRef::of(&serde_json::json!({"kind": "Pod"}), "agents"), None);
    }
}
