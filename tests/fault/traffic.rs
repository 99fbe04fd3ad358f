//! Who has the agent's traffic: looked at before every write that could take it away.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use http::Request;
use serde_json::Value;

use crate::proxy::{Call, Look};
use crate::scene::{AGENT, path};

/// What stands between the users and the pods.
struct Traffic {
    pods: Vec<Value>,
    services: Vec<Value>,
    routes: Vec<Value>,
    deployments: Vec<Value>,
}

/// Looks at writes for what they take from the users.
pub(crate) fn look() -> Look {
    Arc::new(|client, namespace, call, body| async move { lost(&client, &namespace, &call, &body).await }.boxed())
}

/// What a write takes from the users: T1.
///
/// Ready pods are never left for none, neither by the selector of the agent's Service, nor by the weights of its route, nor by
/// the end of the set that they are in; and weights sum to the whole.
async fn lost(client: &kube::Client, namespace: &str, call: &Call, body: &Value) -> Vec<String> {
    let deletes = call.verb == "delete";
    let kind = call.resource.as_str();
    let concerns = match kind {
        "services" | "gateway.networking.k8s.io/httproutes" => deletes || body.is_object(),
        "apps/deployments" => deletes || body.pointer("/spec/replicas").is_some_and(|count| *count == 0),
        _ => false,
    };
    if !concerns {
        return vec![];
    }
    let now = Traffic::look(client, namespace).await;
    match kind {
        "services" if call.name == AGENT && !deletes => now.selected(&body["spec"]["selector"]),
        "services" if deletes => now.without(|pod| now.is_behind(&call.name, pod), &call.name),
        "services" => vec![],
        "apps/deployments" => {
            let set = now.deployments.iter().find(|set| set["metadata"]["name"] == *call.name);
            let selector = set.map(|set| set["spec"]["selector"]["matchLabels"].clone()).unwrap_or_default();
            now.without(|pod| selects(&selector, pod), &call.name)
        }
        _ if deletes => vec!["the route is deleted".to_owned()],
        _ => now.split(body),
    }
}

/// Whether all labels of a selector are a pod's; an empty one selects nothing.
fn selects(selector: &Value, pod: &Value) -> bool {
    let wanted = selector.as_object().into_iter().flatten();
    wanted.clone().count() > 0 && wanted.into_iter().all(|(label, value)| pod["metadata"]["labels"][label] == *value)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    pod["metadata"]["deletionTimestamp"].is_null() && conditions.is_some_and(|all| all.iter().any(ready))
}

/// The weights of the rule that all requests come to, by the name of the Service.
fn weights(route: &Value) -> BTreeMap<String, u64> {
    let rules = route["spec"]["rules"].as_array().into_iter().flatten();
    let backends = rules.filter_map(|rule| rule["backendRefs"].as_array()).next_back().into_iter().flatten();
    backends.map(|to| (to["name"].to_string().replace('"', ""), to["weight"].as_u64().unwrap_or(1))).collect()
}

// === impl Traffic ===

impl Traffic {
    async fn look(client: &kube::Client, namespace: &str) -> Self {
        let list = async |collection: &str| {
            let request = Request::get(path(namespace, collection)).body(Vec::new()).expect("a request");
            let found = client.request::<Value>(request).await.unwrap_or_default();
            let ours = |object: &Value| object["metadata"]["labels"]["backstay.dev/agent"] == AGENT;
            found["items"].as_array().into_iter().flatten().filter(|object| ours(object)).cloned().collect::<Vec<_>>()
        };
        let mut pods: Vec<Value> = list("pods").await;
        pods.retain(is_ready);
        Self {
            pods,
            services: list("services").await,
            routes: list("gateway.networking.k8s.io/v1/httproutes").await,
            deployments: list("apps/v1/deployments").await,
        }
    }

    /// Whether a pod is behind the Service of this name.
    fn is_behind(&self, service: &str, pod: &Value) -> bool {
        let named = self.services.iter().find(|found| found["metadata"]["name"] == service);
        named.is_some_and(|found| selects(&found["spec"]["selector"], pod))
    }

    fn count(&self, is: impl Fn(&Value) -> bool) -> usize {
        self.pods.iter().filter(|pod| is(pod)).count()
    }

    /// The agent's Service gets this selector.
    fn selected(&self, selector: &Value) -> Vec<String> {
        let (before, after) = (self.count(|pod| self.is_behind(AGENT, pod)), self.count(|pod| selects(selector, pod)));
        let lost = before > 0 && after == 0;
        lost.then(|| format!("T1: the Service leaves {before} ready pods for none by {selector}")).into_iter().collect()
    }

    /// These pods go.
    fn without(&self, gone: impl Fn(&Value) -> bool, what: &str) -> Vec<String> {
        let mut fronts = vec![AGENT.to_owned()];
        for route in &self.routes {
            fronts.extend(weights(route).into_iter().filter(|(_, weight)| *weight > 0).map(|(name, _)| name));
        }
        let mut lost = vec![];
        for front in fronts {
            let before = self.count(|pod| self.is_behind(&front, pod));
            let after = self.count(|pod| self.is_behind(&front, pod) && !gone(pod));
            if before > 0 && after == 0 {
                lost.push(format!("T1: {what} goes with all {before} ready pods behind {front}"));
            }
        }
        lost
    }

    /// The route gets these weights.
    fn split(&self, route: &Value) -> Vec<String> {
        let weights = weights(route);
        let mut wrong = vec![];
        if weights.values().sum::<u64>() != 100 {
            wrong.push(format!("T1: the weights are {weights:?}"));
        }
        let ready = |name: &str| self.count(|pod| self.is_behind(name, pod));
        let some = weights.keys().any(|name| ready(name) > 0);
        for (name, _) in weights.iter().filter(|(name, weight)| **weight > 0 && some && ready(name) == 0) {
            wrong.push(format!("T1: the weights {weights:?} lead to {name}, which has no ready pod"));
        }
        wrong
    }
}
