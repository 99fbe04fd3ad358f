//! Which promise has which tests, by the comments above them (`// K4`), and which has none yet.

use std::collections::{BTreeMap, BTreeSet};

/// The promises by their letter, and how many there are.
const PROMISES: [(&str, usize); 4] = [("S", 10), ("K", 14), ("F", 3), ("R", 8)];

/// Promises that no test holds yet, with the reason. A line here with a test beside it is wrong, too.
const WITHOUT: [(&str, &str); 0] = [];

/// The promises that a comment begins with: `// K12, K14: why` is two.
fn named(line: &str) -> Vec<String> {
    let Some(text) = line.strip_prefix("///").or_else(|| line.strip_prefix("//")) else { return vec![] };
    let is = |word: &str| {
        let Some((letter, number)) = word.split_at_checked(1) else { return false };
        number.parse::<usize>().is_ok_and(|n| {
            PROMISES
                .iter()
                .any(|(known, count)| *known == letter && (1..=*count).contains(&n) && number == n.to_string())
        })
    };
    let words = text.trim().split([' ', ':']).filter(|word| !word.is_empty());
    words.map(|word| word.trim_end_matches(',')).take_while(|word| is(word)).map(str::to_owned).collect()
}

/// The promises of each test of a file: named above it, or first in its body.
fn held(text: &str) -> Vec<(String, String)> {
    let mut held = vec![];
    let (mut above, mut is_test, mut within): (Vec<String>, bool, Option<String>) = (vec![], false, None);
    for line in text.lines().map(str::trim) {
        let ids = named(line);
        let function = line.trim_start_matches("pub ").trim_start_matches("async ").strip_prefix("fn ");
        if !ids.is_empty() {
            match &within {
                Some(test) => held.extend(ids.into_iter().map(|id| (id, test.clone()))),
                None => above.extend(ids),
            }
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some(name) = function.and_then(|rest| rest.split(['(', '<']).next()).filter(|_| is_test) {
            held.extend(above.drain(..).map(|id| (id, name.to_owned())));
            (within, is_test) = (Some(name.to_owned()), false);
        } else if !line.starts_with("//") {
            (above, is_test, within) = (vec![], false, None);
        }
    }
    held
}

/// Every test by the promise it holds: `tests/story/river.rs: at_rest_nothing_is_written`.
pub(crate) fn index(files: impl Iterator<Item = (String, String)>) -> BTreeMap<String, BTreeSet<String>> {
    let mut index: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (shown, text) in files {
        for (id, test) in held(&text) {
            index.entry(id).or_default().insert(format!("{shown}: {test}"));
        }
    }
    index
}

/// What is wrong with an index: promises without a test and without a reason, and reasons that are none any more.
pub(crate) fn missing(index: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let all = PROMISES.iter().flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}{n}")));
    let mut wrong = vec![];
    for id in all {
        let without = WITHOUT.iter().any(|(known, _)| *known == id);
        match (index.contains_key(&id), without) {
            (false, false) => wrong.push(format!("{id} has no test: write `// {id}` above the one that holds it")),
            (true, true) => wrong.push(format!("{id} has a test now: take it out of the list of those without")),
            (true, false) | (false, true) => {}
        }
    }
    wrong
}

/// The index as people read it.
pub(crate) fn table(index: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut lines = vec![];
    for (letter, count) in PROMISES {
        for id in (1..=count).map(|n| format!("{letter}{n}")) {
            let reason = || WITHOUT.iter().find(|(known, _)| *known == id).map_or("", |(_, reason)| reason);
            match index.get(&id) {
                Some(tests) => lines.extend(tests.iter().map(|test| format!("{id:<4}{test}"))),
                None => lines.push(format!("{id:<4}none: {}", reason())),
            }
        }
    }
    lines.join("\n")
}

#[test]
fn comments_are_read_as_promises() {
    for (line, expected) in [
        ("// K4", vec!["K4"]),
        ("// K12, K14", vec!["K12", "K14"]),
        ("/// R4: a storm is one fetch.", vec!["R4"]),
        ("// K15", vec![]),
        ("// K04", vec![]),
        ("// S", vec![]),
        ("// because of K4", vec![]),
        ("/// δ begins this one", vec![]),
        ("let x = 4; // K4", vec![]),
    ] {
        assert_eq!(named(line), expected, "{line}");
    }
    let text = "// K1\n#[test]\nfn a() {\n    // K2\n    x();\n    // K3\n}\n\n// K4\nfn helper() {}\n\n#[tokio::test]\n\
                async fn b() {\n    // S1, S2\n}\n";
    let pair = |id: &str, test: &str| (id.to_owned(), test.to_owned());
    assert_eq!(held(text), [pair("K1", "a"), pair("K2", "a"), pair("S1", "b"), pair("S2", "b")]);
}
