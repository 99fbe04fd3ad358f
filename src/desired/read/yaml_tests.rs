use serde_json::json;

use super::*;

fn read(text: &str, flavour: Flavour) -> Result<Vec<Node>, Diagnostics> {
    documents(&Source::new("a.yaml", text), flavour)
}

fn refused(text: &str) -> String {
    let refused = read(text, Flavour::Config).expect_err(text);
    let lines = refused.0.iter().map(|diagnostic| match &diagnostic.hint {
        Some(hint) => format!("{diagnostic} ({hint})"),
        None => diagnostic.to_string(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn reads_the_core_schema() {
    let text =
        "{a: 1, b: -2, c: 1.5, d: 1e3, e: 0o17, f: 0x1f, g: true, h: ~, i: '1', j: 2027-01-14, k: .5, l: 3.0, m: 1:2}";
    let node = one_document(&Source::new("a.yaml", text)).expect("YAML");
    let value = json!({"a": 1, "b": -2, "c": 1.5, "d": 1000, "e": 15, "f": 31, "g": true, "h": null, "i": "1",
        "j": "2027-01-14", "k": 0.5, "l": 3, "m": "1:2"});
    assert_eq!(node.to_value(), value);
}

#[test]
fn every_value_knows_its_place() {
    let node = one_document(&Source::new("a.yaml", "\u{feff}# ü\r\na:\r\n  - ü: x\r\n    b: 2\r\n")).expect("YAML");
    assert_eq!(node.at(["a", "0", "b"]).expect("a value").spot.origin().to_string(), "a.yaml:4:8");
    assert_eq!(
        node.at(["a", "0"]).expect("a value").field("ü").expect("a field").spot.origin().to_string(),
        "a.yaml:3:5"
    );
}

#[test]
fn snippets_show_the_line_and_the_place() {
    let node = one_document(&Source::new("a.yaml", "a:\n  long: value\n")).expect("YAML");
    let spot = &node.at(["a", "long"]).expect("a value").spot;
    assert_eq!(spot.error("no").snippet.as_deref(), Some("  long: value\n        ^^^^^"));
}

#[test]
fn refuses_what_readers_disagree_on() {
    insta::assert_snapshot!(refused("a: yes\nb: [no, On, y]\nc: 0644\nd: 1_000\ne: .inf\nf: 9007199254740993"), @r#"
    a.yaml:1:4: error: some read `yes` as a boolean, others as text (write `true`, or `"yes"` for text)
    a.yaml:2:5: error: some read `no` as a boolean, others as text (write `false`, or `"no"` for text)
    a.yaml:2:9: error: some read `On` as a boolean, others as text (write `true`, or `"On"` for text)
    a.yaml:2:13: error: some read `y` as a boolean, others as text (write `true`, or `"y"` for text)
    a.yaml:3:4: error: some read `0644` as an octal number, others as a decimal one (write `0o644`, or `"0644"` for text)
    a.yaml:4:4: error: some read `1_000` as a number, others as text (write it without `_`, or `"1_000"`)
    a.yaml:5:4: error: `.inf` is no number that JSON can carry (write `".inf"` for text)
    a.yaml:6:4: error: the number `9007199254740993` is beyond 2^53 (write `"9007199254740993"` for text)
    "#);
}

#[test]
fn refuses_what_hides_meaning() {
    insta::assert_snapshot!(refused("a: !!str 1\nb: &x {c: 1}\nd:\n  <<: *x\ne: 1\ne: 2\n8080: 1\ntrue: 1\n\"a\\u0007\": 1\nf: \"\\u0007\"\n: 1"), @r#"
    a.yaml:1:4: error: a tag (`!…`) stands before the value (take it away: the type follows from the value)
    a.yaml:4:3: error: a merge key (`<<`) is not read (write the fields out, or use an overlay)
    a.yaml:6:1: error: the key `e` stands here twice (keep one of them)
    a.yaml:7:1: error: the key `8080` is no text (write `"8080"`)
    a.yaml:8:1: error: the key `true` is no text (write `"true"`)
    a.yaml:9:1: error: a key holds a control character
    a.yaml:10:4: error: the text holds a control character
    a.yaml:11:1: error: a key is missing before `:`
    "#);
    assert!(refused("%YAML 1.1\n---\na: 1").contains("a.yaml:1:1: error: this is not YAML"));
    assert_eq!(refused("[a]: 1"), "a.yaml:1:1: error: a list or a map stands where a key is expected (a key is text)");
    assert_eq!(
        refused("&a k: 1\n*a : 2"),
        "a.yaml:2:1: error: an alias stands where a key is expected (write the key as text)"
    );
    assert!(refused("a: b: c").starts_with("a.yaml:1:5: error: this is not YAML"), "{}", refused("a: b: c"));
    assert!(refused("a:\n\t- b").contains("(indent with spaces)"), "{}", refused("a:\n\t- b"));
}

#[test]
fn manifests_are_read_as_kubectl_reads_them() {
    let read = read("mode: 0644\ndata: {8080: a}\n---\n---\nb: 2.0\n", Flavour::Manifest).expect("YAML");
    let values: Vec<_> = read.iter().map(Node::to_value).collect();
    assert_eq!(values, [json!({"mode": 420, "data": {"8080": "a"}}), json!({"b": 2})]);
}

#[test]
fn one_document_is_one() {
    assert_eq!(one_document(&Source::new("a.yaml", "# nothing\n")).expect("YAML").to_value(), json!({}));
    let refused = one_document(&Source::new("a.yaml", "a: 1\n---\nb: 2\n")).expect_err("two");
    assert_eq!(refused.to_string(), "a.yaml:3:1: error: a second document begins here: one is expected in this file");
}

#[test]
fn aliases_are_read_within_a_budget() {
    let node = one_document(&Source::new("a.yaml", "a: &x {b: [1]}\nc: *x\n")).expect("YAML");
    assert_eq!(node.to_value(), json!({"a": {"b": [1]}, "c": {"b": [1]}}));
    assert_eq!(refused("a: &a [*a]"), "a.yaml:1:8: error: the alias stands inside of what it names");
    assert!(refused("a: *b").starts_with("a.yaml:1:4: error: this is not YAML"));
    let many = format!("a: &a 1\nb: [{}]", "*a, ".repeat(65));
    assert!(refused(&many).contains("error: aliases are used more than 64 times"));
    let bomb = (1..12).fold("x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned(), |text, n| {
        let alias = format!("*x{}", n - 1);
        format!("{text}x{n}: &x{n} [{}]\n", vec![alias; 9].join(", "))
    });
    assert_eq!(refused(&bomb), "a.yaml:5:35: error: the file holds more than 50000 values");
}

#[test]
fn budgets_hold() {
    assert!(refused(&"[".repeat(100_000)).contains("a.yaml:1:65: error: "), "{}", refused(&"[".repeat(100_000)));
    assert!(refused(&(0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>()).contains("a.yaml:65:65"));
    assert!(refused(&"- ".repeat(10_000)).contains("a.yaml:1:129: error: "), "{}", refused(&"- ".repeat(10_000)));
    let wide = format!("[{}]", "{a: 1}, ".repeat(100_000));
    assert_eq!(refused(&wide), "a.yaml:1:133331: error: the file holds more than 50000 values");
    assert_eq!(refused(&"{a: 1}\n".repeat(500_000)), "a.yaml: error: the file is larger than 1048576 bytes");
    assert!(refused(&format!("? {}\n: 1", "k".repeat(5000))).contains("error: a key is longer than 1024 bytes"));
    assert!(refused(&format!("{}: 1", "k".repeat(5000))).contains("a.yaml:1:"));
    let documents = "--- {a: 1}\n".repeat(65);
    assert!(refused(&documents).contains("a.yaml:65:1: error: the file has more than 64 documents"));
    let errors = "a: yes\n".repeat(1000);
    assert_eq!(read(&errors, Flavour::Config).expect_err("many").0.len(), 50);
}

#[test]
fn a_secret_is_never_shown() {
    let text = "a: {PASSWORD: hunter2, b: yes}\nTOKEN: |\n  abc\n\nc: on\nd: {secret: a, key: no}\n";
    let refused = read(text, Flavour::Config).expect_err("booleans");
    let snippets: Vec<_> = refused.0.iter().map(|diagnostic| diagnostic.snippet.as_deref()).collect();
    assert_eq!(snippets, [None, Some("c: on\n   ^^"), Some("d: {secret: a, key: no}\n                    ^^")]);
    assert!(!format!("{refused:?}").contains("hunter2"));
    let refused = read("API_KEY: hunter2: x", Flavour::Config).expect_err("not YAML");
    assert!(!format!("{refused:?}").contains("hunter2"));
}
