//! Whole stories of two releases behind one route, on plain values.

use std::sync::Arc;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::decide::Deed;
use super::http_route::HttpRoute;
use super::status;
use super::story_tests::{Host, KEEP, agent, release};
use crate::desired::rollout::{Field, Match};
use crate::model::{ReleaseId, Timestamp};
use crate::proxy::{Arm, Role, StickyBy, WHOLE};
use crate::render::{
    AGENT_LABEL, HostSplit, PROCESS_LABEL, RELEASE_ID_ANNOTATION, SET_LABEL, SPLIT_ANNOTATION, Set, deployment_name,
    service_name,
};

/// The Deployment of a release of its own.
fn own(of: &str) -> String {
    deployment_name(&agent(), None, Set::PerRelease, &release(of))
}

/// The Service in front of it.
fn service(of: &str) -> String {
    service_name(&agent(), Set::PerRelease, &release(of))
}

// === impl Host ===

impl Host {
    /// Declares a process of a release that has Deployments of its own, and the release's Service.
    fn apply_own(&mut self, process: &str, of: &str, replicas: u32) {
        let id = release(of);
        let worker = (process != "main").then(|| process.parse().unwrap());
        let name = deployment_name(&agent(), worker.as_ref(), Set::PerRelease, &id);
        let labels = json!({AGENT_LABEL: "support", PROCESS_LABEL: process, SET_LABEL: id.short()});
        let known = self.view.deployments.iter().find(|one| one.name_any() == name).and_then(|one| one.uid());
        let uid = known.unwrap_or_else(|| self.uid());
        let deployment = json!({
            "metadata": {"name": name, "uid": uid, "generation": 1, "labels": labels},
            "spec": {"replicas": replicas, "selector": {}, "template": {
                "metadata": {"labels": labels, "annotations": {RELEASE_ID_ANNOTATION: id.digest().to_string()}},
                "spec": {"containers": [{"name": "agent"}]},
            }},
        });
        self.view.deployments.retain(|one| one.name_any() != name);
        self.view.deployments.push(Arc::new(serde_json::from_value(deployment).unwrap()));
        if process == "main" {
            let named = service(of);
            let object = json!({"metadata": {"name": named}, "spec": {"selector": labels}});
            self.view.services.retain(|one| one.name_any() != named);
            self.view.services.push(Arc::new(serde_json::from_value(object).unwrap()));
        }
    }

    /// Removes the Deployment and the Service of a release.
    fn delete_own(&mut self, of: &str) {
        self.view.deployments.retain(|one| one.name_any() != own(of));
        self.view.services.retain(|one| one.name_any() != service(of));
    }

    /// Puts up a route with these Services and weights.
    fn route(&mut self, backends: &[(&str, u32)], split: &HostSplit, mirror: Option<&str>) {
        let generation = self.view.routes.first().map_or(0, |route| route.generation()) + 1;
        let status = self.view.routes.first().map(|route| route.status.clone()).unwrap_or_default();
        let backends: Vec<Value> =
            backends.iter().map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight})).collect();
        let mut rule = json!({"backendRefs": backends});
        if let Some(name) = mirror {
            rule["filters"] = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name}}}]);
        }
        let route = json!({
            "metadata": {"name": "support", "generation": generation, "labels": {AGENT_LABEL: "support"},
                "annotations": {SPLIT_ANNOTATION: json!(split).to_string()}},
            "spec": {"rules": [rule]}, "status": status,
        });
        self.view.routes = vec![Arc::new(serde_json::from_value::<HttpRoute>(route).unwrap())];
    }

    /// Splits between two releases, the second the candidate.
    fn share(&mut self, stable: &str, candidate: &str, weight: u32) {
        let (stable, candidate) = (service(stable), service(candidate));
        self.route(&[(&stable, 100 - weight), (&candidate, weight)], &HostSplit::default(), None);
    }

    /// Gives all to one release.
    fn only(&mut self, of: &str) {
        self.route(&[(&service(of), 100)], &HostSplit::default(), None);
    }

    fn arms(&self) -> Vec<(ReleaseId, Role, u32, usize)> {
        let arms = self.table.agents.get(&agent()).map_or(&[][..], |agent| &agent.arms);
        arms.iter().map(|arm: &Arm| (arm.release, arm.role, arm.weight, arm.instances.len())).collect()
    }

    /// Of each condition of the route: its status, reason and generation.
    fn told(&self) -> Vec<(String, String, i64)> {
        let Some(word) = &self.word else { return vec![] };
        let status = status::of_route(word, None, Timestamp::UNIX_EPOCH);
        let conditions = status["parents"][0]["conditions"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let told =
            |one: Value| (text(&one["status"]), text(&one["reason"]), one["observedGeneration"].as_i64().unwrap());
        conditions.into_iter().map(told).collect()
    }

    fn programmed(&self) -> (String, String, i64) {
        self.told().pop().unwrap()
    }
}

/// Two releases, the first of which serves.
fn two() -> Host {
    let mut host = Host::new();
    host.apply_own("main", "one", 2);
    host.only("one");
    host.settle();
    host.apply_own("main", "two", 1);
    host.settle();
    host
}

fn is(status: &str, reason: &str, generation: i64) -> (String, String, i64) {
    (status.to_owned(), reason.to_owned(), generation)
}

#[test]
fn weights_come_from_the_route_and_go_back_by_it() {
    let mut host = two();
    assert_eq!(host.arms(), [(release("one"), Role::Stable, WHOLE, 2)], "nobody asks for the second one");
    assert_eq!(host.status_of(&own("two"))["availableReplicas"], 1, "it is complete before it has traffic");
    for weight in [0, 5, 50, 100, 5, 0] {
        host.share("one", "two", weight);
        let deeds = host.pass();
        assert!(deeds.is_empty(), "another table and nothing else: {deeds:?}");
        let parts = (WHOLE - weight * 100, weight * 100);
        assert_eq!(
            host.arms(),
            [(release("one"), Role::Stable, parts.0, 2), (release("two"), Role::Candidate, parts.1, 1)]
        );
        let generation = host.view.routes[0].generation();
        assert_eq!(
            host.told(),
            [
                is("True", "Accepted", generation),
                is("True", "ResolvedRefs", generation),
                is("True", "Programmed", generation)
            ]
        );
    }
}

#[test]
fn a_route_is_in_force_when_the_proxy_says_so_and_not_before() {
    let mut host = two();
    host.proxy_answers = false;
    let before = host.programmed();
    host.share("one", "two", 5);
    host.pass();
    assert_eq!(host.programmed(), before);
    host.proxy_answers = true;
    host.pass();
    assert_eq!(host.programmed(), is("True", "Programmed", before.2 + 1));
}

#[test]
fn a_candidate_that_dies_leaves_its_part_to_stable_and_the_route_says_so() {
    let mut host = two();
    host.share("one", "two", 50);
    host.settle();
    host.broken.insert(release("two").digest().to_string());
    host.pass();
    assert_eq!(host.arms(), [(release("one"), Role::Stable, WHOLE, 2)]);
    assert_eq!(host.programmed(), is("False", "NoReadyInstance", 2));
    host.broken.clear();
    host.pass();
    assert_eq!(host.arms()[1], (release("two"), Role::Candidate, 5_000, 1));
    // And the other way about.
    host.broken.insert(release("one").digest().to_string());
    host.pass();
    assert_eq!(host.arms(), [(release("two"), Role::Candidate, WHOLE, 1)]);
    host.broken.insert(release("two").digest().to_string());
    host.pass();
    assert_eq!(host.arms(), []);
    assert_eq!(host.runs("one").0 + host.runs("two").0, 3, "nobody is ended for it");
}

#[test]
fn a_backend_that_is_not_there_leaves_its_part_and_a_route_that_names_nobody_takes_nothing() {
    let mut host = two();
    host.share("one", "three", 50);
    host.pass();
    assert_eq!(host.arms(), [(release("one"), Role::Stable, WHOLE, 2)]);
    assert_eq!(host.told()[1..], [is("False", "BackendNotFound", 2), is("False", "BackendNotFound", 2)]);
    host.only("three");
    host.pass();
    assert_eq!(host.arms().len(), 1, "what served goes on");
    assert_eq!(host.programmed(), is("False", "BackendNotFound", 3));
}

#[test]
fn what_the_route_leaves_ends_when_nothing_is_open_there() {
    let mut host = two();
    host.share("one", "two", 50);
    host.settle();
    let pod = host.view.pods.iter().find(|pod| pod.name_any().starts_with(&own("two"))).unwrap().name_any();
    host.open.insert(pod.clone());
    // Not even the proxy knows of it yet.
    host.proxy_answers = false;
    host.only("one");
    host.delete_own("two");
    for _ in 0..5 {
        let deeds = host.pass();
        assert!(deeds.is_empty(), "what the proxy still uses is left alone: {deeds:?}");
    }
    host.proxy_answers = true;
    for _ in 0..5 {
        host.pass();
    }
    assert_eq!((host.runs("two"), host.ended.len()), ((0, 1), 0), "it is kept for a way back");
    host.later(KEEP + 1);
    for _ in 0..5 {
        let deeds = host.pass();
        assert_eq!(deeds, [Deed::Stop { pod: pod.clone() }], "a request is open");
    }
    host.open.clear();
    host.settle();
    assert_eq!((host.runs("two"), &host.ended[..]), ((0, 0), &[pod][..]));
    assert_eq!(host.view.sets.len(), 1);
}

#[test]
fn a_release_that_was_just_left_is_back_without_a_launch() {
    // Scaled to none, or gone altogether.
    for gone in [false, true] {
        let mut host = two();
        host.apply_own("main", "two", 2);
        host.share("one", "two", 100);
        host.settle();
        host.only("two");
        if gone {
            host.delete_own("one");
        } else {
            host.apply_own("main", "one", 0);
        }
        host.settle();
        assert_eq!((host.runs("one"), host.runs("two")), ((0, 2), (2, 0)), "gone: {gone}");
        if !gone {
            assert_eq!(host.status_of(&own("one"))["replicas"], 0);
        }
        host.later(KEEP / 2);
        host.apply_own("main", "one", 2);
        host.share("two", "one", 100);
        let mut deeds = host.pass();
        for _ in 0..5 {
            deeds.extend(host.pass());
        }
        assert!(!deeds.iter().any(|deed| matches!(deed, Deed::Launch { .. } | Deed::Stop { .. })), "{deeds:?}");
        assert_eq!(host.arms()[1], (release("one"), Role::Candidate, WHOLE, 2));
        assert_eq!(host.runs("one"), (2, 0));
        host.later(KEEP + 1);
        host.settle();
        assert_eq!((host.runs("one"), host.runs("two")), ((2, 0), (2, 0)), "nothing is left of its being kept");
    }
}

#[test]
fn one_way_back_is_kept_over_all_deployments() {
    let mut host = two();
    for (from, to) in [("one", "two"), ("two", "three"), ("three", "four")] {
        host.apply_own("main", to, 1);
        host.only(to);
        host.settle();
        if from == "two" {
            host.delete_own(from);
        } else {
            host.apply_own("main", from, 0);
        }
        host.settle();
        host.later(1);
    }
    host.settle();
    let runs = ["one", "two", "three", "four"].map(|name| host.runs(name));
    assert_eq!(runs, [(0, 0), (0, 0), (0, 1), (1, 0)]);
}

#[test]
fn an_agent_that_is_gone_keeps_nothing() {
    let mut host = two();
    host.share("one", "two", 50);
    host.settle();
    host.view.deployments.clear();
    host.view.services.clear();
    host.view.routes.clear();
    host.settle();
    assert!(host.view.pods.is_empty() && host.view.sets.is_empty());
    assert!(host.table.agents.is_empty());
}

#[test]
fn a_change_of_strategy_loses_nothing_on_the_way() {
    let rolling = service_name(&agent(), Set::Rolling, &release("one"));
    let mut host = Host::new();
    host.apply("main", "one", 2);
    let labels = json!({AGENT_LABEL: "support", PROCESS_LABEL: "main", SET_LABEL: "rolling"});
    // As it is rendered: with labels.
    let deployment = Arc::make_mut(&mut host.view.deployments[0]);
    let labelled: std::collections::BTreeMap<String, String> = serde_json::from_value(labels.clone()).unwrap();
    deployment.metadata.labels = Some(labelled.clone());
    deployment.spec.template.metadata.as_mut().unwrap().labels = Some(labelled);
    for name in ["support", &rolling] {
        let object = json!({"metadata": {"name": name}, "spec": {"selector": labels}});
        host.view.services.retain(|one| one.name_any() != name);
        host.view.services.push(Arc::new(serde_json::from_value(object).unwrap()));
    }
    host.settle();
    let serves = |host: &Host| host.arms().iter().map(|arm| (arm.0, arm.2)).collect::<Vec<_>>();
    assert_eq!(serves(&host), [(release("one"), WHOLE)]);
    // A second Deployment without a route changes nothing.
    host.apply_own("main", "two", 2);
    host.settle();
    assert_eq!(serves(&host), [(release("one"), WHOLE)]);
    let to = service("two");
    host.route(&[(&rolling, 95), (&to, 5)], &HostSplit::default(), None);
    host.settle();
    assert_eq!(serves(&host), [(release("one"), 9_500), (release("two"), 500)]);
    host.only("two");
    host.settle();
    // The agent's own Service leads to the new one, and the old Deployment goes.
    let labels = json!({AGENT_LABEL: "support", PROCESS_LABEL: "main", SET_LABEL: release("two").short()});
    Arc::make_mut(&mut host.view.services[0]).spec.as_mut().unwrap().selector = serde_json::from_value(labels).unwrap();
    assert_eq!(host.view.services[0].name_any(), "support");
    host.view.deployments.retain(|one| one.name_any() != "support");
    host.settle();
    assert_eq!((serves(&host), host.runs("one")), (vec![(release("two"), WHOLE)], (0, 0)));
    // And without the route the Service alone says who serves.
    host.view.routes.clear();
    host.settle();
    assert_eq!(serves(&host), [(release("two"), WHOLE)]);
}

#[test]
fn without_a_route_a_service_that_turns_waits_until_the_other_set_is_whole() {
    let mut host = Host::new();
    host.apply_own("main", "one", 1);
    let select = |host: &mut Host, of: &str| {
        let at = host.view.services.iter().position(|one| one.name_any() == "support").unwrap();
        let selector = json!({AGENT_LABEL: "support", SET_LABEL: release(of).short()});
        let spec = Arc::make_mut(&mut host.view.services[at]).spec.as_mut().unwrap();
        spec.selector = serde_json::from_value(selector).unwrap();
    };
    select(&mut host, "one");
    host.settle();
    host.broken.insert(release("two").digest().to_string());
    host.apply_own("main", "two", 1);
    select(&mut host, "two");
    host.settle();
    assert_eq!(host.arms(), [(release("one"), Role::Stable, WHOLE, 1)]);
    host.broken.clear();
    host.settle();
    assert_eq!(host.arms(), [(release("two"), Role::Stable, WHOLE, 1)]);
}

#[test]
fn workers_of_both_releases_run_beside_each_other() {
    let mut host = Host::new();
    host.apply_own("main", "one", 1);
    host.apply_own("indexer", "one", 2);
    host.only("one");
    host.settle();
    host.broken.insert(release("two").digest().to_string());
    host.apply_own("main", "two", 1);
    host.apply_own("indexer", "two", 1);
    host.apply_own("indexer", "one", 1);
    host.settle();
    assert_eq!((host.runs("one"), host.runs("two")), ((2, 0), (2, 0)), "without waiting for a switch");
    host.apply_own("indexer", "two", 0);
    host.settle();
    assert_eq!(host.runs("two"), (1, 0), "a worker is not kept");
}

#[test]
fn what_else_a_route_asks_for_is_in_the_table() {
    let mut host = two();
    let split = HostSplit {
        sticky: Some(Field::Header("X-User".to_owned())),
        reach: Some(Match { field: Field::Cookie("beta".to_owned()), value: "yes".to_owned() }),
        preview: Some("preview.example".to_owned()),
    };
    let (one, two) = (service("one"), service("two"));
    host.route(&[(&one, 100), (&two, 0)], &split, Some(&two));
    host.pass();
    let found = &host.table.agents[&agent()];
    let sticky = found.sticky.as_ref().unwrap();
    assert_eq!(
        (&sticky.by, sticky.salt.as_str(), sticky.issue),
        (&StickyBy::Header("x-user".to_owned()), "support", false)
    );
    let rule = &found.matches[0];
    assert_eq!(
        (rule.header.as_str(), rule.cookie.as_deref(), rule.value.as_deref()),
        ("cookie", Some("beta"), Some("yes"))
    );
    assert_eq!((rule.release, found.mirror.as_ref().unwrap().to), (release("two"), release("two")));
    let preview = &host.table.routes[1];
    assert_eq!((&preview.hosts[..], preview.release), (&["preview.example".to_owned()][..], Some(release("two"))));
    // Whoever comes to the preview of what is not ready is not answered by somebody else.
    host.broken.insert(release("two").digest().to_string());
    host.pass();
    assert_eq!(host.arms()[1], (release("two"), Role::Preview, 0, 0));
    assert_eq!(host.table.routes.len(), 2);
    assert_eq!((host.table.agents[&agent()].matches.len(), &host.table.agents[&agent()].mirror), (0, &None));
    assert_eq!(host.programmed().1, "NoReadyInstance");
}

#[test]
fn what_no_table_can_have_is_refused_and_the_weights_hold() {
    let mut host = two();
    let (one, two) = (service("one"), service("two"));
    for split in [
        HostSplit { preview: Some("support.localhost".to_owned()), ..HostSplit::default() },
        HostSplit { preview: Some("Not A Host".to_owned()), ..HostSplit::default() },
        HostSplit { sticky: Some(Field::Cookie("a b".to_owned())), ..HostSplit::default() },
    ] {
        host.route(&[(&one, 90), (&two, 10)], &split, None);
        host.pass();
        assert_eq!(host.arms().iter().map(|arm| arm.2).collect::<Vec<_>>(), [9_000, 1_000], "{split:?}");
        let reasons: Vec<_> = host.told().into_iter().map(|told| told.1).collect();
        assert_eq!(reasons, ["UnsupportedValue", "ResolvedRefs", "UnsupportedValue"], "{split:?}");
    }
}

#[test]
fn a_status_is_the_same_until_something_changes() {
    let mut host = two();
    host.share("one", "two", 5);
    host.pass();
    let word = host.word.clone().unwrap();
    let first = status::of_route(&word, None, Timestamp::UNIX_EPOCH);
    let later = Timestamp::from_second(60).unwrap();
    assert_eq!(status::of_route(&word, Some(&first), later), first);
    host.broken.insert(release("two").digest().to_string());
    host.pass();
    let second = status::of_route(&host.word.clone().unwrap(), Some(&first), later);
    let since = |status: &Value, at: usize| status["parents"][0]["conditions"][at]["lastTransitionTime"].clone();
    assert_eq!((since(&second, 0), since(&second, 2)), (since(&first, 0), json!("1970-01-01T00:01:00Z")));
    assert_eq!(second["parents"][0]["parentRef"], json!({"name": "proxy"}));
}
