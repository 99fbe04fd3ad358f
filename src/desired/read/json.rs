//! JSON after RFC 8259, with places, and without what parsers disagree on: duplicate keys, huge numbers, a byte-order mark.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Number;

use super::{Field, Kind, LARGEST_INTEGER, MAX_DEPTH, MAX_KEY, MAX_NODES, Map, Node, Source, Spot};
use crate::desired::canonical::is_long_integer;
use crate::desired::secrets;
use crate::model::{Diagnostic, Diagnostics};

/// Reads one JSON text.
pub(in crate::desired) fn parse(source: &Arc<Source>) -> Result<Node, Diagnostics> {
    let mut parser = Parser {
        source,
        text: source.text(),
        at: 0,
        line: 1,
        known: (0, 0),
        nodes: 0,
        hidden: BTreeSet::new(),
        duplicates: vec![],
    };
    let result = parser.document();
    source.hide(std::mem::take(&mut parser.hidden));
    match result {
        Err(problem) => Err(problem.into_diagnostic().into()),
        Ok(_) if !parser.duplicates.is_empty() => {
            Err(Diagnostics(parser.duplicates.into_iter().map(Problem::into_diagnostic).collect()))
        }
        Ok(node) => Ok(node),
    }
}

/// Made into a diagnostic only when it is known which lines hold secrets.
struct Problem {
    spot: Spot,
    message: String,
    hint: Option<String>,
}

struct Parser<'s> {
    source: &'s Arc<Source>,
    text: &'s str,
    at: usize,
    line: usize,
    /// A byte of this line whose column is known, and that column from 0.
    known: (usize, usize),
    nodes: usize,
    hidden: BTreeSet<u32>,
    duplicates: Vec<Problem>,
}

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

// === impl Parser ===

impl Parser<'_> {
    fn document(&mut self) -> Result<Node, Problem> {
        if self.text.starts_with('\u{feff}') {
            return Err(self.problem("a byte-order mark stands before the JSON").hinted("save the file without it"));
        }
        let node = self.value(0)?;
        self.space();
        if self.at < self.text.len() {
            return Err(self.problem("something follows the end of the JSON"));
        }
        Ok(node)
    }

    fn problem(&mut self, message: impl Into<String>) -> Problem {
        Problem { spot: self.spot(self.at, 1), message: message.into(), hint: None }
    }

    /// A place in the line that is being read, not before the last one that was asked for.
    fn spot(&mut self, at: usize, width: usize) -> Spot {
        let (byte, column) = self.known;
        let column = column + self.text.get(byte..at).map_or(0, |between| between.chars().count());
        if at > byte {
            self.known = (at, column);
        }
        self.source.spot(self.line, column + 1, width)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
            if self.text.as_bytes()[self.at - 1] == b'\n' {
                self.line += 1;
                self.known = (self.at, 0);
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, Problem> {
        self.space();
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.problem(format!("the file holds more than {MAX_NODES} values")));
        }
        if depth > MAX_DEPTH {
            return Err(self.problem(format!("lists and maps are nested more than {MAX_DEPTH} levels deep")));
        }
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => {
                let text = self.string()?;
                let spot = self.spot(start, self.text[start..self.at].chars().count());
                if secrets::shape(&text).is_some() {
                    self.hidden.insert(spot.line());
                }
                Ok(Node { spot, kind: Kind::Text(text) })
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't' | b'f' | b'n') => {
                let rest = &self.text[start..];
                let words = [("true", Kind::Bool(true)), ("false", Kind::Bool(false)), ("null", Kind::Null)];
                match words.into_iter().find(|(word, _)| rest.starts_with(word)) {
                    Some((word, kind)) => {
                        self.at += word.len();
                        Ok(Node { spot: self.spot(start, word.len()), kind })
                    }
                    None => Err(self.problem("a value is expected")),
                }
            }
            Some(_) => Err(self.problem("a value is expected")),
            None => Err(self.problem("the JSON ends where a value is expected")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node, Problem> {
        let spot = self.spot(self.at, 1);
        self.at += 1;
        let mut items = vec![];
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Node { spot, kind: Kind::List(items) });
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.end_of_item(b']', "`,` or `]`")? {
                return Ok(Node { spot, kind: Kind::List(items) });
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, Problem> {
        let spot = self.spot(self.at, 1);
        self.at += 1;
        let mut fields: Vec<Field> = vec![];
        let mut keys = BTreeSet::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Node { spot, kind: Kind::Map(Map(fields)) });
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.problem("a key in double quotes is expected"));
            }
            let key = self.string()?;
            let place = self.spot(start, self.text[start..self.at].chars().count());
            if key.len() > MAX_KEY {
                return Err(Problem {
                    spot: place,
                    message: format!("a key is longer than {MAX_KEY} bytes"),
                    hint: None,
                });
            }
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.problem("`:` is expected after the key"));
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            if secrets::named(&key) {
                let texts = value.list().unwrap_or(std::slice::from_ref(&value)).iter();
                let texts = texts.filter(|value| value.text().is_some_and(|text| !text.is_empty()));
                self.hidden.extend(texts.map(|value| value.spot.line()));
            }
            if keys.insert(key.clone()) {
                fields.push(Field { key, spot: place, value });
            } else if self.duplicates.len() < super::MAX_ERRORS {
                let message = format!("the key `{}` stands here twice", key.escape_default());
                self.duplicates.push(Problem { spot: place, message, hint: None });
            }
            if self.end_of_item(b'}', "`,` or `}`")? {
                return Ok(Node { spot, kind: Kind::Map(Map(fields)) });
            }
        }
    }

    /// Whether the list or map ends here.
    fn end_of_item(&mut self, end: u8, expected: &str) -> Result<bool, Problem> {
        self.space();
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(true)
            }
            Some(b',') => {
                self.at += 1;
                self.space();
                if self.peek() == Some(end) {
                    return Err(self
                        .problem("a comma stands before the end")
                        .hinted("JSON has none after the last item"));
                }
                Ok(false)
            }
            Some(_) => Err(self.problem(format!("{expected} is expected"))),
            None => Err(self.problem(format!("the JSON ends where {expected} is expected"))),
        }
    }

    fn string(&mut self) -> Result<String, Problem> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    break;
                }
                Some(b'\\') => self.at += 2,
                Some(byte) if byte < 0x20 => {
                    return Err(self.problem("a control character stands in a text").hinted("write it as an escape"));
                }
                Some(_) => self.at += 1,
                None => {
                    self.at = start;
                    return Err(self.problem("the text that begins here does not end"));
                }
            }
        }
        let end = self.at;
        // The escapes are what serde_json makes of them: surrogate pairs, and no lone surrogates.
        let text = self.text.get(start..end).and_then(|text| serde_json::from_str::<String>(text).ok());
        let Some(text) = text else {
            self.at = start;
            return Err(self.problem("the text holds an escape that is not valid"));
        };
        if text.chars().any(|c| c == '\0') {
            self.at = start;
            return Err(self.problem("a text holds the character U+0000"));
        }
        Ok(text)
    }

    fn number(&mut self) -> Result<Node, Problem> {
        let start = self.at;
        while let Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let spot = self.spot(start, text.len());
        let refuse = |message: String| Problem { spot: spot.clone(), message, hint: None };
        let number: Number =
            serde_json::from_str(text).map_err(|_| refuse("this is not a number of JSON".to_owned()))?;
        let number = exact(&number).ok_or_else(|| refuse(format!("the number `{text}` is beyond 2^53")))?;
        Ok(Node { spot, kind: Kind::Number(number) })
    }
}

impl Problem {
    fn hinted(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

/// The number, integral floats as integers; nothing when a double cannot carry it.
pub(super) fn exact(number: &Number) -> Option<Number> {
    if let Some(integer) = number.as_i64() {
        return (integer.unsigned_abs() <= LARGEST_INTEGER).then(|| number.clone());
    }
    if number.is_u64() {
        return None;
    }
    let double = number.as_f64().filter(|double| double.is_finite())?;
    if is_long_integer(double) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "integral and at most 2^53, or has an exponent anyway")]
    if double.fract() == 0.0 && double.abs() < 1e21 { Some((double as i64).into()) } else { Number::from_f64(double) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let refused = parse(&Source::new("tool.json", text)).expect_err(text);
        refused.to_string()
    }

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a": [1, -2.5e-3, true, null, "ü\ud83d\ude00\n"], "b": {"c": {}}, "d": []}"#;
        let node = parse(&Source::new("a.json", text)).expect("JSON");
        assert_eq!(node.to_value(), serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
        assert_eq!(node.at(["a", "3"]).expect("a value").spot.origin().to_string(), "a.json:1:26");
    }

    #[test]
    fn refuses_what_parsers_disagree_on() {
        assert_eq!(refused("{\"a\": 1,\n \"a\": 2}"), "tool.json:2:2: error: the key `a` stands here twice");
        assert_eq!(refused("\u{feff}{}"), "tool.json:1:1: error: a byte-order mark stands before the JSON");
        assert_eq!(refused("{\"a\": 1,}"), "tool.json:1:9: error: a comma stands before the end");
        assert_eq!(refused("{a: 1}"), "tool.json:1:2: error: a key in double quotes is expected");
        assert_eq!(refused("[01]"), "tool.json:1:2: error: this is not a number of JSON");
        assert_eq!(refused("[NaN]"), "tool.json:1:2: error: a value is expected");
        assert_eq!(refused("[1] 2"), "tool.json:1:5: error: something follows the end of the JSON");
        assert_eq!(refused("[\"a"), "tool.json:1:2: error: the text that begins here does not end");
        assert_eq!(refused("[\"\\ud800\"]"), "tool.json:1:2: error: the text holds an escape that is not valid");
        assert_eq!(refused("[\"\\u0000\"]"), "tool.json:1:2: error: a text holds the character U+0000");
        assert_eq!(refused("[\"\u{1}\"]"), "tool.json:1:3: error: a control character stands in a text");
        assert_eq!(refused("[9007199254740993]"), "tool.json:1:2: error: the number `9007199254740993` is beyond 2^53");
        assert_eq!(refused("[-1e18]"), "tool.json:1:2: error: the number `-1e18` is beyond 2^53");
        assert_eq!(refused("[1e999]"), "tool.json:1:2: error: this is not a number of JSON");
        assert_eq!(refused("{\"a\""), "tool.json:1:5: error: `:` is expected after the key");
        assert_eq!(refused("[1 2]"), "tool.json:1:4: error: `,` or `]` is expected");
        assert_eq!(refused("[1"), "tool.json:1:3: error: the JSON ends where `,` or `]` is expected");
        assert_eq!(refused(""), "tool.json:1:1: error: the JSON ends where a value is expected");
        assert_eq!(refused("nope"), "tool.json:1:1: error: a value is expected");
        let deep = "[".repeat(100_000);
        assert_eq!(refused(&deep), "tool.json:1:66: error: lists and maps are nested more than 64 levels deep");
        let wide = format!("[{}1]", "1,".repeat(60_000));
        assert_eq!(refused(&wide), "tool.json:1:100000: error: the file holds more than 50000 values");
        let key = format!("{{\"{}\": 1}}", "a".repeat(2000));
        assert_eq!(refused(&key), "tool.json:1:2: error: a key is longer than 1024 bytes");
    }
}
