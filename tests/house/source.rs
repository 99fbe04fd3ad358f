//! Just enough of Rust's syntax to see what a file names.

use std::collections::BTreeSet;

/// A `mod name;` line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    /// `#[path = "…"]` above it.
    pub(crate) path: Option<String>,
    /// The inline modules that it stands in.
    pub(crate) within: Vec<String>,
}

/// The text without comments, and with the insides of strings only where an attribute needs them.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let attribute = line.trim_start().starts_with("#[path");
        out.push_str(if attribute { line } else { "" });
        if !attribute {
            strip_line(line, &mut out);
        }
        out.push('\n');
    }
    out
}

/// Copies a line up to its comment, leaving the text of strings out.
fn strip_line(line: &str, out: &mut String) {
    let mut characters = line.chars().peekable();
    let mut within = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if within => {
                characters.next();
            }
            '"' => {
                within = !within;
                out.push('"');
            }
            // A quote as a character is no string.
            '\'' if !within && characters.peek() == Some(&'"') => {
                characters.next();
                characters.next();
            }
            '/' if !within && characters.peek() == Some(&'/') => return,
            _ if within => {}
            character => out.push(character),
        }
    }
}

/// The rooms that `code` names after `crate::`, groups in braces included.
pub(crate) fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` in a macro is the same; `other_crate::` is not.
        if code[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group_heads(group));
        } else {
            found.insert(identifier(rest));
        }
    }
    found
}

/// The first names of each part of a `{a::b, c::{d, e}, f}` whose opening brace is gone.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (0_usize, vec![], true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            character if at_head && (character.is_alphabetic() || character == '_') => {
                heads.push(identifier(&group[at..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The identifiers in `code`.
pub(crate) fn words(code: &str) -> BTreeSet<&str> {
    code.split(|character: char| !character.is_alphanumeric() && character != '_').collect()
}

/// Whether `code`, whose identifiers are `words`, says `word`, which may be a path.
pub(crate) fn says(code: &str, words: &BTreeSet<&str>, word: &str) -> bool {
    if word.contains("::") { code.contains(word) } else { words.contains(word) }
}

/// The `mod name;` lines of `code`.
pub(crate) fn modules(code: &str) -> Vec<Module> {
    let (mut found, mut within, mut path) = (vec![], vec![], None);
    for line in code.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        within.retain(|(depth, _): &(usize, String)| indent > *depth);
        if let Some(attribute) = line.strip_prefix("#[path = \"") {
            path = attribute.split('"').next().map(str::to_owned);
            continue;
        }
        let line = line.split_once(") ").filter(|_| line.starts_with("pub(")).map_or(line, |(_, rest)| rest);
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let Some(rest) = line.strip_prefix("mod ") else { continue };
        let name = identifier(rest);
        if rest.ends_with(';') {
            let within = within.iter().map(|(_, name)| name.clone()).collect();
            found.push(Module { name, path: path.take(), within });
        } else if rest.ends_with('{') {
            within.push((indent, name));
        }
    }
    found
}

#[test]
fn comments_and_strings_name_nothing() {
    let text = "use crate::plan::Plan; // crate::web\nlet a = \"crate::cli \\\" tokio\"; let b = '\"'; let c = crate::a;\n//! async";
    let code = code(text);
    assert_eq!(crate_paths(&code).into_iter().collect::<Vec<_>>(), ["a", "plan"]);
    assert!(!says(&code, &words(&code), "tokio") && !says(&code, &words(&code), "async"));
}

#[test]
fn groups_are_taken_apart() {
    let code =
        "use crate::{plan::{Plan, step::Step}, web, model::Name as N};\nuse my_crate::x; pub(crate) use crate::b::c;";
    assert_eq!(crate_paths(code).into_iter().collect::<Vec<_>>(), ["b", "model", "plan", "web"]);
}

#[test]
fn modules_are_found_with_their_places() {
    let module = |name: &str, path: Option<&str>, within: &[&str]| Module {
        name: name.to_owned(),
        path: path.map(str::to_owned),
        within: within.iter().map(|name| (*name).to_owned()).collect(),
    };
    let text =
        "mod a;\n#[path = \"x/b.rs\"]\npub(crate) mod b;\nmod outer {\n    pub mod c;\n}\nmod d;\nfn mod_e() {}\n";
    let expected = [
        module("a", None, &[]),
        module("b", Some("x/b.rs"), &[]),
        module("c", None, &["outer"]),
        module("d", None, &[]),
    ];
    assert_eq!(modules(text), expected);
}
