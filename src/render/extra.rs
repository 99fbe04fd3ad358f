//! What `manifests/` adds: put into the namespace, labelled, with the fields that are left to others taken out.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::merge::without_nulls;
use super::names::{IGNORE_ANNOTATION, JOB_ANNOTATION, NAME_LABEL, RELEASE_LABEL, RESERVED_PREFIX};
use super::object::Context;
use super::release::{RenderError, Role};
use crate::desired::canonical;
use crate::model::{Digest, Manifest, ObjectRef};

/// The longest name of a Job: it becomes a label of its pods.
const LONGEST_JOB: usize = 63;
/// What follows the declared name of a Job: `--r-`, 12 digits, `-` and 8 digits.
const JOB_SUFFIX: usize = 25;

/// Renders one object of `manifests/`.
pub(super) fn render(context: &Context<'_>, declared: &Manifest) -> Result<(Role, Manifest), RenderError> {
    let invalid = |why: String, hint: &str| RenderError::Invalid {
        what: declared.object.to_string(),
        origin: declared.origin.clone(),
        why,
        hint: Some(hint.to_owned()),
    };
    let mut body = without_nulls(&declared.body);
    if let Some(pod) = super::schema::pod_spec_path(&declared.object.group, &declared.object.kind) {
        refuse_reserved(&body, &format!("/{}", pod[..pod.len() - 1].join("/")), &invalid)?;
    }
    refuse_reserved(&body, "", &invalid)?;
    ignore(&mut body, &invalid)?;
    let canonical =
        || canonical::to_bytes(&body).map_err(|error| invalid(error.to_string(), "write large numbers as text"));
    let mut role = Role::Extra;
    let mut name = declared.object.name.clone();
    let mut object = declared.object.clone();
    if declared.object.group == "batch" && declared.object.kind == "Job" {
        let digest = Digest::of(&canonical()?).to_string();
        role = Role::Job;
        if name.len() + JOB_SUFFIX > LONGEST_JOB {
            let why =
                format!("its name is {} characters long, a Job's may have {}", name.len(), LONGEST_JOB - JOB_SUFFIX);
            return Err(invalid(why, "shorten it: the release and the content are added"));
        }
        name = format!("{name}--{}-{}", context.release.id, &digest[..8]);
    }
    let fields = body.as_object_mut().ok_or_else(|| invalid("it is no map".to_owned(), "write one object"))?;
    fields.remove("status");
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    let metadata = metadata.as_object_mut().ok_or_else(|| invalid("`metadata` is no map".to_owned(), "write a map"))?;
    // What a server writes and people paste along.
    for server in ["creationTimestamp", "generation", "managedFields", "selfLink", "resourceVersion", "uid"] {
        metadata.remove(server);
    }
    if !metadata.contains_key("namespace") {
        metadata.insert("namespace".to_owned(), json!(context.identity.namespace));
        context.identity.namespace.clone_into(&mut object.namespace);
    } else if let Some(namespace) = metadata["namespace"].as_str() {
        namespace.clone_into(&mut object.namespace);
    }
    let mut labels = context.labels();
    let mut annotations = context.annotations();
    if role == Role::Job {
        labels.insert(RELEASE_LABEL.to_owned(), json!(context.release.id.short()));
        annotations.insert(JOB_ANNOTATION.to_owned(), json!(declared.object.name));
    }
    metadata.insert("name".to_owned(), json!(name));
    if metadata.get("labels").is_some_and(|labels| labels.get(NAME_LABEL).is_some()) {
        labels.remove(NAME_LABEL);
    }
    for (key, ours) in [("labels", labels), ("annotations", annotations)] {
        let theirs = metadata.entry(key).or_insert_with(|| Value::Object(Map::new()));
        let theirs = theirs.as_object_mut().ok_or_else(|| invalid(format!("its {key} are no map"), "write a map"))?;
        theirs.extend(ours);
    }
    object.name = name;
    Ok((role, Manifest { object, body: Arc::new(body), origin: declared.origin.clone() }))
}

type Invalid<'a> = &'a dyn Fn(String, &str) -> RenderError;

/// Refuses labels and annotations that are Backstay's own: a pod with them would be taken for the agent's.
fn refuse_reserved(body: &Value, at: &str, invalid: Invalid<'_>) -> Result<(), RenderError> {
    for map in ["labels", "annotations"] {
        let declared = body.pointer(&format!("{at}/metadata/{map}")).and_then(Value::as_object);
        let reserved = |key: &&String| key.starts_with(RESERVED_PREFIX) && *key != IGNORE_ANNOTATION;
        if let Some(key) = declared.and_then(|declared| declared.keys().find(reserved)) {
            return Err(invalid(format!("`{key}` in its {map} is Backstay's own"), "choose a name of your own"));
        }
    }
    Ok(())
}

/// Takes out the fields that the annotation `backstay.dev/ignore` leaves to others.
fn ignore(body: &mut Value, invalid: Invalid<'_>) -> Result<(), RenderError> {
    let pointers = body.pointer("/metadata/annotations").and_then(|annotations| annotations.get(IGNORE_ANNOTATION));
    let Some(pointers) = pointers else { return Ok(()) };
    let pointers = pointers
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| invalid(format!("`{IGNORE_ANNOTATION}` is no text"), "write JSON pointers: `/spec/replicas`"))?;
    for pointer in pointers.split([',', ' ', '\t', '\n']).filter(|pointer| !pointer.is_empty()) {
        let whole = [
            "",
            "/apiVersion",
            "/kind",
            "/metadata",
            "/metadata/name",
            "/metadata/namespace",
            "/metadata/labels",
            "/metadata/annotations",
        ];
        if !pointer.starts_with('/') || whole.contains(&pointer) {
            let why = format!("`{IGNORE_ANNOTATION}` cannot leave `{}` to others", pointer.escape_debug());
            return Err(invalid(why, "name single fields by JSON pointers: `/spec/replicas`"));
        }
        let Some((owner, field)) = pointer.rsplit_once('/') else { continue };
        let field = field.replace("~1", "/").replace("~0", "~");
        match body.pointer_mut(owner) {
            Some(Value::Object(fields)) => {
                fields.remove(&field);
            }
            Some(Value::Array(elements)) => {
                if let Some(index) = field.parse::<usize>().ok().filter(|index| *index < elements.len()) {
                    elements.remove(index);
                }
            }
            // A field that is not declared is not rendered anyway.
            _ => {}
        }
    }
    Ok(())
}

/// The Deployment whose replicas an object of `manifests/` decides.
pub(super) fn scales(body: &Value) -> Option<String> {
    let group = body.get("apiVersion")?.as_str()?.split('/').next()?;
    let kind = body.get("kind")?.as_str()?;
    let known = matches!((group, kind), ("autoscaling", "HorizontalPodAutoscaler") | ("keda.sh", "ScaledObject"));
    let target = body.pointer("/spec/scaleTargetRef").filter(|_| known)?;
    let deployment = target.get("kind").is_none_or(|kind| kind == "Deployment");
    target.get("name")?.as_str().filter(|_| deployment).map(str::to_owned)
}

/// When an object is applied among those of `manifests/`: what others need comes first.
pub(super) fn rank(object: &ObjectRef) -> u8 {
    match object.kind.as_str() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" => 2,
        "Role" | "ClusterRole" => 3,
        "RoleBinding" | "ClusterRoleBinding" => 4,
        "ResourceQuota" | "LimitRange" | "NetworkPolicy" => 5,
        "ConfigMap" | "Secret" | "SealedSecret" | "ExternalSecret" => 6,
        "PersistentVolumeClaim" => 7,
        "Service" => 8,
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Pod" => 9,
        "PodDisruptionBudget" | "HorizontalPodAutoscaler" => 10,
        "Job" | "CronJob" => 11,
        _ => 12,
    }
}
