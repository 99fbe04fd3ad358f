//! The kinds that a host has, and their paths.

use crate::ledger::{GROUP, VERSION};

/// One kind, as it is served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    /// Its name in paths.
    pub(super) plural: &'static str,
    /// Whether `status` is written apart from the rest.
    pub(super) has_status: bool,
}

/// What an agent is made of, what splits its requests, what keeps the one leader, and the ledger; and kinds that are kept and
/// have no effect on one machine (budgets, autoscalers, jobs), so that an agent's files need not differ. Who declares one is
/// told so.
pub(super) const KINDS: [Kind; 18] = [
    kind("", "v1", "ConfigMap", "configmaps", false),
    kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    kind("", "v1", "Pod", "pods", true),
    kind("", "v1", "Service", "services", true),
    kind("", "v1", "ServiceAccount", "serviceaccounts", false),
    kind("apps", "v1", "Deployment", "deployments", true),
    kind("apps", "v1", "ReplicaSet", "replicasets", true),
    kind("apps", "v1", "StatefulSet", "statefulsets", true),
    kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    kind("batch", "v1", "CronJob", "cronjobs", true),
    kind("batch", "v1", "Job", "jobs", true),
    kind("coordination.k8s.io", "v1", "Lease", "leases", false),
    kind("events.k8s.io", "v1", "Event", "events", false),
    kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", true),
    kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", false),
    kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    kind(GROUP, VERSION, "AgentRelease", "agentreleases", true),
    kind(GROUP, VERSION, "AgentEnvironment", "agentenvironments", true),
];

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    has_status: bool,
) -> Kind {
    Kind { group, version, kind, plural, has_status }
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Whose token is it (`selfsubjectreviews`).
    Myself,
    /// The versions of a group.
    Group(&'static str),
    /// The kinds of a group's version.
    Version(&'static str, &'static str),
    /// All objects of one kind in one namespace.
    Collection(&'static Kind, String),
    /// One object.
    Object(Key),
    /// The status of one object.
    Status(Key),
}

/// One object's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

// === impl Kind ===

impl Kind {
    /// `apps/v1`, or `v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

// === impl Place ===

impl Place {
    /// What `path` names; nothing where nothing is served.
    pub(super) fn of(path: &str) -> Option<Self> {
        let segments: Vec<String> = path.split('/').skip(1).map(decoded).collect::<Option<_>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, rest) = match segments.as_slice() {
            ["api", rest @ ..] => ("", rest),
            ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => return Some(Self::Myself),
            ["apis", group, rest @ ..] => (*group, rest),
            _ => return None,
        };
        let of_group = |kind: &&'static Kind| kind.group == group;
        let known = KINDS.iter().find(of_group)?;
        let find = |version: &str, plural: &str| {
            KINDS.iter().filter(of_group).find(|kind| kind.version == version && kind.plural == plural)
        };
        let key = |version: &str, namespace: &str, plural: &str, name: &str| {
            let kind = find(version, plural)?;
            Some(Key { kind, namespace: namespace.to_owned(), name: name.to_owned() })
        };
        match rest {
            [] => Some(Self::Group(known.group)),
            [version] => (*version == known.version).then_some(Self::Version(known.group, known.version)),
            [version, "namespaces", namespace, plural] => {
                Some(Self::Collection(find(version, plural)?, (*namespace).to_owned()))
            }
            [version, "namespaces", namespace, plural, name] => {
                Some(Self::Object(key(version, namespace, plural, name)?))
            }
            [version, "namespaces", namespace, plural, name, "status"] => {
                key(version, namespace, plural, name).filter(|key| key.kind.has_status).map(Self::Status)
            }
            _ => None,
        }
    }
}

/// A segment without its percent signs; nothing where it is empty or no UTF-8.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            bytes.push(digit(rest.next())? << 4 | digit(rest.next())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_place_or_nothing() {
        let Some(Place::Object(key)) = Place::of("/apis/apps/v1/namespaces/production/deployments/a%2Db") else {
            panic!("an object");
        };
        assert_eq!((key.kind.kind, &*key.namespace, &*key.name), ("Deployment", "production", "a-b"));
        assert!(
            matches!(Place::of("/api/v1/namespaces/n/pods"), Some(Place::Collection(kind, _)) if kind.kind == "Pod")
        );
        assert_eq!(Place::of("/apis/apps"), Some(Place::Group("apps")));
        assert_eq!(Place::of("/api/v1"), Some(Place::Version("", "v1")));
        for bad in [
            "",
            "/",
            "/apis/apps/v2",
            "/apis/storage.k8s.io/v1",
            "/api/v1/namespaces/n/secrets",
            "/api/v1/namespaces//pods",
            "/api/v1/namespaces/n/configmaps/x/status",
            "/api/v1/namespaces/n/pods/%zz",
        ] {
            assert_eq!(Place::of(bad), None, "{bad}");
        }
    }
}
