//! What nobody may bring into a target, by whatever way: objects that are wrong as such, and what a pod may not have.
#![allow(
    dead_code,
    clippy::needless_pass_by_value,
    reason = "each test binary uses a part of it; values are taken as they are written"
)]

use serde_json::{Value, json};

/// An image by its digest.
pub(crate) const IMAGE: &str = "a@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

/// An object called `evil` with these fields.
pub(crate) fn object(api: &str, kind: &str, fields: Value) -> Value {
    let mut body = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "evil"}});
    json_patch::merge(&mut body, &fields);
    body
}

/// Objects that are wrong as such.
pub(crate) fn objects() -> Vec<(&'static str, Value)> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let rules = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    let bind = json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default"}]});
    vec![
        ("Namespace", object("v1", "Namespace", json!({}))),
        ("Node", object("v1", "Node", json!({}))),
        (
            "PersistentVolume of the node",
            object("v1", "PersistentVolume", json!({"spec": {"hostPath": {"path": "/"}}})),
        ),
        ("ClusterRole", object(rbac, "ClusterRole", rules.clone())),
        ("ClusterRoleBinding", object(rbac, "ClusterRoleBinding", bind.clone())),
        ("Role that escalates", object(rbac, "Role", rules)),
        ("RoleBinding to cluster-admin", object(rbac, "RoleBinding", bind)),
        (
            "ValidatingWebhookConfiguration",
            object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", json!({})),
        ),
        (
            "MutatingWebhookConfiguration",
            object("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", json!({})),
        ),
        (
            "ValidatingAdmissionPolicyBinding",
            object("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", json!({})),
        ),
        ("CustomResourceDefinition", object("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({}))),
        ("APIService", object("apiregistration.k8s.io/v1", "APIService", json!({}))),
        ("CertificateSigningRequest", object("certificates.k8s.io/v1", "CertificateSigningRequest", json!({}))),
        ("PriorityClass", object("scheduling.k8s.io/v1", "PriorityClass", json!({}))),
        ("StorageClass", object("storage.k8s.io/v1", "StorageClass", json!({}))),
        ("FlowSchema", object("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", json!({}))),
        ("TokenReview", object("authentication.k8s.io/v1", "TokenReview", json!({}))),
        ("AgentRelease", object("backstay.dev/v1alpha1", "AgentRelease", json!({}))),
        ("AgentEnvironment", object("backstay.dev/v1alpha1", "AgentEnvironment", json!({}))),
        ("a kind of a group beneath ours", object("x.backstay.dev/v1", "Thing", json!({}))),
        ("Lease", object("coordination.k8s.io/v1", "Lease", json!({}))),
        (
            "the daemon's Deployment",
            object(
                "apps/v1",
                "Deployment",
                json!({"metadata": {"name": "backstay"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "a", "image": IMAGE}]}}}}),
            ),
        ),
        (
            "the daemon's configuration",
            object("v1", "ConfigMap", json!({"metadata": {"name": "backstay"}, "data": {"a": "b"}})),
        ),
        ("the daemon's ServiceAccount", object("v1", "ServiceAccount", json!({"metadata": {"name": "backstay"}}))),
        (
            "the impersonated ServiceAccount",
            object("v1", "ServiceAccount", json!({"metadata": {"name": "backstay-prod"}})),
        ),
        (
            "a ServiceAccount that hands out the Git key",
            object("v1", "ServiceAccount", json!({"imagePullSecrets": [{"name": "backstay-git"}]})),
        ),
        (
            "an autoscaler of the daemon",
            object(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                json!({"spec": {"maxReplicas": 9,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backstay"}}}),
            ),
        ),
        ("Secret", object("v1", "Secret", json!({"type": "Opaque"}))),
        (
            "a token that never ends",
            object(
                "v1",
                "Secret",
                json!({"type": "kubernetes.io/service-account-token",
            "metadata": {"annotations": {"kubernetes.io/service-account.name": "backstay-prod"}}}),
            ),
        ),
        ("Pod", object("v1", "Pod", json!({"spec": {"containers": [{"name": "a", "image": IMAGE}]}}))),
        (
            "DaemonSet",
            object(
                "apps/v1",
                "DaemonSet",
                json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": IMAGE}]}}}}),
            ),
        ),
        ("Endpoints", object("v1", "Endpoints", json!({}))),
        ("EndpointSlice", object("discovery.k8s.io/v1", "EndpointSlice", json!({"addressType": "IPv4"}))),
        ("Event", object("v1", "Event", json!({}))),
        ("ResourceQuota", object("v1", "ResourceQuota", json!({}))),
        ("an object of kube-system", object("v1", "ConfigMap", json!({"metadata": {"namespace": "kube-system"}}))),
        ("an object of another namespace", object("v1", "ConfigMap", json!({"metadata": {"namespace": "other"}}))),
        (
            "an object that owns itself to another",
            object("v1", "ConfigMap", json!({"metadata": {"ownerReferences": [{"uid": "1"}]}})),
        ),
        ("an object that cannot be deleted", object("v1", "ConfigMap", json!({"metadata": {"finalizers": ["x/y"]}}))),
        (
            "an object with another name each time",
            object("v1", "ConfigMap", json!({"metadata": {"generateName": "x-"}})),
        ),
        ("Service of type LoadBalancer", object("v1", "Service", json!({"spec": {"type": "LoadBalancer"}}))),
        ("Service of type NodePort", object("v1", "Service", json!({"spec": {"type": "NodePort"}}))),
        (
            "Service that leads elsewhere",
            object("v1", "Service", json!({"spec": {"type": "ExternalName", "externalName": "x"}})),
        ),
        ("Service that takes an address", object("v1", "Service", json!({"spec": {"externalIPs": ["10.0.0.1"]}}))),
        (
            "List that hides a Namespace",
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"name": "l"},
            "items": [object("v1", "Namespace", json!({}))]}),
        ),
    ]
}

/// What a pod may not have: merged over its spec, whose one container is the agent's.
pub(crate) fn pods() -> Vec<(&'static str, Value)> {
    let security = |context: Value| json!({"containers": [{"name": "agent", "securityContext": context}]});
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        json_patch::merge(&mut volume, &source);
        json!({"volumes": [volume]})
    };
    let container = |fields: Value| {
        let mut container = json!({"name": "agent"});
        json_patch::merge(&mut container, &fields);
        json!({"containers": [container]})
    };
    vec![
        ("hostNetwork", json!({"hostNetwork": true})),
        ("hostPID", json!({"hostPID": true})),
        ("hostIPC", json!({"hostIPC": true})),
        ("the impersonated account", json!({"serviceAccountName": "backstay-prod"})),
        ("the daemon's account", json!({"serviceAccountName": "backstay"})),
        ("the impersonated account by its old name", json!({"serviceAccount": "backstay-prod"})),
        ("nodeName", json!({"nodeName": "node-1"})),
        ("a class of the cluster", json!({"priorityClassName": "system-node-critical"})),
        ("hostPath", volume(json!({"hostPath": {"path": "/"}}))),
        ("nfs", volume(json!({"nfs": {"server": "x", "path": "/"}}))),
        ("gitRepo", volume(json!({"gitRepo": {"repository": "x"}}))),
        ("the Git key as a volume", volume(json!({"secret": {"secretName": "backstay-git"}}))),
        ("the Git key, projected", volume(json!({"projected": {"sources": [{"secret": {"name": "backstay-git"}}]}}))),
        (
            "the Git key for a driver",
            volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "backstay-git"}}})),
        ),
        ("the daemon's configuration", volume(json!({"configMap": {"name": "backstay"}}))),
        ("the Git key to pull with", json!({"imagePullSecrets": [{"name": "backstay-git"}]})),
        ("a sysctl of the node", json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}})),
        ("seccomp off", json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
        ("a process of the host", json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
        ("privileged", security(json!({"privileged": true}))),
        ("escalation", security(json!({"allowPrivilegeEscalation": true}))),
        ("SYS_ADMIN", security(json!({"capabilities": {"add": ["SYS_ADMIN"]}}))),
        ("CAP_NET_RAW", security(json!({"capabilities": {"add": ["CAP_NET_RAW"]}}))),
        ("procMount", security(json!({"procMount": "Unmasked"}))),
        ("AppArmor off", security(json!({"appArmorProfile": {"type": "Unconfined"}}))),
        ("an SELinux type", security(json!({"seLinuxOptions": {"type": "spc_t"}}))),
        ("hostPort", container(json!({"ports": [{"containerPort": 9, "hostPort": 9}]}))),
        (
            "a probe of the metadata server",
            container(json!({"livenessProbe": {"httpGet": {"host": "169.254.169.254", "path": "/", "port": 80}}})),
        ),
        (
            "a hook that calls another",
            container(json!({"lifecycle": {"preStop": {"httpGet": {"host": "10.0.0.1", "path": "/", "port": 80}}}})),
        ),
        (
            "webhooks' secrets as variables",
            container(json!({"envFrom": [{"secretRef": {"name": "backstay-webhooks"}}]})),
        ),
        (
            "the Git key as a variable",
            container(
                json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "backstay-git", "key": "k"}}}]}),
            ),
        ),
        (
            "privileged at the start",
            json!({"initContainers": [{"name": "i", "image": IMAGE, "securityContext": {"privileged": true}}]}),
        ),
        (
            "privileged beside it",
            json!({"containers": [{"name": "side", "image": IMAGE, "securityContext": {"privileged": true}}]}),
        ),
        ("a container for debugging", json!({"ephemeralContainers": [{"name": "e", "image": IMAGE}]})),
    ]
}
