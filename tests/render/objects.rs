//! A release becomes objects.

use std::time::Duration;

use backstay::render::{RenderError, RenderOptions, RendererVersion, Role, Set};
use serde_json::{Value, json};

use crate::agent::Agent;

fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn why(agent: &Agent) -> String {
    let error = agent.try_render().expect_err("refused");
    format!("{error} / {}", error.hint().unwrap_or("no hint"))
}

#[test]
fn a_full_agent() {
    let rendered = Agent::full().render();
    let objects: Vec<_> =
        rendered.manifests.iter().map(|m| json!({"origin": m.origin.to_string(), "body": m.body})).collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(".");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_json_snapshot!("full-agent", objects));
}

#[test]
fn the_order_is_that_of_applying() {
    let rendered = Agent::full().render();
    let order: Vec<_> = rendered.manifests.iter().map(|manifest| manifest.object.to_string()).collect();
    let job = order.iter().find(|name| name.starts_with("Job/")).expect("a Job").clone();
    let config = rendered.config_map().expect("a ConfigMap").object.to_string();
    assert_eq!(
        order,
        [
            "ServiceAccount/agents-production/support",
            &config,
            "ConfigMap/agents-production/support-extra",
            &job,
            "Service/agents-production/support",
            "Service/agents-production/support--rolling",
            "Deployment/agents-production/support--indexer",
            "Deployment/agents-production/support",
            "PodDisruptionBudget/agents-production/support",
        ]
    );
    assert_eq!(rendered.services().count(), 2);
    assert_eq!(rendered.extras().count(), 2);
    assert_eq!(rendered.deployments().count(), 2);
    assert_eq!(rendered.role(&rendered.main().expect("it").object), Some(&Role::Workload(None)));
}

#[test]
fn settings_never_change_a_pod_template() {
    let agent = Agent::full();
    let templates = |agent: &Agent| -> Vec<Value> {
        agent.render().deployments().map(|d| d.body["spec"]["template"].clone()).collect()
    };
    let before = templates(&agent);
    let mut other = Agent::full();
    other.settings.replicas = Some(9);
    other.settings.history = 2;
    other.settings.progress_deadline = Duration::from_secs(5);
    other.settings.rolling.max_surge = json!("50%");
    other.settings.disruption_budget = None;
    other.settings.autoscaling = Some(json!({"maxReplicas": 9}));
    other.settings.manifests.clear();
    other.options = RenderOptions { surge: Some("100%".into()), replicas: Some(7), ..RenderOptions::default() };
    assert_eq!(templates(&other), before);
}

#[test]
fn every_change_of_the_release_changes_every_pod_template() {
    let before = Agent::full();
    let mut after = Agent::full();
    after.prompt("system", "Be brief.\n");
    let (before, after) = (before.render(), after.render());
    for (before, after) in before.deployments().zip(after.deployments()) {
        assert_eq!(before.object, after.object);
        assert_ne!(before.body["spec"]["template"], after.body["spec"]["template"], "{}", before.object);
        assert_eq!(before.body["spec"]["selector"], after.body["spec"]["selector"], "a selector never changes");
    }
    let name = |rendered: &backstay::render::Rendered| rendered.config_map().expect("it").object.name.clone();
    assert_ne!(name(&before), name(&after));
}

#[test]
fn the_config_map_holds_the_very_bytes_that_were_hashed() {
    let agent = Agent::full();
    let rendered = agent.render();
    let config = &rendered.config_map().expect("a ConfigMap").body;
    let text = config["data"]["release.json"].as_str().expect("text");
    assert_eq!(text.as_bytes(), &*agent.release().canonical);
    assert_eq!(config["immutable"], true);
    assert_eq!(config["data"]["prompts.system.md"], "Be kind.\n");
    let items = agent.template().pointer("/spec/volumes/1/configMap/items").cloned().expect("items");
    for item in items.as_array().expect("a list") {
        assert!(config["data"].get(item["key"].as_str().expect("a key")).is_some(), "{item}");
        assert_eq!(item["path"].as_str().expect("a path").replace('/', "."), item["key"].as_str().expect("a key"));
    }
    assert_eq!(items.as_array().map(Vec::len), config["data"].as_object().map(serde_json::Map::len));
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let mut agent = Agent::small();
    let bytes: &[u8] = &[0xff, 0xfe];
    agent.prompts.insert("odd".into(), bytes.into());
    agent.merge(json!({"prompts": {"odd": backstay::model::Digest::of(bytes)}}));
    let rendered = agent.render();
    assert_eq!(rendered.config_map().expect("it").body["binaryData"], json!({"prompts.odd.md": "//4="}));
}

#[test]
fn replicas_are_left_to_whoever_scales() {
    let mut agent = Agent::small();
    assert_eq!(agent.deployment()["spec"]["replicas"], 1);
    agent.settings.replicas = Some(4);
    assert_eq!(agent.deployment()["spec"]["replicas"], 4);
    agent.settings.autoscaling = Some(json!({"minReplicas": 3, "maxReplicas": 20, "metrics": [], "behavior": {}}));
    let rendered = agent.render();
    let main = rendered.main().expect("it");
    assert_eq!(main.body["spec"].get("replicas"), None);
    assert!(rendered.is_autoscaled(main));
    let hpa = rendered.manifests.last().expect("it");
    assert_eq!(
        hpa.body["spec"],
        json!({"minReplicas": 3, "maxReplicas": 20,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "support"}})
    );
    agent.options.replicas = Some(5);
    assert_eq!(agent.deployment()["spec"]["replicas"], 5, "one operation may say how many");

    for scaler in [
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "own"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "support"}}}),
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "own"},
            "spec": {"scaleTargetRef": {"name": "support"}}}),
    ] {
        let mut agent = Agent::small();
        agent.settings.replicas = Some(4);
        agent.manifest(scaler);
        assert_eq!(agent.deployment()["spec"].get("replicas"), None);
    }
}

#[test]
fn a_rollback_surges() {
    let mut agent = Agent::small();
    agent.options.surge = Some("100%".into());
    assert_eq!(
        at(&agent.deployment(), "/spec/strategy/rollingUpdate"),
        &json!({"maxSurge": "100%", "maxUnavailable": 0})
    );
    agent.settings.deployment = Some(json!({"strategy": {"type": "Recreate"}}));
    assert_eq!(at(&agent.deployment(), "/spec/strategy"), &json!({"type": "Recreate"}));
    agent.settings.deployment = Some(json!({"strategy": {"type": "RollingUpdate"}}));
    assert_eq!(at(&agent.deployment(), "/spec/strategy/rollingUpdate"), &json!({"maxSurge": "100%"}));
}

#[test]
fn deadlines_are_whole_seconds() {
    let mut agent = Agent::small();
    agent.settings.progress_deadline = Duration::from_millis(1500);
    assert_eq!(agent.deployment()["spec"]["progressDeadlineSeconds"], 2);
    agent.settings.progress_deadline = Duration::ZERO;
    assert_eq!(agent.deployment()["spec"]["progressDeadlineSeconds"], 1);
}

#[test]
fn pods_are_told_who_they_are() {
    let agent = Agent::full();
    let id = agent.release().id.to_string();
    let env = agent.container()["env"].clone();
    let env = env.as_array().expect("a list");
    let value = |name: &str| env.iter().find(|e| e["name"] == name).map_or(Value::Null, |e| e["value"].clone());
    assert_eq!(value("BACKSTAY_RELEASE"), id.as_str());
    assert_eq!(value("BACKSTAY_AGENT"), "support");
    assert_eq!(value("BACKSTAY_ENVIRONMENT"), "production");
    assert_eq!(value("BACKSTAY_AGENT_DIR"), "/etc/backstay/agent");
    assert_eq!(value("PORT"), "8000");
    assert_eq!(
        value("OTEL_RESOURCE_ATTRIBUTES"),
        format!("team=care,service.name=support,service.version={id},deployment.environment.name=production")
    );
    let names: Vec<_> = env.iter().map(|e| e["name"].as_str().expect("a name")).collect();
    let place = |name: &str| names.iter().position(|n| *n == name).expect("it");
    assert!(place("Z_HOST") < place("A_URL"), "what is referred to comes first: {names:?}");
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
}

#[test]
fn variables_that_refer_to_each_other_end() {
    let mut agent = Agent::small();
    agent.merge(json!({"workload": {"env": {"A": "$(B)", "B": "$(A)", "C": "$(C)"}}}));
    let env = agent.container()["env"].clone();
    assert_eq!(env.as_array().map(Vec::len), Some(10));
}

#[test]
fn a_pod_template_wins_over_what_is_generated_and_not_over_what_is_injected() {
    let mut agent = Agent::small();
    agent.merge(json!({"workload": {"podTemplate": {
        "metadata": {"labels": {"team": "care"}},
        "spec": {
            "automountServiceAccountToken": true,
            "containers": [{"name": "agent", "lifecycle": {}, "env": [
                {"name": "BACKSTAY_RELEASE", "value": "mine"}, {"name": "PORT", "value": "1"}]}],
            "volumes": [{"name": "backstay-agent", "emptyDir": {}}],
        },
    }}}));
    let template = agent.template();
    assert_eq!(at(&template, "/spec/automountServiceAccountToken"), true);
    assert_eq!(at(&template, "/metadata/labels/team"), "care");
    let container = agent.container();
    assert_eq!(container["lifecycle"], json!({}));
    let value = |name: &str| {
        let env = container["env"].as_array().expect("a list");
        env.iter().filter(|e| e["name"] == name).map(|e| e["value"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(value("BACKSTAY_RELEASE"), [json!(agent.release().id.to_string())]);
    assert_eq!(value("PORT"), [json!("1")]);
    assert_eq!(at(&template, "/spec/volumes").as_array().map(Vec::len), Some(1));
    assert!(template.pointer("/spec/volumes/0/configMap").is_some());
}

#[test]
fn defaults_of_the_first_renderer() {
    let template = Agent::small().template();
    assert_eq!(at(&template, "/spec/automountServiceAccountToken"), false);
    assert_eq!(at(&template, "/spec/enableServiceLinks"), false);
    assert_eq!(at(&template, "/spec/containers/0/lifecycle/preStop/sleep/seconds"), 5);
    let mut agent = Agent::small();
    agent.merge(json!({"workload": {"port": null, "serviceAccount": "support"}}));
    let template = agent.template();
    assert_eq!(template.pointer("/spec/automountServiceAccountToken"), None);
    assert_eq!(template.pointer("/spec/containers/0/lifecycle"), None);
    assert_eq!(agent.render().services().count(), 0);
}

#[test]
fn a_deployment_of_the_users_own() {
    let mut agent = Agent::small();
    agent.merge(json!({
        "code": {"image": null},
        "workload": {"env": {"LOG_LEVEL": "INFO"}, "manifest": {"container": "web", "template": {
            "metadata": {"creationTimestamp": null, "labels": {"app": "mine", "app.kubernetes.io/name": "chart"}},
            "spec": {"serviceAccountName": "chart", "containers": [
                {"name": "proxy", "image": "p:1"},
                {"name": "web", "image": "w:1", "ports": [{"containerPort": 8000, "name": "web"}],
                 "env": [{"name": "LOG_LEVEL", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}, {"name": "X", "value": "1"}]},
            ]},
        }}},
        "workers": {"indexer": {"command": ["bin/indexer"]}},
    }));
    agent.settings.deployment =
        Some(json!({"replicas": 5, "minReadySeconds": 3, "selector": {"matchLabels": {"app": "mine"}},
        "template": {}, "strategy": {"type": "Recreate"}}));
    let deployment = agent.deployment();
    assert_eq!(at(&deployment, "/metadata/name"), "support");
    assert_eq!(at(&deployment, "/spec/replicas"), 5);
    assert_eq!(at(&deployment, "/spec/minReadySeconds"), 3);
    assert_eq!(
        at(&deployment, "/spec/selector/matchLabels"),
        &json!({"backstay.dev/agent": "support", "backstay.dev/process": "main", "backstay.dev/set": "rolling"})
    );
    let labels = at(&deployment, "/spec/template/metadata/labels");
    assert_eq!((&labels["app"], &labels["app.kubernetes.io/name"]), (&json!("mine"), &json!("chart")));
    let web = at(&deployment, "/spec/template/spec/containers/1");
    assert_eq!(web["image"], "w:1");
    assert_eq!(web["volumeMounts"][0]["mountPath"], "/etc/backstay/agent");
    let level = web["env"].as_array().expect("a list").iter().find(|e| e["name"] == "LOG_LEVEL").expect("it");
    assert_eq!(level, &json!({"name": "LOG_LEVEL", "value": "INFO"}));
    assert_eq!(web.get("lifecycle"), None, "nothing is added to what was brought along");
    assert_eq!(at(&deployment, "/spec/template/spec/enableServiceLinks"), &Value::Null);
    let rendered = agent.render();
    let service = rendered.services().next().expect("a Service");
    assert_eq!(at(&service.body, "/spec/ports/0/targetPort"), "web");
    let worker = rendered.deployments().next().expect("a worker");
    assert_eq!(at(&worker.body, "/spec/template/spec/containers/0/image"), "w:1");

    agent.settings.replicas = Some(2);
    assert_eq!(agent.deployment()["spec"]["replicas"], 2, "what agent.yaml says wins");
    agent.merge(json!({"workload": {"manifest": {"container": "nope"}}}));
    assert!(why(&agent).contains("no container `nope`"), "{}", why(&agent));
}

#[test]
fn a_deployment_per_release_is_named_and_selected_by_it() {
    let mut agent = Agent::full();
    agent.set = Set::PerRelease;
    let id = agent.release().id.to_string();
    let rendered = agent.render();
    let names: Vec<_> = rendered.deployments().map(|d| d.object.name.clone()).collect();
    assert_eq!(names, [format!("support--indexer--{id}"), format!("support--{id}")]);
    let main = &rendered.main().expect("it").body;
    assert_eq!(main["spec"]["selector"]["matchLabels"]["backstay.dev/set"], id.as_str());
    assert_eq!(rendered.services().nth(1).expect("it").object.name, format!("support--{id}"));
}

#[test]
fn a_job_is_named_by_release_and_content() {
    let job = |image: &str| {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "seed"},
        "spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}})
    };
    let name = |image: &str, prompt: &str| {
        let mut agent = Agent::small();
        agent.prompt("system", prompt);
        agent.manifest(job(image));
        let rendered = agent.render();
        let job = rendered.extras().next().expect("a Job");
        assert_eq!(rendered.role(&job.object), Some(&Role::Job));
        assert_eq!(job.body["metadata"]["annotations"]["backstay.dev/job"], "seed");
        assert_eq!(job.body["metadata"]["name"], job.object.name.as_str());
        assert!(job.object.name.starts_with(&format!("seed--{}-", agent.release().id)), "{}", job.object);
        job.object.name.clone()
    };
    assert_eq!(name("a", "p"), name("a", "p"));
    assert_ne!(name("a", "p"), name("b", "p"));
    assert_ne!(name("a", "p"), name("a", "q"));
    let mut agent = Agent::small();
    agent.manifest(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a".repeat(39)}}));
    assert!(why(&agent).contains("may have 38"), "{}", why(&agent));
}

#[test]
fn fields_can_be_left_to_others() {
    let mut agent = Agent::small();
    agent.manifest(json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "status": {"replicas": 1},
        "metadata": {"name": "db", "uid": "1", "annotations": {"backstay.dev/ignore": "/spec/replicas, /spec/template/metadata/annotations/a~1b /spec/nothing/x"}},
        "spec": {"replicas": 2, "serviceName": "db", "template": {"metadata": {"annotations": {"a/b": "1", "c": "2"}}}}}));
    let rendered = agent.render();
    let body = &rendered.extras().next().expect("it").body;
    assert_eq!(body["spec"], json!({"serviceName": "db", "template": {"metadata": {"annotations": {"c": "2"}}}}));
    assert_eq!(body.get("status"), None);
    assert_eq!(body["metadata"].get("uid"), None);
    assert_eq!(body["metadata"]["namespace"], "agents-production");
    assert_eq!(body["metadata"]["labels"]["backstay.dev/agent"], "support");
    assert_eq!(rendered.extras().next().expect("it").origin.to_string(), "agents/support/manifests/extra.yaml:3");
}

#[test]
fn an_account_of_manifests_takes_the_place_of_ours() {
    let mut agent = Agent::full();
    agent.manifest(json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "support", "annotations": {"eks.amazonaws.com/role-arn": "arn"}}}));
    let rendered = agent.render();
    let accounts: Vec<_> = rendered.manifests.iter().filter(|m| m.object.kind == "ServiceAccount").collect();
    assert_eq!(accounts.len(), 1);
    assert_eq!(rendered.role(&accounts[0].object), Some(&Role::Extra));
}

#[test]
fn what_cannot_be_rendered_says_why_and_the_way_out() {
    type Change = fn(&mut Agent);
    let cases: [(&str, Change); 16] = [
        (
            "cannot render code.image (agents/support/agent.yaml): an agent on Kubernetes needs an image / name it by digest: `image: registry.example.com/agent@sha256:…`",
            |a| a.merge(json!({"code": {"image": null}})),
        ),
        (
            "cannot render workload.health.ready (agents/support/agent.yaml): a path is asked for on the agent's port, and there is none / declare `workload.port`, or write the whole probe",
            |a| a.merge(json!({"workload": {"port": null, "health": {"ready": "/"}}})),
        ),
        (
            "cannot render workload.env (agents/support/agent.yaml): `BACKSTAY_RELEASE` is set by Backstay / choose a name that does not begin with `BACKSTAY_`",
            |a| a.merge(json!({"workload": {"env": {"BACKSTAY_RELEASE": "x"}}})),
        ),
        (
            "cannot render workload.podTemplate (agents/support/agent.yaml): `backstay.dev/agent` in its labels is Backstay's own / choose a name of your own",
            |a| a.merge(json!({"workload": {"podTemplate": {"metadata": {"labels": {"backstay.dev/agent": "x"}}}}})),
        ),
        (
            "cannot render workload.podTemplate (agents/support/agent.yaml): `spec.containers`: an element lacks `name`, by which this list is merged / no hint",
            |a| a.merge(json!({"workload": {"podTemplate": {"spec": {"containers": [{}]}}}})),
        ),
        (
            "cannot render workload.podTemplate (agents/support/agent.yaml): it leaves no container `agent` / no hint",
            |a| {
                a.merge(json!({"workload": {"podTemplate": {"spec": {"containers": [{"name": "agent", "$patch": "delete"}]}}}}));
            },
        ),
        (
            "cannot render workload.podTemplate (agents/support/agent.yaml): its `metadata`, labels and annotations are maps / no hint",
            |a| a.merge(json!({"workload": {"podTemplate": {"metadata": {"labels": "x"}}}})),
        ),
        (
            "cannot render workers.w.env (agents/support/agent.yaml): `BACKSTAY_X` is set by Backstay / choose a name that does not begin with `BACKSTAY_`",
            |a| a.merge(json!({"workers": {"w": {"env": {"BACKSTAY_X": "x"}}}})),
        ),
        (
            "cannot render workload.manifest (agents/support/agent.yaml): its container `web` has no image / no hint",
            |a| {
                a.merge(json!({"code": {"image": null}, "workload": {"manifest": {"container": "web", "template": {"spec": {"containers": [{"name": "web"}]}}}}}));
            },
        ),
        (
            "cannot render workload.manifest (agents/support/agent.yaml): `backstay.dev/set` in its labels is Backstay's own / choose a name of your own",
            |a| {
                a.merge(json!({"workload": {"manifest": {"container": "web", "template": {"metadata": {"labels": {"backstay.dev/set": "x"}}}}}}));
            },
        ),
        (
            "cannot render `prompts/a b.md` (agents/support/agent.yaml): its name cannot be a key of a ConfigMap / use letters, digits, `-`, `_` and `.`, 240 at most",
            |a| a.prompt("a b", "x"),
        ),
        (
            "cannot render `prompts/a/b.md` (agents/support/agent.yaml): two files have the key `prompts.a.b.md` in the ConfigMap / no hint",
            |a| {
                a.prompt("a.b", "x");
                a.prompt("a/b", "y");
            },
        ),
        (
            "cannot render the release's files (agents/support/agent.yaml): its files are 902 KiB together, 900 KiB are allowed; the largest is `prompts/big.md` with 901 KiB / keep large data out of the release: in the image, or in a store that the agent reads",
            |a| a.prompt("big", &"x".repeat(901 * 1024)),
        ),
        (
            "cannot render Service/x (agents/support/manifests/extra.yaml:3): `backstay.dev/agent` in its labels is Backstay's own / choose a name of your own",
            |a| {
                a.manifest(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "labels": {"backstay.dev/agent": "x"}}}));
            },
        ),
        (
            "cannot render Service/x (agents/support/manifests/extra.yaml:3): `backstay.dev/ignore` cannot leave `/metadata/name` to others / name single fields by JSON pointers: `/spec/replicas`",
            |a| {
                a.manifest(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "annotations": {"backstay.dev/ignore": "/metadata/name"}}}));
            },
        ),
        (
            "Service/agents-production/support is declared twice: agents/support/manifests/extra.yaml:3 and agents/support/agent.yaml / remove one of them",
            |a| a.manifest(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "support"}})),
        ),
    ];
    for (expected, change) in cases {
        let mut agent = Agent::small();
        change(&mut agent);
        assert_eq!(why(&agent), expected);
    }
}

#[test]
fn more_that_cannot_be_rendered() {
    for (body, expected) in [
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
            "spec": {"template": {"metadata": {"labels": {"backstay.dev/process": "main"}}}}}),
            "`backstay.dev/process` in its labels",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "annotations": {"backstay.dev/ignore": 1}}}),
            "is no text",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "labels": 1}}),
            "its labels are no map",
        ),
        (
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"a": 9_007_199_254_740_993_u64}}),
            "beyond 2^53",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "annotations": {"a": "x".repeat(1024 * 1024)}}}),
            "it is 1025 KiB, 1024 KiB are allowed",
        ),
    ] {
        let mut agent = Agent::small();
        agent.manifest(body);
        assert!(why(&agent).contains(expected), "{}", why(&agent));
    }
    let newer = RendererVersion::known(2).expect_err("newer");
    assert_eq!(
        newer.to_string(),
        "cannot render a release of renderer 2: this version of Backstay has renderers up to 1"
    );
    assert!(newer.hint().is_some() && newer.origin().is_none());
    assert!(RendererVersion::known(0).is_err());
    assert_eq!(RendererVersion::known(1), Ok(RendererVersion::CURRENT));
    assert!(matches!(RendererVersion::known(9), Err(RenderError::Renderer(_))));
}
