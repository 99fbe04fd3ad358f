//! What was read before, by the content of everything that was looked at.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::agent::{self, Resolved};
use super::artifact::Known;
use super::layer::{Layer, Reader};
use super::{ImagePolicy, TargetKind};
use crate::model::{AgentName, Diagnostics, EnvironmentName};
use crate::source::ContentId;

/// Artifacts that are remembered.
const ARTIFACTS: usize = 256;

/// Remembers what the agents of each environment were read as.
///
/// An entry holds what stood at every path that was looked at, absent ones included. While all of that stands there
/// still, the agent is not read again.
#[derive(Debug, Default)]
pub struct Cache {
    environments: HashMap<EnvironmentName, HashMap<AgentName, Entry>>,
    /// By the object that they are: a changed prompt is no reason to hash an artifact again.
    artifacts: RefCell<HashMap<ContentId, Known>>,
    parsed: u64,
    reused: u64,
}

#[derive(Debug)]
struct Entry {
    images: ImagePolicy,
    target: Option<TargetKind>,
    /// The agent's whole folder.
    folder: Option<ContentId>,
    /// The whole of `shared/`.
    shared: Option<ContentId>,
    /// What stood at each path, without those beneath the two.
    elsewhere: Vec<(Arc<str>, Option<ContentId>)>,
    in_folder: Vec<(Arc<str>, Option<ContentId>)>,
    in_shared: Vec<(Arc<str>, Option<ContentId>)>,
    result: Result<Arc<Resolved>, Diagnostics>,
}

// === impl Cache ===

impl Cache {
    /// How many agents were read since this was made.
    pub fn parsed(&self) -> u64 {
        self.parsed
    }

    /// How many agents were known already.
    pub fn reused(&self) -> u64 {
        self.reused
    }

    /// The agent as it stands in `layer`, read only when something that it was made of has changed.
    pub(super) fn agent(
        &mut self,
        layer: &Layer<'_>,
        name: &AgentName,
        images: ImagePolicy,
        target: Option<TargetKind>,
    ) -> Result<Arc<Resolved>, Diagnostics> {
        let environment = layer.environment.clone();
        let known = environment.as_ref().and_then(|environment| self.environments.get_mut(environment)?.get_mut(name));
        if let Some(entry) = known
            && entry.images == images
            && entry.target == target
            && entry.holds(layer, name)
        {
            self.reused += 1;
            return entry.result.clone();
        }
        self.parsed += 1;
        if self.artifacts.borrow().len() > ARTIFACTS {
            self.artifacts.borrow_mut().clear();
        }
        let reader = Reader::new(layer, name, &self.artifacts);
        let result = agent::read(&reader, name, images, target).map(Arc::new);
        let Some(environment) = environment else { return result };
        let entries = self.environments.entry(environment).or_default();
        match Entry::of(reader, name, images, target, result.clone()) {
            Some(entry) => entries.insert(name.clone(), entry),
            None => entries.remove(name),
        };
        result
    }

    /// Drops the agents of an environment that are not there any more.
    pub(super) fn forget_others(&mut self, environment: &EnvironmentName, keep: impl Fn(&AgentName) -> bool) {
        if let Some(entries) = self.environments.get_mut(environment) {
            entries.retain(|name, _| keep(name));
        }
    }
}

// === impl Entry ===

impl Entry {
    fn of(
        reader: Reader<'_>,
        name: &AgentName,
        images: ImagePolicy,
        target: Option<TargetKind>,
        result: Result<Arc<Resolved>, Diagnostics>,
    ) -> Option<Self> {
        if reader.unsure.get() {
            return None;
        }
        let layer = reader.layer;
        let folder = layer.id(&folder(name)).ok()?;
        let shared = layer.id("shared").ok()?;
        let prefix = format!("{}/", self::folder(name));
        let (in_folder, others): (Vec<_>, Vec<_>) =
            reader.consulted.into_inner().into_iter().partition(|(path, _)| path.starts_with(&prefix));
        let (in_shared, elsewhere) = others.into_iter().partition(|(path, _)| path.starts_with("shared/"));
        Some(Self { images, target, folder, shared, elsewhere, in_folder, in_shared, result })
    }

    /// Whether everything that the agent was made of stands in `layer` as it did; where it does, the entry is up to date.
    fn holds(&mut self, layer: &Layer<'_>, name: &AgentName) -> bool {
        let same = |paths: &[(Arc<str>, Option<ContentId>)]| {
            paths.iter().all(|(path, id)| layer.id(path).is_ok_and(|now| now == *id))
        };
        let (Ok(folder), Ok(shared)) = (layer.id(&self::folder(name)), layer.id("shared")) else { return false };
        let holds = same(&self.elsewhere)
            && (folder == self.folder || same(&self.in_folder))
            && (shared == self.shared || same(&self.in_shared));
        if holds {
            (self.folder, self.shared) = (folder, shared);
        }
        holds
    }
}

fn folder(name: &AgentName) -> String {
    super::layer::folder(name)
}
