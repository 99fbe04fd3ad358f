//! YAML 1.2 (core schema) to a tree, without what its readers disagree on.
//!
//! Refused: tags, merge keys, duplicate keys, directives, recursive or many aliases, control characters, infinities, and
//! plain words and numbers that other versions of YAML read differently (`yes`, `1_000`, in our own files `0644`).
//! Manifests are read as `kubectl` reads them where it is sure: `0644` is octal, keys that are numbers are text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Number;
use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::json::exact;
use super::{
    Field, Kind, MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS, MAX_ERRORS, MAX_KEY, MAX_NODES, Map, Node, Source,
    Spot,
};
use crate::desired::secrets;
use crate::model::{Diagnostic, Diagnostics};

/// Whose rules apply where versions of YAML differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::desired) enum Flavour {
    /// Our own files: what is not plain is an error.
    Config,
    /// Kubernetes manifests: as `kubectl` reads them.
    Manifest,
}

/// Reads a file of exactly one document; an empty one is an empty map.
pub(in crate::desired) fn one_document(source: &Arc<Source>) -> Result<Node, Diagnostics> {
    let mut read = documents(source, Flavour::Config)?.into_iter();
    let first = read.next();
    if let Some(second) = read.next() {
        let refused = second.spot.error("a second document begins here: one is expected in this file");
        return Err(refused.hint("take the `---` away, or put it into a file of its own").into());
    }
    Ok(match first {
        None => Node::empty(source.spot(1, 1, 1)),
        Some(Node { spot, kind: Kind::Null }) => Node::empty(spot),
        Some(node) => node,
    })
}

/// Reads all documents of a file; those that are empty are left out of a file of manifests.
pub(in crate::desired) fn documents(source: &Arc<Source>, flavour: Flavour) -> Result<Vec<Node>, Diagnostics> {
    if source.text().len() > MAX_BYTES {
        let message = format!("the file is larger than {MAX_BYTES} bytes");
        return Err(Diagnostic::error(crate::model::Origin::file(source.path.as_ref()), message).into());
    }
    let mut builder = Builder {
        source,
        flavour,
        open: vec![],
        anchors: BTreeMap::new(),
        documents: vec![],
        nodes: 0,
        aliases: 0,
        hidden: BTreeSet::new(),
        problems: vec![],
    };
    builder.run();
    let Builder { documents, mut hidden, problems, open, .. } = builder;
    for open in open {
        if let Content::Map { suspect, .. } = open.content {
            hidden.extend(suspect.into_iter().flat_map(|(from, to)| from..=to));
        }
    }
    source.hide(hidden);
    if problems.is_empty() {
        return Ok(documents);
    }
    Err(Diagnostics(problems.into_iter().map(Problem::into_diagnostic).collect()))
}

/// Made into a diagnostic only when it is known which lines hold secrets.
struct Problem {
    spot: Spot,
    message: String,
    hint: Option<String>,
}

/// A list or map whose end was not seen yet.
struct Open {
    spot: Spot,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        fields: Vec<Field>,
        keys: BTreeSet<String>,
        key: Option<(String, Spot)>,
        /// Lines of values whose keys say that they are secrets, until it is known that this is no reference to one.
        suspect: Vec<(u32, u32)>,
    },
}

struct Builder<'s> {
    source: &'s Arc<Source>,
    flavour: Flavour,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    documents: Vec<Node>,
    nodes: usize,
    aliases: usize,
    hidden: BTreeSet<u32>,
    problems: Vec<Problem>,
}

/// The file cannot be read further.
struct Stop;

// === impl Problem ===

impl Problem {
    fn into_diagnostic(self) -> Diagnostic {
        let diagnostic = self.spot.error(self.message);
        match self.hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        }
    }
}

// === impl Builder ===

impl Builder<'_> {
    fn run(&mut self) {
        let mut options = serde_yaml::granit_parser::options! {
            disallow_directives: true,
            simple_key_max_lookahead: MAX_KEY,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        options.set_emit_comments(false);
        let source = Arc::clone(self.source);
        let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str_with_options(source.text(), options);
        while let Some(event) = parser.next_event() {
            match event {
                Ok((event, span)) => {
                    if self.event(event, &span).is_err() || self.problems.len() >= MAX_ERRORS {
                        return;
                    }
                }
                Err(error) => {
                    let spot = self.source.spot(error.marker().line(), error.marker().col() + 1, 1);
                    let (message, hint) = explain(&error.info());
                    self.problems.push(Problem { spot, message, hint });
                    return;
                }
            }
        }
    }

    fn spot(&self, span: &Span) -> Spot {
        let width =
            if span.end.line() == span.start.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        self.source.spot(span.start.line(), span.start.col() + 1, width.max(1))
    }

    fn refuse(&mut self, spot: Spot, message: impl Into<String>, hint: Option<&str>) {
        self.problems.push(Problem { spot, message: message.into(), hint: hint.map(str::to_owned) });
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is the parser's own bookkeeping, and comments")]
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.no_tag(tag.as_deref(), span);
                self.count(1, span)?;
                if self.key_is_next() {
                    return self.key(&text, style, span);
                }
                let kind = self.scalar(&text, style, span);
                let spot = self.spot(span);
                self.hide_secret(&text, span);
                self.node(Node { spot, kind }, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.no_tag(tag.as_deref(), span);
                self.begin(span, anchor, Content::List(vec![]))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.no_tag(tag.as_deref(), span);
                self.begin(
                    span,
                    anchor,
                    Content::Map { fields: vec![], keys: BTreeSet::new(), key: None, suspect: vec![] },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { spot, anchor, content }) = self.open.pop() {
                    let kind = match content {
                        Content::List(items) => Kind::List(items),
                        Content::Map { fields, suspect, .. } => {
                            if !is_reference(&fields) {
                                self.hidden.extend(suspect.into_iter().flat_map(|(from, to)| from..=to));
                            }
                            Kind::Map(Map(fields))
                        }
                    };
                    self.node(Node { spot, kind }, anchor);
                }
            }
            Event::Alias(anchor) => {
                let spot = self.spot(span);
                self.aliases += 1;
                if self.aliases > MAX_ALIASES {
                    self.refuse(spot, format!("aliases are used more than {MAX_ALIASES} times"), None);
                    return Err(Stop);
                }
                if self.key_is_next() {
                    self.refuse(spot, "an alias stands where a key is expected", Some("write the key as text"));
                    return Err(Stop);
                }
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    self.refuse(spot, "the alias stands inside of what it names", None);
                    return Err(Stop);
                };
                self.count(size(&node), span)?;
                self.node(node, 0);
            }
            Event::DocumentStart(..) if self.documents.len() >= MAX_DOCUMENTS => {
                let spot = self.spot(span);
                self.refuse(spot, format!("the file has more than {MAX_DOCUMENTS} documents"), None);
                return Err(Stop);
            }
            Event::DocumentEnd => self.anchors.clear(),
            _ => {}
        }
        Ok(())
    }

    fn no_tag(&mut self, tag: Option<&Tag>, span: &Span) {
        if tag.is_some() {
            let start = span.tag_start.unwrap_or(span.start);
            let spot = self.source.spot(start.line(), start.col() + 1, 1);
            self.refuse(
                spot,
                "a tag (`!…`) stands before the value",
                Some("take it away: the type follows from the value"),
            );
        }
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let spot = self.spot(span);
        self.refuse(spot, format!("the file holds more than {MAX_NODES} values"), None);
        Err(Stop)
    }

    fn begin(&mut self, span: &Span, anchor: usize, content: Content) -> Result<(), Stop> {
        self.count(1, span)?;
        let spot = self.spot(span);
        if self.key_is_next() {
            self.refuse(spot, "a list or a map stands where a key is expected", Some("a key is text"));
            return Err(Stop);
        }
        if self.open.len() >= MAX_DEPTH {
            self.refuse(spot, format!("lists and maps are nested more than {MAX_DEPTH} levels deep"), None);
            return Err(Stop);
        }
        self.open.push(Open { spot, anchor, content });
        Ok(())
    }

    fn key_is_next(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, text: &str, style: ScalarStyle, span: &Span) -> Result<(), Stop> {
        let spot = self.spot(span);
        if text.len() > MAX_KEY {
            self.refuse(spot, format!("a key is longer than {MAX_KEY} bytes"), None);
            return Err(Stop);
        }
        if style == ScalarStyle::Plain {
            if text == "<<" {
                let hint = "write the fields out, or use an overlay";
                self.refuse(spot.clone(), "a merge key (`<<`) is not read", Some(hint));
            } else {
                match self.scalar(text, style, span) {
                    Kind::Text(_) => {}
                    Kind::Number(_) if self.flavour == Flavour::Manifest => {}
                    Kind::Null => self.refuse(spot.clone(), "a key is missing before `:`", None),
                    Kind::Bool(_) | Kind::Number(_) | Kind::List(_) | Kind::Map(_) => {
                        let message = format!("the key `{text}` is no text");
                        self.refuse(spot.clone(), message, Some(&format!("write `\"{text}\"`")));
                    }
                }
            }
        } else if text.chars().any(char::is_control) {
            self.refuse(spot.clone(), "a key holds a control character", None);
        }
        let shown = text.escape_debug().to_string();
        let Some(Open { content: Content::Map { keys, key, .. }, .. }) = self.open.last_mut() else { return Ok(()) };
        *key = Some((text.to_owned(), spot.clone()));
        if !keys.insert(text.to_owned()) {
            self.refuse(spot, format!("the key `{shown}` stands here twice"), Some("keep one of them"));
        }
        Ok(())
    }

    fn node(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => {
                if self.flavour == Flavour::Config || !matches!(node.kind, Kind::Null) {
                    self.documents.push(node);
                }
            }
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { fields, key, .. }) => {
                if let Some((key, spot)) = key.take() {
                    fields.push(Field { key, spot, value: node });
                }
            }
        }
    }

    /// Remembers the lines of a value that may be a secret.
    fn hide_secret(&mut self, text: &str, span: &Span) {
        let line = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // The text of a block ends where the next line begins.
        let end = if span.end.col() == 0 { span.end.line().saturating_sub(1) } else { span.end.line() };
        let lines = (line(span.start.line()), line(end.max(span.start.line())));
        if secrets::shape(text).is_some() {
            self.hidden.extend(lines.0..=lines.1);
            return;
        }
        // A list is the value of the key that it stands behind.
        let within = self.open.iter_mut().rev().find(|open| !matches!(open.content, Content::List(_)));
        if let Some(Open { content: Content::Map { key: Some((key, _)), suspect, .. }, .. }) = within
            && !text.is_empty()
            && secrets::named_variable(key)
        {
            suspect.push(lines);
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: &Span) -> Kind {
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
            let spot = self.spot(span);
            self.refuse(spot, "the text holds a control character", None);
        }
        if style != ScalarStyle::Plain {
            return Kind::Text(text.to_owned());
        }
        match plain(text, self.flavour) {
            Ok(kind) => kind,
            Err((message, hint)) => {
                let spot = self.spot(span);
                self.problems.push(Problem { spot, message, hint: Some(hint) });
                Kind::Text(text.to_owned())
            }
        }
    }
}

/// Whether the fields are `secret` and `key`: a reference to a secret, and no value.
fn is_reference(fields: &[Field]) -> bool {
    fields.len() == 2 && fields.iter().all(|field| field.key == "secret" || field.key == "key")
}

/// How many values a tree holds.
fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(Map(fields)) => 1 + fields.iter().map(|field| 1 + size(&field.value)).sum::<usize>(),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => 1,
    }
}

/// What a plain scalar is by the core schema (YAML 1.2.2, section 10.3.2), or why that is not sure, and the way out.
fn plain(text: &str, flavour: Flavour) -> Result<Kind, (String, String)> {
    let quoted = || format!("write `\"{text}\"` for text");
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Kind::Null),
        "true" | "True" | "TRUE" => return Ok(Kind::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Kind::Bool(false)),
        _ => {}
    }
    if let "yes" | "on" | "y" = text.to_ascii_lowercase().as_str() {
        return Err((
            format!("some read `{text}` as a boolean, others as text"),
            format!("write `true`, or `\"{text}\"` for text"),
        ));
    }
    if let "no" | "off" | "n" = text.to_ascii_lowercase().as_str() {
        return Err((
            format!("some read `{text}` as a boolean, others as text"),
            format!("write `false`, or `\"{text}\"` for text"),
        ));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned.to_ascii_lowercase().as_str(), ".inf" | ".nan") {
        return Err((format!("`{text}` is no number that JSON can carry"), quoted()));
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let radix = |prefix: &str, radix: u32| {
        let rest = unsigned.strip_prefix(prefix)?;
        i64::from_str_radix(rest, radix).ok().filter(|_| !rest.starts_with(['-', '+']))
    };
    let beyond = || (format!("the number `{text}` is beyond 2^53"), quoted());
    let signed = |value: i64| if text.starts_with('-') { -value } else { value };
    let number = |number: &Number| exact(number).map(Kind::Number).ok_or_else(beyond);
    if let Some(value) = radix("0o", 8).or_else(|| radix("0x", 16)) {
        return number(&signed(value).into());
    }
    if digits(unsigned) {
        if unsigned.len() > 1 && unsigned.starts_with('0') {
            let octal = i64::from_str_radix(unsigned, 8).ok();
            return match (flavour, octal) {
                (Flavour::Manifest, Some(octal)) => number(&signed(octal).into()),
                _ => Err((
                    format!("some read `{text}` as an octal number, others as a decimal one"),
                    format!("write `0o{}`, or `\"{text}\"` for text", unsigned.trim_start_matches('0')),
                )),
            };
        }
        return text.parse::<i64>().map_err(|_| beyond()).and_then(|value| number(&value.into()));
    }
    let separated = |byte: u8| byte.is_ascii_digit() || byte == b'_';
    if unsigned.starts_with(|c: char| c.is_ascii_digit()) && unsigned.bytes().all(separated) {
        return Err((
            format!("some read `{text}` as a number, others as text"),
            format!("write it without `_`, or `\"{text}\"`"),
        ));
    }
    if is_float(unsigned) {
        let double: f64 = text.parse().map_err(|_| beyond())?;
        let double = Number::from_f64(double).ok_or_else(beyond)?;
        return number(&double);
    }
    Ok(Kind::Text(text.to_owned()))
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// The scanner's words, with a way out where one is known.
fn explain(info: &str) -> (String, Option<String>) {
    let message = format!("this is not YAML: {info}");
    let hint = if info.contains("tab") {
        Some("indent with spaces")
    } else if info.contains("mapping values are not allowed") || info.contains("mapping value") {
        Some("put a text that holds `: ` into quotes, or check the indentation")
    } else if info.contains("simple key") || info.contains("block mapping") {
        Some("check the indentation, and that `:` is followed by a space")
    } else {
        None
    };
    (message, hint.map(str::to_owned))
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
