//! How Kubernetes reads the lists and maps of its objects: by key, as a set, or whole.
//!
//! After `x-kubernetes-list-type`, `-list-map-keys`, `-patch-merge-key` and `-map-type` of the OpenAPI document of
//! v1.36. What is not listed is atomic, as server-side apply has it for types that say nothing.

/// How a list is merged and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// As one value.
    Atomic,
    /// By these fields of its elements, the first of which is the merge key of a strategic merge patch.
    Map(&'static [&'static str]),
    /// By its elements, whose order means nothing.
    Set,
}

/// How a map is merged and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// Field by field: others may have fields of their own in it.
    Granular,
    /// As one value: another's field in it is a change of ours.
    Atomic,
}

/// Where the pod spec of a kind is, from the object's root; nothing where it makes no pods.
///
/// The path ends in `spec`; the pod's own metadata stands beside it.
pub fn pod_spec_path(group: &str, kind: &str) -> Option<&'static [&'static str]> {
    match (group, kind) {
        ("", "Pod") => Some(&["spec"]),
        ("", "PodTemplate") => Some(&["template", "spec"]),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => Some(&["spec", "template", "spec"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template", "spec"]),
        _ => None,
    }
}

/// How the list at `path` (field names from the object's root, without list elements) is read.
pub fn list_kind(group: &str, kind: &str, path: &[&str]) -> ListKind {
    if let Some(rest) = pod_spec_path(group, kind).and_then(|pod| path.strip_prefix(pod)) {
        return pod_list_kind(rest);
    }
    match path {
        ["metadata", "finalizers"] => return ListKind::Set,
        ["metadata", "ownerReferences"] => return ListKind::Map(&["uid"]),
        _ => {}
    }
    match (group, kind, path) {
        ("", "Service", ["spec", "ports"]) => ListKind::Map(&["port", "protocol"]),
        ("", "ServiceAccount", ["secrets"])
        | ("admissionregistration.k8s.io", _, ["webhooks"])
        | ("gateway.networking.k8s.io", "Gateway", ["spec", "listeners"]) => ListKind::Map(&["name"]),
        _ => ListKind::Atomic,
    }
}

/// How the list at `path` below a pod's `spec` is read.
pub(super) fn pod_list_kind(path: &[&str]) -> ListKind {
    match path {
        [
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "volumes"
            | "imagePullSecrets"
            | "resourceClaims"
            | "schedulingGates",
        ]
        | ["containers" | "initContainers" | "ephemeralContainers", "env"]
        | [.., "resources", "claims"] => ListKind::Map(&["name"]),
        ["containers" | "initContainers" | "ephemeralContainers", "ports"] => {
            ListKind::Map(&["containerPort", "protocol"])
        }
        ["containers" | "initContainers" | "ephemeralContainers", "volumeMounts"] => ListKind::Map(&["mountPath"]),
        ["containers" | "initContainers" | "ephemeralContainers", "volumeDevices"] => ListKind::Map(&["devicePath"]),
        ["hostAliases"] => ListKind::Map(&["ip"]),
        ["topologySpreadConstraints"] => ListKind::Map(&["topologyKey", "whenUnsatisfiable"]),
        _ => ListKind::Atomic,
    }
}

/// How the map at `path` (field names from the object's root, without list elements) is read.
pub fn map_kind(group: &str, kind: &str, path: &[&str]) -> MapKind {
    let selector = match path {
        [.., "nodeSelector"] => pod_spec_path(group, kind).is_some(),
        ["spec", "selector"] => matches!(group, "" | "apps" | "policy" | "batch"),
        [.., "labelSelector" | "podSelector" | "namespaceSelector"] => {
            matches!(group, "networking.k8s.io") || pod_spec_path(group, kind).is_some()
        }
        [.., "matchLabels"] => matches!(group, "" | "apps" | "policy" | "batch" | "networking.k8s.io"),
        _ => false,
    };
    if selector { MapKind::Atomic } else { MapKind::Granular }
}

/// What the server puts in place of a key field that is left out.
pub fn key_default(field: &str) -> Option<&'static str> {
    match field {
        "protocol" => Some("TCP"),
        "whenUnsatisfiable" => Some("DoNotSchedule"),
        _ => None,
    }
}
