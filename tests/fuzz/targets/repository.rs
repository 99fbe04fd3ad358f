//! The files of a repository: each in its place in a tree, and the whole resolved.

use std::collections::BTreeMap;

use backstay::desired::{At, Cache, Release, Resolve, TargetKind, consents, resolve, validate};
use backstay::model::{EnvironmentName, Revision};
use backstay::source::MemoryTree;
use backstay::{flag, migration};

use super::{commit, now};

const IMAGE: &str = "a@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn agent(spec: &str) -> String {
    format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  code: {{image: \"{IMAGE}\"}}\n{spec}"
    )
}

/// A repository that reads every kind of file, with this one in its place.
pub(super) fn tree(path: &str, data: &[u8]) {
    let spec = match path {
        "agents/a/d.yaml" => "  workload: {manifest: d.yaml, container: agent}\n",
        "agents/a/t.json" => "  tools: {t: t.json}\n",
        _ => "  models: {m: {use: m}}\n  prompts: {p: p.md}\n",
    };
    let tree = MemoryTree::default()
        .with("backstay.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Repository\n")
        .with("agents/a/agent.yaml", agent(spec))
        .with("agents/a/p.md", "hello\n")
        .with("shared/models.yaml", "m: {provider: openai, model: x}\n")
        .with(
            "environments/prod.yaml",
            "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\n",
        )
        .with(path, data);
    look(&tree);
}

fn look(tree: &MemoryTree) {
    let Ok(environment) = "prod".parse::<EnvironmentName>() else { return };
    let revision = Revision { reference: "main".to_owned(), commit: commit() };
    let at = At::unverified_for_display(&revision, tree);
    let (pinned, target, now) = (BTreeMap::new(), Some(TargetKind::Kubernetes), now());
    let request = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target };
    let (mut cache, mut told) = (Cache::default(), String::new());
    for _ in 0..2 {
        match resolve(&mut cache, &request) {
            Ok(state) => {
                for agent in state.agents.values().flatten() {
                    // What is read can be kept and read back.
                    let files = agent.release.files();
                    let canonical = files.get("release.json").map(AsRef::as_ref).unwrap_or_default();
                    let prompts = files.iter().filter_map(|(path, bytes)| {
                        let name = path.strip_prefix("prompts/")?.strip_suffix(".md")?;
                        Some((name.to_owned(), bytes.clone()))
                    });
                    let back = Release::from_parts(canonical, prompts.collect());
                    assert!(back.is_ok_and(|back| back.id == agent.release.id), "a release is its content");
                }
                told = state
                    .agents
                    .values()
                    .filter_map(|agent| agent.as_ref().err())
                    .map(|found| format!("{found:?}"))
                    .collect();
            }
            Err(found) => told = format!("{found:?}"),
        }
    }
    drop((told, consents(tree), validate(tree, now)));
}

pub(super) fn flags(data: &[u8]) {
    tree("agents/a/flags.json", data);
    if let Ok(value) = serde_json::from_slice(data) {
        let _ = flag::parse(&value);
    }
}

/// The first byte chooses the syntax.
pub(super) fn template(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let syntax = ["mustache", "jinja", "format", "dollar"][usize::from(first % 4)];
    let spec = format!("  prompts: {{p: {{file: p.md, syntax: {syntax}, variables: [a, b]}}}}\n");
    let tree = MemoryTree::default()
        .with("backstay.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Repository\n")
        .with("agents/a/agent.yaml", agent(&spec))
        .with("agents/a/p.md", text)
        .with(
            "environments/prod.yaml",
            "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\n",
        );
    look(&tree);
}

/// Names and scripts, each ended by a zero.
pub(super) fn migrations(data: &[u8]) {
    let parts: Vec<&[u8]> = data.split(|byte| *byte == 0).collect();
    let files = parts.chunks(2).filter_map(|pair| {
        let [name, script] = pair else { return None };
        Some((std::str::from_utf8(name).ok()?, *script))
    });
    let _ = migration::chain(files);
}
