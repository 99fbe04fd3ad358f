//! Trees that no `git` would make, beside ordinary files.

use std::collections::{BTreeMap, BTreeSet};

use backstay::desired::Consent;
use backstay::model::{AgentName, LiveState, Manifest};
use backstay::plan::{GatePolicy, Plan, PlanInput, plan};
use backstay::record::AgentRecord;
use backstay::source::MemoryTree;
use git2::Oid;

use crate::forbidden::IMAGE;
use crate::git::TestRepo;

pub(crate) const FILE: &str = "100644";
pub(crate) const FOLDER: &str = "40000";
pub(crate) const LINK: &str = "120000";
pub(crate) const MODULE: &str = "160000";

/// Mode, name and object of an entry.
type Odd = (&'static str, Vec<u8>, Oid);

/// A tree in the making: ordinary files, and entries of any mode and name at any place.
pub(crate) struct Forge<'a> {
    pub(crate) repo: &'a TestRepo,
    files: BTreeMap<String, Oid>,
    odd: BTreeMap<String, Vec<Odd>>,
}

/// A repository of the agent `a`, with these lines in its `spec`, and the environment `prod`.
pub(crate) fn tree(spec: &str) -> MemoryTree {
    MemoryTree::default()
        .with("backstay.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Repository\n")
        .with("agents/a/agent.yaml", agent(spec))
        .with(
            "environments/prod.yaml",
            "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\n",
        )
}

/// What stands in the way of one plan or leads to it; all else is as for an agent at rest.
pub(crate) struct Planned<'a> {
    pub(crate) agent: &'a AgentName,
    pub(crate) desired: &'a [Manifest],
    pub(crate) previous: Option<&'a [Manifest]>,
    pub(crate) live: &'a LiveState,
    pub(crate) record: &'a AgentRecord,
    pub(crate) consents: &'a [Consent],
    pub(crate) gate: &'a GatePolicy,
}

impl Planned<'_> {
    pub(crate) fn plan(&self) -> Plan {
        plan(&PlanInput {
            agent: self.agent,
            desired: self.desired,
            previous: self.previous,
            live: self.live,
            record: self.record,
            takes: &BTreeMap::new(),
            leaves: &BTreeMap::new(),
            consents: self.consents,
            kept: &BTreeSet::new(),
            accepted: &BTreeMap::new(),
            refused: &BTreeMap::new(),
            handed_over: &BTreeSet::new(),
            dropped: &BTreeSet::new(),
            unhealthy: None,
            gate: self.gate,
        })
    }
}

/// An `agent.yaml` with an image and these lines in its `spec`.
pub(crate) fn agent(spec: &str) -> String {
    format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  code: {{image: \"{IMAGE}\"}}\n{spec}"
    )
}

impl<'a> Forge<'a> {
    /// The smallest good repository: the agent `a` in the environment `prod`.
    pub(crate) fn small(repo: &'a TestRepo) -> Self {
        Self { repo, files: BTreeMap::new(), odd: BTreeMap::new() }
            .file("backstay.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Repository\n")
            .file("agents/a/agent.yaml", agent(""))
            .file(
                "environments/prod.yaml",
                "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\n",
            )
    }

    /// Puts a file, in place of one that stands there.
    pub(crate) fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let blob = self.repo.blob(content.as_ref());
        self.files.insert(path.to_owned(), blob);
        self
    }

    /// Takes a file away.
    pub(crate) fn without(mut self, path: &str) -> Self {
        self.files.remove(path);
        self
    }

    /// Puts an entry of any mode and name into a folder.
    pub(crate) fn odd(mut self, folder: &str, mode: &'static str, name: impl AsRef<[u8]>, object: Oid) -> Self {
        self.odd.entry(folder.to_owned()).or_default().push((mode, name.as_ref().to_vec(), object));
        self
    }

    /// The root of the tree.
    pub(crate) fn root(&self) -> Oid {
        self.folder("")
    }

    fn folder(&self, path: &str) -> Oid {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut entries: Vec<(&str, Vec<u8>, Oid)> = Vec::new();
        let mut folders: Vec<String> = Vec::new();
        let beneath = self.files.iter().filter_map(|(path, id)| Some((path.strip_prefix(&prefix)?, Some(*id))));
        let odd = self.odd.keys().filter_map(|folder| Some((folder.strip_prefix(&prefix)?, None)));
        for (rest, id) in beneath.chain(odd).filter(|(rest, _)| !rest.is_empty()) {
            match (rest.split_once('/'), id) {
                (None, Some(id)) => entries.push((FILE, rest.as_bytes().to_vec(), id)),
                (Some((name, _)), _) => folders.push(name.to_owned()),
                (None, None) => folders.push(rest.to_owned()),
            }
        }
        folders.sort();
        folders.dedup();
        let inner =
            folders.iter().map(|name| (FOLDER, name.as_bytes().to_vec(), self.folder(&format!("{prefix}{name}"))));
        entries.extend(inner.collect::<Vec<_>>());
        entries.extend(self.odd.get(path).cloned().unwrap_or_default());
        let entries: Vec<_> = entries.iter().map(|(mode, name, id)| (*mode, &**name, *id)).collect();
        self.repo.tree(&entries)
    }

    /// A folder of so many names, all of one object.
    pub(crate) fn many(&self, mode: &'static str, object: Oid, names: impl Iterator<Item = String>) -> Oid {
        let names: Vec<String> = names.collect();
        let entries: Vec<_> = names.iter().map(|name| (mode, name.as_bytes(), object)).collect();
        self.repo.tree(&entries)
    }

    /// Ten folders of ten folders of … ten files: so many levels, one object each.
    pub(crate) fn bomb(&self, levels: usize, file: &[u8]) -> Oid {
        let digits = || (0..10).map(|n| n.to_string());
        let mut tree = self.many(FILE, self.repo.blob(file), digits());
        for _ in 1..levels {
            tree = self.many(FOLDER, tree, digits());
        }
        tree
    }
}
