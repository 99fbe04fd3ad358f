//! The pod template of a process: generated or brought along, with what every agent is given put in.
//!
//! Renderer 1. Beside what is declared it sets, each of which `podTemplate` can change:
//!
//! - `enableServiceLinks: false`: else what a process is given would depend on which Services exist.
//! - `automountServiceAccountToken: false` where no `serviceAccount` is declared: no account, no use for its token.
//! - `seccompProfile: RuntimeDefault` and `allowPrivilegeEscalation: false`. No user and no dropped capabilities, since
//!   images that begin as root would break; declare those.
//! - where there is a port, a `preStop` of five seconds' sleep: a Service sends requests for a moment after a pod began
//!   to end, and for three seconds where the controller of `EndpointSlices` finds twice that its cache is behind (it tries
//!   again after one second, then after two). A `lifecycle` in `podTemplate`, also an empty one, takes its place.
//!
//! For a host no container has an image, and there is no `preStop`; the annotation [`ARTIFACT_ANNOTATION`] names what is
//! run.
//!
//! A template brought along (`workload.manifest`) gets none of these. In both, what Backstay injects is put in last.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::merge::{strategic_merge, without_nulls};
use super::names::{
    AGENT_DIR, AGENT_LABEL, ARTIFACT_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, NAME_LABEL, PROCESS_LABEL,
    RELEASE_ID_ANNOTATION, RELEASE_LABEL, RESERVED_PREFIX, SET_LABEL, config_map_name,
};
use super::object::{Context, config_map_key};
use super::release::RenderError;
use crate::desired::{EnvValue, Health, Probe, Worker};
use crate::model::WorkerName;

/// The container that is generated.
pub(super) const CONTAINER: &str = "agent";
/// The volume with the release's files.
pub(super) const VOLUME: &str = "backstay-agent";
/// Seconds that a pod with a port goes on serving after it was asked to end.
const PRE_STOP_SECONDS: u32 = 5;

/// The pod template of one process, and which of its containers is the agent.
pub(super) struct Template {
    /// `spec.template`.
    pub(super) body: Value,
    /// How a Service finds the port in it: by name where it has one.
    pub(super) target_port: Option<Value>,
}

/// The template of the main process.
pub(super) fn main(context: &Context<'_>) -> Result<Template, RenderError> {
    let workload = &context.release.spec.workload;
    let code = &context.release.spec.code;
    let Some(foreign) = &workload.manifest else {
        let process = Process {
            worker: None,
            command: code.command.as_ref(),
            env: workload.env.clone(),
            resources: workload.resources.as_ref(),
            health: workload.health.as_ref(),
            pod_template: workload.pod_template.as_ref(),
        };
        return process.generate(context);
    };
    let invalid = |why: String| context.invalid("workload.manifest", why);
    let mut body = without_nulls(&foreign.template);
    refuse_reserved(context, &body, "workload.manifest")?;
    let mut container = Map::from_iter([("name".to_owned(), json!(foreign.container))]);
    let mut put = |key: &str, value: Option<Value>| value.map(|value| container.insert(key.to_owned(), value));
    put("image", code.image.as_ref().filter(|_| !context.is_host()).map(|image| json!(image)));
    put("command", code.command.as_ref().map(|command| json!(command)));
    put("resources", workload.resources.clone());
    put("env", Some(Value::Array(ordered_env(context, "workload.env", &workload.env)?)));
    for (key, probe) in probes(context, workload.health.as_ref(), "workload.health")? {
        put(key, Some(probe));
    }
    let has = find_container(&mut body, &foreign.container).map(|container| container.get("image").is_some());
    match (has, &code.image) {
        (None, _) => {
            return Err(invalid(format!("its pod template has no container `{}`", foreign.container)));
        }
        (Some(false), None) if !context.is_host() => {
            return Err(invalid(format!("its container `{}` has no image", foreign.container)));
        }
        (Some(_), _) => {}
    }
    if context.is_host()
        && let Some(container) = find_container(&mut body, &foreign.container)
    {
        container.remove("image");
    }
    let typed = json!({"spec": {"containers": [container]}});
    strategic_merge(&mut body, &typed).map_err(|refused| invalid(refused.to_string()))?;
    finish(context, body, None, &foreign.container, workload.pod_template.as_ref(), false)
}

/// The template of a worker: the release's image, files, variables and account; what is about the pod is its own.
pub(super) fn worker(context: &Context<'_>, name: &WorkerName, worker: &Worker) -> Result<Template, RenderError> {
    let mut env = context.release.spec.workload.env.clone();
    env.extend(worker.env.clone());
    let process = Process {
        worker: Some(name),
        command: worker.command.as_ref(),
        env,
        resources: worker.resources.as_ref(),
        health: worker.health.as_ref(),
        pod_template: worker.pod_template.as_ref(),
    };
    process.generate(context)
}

/// What one process declares.
struct Process<'a> {
    worker: Option<&'a WorkerName>,
    command: Option<&'a Vec<String>>,
    env: BTreeMap<String, EnvValue>,
    resources: Option<&'a Value>,
    health: Option<&'a Health>,
    pod_template: Option<&'a Value>,
}

impl Process<'_> {
    fn generate(self, context: &Context<'_>) -> Result<Template, RenderError> {
        let field = |name: &str| match self.worker {
            None => format!("workload.{name}"),
            Some(worker) => format!("workers.{worker}.{name}"),
        };
        let workload = &context.release.spec.workload;
        let mut container = Map::new();
        let mut put = |key: &str, value: Option<Value>| value.map(|value| container.insert(key.to_owned(), value));
        put("name", Some(json!(CONTAINER)));
        put("image", if context.is_host() { None } else { Some(image(context)?) });
        put("command", self.command.map(|command| json!(command)));
        put("env", Some(Value::Array(ordered_env(context, &field("env"), &self.env)?)));
        put("resources", self.resources.cloned());
        put("securityContext", Some(json!({"allowPrivilegeEscalation": false})));
        for (key, probe) in probes(context, self.health, &field("health"))? {
            put(key, Some(probe));
        }
        let mut spec = json!({
            "containers": [container],
            "enableServiceLinks": false,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        });
        match &workload.service_account {
            Some(account) => spec["serviceAccountName"] = json!(account),
            None => spec["automountServiceAccountToken"] = json!(false),
        }
        let body = without_nulls(&json!({"metadata": {}, "spec": spec}));
        if let Some(patch) = self.pod_template {
            refuse_reserved(context, patch, &field("podTemplate"))?;
        }
        finish(context, body, self.worker, CONTAINER, self.pod_template, true)
    }
}

/// The image of generated containers: that of the code, else that of the template that was brought along.
fn image(context: &Context<'_>) -> Result<Value, RenderError> {
    let spec = &context.release.spec;
    if let Some(image) = &spec.code.image {
        return Ok(json!(image));
    }
    let brought = spec.workload.manifest.as_ref().and_then(|foreign| {
        let containers = foreign.template.pointer("/spec/containers")?.as_array()?;
        containers.iter().find(|container| container["name"] == foreign.container.as_str())?.get("image").cloned()
    });
    brought.ok_or_else(|| {
        context
            .invalid("code.image", "an agent on Kubernetes needs an image")
            .with_hint("name it by digest: `image: registry.example.com/agent@sha256:…`")
    })
}

/// Merges what people declare, then puts in what every agent is given.
fn finish(
    context: &Context<'_>,
    mut body: Value,
    worker: Option<&WorkerName>,
    container_name: &str,
    patch: Option<&Value>,
    generated: bool,
) -> Result<Template, RenderError> {
    let workload = &context.release.spec.workload;
    let field = worker.map_or("workload.podTemplate".to_owned(), |worker| format!("workers.{worker}.podTemplate"));
    if let Some(port) = workload.port.filter(|_| worker.is_none()) {
        expose(&mut body, container_name, port);
    }
    if let Some(patch) = patch {
        strategic_merge(&mut body, patch).map_err(|refused| context.invalid(&field, refused.to_string()))?;
    }
    let mut body = without_nulls(&body);
    let says_lifecycle =
        patch.and_then(|patch| patch.pointer("/spec/containers")?.as_array()).is_some_and(|containers| {
            containers.iter().any(|c| c["name"] == container_name && c.get("lifecycle").is_some())
        });
    let Some(container) = find_container(&mut body, container_name) else {
        return Err(context.invalid(&field, format!("it leaves no container `{container_name}`")));
    };
    // On a host the proxy has answered that nothing new comes before a process is asked to end.
    let waits = generated && !context.is_host();
    if waits && worker.is_none() && workload.port.is_some() && !says_lifecycle {
        container.insert("lifecycle".to_owned(), json!({"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}}));
    }
    inject_env(context, container, worker);
    put_by(container, "volumeMounts", "mountPath", json!({"name": VOLUME, "mountPath": AGENT_DIR, "readOnly": true}));
    let target_port = workload.port.map(|port| named_port(container, port));
    let items: Vec<_> =
        context.release.files().keys().map(|path| json!({"key": config_map_key(path), "path": path})).collect();
    let volume = json!({
        "name": VOLUME,
        "configMap": {
            "name": config_map_name(context.identity.agent, &context.release.id),
            "items": items,
            "defaultMode": 0o444,
        },
    });
    let not_a_map = || context.invalid(&field, "its `metadata`, labels and annotations are maps");
    let template = body.as_object_mut().ok_or_else(not_a_map)?;
    put_by(map_at(template, "spec").ok_or_else(not_a_map)?, "volumes", "name", volume);
    let metadata = map_at(template, "metadata").ok_or_else(not_a_map)?;
    metadata.retain(|key, _| matches!(key.as_str(), "labels" | "annotations" | "finalizers"));
    let labels = map_at(metadata, "labels").ok_or_else(not_a_map)?;
    labels.entry(NAME_LABEL).or_insert_with(|| json!(context.identity.agent));
    labels.insert(MANAGED_BY_LABEL.to_owned(), json!(MANAGED_BY));
    labels.extend(selector(context, worker));
    labels.insert(RELEASE_LABEL.to_owned(), json!(context.release.id.short()));
    let annotations = map_at(metadata, "annotations").ok_or_else(not_a_map)?;
    annotations.insert(RELEASE_ID_ANNOTATION.to_owned(), json!(context.release.id.digest()));
    if let Some(artifact) = context.release.spec.code.artifact.as_ref().filter(|_| context.is_host()) {
        annotations.insert(ARTIFACT_ANNOTATION.to_owned(), json!(format!("sha256:{}", artifact.sha256)));
    }
    Ok(Template { body, target_port })
}

/// The labels by which pods of one process and set are selected, for ever.
pub(super) fn selector(context: &Context<'_>, worker: Option<&WorkerName>) -> Map<String, Value> {
    Map::from_iter([
        (AGENT_LABEL.to_owned(), json!(context.identity.agent)),
        (PROCESS_LABEL.to_owned(), json!(worker.map_or("main", WorkerName::as_str))),
        (SET_LABEL.to_owned(), json!(context.set.label(&context.release.id))),
    ])
}

/// The map at `key`, made where there is none; nothing where something else is there.
fn map_at<'v>(owner: &'v mut Map<String, Value>, key: &str) -> Option<&'v mut Map<String, Value>> {
    owner.entry(key).or_insert_with(|| json!({})).as_object_mut()
}

fn find_container<'v>(body: &'v mut Value, name: &str) -> Option<&'v mut Map<String, Value>> {
    let containers = body.pointer_mut("/spec/containers")?.as_array_mut()?;
    containers.iter_mut().find(|container| container["name"] == name)?.as_object_mut()
}

/// Puts `element` into the list `list`, in place of the one with the same `key`.
fn put_by(owner: &mut Map<String, Value>, list: &str, key: &str, element: Value) {
    let entry = owner.entry(list).or_insert_with(|| json!([]));
    if !entry.is_array() {
        *entry = json!([]);
    }
    if let Value::Array(elements) = entry {
        elements.retain(|existing| existing.get(key) != element.get(key));
        elements.push(element);
    }
}

/// Declares the port where the container does not yet.
fn expose(body: &mut Value, container: &str, port: u16) {
    let Some(container) = find_container(body, container) else { return };
    let ports = container.entry("ports").or_insert_with(|| json!([]));
    if let Value::Array(ports) = ports
        && !ports.iter().any(|declared| declared["containerPort"] == port)
    {
        let taken = ports.iter().any(|declared| declared["name"] == "http");
        let mut declared = json!({"containerPort": port, "protocol": "TCP"});
        if !taken {
            declared["name"] = json!("http");
        }
        ports.push(declared);
    }
}

/// The port's name where it has one: pods of two releases with different numbers can then stand behind one Service.
fn named_port(container: &Map<String, Value>, port: u16) -> Value {
    let ports = container.get("ports").and_then(Value::as_array);
    let named = ports.and_then(|ports| ports.iter().find(|declared| declared["containerPort"] == port)?.get("name"));
    named.cloned().unwrap_or(json!(port))
}

/// Refuses labels and annotations that are Backstay's own.
fn refuse_reserved(context: &Context<'_>, template: &Value, what: &str) -> Result<(), RenderError> {
    for map in ["labels", "annotations"] {
        let declared = template.pointer(&format!("/metadata/{map}")).and_then(Value::as_object);
        if let Some(key) = declared.and_then(|map| map.keys().find(|key| key.starts_with(RESERVED_PREFIX))) {
            return Err(context
                .invalid(what, format!("`{key}` in its {map} is Backstay's own"))
                .with_hint("choose a name of your own"));
        }
    }
    Ok(())
}

/// Variables as a container lists them: those that refer to others by `$(NAME)` after those.
fn ordered_env(context: &Context<'_>, what: &str, env: &BTreeMap<String, EnvValue>) -> Result<Vec<Value>, RenderError> {
    if let Some(reserved) = env.keys().find(|name| name.starts_with("BACKSTAY_")) {
        return Err(context
            .invalid(what, format!("`{reserved}` is set by Backstay"))
            .with_hint("choose a name that does not begin with `BACKSTAY_`"));
    }
    let refers = |name: &str, to: &str| match &env[name] {
        EnvValue::Plain(text) => text.contains(&format!("$({to})")),
        EnvValue::Secret(_) | EnvValue::Field { .. } => false,
    };
    let mut waiting: BTreeSet<&str> = env.keys().map(String::as_str).collect();
    let mut ordered = Vec::new();
    // Each round places at least one name; names that refer to each other are placed as they come.
    while let Some(first) = waiting.first().copied() {
        let free = |name: &&&str| !waiting.iter().any(|other| other != *name && refers(name, other));
        let next = waiting.iter().find(free).copied().unwrap_or(first);
        waiting.remove(next);
        ordered.push(next);
    }
    Ok(ordered.into_iter().map(|name| variable(name, &env[name])).collect())
}

fn variable(name: &str, value: &EnvValue) -> Value {
    match value {
        EnvValue::Plain(text) => json!({"name": name, "value": text}),
        EnvValue::Secret(from) => {
            json!({"name": name, "valueFrom": {"secretKeyRef": {"name": from.secret, "key": from.key}}})
        }
        EnvValue::Field { field } => json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}),
    }
}

/// Puts in what every process is told: its release, where its files are, and who it is in telemetry.
fn inject_env(context: &Context<'_>, container: &mut Map<String, Value>, worker: Option<&WorkerName>) {
    let identity = &context.identity;
    let service = worker.map_or(identity.agent.to_string(), |worker| format!("{}-{worker}", identity.agent));
    let declared = match container.remove("env") {
        Some(Value::Array(declared)) => declared,
        _ => vec![],
    };
    let has = |name: &str| declared.iter().any(|variable| variable["name"] == name);
    let mut env = vec![
        json!({"name": "BACKSTAY_AGENT", "value": identity.agent}),
        json!({"name": "BACKSTAY_AGENT_DIR", "value": AGENT_DIR}),
        json!({"name": "BACKSTAY_ENVIRONMENT", "value": identity.environment}),
        json!({"name": "BACKSTAY_RELEASE", "value": context.release.id.short()}),
    ];
    let injected: Vec<_> = env.iter().map(|variable| variable["name"].clone()).collect();
    if !has("OTEL_SERVICE_NAME") {
        env.push(json!({"name": "OTEL_SERVICE_NAME", "value": service}));
    }
    let theirs = declared.iter().find(|variable| variable["name"] == "OTEL_RESOURCE_ATTRIBUTES");
    let theirs_is_plain = theirs.is_none_or(|variable| variable.get("valueFrom").is_none());
    if theirs_is_plain {
        let theirs = theirs.and_then(|variable| variable["value"].as_str()).unwrap_or_default();
        env.push(json!({"name": "OTEL_RESOURCE_ATTRIBUTES", "value": resource_attributes(context, &service, theirs)}));
    }
    if let Some(port) = context.release.spec.workload.port
        && !has("PORT")
    {
        env.push(json!({"name": "PORT", "value": port.to_string()}));
    }
    env.extend(declared.into_iter().filter(|variable| {
        let name = &variable["name"];
        !(injected.contains(name) || theirs_is_plain && name == "OTEL_RESOURCE_ATTRIBUTES")
    }));
    container.insert("env".to_owned(), Value::Array(env));
}

/// The agent's own attributes, then which release it is, by OpenTelemetry's names.
fn resource_attributes(context: &Context<'_>, service: &str, theirs: &str) -> String {
    let names_service = theirs.split(',').any(|pair| pair.trim_start().starts_with("service.name="));
    let mut pairs: Vec<String> = theirs
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .filter(|pair| !pair.starts_with("service.version=") && !pair.starts_with("deployment.environment.name="))
        .map(str::to_owned)
        .collect();
    if !names_service {
        pairs.push(format!("service.name={service}"));
    }
    pairs.push(format!("service.version={}", context.release.id.short()));
    pairs.push(format!("deployment.environment.name={}", context.identity.environment));
    pairs.join(",")
}

/// The probes of a container, by field name.
fn probes(
    context: &Context<'_>,
    health: Option<&Health>,
    what: &str,
) -> Result<Vec<(&'static str, Value)>, RenderError> {
    let Some(health) = health else { return Ok(vec![]) };
    // A probe that restarts is slow to judge; one that only takes traffic away is quick in both directions.
    let declared = [
        ("livenessProbe", "live", &health.live, [10, 5, 6]),
        ("readinessProbe", "ready", &health.ready, [2, 2, 3]),
        ("startupProbe", "startup", &health.startup, [2, 2, 150]),
    ];
    let mut rendered = vec![];
    for (field, name, probe, [period, timeout, failures]) in declared {
        let probe = match probe {
            None => continue,
            Some(Probe::Whole(probe)) => Value::Object(probe.clone()),
            Some(Probe::Path(path)) => {
                let Some(port) = context.release.spec.workload.port else {
                    return Err(context
                        .invalid(
                            &format!("{what}.{name}"),
                            "a path is asked for on the agent's port, and there is none",
                        )
                        .with_hint("declare `workload.port`, or write the whole probe"));
                };
                json!({
                    "httpGet": {"path": path, "port": port},
                    "periodSeconds": period,
                    "timeoutSeconds": timeout,
                    "failureThreshold": failures,
                })
            }
        };
        rendered.push((field, probe));
    }
    Ok(rendered)
}
