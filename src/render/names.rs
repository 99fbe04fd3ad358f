//! The names, labels and annotations of what is rendered. Load-bearing: selectors cannot change, and what runs is known
//! by them after a ledger was lost.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::model::{AgentName, ReleaseId, WorkerName};

use super::Set;

/// The field manager of everything that is rendered.
pub const FIELD_MANAGER: &str = "backstay";
/// The field manager of an agent's own HTTPRoute: who looks at a route sees at once who moves the traffic.
pub const TRAFFIC_MANAGER: &str = "backstay-traffic";
/// Labels and annotations that begin so are Backstay's own.
pub const RESERVED_PREFIX: &str = "backstay.dev/";
/// Label: the agent.
pub const AGENT_LABEL: &str = "backstay.dev/agent";
/// Label: `main` or the worker.
pub const PROCESS_LABEL: &str = "backstay.dev/process";
/// Label: `rolling`, or the short id of the one release that the Deployment runs.
pub const SET_LABEL: &str = "backstay.dev/set";
/// Label of pods, Deployments and ConfigMaps: the release's short id.
pub const RELEASE_LABEL: &str = "backstay.dev/release";
/// Label of people's tools: the agent.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label of people's tools: [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "backstay";
/// Label of KEP-3659: the ApplySet that an object is part of.
pub const PART_OF_LABEL: &str = "applyset.kubernetes.io/part-of";
/// Annotation: the whole digest of the release.
pub const RELEASE_ID_ANNOTATION: &str = "backstay.dev/release-id";
/// Annotation: the installation that made the object.
pub const INSTALLATION_ANNOTATION: &str = "backstay.dev/installation";
/// Annotation: the version of the renderer.
pub const RENDERER_ANNOTATION: &str = "backstay.dev/renderer";
/// Annotation: the operation that created the object.
pub const OPERATION_ANNOTATION: &str = "backstay.dev/operation";
/// Annotation of a Job: the name that it was declared with.
pub const JOB_ANNOTATION: &str = "backstay.dev/job";
/// Annotation in `manifests/`: JSON pointers to fields that are left to others, separated by white space or commas.
pub const IGNORE_ANNOTATION: &str = "backstay.dev/ignore";
/// Annotation of a host's pods: the artifact, `sha256:<hex>`.
pub const ARTIFACT_ANNOTATION: &str = "backstay.dev/artifact";
/// Annotation of a host's Deployments: where the artifact's bytes come from, an `ArtifactSource` as JSON.
pub const ARTIFACT_SOURCE_ANNOTATION: &str = "backstay.dev/artifact-source";
/// Annotation of a host's Service and HTTPRoute: how requests from outside reach the agent, `{"hosts": […], "path": "/"}`.
pub const ROUTE_ANNOTATION: &str = "backstay.dev/route";
/// Annotation of a host's Service and HTTPRoute: how requests in flight are ended, `{"mode": "finish", "max": "600s"}`.
pub const DRAIN_ANNOTATION: &str = "backstay.dev/drain";
/// Annotation of a host's HTTPRoute: what its proxy does beside the weights, a `HostSplit` as JSON.
pub const SPLIT_ANNOTATION: &str = "backstay.dev/split";
/// The value of the label [`SET_LABEL`] of a Deployment that goes from release to release.
pub const ROLLING_SET: &str = "rolling";
/// What answers for the routes of a host: the name of their only parent.
pub const HOST_PARENT: &str = "proxy";
/// Who says in a host's HTTPRoute that it is in force.
pub const HOST_CONTROLLER: &str = "backstay.dev/proxy";
/// Where an agent finds its release's files.
pub const AGENT_DIR: &str = "/etc/backstay/agent";

/// The Deployment of a process: `<agent>[--<worker>]`, and `--<id>` where each release has its own.
pub fn deployment_name(agent: &AgentName, worker: Option<&WorkerName>, set: Set, release: &ReleaseId) -> String {
    let mut name = agent.to_string();
    if let Some(worker) = worker {
        let _ = write!(name, "--{worker}");
    }
    if set == Set::PerRelease {
        let _ = write!(name, "--{release}");
    }
    name
}

/// The ConfigMap with a release's files: `<agent>--<id>`.
pub fn config_map_name(agent: &AgentName, release: &ReleaseId) -> String {
    format!("{agent}--{release}")
}

/// The Service of one set, for routes: `<agent>--rolling` or `<agent>--<id>`.
pub fn service_name(agent: &AgentName, set: Set, release: &ReleaseId) -> String {
    format!("{agent}--{}", set.label(release))
}

/// The id of an agent's ApplySet, whose parent is its `AgentRelease` (KEP-3659).
pub fn applyset_id(agent: &AgentName, namespace: &str) -> String {
    let digest = Sha256::digest(format!("{agent}.{namespace}.AgentRelease.backstay.dev"));
    let url = base64(&digest).replace('+', "-").replace('/', "_");
    format!("applyset-{}-v1", url.trim_end_matches('='))
}

/// Base64 (RFC 4648, section 4), as Secrets and ConfigMaps carry bytes.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let six = (group >> (18 - 6 * digit)) & 63;
            let padding = usize::try_from(digit).is_ok_and(|digit| digit > chunk.len());
            text.push(if padding { '=' } else { DIGITS[six as usize].into() });
        }
    }
    text
}

/// The bytes that a text of [`base64`] stands for; nothing where it is none.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (digits, end) = text.as_bytes().as_chunks::<4>();
    if !end.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3);
    for (at, four) in digits.iter().enumerate() {
        let padding =
            if at + 1 == digits.len() { four.iter().rev().take_while(|digit| **digit == b'=').count() } else { 0 };
        let mut group = 0;
        for digit in &four[..4 - padding.min(2)] {
            let six = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(six);
        }
        let [_, whole @ ..] = (group << (6 * padding.min(2))).to_be_bytes();
        bytes.extend_from_slice(&whole[..3 - padding.min(2)]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 4648, section 10.
    #[test]
    fn base64_as_the_rfc_has_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
        assert_eq!(from_base64("+/8="), Some(vec![0xfb, 0xff]));
        for wrong in ["Zg", "Zg=", "Zg==Zg==", "Z===", "Zm9!", "====", "Zm 9"] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_applyset_id_fits_a_label() {
        let agent = "support".parse().expect("a name");
        let id = applyset_id(&agent, "agents");
        assert!(id.len() <= 63 && id.starts_with("applyset-") && id.ends_with("-v1"), "{id}");
        assert_ne!(id, applyset_id(&agent, "others"));
    }

    #[test]
    fn names_fit_kubernetes() {
        let agent: AgentName = "a".repeat(30).parse().expect("a name");
        let worker: WorkerName = "w".repeat(12).parse().expect("a name");
        let release = ReleaseId::of(b"release");
        assert!(deployment_name(&agent, Some(&worker), Set::PerRelease, &release).len() <= 63);
        assert_eq!(deployment_name(&agent, None, Set::Rolling, &release), agent.as_str());
    }
}
