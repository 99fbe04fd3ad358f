//! The HTTPRoute of an agent, as the supervisor reads it: which releases share its requests, and how.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::render::{HostSplit, ROUTE_GROUP, ROUTE_KIND, SPLIT_ANNOTATION};

/// The object, of which no more is read than is acted on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct HttpRoute {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(super) status: Value,
}

/// What it asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    /// In their order: stable, then the candidate.
    pub(super) backends: Vec<BackendRef>,
    /// The Service that gets a copy of each request.
    pub(super) mirror: Option<String>,
    pub(super) split: HostSplit,
    /// Why not all of it can be done.
    pub(super) unreadable: Option<String>,
}

/// A Service with its weight.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct BackendRef {
    pub(super) name: String,
    /// Proportional: what it is of all weights counts.
    #[serde(default = "one")]
    pub(super) weight: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    backend_refs: Vec<BackendRef>,
    #[serde(default)]
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    request_mirror: Option<Mirror>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mirror {
    backend_ref: BackendRef,
}

/// The weight of a backend that says none (Gateway API v1).
fn one() -> u32 {
    1
}

// === impl HttpRoute ===

impl HttpRoute {
    /// What it asks for: the weights of its last rule, and what its annotation says beside them.
    pub(super) fn asked(&self) -> Asked {
        let last = self.spec.get("rules").and_then(Value::as_array).and_then(|rules| rules.last());
        let rule = last.map(Rule::deserialize).transpose();
        let split = self.annotations().get(SPLIT_ANNOTATION).map(|text| serde_json::from_str(text)).transpose();
        let unreadable = match (&rule, &split) {
            (Err(error), _) => Some(format!("its last rule cannot be read: {error}")),
            (_, Err(error)) => Some(format!("`{SPLIT_ANNOTATION}` cannot be read: {error}")),
            (Ok(Some(rule)), _) if rule.backend_refs.len() > 2 => {
                Some("more than two backends share the requests".to_owned())
            }
            (Ok(_), Ok(_)) => None,
        };
        let mut rule = rule.ok().flatten().unwrap_or(Rule { backend_refs: vec![], filters: vec![] });
        rule.backend_refs.truncate(2);
        let mirror = rule.filters.into_iter().find_map(|filter| filter.request_mirror);
        Asked {
            backends: rule.backend_refs,
            mirror: mirror.map(|mirror| mirror.backend_ref.name),
            split: split.ok().flatten().unwrap_or_default(),
            unreadable,
        }
    }

    pub(super) fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or(0)
    }
}

impl Resource for HttpRoute {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        ROUTE_KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        ROUTE_GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "httproutes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(annotation: &str, rules: &Value) -> Asked {
        let route = json!({"metadata": {"name": "support", "annotations": {SPLIT_ANNOTATION: annotation}},
            "spec": {"rules": rules}});
        serde_json::from_value::<HttpRoute>(route).expect("a route").asked()
    }

    #[test]
    fn the_last_rule_has_the_weights() {
        let rules = json!([
            {"backendRefs": [{"name": "new"}]},
            {"backendRefs": [{"name": "old", "port": 80, "weight": 95}, {"name": "new"}],
             "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "new", "port": 80}}}]},
        ]);
        let asked = asked(r#"{"preview": "p.example"}"#, &rules);
        let backends = [("old", 95), ("new", 1)].map(|(name, weight)| BackendRef { name: name.to_owned(), weight });
        assert_eq!((&asked.backends[..], asked.mirror.as_deref()), (&backends[..], Some("new")));
        assert_eq!((asked.split.preview.as_deref(), asked.unreadable), (Some("p.example"), None));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_the_weights_hold() {
        let rules = json!([{"backendRefs": [{"name": "old"}]}]);
        let one = asked("{", &rules);
        assert!(one.unreadable.is_some() && one.backends.len() == 1 && one.split == HostSplit::default(), "{one:?}");
        let none = asked("{}", &json!([{"backendRefs": 7}]));
        assert!(none.unreadable.is_some() && none.backends.is_empty(), "{none:?}");
        let many = asked("{}", &json!([{"backendRefs": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}]));
        assert!(many.unreadable.is_some() && many.backends.len() == 2, "{many:?}");
    }
}
