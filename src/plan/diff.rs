//! What differs between two objects, field by field, as Kubernetes reads them.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::model::GroupKind;

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A field of a map.
    Field(String),
    /// The element of a keyed list with these values in its key fields.
    Key(Vec<(String, String)>),
    /// An element of a list by its place, from 0.
    Index(usize),
}

/// Where a field is: `spec.template.spec.containers[name=agent].image`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(pub Vec<Segment>);

/// A rendered field that is otherwise in the cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Which field.
    pub path: FieldPath,
    /// What was rendered.
    pub ours: Value,
    /// What is there; nothing where the field is missing.
    pub live: Option<Value>,
}

/// A field that differs between two rendered objects.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Which field.
    pub path: FieldPath,
    /// Before; nothing where it is new.
    pub from: Option<Value>,
    /// After; nothing where it is gone.
    pub to: Option<Value>,
}

// === impl FieldPath ===

impl FieldPath {
    /// The path of a field of the object's root.
    pub fn field(name: &str) -> Self {
        Self(vec![Segment::Field(name.to_owned())])
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$'))
        };
        for (n, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if plain(name) && n == 0 => f.write_str(name)?,
                Segment::Field(name) if plain(name) => write!(f, ".{name}")?,
                Segment::Field(name) => write!(f, "[{name:?}]")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(keys) => {
                    for (n, (key, value)) in keys.iter().enumerate() {
                        write!(f, "{}{key}={value}", if n == 0 { '[' } else { ',' })?;
                    }
                    f.write_str("]")?;
                }
            }
        }
        Ok(())
    }
}

impl Serialize for FieldPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Finds the rendered fields that are otherwise in the cluster: a `Change` from `live` to `rendered` heals them.
pub fn drift(rendered: &Value, live: &Value) -> Vec<FieldChange> {
    let _ = (rendered, live);
    vec![]
}

/// Finds all fields that differ between two rendered forms of one object.
pub fn changes(old: &Value, new: &Value) -> Vec<Change> {
    let _ = (old, new);
    vec![]
}

/// Finds the fields that were rendered once and are no longer: the topmost of each.
pub fn dropped(old: &Value, new: &Value) -> Vec<FieldPath> {
    let _ = (old, new);
    vec![]
}
