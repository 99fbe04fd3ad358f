//! What changes between two states of an agent, by component, and what of it breaks somebody.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::canonical::Containment;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DesiredAgent, Release, Settings};

/// A part of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    /// Image, artifact, command.
    Code,
    /// Prompts.
    Prompts,
    /// Models.
    Models,
    /// MCP tools.
    Tools,
    /// Database and migrations.
    Memory,
    /// The agent's own settings.
    Config,
    /// How its processes are run.
    Workload,
    /// What is not part of the release.
    Settings,
}

/// What happened to one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is new.
    Added,
    /// It is another one.
    Changed,
    /// It is gone.
    Removed,
}

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// Of which component.
    pub component: Component,
    /// Its name in there: a prompt's, a tool's, a field's.
    pub name: String,
    /// What happens to it.
    pub kind: Kind,
}

/// Somebody who relied on what was there may fail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Break {
    /// Of which component.
    pub component: Component,
    /// What: a tool's or a migration's name.
    pub name: String,
    /// How, in one sentence without a full stop.
    pub why: String,
    /// Whether it is sure. What cannot be decided needs a person's approval.
    pub certain: bool,
}

/// All that changes between two states of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentChanges {
    /// By component and name.
    pub changes: BTreeSet<Change>,
    /// What of it breaks somebody.
    pub breaks: BTreeSet<Break>,
}

/// Compares two states of one agent.
///
/// Compatibility of tools has a direction: what goes in may only be loosened, what comes out only be tightened. While a
/// canary runs, both releases call one server, so both count. What cannot be decided counts as a break that is not certain.
pub fn compare(old: &DesiredAgent, new: &DesiredAgent) -> ComponentChanges {
    let mut all = ComponentChanges::default();
    all.release(&old.release, &new.release);
    all.settings(&old.settings, &new.settings);
    all
}

// === impl ComponentChanges ===

impl ComponentChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The components that change.
    pub fn components(&self) -> BTreeSet<Component> {
        self.changes.iter().map(|change| change.component).collect()
    }

    /// Whether there is a new release, and not only other settings.
    pub fn is_release(&self) -> bool {
        self.changes.iter().any(|change| change.component != Component::Settings)
    }

    fn release(&mut self, old: &Release, new: &Release) {
        let (old, new) = (&old.spec, &new.spec);
        self.fields(Component::Code, &old.code, &new.code);
        self.maps(Component::Prompts, &old.prompts, &new.prompts);
        self.maps(Component::Models, &old.models, &new.models);
        self.maps(Component::Tools, &old.tools, &new.tools);
        self.fields(Component::Memory, &old.memory, &new.memory);
        self.fields(Component::Config, &old.config, &new.config);
        self.fields(Component::Workload, &old.workload, &new.workload);
        let named = |workers: &BTreeMap<crate::model::WorkerName, super::Worker>| {
            workers.iter().map(|(name, worker)| (format!("workers.{name}"), worker.clone())).collect::<BTreeMap<_, _>>()
        };
        self.maps(Component::Workload, &named(&old.workers), &named(&new.workers));
        for (name, tool) in &old.tools {
            match new.tools.get(name) {
                None => self.broken(Component::Tools, name, "the tool is removed".to_owned(), true),
                Some(other) => self.tool(name, tool, other),
            }
        }
        let migrations = |memory: &Option<super::Memory>| {
            memory
                .iter()
                .flat_map(|memory| &memory.migrations)
                .map(|migration| (migration.name.clone(), migration.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let (before, after) = (migrations(&old.memory), migrations(&new.memory));
        for (name, migration) in &before {
            match after.get(name) {
                None => self.broken(Component::Memory, name, "the migration is taken back".to_owned(), false),
                Some(other) if other.up != migration.up => {
                    self.broken(
                        Component::Memory,
                        name,
                        "the migration was applied already, and is another one now".to_owned(),
                        true,
                    );
                }
                Some(_) => {}
            }
        }
        for (name, migration) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            if migration.down.is_none() {
                self.broken(Component::Memory, name, "the migration has no way back".to_owned(), true);
            }
        }
    }

    fn settings(&mut self, old: &Settings, new: &Settings) {
        if old.digest == new.digest {
            return;
        }
        self.fields(Component::Settings, &fields_of(old), &fields_of(new));
        let manifests = |settings: &Settings| -> BTreeMap<String, Value> {
            settings.manifests.iter().map(|manifest| (manifest.object.to_string(), (*manifest.body).clone())).collect()
        };
        self.maps(Component::Settings, &manifests(old), &manifests(new));
    }

    fn maps<V: PartialEq>(&mut self, component: Component, old: &BTreeMap<String, V>, new: &BTreeMap<String, V>) {
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        for name in names {
            let kind = match (old.get(name), new.get(name)) {
                (None, Some(_)) => Kind::Added,
                (Some(_), None) => Kind::Removed,
                (Some(old), Some(new)) if old != new => Kind::Changed,
                _ => continue,
            };
            self.changes.insert(Change { component, name: name.clone(), kind });
        }
    }

    fn fields(&mut self, component: Component, old: &impl Serialize, new: &impl Serialize) {
        let fields = |value: Value| match value {
            Value::Object(fields) => fields.into_iter().collect(),
            Value::Null => BTreeMap::new(),
            other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                BTreeMap::from([(String::new(), other)])
            }
        };
        let value = |result: Result<Value, serde_json::Error>| fields(result.unwrap_or_default());
        self.maps(component, &value(serde_json::to_value(old)), &value(serde_json::to_value(new)));
    }

    fn broken(&mut self, component: Component, name: &str, why: String, certain: bool) {
        self.breaks.insert(Break { component, name: name.to_owned(), why, certain });
    }

    fn tool(&mut self, name: &str, old: &Value, new: &Value) {
        if old == new {
            return;
        }
        let anything = Value::Bool(true);
        let schema = |tool: &Value, key: &str| tool.get(key).cloned().unwrap_or_else(|| anything.clone());
        let mut say = |what: &str, answer: Containment| match answer {
            Containment::Yes => {}
            Containment::No => self.broken(Component::Tools, name, format!("its {what}"), true),
            Containment::Unknown => {
                self.broken(Component::Tools, name, format!("it cannot be decided whether its {what}"), false);
            }
        };
        let (before, after) = (schema(old, "inputSchema"), schema(new, "inputSchema"));
        say("input takes less than before", covers(&after, &before));
        let (before, after) = (schema(old, "outputSchema"), schema(new, "outputSchema"));
        say("output gives more than before", covers(&before, &after));
    }
}

/// Whether `wide` takes everything that `narrow` takes.
fn covers(wide: &Value, narrow: &Value) -> Containment {
    if wide == narrow || *wide == Value::Bool(true) {
        return Containment::Yes;
    }
    let read = |schema: &Value| {
        let options = jsonschema::canonical::options().offline().with_draft(jsonschema::Draft::Draft202012);
        options.with_pattern_options(jsonschema::PatternOptions::regex()).canonicalize(schema)
    };
    match (read(wide), read(narrow)) {
        (Ok(wide), Ok(narrow)) => wide.covers(&narrow).unwrap_or(Containment::Unknown),
        _ => Containment::Unknown,
    }
}

fn fields_of(settings: &Settings) -> BTreeMap<&'static str, Value> {
    let mut fields = BTreeMap::from([
        ("history", serde_json::json!(settings.history)),
        ("progressDeadline", serde_json::json!(settings.progress_deadline.as_secs_f64())),
        ("rolling", serde_json::json!(settings.rolling)),
        ("dependsOn", serde_json::json!(settings.depends_on)),
    ]);
    let optional = [
        ("replicas", settings.replicas.map(Value::from)),
        ("disruptionBudget", settings.disruption_budget.clone()),
        ("autoscaling", settings.autoscaling.clone()),
        ("deployment", settings.deployment.clone()),
        ("flags", settings.flags.clone()),
        ("workers", (!settings.worker_replicas.is_empty()).then(|| serde_json::json!(settings.worker_replicas))),
    ];
    fields.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?))));
    fields
}
