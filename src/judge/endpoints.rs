//! Where a Service leads, by its slices of endpoints (`discovery.k8s.io/v1`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::{GroupKind, LiveState};

const GROUP: &str = "discovery.k8s.io";
const KIND: &str = "EndpointSlice";
/// The label of a slice that names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The kind that tells where Services lead.
pub fn endpoint_slices() -> GroupKind {
    GroupKind { group: GROUP.to_owned(), kind: KIND.to_owned() }
}

/// How many ready endpoints a Service of an agent has; nothing where slices are not watched, or not seen whole.
///
/// They follow the readiness of pods within milliseconds, or after a second where their controller has to try again. Until
/// then a gateway that is told to send requests there has nowhere to send them. A Service with a selector has a slice even
/// where nobody is behind it, so that an agent without any has none that are watched.
pub fn endpoints(live: &LiveState, service: &str) -> Option<u32> {
    if live.unseen.contains_key(&endpoint_slices()) {
        return None;
    }
    let mut are_watched = false;
    // Each family of addresses has slices of its own.
    let mut by_family: BTreeMap<&str, u32> = BTreeMap::new();
    for slice in live.of_kind(GROUP, KIND) {
        are_watched = true;
        if slice.label(SERVICE_LABEL) != Some(service) {
            continue;
        }
        let family = slice.body.get("addressType").and_then(Value::as_str).unwrap_or_default();
        let all = slice.body.get("endpoints").and_then(Value::as_array).into_iter().flatten();
        // Absent is unknown, which is to be taken for ready.
        let ready = all.filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)));
        *by_family.entry(family).or_default() += u32::try_from(ready.count()).unwrap_or(u32::MAX);
    }
    are_watched.then(|| by_family.into_values().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::LiveObject;

    fn slice(name: &str, service: &str, family: &str, ready: &[Option<bool>]) -> LiveObject {
        let endpoint = |ready: &Option<bool>| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}});
        let metadata = json!({"name": name, "namespace": "n", "uid": name, "resourceVersion": "1",
            "labels": {SERVICE_LABEL: service}});
        LiveObject::of(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": KIND, "metadata": metadata, "addressType": family,
            "endpoints": ready.iter().map(endpoint).collect::<Vec<_>>(),
        }))
        .expect("an object")
    }

    fn live(slices: Vec<LiveObject>) -> LiveState {
        let objects = slices.into_iter().map(|slice| (slice.object.clone(), Arc::new(slice))).collect();
        LiveState { objects, synced: true, ..LiveState::default() }
    }

    #[test]
    fn the_ready_ones_of_one_family_count_and_unknown_is_ready() {
        let two = live(vec![
            slice("a", "support--r", "IPv4", &[Some(true), Some(false), None]),
            slice("b", "support--r", "IPv4", &[Some(true)]),
            slice("c", "support--r", "IPv6", &[Some(true), Some(true)]),
            slice("d", "support--other", "IPv4", &[Some(true); 9]),
        ]);
        assert_eq!(endpoints(&two, "support--r"), Some(3));
        assert_eq!(endpoints(&two, "support--new"), Some(0), "its slice is still to come");
    }

    #[test]
    fn what_is_not_watched_or_not_seen_whole_says_nothing() {
        assert_eq!(endpoints(&live(vec![]), "support--r"), None);
        let mut unseen = live(vec![slice("a", "support--r", "IPv4", &[])]);
        unseen.unseen.insert(endpoint_slices(), "forbidden".to_owned());
        assert_eq!(endpoints(&unseen, "support--r"), None);
    }
}
