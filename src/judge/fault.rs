//! Whose fault a failing pod is.

use serde::{Deserialize, Serialize};

/// Whose fault a failure is. Only a failure that the release caused is quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The release's own.
    Release,
    /// Not the release's: quota, scheduling, registry, node, admission.
    Environment,
}

/// What a pod fails by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// A container ends again and again.
    CrashLoop,
    /// A container ran out of its memory limit.
    OutOfMemory,
    /// An init container fails.
    InitFailed,
    /// A container runs and is not ready.
    NotReady,
    /// A container runs and has not passed its startup probe.
    NotStarted,
    /// A Secret, a ConfigMap or a key that the container needs is missing, or its settings cannot be used.
    Config,
    /// The command cannot be run.
    Command,
    /// The image does not exist, or its name is none.
    NoImage,
    /// The image cannot be pulled for another reason.
    Pull,
    /// No node can take the pod.
    Unschedulable,
    /// A quota is used up.
    Quota,
    /// The API server refuses the pod.
    Admission,
    /// The node is gone, full or being drained.
    Node,
    /// The pod used more disk than it declared.
    Disk,
    /// Something else that the release did not cause.
    Other,
}
