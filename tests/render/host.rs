//! What is rendered for a host, and that Kubernetes is given none of it.

use backstay::desired::{ArtifactOrigin, ArtifactSource, Drain, DrainMode, Route, TargetKind};
use backstay::model::Digest;
use serde_json::{Value, json};

use crate::agent::Agent;

fn host() -> Agent {
    let mut agent = Agent::full();
    agent.target = TargetKind::Host;
    agent.merge(json!({"code": {"artifact": {"sha256": Digest::of(b"a")}}}));
    let from = ArtifactSource::Url("https://example.com/a.tar.gz".to_owned());
    agent.settings.host.artifact = Some(ArtifactOrigin { sha256: Digest::of(b"a"), from });
    agent
}

fn annotation<'a>(body: &'a Value, key: &str) -> Option<&'a str> {
    body["metadata"]["annotations"].get(key)?.as_str()
}

#[test]
fn no_container_of_a_host_has_an_image_and_each_names_its_artifact() {
    let rendered = host().render();
    assert!(rendered.deployments().count() > 1);
    for deployment in rendered.deployments() {
        let template = &deployment.body["spec"]["template"];
        assert!(template["spec"]["containers"][0].get("image").is_none(), "{template}");
        assert!(template["spec"]["containers"][0].get("lifecycle").is_none(), "{template}");
        let named = format!("sha256:{}", Digest::of(b"a"));
        assert_eq!(annotation(template, "backstay.dev/artifact"), Some(&*named));
        let source = annotation(&deployment.body, "backstay.dev/artifact-source").expect("a source");
        assert_eq!(source, r#"{"url":"https://example.com/a.tar.gz"}"#);
    }
}

#[test]
fn no_image_is_needed_on_a_host() {
    let mut agent = Agent::small();
    agent.target = TargetKind::Host;
    agent.spec["code"] = json!({"command": ["python3", "-m", "support"]});
    let rendered = agent.render();
    let main = rendered.main().expect("a Deployment");
    assert!(annotation(&main.body["spec"]["template"], "backstay.dev/artifact").is_none());
    agent.target = TargetKind::Kubernetes;
    assert!(agent.try_render().is_err());
}

#[test]
fn a_release_that_goes_back_has_no_source_of_another_artifact() {
    let mut agent = host();
    agent.merge(json!({"code": {"artifact": {"sha256": Digest::of(b"before")}}}));
    let rendered = agent.render();
    let main = rendered.main().expect("a Deployment");
    assert!(annotation(&main.body, "backstay.dev/artifact-source").is_none());
    let named = format!("sha256:{}", Digest::of(b"before"));
    assert_eq!(annotation(&main.body["spec"]["template"], "backstay.dev/artifact"), Some(&*named));
}

#[test]
fn the_service_says_how_requests_come_and_end() {
    let mut agent = host();
    let services = |agent: &Agent| {
        let rendered = agent.render();
        let main = rendered.services().find(|service| service.object.name == "support").expect("a Service");
        let read = |key| serde_json::from_str::<Value>(annotation(&main.body, key).expect("there")).expect("JSON");
        (read("backstay.dev/route"), read("backstay.dev/drain"))
    };
    let (route, drain) = services(&agent);
    assert_eq!(route, json!({"hosts": ["support.localhost"], "path": "/"}));
    assert_eq!(drain, json!({"mode": "finish", "max": "600s"}));
    agent.settings.route =
        Some(Route { hosts: vec!["a.example.com".to_owned()], path: "/v1".to_owned(), gateway: None });
    agent.settings.host.drain = Some(Drain { mode: DrainMode::Cut, max: 5 });
    let (route, drain) = services(&agent);
    assert_eq!(route, json!({"hosts": ["a.example.com"], "path": "/v1"}));
    assert_eq!(drain, json!({"mode": "cut", "max": "5s"}));
}

#[test]
fn settings_of_a_host_restart_nothing() {
    let mut agent = host();
    let template = |agent: &Agent| agent.deployment()["spec"]["template"].clone();
    let before = template(&agent);
    agent.settings.host = backstay::desired::HostSettings::default();
    agent.settings.route = None;
    assert_eq!(template(&agent), before);
}
