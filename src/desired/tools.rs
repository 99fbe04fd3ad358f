//! MCP tools: each definition is one, and its schemas are JSON Schema 2020-12.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions};
use serde_json::Value;

use super::agent::Context;
use super::read::{Kind, Node, RepoPath, closest, list_of, parse_json};
use super::secrets;
use crate::model::Diagnostic;

/// The fields of a tool (Model Context Protocol, 2025-11-25).
const FIELDS: [&str; 9] =
    ["name", "title", "description", "inputSchema", "outputSchema", "annotations", "execution", "icons", "_meta"];

/// The only dialect that schemas are read in.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Bytes that a compiled pattern takes, of those that are usual.
const SMALL_PATTERN: usize = 256 << 10;
/// The same for a few that count large repetitions of large classes.
const LARGE_PATTERN: usize = 8 << 20;
/// Errors of the meta-schema that are listed for one schema.
const MAX_ERRORS: usize = 50;

/// Patterns that the tools of one agent may still have: each is compiled once, to see that it can be.
struct Patterns {
    small: usize,
    large: usize,
}

impl Default for Patterns {
    fn default() -> Self {
        Self { small: 500, large: 8 }
    }
}

/// The definition of each tool.
pub(super) fn read(context: &Context<'_>, tools: &BTreeMap<String, RepoPath>, at: &Node) -> BTreeMap<String, Value> {
    let (mut read, mut patterns) = (BTreeMap::new(), Patterns::default());
    for (name, path) in tools {
        let spot = at.nearest([name.as_str()]);
        let Some(source) = context.file(&path.0, spot) else { continue };
        match parse_json(&source) {
            Err(errors) => context.errors(errors),
            Ok(node) => {
                let found = check(name, &node, &mut patterns);
                if found.is_empty() {
                    read.insert(name.clone(), node.to_value());
                }
                found.into_iter().for_each(|error| context.error(error));
            }
        }
    }
    read
}

/// What is wrong with a definition that the agent knows as `name`.
fn check(name: &str, node: &Node, patterns: &mut Patterns) -> Vec<Diagnostic> {
    let mut found = vec![];
    if node.map().is_none() {
        return vec![node.spot.error(format!("a tool is a map, this is {}", node.word()))];
    }
    for field in node.fields().iter().filter(|field| !FIELDS.contains(&&*field.key)) {
        let error = field.spot.error(format!("unknown field `{}` in a tool", field.key.escape_debug()));
        found.push(error.hint(match closest(&field.key, FIELDS) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("allowed here: {}", list_of(FIELDS, "and")),
        }));
    }
    match node.get("name") {
        None => found.push(node.spot.error("`name` is missing in the tool")),
        Some(own) if own.text() != Some(name) => {
            let error =
                own.spot.error(format!("the tool calls itself {}, the agent knows it as `{name}`", own.quoted()));
            found.push(error.hint("use one name in both places"));
        }
        Some(_) => {}
    }
    match node.get("description") {
        Some(Node { kind: Kind::Text(text), .. }) if !text.trim().is_empty() => {}
        Some(other) => found.push(other.spot.error("`description` is a text that says what the tool does")),
        None => found.push(node.spot.error("`description` is missing in the tool")),
    }
    for (key, kind) in
        [("title", "text"), ("annotations", "a map"), ("execution", "a map"), ("_meta", "a map"), ("icons", "a list")]
    {
        if let Some(other) = node.get(key).filter(|value| value.word() != kind) {
            found.push(other.spot.error(format!("`{key}` is {}, {kind} is expected", other.word())));
        }
    }
    match node.get("inputSchema") {
        None => found.push(node.spot.error("`inputSchema` is missing in the tool")),
        Some(input) => schema("inputSchema", input, patterns, &mut found),
    }
    if let Some(output) = node.get("outputSchema") {
        schema("outputSchema", output, patterns, &mut found);
    }
    secrets::refuse_in_spec(node, &mut found);
    found
}

/// What is wrong with a schema of a tool.
fn schema(key: &str, node: &Node, patterns: &mut Patterns, found: &mut Vec<Diagnostic>) {
    if node.map().is_none() {
        return found.push(node.spot.error(format!("`{key}` is {}, a JSON Schema is expected", node.word())));
    }
    if node.get("type").and_then(Node::text) != Some("object") {
        let spot = node.nearest(["type"]);
        found.push(spot.error(format!("`{key}` needs `\"type\": \"object\"`")));
    }
    if let Some(dialect) = node.get("$schema").filter(|dialect| dialect.text() != Some(DIALECT)) {
        found.push(dialect.spot.error(format!("`$schema` is not JSON Schema 2020-12 (`{DIALECT}`)")));
        return;
    }
    let before = found.len();
    local_references(node, found);
    let value = node.to_value();
    for error in jsonschema::draft202012::meta::validator().iter_errors(&value).take(MAX_ERRORS) {
        let spot = node.nearest(segments(error.instance_path().as_str()).iter().map(String::as_str));
        let keyword = error.kind().keyword();
        let place = error.instance_path().as_str();
        let place = if place.is_empty() { "it".to_owned() } else { format!("`{}`", place.trim_start_matches('/')) };
        found.push(
            spot.error(format!("`{key}` is no valid JSON Schema: {place} breaks `{keyword}` of the meta-schema")),
        );
    }
    if found.len() > before {
        return;
    }
    each_pattern(node, &mut |pattern, spot| {
        if let Some(why) = patterns.refuse(pattern) {
            found.push(spot.error(format!("`{key}` is no usable JSON Schema: {why}")));
        }
    });
    if found.len() > before {
        return;
    }
    // What the meta-schema does not see: references that lead nowhere. Without the patterns, which were seen one by one.
    let value = without_patterns(value);
    let engine = PatternOptions::regex().size_limit(LARGE_PATTERN);
    if let Err(error) = options().with_pattern_options(engine).offline().build(&value) {
        let path = error.instance_path().as_str().to_owned();
        let at =
            unusable(node, &value).unwrap_or_else(|| node.nearest(segments(&path).iter().map(String::as_str)).clone());
        let why = format!("it cannot be used (`{}`)", error.kind().keyword());
        found.push(at.error(format!("`{key}` is no usable JSON Schema: {why}")));
    }
}

fn options() -> jsonschema::ValidationOptions<'static> {
    jsonschema::options().with_draft(Draft::Draft202012)
}

// === impl Patterns ===

impl Patterns {
    /// Why a pattern cannot be used, if it cannot.
    fn refuse(&mut self, pattern: &str) -> Option<&'static str> {
        let compiles = |limit| {
            let engine = PatternOptions::regex().size_limit(limit);
            let schema = serde_json::json!({"pattern": pattern});
            options().with_pattern_options(engine).offline().build(&schema).is_ok()
        };
        let Some(left) = self.small.checked_sub(1) else {
            return Some("the agent's tools have more patterns than are looked at");
        };
        self.small = left;
        if compiles(SMALL_PATTERN) {
            return None;
        }
        let Some(left) = self.large.checked_sub(1) else {
            return Some("the agent's tools have more large patterns than are looked at");
        };
        self.large = left;
        (!compiles(LARGE_PATTERN)).then_some("a pattern cannot be run in linear time, or is too large")
    }
}

/// Every pattern of a schema, and where it stands.
fn each_pattern(node: &Node, see: &mut impl FnMut(&str, &super::read::Spot)) {
    match &node.kind {
        Kind::List(items) => items.iter().for_each(|item| each_pattern(item, see)),
        Kind::Map(map) => {
            for field in &map.0 {
                match (&*field.key, &field.value.kind) {
                    ("pattern", Kind::Text(pattern)) => see(pattern, &field.value.spot),
                    ("patternProperties", Kind::Map(properties)) => {
                        for property in &properties.0 {
                            see(&property.key, &property.spot);
                            each_pattern(&property.value, see);
                        }
                    }
                    // Data, not schemas.
                    ("enum" | "const" | "default" | "examples", _) => {}
                    _ => each_pattern(&field.value, see),
                }
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {}
    }
}

/// The schema with every `pattern` in it made harmless; the names in `patternProperties` stay, which references may lead
/// through.
fn without_patterns(mut schema: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Object(fields) => {
                if fields.get("pattern").is_some_and(Value::is_string) {
                    fields.insert("pattern".to_owned(), "".into());
                }
                for (key, value) in fields.iter_mut() {
                    if !matches!(key.as_str(), "enum" | "const" | "default" | "examples") {
                        strip(value);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    strip(&mut schema);
    schema
}

/// The place of a local reference that leads nowhere.
fn unusable(node: &Node, whole: &Value) -> Option<super::read::Spot> {
    let mut found = None;
    each_reference(node, &mut |reference| {
        let Some(pointer) = reference.text().and_then(|text| text.strip_prefix('#')) else { return };
        let leads =
            pointer.is_empty() || !pointer.starts_with('/') || whole.pointer(&pointer.replace("%25", "%")).is_some();
        if !leads && found.is_none() {
            found = Some(reference.spot.clone());
        }
    });
    found
}

/// Nothing is fetched: a reference stays in its own file.
fn local_references(node: &Node, found: &mut Vec<Diagnostic>) {
    each_reference(node, &mut |reference| {
        if !reference.text().is_some_and(|text| text.starts_with('#')) {
            let error = reference.spot.error("a reference leads out of the file");
            found.push(error.hint("put what it names into `$defs`, and refer to it as `#/$defs/<name>`"));
        }
    });
}

fn each_reference(node: &Node, see: &mut impl FnMut(&Node)) {
    match &node.kind {
        Kind::List(items) => items.iter().for_each(|item| each_reference(item, see)),
        Kind::Map(map) => {
            for field in &map.0 {
                match (&*field.key, &field.value.kind) {
                    ("$ref" | "$dynamicRef", Kind::Text(_)) => see(&field.value),
                    // Data, not schemas.
                    ("enum" | "const" | "default" | "examples", _) => {}
                    _ => each_reference(&field.value, see),
                }
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {}
    }
}

/// The steps of a JSON pointer.
fn segments(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::read::Source;
    use super::*;

    fn refused(tool: &str) -> Vec<String> {
        let node = parse_json(&Source::new("t.json", tool)).expect("JSON");
        check("t", &node, &mut Patterns::default()).iter().map(ToString::to_string).collect()
    }

    fn with_input(input: &str) -> Vec<String> {
        refused(&format!(r#"{{"name": "t", "description": "d", "inputSchema": {input}}}"#))
    }

    #[test]
    fn a_tool_of_the_protocol_is_taken() {
        let input = r##"{"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"pattern": "^[a-z]+$"}}}"##;
        assert_eq!(with_input(input), [""; 0]);
    }

    #[test]
    fn what_is_no_tool_is_named() {
        assert_eq!(refused("[]"), ["t.json:1:1: error: a tool is a map, this is a list"]);
        assert_eq!(
            refused(r#"{"nam": "t"}"#),
            [
                "t.json:1:2: error: unknown field `nam` in a tool",
                "t.json:1:1: error: `name` is missing in the tool",
                "t.json:1:1: error: `description` is missing in the tool",
                "t.json:1:1: error: `inputSchema` is missing in the tool",
            ]
        );
        assert_eq!(
            refused(r#"{"name": "x", "description": " ", "title": 1, "inputSchema": [], "outputSchema": {}}"#),
            [
                "t.json:1:10: error: the tool calls itself `x`, the agent knows it as `t`",
                "t.json:1:30: error: `description` is a text that says what the tool does",
                "t.json:1:44: error: `title` is a number, text is expected",
                "t.json:1:62: error: `inputSchema` is a list, a JSON Schema is expected",
                "t.json:1:82: error: `outputSchema` needs `\"type\": \"object\"`",
            ]
        );
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_refused() {
        assert_eq!(
            with_input(r#"{"type": "object", "properties": {"a": {"type": "strin"}}}"#),
            [
                "t.json:1:98: error: `inputSchema` is no valid JSON Schema: `properties/a/type` breaks `anyOf` of the meta-schema"
            ]
        );
        assert_eq!(
            with_input(r#"{"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}"#),
            [
                "t.json:1:80: error: `$schema` is not JSON Schema 2020-12 (`https://json-schema.org/draft/2020-12/schema`)"
            ]
        );
        assert_eq!(
            with_input(r#"{"type": "object", "$ref": "https://example.com/schema.json"}"#),
            ["t.json:1:77: error: a reference leads out of the file"]
        );
        assert_eq!(
            with_input(r##"{"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}"##),
            ["t.json:1:98: error: `inputSchema` is no usable JSON Schema: it cannot be used (`$ref`)"]
        );
        let backtracking = with_input(r#"{"type": "object", "properties": {"a": {"pattern": "(a)\\1"}}}"#);
        assert_eq!(backtracking.len(), 1, "{backtracking:?}");
    }
}
