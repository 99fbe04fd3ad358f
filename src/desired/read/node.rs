//! A value and the place where it was written.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::{Number, Value};

use crate::desired::secrets;
use crate::model::{Diagnostic, Origin};

/// Characters of a source line that a snippet shows.
const SNIPPET: usize = 120;
/// Bytes of a line that is looked through for secrets; nothing of a longer one is shown.
const LONGEST_SHOWN: usize = 4096;

/// One file that was read.
pub(in crate::desired) struct Source {
    pub(in crate::desired) path: Arc<str>,
    text: Arc<str>,
    /// Lines that hold what may be a secret: never shown.
    sensitive: OnceLock<BTreeSet<u32>>,
}

/// A place in a file: where a key or a value stands.
#[derive(Clone)]
pub(in crate::desired) struct Spot {
    source: Arc<Source>,
    line: u32,
    column: u32,
    /// Characters that it takes in its line.
    width: u32,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(in crate::desired) struct Node {
    pub(in crate::desired) spot: Spot,
    pub(in crate::desired) kind: Kind,
}

#[derive(Debug, Clone)]
pub(in crate::desired) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// The fields of a map, in the order in which they were written.
#[derive(Debug, Clone, Default)]
pub(in crate::desired) struct Map(pub(in crate::desired) Vec<Field>);

#[derive(Debug, Clone)]
pub(in crate::desired) struct Field {
    pub(in crate::desired) key: String,
    pub(in crate::desired) spot: Spot,
    pub(in crate::desired) value: Node,
}

// === impl Source ===

impl Source {
    pub(in crate::desired) fn new(path: &str, text: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), text: text.into(), sensitive: OnceLock::new() })
    }

    pub(in crate::desired) fn text(&self) -> &str {
        &self.text
    }

    /// Says which lines may never be shown. Only the first call counts: it comes from the parser.
    pub(in crate::desired) fn hide(&self, lines: BTreeSet<u32>) {
        let _ = self.sensitive.set(lines);
    }

    pub(in crate::desired) fn hides(&self, line: u32) -> bool {
        let secret = |text: &str| text.len() > LONGEST_SHOWN || secrets::in_line(text);
        self.sensitive.get().is_some_and(|lines| lines.contains(&line)) || self.line(line).is_some_and(secret)
    }

    fn line(&self, line: u32) -> Option<&str> {
        self.text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)
    }

    /// A place in this file; line and column from 1.
    pub(in crate::desired) fn spot(self: &Arc<Self>, line: usize, column: usize, width: usize) -> Spot {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Spot { source: Arc::clone(self), line: number(line), column: number(column), width: number(width) }
    }

    /// The place of a byte of the text.
    pub(in crate::desired) fn spot_at(self: &Arc<Self>, byte: usize, width: usize) -> Spot {
        let before = self.text.get(..byte).unwrap_or(&self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.spot(line, column, width)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

// === impl Spot ===

impl Spot {
    pub(in crate::desired) fn origin(&self) -> Origin {
        Origin { file: Arc::clone(&self.source.path), line: self.line, column: self.column }
    }

    #[cfg(test)]
    pub(in crate::desired) fn file(&self) -> &str {
        &self.source.path
    }

    pub(in crate::desired) fn line(&self) -> u32 {
        self.line
    }

    /// Whether the line may hold a secret, so that nothing of it is repeated.
    pub(in crate::desired) fn is_hidden(&self) -> bool {
        self.source.hides(self.line)
    }

    pub(in crate::desired) fn error(&self, message: impl Into<String>) -> Diagnostic {
        self.with_snippet(Diagnostic::error(self.origin(), message))
    }

    pub(in crate::desired) fn warning(&self, message: impl Into<String>) -> Diagnostic {
        self.with_snippet(Diagnostic::warning(self.origin(), message))
    }

    fn with_snippet(&self, diagnostic: Diagnostic) -> Diagnostic {
        match self.snippet() {
            Some(snippet) => diagnostic.snippet(snippet),
            None => diagnostic,
        }
    }

    /// The line and a line of carets under what is meant; nothing where it may hold a secret.
    fn snippet(&self) -> Option<String> {
        if self.is_hidden() {
            return None;
        }
        let line = self.source.line(self.line)?;
        let column = usize::try_from(self.column).ok()?.saturating_sub(1);
        let from = if column >= SNIPPET { column - SNIPPET / 2 } else { 0 };
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let shown: String = line.chars().skip(from).take(SNIPPET).map(plain).collect();
        let shown = shown.trim_end();
        let at = column - from;
        let width = usize::try_from(self.width).ok()?.clamp(1, shown.chars().count().saturating_sub(at).max(1));
        Some(format!("{shown}\n{}{}", " ".repeat(at), "^".repeat(width)))
    }
}

impl fmt::Debug for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin())
    }
}

// === impl Node ===

impl Node {
    /// An empty map at `spot`.
    pub(in crate::desired) fn empty(spot: Spot) -> Self {
        Self { spot, kind: Kind::Map(Map::default()) }
    }

    /// How many values it holds, itself included.
    pub(in crate::desired) fn count(&self) -> usize {
        1 + match &self.kind {
            Kind::List(items) => items.iter().map(Self::count).sum(),
            Kind::Map(map) => map.0.iter().map(|field| field.value.count()).sum::<usize>(),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => 0,
        }
    }

    pub(in crate::desired) fn map(&self) -> Option<&Map> {
        if let Kind::Map(map) = &self.kind { Some(map) } else { None }
    }

    pub(in crate::desired) fn list(&self) -> Option<&[Self]> {
        if let Kind::List(items) = &self.kind { Some(items) } else { None }
    }

    pub(in crate::desired) fn text(&self) -> Option<&str> {
        if let Kind::Text(text) = &self.kind { Some(text) } else { None }
    }

    /// The fields of a map; none of anything else.
    pub(in crate::desired) fn fields(&self) -> &[Field] {
        self.map().map_or(&[], |map| &map.0)
    }

    pub(in crate::desired) fn get(&self, key: &str) -> Option<&Self> {
        self.field(key).map(|field| &field.value)
    }

    pub(in crate::desired) fn field(&self, key: &str) -> Option<&Field> {
        self.fields().iter().find(|field| field.key == key)
    }

    /// The value at a path of keys and indices.
    pub(in crate::desired) fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |node, step| match &node.kind {
            Kind::Map(_) => node.get(step),
            Kind::List(items) => items.get(step.parse::<usize>().ok()?),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => None,
        })
    }

    /// The deepest place on a path that is there: for pointing at something inside, or at what lacks it.
    pub(in crate::desired) fn nearest<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> &Spot {
        let (mut node, mut spot) = (self, &self.spot);
        for step in path {
            let next = match &node.kind {
                Kind::Map(_) => node.field(step).map(|field| (&field.value, &field.spot)),
                Kind::List(items) => {
                    step.parse::<usize>().ok().and_then(|n| items.get(n)).map(|item| (item, &item.spot))
                }
                Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => None,
            };
            match next {
                Some((value, place)) => (node, spot) = (value, place),
                None => return spot,
            }
        }
        if matches!(node.kind, Kind::Map(_) | Kind::List(_)) { spot } else { &node.spot }
    }

    pub(in crate::desired) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(truth) => Value::Bool(*truth),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Kind::Map(Map(fields)) => {
                Value::Object(fields.iter().map(|field| (field.key.clone(), field.value.to_value())).collect())
            }
        }
    }

    /// What it is, in a word with its article.
    pub(in crate::desired) fn word(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "empty",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The value in backticks, where it is short and no secret; else what it is.
    pub(in crate::desired) fn quoted(&self) -> String {
        let shown = match &self.kind {
            Kind::Bool(truth) => truth.to_string(),
            Kind::Number(number) => number.to_string(),
            Kind::Text(text) if text.chars().count() <= 60 && !text.chars().any(char::is_control) => text.clone(),
            Kind::Text(_) => return "the text".to_owned(),
            Kind::Null | Kind::List(_) | Kind::Map(_) => return self.word().to_owned(),
        };
        if self.spot.is_hidden() || secrets::shape(&shown).is_some() {
            "the value".to_owned()
        } else {
            format!("`{shown}`")
        }
    }
}
