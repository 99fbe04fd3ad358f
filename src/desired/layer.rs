//! One commit's files, read on behalf of one agent, with a note of all that was looked at.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::agent::sorted;
use super::artifact::Known;
use super::read::{MAX_BYTES, Node, Source, beneath, check, one_document, patch};
use super::{secrets, written};
use crate::model::{AgentName, Diagnostic, Diagnostics, EnvironmentName, Origin, Revision};
use crate::source::{ContentId, Entry, EntryKind, Tree, TreeError};

/// Bytes of one prompt, script or tool.
const MAX_COMPONENT: usize = MAX_BYTES;

/// Bytes of all files that are read for one agent, a file as often as it is named: many names can stand for one blob.
const MAX_AGENT: usize = 16 * MAX_COMPONENT;

/// The files of one commit as one environment sees them.
pub(super) struct Layer<'a> {
    pub(super) revision: &'a Revision,
    pub(super) tree: &'a dyn Tree,
    /// The environment whose overlays apply; none where an agent is looked at alone.
    pub(super) environment: Option<EnvironmentName>,
    found: RefCell<HashMap<Arc<str>, Option<ContentId>>>,
    listed: RefCell<HashMap<Arc<str>, bool>>,
    repository: OnceCell<Result<Node, Diagnostics>>,
    catalogue: OnceCell<Result<Node, Diagnostics>>,
    variables: OnceCell<Result<Node, Diagnostics>>,
}

/// Reads files for one agent.
pub(super) struct Reader<'a> {
    pub(super) layer: &'a Layer<'a>,
    /// What stood at each path that was looked at.
    pub(super) consulted: RefCell<BTreeMap<Arc<str>, Option<ContentId>>>,
    /// Something could not even be looked for, so that what was read cannot be kept.
    pub(super) unsure: Cell<bool>,
    /// Bytes that may still be read.
    left: Cell<usize>,
    agent: &'a AgentName,
    /// Artifacts that were read before.
    pub(super) artifacts: &'a RefCell<HashMap<ContentId, Known>>,
}

// === impl Layer ===

impl<'a> Layer<'a> {
    pub(super) fn new(revision: &'a Revision, tree: &'a dyn Tree, environment: Option<EnvironmentName>) -> Self {
        Self {
            revision,
            tree,
            environment,
            found: RefCell::default(),
            listed: RefCell::default(),
            repository: OnceCell::new(),
            catalogue: OnceCell::new(),
            variables: OnceCell::new(),
        }
    }

    /// What stands at `path`: asked of the tree once.
    ///
    /// The folders that hold an entry for each agent are read whole at the first question about one of them.
    pub(super) fn id(&self, path: &str) -> Result<Option<ContentId>, TreeError> {
        if let Some(id) = self.found.borrow().get(path) {
            return Ok(id.clone());
        }
        if let Some((folder, _)) = path.rsplit_once('/')
            && self.is_of_agents(folder)
            && self.list_into_found(folder)?
        {
            return Ok(self.found.borrow().get(path).cloned().flatten());
        }
        let id = self.tree.find(path)?.map(|entry| entry.id);
        self.found.borrow_mut().insert(path.into(), id.clone());
        Ok(id)
    }

    fn is_of_agents(&self, folder: &str) -> bool {
        folder == "agents" || self.overlays().is_some_and(|overlays| overlays == folder)
    }

    fn overlays(&self) -> Option<String> {
        self.environment.as_ref().map(|environment| format!("environments/{environment}"))
    }

    /// Notes all entries of a folder; not, where it cannot be listed.
    fn list_into_found(&self, folder: &str) -> Result<bool, TreeError> {
        if let Some(done) = self.listed.borrow().get(folder) {
            return Ok(*done);
        }
        let entries = self.tree.list(folder)?;
        let mut found = self.found.borrow_mut();
        found.reserve(entries.len());
        for entry in entries {
            found.insert(format!("{folder}/{}", entry.name).into(), Some(entry.id));
        }
        self.listed.borrow_mut().insert(folder.into(), true);
        Ok(true)
    }

    /// `backstay.yaml`, checked.
    pub(super) fn repository(&self) -> Result<&Node, Diagnostics> {
        let read = self.repository.get_or_init(|| {
            let path = "backstay.yaml";
            let Some(source) = source(self.tree, path, MAX_BYTES)? else {
                let missing =
                    Diagnostic::error(Origin::file(path), "`backstay.yaml` is missing: this is no config repository");
                return Err(missing.hint("`backstay init` makes one").into());
            };
            let node = one_document(&source)?;
            let mut found = check(written::repository(), &node).0;
            if let Some(defaults) = node.at(["spec", "defaults"]) {
                secrets::add(&mut found, |plain| secrets::refuse_in_spec(defaults, plain));
            }
            if found.is_empty() { Ok(node) } else { Err(sorted(found)) }
        });
        read.as_ref().map_err(Clone::clone)
    }

    /// What lies beneath every agent's `spec`.
    pub(super) fn defaults(&self, spec: Node) -> Result<Node, Diagnostics> {
        let repository = self.repository()?;
        Ok(match repository.at(["spec", "defaults"]) {
            Some(defaults) => beneath(defaults, spec),
            None => spec,
        })
    }

    /// `shared/models.yaml` with the environment's patch, checked.
    pub(super) fn catalogue(&self) -> Result<&Node, Diagnostics> {
        let read = self.catalogue.get_or_init(|| {
            let base = match source(self.tree, "shared/models.yaml", MAX_BYTES)? {
                Some(source) => one_document(&source)?,
                None => Node::empty(Source::new("shared/models.yaml", "").spot(0, 0, 0)),
            };
            let patched = match self.overlays() {
                Some(folder) => source(self.tree, &format!("{folder}/models.yaml"), MAX_BYTES)?,
                None => None,
            };
            let node = match patched {
                Some(source) => patch(base, &one_document(&source)?),
                None => base,
            };
            let mut found = check(written::catalogue(), &node).0;
            secrets::add(&mut found, |plain| secrets::refuse_in_spec(&node, plain));
            if found.is_empty() { Ok(node) } else { Err(sorted(found)) }
        });
        read.as_ref().map_err(Clone::clone)
    }

    /// The environment's `variables.yaml`, checked; an empty map where there is none.
    pub(super) fn variables(&self) -> Result<&Node, Diagnostics> {
        let read = self.variables.get_or_init(|| {
            let path = self.overlays().map(|folder| format!("{folder}/variables.yaml")).unwrap_or_default();
            let source = if path.is_empty() { None } else { source(self.tree, &path, MAX_BYTES)? };
            let Some(source) = source else { return Ok(Node::empty(Source::new(&path, "").spot(0, 0, 0))) };
            let node = one_document(&source)?;
            let mut found = check(written::variables(), &node).0;
            secrets::add(&mut found, |plain| secrets::refuse(&node, true, plain));
            if found.is_empty() { Ok(node) } else { Err(sorted(found)) }
        });
        read.as_ref().map_err(Clone::clone)
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(
        layer: &'a Layer<'a>,
        agent: &'a AgentName,
        artifacts: &'a RefCell<HashMap<ContentId, Known>>,
    ) -> Self {
        let (consulted, unsure) = (RefCell::default(), Cell::new(false));
        Self { layer, consulted, unsure, left: Cell::new(MAX_AGENT), agent, artifacts }
    }

    /// Notes what stands at `path`.
    pub(super) fn consult(&self, path: &str) -> Result<Option<ContentId>, TreeError> {
        match self.layer.id(path) {
            Ok(id) => {
                self.consulted.borrow_mut().insert(path.into(), id.clone());
                Ok(id)
            }
            Err(error) => {
                self.unsure.set(true);
                Err(error)
            }
        }
    }

    /// The bytes of a file; nothing where there is none.
    pub(super) fn bytes(&self, path: &str) -> Result<Option<Arc<[u8]>>, TreeError> {
        if self.is_spent() {
            return Err(self.spent());
        }
        if self.consult(path)?.is_none() {
            return Ok(None);
        }
        let read = self.noting(self.layer.tree.read(path, MAX_COMPONENT))?;
        let bytes = read.as_ref().map_or(0, |bytes| bytes.len());
        match self.left.get().checked_sub(bytes) {
            Some(left) => self.left.set(left),
            None => {
                self.left.set(0);
                return Err(self.spent());
            }
        }
        Ok(read)
    }

    /// Whether no more may be read for this agent.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    fn spent(&self) -> TreeError {
        let what = "bytes in the files that are read for it";
        TreeError::Budget { path: folder(self.agent), what, limit: MAX_AGENT }
    }

    /// The entries of a folder; none where there is none.
    pub(super) fn list(&self, path: &str) -> Result<Vec<Entry>, TreeError> {
        if self.consult(path)?.is_none() {
            return Ok(vec![]);
        }
        self.noting(self.layer.tree.list(path))
    }

    /// The text of a file.
    pub(super) fn source(&self, path: &str) -> Result<Option<Arc<Source>>, Diagnostics> {
        match self.bytes(path).map_err(|error| refused(path, &error))? {
            None => Ok(None),
            Some(bytes) => text(path, &bytes).map(Some),
        }
    }

    /// The names in the folder of `path` that are near its own.
    pub(super) fn near(&self, path: &str) -> Option<String> {
        let (folder, name) = path.rsplit_once('/')?;
        let entries = self.list(folder).ok()?;
        let names = entries.iter().filter(|entry| entry.kind == EntryKind::File).map(|entry| &*entry.name);
        super::read::closest(name, names).map(|name| format!("{folder}/{name}"))
    }

    /// A store that failed may answer later: what followed from it is not kept.
    pub(super) fn noting<T>(&self, read: Result<T, TreeError>) -> Result<T, TreeError> {
        if let Err(TreeError::Store { .. }) = &read {
            self.unsure.set(true);
        }
        read
    }
}

/// Reads a file as text.
pub(super) fn source(tree: &dyn Tree, path: &str, limit: usize) -> Result<Option<Arc<Source>>, Diagnostics> {
    match tree.read(path, limit).map_err(|error| refused(path, &error))? {
        None => Ok(None),
        Some(bytes) => text(path, &bytes).map(Some),
    }
}

/// The bytes of a file as text.
pub(super) fn text(path: &str, bytes: &[u8]) -> Result<Arc<Source>, Diagnostics> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(path, text)),
        Err(error) => {
            let lines = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
            let line = u32::try_from(lines).unwrap_or(u32::MAX);
            let origin = Origin { file: path.into(), line, column: 0 };
            Err(Diagnostic::error(origin, "the file is not UTF-8 text").hint("save it as UTF-8").into())
        }
    }
}

/// What a tree refused, as an error of the file.
pub(super) fn refused(path: &str, error: &TreeError) -> Diagnostics {
    Diagnostic::error(Origin::file(path.escape_debug().to_string()), error.to_string()).into()
}

/// The folder of an agent.
pub(super) fn folder(agent: &AgentName) -> String {
    format!("agents/{agent}")
}
