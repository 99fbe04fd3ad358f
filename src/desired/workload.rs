//! How processes are run: variables, probes, images, and a Deployment of the user's own.

use std::collections::BTreeMap;

use serde_json::Value;

use super::agent::Context;
use super::read::{Flavour, Node, Spot, documents, list_of};
use super::written;
use super::{EnvValue, ForeignTemplate, Health, ImagePolicy, Probe, TargetKind, Worker, Workload, secrets};
use crate::model::{Diagnostic, WorkerName};

/// What a Deployment of the user's own says.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    template: Option<ForeignTemplate>,
    /// Its `spec` without template, selector and replicas.
    pub(super) deployment: Option<Value>,
    pub(super) replicas: Option<u32>,
    /// Whether the agent's container names an image.
    has_image: bool,
}

/// The workload, as it enters the release, and what the user's own Deployment says beside it.
pub(super) fn read(context: &Context<'_>, spec: &written::AgentSpec, at: &Node) -> (Workload, Foreign) {
    let declared = &spec.workload;
    let node = at.get("workload");
    let spot = |path: &[&str]| at.nearest(std::iter::once("workload").chain(path.iter().copied()));
    let mut foreign = Foreign::default();
    match (&declared.manifest, &declared.container) {
        (Some(path), Some(container)) => {
            foreign = manifest(context, &path.0, &container.0, spot(&["manifest"]), spot(&["container"]));
            if let Some(field) = node.and_then(|node| node.field("serviceAccount")) {
                let error = field.spot.error("`serviceAccount` belongs into the manifest");
                context.error(error.hint("write `serviceAccountName` there, and the ServiceAccount in `manifests/`"));
            }
        }
        (Some(_), None) => {
            let error = spot(&["manifest"]).error("`container` is missing beside `manifest`");
            context.error(error.hint("name the container of the Deployment that is the agent"));
        }
        (None, Some(_)) => {
            context.error(spot(&["container"]).error("`container` names a container of `manifest`, which is missing"));
        }
        (None, None) => {}
    }
    image(context, spec, at, &foreign);
    for path in [&["workload"][..], &["workers"]] {
        if let Some(node) = at.at(path.iter().copied()) {
            images_in(context, node);
        }
    }
    let mut env = variables(context);
    env.extend(env_of(&declared.env.0));
    probes_need_a_port(context, declared.port, at);
    let workload = Workload {
        port: declared.port,
        env,
        resources: declared.resources.clone(),
        health: declared.health.as_ref().map(health),
        pod_template: declared.pod_template.clone().map(Value::Object),
        manifest: foreign.template.take(),
        service_account: declared.service_account.as_ref().map(|name| name.0.clone()),
        overlap: declared.overlap,
    };
    (workload, foreign)
}

/// The workers, as they enter the release.
pub(super) fn workers(workers: &BTreeMap<WorkerName, written::Worker>) -> BTreeMap<WorkerName, Worker> {
    let worker = |worker: &written::Worker| Worker {
        command: worker.command.clone(),
        env: env_of(&worker.env.0).collect(),
        resources: worker.resources.clone(),
        health: worker.health.as_ref().map(health),
        pod_template: worker.pod_template.clone().map(Value::Object),
    };
    workers.iter().map(|(name, declared)| (name.clone(), worker(declared))).collect()
}

fn env_of(env: &BTreeMap<super::read::VariableName, written::Variable>) -> impl Iterator<Item = (String, EnvValue)> {
    env.iter().map(|(name, value)| {
        let value = match value {
            written::Variable::Plain(text) => EnvValue::Plain(text.clone()),
            written::Variable::Secret(reference) => EnvValue::Secret(reference.clone().into()),
            written::Variable::Field(reference) => EnvValue::Field { field: reference.field.clone() },
        };
        (name.0.clone(), value)
    })
}

/// The environment's variables, which lie beneath.
fn variables(context: &Context<'_>) -> BTreeMap<String, EnvValue> {
    match context.variables() {
        Ok(variables) => env_of(&variables.0.0).collect(),
        Err(errors) => {
            context.errors(errors);
            BTreeMap::new()
        }
    }
}

fn health(health: &written::Health) -> Health {
    let probe = |probe: &Option<written::Probe>| {
        probe.as_ref().map(|probe| match probe {
            written::Probe::Path(path) => Probe::Path(path.clone()),
            written::Probe::Whole(whole) => Probe::Whole(whole.clone()),
        })
    };
    Health { live: probe(&health.live), ready: probe(&health.ready), startup: probe(&health.startup) }
}

/// A probe that is only a path is got on the agent's port; a whole one says what it does.
fn probes_need_a_port(context: &Context<'_>, port: Option<u16>, at: &Node) {
    let workers = at.get("workers").map(Node::fields).unwrap_or_default();
    let processes = at.get("workload").into_iter().map(|node| (node, port.is_some()));
    for (process, has_port) in processes.chain(workers.iter().map(|field| (&field.value, false))) {
        for field in process.get("health").map(Node::fields).unwrap_or_default() {
            if let Some(path) = field.value.text() {
                if !path.starts_with('/') {
                    context.error(field.value.spot.error(format!("`{}` is no path: it begins with `/`", field.key)));
                } else if !has_port {
                    let error =
                        field.value.spot.error(format!("`{}` is a path, and the process has no `port`", field.key));
                    context.error(error.hint("write a whole probe: `httpGet: {path: …, port: …}`"));
                }
                continue;
            }
            let kinds = ["exec", "httpGet", "tcpSocket", "grpc"];
            let said = kinds.iter().filter(|kind| field.value.get(kind).is_some()).count();
            if said != 1 {
                let error = field.spot.error(format!(
                    "the probe `{}` needs exactly one of {}",
                    field.key,
                    list_of(kinds, "and")
                ));
                context.error(error);
            }
        }
    }
}

/// The agent's own image.
fn image(context: &Context<'_>, spec: &written::AgentSpec, at: &Node, foreign: &Foreign) {
    match &spec.code.image {
        Some(image) => image_is_allowed(context, &image.0, at.nearest(["code", "image"])),
        None if foreign.has_image || spec.workload.manifest.is_some() => {}
        // What runs there is looked at with the artifact.
        None if context.target == Some(TargetKind::Host) => {}
        None if context.target.is_none() && (spec.code.artifact.is_some() || spec.code.command.is_some()) => {}
        None => {
            let error = at.nearest(["code"]).error("`code.image` is missing: nothing says what runs");
            context.error(error.hint("for example `image: registry.example.com/agent@sha256:…`"));
        }
    }
}

/// All images of containers beneath `node`.
fn images_in(context: &Context<'_>, node: &Node) {
    for field in node.fields() {
        if matches!(&*field.key, "containers" | "initContainers" | "ephemeralContainers") {
            for container in field.value.list().unwrap_or_default() {
                if let Some(image) = container.get("image")
                    && let Some(text) = image.text()
                {
                    image_is_allowed(context, text, &image.spot);
                }
            }
        }
        images_in(context, &field.value);
    }
}

/// Whether an image is named so that it stays what it is.
fn image_is_allowed(context: &Context<'_>, image: &str, spot: &Spot) {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let by_digest = "name it by digest: `<image>@sha256:<64 hex digits>`";
    let error = match (digest, tag, context.images) {
        (None, None, _) => spot.error("the image has no tag and no digest").hint(by_digest),
        (None, Some("latest"), _) => {
            spot.error("the image is tagged `latest`, which is another one tomorrow").hint(by_digest)
        }
        (None, Some(_), ImagePolicy::Digest) => {
            let error = spot.error("the image is named by a tag, and this environment asks for digests");
            error.hint("name it by digest: `<image>@sha256:<64 hex digits>`, or write `images: tags` in the environment's file")
        }
        (Some(_), _, _) | (None, Some(_), ImagePolicy::Tags) => return,
    };
    context.error(error);
}

/// Reads the one Deployment of a file.
fn manifest(context: &Context<'_>, path: &str, container: &str, spot: &Spot, container_spot: &Spot) -> Foreign {
    let Some(source) = context.file(path, spot) else { return Foreign::default() };
    let read = match documents(&source, Flavour::Manifest) {
        Ok(read) => read,
        Err(errors) => {
            context.errors(errors);
            return Foreign::default();
        }
    };
    let is = |node: &Node, key: &str, value: &str| node.get(key).and_then(Node::text) == Some(value);
    for other in read.iter().skip(1) {
        let error = other.spot.error("a further document stands in the agent's Deployment");
        context.error(error.hint("further objects belong into `manifests/`"));
    }
    let Some(deployment) = read.first() else {
        context.error(spot.error(format!("`{path}` holds no Deployment")));
        return Foreign::default();
    };
    if !is(deployment, "apiVersion", "apps/v1") || !is(deployment, "kind", "Deployment") {
        context.error(deployment.nearest(["kind"]).error("a Deployment of `apps/v1` is expected"));
        return Foreign::default();
    }
    let Some(template) = deployment.at(["spec", "template"]).filter(|template| template.map().is_some()) else {
        context.error(deployment.nearest(["spec"]).error("the Deployment has no `spec.template`"));
        return Foreign::default();
    };
    let containers = template.at(["spec", "containers"]).and_then(Node::list).unwrap_or_default();
    let named = |node: &&Node| node.get("name").and_then(Node::text) == Some(container);
    let own = containers.iter().find(named);
    if own.is_none() {
        let names: Vec<_> = containers.iter().filter_map(|node| node.get("name")?.text()).collect();
        let error = container_spot.error(format!("the Deployment has no container `{container}`"));
        let hint =
            if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", list_of(names, "and")) };
        context.error(error.hint(hint));
    }
    let has_image = own.is_some_and(|own| own.get("image").is_some());
    let on_host = context.target == Some(TargetKind::Host);
    if let Some(own) = own.filter(|_| !has_image && !context.has_code_image && !on_host) {
        context.error(own.spot.error("the agent's container has no image, and `code.image` is missing"));
    }
    images_in(context, deployment);
    let mut errors: Vec<Diagnostic> = vec![];
    secrets::refuse_in_spec(deployment, &mut errors);
    errors.into_iter().for_each(|error| context.error(error));
    let mut rest = deployment.get("spec").map(Node::to_value).unwrap_or_default();
    let mut replicas = None;
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("template");
        fields.remove("selector");
        let count = fields.remove("replicas");
        replicas = count.as_ref().and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
        if count.is_some() && replicas.is_none() {
            context.error(deployment.nearest(["spec", "replicas"]).error("`replicas` is no number of pods"));
        }
    }
    let empty = rest.as_object().is_none_or(serde_json::Map::is_empty);
    Foreign {
        template: Some(ForeignTemplate { container: container.to_owned(), template: template.to_value() }),
        deployment: (!empty).then_some(rest),
        replicas,
        has_image,
    }
}
