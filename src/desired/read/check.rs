//! Checks a tree against a JSON Schema, and says all that is wrong with it, each thing where it stands.
//!
//! It reads the part of JSON Schema 2020-12 that the schemas of this room are made of; a test holds that they use no
//! other keyword, and another that a common validator refuses the same files.

use serde_json::Value;

use super::{Field, Kind, MAX_ERRORS, Node, grammar};
use crate::model::{Diagnostic, Diagnostics};

/// Names that a hint lists at most.
const LISTED: usize = 24;
/// Bytes of a word that is compared with others, for a hint.
const LONGEST_WORD: usize = 256;

/// What `schema` has against `node`; nothing when it fits.
pub(in crate::desired) fn check(schema: &Value, node: &Node) -> Diagnostics {
    let mut checker = Checker { root: schema, found: vec![] };
    checker.walk(schema, node, "the file");
    checker.found.truncate(MAX_ERRORS);
    Diagnostics(checker.found)
}

/// The name among `known` that is meant by `word`, if one is near.
pub(in crate::desired) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST_WORD {
        return None;
    }
    let plain = |name: &str| name.replace(['_', '-', '.'], "").to_ascii_lowercase();
    let near = (word.chars().count() / 3).max(1);
    let meant = plain(word);
    known
        .into_iter()
        .filter(|name| name.len() <= LONGEST_WORD)
        .map(|name| (if plain(name) == meant { 0 } else { distance(word, name) }, name))
        .filter(|(distance, _)| *distance <= near)
        .min()
        .map(|(_, name)| name)
}

/// `a`, `b` and `c`, in backticks and in order, with `last` before the last.
pub(in crate::desired) fn list_of<'a>(names: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let mut names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if names.len() > LISTED {
        let more = names.len() - LISTED;
        names.truncate(LISTED);
        names.push(format!("{more} more"));
    }
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((end, start)) => format!("{} {last} {end}", start.join(", ")),
    }
}

/// Edits from one word to the other: optimal string alignment.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().take(64).collect(), to.chars().take(64).collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for (n, a) in from.iter().enumerate() {
        let mut row = vec![n + 1];
        for (m, b) in to.iter().enumerate() {
            let mut best = (rows[n][m + 1] + 1).min(row[m] + 1).min(rows[n][m] + usize::from(a != b));
            if n > 0 && m > 0 && *a == to[m - 1] && from[n - 1] == *b {
                best = best.min(rows[n - 1][m - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

struct Checker<'s> {
    root: &'s Value,
    found: Vec<Diagnostic>,
}

// === impl Checker ===

impl<'s> Checker<'s> {
    fn resolve(&self, mut schema: &'s Value) -> &'s Value {
        // As many steps as a chain of references may reasonably have.
        for _ in 0..16 {
            let Some(target) = schema.get("$ref").and_then(Value::as_str) else { break };
            match target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                Some(found) => schema = found,
                None => break,
            }
        }
        schema
    }

    /// Checks `node`, which messages call `name`.
    fn walk(&mut self, schema: &'s Value, node: &Node, name: &str) {
        if self.found.len() >= MAX_ERRORS {
            return;
        }
        let schema = self.resolve(schema);
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.walk(part, node, name);
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(keyword).and_then(Value::as_array) {
                self.choose(branches, node, name);
            }
        }
        if let Some(words) = constants(schema) {
            if !node.text().is_some_and(|text| words.contains(&text)) {
                self.not_one_of(&words, node, name);
            }
            return;
        }
        if !self.has_type(schema, node) {
            self.wrong_type(&[schema], node, name);
            return;
        }
        match &node.kind {
            Kind::Number(number) => self.number(schema, number.as_f64().unwrap_or_default(), node, name),
            Kind::Text(text) => self.text(schema, text, node, name),
            Kind::List(items) => self.list(schema, items, node, name),
            Kind::Map(_) => self.map(schema, node, name),
            Kind::Null | Kind::Bool(_) => {}
        }
    }

    fn has_type(&self, schema: &'s Value, node: &Node) -> bool {
        let fits = |word: &str| match (&node.kind, word) {
            (Kind::Null, "null")
            | (Kind::Bool(_), "boolean")
            | (Kind::Number(_), "number")
            | (Kind::Text(_), "string")
            | (Kind::List(_), "array")
            | (Kind::Map(_), "object") => true,
            (Kind::Number(number), "integer") => number.is_i64() || number.is_u64(),
            _ => false,
        };
        match self.resolve(schema).get("type") {
            Some(Value::String(word)) => fits(word),
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).any(fits),
            _ => constants(schema).is_none() || matches!(node.kind, Kind::Text(_)),
        }
    }

    /// Finds the branch that is meant, so that what is said is about that one.
    fn choose(&mut self, branches: &'s [Value], node: &Node, name: &str) {
        let branches: Vec<_> = branches.iter().map(|branch| self.resolve(branch)).collect();
        let fitting: Vec<_> = branches.iter().copied().filter(|branch| self.has_type(branch, node)).collect();
        match &*fitting {
            [] => return self.wrong_type(&branches, node, name),
            [only] => return self.walk(only, node, name),
            _ => {}
        }
        let words: Option<Vec<_>> = fitting.iter().map(|branch| constants(branch)).collect();
        if let Some(words) = words {
            let words = words.concat();
            if !node.text().is_some_and(|text| words.contains(&text)) {
                self.not_one_of(&words, node, name);
            }
            return;
        }
        if node.map().is_some() {
            let key = |branch: &'s Value| {
                branch.get("required").and_then(Value::as_array).and_then(|keys| keys.first()).and_then(Value::as_str)
            };
            let keys: Vec<_> = fitting.iter().filter_map(|branch| key(branch)).collect();
            if let Some(branch) = fitting.iter().find(|branch| key(branch).is_some_and(|key| node.get(key).is_some())) {
                self.walk(branch, node, name);
            } else {
                let message = format!("{name} needs {}", list_of(keys.iter().copied(), "or"));
                let meant = node.fields().iter().find_map(|field| closest(&field.key, keys.iter().copied()));
                let error = node.spot.error(message);
                self.found.push(match meant {
                    Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                    None => error,
                });
            }
            return;
        }
        let tried = fitting.into_iter().map(|branch| {
            let mut checker = Checker { root: self.root, found: vec![] };
            checker.walk(branch, node, name);
            checker.found
        });
        if let Some(best) = tried.min_by_key(Vec::len) {
            self.found.extend(best);
        }
    }

    fn wrong_type(&mut self, expected: &[&'s Value], node: &Node, name: &str) {
        let is_reference = |schema: &&Value| schema.pointer("/properties/secret").is_some();
        let scalar = matches!(node.kind, Kind::Text(_) | Kind::Number(_) | Kind::Bool(_));
        if scalar && expected.iter().all(is_reference) {
            // Whatever stands here may be the secret itself.
            let error =
                Diagnostic::error(node.spot.origin(), format!("{name} holds a value where a reference belongs"));
            self.found.push(error.hint("write `{secret: <name>, key: <key>}`, and keep the value in that Secret"));
            return;
        }
        let mut words: Vec<String> = expected.iter().flat_map(|schema| self.words(schema)).collect();
        words.dedup();
        let wanted = match words.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => "something else".to_owned(),
        };
        let error = node.spot.error(format!("{name} is {}, {wanted} is expected", node.word()));
        let text_wanted = words.iter().any(|word| word == "text");
        let hint = match &node.kind {
            Kind::Null => Some("write a value, or leave the key out".to_owned()),
            Kind::Number(number) if text_wanted => Some(format!("write it in quotes: `\"{number}\"`")),
            Kind::Bool(truth) if text_wanted => Some(format!("write it in quotes: `\"{truth}\"`")),
            Kind::Number(_) if words.iter().any(|word| word == "a whole number") => {
                Some("without a fraction".to_owned())
            }
            Kind::Text(text) if text.parse::<f64>().is_ok() && words.iter().any(|word| word.ends_with("number")) => {
                Some("write it without quotes".to_owned())
            }
            Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) | Kind::Map(_) => None,
        };
        self.found.push(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }

    /// What a schema expects, in words with their articles.
    fn words(&self, schema: &'s Value) -> Vec<String> {
        let schema = self.resolve(schema);
        if let Some(words) = constants(schema) {
            return vec![list_of(words, "or")];
        }
        if let Some(branches) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array) {
            let mut words: Vec<_> = branches.iter().flat_map(|branch| self.words(branch)).collect();
            words.dedup();
            return words;
        }
        // A small map is named by its fields.
        let required = schema.get("required").and_then(Value::as_array).filter(|keys| keys.len() <= 2);
        let shape = required.map(|keys| {
            let keys: Vec<_> = keys.iter().filter_map(Value::as_str).collect();
            format!("`{{{}}}`", keys.join(", "))
        });
        let word = |word: &str| {
            let said = match word {
                "string" => "text",
                "integer" => "a whole number",
                "number" => "a number",
                "boolean" => "`true` or `false`",
                "array" => "a list",
                "object" => return shape.clone().unwrap_or_else(|| "a map".to_owned()),
                other => other,
            };
            said.to_owned()
        };
        match schema.get("type") {
            Some(Value::String(name)) => vec![word(name)],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(word).collect(),
            _ => vec![],
        }
    }

    fn not_one_of(&mut self, words: &[&str], node: &Node, name: &str) {
        let expected = list_of(words.iter().copied(), "or");
        if node.text().is_none() {
            self.found.push(node.spot.error(format!("{name} is {}, {expected} is expected", node.word())));
            return;
        }
        let error = node.spot.error(format!("{name} cannot be {}: {expected} is expected", node.quoted()));
        self.found.push(match node.text().and_then(|text| closest(text, words.iter().copied())) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error,
        });
    }

    fn number(&mut self, schema: &Value, number: f64, node: &Node, name: &str) {
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
        let shown = |keyword: &str| schema.get(keyword).map(whole).unwrap_or_default();
        let quoted = node.quoted();
        if limit("minimum").is_some_and(|least| number < least) {
            let least = shown("minimum");
            self.found.push(node.spot.error(format!("{name} cannot be {quoted}: {least} is the least")));
        } else if limit("exclusiveMinimum").is_some_and(|least| number <= least) {
            let least = shown("exclusiveMinimum");
            self.found.push(node.spot.error(format!("{name} cannot be {quoted}: more than {least} is expected")));
        } else if limit("maximum").is_some_and(|most| number > most) {
            let most = shown("maximum");
            self.found.push(node.spot.error(format!("{name} cannot be {quoted}: {most} is the most")));
        }
    }

    fn text(&mut self, schema: &Value, text: &str, node: &Node, name: &str) {
        let grammar = schema.get("format").and_then(Value::as_str).and_then(grammar::by_format);
        if let Some(grammar) = grammar {
            if let Some(why) = grammar.refuses(text) {
                let why = if why.is_empty() { why } else { format!(": {why}") };
                let message = format!("{} cannot be {}{why}", node.quoted(), grammar.what);
                self.found.push(node.spot.error(message).hint(format!("for example `{}`", grammar.example)));
            }
        } else if text.is_empty() && schema.get("minLength").is_some() {
            self.found.push(node.spot.error(format!("{name} is empty")));
        } else if let Some(most) = schema.get("maxLength").and_then(Value::as_u64)
            && u64::try_from(text.chars().count()).is_ok_and(|length| length > most)
        {
            self.found.push(node.spot.error(format!("{name} is longer than {most} characters")));
        }
    }

    fn list(&mut self, schema: &'s Value, items: &[Node], node: &Node, name: &str) {
        let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        if limit("minItems").is_some_and(|least| count < least) {
            let message =
                if items.is_empty() { format!("{name} is empty") } else { format!("{name} has too few items") };
            self.found.push(node.spot.error(message));
        }
        if let Some(most) = limit("maxItems").filter(|most| count > *most) {
            self.found.push(node.spot.error(format!("{name} has more than {most} items")));
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            let mut seen = std::collections::BTreeSet::new();
            for item in items.iter().filter(|item| item.text().is_some_and(|text| !seen.insert(text))) {
                self.found.push(item.spot.error(format!("{} stands in {name} twice", item.quoted())));
            }
        }
        if let Some(each) = schema.get("items") {
            let label = format!("an item of {name}");
            items.iter().for_each(|item| self.walk(each, item, &label));
        }
    }

    fn map(&mut self, schema: &'s Value, node: &Node, name: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for field in node.fields() {
            let label = if field.spot.is_hidden() && crate::desired::secrets::shape(&field.key).is_some() {
                "a field".to_owned()
            } else {
                format!("`{}`", field.key.escape_debug())
            };
            if let Some(names) = schema.get("propertyNames") {
                let key = Node { spot: field.spot.clone(), kind: Kind::Text(field.key.clone()) };
                self.walk(names, &key, "the key");
            }
            match (properties.and_then(|known| known.get(&field.key)), others) {
                (Some(known), _) => self.walk(known, &field.value, &label),
                (None, Some(Value::Bool(false))) => self.unknown(schema, field, &label, name),
                (None, Some(each)) => self.walk(each, &field.value, &label),
                (None, None) => {}
            }
            if self.found.len() >= MAX_ERRORS {
                return;
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for missing in required.filter(|key| node.get(key).is_none()) {
            // A misspelt one was named above, with what was meant.
            self.found.push(node.spot.error(format!("`{missing}` is missing in {name}")));
        }
        if schema.get("minProperties").and_then(Value::as_u64).is_some_and(|least| least > 0)
            && node.fields().is_empty()
        {
            self.found.push(node.spot.error(format!("{name} is empty")));
        }
        let most = schema.get("maxProperties").and_then(Value::as_u64).and_then(|most| usize::try_from(most).ok());
        if let Some(extra) = most.and_then(|most| node.fields().get(most)) {
            let keys = properties.map(|known| list_of(known.keys().map(String::as_str), "or")).unwrap_or_default();
            self.found.push(extra.spot.error(format!("{name} takes only one of {keys}")));
        }
    }

    fn unknown(&mut self, schema: &Value, field: &Field, label: &str, name: &str) {
        let known: Vec<_> = schema
            .get("properties")
            .and_then(Value::as_object)
            .map(|known| known.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let error = field.spot.error(format!("unknown field {label} in {name}"));
        self.found.push(match closest(&field.key, known.iter().copied()) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None if known.is_empty() => error,
            None => error.hint(format!("allowed here: {}", list_of(known, "and"))),
        });
    }
}

/// The texts that a schema allows, where it lists them.
fn constants(schema: &Value) -> Option<Vec<&str>> {
    if let Some(word) = schema.get("const") {
        return Some(vec![word.as_str()?]);
    }
    schema.get("enum")?.as_array()?.iter().map(Value::as_str).collect()
}

/// A limit without the fraction that schemas write.
fn whole(limit: &Value) -> String {
    match limit.as_f64() {
        Some(number) if number.fract() == 0.0 => format!("{number:.0}"),
        _ => limit.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        let known = ["replicas", "serviceAccount", "rolling", "route"];
        assert_eq!(closest("replcas", known), Some("replicas"));
        assert_eq!(closest("service_account", known), Some("serviceAccount"));
        assert_eq!(closest("rollnig", known), Some("rolling"));
        assert_eq!(closest("nothing", known), None);
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(list_of(["a"], "or"), "`a`");
        assert_eq!(list_of(["a", "b", "c"], "or"), "`a`, `b` or `c`");
    }
}
