//! Differences as lines that a person reads: `+ ~ - ±`, sorted, legible without colour, secrets masked.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::diff::{Change, FieldPath, Segment};
use super::redact::{MASK, mask_text, redact};
use crate::model::ObjectRef;

/// The longest text that stands on one line, in characters.
const LONGEST: usize = 100;
/// The most lines of a text's difference that are shown.
const MOST_LINES: usize = 200;

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
    /// The line, masked and without control characters, mark and indentation.
    pub text: String,
}

/// One field of a step as `plan -o json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldView {
    /// Which: `spec.template.spec.containers[name=agent].image`.
    pub path: String,
    /// What is there; absent: nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What it becomes; absent: it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// Whether something in `from` or `to` is or looks like a secret, and stands as `***`.
    pub masked: bool,
}

// === impl Mark ===

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

// === impl ChangeLine ===

impl ChangeLine {
    fn new(mark: Option<Mark>, depth: u8, text: impl Into<String>) -> Self {
        Self { mark, depth, text: text.into() }
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

/// The lines of one object: itself, then each field that changes, sorted by path.
///
/// Maps and elements that are wholly new are shown field by field. A text of several lines is shown by the lines that
/// differ. Values that are or look like secrets are `***`; that one changed is still seen.
pub fn object_lines(mark: Mark, object: &ObjectRef, changes: &[Change]) -> Vec<ChangeLine> {
    let mut lines = vec![ChangeLine::new(Some(mark), 0, escape(&object.to_string()))];
    let mut sorted: Vec<_> = changes.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    for change in sorted {
        match (&change.from, &change.to) {
            (Some(from), Some(to)) => replaced(object, &change.path, from, to, &mut lines),
            (None, Some(to)) => lines.extend(leaf_lines(object, Mark::Add, &change.path, to)),
            (Some(from), None) => lines.extend(leaf_lines(object, Mark::Remove, &change.path, from)),
            (None, None) => {}
        }
    }
    lines
}

fn leaf_lines(object: &ObjectRef, mark: Mark, path: &FieldPath, value: &Value) -> Vec<ChangeLine> {
    let line = |(path, leaf): &(FieldPath, &Value)| {
        let text = format!("{}: {}", escape(&path.to_string()), shown(object, path, leaf));
        ChangeLine::new(Some(mark), 1, text)
    };
    leaves(path, value).iter().map(line).collect()
}

/// The lines of an object that is made: every field that a person declares or may care about.
pub fn created_lines(object: &ObjectRef, body: &Value) -> Vec<ChangeLine> {
    let mut lines = object_lines(Mark::Add, object, &created(body));
    // The line of the object says them.
    lines.retain(|line| !line.text.starts_with("metadata.name: ") && !line.text.starts_with("metadata.namespace: "));
    lines
}

/// Everything in an object that is made, but for its identity's first half.
fn created(body: &Value) -> Vec<Change> {
    let fields = body.as_object().into_iter().flatten();
    let fields = fields.filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind"));
    fields.map(|(key, value)| Change { path: FieldPath::of(&[key]), from: None, to: Some(value.clone()) }).collect()
}

// === impl FieldView ===

impl FieldView {
    /// What `changes` do to the fields of an object of this kind, sorted by path: as [`object_lines`] shows them.
    pub fn of(kind: &str, changes: &[Change]) -> Vec<Self> {
        let mut views = vec![];
        for change in changes {
            let (path, from, to) = (&change.path, change.from.as_ref(), change.to.as_ref());
            match (from, to) {
                (Some(_), Some(_)) => views.push(Self::one(kind, path, from, to)),
                (None, Some(to)) => {
                    views.extend(leaves(path, to).iter().map(|(at, to)| Self::one(kind, at, None, Some(to))));
                }
                (Some(from), None) => {
                    views.extend(leaves(path, from).iter().map(|(at, from)| Self::one(kind, at, Some(from), None)));
                }
                (None, None) => {}
            }
        }
        views.sort_by(|a, b| a.path.cmp(&b.path));
        views
    }

    /// The fields of an object that is made, as [`created_lines`] shows them.
    pub fn of_created(kind: &str, body: &Value) -> Vec<Self> {
        let mut views = Self::of(kind, &created(body));
        views.retain(|view| !matches!(view.path.as_str(), "metadata.name" | "metadata.namespace"));
        views
    }

    fn one(kind: &str, path: &FieldPath, from: Option<&Value>, to: Option<&Value>) -> Self {
        let shown = |value: Option<&Value>| value.map(|value| redact(kind, path, value));
        let (shown_from, shown_to) = (shown(from), shown(to));
        let masked = shown_from.as_ref() != from || shown_to.as_ref() != to;
        Self { path: path.to_string(), from: shown_from, to: shown_to, masked }
    }
}

fn replaced(object: &ObjectRef, path: &FieldPath, from: &Value, to: &Value, lines: &mut Vec<ChangeLine>) {
    if let (Value::String(old), Value::String(new)) = (from, to)
        && (old.contains('\n') || new.contains('\n'))
        && redact(&object.kind, path, to) != MASK
    {
        lines.push(ChangeLine::new(Some(Mark::Change), 1, format!("{}:", escape(&path.to_string()))));
        let diff = TextDiff::from_lines(old.as_str(), new.as_str());
        let before = lines.len();
        for change in diff.iter_all_changes() {
            let mark = match change.tag() {
                ChangeTag::Equal => continue,
                ChangeTag::Insert => Mark::Add,
                ChangeTag::Delete => Mark::Remove,
            };
            if lines.len() - before == MOST_LINES {
                lines.push(ChangeLine::new(None, 2, "…"));
                break;
            }
            lines.push(ChangeLine::new(
                Some(mark),
                2,
                escape(&mask_text(change.value().trim_end_matches(['\n', '\r']))),
            ));
        }
        return;
    }
    let (old, new) = (shown(object, path, from), shown(object, path, to));
    let text = if old == new { format!("{old} (changed)") } else { format!("{old} -> {new}") };
    lines.push(ChangeLine::new(Some(Mark::Change), 1, format!("{}: {text}", escape(&path.to_string()))));
}

/// The fields of a value that is wholly new or gone, each with its path.
fn leaves<'v>(path: &FieldPath, value: &'v Value) -> Vec<(FieldPath, &'v Value)> {
    let mut found = vec![];
    collect(path, value, &mut found);
    found
}

fn collect<'v>(path: &FieldPath, value: &'v Value, found: &mut Vec<(FieldPath, &'v Value)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                // A keyed element's key is in the path already.
                let in_path =
                    matches!(path.0.last(), Some(Segment::Key(keys)) if keys.iter().any(|(name, _)| name == key));
                if !in_path || fields.len() == 1 {
                    let mut path = path.clone();
                    path.0.push(Segment::Field(key.clone()));
                    collect(&path, value, found);
                }
            }
        }
        Value::Array(elements) if elements.iter().any(Value::is_object) => {
            for (n, element) in elements.iter().enumerate() {
                let mut path = path.clone();
                let name = element.get("name").and_then(Value::as_str);
                path.0.push(name.map_or(Segment::Index(n), |name| Segment::Key(vec![("name".into(), name.into())])));
                collect(&path, element, found);
            }
        }
        leaf @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_)) => found.push((path.clone(), leaf)),
    }
}

/// A value on one line, masked and cut.
fn shown(object: &ObjectRef, path: &FieldPath, value: &Value) -> String {
    let masked = redact(&object.kind, path, value);
    if let Value::String(text) = &masked
        && (text.contains('\n') || text.chars().count() > LONGEST)
    {
        let first: String = text.lines().next().unwrap_or_default().chars().take(LONGEST / 2).collect();
        return format!("{:?}… ({} lines, {} bytes)", mask_text(&first), text.lines().count(), text.len());
    }
    let json = masked.to_string();
    let cut: String = json.chars().take(LONGEST).collect();
    if cut.len() < json.len() { format!("{}… ({} bytes)", escape(&cut), json.len()) } else { escape(&json) }
}

/// Control characters as escapes, so that no file speaks to a terminal.
fn escape(text: &str) -> String {
    // Bidirectional controls reorder what a person reads, though they are no control characters.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}
