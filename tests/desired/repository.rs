//! Repositories to try things on.

use std::collections::BTreeMap;
use std::path::Path;

use backstay::desired::{At, Cache, DesiredAgent, DesiredState, Resolve, TargetKind, resolve};
use backstay::model::{Diagnostics, EnvironmentName, Revision, Timestamp};
use backstay::source::{MemoryTree, Tree};

pub(crate) const DIGEST: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

pub(crate) fn revision(n: u32) -> Revision {
    format!("main@sha1:{n:040x}").parse().expect("a revision")
}

pub(crate) fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().expect("a time")
}

pub(crate) fn name<T: std::str::FromStr>(name: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    name.parse().expect("a name")
}

/// The smallest repository: one agent, one environment.
pub(crate) fn small() -> MemoryTree {
    MemoryTree::default()
        .with("backstay.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Repository\n")
        .with("agents/a/agent.yaml", agent("a", &format!("  code: {{image: \"a@{DIGEST}\"}}\n")))
        .with(
            "environments/prod.yaml",
            "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\n",
        )
}

/// An `agent.yaml` with these lines as its `spec`.
pub(crate) fn agent(name: &str, spec: &str) -> String {
    format!("apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

/// An `agent.yaml` with an image and these lines in its `spec`.
pub(crate) fn with_image(spec: &str) -> String {
    agent("a", &format!("  code: {{image: \"a@{DIGEST}\"}}\n{spec}"))
}

/// Resolves an environment at one commit.
pub(crate) fn at(
    cache: &mut Cache,
    tree: &dyn Tree,
    environment: &str,
    commit: u32,
) -> Result<DesiredState, Diagnostics> {
    let environment: EnvironmentName = name(environment);
    let revision = revision(commit);
    let at = At::unverified_for_display(&revision, tree);
    let pinned = BTreeMap::new();
    let target = Some(TargetKind::Kubernetes);
    resolve(cache, &Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now: now(), target })
}

pub(crate) fn resolved(tree: &dyn Tree, environment: &str) -> DesiredState {
    match at(&mut Cache::default(), tree, environment, 1) {
        Ok(state) => state,
        Err(errors) => panic!("{}", told(&errors)),
    }
}

/// The one agent of an environment, which must be good.
pub(crate) fn good(tree: &dyn Tree, environment: &str, agent: &str) -> DesiredAgent {
    match &resolved(tree, environment).agents[&name(agent)] {
        Ok(agent) => (**agent).clone(),
        Err(errors) => panic!("{}", told(errors)),
    }
}

/// What is wrong with the agent `a` in `prod`.
pub(crate) fn wrong(tree: &dyn Tree) -> String {
    match at(&mut Cache::default(), tree, "prod", 1) {
        Err(errors) => told(&errors),
        Ok(state) => match state.agents.get(&name("a")) {
            Some(Err(errors)) => told(errors),
            Some(Ok(_)) => panic!("the agent is good"),
            None => panic!("there is no agent: {}", told(&state.warnings)),
        },
    }
}

/// As a terminal shows it.
pub(crate) fn told(errors: &Diagnostics) -> String {
    let mut lines = vec![];
    for diagnostic in &errors.0 {
        lines.push(diagnostic.to_string());
        lines.extend(diagnostic.snippet.iter().flat_map(|snippet| snippet.lines()).map(|line| format!("  | {line}")));
        lines.extend(diagnostic.hint.iter().map(|hint| format!("  hint: {hint}")));
    }
    lines.join("\n")
}

/// A folder as a tree.
pub(crate) fn folder(path: &Path) -> MemoryTree {
    fn add(tree: &mut MemoryTree, root: &Path, at: &Path) {
        for entry in std::fs::read_dir(at).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                add(tree, root, &path);
            } else {
                let name = path.strip_prefix(root).expect("inside").to_str().expect("UTF-8").to_owned();
                tree.insert(&name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    let mut tree = MemoryTree::default();
    add(&mut tree, path, path);
    tree
}

/// `example-repo`, where it is there.
pub(crate) fn example() -> Option<MemoryTree> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("example-repo");
    path.is_dir().then(|| folder(&path))
}
