//! The objects of an agent beside its pods: files, Deployment, Service, budget, autoscaler, account.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::merge::without_nulls;
use super::names::{
    AGENT_LABEL, ARTIFACT_SOURCE_ANNOTATION, DRAIN_ANNOTATION, INSTALLATION_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL,
    NAME_LABEL, PART_OF_LABEL, RELEASE_ID_ANNOTATION, RELEASE_LABEL, RENDERER_ANNOTATION, ROUTE_ANNOTATION, SET_LABEL,
    applyset_id, base64, config_map_name, deployment_name, service_name,
};
use super::pod::selector;
use super::release::{Identity, RenderError, RenderOptions, RendererVersion, Set};
use crate::desired::{Release, Route, Settings, TargetKind};
use crate::model::{AgentName, Manifest, ObjectRef, Origin, WorkerName};

/// The files of a release together, in bytes.
const FILES_LIMIT: usize = 900 * 1024;
/// Any one object, in bytes of JSON: what an API server takes, with room for what it adds.
const OBJECT_LIMIT: usize = 1024 * 1024;
/// The longest that Kubernetes takes for a deadline in seconds.
const LONGEST: u64 = i32::MAX as u64;

/// Everything that one rendering is made from.
pub(super) struct Context<'a> {
    pub(super) identity: Identity<'a>,
    pub(super) release: &'a Release,
    pub(super) settings: &'a Settings,
    pub(super) renderer: RendererVersion,
    pub(super) set: Set,
    pub(super) options: &'a RenderOptions,
    pub(super) origin: Origin,
}

/// Which labels and annotations an object carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope<'a> {
    /// The agent's.
    Agent,
    /// The release's: known by its id.
    Release,
    /// A process's, of one release.
    Process(Option<&'a WorkerName>),
    /// A set's, whatever its release.
    Set(Option<&'a WorkerName>),
}

// === impl Context ===

impl Context<'_> {
    /// Something in the agent's declaration cannot be rendered.
    pub(super) fn invalid(&self, what: &str, why: impl Into<String>) -> RenderError {
        RenderError::Invalid { what: what.to_owned(), origin: self.origin.clone(), why: why.into(), hint: None }
    }

    /// An object of ours: its identity, labels and annotations, and `fields` beside them.
    fn object(&self, api_version: &str, kind: &str, name: String, scope: Scope<'_>, fields: Value) -> Manifest {
        let mut labels = self.labels();
        let mut annotations = self.annotations();
        if let Scope::Process(worker) | Scope::Set(worker) = scope {
            labels.extend(selector(self, worker));
        }
        if matches!(scope, Scope::Release | Scope::Process(_)) {
            labels.insert(RELEASE_LABEL.to_owned(), json!(self.release.id.short()));
            annotations.insert(RELEASE_ID_ANNOTATION.to_owned(), json!(self.release.id.digest()));
            annotations.insert(RENDERER_ANNOTATION.to_owned(), json!(self.renderer.to_string()));
        }
        let namespace = self.identity.namespace;
        let mut body = Map::from_iter([
            ("apiVersion".to_owned(), json!(api_version)),
            ("kind".to_owned(), json!(kind)),
            (
                "metadata".to_owned(),
                json!({"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}),
            ),
        ]);
        if let Value::Object(fields) = fields {
            body.extend(fields);
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Manifest {
            object: ObjectRef { group: group.to_owned(), kind: kind.to_owned(), namespace: namespace.to_owned(), name },
            body: Arc::new(Value::Object(body)),
            origin: self.origin.clone(),
        }
    }

    /// Whether it is rendered for a machine.
    pub(super) fn is_host(&self) -> bool {
        self.identity.target == TargetKind::Host
    }

    /// The labels of every object.
    pub(super) fn labels(&self) -> Map<String, Value> {
        labels(&self.identity)
    }

    /// The annotations of every object.
    pub(super) fn annotations(&self) -> Map<String, Value> {
        annotations(&self.identity)
    }
}

/// The labels of every object of an agent.
pub(super) fn labels(identity: &Identity<'_>) -> Map<String, Value> {
    Map::from_iter([
        (NAME_LABEL.to_owned(), json!(identity.agent)),
        (MANAGED_BY_LABEL.to_owned(), json!(MANAGED_BY)),
        (AGENT_LABEL.to_owned(), json!(identity.agent)),
        (PART_OF_LABEL.to_owned(), json!(applyset_id(identity.agent, identity.namespace))),
    ])
}

/// The annotations of every object of an agent.
pub(super) fn annotations(identity: &Identity<'_>) -> Map<String, Value> {
    Map::from_iter([(INSTALLATION_ANNOTATION.to_owned(), json!(identity.installation))])
}

/// The key in a ConfigMap of the file at `path`: keys cannot have a `/`.
pub(super) fn config_map_key(path: &str) -> String {
    path.replace('/', ".")
}

/// The immutable ConfigMap with the release's files.
pub(super) fn config_map(context: &Context<'_>) -> Result<Manifest, RenderError> {
    let (mut data, mut binary) = (Map::new(), Map::new());
    let files = context.release.files();
    let total: usize = files.values().map(|bytes| bytes.len()).sum();
    if total > FILES_LIMIT {
        let largest = files.iter().max_by_key(|(_, bytes)| bytes.len());
        let (path, bytes) = largest.map_or(("", 0), |(path, bytes)| (path, bytes.len()));
        let kib = |bytes: usize| bytes.div_ceil(1024);
        let why = format!(
            "its files are {} KiB together, {} KiB are allowed; the largest is `{path}` with {} KiB",
            kib(total),
            kib(FILES_LIMIT),
            kib(bytes)
        );
        let hint = "keep large data out of the release: in the image, or in a store that the agent reads";
        return Err(context.invalid("the release's files", why).with_hint(hint));
    }
    for (path, bytes) in &files {
        let key = config_map_key(path);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if key.len() > 253 || !key.bytes().all(plain) {
            let hint = "use letters, digits, `-`, `_` and `.`, 240 at most";
            return Err(context
                .invalid(&format!("`{}`", path.escape_debug()), "its name cannot be a key of a ConfigMap")
                .with_hint(hint));
        }
        let twice = match std::str::from_utf8(bytes) {
            Ok(text) => data.insert(key.clone(), json!(text)).is_some() || binary.contains_key(&key),
            Err(_) => binary.insert(key.clone(), json!(base64(bytes))).is_some() || data.contains_key(&key),
        };
        if twice {
            return Err(
                context.invalid(&format!("`{path}`"), format!("two files have the key `{key}` in the ConfigMap"))
            );
        }
    }
    let mut fields = json!({"immutable": true, "data": data});
    if !binary.is_empty() {
        fields["binaryData"] = Value::Object(binary);
    }
    let name = config_map_name(context.identity.agent, &context.release.id);
    Ok(context.object("v1", "ConfigMap", name, Scope::Release, fields))
}

/// The ServiceAccount that the pods run as.
pub(super) fn service_account(context: &Context<'_>, name: &str) -> Manifest {
    context.object("v1", "ServiceAccount", name.to_owned(), Scope::Agent, json!({}))
}

/// The Service for callers inside the cluster, and the one of the set for routes; none without a port.
pub(super) fn services(context: &Context<'_>, target_port: Option<&Value>) -> Vec<Manifest> {
    let (Some(port), Some(target)) = (context.release.spec.workload.port, target_port) else { return vec![] };
    let of_set = selector(context, None);
    let mut of_agent = of_set.clone();
    if context.options.all_sets {
        of_agent.remove(SET_LABEL);
    }
    let ports = json!([{"name": "http", "port": port, "protocol": "TCP", "targetPort": target}]);
    let spec = |selector| json!({"spec": {"selector": selector, "ports": ports}});
    let agent = context.identity.agent;
    let set = service_name(agent, context.set, &context.release.id);
    vec![
        on_host(context, context.object("v1", "Service", agent.to_string(), Scope::Agent, spec(of_agent)), routed),
        context.object("v1", "Service", set, Scope::Set(None), spec(of_set)),
    ]
}

/// The Deployment of one process.
pub(super) fn deployment(
    context: &Context<'_>,
    worker: Option<&WorkerName>,
    template: Value,
    replicas: Option<u32>,
    scaled: &[String],
) -> Manifest {
    let Context { identity, release, settings, set, options, .. } = context;
    let name = deployment_name(identity.agent, worker, *set, &release.id);
    let mut spec = match &settings.deployment {
        Some(Value::Object(brought)) if worker.is_none() => brought.clone(),
        _ => Map::new(),
    };
    spec.retain(|key, value| !value.is_null() && !matches!(key.as_str(), "template" | "selector"));
    spec.insert("selector".to_owned(), json!({"matchLabels": selector(context, worker)}));
    spec.insert("template".to_owned(), template);
    let deadline = settings.progress_deadline;
    let seconds = deadline.as_secs() + u64::from(deadline.subsec_nanos() > 0);
    spec.entry("progressDeadlineSeconds").or_insert_with(|| json!(seconds.clamp(1, LONGEST)));
    spec.entry("revisionHistoryLimit").or_insert_with(|| json!(settings.history));
    let strategy = spec.entry("strategy").or_insert_with(|| {
        let rolling = &settings.rolling;
        json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": rolling.max_surge, "maxUnavailable": rolling.max_unavailable},
        })
    });
    if let (Some(surge), Some(strategy)) = (&options.surge, strategy.as_object_mut())
        && strategy.get("type").is_none_or(|kind| kind != "Recreate")
        && let Some(rolling) = strategy.entry("rollingUpdate").or_insert_with(|| json!({})).as_object_mut()
    {
        rolling.insert("maxSurge".to_owned(), json!(surge));
    }
    let autoscaled = scaled.contains(&name) || (worker.is_none() && settings.autoscaling.is_some());
    let forced = options.replicas.filter(|_| worker.is_none());
    match (forced.or(replicas), autoscaled) {
        (_, true) if forced.is_none() => {
            spec.remove("replicas");
        }
        (Some(replicas), _) => {
            spec.insert("replicas".to_owned(), json!(replicas));
        }
        (None, _) => {
            spec.entry("replicas").or_insert_with(|| json!(1));
        }
    }
    let deployment = context.object("apps/v1", "Deployment", name, Scope::Process(worker), json!({"spec": spec}));
    on_host(context, deployment, sourced)
}

/// An object with further annotations, where it is for a host.
fn on_host(
    context: &Context<'_>,
    mut object: Manifest,
    further: fn(&Context<'_>) -> Vec<(&'static str, String)>,
) -> Manifest {
    if context.is_host() {
        let annotations = Arc::make_mut(&mut object.body).pointer_mut("/metadata/annotations");
        if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
            annotations.extend(further(context).into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
        }
    }
    object
}

/// How requests reach the agent, and how those in flight are ended.
fn routed(context: &Context<'_>) -> Vec<(&'static str, String)> {
    ways(context.identity.agent, context.settings)
}

/// How requests reach an agent of a host, and how those in flight are ended, as annotations.
pub(super) fn ways(agent: &AgentName, settings: &Settings) -> Vec<(&'static str, String)> {
    let route = settings.route.clone().unwrap_or_else(|| Route::of(agent));
    let drain = settings.host.drain.unwrap_or_default();
    let drain = json!({"mode": drain.mode, "max": format!("{}s", drain.max)});
    vec![(ROUTE_ANNOTATION, json!(route).to_string()), (DRAIN_ANNOTATION, drain.to_string())]
}

/// Where the artifact of this release comes from; settings that outlived theirs know of another one.
fn sourced(context: &Context<'_>) -> Vec<(&'static str, String)> {
    let artifact = context.release.spec.code.artifact.as_ref();
    let origin = context.settings.host.artifact.as_ref();
    let origin = origin.filter(|origin| artifact.is_some_and(|artifact| artifact.sha256 == origin.sha256));
    origin.map(|origin| (ARTIFACT_SOURCE_ANNOTATION, json!(origin.from).to_string())).into_iter().collect()
}

/// The PodDisruptionBudget, where one is declared.
pub(super) fn disruption_budget(context: &Context<'_>) -> Option<Manifest> {
    let mut spec = without_nulls(context.settings.disruption_budget.as_ref()?);
    spec.as_object_mut()?.insert("selector".to_owned(), json!({"matchLabels": selector(context, None)}));
    let name = deployment_name(context.identity.agent, None, context.set, &context.release.id);
    Some(context.object("policy/v1", "PodDisruptionBudget", name, Scope::Set(None), json!({"spec": spec})))
}

/// The HorizontalPodAutoscaler, where one is declared.
pub(super) fn autoscaler(context: &Context<'_>) -> Option<Manifest> {
    let mut spec = without_nulls(context.settings.autoscaling.as_ref()?);
    let name = deployment_name(context.identity.agent, None, context.set, &context.release.id);
    let fields = spec.as_object_mut()?;
    if let Some(floor) = context.options.floor {
        let number = |key: &str| fields.get(key).and_then(Value::as_u64);
        let least = u64::from(floor).max(number("minReplicas").unwrap_or(1));
        let least = number("maxReplicas").map_or(least, |most| least.min(most));
        fields.insert("minReplicas".to_owned(), json!(least.max(1)));
    }
    // An empty list or map says the same as none, and the server puts its default in its place.
    fields.retain(|_, value| {
        value.as_array().is_none_or(|list| !list.is_empty()) && value.as_object().is_none_or(|map| !map.is_empty())
    });
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
    fields.insert("scaleTargetRef".to_owned(), target);
    Some(context.object("autoscaling/v2", "HorizontalPodAutoscaler", name, Scope::Set(None), json!({"spec": spec})))
}

/// Refuses an object that no API server would keep.
pub(super) fn check_size(manifest: &Manifest) -> Result<(), RenderError> {
    let bytes = serde_json::to_vec(&*manifest.body).map_or(0, |json| json.len());
    // The limit of a ConfigMap is on its values, which are checked where it is made; written as JSON they grow.
    let limit = if manifest.object.kind == "ConfigMap" { OBJECT_LIMIT * 2 } else { OBJECT_LIMIT };
    if bytes <= limit {
        return Ok(());
    }
    Err(RenderError::Invalid {
        what: manifest.object.to_string(),
        origin: manifest.origin.clone(),
        why: format!("it is {} KiB, {} KiB are allowed", bytes.div_ceil(1024), limit / 1024),
        hint: Some("split it".to_owned()),
    })
}
