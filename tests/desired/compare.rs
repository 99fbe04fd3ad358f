//! What a change is, by component, and whom it breaks.

use backstay::desired::{Component, ComponentChanges, compare};
use backstay::source::MemoryTree;
use serde_json::{Value, json};

use crate::repository::{DIGEST, good, small, with_image};

fn lines(changes: &ComponentChanges) -> Vec<String> {
    let changed =
        changes.changes.iter().map(|change| format!("{:?} {:?} {}", change.component, change.kind, change.name));
    let breaks = changes.breaks.iter().map(|broken| {
        format!(
            "{} breaks {:?} {}: {}",
            if broken.certain { "surely" } else { "maybe" },
            broken.component,
            broken.name,
            broken.why
        )
    });
    changed.chain(breaks).collect()
}

fn between(old: &MemoryTree, new: &MemoryTree) -> ComponentChanges {
    compare(&good(old, "prod", "a"), &good(new, "prod", "a"))
}

fn with_tool(input: &Value, output: Option<&Value>) -> MemoryTree {
    let mut tool = json!({"name": "t", "description": "d", "inputSchema": input});
    if let Some(output) = output {
        tool["outputSchema"] = output.clone();
    }
    small().with("agents/a/agent.yaml", with_image("  tools: {t: t.json}\n")).with("agents/a/t.json", tool.to_string())
}

#[test]
fn nothing_changes() {
    let changes = between(&small(), &small());
    assert!(changes.is_empty() && !changes.is_release());
}

#[test]
fn changes_are_named_by_component() {
    let old = small()
        .with("agents/a/agent.yaml", with_image("  prompts: {p: p.md, q: p.md}\n  models: {m: {provider: p, model: m}}\n  config: {a: 1, b: 2}\n  workload: {port: 1, env: {A: b}}\n  workers: {w: {}}\n  replicas: 1\n"))
        .with("agents/a/p.md", "old");
    let other = format!("  code: {{image: \"b@{DIGEST}\", command: [x]}}\n");
    let new = small()
        .with("agents/a/agent.yaml", crate::repository::agent("a", &(other + "  prompts: {p: p.md, r: p.md}\n  models: {m: {provider: p, model: m2}}\n  config: {b: 3}\n  workload: {port: 1, env: {A: c}}\n  workers: {w: {command: [z]}, v: {}}\n  replicas: 2\n  disruptionBudget: {minAvailable: 1}\n")))
        .with("agents/a/p.md", "new")
        .with("agents/a/manifests/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n");
    let changes = between(&old, &new);
    assert_eq!(
        lines(&changes),
        [
            "Code Added command",
            "Code Changed image",
            "Prompts Changed p",
            "Prompts Removed q",
            "Prompts Added r",
            "Models Changed m",
            "Config Removed a",
            "Config Changed b",
            "Workload Changed env",
            "Workload Added workers.v",
            "Workload Changed workers.w",
            "Settings Added ConfigMap/x",
            "Settings Added disruptionBudget",
            "Settings Changed replicas",
        ]
    );
    assert!(changes.is_release());
    assert!(changes.components().contains(&Component::Code));
}

#[test]
fn settings_alone_are_no_release() {
    let changes = between(&small(), &small().with("environments/prod/a.yaml", "replicas: 5\n"));
    assert_eq!(lines(&changes), ["Settings Added replicas"]);
    assert!(!changes.is_release());
}

#[test]
fn a_tool_that_is_gone_breaks() {
    let input = json!({"type": "object"});
    let changes = between(&with_tool(&input, None), &small());
    assert_eq!(lines(&changes), ["Tools Removed t", "surely breaks Tools t: the tool is removed"]);
}

#[test]
fn input_may_be_loosened_and_output_be_tightened() {
    let properties = |required: Value| json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": required});
    let (loose, tight) = (properties(json!(["a"])), properties(json!(["a", "b"])));
    let breaks = |old: (&Value, Option<&Value>), new: (&Value, Option<&Value>)| {
        let changes = between(&with_tool(old.0, old.1), &with_tool(new.0, new.1));
        lines(&changes).split_off(1)
    };
    assert_eq!(breaks((&tight, None), (&loose, None)), [""; 0], "input loosened");
    assert_eq!(breaks((&loose, None), (&tight, None)), ["surely breaks Tools t: its input takes less than before"]);
    assert_eq!(breaks((&loose, Some(&loose)), (&loose, Some(&tight))), [""; 0], "output tightened");
    assert_eq!(
        breaks((&loose, Some(&tight)), (&loose, Some(&loose))),
        ["surely breaks Tools t: its output gives more than before"]
    );
    assert_eq!(breaks((&loose, Some(&tight)), (&loose, None)).len(), 1, "output no longer said");
    assert_eq!(breaks((&loose, None), (&loose, Some(&tight))), [""; 0], "output said for the first time");
    // What cannot be decided is not certain, and never nothing.
    let pattern = |pattern: &str| json!({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]});
    let undecided = breaks((&pattern("^(a|b)*c$"), None), (&pattern("^(b|a)*c$"), None));
    assert_eq!(undecided.len(), 1, "{undecided:?}");
}

#[test]
fn a_changed_description_is_a_change_that_breaks_nobody() {
    let old = with_tool(&json!({"type": "object"}), None);
    let new = old.clone().with(
        "agents/a/t.json",
        json!({"name": "t", "description": "other", "inputSchema": {"type": "object"}}).to_string(),
    );
    assert_eq!(lines(&between(&old, &new)), ["Tools Changed t"]);
}

#[test]
fn migrations_are_not_changed_and_not_for_good() {
    let memory = |files: &[(&str, &str)]| {
        let tree = small()
            .with("agents/a/agent.yaml", with_image("  memory: {database: {secret: s, key: k}, migrations: m}\n"));
        files.iter().fold(tree, |tree, (path, text)| tree.with(&format!("agents/a/m/{path}"), text))
    };
    let one = [("1_a.up.sql", "A;"), ("1_a.down.sql", "a;")];
    let two = [("1_a.up.sql", "A;"), ("1_a.down.sql", "a;"), ("2_b.up.sql", "-- backstay: irreversible\nB;")];
    let other = [("1_a.up.sql", "AA;"), ("1_a.down.sql", "a;")];
    assert_eq!(
        lines(&between(&memory(&one), &memory(&two))),
        ["Memory Changed migrations", "surely breaks Memory 2_b: the migration has no way back"]
    );
    assert_eq!(
        lines(&between(&memory(&two), &memory(&one))),
        ["Memory Changed migrations", "maybe breaks Memory 2_b: the migration is taken back"]
    );
    assert_eq!(
        lines(&between(&memory(&one), &memory(&other))),
        [
            "Memory Changed migrations",
            "surely breaks Memory 1_a: the migration was applied already, and is another one now"
        ]
    );
}
