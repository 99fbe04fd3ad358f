//! The API server's own record of who asked it for what.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

use crate::rights::Right;

/// What was asked since a moment.
pub(crate) struct Audit {
    file: PathBuf,
    from: u64,
}

/// One request, as it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Who asked: the account of the token.
    pub(crate) user: String,
    /// As whom, where somebody was impersonated.
    pub(crate) acting_as: Option<String>,
    /// Group, resource and verb; for `/apis` and the like nothing is named but the verb.
    pub(crate) right: Right,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) code: u64,
}

// === impl Audit ===

impl Audit {
    /// From now on.
    pub(crate) fn now() -> Self {
        let file = PathBuf::from(std::env::var_os("LAB_DIR").expect("LAB_DIR")).join("audit.log");
        let from = std::fs::metadata(&file).map_or(0, |meta| meta.len());
        Self { file, from }
    }

    /// All that was answered since then. A line is written before its answer goes out; a watch has one when it ends.
    pub(crate) fn calls(&self, in_namespace: &str) -> Vec<Call> {
        let mut text = String::new();
        let mut file = std::fs::File::open(&self.file).expect("audit.log");
        file.seek(SeekFrom::Start(self.from)).expect("a place in audit.log");
        file.read_to_string(&mut text).expect("audit.log");
        // Cheap before it is parsed: other tests write to the same file.
        let lines = text.lines().filter(|line| line.contains(in_namespace));
        let calls = lines.filter_map(|line| Call::of(&serde_json::from_str(line).ok()?));
        calls.filter(|call| call.namespace == in_namespace).collect()
    }
}

// === impl Call ===

impl Call {
    fn of(event: &Value) -> Option<Self> {
        let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let resource = match (text("/objectRef/resource"), text("/objectRef/subresource")) {
            (resource, part) if part.is_empty() => resource,
            (resource, part) => format!("{resource}/{part}"),
        };
        Some(Self {
            user: text("/user/username"),
            acting_as: Some(text("/impersonatedUser/username")).filter(|name| !name.is_empty()),
            right: (text("/objectRef/apiGroup"), resource, text("/verb")),
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code: event.pointer("/responseStatus/code")?.as_u64()?,
        })
    }

    /// Whether it asked for a change, of whatever.
    pub(crate) fn writes(&self) -> bool {
        !matches!(self.right.2.as_str(), "get" | "list" | "watch")
    }
}
