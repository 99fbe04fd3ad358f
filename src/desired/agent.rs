//! One agent: its file, the defaults beneath, the overlay above, and all that it names.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::layer::{self, Reader};
use super::models::Retirement;
use super::read::{Field, Kind, MAX_NODES, Map, Node, Source, Spot, check, list_of, one_document, parse_json, patch};
use super::written::{self, Variables};
use super::{
    Artifact, Code, FORMAT, HostSettings, ImagePolicy, Memory, MigrationRef, Release, ReleaseSpec, Rolling,
    RolloutSpec, Route, Settings, TargetKind, host, manifests, models, prompts, rollout, route, secrets, tools,
    undelivered, workload,
};
use crate::model::{AgentName, Diagnostic, Diagnostics, Digest, ObjectRef, Origin};
use crate::{flag, migration};

/// Bytes that the files of one release may have together, so that they fit into one ConfigMap.
const MAX_RELEASE: usize = 900 * 1024;
/// Objects of one agent, those that Backstay makes included.
const MAX_OBJECTS: usize = 64;
/// Bytes of memory that a byte of JSON becomes, as values, at most.
const VALUES: usize = 8;
/// Errors that are listed for one agent; more would not be read.
const MAX_ERRORS: usize = 50;
/// Files that do not exist and are looked for under another name.
const MAX_HINTS: usize = 5;
/// Old releases whose ConfigMaps are kept, where nothing is said.
const HISTORY: u32 = 10;
/// How long a release may take to become healthy, where nothing is said.
const PROGRESS_DEADLINE: Duration = Duration::from_mins(10);

/// What one agent's files say, apart from the time and from other agents.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) release: Arc<Release>,
    pub(super) settings: Arc<Settings>,
    pub(super) renamed_from: Option<(AgentName, Place)>,
    pub(super) depends_on: Vec<(AgentName, Place)>,
    /// Objects that Backstay makes for it, by their names.
    pub(super) generated: Vec<ObjectRef>,
    pub(super) origin: Origin,
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) retirements: Vec<Retirement>,
    /// About how many bytes of memory it takes.
    pub(super) weight: usize,
}

/// A place that outlives the text it is in.
#[derive(Debug, Clone)]
pub(super) struct Place(Diagnostic);

/// What is known while one agent is read, and what was found wrong with it.
pub(super) struct Context<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) name: &'a AgentName,
    pub(super) images: ImagePolicy,
    pub(super) target: Option<TargetKind>,
    /// How a new release gets the traffic.
    rollout: Option<RolloutSpec>,
    pub(super) has_code_image: bool,
    catalogue: OnceCell<Result<Node, Diagnostics>>,
    /// Values of the catalogue that may still be copied into the agent: many uses can stand for one entry.
    copies: Cell<usize>,
    found: RefCell<Vec<Diagnostic>>,
    warnings: RefCell<Vec<Diagnostic>>,
}

/// Reads one agent.
///
/// # Errors
///
/// All that is wrong with its files.
pub(super) fn read(
    reader: &Reader<'_>,
    name: &AgentName,
    images: ImagePolicy,
    target: Option<TargetKind>,
) -> Result<Resolved, Diagnostics> {
    let whole = merged(reader, name)?;
    let mut found = check(written::agent(), &whole).0;
    let origin = Origin::file(format!("{}/agent.yaml", layer::folder(name)));
    // What the schema refuses cannot be read; all else is told together.
    let declared: Option<written::Agent> = if found.is_empty() {
        let read = serde_json::from_value(whole.to_value());
        let read =
            read.map_err(|error| Diagnostic::error(origin.clone(), format!("the agent cannot be read: {error}")))?;
        Some(read)
    } else {
        None
    };
    let rollout = declared
        .as_ref()
        .zip(whole.get("spec"))
        .and_then(|(declared, spec)| rollout::read(&declared.spec, spec, rollout::Facts { target }, &mut found));
    if let Some(spec) = whole.get("spec") {
        undelivered::refuse_agent(spec, target, &mut found);
        secrets::add(&mut found, |plain| secrets::refuse_in_spec(spec, plain));
    }
    let Some(declared) = declared.filter(|_| found.is_empty()) else { return Err(sorted(found)) };
    let context = Context {
        reader,
        name,
        images,
        target,
        rollout,
        has_code_image: declared.spec.code.image.is_some(),
        catalogue: OnceCell::new(),
        copies: Cell::new(MAX_NODES),
        found: RefCell::default(),
        warnings: RefCell::default(),
    };
    if declared.metadata.name != *name {
        let spot = whole.nearest(["metadata", "name"]);
        let error = spot.error(format!("the agent calls itself `{}`, its folder `{name}`", declared.metadata.name));
        context.error(error.hint(format!("write `name: {name}`; `renamedFrom` names what it was called before")));
    }
    let resolved = context.resolve(declared, &whole, origin);
    let found = context.found.into_inner();
    match resolved {
        Some(mut resolved) if found.is_empty() => {
            resolved.warnings = context.warnings.into_inner();
            Ok(resolved)
        }
        _ => Err(sorted(found)),
    }
}

/// `agent.yaml`, with the defaults beneath its `spec` and the overlay above it.
fn merged(reader: &Reader<'_>, name: &AgentName) -> Result<Node, Diagnostics> {
    let folder = layer::folder(name);
    let path = format!("{folder}/agent.yaml");
    let overlay_path =
        reader.layer.environment.as_ref().map(|environment| format!("environments/{environment}/{name}.yaml"));
    reader.consult("backstay.yaml").map_err(|error| layer::refused("backstay.yaml", &error))?;
    let base = reader.source(&path).and_then(|source| match source {
        Some(source) => one_document(&source),
        None => {
            let error = Diagnostic::error(Origin::file(&*folder), "the folder has no `agent.yaml`");
            Err(error.hint("write one, or take the folder away: then the agent is removed").into())
        }
    });
    let overlay = match &overlay_path {
        Some(path) => reader.source(path).and_then(|source| match source {
            Some(source) => overlay(&source).map(Some),
            None => Ok(None),
        }),
        None => Ok(None),
    };
    let (base, overlay) = match (base, overlay) {
        (Ok(base), Ok(overlay)) => (base, overlay),
        (base, overlay) => {
            let errors = [base.err(), overlay.err()].into_iter().flatten();
            return Err(Diagnostics(errors.flat_map(|errors| errors.0).collect()));
        }
    };
    let Node { spot, kind: Kind::Map(Map(fields)) } = base else { return Ok(base) };
    let fields = fields.into_iter().map(|field| {
        if field.key != "spec" || field.value.map().is_none() {
            return Ok(field);
        }
        let spec = reader.layer.defaults(field.value)?;
        let value = match &overlay {
            Some(overlay) => patch(spec, overlay),
            None => spec,
        };
        Ok(Field { value, ..field })
    });
    let fields = fields.collect::<Result<Vec<_>, Diagnostics>>()?;
    Ok(Node { spot, kind: Kind::Map(Map(fields)) })
}

/// An overlay is a patch over the `spec`, without the rest.
fn overlay(source: &Arc<Source>) -> Result<Node, Diagnostics> {
    let node = one_document(source)?;
    if node.map().is_none() {
        return Err(node.spot.error(format!("an overlay is a map, this is {}", node.word())).into());
    }
    let whole = ["apiVersion", "kind", "metadata", "spec"];
    let found: Vec<_> = node
        .fields()
        .iter()
        .filter(|field| whole.contains(&&*field.key))
        .map(|field| {
            let error = field.spot.error(format!("unknown field `{}` in an overlay", field.key));
            error.hint("an overlay holds the fields of the agent's `spec` directly: `replicas: 3`")
        })
        .collect();
    if found.is_empty() { Ok(node) } else { Err(Diagnostics(found)) }
}

/// In the order of files, lines and columns.
pub(super) fn sorted(mut found: Vec<Diagnostic>) -> Diagnostics {
    found.sort_by(|a, b| (a.severity, &a.origin, &a.message).cmp(&(b.severity, &b.origin, &b.message)));
    found.dedup();
    Diagnostics(found)
}

// === impl Place ===

impl Place {
    pub(super) fn of(spot: &Spot) -> Self {
        Self(spot.error(""))
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic { message: message.into(), ..self.0.clone() }
    }

    /// The same place, for a whole object.
    pub(super) fn at(origin: Origin) -> Self {
        Self(Diagnostic::error(origin, ""))
    }
}

// === impl Context ===

impl Context<'_> {
    pub(super) fn error(&self, error: Diagnostic) {
        if !self.has_enough() {
            self.found.borrow_mut().push(error);
        }
    }

    pub(super) fn errors(&self, errors: Diagnostics) {
        errors.0.into_iter().for_each(|error| self.error(error));
    }

    /// Whether an entry of the catalogue may be copied into the agent once more; an error at `spot` where not.
    pub(super) fn may_copy(&self, entry: &Node, spot: &Spot) -> bool {
        let left = self.copies.get().checked_sub(entry.count());
        self.copies.set(left.unwrap_or_default());
        if left.is_none() {
            self.error(spot.error(format!("the models that are used hold more than {MAX_NODES} values together")));
        }
        left.is_some()
    }

    /// Whether so much is wrong that more would not be read: nothing is worked out for it then.
    pub(super) fn has_enough(&self) -> bool {
        self.found.borrow().len() >= MAX_ERRORS
    }

    pub(super) fn warn(&self, warning: Diagnostic) {
        self.warnings.borrow_mut().push(warning);
    }

    pub(super) fn folder(&self) -> String {
        layer::folder(self.name)
    }

    /// A path as it is written, from the root of the repository.
    pub(super) fn path(&self, written: &str) -> String {
        match written.strip_prefix('/') {
            Some(from_root) => from_root.to_owned(),
            None => format!("{}/{written}", self.folder()),
        }
    }

    /// The text of a file that is named at `spot`; an error there where there is none.
    pub(super) fn file(&self, written: &str, spot: &Spot) -> Option<Arc<Source>> {
        if self.has_enough() {
            return None;
        }
        let path = self.path(written);
        match self.reader.bytes(&path) {
            Err(error) => {
                self.error(spot.error(error.to_string()));
                None
            }
            Ok(None) => {
                let error = spot.error(format!("`{path}` does not exist"));
                // The folder is compared name by name: for some, not for all.
                let near = if self.found.borrow().len() < MAX_HINTS { self.reader.near(&path) } else { None };
                self.error(match near {
                    Some(near) => error.hint(format!("did you mean `{}`?", self.as_written(&near, written))),
                    None if written.starts_with('/') => error.hint("a leading `/` is the root of the repository"),
                    None => error.hint(format!(
                        "paths are from `{}`; a leading `/` is the root of the repository",
                        self.folder()
                    )),
                });
                None
            }
            Ok(Some(bytes)) => match layer::text(&path, &bytes) {
                Ok(source) => Some(source),
                Err(errors) => {
                    self.errors(errors);
                    None
                }
            },
        }
    }

    /// A path from the root, in the manner of `like`.
    fn as_written(&self, path: &str, like: &str) -> String {
        if like.starts_with('/') {
            format!("/{path}")
        } else {
            path.strip_prefix(&format!("{}/", self.folder())).unwrap_or(path).to_owned()
        }
    }

    /// The catalogue of models, noted as read.
    pub(super) fn catalogue(&self) -> Result<&Node, Diagnostics> {
        let read = self.catalogue.get_or_init(|| {
            self.consult("shared/models.yaml")?;
            if let Some(environment) = &self.reader.layer.environment {
                self.consult(&format!("environments/{environment}/models.yaml"))?;
            }
            self.reader.layer.catalogue().cloned()
        });
        read.as_ref().map_err(Clone::clone)
    }

    /// The environment's variables, noted as read.
    pub(super) fn variables(&self) -> Result<Variables, Diagnostics> {
        if let Some(environment) = &self.reader.layer.environment {
            self.consult(&format!("environments/{environment}/variables.yaml"))?;
        }
        let node = self.reader.layer.variables()?;
        let read = serde_json::from_value(node.to_value());
        read.map_err(|error| node.spot.error(format!("the variables cannot be read: {error}")).into())
    }

    fn consult(&self, path: &str) -> Result<(), Diagnostics> {
        self.reader.consult(path).map(drop).map_err(|error| layer::refused(path, &error))
    }

    #[expect(clippy::needless_pass_by_value, reason = "what was written ends here: only what was read goes on")]
    fn resolve(&self, declared: written::Agent, whole: &Node, origin: Origin) -> Option<Resolved> {
        let empty = Node::empty(whole.spot.clone());
        let at = whole.get("spec").unwrap_or(&empty);
        let part = |key: &str| at.get(key).unwrap_or(&empty);
        let spec = &declared.spec;
        let prompts = prompts::read(self, &named(&spec.prompts), part("prompts"));
        let (models, retirements) = models::read(self, &named(&spec.models), part("models"));
        let tools = tools::read(self, &named(&spec.tools), part("tools"));
        let memory = spec.memory.as_ref().map(|memory| self.memory(memory, at));
        let (workload, foreign) = workload::read(self, spec, at);
        let workers = workload::workers(&spec.workers.0);
        self.names_fit(spec, at);
        let host = host::read(self, spec, at);
        let route = route::read(self, spec, at);
        let settings = self.settings(spec, at, foreign, host, route);
        let generated = self.generated(spec, &settings, at);
        if !self.found.borrow().is_empty() {
            return None;
        }
        let release = ReleaseSpec {
            format: FORMAT,
            code: Code {
                image: spec.code.image.as_ref().map(|image| image.0.clone()),
                artifact: settings.host.artifact.as_ref().map(|origin| Artifact { sha256: origin.sha256 }),
                command: spec.code.command.clone(),
            },
            prompts: prompts.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes))).collect(),
            models,
            tools,
            memory,
            config: spec.config.clone().map(Value::Object),
            workload,
            workers,
        };
        let release = match Release::new(release, prompts) {
            Ok(release) => release,
            Err(error) => {
                self.error(Diagnostic::error(origin, error.to_string()));
                return None;
            }
        };
        let files = self.fits(&release, &origin);
        let manifests: usize = settings.manifests.iter().map(|manifest| manifest.body.to_string().len()).sum();
        let places =
            |key: &str| at.get(key).and_then(Node::list).unwrap_or_default().iter().map(|item| Place::of(&item.spot));
        let renamed = whole.nearest(["metadata", "renamedFrom"]);
        Some(Resolved {
            release: Arc::new(release),
            renamed_from: declared.metadata.renamed_from.clone().map(|name| (name, Place::of(renamed))),
            depends_on: settings.depends_on.iter().cloned().zip(places("dependsOn")).collect(),
            settings: Arc::new(settings),
            weight: files + manifests * VALUES,
            generated,
            origin,
            warnings: vec![],
            retirements,
        })
    }

    fn memory(&self, memory: &written::Memory, at: &Node) -> Memory {
        let database = memory.database.clone().into();
        let Some(path) = &memory.migrations else { return Memory { database, migrations: vec![] } };
        let spot = at.nearest(["memory", "migrations"]);
        let folder = self.path(&path.0);
        let entries = match self.reader.list(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.error(spot.error(error.to_string()));
                return Memory { database, migrations: vec![] };
            }
        };
        if entries.is_empty() {
            let error = spot.error(format!("the folder `{folder}` does not exist or is empty"));
            self.error(error.hint("take `migrations` away while there are none"));
        }
        let mut files = vec![];
        for entry in &entries {
            match self.reader.bytes(&format!("{folder}/{}", entry.name)) {
                Ok(Some(bytes)) => files.push((&*entry.name, bytes)),
                Ok(None) => {}
                Err(error) => self.error(spot.error(error.to_string())),
            }
            if self.reader.is_spent() {
                return Memory { database, migrations: vec![] };
            }
        }
        match migration::chain(files.iter().map(|(name, bytes)| (*name, &**bytes))) {
            Ok(chain) => {
                if !chain.is_empty() {
                    let warning = spot.warning("migrations are checked but not yet delivered");
                    self.warn(warning.hint("run them by hand for now"));
                }
                let reference = |migration: migration::Migration| MigrationRef {
                    up: migration.up_digest(),
                    down: migration.down_digest(),
                    verify: migration.verify_digest(),
                    name: migration.name,
                };
                Memory { database, migrations: chain.into_iter().map(reference).collect() }
            }
            Err(problems) => {
                for problem in problems {
                    let error = Diagnostic::error(Origin::file(format!("{folder}/{}", problem.file)), problem.message);
                    self.error(match problem.hint {
                        Some(hint) => error.hint(hint),
                        None => error,
                    });
                }
                Memory { database, migrations: vec![] }
            }
        }
    }

    /// An agent's and a worker's name make the names of objects together.
    fn names_fit(&self, spec: &written::AgentSpec, at: &Node) {
        for worker in spec.workers.0.keys() {
            let together = self.name.as_str().len() + worker.as_str().len();
            if together > crate::model::MAX_AGENT_AND_WORKER {
                let most = crate::model::MAX_AGENT_AND_WORKER;
                let spot =
                    at.get("workers").and_then(|workers| workers.field(worker.as_str())).map(|field| &field.spot);
                let message =
                    format!("`{}` and `{worker}` have {together} characters together, {most} are allowed", self.name);
                self.error(spot.unwrap_or(&at.spot).error(message));
            }
        }
    }

    fn settings(
        &self,
        spec: &written::AgentSpec,
        at: &Node,
        foreign: workload::Foreign,
        host: HostSettings,
        route: Option<Route>,
    ) -> Settings {
        let count = |value: &Option<written::CountOrShare>| {
            value.as_ref().map(|value| match value {
                written::CountOrShare::Count(count) => json!(count),
                written::CountOrShare::Share(share) => json!(share.0),
            })
        };
        let default = Rolling::default();
        let rolling = spec.rolling.as_ref().map_or(default.clone(), |rolling| Rolling {
            max_surge: count(&rolling.max_surge).unwrap_or(default.max_surge),
            max_unavailable: count(&rolling.max_unavailable).unwrap_or(default.max_unavailable),
        });
        let none = |value: &Value| *value == json!(0) || *value == json!("0%");
        if none(&rolling.max_surge) && none(&rolling.max_unavailable) {
            let error =
                at.nearest(["rolling"]).error("with `maxSurge` and `maxUnavailable` both 0 no pod could be replaced");
            self.error(error.hint("`{maxSurge: 1, maxUnavailable: 0}` keeps all pods serving"));
        }
        if let Some(autoscaling) = &spec.autoscaling
            && autoscaling.min_replicas.is_some_and(|least| least > autoscaling.max_replicas)
        {
            let spot = at.nearest(["autoscaling", "minReplicas"]);
            self.error(spot.error("`minReplicas` is more than `maxReplicas`"));
        }
        if let Some(position) = spec.depends_on.iter().position(|other| other == self.name) {
            let spot = at.nearest(["dependsOn", &position.to_string()]);
            self.error(spot.error(format!("`{}` cannot wait for itself", self.name)));
        }
        let value = |key: &str| at.get(key).map(Node::to_value);
        let settings = Settings {
            digest: Digest::of(b""),
            replicas: spec.replicas.or(foreign.replicas),
            worker_replicas: spec
                .workers
                .0
                .iter()
                .filter_map(|(name, worker)| Some((name.clone(), worker.replicas?)))
                .collect(),
            history: spec.history.unwrap_or(HISTORY),
            progress_deadline: spec.progress_deadline.as_ref().map_or(PROGRESS_DEADLINE, super::read::Period::duration),
            rolling,
            disruption_budget: value("disruptionBudget"),
            depends_on: spec.depends_on.clone(),
            autoscaling: value("autoscaling"),
            deployment: foreign.deployment,
            manifests: manifests::read(self),
            flags: self.flags(),
            route,
            host,
            rollout: self.rollout.clone(),
        };
        host::inert(self, &settings.manifests);
        if settings.progress_deadline < Duration::from_secs(1) {
            self.error(at.nearest(["progressDeadline"]).error("the deadline is less than a second"));
        }
        settings.clone().named().unwrap_or_else(|error| {
            self.error(at.spot.error(error.to_string()));
            settings
        })
    }

    fn flags(&self) -> Option<Value> {
        let path = format!("{}/flags.json", self.folder());
        let node =
            match self.reader.source(&path).and_then(|source| source.map(|source| parse_json(&source)).transpose()) {
                Ok(node) => node?,
                Err(errors) => {
                    self.errors(errors);
                    return None;
                }
            };
        let mut plain = vec![];
        secrets::refuse(&node, false, &mut plain);
        plain.into_iter().for_each(|error| self.error(error));
        let value = node.to_value();
        match flag::parse(&value) {
            Ok(_) => {
                let warning = Diagnostic::warning(Origin::file(&*path), "flags are checked but not yet delivered");
                self.warn(warning.hint("serve them with flagd for now"));
                Some(value)
            }
            Err(problems) => {
                for problem in problems {
                    let error = node.nearest(problem.path.iter().map(String::as_str)).error(problem.message);
                    self.error(match problem.hint {
                        Some(hint) => error.hint(hint),
                        None => error,
                    });
                }
                None
            }
        }
    }

    /// The objects that Backstay makes for the agent, and that none of its own may be.
    fn generated(&self, spec: &written::AgentSpec, settings: &Settings, at: &Node) -> Vec<ObjectRef> {
        let name = self.name.as_str();
        let account = spec.workload.service_account.as_ref().map(|account| account.0.as_str());
        let object = |group: &str, kind: &str, name: &str| ObjectRef {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        let mut generated = vec![object("apps", "Deployment", name)];
        generated
            .extend(spec.workers.0.keys().map(|worker| object("apps", "Deployment", &format!("{name}--{worker}"))));
        if spec.workload.port.is_some() {
            generated.push(object("", "Service", name));
            generated.push(object("", "Service", &format!("{name}--rolling")));
        }
        generated.extend(account.map(|account| object("", "ServiceAccount", account)));
        if spec.autoscaling.is_some() {
            generated.push(object("autoscaling", "HorizontalPodAutoscaler", name));
        }
        if spec.disruption_budget.is_some() {
            generated.push(object("policy", "PodDisruptionBudget", name));
        }
        generated.extend(route::taken(self, spec, settings.route.as_ref()));
        for manifest in settings.manifests.iter().filter(|manifest| generated.contains(&manifest.object)) {
            let error =
                Diagnostic::error(manifest.origin.clone(), format!("Backstay itself makes `{}`", manifest.object));
            self.error(error.hint("give the object another name"));
        }
        // One ConfigMap for the release.
        let all = generated.len() + settings.manifests.len() + 1;
        if all > MAX_OBJECTS {
            let spot = at.nearest(["workers"]);
            let message = format!("the agent has {all} objects, {MAX_OBJECTS} are allowed");
            self.error(spot.error(message).hint("split it into several agents"));
        }
        generated
    }

    /// The files of a release fit into one ConfigMap; gives about how many bytes of memory the release takes.
    fn fits(&self, release: &Release, origin: &Origin) -> usize {
        let files = release.files();
        let total: usize = files.values().map(|bytes| bytes.len()).sum();
        let weight = total + VALUES * files.get("release.json").map_or(0, |bytes| bytes.len());
        if total <= MAX_RELEASE {
            return weight;
        }
        let largest = files.iter().max_by_key(|(_, bytes)| bytes.len());
        let (path, bytes) = largest.map_or(("", 0), |(path, bytes)| (path.as_str(), bytes.len()));
        let message = format!("the files of the release have {total} bytes together, {MAX_RELEASE} are allowed");
        let error = Diagnostic::error(origin.clone(), message);
        self.error(error.hint(format!("the largest is `{path}` with {bytes} bytes")));
        weight
    }
}

/// By plain names.
fn named<V: Clone>(map: &written::Keyed<super::read::ComponentName, V>) -> BTreeMap<String, V> {
    map.0.iter().map(|(name, value)| (name.0.clone(), value.clone())).collect()
}

/// `a` and `b`, for messages about several agents.
pub(super) fn names<'a>(names: impl IntoIterator<Item = &'a AgentName>) -> String {
    list_of(names.into_iter().map(AgentName::as_str), "and")
}
