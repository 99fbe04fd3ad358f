//! Prompts: read, joined, and the variables in them checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::agent::Context;
use super::read::{Node, Source, Spot, closest, list_of};
use super::written::{OneOrMany, Prompt, Syntax};
use crate::model::Diagnostic;

/// Bytes of a variable's name that are repeated in an error.
const MAX_NAME: usize = 128;
/// Variables that are told to be unknown in one prompt.
const MAX_UNKNOWN: usize = 50;

/// A variable that a prompt names.
#[derive(Debug)]
pub(super) struct Used {
    name: String,
    place: Place,
    /// Inside of a section it may be a field of what the section is about.
    inside: bool,
}

/// Where something begins in a text, and how many characters it takes: its line is counted only for who asks.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: usize,
    width: usize,
}

/// The final bytes of each prompt.
pub(super) fn read(
    context: &Context<'_>,
    prompts: &BTreeMap<String, Prompt>,
    at: &Node,
) -> BTreeMap<String, Arc<[u8]>> {
    let mut read = BTreeMap::new();
    for (name, prompt) in prompts {
        let Some(node) = at.get(name) else { continue };
        let (files, checked) = match prompt {
            Prompt::Files(files) => (files, None),
            Prompt::Checked(checked) => (&checked.file, Some(checked)),
        };
        let file_node = if checked.is_some() { node.get("file").unwrap_or(node) } else { node };
        let paths: Vec<_> = match files {
            OneOrMany::One(path) => vec![(path, &file_node.spot)],
            OneOrMany::Many(paths) => {
                let places = file_node.list().unwrap_or_default().iter().map(|item| &item.spot);
                paths.iter().zip(places).collect()
            }
        };
        let parts: Vec<_> = paths.into_iter().filter_map(|(path, spot)| part(context, &path.0, spot)).collect();
        if let Some(checked) = checked {
            match checked.syntax {
                Some(syntax) => {
                    let declared: BTreeSet<_> = checked.variables.iter().map(|name| name.0.as_str()).collect();
                    check(context, syntax, &declared, node, &parts);
                }
                None if !checked.variables.is_empty() => {
                    let spot = node.nearest(["variables"]);
                    let error = spot.error("the variables cannot be checked: the prompt has no `syntax`");
                    context.error(error.hint("`mustache`, `jinja`, `format` or `dollar`"));
                }
                None => {}
            }
        }
        let bytes: Arc<[u8]> = match &*parts {
            [] => continue,
            [only] => only.text().as_bytes().into(),
            several => joined(several.iter().map(|part| part.text())).into_bytes().into(),
        };
        read.insert(name.clone(), bytes);
    }
    read
}

/// Several prompts as one: trailing newlines cut, a blank line between, one newline at the end.
fn joined<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let parts: Vec<_> = parts.map(|part| part.trim_end_matches(['\n', '\r'])).collect();
    parts.join("\n\n") + "\n"
}

fn part(context: &Context<'_>, path: &str, spot: &Spot) -> Option<Arc<Source>> {
    let source = context.file(path, spot)?;
    if source.text().is_empty() {
        context.error(spot.error(format!("`{path}` is empty")));
        return None;
    }
    if source.text().contains('\0') {
        context.error(Diagnostic::error(spot.origin(), format!("`{path}` holds the character U+0000: it is no text")));
        return None;
    }
    Some(source)
}

/// Every declared variable is used, and every used one declared.
fn check(context: &Context<'_>, syntax: Syntax, declared: &BTreeSet<&str>, node: &Node, parts: &[Arc<Source>]) {
    let (mut known, mut unknown) = (BTreeSet::new(), BTreeMap::new());
    for part in parts {
        match variables(syntax, part) {
            Ok(found) => {
                for used in found {
                    if !used.inside && !declared.contains(&*used.name) && unknown.len() < MAX_UNKNOWN {
                        unknown.entry(used.name.clone()).or_insert((part, used.place));
                    }
                    known.insert(used.name);
                }
            }
            Err(error) => return context.error(*error),
        }
    }
    for (name, (part, place)) in unknown {
        let shown = if name.len() > MAX_NAME { "…" } else { &*name };
        let error = place.spot(part).error(format!("the variable `{shown}` is not declared"));
        context.error(match closest(&name, declared.iter().copied()) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None if declared.is_empty() => error.hint("declare it in `variables`"),
            None => error.hint(format!("declared are {}", list_of(declared.iter().copied(), "and"))),
        });
    }
    let items = node.get("variables").and_then(Node::list).unwrap_or_default();
    for item in items {
        if let Some(name) = item.text().filter(|name| !known.contains(*name)) {
            context.error(item.spot.error(format!("the prompt has no variable `{name}`")));
        }
    }
}

// === impl Place ===

impl Place {
    fn spot(self, source: &Arc<Source>) -> Spot {
        source.spot_at(self.at, self.width)
    }
}

/// The variables of a text.
fn variables(syntax: Syntax, source: &Arc<Source>) -> Result<Vec<Used>, Box<Diagnostic>> {
    match syntax {
        Syntax::Mustache => mustache(source),
        Syntax::Jinja => jinja(source),
        Syntax::Format => format(source),
        Syntax::Dollar => Ok(dollar(source)),
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Finds what stands between `open` and `close`; its place is that of `open`.
fn tags<'t>(source: &'t Arc<Source>, open: &str, close: &str) -> Result<Vec<(usize, &'t str)>, Box<Diagnostic>> {
    let (text, mut at, mut found) = (source.text(), 0, vec![]);
    while let Some(start) = text[at..].find(open).map(|n| at + n) {
        let inner = start + open.len();
        let Some(end) = text[inner..].find(close).map(|n| inner + n) else {
            let spot = source.spot_at(start, open.len());
            return Err(Box::new(spot.error(format!("`{open}` is not closed by `{close}`"))));
        };
        found.push((start, &text[inner..end]));
        at = end + close.len();
    }
    Ok(found)
}

fn mustache(source: &Arc<Source>) -> Result<Vec<Used>, Box<Diagnostic>> {
    let (mut used, mut open) = (vec![], Vec::<(&str, Place)>::new());
    for (start, tag) in tags(source, "{{", "}}")? {
        let place = Place { at: start, width: tag.chars().count() + 4 };
        let refuse = |message: &str| Err(Box::new(place.spot(source).error(message)));
        // `{{{name}}}` closes with a third brace, which stays behind the tag.
        let (sigil, name) = match tag.chars().next() {
            Some(sigil @ ('#' | '^' | '/' | '!' | '>' | '&' | '{' | '=')) => (sigil, tag[1..].trim()),
            _ => (' ', tag.trim()),
        };
        match sigil {
            '!' => continue,
            '>' | '=' => return refuse("partials and other delimiters cannot be checked"),
            '/' => match open.pop() {
                Some((opened, _)) if opened == name => continue,
                _ => return refuse("this section was not opened"),
            },
            _ => {}
        }
        let first = name.split('.').next().unwrap_or_default();
        if name != "." && !is_name(first) {
            return refuse("this is no name of a variable");
        }
        if name != "." {
            used.push(Used { name: first.to_owned(), place, inside: !open.is_empty() });
        }
        if matches!(sigil, '#' | '^') {
            open.push((name, place));
        }
    }
    match open.pop() {
        Some((name, place)) => Err(Box::new(place.spot(source).error(format!("the section `{name}` is not closed")))),
        None => Ok(used),
    }
}

fn jinja(source: &Arc<Source>) -> Result<Vec<Used>, Box<Diagnostic>> {
    if let Some(at) = source.text().find("{%") {
        let error = source.spot_at(at, 2).error("statements (`{% … %}`) cannot be checked");
        return Err(Box::new(error.hint("leave `syntax` out: the prompt is opaque then")));
    }
    let mut used = vec![];
    for (start, tag) in tags(source, "{{", "}}")? {
        let place = Place { at: start, width: tag.chars().count() + 4 };
        let name = tag.split(['|', '.', '[']).next().unwrap_or_default().trim_matches([' ', '-', '\n', '\t']);
        if !is_name(name) {
            return Err(Box::new(place.spot(source).error("this is no name of a variable")));
        }
        used.push(Used { name: name.to_owned(), place, inside: false });
    }
    Ok(used)
}

fn format(source: &Arc<Source>) -> Result<Vec<Used>, Box<Diagnostic>> {
    let (text, mut used) = (source.text(), vec![]);
    let mut at = 0;
    while let Some(start) = text[at..].find(['{', '}']).map(|n| at + n) {
        let rest = &text[start..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            at = start + 2;
            continue;
        }
        if rest.starts_with('}') {
            let error = source.spot_at(start, 1).error("`}` closes nothing");
            return Err(Box::new(error.hint("write `}}` for the character itself")));
        }
        let Some(end) = rest.find('}') else {
            let error = source.spot_at(start, 1).error("`{` is not closed by `}`");
            return Err(Box::new(error.hint("write `{{` for the character itself")));
        };
        let place = Place { at: start, width: rest[..=end].chars().count() };
        let name = rest[1..end].split([':', '!', '.', '[']).next().unwrap_or_default();
        if !is_name(name) {
            let error = place.spot(source).error("this is no name of a variable");
            return Err(Box::new(error.hint("write `{{` for the character itself")));
        }
        used.push(Used { name: name.to_owned(), place, inside: false });
        at = start + end + 1;
    }
    Ok(used)
}

/// A text behind the letters, digits and underscores at its beginning, and those.
fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len()))
}

fn dollar(source: &Arc<Source>) -> Vec<Used> {
    let (text, mut used, mut at) = (source.text(), vec![], 0);
    while let Some(start) = text[at..].find('$').map(|n| at + n) {
        let rest = &text[start + 1..];
        let braced = rest.strip_prefix('{').map(word).filter(|(_, after)| after.starts_with('}'));
        let braced = braced.map(|(name, _)| name);
        let bare = word(rest).0;
        at = start + 1;
        if rest.starts_with('$') {
            at += 1;
        } else if let Some(name) = braced.or(Some(bare)).filter(|name| is_name(name)) {
            let width = name.len() + if braced.is_some() { 3 } else { 1 };
            used.push(Used { name: name.to_owned(), place: Place { at: start, width }, inside: false });
            at += name.len();
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(syntax: Syntax, text: &str) -> Result<Vec<String>, String> {
        let source = Source::new("p.md", text);
        let used = variables(syntax, &source).map_err(|error| error.to_string())?;
        Ok(used.into_iter().map(|used| format!("{}{}", used.name, if used.inside { "?" } else { "" })).collect())
    }

    #[test]
    fn each_syntax_names_its_variables() {
        let mustache = "{{a}} {{{b}}} {{& c }} {{! no }} {{#d}}{{e.f}} {{.}}{{/d}} {{g.h}}";
        assert_eq!(names(Syntax::Mustache, mustache).unwrap(), ["a", "b", "c", "d", "e?", "g"]);
        assert_eq!(names(Syntax::Jinja, "{{ a }} {{b|upper}} {{ c.d }} {{- e -}}").unwrap(), ["a", "b", "c", "e"]);
        assert_eq!(names(Syntax::Format, "{a} {{no}} {b:>3} {c!r} {d.e}").unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(names(Syntax::Dollar, "$a ${b} $$c 5$ $1 ${d").unwrap(), ["a", "b"]);
    }

    #[test]
    fn what_cannot_be_checked_is_an_error() {
        for (syntax, text, error) in [
            (Syntax::Mustache, "x\n{{a", "p.md:2:1: error: `{{` is not closed by `}}`"),
            (Syntax::Mustache, "{{#a}}", "p.md:1:1: error: the section `a` is not closed"),
            (Syntax::Mustache, "{{/a}}", "p.md:1:1: error: this section was not opened"),
            (Syntax::Mustache, "{{> a}}", "p.md:1:1: error: partials and other delimiters cannot be checked"),
            (Syntax::Mustache, "{{a b}}", "p.md:1:1: error: this is no name of a variable"),
            (Syntax::Jinja, "ü {% if a %}", "p.md:1:3: error: statements (`{% … %}`) cannot be checked"),
            (Syntax::Jinja, "{{ 1 }}", "p.md:1:1: error: this is no name of a variable"),
            (Syntax::Format, "{a", "p.md:1:1: error: `{` is not closed by `}`"),
            (Syntax::Format, "a}", "p.md:1:2: error: `}` closes nothing"),
            (Syntax::Format, "{0}", "p.md:1:1: error: this is no name of a variable"),
        ] {
            assert_eq!(names(syntax, text).expect_err(text), error);
        }
    }

    #[test]
    fn several_are_joined_by_a_blank_line() {
        assert_eq!(joined(["a\n\n", "b\r\n", " c"].into_iter()), "a\n\nb\n\n c\n");
    }
}
