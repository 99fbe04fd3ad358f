//! `manifests/*.yaml`: further Kubernetes objects that belong to the agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::agent::Context;
use super::read::{Flavour, Kind, Node, documents};
use super::{layer, secrets};
use crate::model::{Diagnostic, Manifest, ObjectRef};
use crate::source::EntryKind;

/// Kinds of the whole cluster, and others that no agent's files may ask for.
const FORBIDDEN: [(&str, &str); 21] = [
    ("", "Namespace"),
    ("", "Node"),
    ("", "PersistentVolume"),
    ("", "ComponentStatus"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("networking.k8s.io", "IngressClass"),
    ("node.k8s.io", "RuntimeClass"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
];

/// The group of Backstay's own kinds.
const OWN_GROUP: &str = "backstay.dev";

/// All objects of the agent's `manifests/`, in the order of files and documents.
pub(super) fn read(context: &Context<'_>) -> Vec<Manifest> {
    let folder = format!("{}/manifests", context.folder());
    let entries = match context.reader.list(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            context.errors(layer::refused(&folder, &error));
            return vec![];
        }
    };
    let mut found: BTreeMap<ObjectRef, Manifest> = BTreeMap::new();
    let mut order = vec![];
    for entry in entries {
        if context.has_enough() || context.reader.is_spent() {
            break;
        }
        let path = format!("{folder}/{}", entry.name);
        if entry.kind == EntryKind::Folder || !entry.name.ends_with(".yaml") {
            let error = Diagnostic::error(crate::model::Origin::file(&*path), "this is no file of manifests");
            context.error(error.hint("`manifests/` holds `.yaml` files and nothing else"));
            continue;
        }
        let documents = context.reader.source(&path).and_then(|source| match source {
            Some(source) => documents(&source, Flavour::Manifest),
            None => Ok(vec![]),
        });
        match documents {
            Err(errors) => context.errors(errors),
            Ok(documents) => {
                for document in documents {
                    let Some(manifest) = object(context, &document) else { continue };
                    let known = found.get(&manifest.object).map(|other| other.origin.clone());
                    match known {
                        Some(other) => {
                            let message = format!("`{}` is declared twice", manifest.object);
                            let error = document.nearest(["metadata", "name"]).error(message);
                            context.error(error.hint(format!("it stands in {other} too")));
                        }
                        None => {
                            order.push(manifest.object.clone());
                            found.insert(manifest.object.clone(), manifest);
                        }
                    }
                }
            }
        }
    }
    order.into_iter().filter_map(|object| found.remove(&object)).collect()
}

/// One document as an object, when it may be one of the agent's.
fn object(context: &Context<'_>, document: &Node) -> Option<Manifest> {
    let refuse = |error: Diagnostic| {
        context.error(error);
        None
    };
    if document.map().is_none() {
        return refuse(document.spot.error(format!("an object is a map, this is {}", document.word())));
    }
    let mut complete = true;
    for path in [&["apiVersion"][..], &["kind"], &["metadata", "name"]] {
        let value = document.at(path.iter().copied());
        if value.and_then(Node::text).is_none_or(str::is_empty) {
            complete = false;
            let field = path.join(".");
            let spot = document.nearest(path.iter().copied());
            context.error(match value {
                None => spot.error(format!("`{field}` is missing in the object")),
                Some(value) => spot.error(format!("`{field}` is {}, text is expected", value.word())),
            });
        }
    }
    if !complete {
        return None;
    }
    let body = document.to_value();
    let object = ObjectRef::of(&body, "")?;
    let kind_spot = document.nearest(["kind"]);
    if object.group == OWN_GROUP || object.group.ends_with(".backstay.dev") {
        return refuse(kind_spot.error(format!("`{}` is Backstay's own", object.kind)));
    }
    if FORBIDDEN.contains(&(&*object.group, &*object.kind)) {
        let error = kind_spot.error(format!("`{}` is an object of the whole cluster, not of an agent", object.kind));
        return refuse(error.hint("who runs the cluster makes it"));
    }
    if object.group.is_empty() && object.kind == "List" {
        return refuse(
            kind_spot.error("a `List` is not read").hint("write its items as documents, with `---` between them"),
        );
    }
    if object.group.is_empty()
        && object.kind == "Secret"
        && (document.get("data").is_some() || document.get("stringData").is_some())
    {
        let error = Diagnostic::error(kind_spot.origin(), "a Secret with its values stands in plain text");
        return refuse(error.hint("make the Secret in the cluster, or by an operator that fetches it"));
    }
    if let Some(namespace) = document.at(["metadata", "namespace"]) {
        let error = namespace.spot.error("the namespace is not for the repository to choose");
        return refuse(error.hint("take the line away: the daemon's configuration says where an environment lives"));
    }
    if object.name.contains("--") {
        let error = document.nearest(["metadata", "name"]).error(format!("`{}` has `--` in its name", object.name));
        return refuse(error.hint("`--` separates the parts of the names that Backstay makes"));
    }
    if let Some(metadata) = document.get("metadata") {
        for key in [
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "managedFields",
            "ownerReferences",
            "finalizers",
        ] {
            if let Some(field) = metadata.field(key).filter(|field| !matches!(field.value.kind, Kind::Null)) {
                context.error(field.spot.error(format!("`metadata.{key}` is for the cluster to write")));
            }
        }
    }
    let mut errors = vec![];
    secrets::refuse_in_spec(document, &mut errors);
    if object.group.is_empty()
        && object.kind == "ConfigMap"
        && let Some(data) = document.get("data")
    {
        errors.clear();
        secrets::refuse(data, false, &mut errors);
    }
    errors.into_iter().for_each(|error| context.error(error));
    let origin = document.spot.origin();
    Some(Manifest { object, body: Arc::new(without_empty_metadata(body)), origin })
}

/// `creationTimestamp: null`, which tools write, is nothing.
fn without_empty_metadata(mut body: serde_json::Value) -> serde_json::Value {
    if let Some(metadata) = body.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null());
    }
    body
}
