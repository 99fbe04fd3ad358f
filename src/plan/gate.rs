//! The policy gate before every write: what an agent's files may never make, whoever wrote them.
//!
//! It reads what is rendered and nothing else, so that every way to a write passes the same gate. The rules for pods are
//! those of the Pod Security Standards' *baseline*, and some of *restricted*; what may be relaxed is in [`GatePolicy`].

use std::collections::BTreeSet;

use serde_json::Value;

use crate::model::{GroupKind, Manifest, ObjectRef, Origin};
use crate::render::pod_spec_path;

/// What the daemon's configuration allows in one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatePolicy {
    /// The target's namespace: the only one.
    pub namespace: String,
    /// Kinds that may be written.
    pub kinds: BTreeSet<GroupKind>,
    /// ServiceAccounts of the namespace that Backstay itself uses or impersonates: no pod runs as one, nothing writes one.
    pub accounts: BTreeSet<String>,
    /// Names of Backstay's own objects in the namespace (its Deployment, lease, configuration, Secrets), whatever their
    /// kind: nothing writes one, no pod reads one.
    pub own_names: BTreeSet<String>,
    /// Whether pods may use the node: `hostNetwork`, `hostPID`, `hostIPC`, `hostPort`.
    pub host_namespaces: bool,
    /// Whether pods may mount paths of the node.
    pub host_paths: bool,
    /// Whether containers may be privileged, escalate, leave seccomp and AppArmor, or add any capability.
    pub privileged: bool,
    /// Capabilities that containers may add, beside `NET_BIND_SERVICE`.
    pub capabilities: BTreeSet<String>,
    /// Types of Services, beside `ClusterIP`.
    pub service_types: BTreeSet<String>,
}

/// An object that the policy gate keeps out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused to write {object} ({origin}): {why}")]
pub struct Forbidden {
    /// Which object.
    pub object: ObjectRef,
    /// The field that is to blame; empty where it is the object itself.
    pub field: String,
    /// Where it is declared.
    pub origin: Origin,
    /// Why, in one sentence without a full stop; names the field.
    pub why: String,
    /// The way out, in one sentence without a full stop.
    pub hint: String,
}

/// Namespaces of the cluster itself; not even the daemon's configuration makes one a target.
const CLUSTER_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Kinds that belong to no namespace, by group; `*` is every kind of the group.
const CLUSTER_SCOPED: [(&str, &str); 31] = [
    ("", "Namespace"),
    ("", "Node"),
    ("", "PersistentVolume"),
    ("", "ComponentStatus"),
    ("admissionregistration.k8s.io", "*"),
    ("apiextensions.k8s.io", "*"),
    ("apiregistration.k8s.io", "*"),
    ("authentication.k8s.io", "*"),
    ("authorization.k8s.io", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "SubjectAccessReview"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("certificates.k8s.io", "ClusterTrustBundle"),
    ("flowcontrol.apiserver.k8s.io", "*"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("internal.apiserver.k8s.io", "*"),
    ("metrics.k8s.io", "*"),
    ("networking.k8s.io", "IngressClass"),
    ("networking.k8s.io", "IPAddress"),
    ("networking.k8s.io", "ServiceCIDR"),
    ("node.k8s.io", "*"),
    ("policy", "PodSecurityPolicy"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "ResourceSlice"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storagemigration.k8s.io", "*"),
];

/// What a policy allows where the daemon's configuration says nothing.
const USUAL_KINDS: [(&str, &str); 12] = [
    ("", "ConfigMap"),
    ("", "PersistentVolumeClaim"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("batch", "CronJob"),
    ("batch", "Job"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("policy", "PodDisruptionBudget"),
];

/// Volumes that hold nothing of the node.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Sysctls that a kernel keeps per pod (Pod Security Standards, baseline).
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// SELinux types of ordinary containers (Pod Security Standards, baseline).
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

// === impl GatePolicy ===

impl GatePolicy {
    /// The policy where the daemon's configuration says nothing: the usual namespaced kinds and unprivileged pods.
    ///
    /// No Secrets, since the repository holds no plain text; no roles; no bare pods.
    pub fn of(namespace: impl Into<String>) -> Self {
        let kind = |(group, kind): (&str, &str)| GroupKind { group: group.to_owned(), kind: kind.to_owned() };
        Self {
            namespace: namespace.into(),
            kinds: USUAL_KINDS.into_iter().map(kind).collect(),
            accounts: BTreeSet::new(),
            own_names: BTreeSet::new(),
            host_namespaces: false,
            host_paths: false,
            privileged: false,
            capabilities: BTreeSet::new(),
            service_types: BTreeSet::new(),
        }
    }
}

/// Lets an object pass, or says why not: the first of its [`violations`].
///
/// # Errors
///
/// When the policy does not allow it.
#[expect(clippy::result_large_err, reason = "an object is refused once, and the refusal is kept whole")]
pub fn admit(manifest: &Manifest, policy: &GatePolicy) -> Result<(), Forbidden> {
    violations(manifest, policy).into_iter().next().map_or(Ok(()), Err)
}

/// Lets an object be deleted, or says why not: what is Backstay's own, elsewhere or of the whole cluster is never ours to
/// delete, whatever a record says of it. A kind that is no longer allowed can still be cleaned up.
///
/// # Errors
///
/// In one sentence, why not.
pub fn admit_deletion(object: &ObjectRef, policy: &GatePolicy) -> Result<(), String> {
    let (group, kind) = (object.group.as_str(), object.kind.as_str());
    let why = if group == "backstay.dev" || group.ends_with(".backstay.dev") {
        "its kind is Backstay's own"
    } else if CLUSTER_SCOPED.iter().any(|(g, k)| *g == group && (*k == "*" || *k == kind)) {
        "it belongs to the whole cluster"
    } else if object.namespace != policy.namespace || CLUSTER_NAMESPACES.contains(&object.namespace.as_str()) {
        "it is not in the target's namespace"
    } else if policy.own_names.contains(&object.name)
        || kind == "ServiceAccount" && policy.accounts.contains(&object.name)
    {
        "it is Backstay's own"
    } else {
        return Ok(());
    };
    Err(format!("refused to delete {object}: {why}"))
}

/// Everything about an object that the policy does not allow, the object itself first.
pub fn violations(manifest: &Manifest, policy: &GatePolicy) -> Vec<Forbidden> {
    let mut gate = Gate { manifest, policy, found: vec![] };
    gate.object();
    // The kind decides how the rest is read.
    if gate.found.is_empty() {
        gate.metadata();
        gate.kind_of_its_own();
        gate.pods();
    }
    gate.found
}

struct Gate<'a> {
    manifest: &'a Manifest,
    policy: &'a GatePolicy,
    found: Vec<Forbidden>,
}

/// Whether a switch is on; whatever is not plainly off is.
fn on(value: Option<&Value>) -> bool {
    !matches!(value, None | Some(Value::Null | Value::Bool(false)))
}

/// A text that is there and not empty.
fn text<'v>(owner: &'v Value, field: &str) -> Option<&'v str> {
    owner.get(field)?.as_str().filter(|text| !text.is_empty())
}

fn elements<'v>(owner: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    owner.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

impl Gate<'_> {
    fn refuse(&mut self, field: &str, why: impl Into<String>, hint: &str) {
        let why = why.into();
        let why = if field.is_empty() { why } else { format!("`{}` {why}", field.escape_debug()) };
        self.found.push(Forbidden {
            object: self.manifest.object.clone(),
            field: field.to_owned(),
            origin: self.manifest.origin.clone(),
            why,
            hint: hint.to_owned(),
        });
    }

    /// What it is, where, and by which name.
    fn object(&mut self) {
        let (object, policy) = (&self.manifest.object, self.policy);
        if ObjectRef::of(&self.manifest.body, &policy.namespace).as_ref() != Some(object) {
            self.refuse(
                "",
                "its body is not the object that it is named as",
                "declare `apiVersion`, `kind` and `metadata.name`",
            );
            return;
        }
        let (group, kind) = (object.group.as_str(), object.kind.as_str());
        if group == "backstay.dev" || group.ends_with(".backstay.dev") {
            self.refuse("", "its kind is Backstay's own", "ask for a deed with the `backstay` command");
        } else if CLUSTER_SCOPED.iter().any(|(g, k)| *g == group && (*k == "*" || *k == kind)) {
            self.refuse(
                "",
                format!("{kind} belongs to the whole cluster"),
                "let an administrator of the cluster make it",
            );
        } else if !policy.kinds.contains(&object.group_kind()) {
            let hint = match (group, kind) {
                ("", "Secret") => {
                    "refer to a Secret that exists, or use a kind that holds it encrypted and that the daemon's configuration allows"
                }
                ("rbac.authorization.k8s.io", _) => "let an administrator of the namespace grant rights",
                ("", "Pod") | ("apps", "ReplicaSet") => "declare a Deployment or a Job",
                _ => "allow the kind in the daemon's configuration (`kinds`)",
            };
            self.refuse("", format!("{} is not among the kinds that are allowed here", object.group_kind()), hint);
        }
        if object.namespace != policy.namespace {
            let why = format!("is `{}`, and the target is `{}`", object.namespace.escape_debug(), policy.namespace);
            self.refuse("metadata.namespace", why, "leave the namespace out: the environment's is put in");
        } else if CLUSTER_NAMESPACES.contains(&object.namespace.as_str()) {
            self.refuse(
                "metadata.namespace",
                "is one of the cluster's own",
                "bind the environment to a namespace of its own",
            );
        }
        if policy.own_names.contains(&object.name) {
            self.refuse("metadata.name", "is the name of an object of Backstay's own", "choose another name");
        }
        if object.kind == "ServiceAccount"
            && policy.accounts.contains(&object.name)
            && !policy.own_names.contains(&object.name)
        {
            self.refuse("metadata.name", "is an account that Backstay uses", "choose another name");
        }
    }

    fn metadata(&mut self) {
        let metadata = &self.manifest.body["metadata"];
        for (field, why) in [
            ("ownerReferences", "would let the object be deleted with another"),
            ("finalizers", "would keep the object from being deleted"),
            ("generateName", "would make another object with every write"),
        ] {
            if metadata.get(field).is_some_and(|value| !is_empty(value)) {
                self.refuse(&format!("metadata.{field}"), why, "remove it");
            }
        }
    }

    /// What is particular to single kinds.
    fn kind_of_its_own(&mut self) {
        let (object, body, policy) = (&self.manifest.object, &*self.manifest.body, self.policy);
        match (object.group.as_str(), object.kind.as_str()) {
            ("", "Service") => {
                let spec = &body["spec"];
                let kind = text(spec, "type").unwrap_or("ClusterIP");
                if kind != "ClusterIP" && !policy.service_types.contains(kind) {
                    let why =
                        format!("is `{}`, which opens or redirects traffic beyond the cluster", kind.escape_debug());
                    self.refuse(
                        "spec.type",
                        why,
                        "use `ClusterIP`, or allow the type in the daemon's configuration (`service_types`)",
                    );
                }
                if spec.get("externalIPs").is_some_and(|ips| !is_empty(ips)) {
                    self.refuse(
                        "spec.externalIPs",
                        "takes traffic that is meant for others",
                        "use a route or a gateway",
                    );
                }
                if text(spec, "externalName").is_some() && !policy.service_types.contains("ExternalName") {
                    self.refuse(
                        "spec.externalName",
                        "sends callers elsewhere",
                        "let the agent ask the other name itself",
                    );
                }
                if elements(spec, "ports").any(|port| port.get("nodePort").is_some_and(|port| port.as_u64() != Some(0)))
                    && !policy.service_types.contains("NodePort")
                    && !policy.service_types.contains("LoadBalancer")
                {
                    self.refuse("spec.ports", "opens a port of every node", "remove `nodePort`");
                }
            }
            // What is listed there comes to every pod of the account.
            ("", "ServiceAccount") => {
                for list in ["imagePullSecrets", "secrets"] {
                    for (n, secret) in elements(body, list).enumerate() {
                        self.own_secret(secret.get("name"), &format!("{list}[{n}].name"));
                    }
                }
            }
            ("autoscaling", "HorizontalPodAutoscaler") => {
                self.own_secret(body.pointer("/spec/scaleTargetRef/name"), "spec.scaleTargetRef.name");
            }
            ("", "Secret") if text(body, "type") == Some("kubernetes.io/service-account-token") => {
                self.refuse("type", "asks for the token of an account that never ends", "mount a projected token");
            }
            _ => {}
        }
    }

    /// Every pod spec in the object.
    fn pods(&mut self) {
        let (object, body) = (&self.manifest.object, &*self.manifest.body);
        if let Some(path) = pod_spec_path(&object.group, &object.kind) {
            let owner = path[..path.len() - 1].iter().fold(body, |value, field| &value[*field]);
            self.pod_metadata(&owner["metadata"], &path[..path.len() - 1].join("."));
            self.pod(&owner["spec"], &path.join("."));
        } else {
            self.search(body, "");
        }
    }

    /// A kind that is not known may make pods all the same: whatever has containers is read as one.
    fn search(&mut self, value: &Value, path: &str) {
        match value {
            Value::Object(fields) => {
                let pod = ["containers", "initContainers", "ephemeralContainers"];
                if pod.iter().any(|list| fields.get(*list).is_some_and(Value::is_array)) {
                    self.pod(value, path);
                    return;
                }
                for (key, value) in fields {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.search(value, &path);
                }
            }
            Value::Array(elements) => {
                for (n, element) in elements.iter().enumerate() {
                    self.search(element, &format!("{path}[{n}]"));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn pod_metadata(&mut self, metadata: &Value, path: &str) {
        for (key, value) in metadata.get("annotations").and_then(Value::as_object).into_iter().flatten() {
            let confined = key.starts_with("container.apparmor.security.beta.kubernetes.io/")
                || key.contains("seccomp.security.alpha.kubernetes.io/");
            if confined && value == "unconfined" && !self.policy.privileged {
                let path = format!("{path}.metadata.annotations").trim_start_matches('.').to_owned();
                self.refuse(&path, format!("takes a container out of its confinement: {key}"), "remove it");
            }
        }
    }

    fn pod(&mut self, spec: &Value, path: &str) {
        let policy = self.policy;
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if on(spec.get(field)) && !policy.host_namespaces {
                self.refuse(
                    &format!("{path}.{field}"),
                    "uses the node's own",
                    "remove it, or allow it in the daemon's configuration (`host_namespaces`)",
                );
            }
        }
        let account = text(spec, "serviceAccountName").or_else(|| text(spec, "serviceAccount"));
        let named =
            ["serviceAccountName", "serviceAccount"].into_iter().filter_map(|field| Some((field, text(spec, field)?)));
        for (field, account) in named.chain(account.is_none().then_some(("serviceAccountName", "default"))) {
            if policy.accounts.contains(account) || policy.own_names.contains(account) {
                let why = format!("is `{account}`, an account that Backstay uses");
                self.refuse(&format!("{path}.{field}"), why, "declare `workload.serviceAccount` with another name");
            }
        }
        if text(spec, "nodeName").is_some() {
            self.refuse(&format!("{path}.nodeName"), "passes the scheduler by", "use `nodeSelector` or affinity");
        }
        if text(spec, "priorityClassName").is_some_and(|name| name.starts_with("system-")) {
            self.refuse(
                &format!("{path}.priorityClassName"),
                "is kept for the cluster itself",
                "use a class of your own",
            );
        }
        if spec.get("ephemeralContainers").is_some_and(|list| !is_empty(list)) {
            self.refuse(&format!("{path}.ephemeralContainers"), "is for debugging by hand", "remove it");
        }
        for volume in elements(spec, "volumes") {
            self.volume(volume, &format!("{path}.volumes[{}]", text(volume, "name").unwrap_or("?")));
        }
        for (n, secret) in elements(spec, "imagePullSecrets").enumerate() {
            self.own_secret(secret.get("name"), &format!("{path}.imagePullSecrets[{n}].name"));
        }
        if let Some(context) = spec.get("securityContext") {
            let path = format!("{path}.securityContext");
            self.security(context, &path);
            for sysctl in elements(context, "sysctls") {
                let name = text(sysctl, "name").unwrap_or("?");
                if !SYSCTLS.contains(&name) && !policy.privileged {
                    self.refuse(
                        &format!("{path}.sysctls[{name}]"),
                        "changes the kernel for other pods too",
                        "remove it",
                    );
                }
            }
        }
        for list in ["initContainers", "containers", "ephemeralContainers"] {
            for container in elements(spec, list) {
                self.container(container, &format!("{path}.{list}[{}]", text(container, "name").unwrap_or("?")));
            }
        }
    }

    fn volume(&mut self, volume: &Value, path: &str) {
        for (source, value) in volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name") {
            if source == "hostPath" && !self.policy.host_paths {
                let hint = "use an `emptyDir` or a claim, or allow it in the daemon's configuration (`host_paths`)";
                self.refuse(&format!("{path}.hostPath"), "mounts a path of the node", hint);
            } else if source != "hostPath" && !VOLUMES.contains(&source.as_str()) && !value.is_null() {
                self.refuse(
                    &format!("{path}.{source}"),
                    "is not among the kinds of volumes that are allowed",
                    "use a PersistentVolumeClaim",
                );
            }
        }
        self.own_secret(volume.pointer("/secret/secretName"), &format!("{path}.secret.secretName"));
        self.own_secret(volume.pointer("/configMap/name"), &format!("{path}.configMap.name"));
        self.own_secret(
            volume.pointer("/csi/nodePublishSecretRef/name"),
            &format!("{path}.csi.nodePublishSecretRef.name"),
        );
        for source in volume.get("projected").into_iter().flat_map(|projected| elements(projected, "sources")) {
            for kind in ["secret", "configMap"] {
                self.own_secret(
                    source.pointer(&format!("/{kind}/name")),
                    &format!("{path}.projected.sources.{kind}.name"),
                );
            }
        }
    }

    fn container(&mut self, container: &Value, path: &str) {
        if let Some(context) = container.get("securityContext") {
            self.security(context, &format!("{path}.securityContext"));
        }
        for port in elements(container, "ports") {
            if port.get("hostPort").is_some_and(|port| port.as_u64() != Some(0)) && !self.policy.host_namespaces {
                let hint = "remove it, or allow it in the daemon's configuration (`host_namespaces`)";
                self.refuse(&format!("{path}.ports"), "takes a port of the node by `hostPort`", hint);
            }
        }
        let probes = ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle/preStop", "lifecycle/postStart"];
        for (probe, action) in probes.iter().flat_map(|probe| ["httpGet", "tcpSocket"].map(|action| (probe, action))) {
            if container.pointer(&format!("/{probe}/{action}/host")).is_some_and(|host| !is_empty(host)) {
                let field = format!("{path}.{}.{action}.host", probe.replace('/', "."));
                self.refuse(&field, "lets the node ask another address", "remove it: the pod itself is asked");
            }
        }
        for variable in elements(container, "env") {
            for kind in ["secretKeyRef", "configMapKeyRef"] {
                let name = variable.pointer(&format!("/valueFrom/{kind}/name"));
                self.own_secret(
                    name,
                    &format!("{path}.env[{}].valueFrom.{kind}.name", text(variable, "name").unwrap_or("?")),
                );
            }
        }
        for source in elements(container, "envFrom") {
            for kind in ["secretRef", "configMapRef"] {
                self.own_secret(source.pointer(&format!("/{kind}/name")), &format!("{path}.envFrom.{kind}.name"));
            }
        }
    }

    /// The `securityContext` of a pod or a container.
    fn security(&mut self, context: &Value, path: &str) {
        let policy = self.policy;
        if on(context.pointer("/windowsOptions/hostProcess")) && !policy.privileged {
            self.refuse(&format!("{path}.windowsOptions.hostProcess"), "runs on the node itself", "remove it");
        }
        if policy.privileged {
            return;
        }
        let hint = "remove it, or allow it in the daemon's configuration (`privileged`)";
        for (field, why) in [
            ("privileged", "gives a container the node"),
            ("allowPrivilegeEscalation", "lets a process gain rights that its parent lacks"),
        ] {
            if on(context.get(field)) {
                self.refuse(&format!("{path}.{field}"), why, hint);
            }
        }
        for capability in context.get("capabilities").into_iter().flat_map(|capabilities| elements(capabilities, "add"))
        {
            let name = capability.as_str().unwrap_or("?");
            let plain = name.strip_prefix("CAP_").unwrap_or(name);
            if plain != "NET_BIND_SERVICE" && !policy.capabilities.contains(plain) {
                let why = format!("adds `{}`", name.escape_debug());
                let hint = "remove it, or allow it in the daemon's configuration (`capabilities`)";
                self.refuse(&format!("{path}.capabilities.add"), why, hint);
            }
        }
        if text(context, "procMount").is_some_and(|mount| mount != "Default") {
            self.refuse(&format!("{path}.procMount"), "shows the node's `/proc`", hint);
        }
        for profile in ["seccompProfile", "appArmorProfile"] {
            let kind = context.get(profile).and_then(|profile| text(profile, "type"));
            if kind == Some("Unconfined") {
                self.refuse(&format!("{path}.{profile}.type"), "takes the container out of its confinement", hint);
            }
        }
        if let Some(options) = context.get("seLinuxOptions") {
            let usual = SELINUX_TYPES.contains(&text(options, "type").unwrap_or_default());
            if !usual || text(options, "user").is_some() || text(options, "role").is_some() {
                self.refuse(&format!("{path}.seLinuxOptions"), "leaves the types of ordinary containers", hint);
            }
        }
    }

    /// A Secret or ConfigMap of Backstay's own is not for agents to read, nor its Deployment to scale.
    fn own_secret(&mut self, name: Option<&Value>, path: &str) {
        if name.and_then(Value::as_str).is_some_and(|name| self.policy.own_names.contains(name)) {
            self.refuse(path, "names an object of Backstay's own", "use one of the agent's own");
        }
    }
}
