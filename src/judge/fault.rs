//! Whose fault a failing pod is, from what the API server says about it.
//!
//! Sentences are made of names, counts and exit codes. What a container or a registry said is never repeated: it may hold
//! a value of the environment, a secret, or a signed address.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::health::{at, condition, is_ready, list, number, text};
use super::host;
use crate::model::{Timestamp, one_line};

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
    /// A Secret, a ConfigMap or a key that the container needs is missing, or its settings cannot be used.
    Config,
    /// The command cannot be run.
    Command,
    /// The image does not exist, or its name is none.
    NoImage,
    /// A container ends again and again.
    CrashLoop,
    /// A container ran out of its memory limit.
    OutOfMemory,
    /// An init container fails.
    InitFailed,
    /// The pod used more disk than it declared.
    Disk,
    /// A container runs and has not passed its startup probe in time.
    NotStarted,
    /// A container runs and its readiness probe fails.
    NotReady,
    /// No node can take the pod.
    Unschedulable,
    /// A quota is used up.
    Quota,
    /// The API server refuses the pod.
    Admission,
    /// The image cannot be pulled, and may well exist.
    Pull,
    /// The node is gone, full or being drained.
    Node,
    /// Something else that the release did not cause.
    Other,
}

/// One thing that keeps a release from being healthy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Whose fault it is.
    pub fault: Fault,
    /// What it is.
    pub cause: Cause,
    /// The pod, or the ReplicaSet that could make none.
    pub object: String,
    /// The container, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Names the pod, the container and the cause, in one sentence without a full stop. Never a value of the
    /// environment or a Secret.
    pub sentence: String,
    /// Whether waiting would hardly heal it. A first crash or a failing probe may pass; a missing command does not
    /// appear.
    pub certain: bool,
}

/// Restarts after which a crash loop is no start that takes two attempts.
const RESTARTS: i64 = 3;
/// Words from a server that are repeated, in characters.
const LONGEST: usize = 240;

/// A message of the control plane, cut and without control characters.
pub(super) fn safe(message: &str) -> String {
    one_line(message, LONGEST, ' ').trim().trim_end_matches('.').to_owned()
}

/// A name from a server: cut, and without anything that is no name.
fn name(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "-._/:@[]".contains(*c)).take(LONGEST).collect()
}

/// Why the API server refused to make a pod: cause and sentence.
pub(super) fn refused_creation(message: &str) -> (Cause, String) {
    if let Some((_, quota)) = message.split_once("exceeded quota: ") {
        return (Cause::Quota, format!("the quota is used up: {}", safe(quota)));
    }
    if let Some((_, webhook)) = message.split_once("admission webhook \"") {
        let webhook = webhook.split('"').next().unwrap_or_default();
        return (Cause::Admission, format!("the admission webhook `{}` refuses its pods", name(webhook)));
    }
    if message.contains("violates PodSecurity") {
        return (Cause::Admission, "the namespace's Pod Security level refuses its pods".to_owned());
    }
    if message.contains("serviceaccount") && message.contains("not found") {
        return (Cause::Admission, "its ServiceAccount does not exist".to_owned());
    }
    if message.contains("limits.") || message.contains("maximum") || message.contains("minimum") {
        return (Cause::Admission, "a LimitRange of the namespace refuses its pods".to_owned());
    }
    (Cause::Admission, "the API server refuses its pods".to_owned())
}

/// What keeps a pod from being ready, the init containers first.
///
/// A running container that is not ready is evidence only after its probe's own patience, which takes `now`; without it
/// nothing is said about such containers. A pod that is ready, has completed or is being deleted has no findings.
pub(super) fn pod_findings(pod: &Value, now: Option<Timestamp>) -> Vec<Finding> {
    let phase = text(pod, &["status", "phase"]);
    if is_ready(pod) || phase == "Succeeded" || at(pod, &["metadata", "deletionTimestamp"]).is_some() {
        return vec![];
    }
    let pod_name = text(pod, &["metadata", "name"]);
    let of_pod = |fault: Fault, cause: Cause, what: &str, certain: bool| Finding {
        fault,
        cause,
        object: format!("Pod/{pod_name}"),
        container: None,
        sentence: format!("pod `{pod_name}` {what}"),
        certain,
    };
    if phase == "Failed"
        && let Some((fault, cause, what)) =
            failed_pod(text(pod, &["status", "reason"]), text(pod, &["status", "message"]))
    {
        return vec![of_pod(fault, cause, what, false)];
    }
    if condition(pod, "DisruptionTarget").is_some_and(|target| target.status == "True")
        || text(pod, &["status", "reason"]) == "NodeLost"
    {
        return vec![of_pod(Fault::Environment, Cause::Node, "is being taken from its node", false)];
    }
    if let Some(scheduled) = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False") {
        let what = match scheduled.reason {
            "SchedulingGated" => "waits for a scheduling gate".to_owned(),
            _ if scheduled.message.is_empty() => "has no node yet".to_owned(),
            _ => format!("fits on no node: {}", safe(scheduled.message)),
        };
        return vec![of_pod(Fault::Environment, Cause::Unschedulable, &what, false)];
    }
    let on_host = host::is_process(pod);
    let mut findings = vec![];
    for (statuses, specs, init) in
        [("initContainerStatuses", "initContainers", true), ("containerStatuses", "containers", false)]
    {
        for status in list(pod, &["status", statuses]) {
            let container = text(status, &["name"]);
            let spec = list(pod, &["spec", specs]).iter().find(|spec| text(spec, &["name"]) == container);
            let sidecar = spec.is_some_and(|spec| text(spec, &["restartPolicy"]) == "Always");
            if let Some((fault, cause, what, certain)) = container_failure(status, spec, init && !sidecar, now) {
                findings.push(Finding {
                    fault,
                    cause,
                    object: format!("Pod/{pod_name}"),
                    container: Some(container.to_owned()),
                    sentence: if on_host {
                        format!("process `{pod_name}` {what}")
                    } else {
                        format!("container `{container}` of pod `{pod_name}` {what}")
                    },
                    certain,
                });
            }
        }
    }
    let statuses = list(pod, &["status", "containerStatuses"]);
    let all_ready =
        !statuses.is_empty() && statuses.iter().all(|status| at(status, &["ready"]) == Some(&Value::Bool(true)));
    if findings.is_empty() && all_ready && phase == "Running" {
        let gated = !list(pod, &["spec", "readinessGates"]).is_empty();
        let (cause, what) = if gated {
            (Cause::Other, "waits for a readiness gate")
        } else {
            (Cause::Node, "is on a node that does not answer")
        };
        findings.push(of_pod(Fault::Environment, cause, what, false));
    }
    findings
}

/// What a whole pod failed by; nothing where its containers say it.
fn failed_pod(reason: &str, message: &str) -> Option<(Fault, Cause, &'static str)> {
    match reason {
        "Evicted" if message.contains("ephemeral") && message.contains("exceed") => {
            Some((Fault::Release, Cause::Disk, "used more disk than its limit allows"))
        }
        "Evicted" if message.contains("EmptyDir volume") && message.contains("exceed") => {
            Some((Fault::Release, Cause::Disk, "filled a volume beyond its limit"))
        }
        "Evicted" => Some((Fault::Environment, Cause::Node, "was evicted: its node ran short")),
        "DeadlineExceeded" => Some((Fault::Release, Cause::Other, "ran longer than its `activeDeadlineSeconds`")),
        "" => None,
        _ => Some((Fault::Environment, Cause::Node, "was ended by its node")),
    }
}

/// Whose fault, what, in which words, and whether it is certain.
pub(super) type Failure = (Fault, Cause, String, bool);

fn container_failure(status: &Value, spec: Option<&Value>, init: bool, now: Option<Timestamp>) -> Option<Failure> {
    let restarts = number(status, &["restartCount"]).unwrap_or(0);
    if let Some(waiting) = at(status, &["state", "waiting"]) {
        return waiting_failure(status, text(waiting, &["reason"]), text(waiting, &["message"]), restarts, init);
    }
    if let Some(ended) = at(status, &["state", "terminated"]) {
        let code = number(ended, &["exitCode"]).unwrap_or(0);
        return if init && code == 0 { None } else { Some(ended_failure(ended, restarts, init)) };
    }
    let started = at(status, &["state", "running", "startedAt"])?;
    // An init container that runs is on its way; it has no readiness.
    if init || at(status, &["ready"]) == Some(&Value::Bool(true)) {
        return None;
    }
    let last = at(status, &["lastState", "terminated"]);
    if let Some(last) = last.filter(|_| restarts >= RESTARTS) {
        return Some(ended_failure(last, restarts, init));
    }
    let now = now?;
    let started: Timestamp = started.as_str()?.parse().ok()?;
    let waits_for_startup = at(status, &["started"]) == Some(&Value::Bool(false));
    let probe = if waits_for_startup { "startupProbe" } else { "readinessProbe" };
    let probe = spec.and_then(|spec| at(spec, &[probe]));
    let startup = spec.and_then(|spec| at(spec, &["startupProbe"])).filter(|_| !waits_for_startup);
    let patience = probe.map_or(0, patience) + startup.map_or(0, patience);
    let ran = now.as_second().saturating_sub(started.as_second());
    if ran < patience {
        return None;
    }
    let again = if restarts > 0 { format!(", restarted {restarts} times") } else { String::new() };
    Some(if waits_for_startup {
        (
            Fault::Release,
            Cause::NotStarted,
            format!("has run for {ran} s without passing its startup probe{again}"),
            false,
        )
    } else {
        (
            Fault::Release,
            Cause::NotReady,
            format!("has run for {ran} s and is not ready: its readiness probe fails{again}"),
            false,
        )
    })
}

/// Seconds until a probe that fails from the start has failed for good.
fn patience(probe: &Value) -> i64 {
    let of = |field: &str, default: i64| number(probe, &[field]).filter(|n| *n > 0).unwrap_or(default);
    let delay = number(probe, &["initialDelaySeconds"]).unwrap_or(0).max(0);
    delay
        .saturating_add(of("periodSeconds", 10).saturating_mul(of("failureThreshold", 3)))
        .saturating_add(of("timeoutSeconds", 1))
}

/// A container that ended, or ends again and again.
fn ended_failure(ended: &Value, restarts: i64, init: bool) -> Failure {
    let code = number(ended, &["exitCode"]).unwrap_or(0);
    let certain = restarts >= RESTARTS;
    let times = match restarts {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        n => format!(", restarted {n} times"),
    };
    match text(ended, &["reason"]) {
        "OOMKilled" => (Fault::Release, Cause::OutOfMemory, format!("ran out of its memory limit{times}"), certain),
        "StartError" | "ContainerCannotRun" => {
            (Fault::Release, Cause::Command, format!("cannot run its command{times}"), true)
        }
        "ContainerStatusUnknown" => (Fault::Environment, Cause::Node, format!("was lost by its node{times}"), false),
        _ => {
            let cause = if init { Cause::InitFailed } else { Cause::CrashLoop };
            (Fault::Release, cause, format!("ended with exit code {code}{times}"), certain)
        }
    }
}

fn waiting_failure(status: &Value, reason: &str, message: &str, restarts: i64, init: bool) -> Option<Failure> {
    let has = |words: &[&str]| {
        let message = message.to_ascii_lowercase();
        words.iter().any(|word| message.contains(word))
    };
    let image = || {
        let image = name(text(status, &["image"]));
        if image.is_empty() { "its image".to_owned() } else { format!("its image `{image}`") }
    };
    if let Some(failure) = host::failure(reason, message) {
        return Some(failure);
    }
    match reason {
        "CrashLoopBackOff" => {
            let none = Value::Null;
            let last = at(status, &["lastState", "terminated"]).unwrap_or(&none);
            let (fault, cause, what, certain) = ended_failure(last, restarts, init);
            let what = if last.is_null() { format!("ends again and again, restarted {restarts} times") } else { what };
            Some((fault, cause, what, certain))
        }
        "CreateContainerConfigError" if has(&["timed out", "timeout", "failed to sync", "not registered"]) => {
            let what = "waits for its node to see its configuration";
            Some((Fault::Environment, Cause::Other, what.to_owned(), false))
        }
        "CreateContainerConfigError" => Some((Fault::Release, Cause::Config, config_error(message), true)),
        "CreateContainerError" if has(&["is not enrolled"]) => {
            Some((Fault::Environment, Cause::Other, format!("cannot be started: {}", safe(message)), false))
        }
        "RunContainerError" | "CreateContainerError" => {
            if has(&["no space left", "deadline exceeded", "timed out", "timeout", "connection", "is reserved", "shim"])
            {
                Some((Fault::Environment, Cause::Other, "cannot be made by its node".to_owned(), false))
            } else if reason == "RunContainerError"
                || has(&[
                    "no such file",
                    "executable file not found",
                    "permission denied",
                    "exec format",
                    "no command specified",
                ])
            {
                Some((Fault::Release, Cause::Command, "cannot run its command".to_owned(), true))
            } else {
                Some((Fault::Environment, Cause::Other, "cannot be made by its node".to_owned(), false))
            }
        }
        "PostStartHookError" | "PreStartHookError" => {
            Some((Fault::Release, Cause::Command, "fails in its start hook".to_owned(), restarts >= RESTARTS))
        }
        "InvalidImageName" => {
            Some((Fault::Release, Cause::NoImage, format!("has a name for {} that is none", image()), true))
        }
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "ErrImageNeverPull"
        | "SignatureValidationFailed" => {
            // A registry that cannot be reached may say "not found" of a host; it says nothing about the image.
            let away = [
                "no such host",
                "i/o timeout",
                "timeout",
                "refused",
                "unreachable",
                "deadline exceeded",
                "tls",
                "x509",
                "toomanyrequests",
                "too many requests",
                "500 ",
                "502 ",
                "503 ",
                "504 ",
                "eof",
                "reset by peer",
                "server misbehaving",
            ];
            let gone = [
                "manifest unknown",
                "manifest_unknown",
                "name unknown",
                "name_unknown",
                "not found",
                "notfound",
                "404",
            ];
            if has(&away) {
                Some((
                    Fault::Environment,
                    Cause::Pull,
                    format!("cannot pull {}: the registry does not answer", image()),
                    false,
                ))
            } else if has(&["denied", "unauthorized", "authorization", "authentication", "forbidden"]) {
                // Registries answer so for images that are missing as well as for those that need an account.
                Some((Fault::Environment, Cause::Pull, format!("may not pull {}", image()), false))
            } else if has(&gone) {
                Some((Fault::Release, Cause::NoImage, format!("cannot pull {}: it does not exist", image()), true))
            } else {
                Some((Fault::Environment, Cause::Pull, format!("cannot pull {}", image()), false))
            }
        }
        // ContainerCreating, PodInitializing, and what later versions add.
        _ => None,
    }
}

/// The sentences of the kubelet that name a missing object or key, taken apart and put together again.
fn config_error(message: &str) -> String {
    // A kubelet names the kind in the singular; an API server that it asks, in the plural.
    let kinds = [("secret", "Secret"), ("secrets", "Secret"), ("configmap", "ConfigMap"), ("configmaps", "ConfigMap")];
    for (prefix, kind) in kinds.map(|(word, kind)| (format!("{word} \""), kind)) {
        if let Some((_, rest)) = message.split_once(&prefix)
            && let Some((object, rest)) = rest.split_once('"')
            && rest.starts_with(" not found")
        {
            return format!("needs the {kind} `{}`, which does not exist", name(object));
        }
    }
    if let Some((_, rest)) = message.split_once("couldn't find key ")
        && let Some((key, rest)) = rest.split_once(" in ")
    {
        let mut words = rest.split_whitespace();
        let (kind, object) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        return format!("needs the key `{}` of the {} `{}`, which does not exist", name(key), name(kind), name(object));
    }
    if message.contains("runAsNonRoot") {
        return "must not run as root, and its image does".to_owned();
    }
    "has a configuration that cannot be used".to_owned()
}
