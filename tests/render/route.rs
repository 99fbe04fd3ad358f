//! The route that splits requests between two releases.

use backstay::desired::rollout::{Field, Match, RolloutSpec, Strategy};
use backstay::desired::{Gateway, Route, Settings, TargetKind};
use backstay::model::ReleaseId;
use backstay::plan::{GatePolicy, violations};
use backstay::render::{Backend, HostSplit, Identity, Routing, Set, route};
use serde_json::{Value, json};

use crate::agent::Agent;

fn release(name: &str) -> ReleaseId {
    ReleaseId::of(name.as_bytes())
}

fn backend(name: &str, set: Set, weight: u8) -> Backend {
    Backend { release: release(name), set, weight }
}

fn two(weight: u8) -> Routing<'static> {
    Routing {
        stable: backend("one", Set::Rolling, 100 - weight),
        candidate: Some(backend("two", Set::PerRelease, weight)),
        mirror: false,
        reach: None,
        sticky: None,
        preview: None,
    }
}

fn rendered(target: TargetKind, settings: &Settings, routing: &Routing<'_>) -> Value {
    let agent = Agent::small();
    let identity = Identity {
        agent: &agent.name,
        environment: &agent.environment,
        namespace: "agents-production",
        installation: "3b1f",
        target,
    };
    let manifest = route(&identity, settings, 8000, routing);
    assert_eq!(manifest.object.to_string(), "HTTPRoute/agents-production/support");
    assert_eq!(violations(&manifest, &GatePolicy::of("agents-production")), [], "the policy lets it pass");
    (*manifest.body).clone()
}

#[test]
fn a_route_of_a_gateway_is_of_the_standard() {
    let reach = Match { field: Field::Header("x-canary".to_owned()), value: "yes".to_owned() };
    let routing = Routing { reach: Some(&reach), mirror: true, ..two(5) };
    let gateway = Gateway { name: "public".to_owned(), namespace: Some("gateways".to_owned()) };
    let mut settings = Agent::small().settings;
    settings.route = Some(Route { hosts: vec!["a.example".to_owned()], path: "/".to_owned(), gateway: Some(gateway) });
    let body = rendered(TargetKind::Kubernetes, &settings, &routing);
    let candidate = format!("support--{}", release("two"));
    assert_eq!(
        body["spec"],
        json!({
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public", "namespace": "gateways"}],
            "hostnames": ["a.example"],
            "rules": [
                {
                    "matches": [{
                        "path": {"type": "PathPrefix", "value": "/"},
                        "headers": [{"type": "Exact", "name": "x-canary", "value": "yes"}],
                    }],
                    "backendRefs": [{"name": candidate, "port": 8000}],
                },
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [
                        {"name": "support--rolling", "port": 8000, "weight": 95},
                        {"name": candidate, "port": 8000, "weight": 5},
                    ],
                    "filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": candidate, "port": 8000}}}],
                },
            ],
        })
    );
    let annotations = body["metadata"]["annotations"].as_object().expect("annotations");
    assert_eq!(annotations.keys().collect::<Vec<_>>(), ["backstay.dev/installation"]);
    assert_eq!(body["metadata"]["labels"]["app.kubernetes.io/managed-by"], "backstay");
}

#[test]
fn a_cookie_is_matched_among_others_and_nothing_of_it_is_a_pattern() {
    let reach = Match { field: Field::Cookie("beta".to_owned()), value: "a.b+c".to_owned() };
    let routing = Routing { reach: Some(&reach), ..two(0) };
    let body = rendered(TargetKind::Kubernetes, &Agent::small().settings, &routing);
    let header = &body["spec"]["rules"][0]["matches"][0]["headers"][0];
    assert_eq!(header, &json!({"type": "RegularExpression", "name": "Cookie", "value": r"(.*; *)?beta=a\.b\+c(;.*)?"}));
}

#[test]
fn a_preview_has_its_host_and_every_path_of_it() {
    let mut settings = Agent::small().settings;
    settings.route = Some(Route { hosts: vec!["a.example".to_owned()], path: "/v1".to_owned(), gateway: None });
    let routing = Routing { preview: Some("preview.example"), ..two(0) };
    let body = rendered(TargetKind::Host, &settings, &routing);
    assert_eq!(body["spec"]["hostnames"], json!(["a.example", "preview.example"]));
    let rules = body["spec"]["rules"].as_array().expect("rules");
    let paths: Vec<_> =
        rules[0]["matches"].as_array().expect("matches").iter().map(|one| &one["path"]["value"]).collect();
    assert_eq!(paths, ["/v1", "/"]);
    assert_eq!(rules[0]["matches"][0]["headers"][0]["value"], "preview.example");
    assert_eq!(rules[1]["matches"][0]["path"]["value"], "/v1");
}

#[test]
fn a_hosts_route_says_the_rest_in_its_annotations_and_every_change_of_that_in_its_spec() {
    let settings = Agent::small().settings;
    let (reach, sticky) = (
        Match { field: Field::Cookie("beta".to_owned()), value: "yes".to_owned() },
        Field::Header("x-user".to_owned()),
    );
    let all =
        Routing { reach: Some(&reach), sticky: Some(&sticky), preview: Some("p.example"), mirror: true, ..two(5) };
    let body = rendered(TargetKind::Host, &settings, &all);
    assert_eq!(body["spec"]["parentRefs"], json!([{"name": "proxy"}]));
    assert_eq!(body["spec"]["hostnames"], json!(["support.localhost", "p.example"]));
    let annotation = |key: &str| -> Value {
        serde_json::from_str(body["metadata"]["annotations"][key].as_str().expect("there")).expect("JSON")
    };
    assert_eq!(annotation("backstay.dev/route"), json!({"hosts": ["support.localhost"], "path": "/"}));
    assert_eq!(annotation("backstay.dev/drain"), json!({"mode": "finish", "max": "600s"}));
    let split: HostSplit = serde_json::from_value(annotation("backstay.dev/split")).expect("a split");
    let expected =
        HostSplit { sticky: Some(sticky.clone()), reach: Some(reach.clone()), preview: Some("p.example".to_owned()) };
    assert_eq!(split, expected);
    let other = Match { value: "no".to_owned(), ..reach.clone() };
    for changed in [
        Routing { sticky: None, ..all },
        Routing { sticky: Some(&other.field), ..all },
        Routing { reach: None, ..all },
        Routing { reach: Some(&other), ..all },
        Routing { preview: None, ..all },
        Routing { preview: Some("q.example"), ..all },
        Routing { mirror: false, ..all },
        Routing { candidate: None, ..all },
        Routing { reach: Some(&reach), sticky: Some(&sticky), preview: Some("p.example"), mirror: true, ..two(6) },
    ] {
        assert_ne!(rendered(TargetKind::Host, &settings, &changed)["spec"], body["spec"], "{changed:?}");
    }
    let mut elsewhere = settings.clone();
    elsewhere.route = Some(Route { hosts: vec![], path: "/v1".to_owned(), gateway: None });
    assert_ne!(rendered(TargetKind::Host, &elsewhere, &all)["spec"], body["spec"]);
}

#[test]
fn without_a_candidate_nothing_leads_to_one() {
    let reach = Match { field: Field::Header("x".to_owned()), value: "y".to_owned() };
    let routing = Routing { candidate: None, reach: Some(&reach), preview: Some("p.example"), mirror: true, ..two(0) };
    let body = rendered(TargetKind::Host, &Agent::small().settings, &routing);
    let rules = body["spec"]["rules"].as_array().expect("rules");
    assert_eq!((rules.len(), rules[0]["backendRefs"].as_array().map(Vec::len)), (1, Some(1)));
    assert!(rules[0].get("filters").is_none());
    assert_eq!(body["metadata"]["annotations"]["backstay.dev/split"], "{}");
}

#[test]
fn a_repositorys_own_route_may_not_have_that_name_where_it_is_ours() {
    let own = |name: &str| json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name}, "spec": {}});
    let mut agent = Agent::small();
    agent.manifest(own("support"));
    // Where the number of pods splits the traffic, a route of theirs leads to the agent's Service.
    agent.set = Set::PerRelease;
    let strategy: Strategy =
        serde_json::from_value(json!({"blueGreen": {"smoke": "/", "keepOld": "PT1M"}})).expect("a strategy");
    agent.settings.rollout = Some(RolloutSpec { strategy, ..RolloutSpec::default() });
    agent.render();
    let gateway = Some(Gateway { name: "public".to_owned(), namespace: None });
    agent.settings.route = Some(Route { hosts: vec!["a.example".to_owned()], path: "/".to_owned(), gateway });
    let error = agent.try_render().expect_err("refused");
    assert!(error.to_string().contains("Backstay's own"), "{error}");
    agent.set = Set::Rolling;
    agent.settings.rollout = None;
    agent.try_render().expect_err("refused");
    agent.settings.manifests.clear();
    agent.manifest(own("support-admin"));
    agent.render();
}
