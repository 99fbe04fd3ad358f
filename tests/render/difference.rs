//! What is rendered is compared with what a server shows, and with what was rendered before.

use backstay::model::ObjectRef;
use backstay::plan::{Change, FieldPath, FieldView, Mark, changes, created_lines, drift, dropped, object_lines};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::agent::Agent;

/// What an API server of v1.36 puts into the objects that are rendered here, as far as it changes them.
fn as_the_server_shows(rendered: &Value) -> Value {
    let mut live = rendered.clone();
    let kind = rendered["kind"].as_str().expect("a kind").to_owned();
    live["metadata"]["uid"] = json!("8c5c");
    live["metadata"]["resourceVersion"] = json!("4711");
    live["metadata"]["generation"] = json!(2);
    live["metadata"]["creationTimestamp"] = json!("2026-11-24T10:00:00Z");
    live["metadata"]["managedFields"] = json!([{"manager": "backstay", "operation": "Apply"}]);
    live["metadata"]["labels"]["added.example.com/by"] = json!("somebody");
    match kind.as_str() {
        "Deployment" => {
            live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("1");
            pod(&mut live["spec"]["template"]["spec"]);
            live["status"] = json!({"observedGeneration": 2});
        }
        "Job" => {
            pod(&mut live["spec"]["template"]["spec"]);
            live["spec"]["backoffLimit"] = json!(6);
            live["spec"]["completions"] = json!(1);
            live["spec"]["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "1"}});
            live["spec"]["template"]["metadata"] = json!({"labels": {"batch.kubernetes.io/job-name": "seed"}});
        }
        "Service" => {
            let mut spec = live["spec"].clone();
            json_patch::merge(
                &mut spec,
                &json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "type": "ClusterIP",
                "sessionAffinity": "None", "ipFamilies": ["IPv4"], "internalTrafficPolicy": "Cluster"}),
            );
            spec["ports"]
                .as_array_mut()
                .expect("ports")
                .push(json!({"name": "other", "port": 9, "protocol": "TCP", "targetPort": 9}));
            live["spec"] = spec;
        }
        _ => {}
    }
    live
}

fn pod(spec: &mut Value) {
    let defaults = json!({"dnsPolicy": "ClusterFirst", "restartPolicy": spec.get("restartPolicy").cloned().unwrap_or(json!("Always")),
        "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30});
    json_patch::merge(spec, &defaults);
    if let Some(account) = spec.get("serviceAccountName").cloned() {
        spec["serviceAccount"] = account;
    }
    for container in spec["containers"].as_array_mut().expect("containers") {
        let policy = container.get("imagePullPolicy").cloned().unwrap_or(json!("IfNotPresent"));
        json_patch::merge(
            container,
            &json!({"imagePullPolicy": policy, "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File"}),
        );
        if container.get("resources").is_none() {
            container["resources"] = json!({});
        }
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if let Some(Value::Object(probe)) = container.get_mut(probe) {
                probe.entry("timeoutSeconds").or_insert(json!(1));
                probe.entry("successThreshold").or_insert(json!(1));
                if let Some(get) = probe.get_mut("httpGet") {
                    get["scheme"] = json!("HTTP");
                }
            }
        }
        for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
                field["apiVersion"] = json!("v1");
            }
        }
    }
    // A sidecar that an admission webhook added, with what it mounts.
    spec["containers"].as_array_mut().expect("containers").push(json!({"name": "injected", "image": "mesh:1"}));
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        volumes.push(json!({"name": "injected", "emptyDir": {}}));
    }
}

/// Pointers to every leaf of an object.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                leaves(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for (n, value) in elements.iter().enumerate() {
                leaves(value, &format!("{at}/{n}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            found.push(at.to_owned());
        }
    }
}

fn remove(value: &mut Value, pointer: &str) {
    let (owner, field) = pointer.rsplit_once('/').expect("a pointer");
    match value.pointer_mut(owner).expect("an owner") {
        Value::Object(fields) => drop(fields.remove(&field.replace("~1", "/").replace("~0", "~"))),
        Value::Array(elements) => drop(elements.remove(field.parse().expect("an index"))),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => panic!("no leaf is in {other}"),
    }
}

/// Every leaf of every object of a full agent, whose change must be found.
fn every_leaf() -> Vec<(Value, String)> {
    let mut agent = Agent::full();
    agent.settings.autoscaling = Some(json!({"maxReplicas": 9, "metrics": [{"type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}));
    agent
        .manifest(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"},
        "spec": {"hostnames": ["a.example.com"], "rules": [{"backendRefs": [{"name": "support", "port": 8000}]}]}}));
    agent.manifest(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"namespaceSelector": {}}]}]}}));
    let mut all = vec![];
    for manifest in agent.render().manifests {
        let mut found = vec![];
        leaves(&manifest.body, "", &mut found);
        // The identity, and what a server would put back itself.
        found.retain(|leaf| !matches!(leaf.as_str(), "/apiVersion" | "/kind") && !leaf.ends_with("/protocol"));
        all.extend(found.into_iter().map(|leaf| ((*manifest.body).clone(), leaf)));
    }
    all
}

#[test]
fn what_a_server_adds_is_no_drift() {
    for manifest in Agent::full().render().manifests {
        let live = as_the_server_shows(&manifest.body);
        assert_eq!(drift(&manifest.body, &live), [], "{}", manifest.object);
    }
}

#[test]
fn every_changed_or_missing_field_is_found() {
    let all = every_leaf();
    assert!(all.len() > 250, "{}", all.len());
    for (body, leaf) in all {
        let mut live = as_the_server_shows(&body);
        remove(&mut live, &leaf);
        assert_ne!(drift(&body, &live), [], "{leaf} is missing");
        let mut live = as_the_server_shows(&body);
        let value = live.pointer_mut(&leaf).expect("the leaf");
        *value = match &*value {
            Value::String(text) => json!(format!("{text}x")),
            Value::Bool(on) => json!(!on),
            Value::Number(number) => json!(number.as_u64().expect("a count") + 1),
            Value::Null | Value::Array(_) | Value::Object(_) => json!("changed"),
        };
        assert_ne!(drift(&body, &live), [], "{leaf} is changed");
    }
}

proptest! {
    /// Whatever others add to maps and keyed lists, and in whatever order the lists come, is no drift.
    #[test]
    fn additions_and_order_are_no_drift(seed in any::<u64>()) {
        let agent = Agent::full();
        let mut state = seed | 1;
        let mut next = || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
        let body = agent.deployment();
        let mut live = as_the_server_shows(&body);
        for list in ["/spec/template/spec/containers", "/spec/template/spec/volumes", "/spec/template/spec/containers/0/env",
            "/spec/template/spec/containers/0/volumeMounts", "/spec/template/spec/imagePullSecrets"] {
            if let Some(Value::Array(elements)) = live.pointer_mut(list) {
                for n in (1..elements.len()).rev() {
                    elements.swap(n, usize::try_from(next() % (n as u64 + 1)).expect("small"));
                }
            }
        }
        for map in ["/metadata/labels", "/metadata/annotations", "/spec/template/metadata/annotations", "/spec", "/spec/template/spec"] {
            if let Some(Value::Object(fields)) = live.pointer_mut(map) {
                fields.insert(format!("x{}", next()), json!("theirs"));
            }
        }
        prop_assert_eq!(drift(&body, &live), vec![]);
    }
}

#[test]
fn an_object_does_not_differ_from_itself() {
    for manifest in Agent::full().render().manifests {
        assert_eq!(drift(&manifest.body, &manifest.body), [], "{}", manifest.object);
        assert_eq!(changes(&manifest.body, &manifest.body), [], "{}", manifest.object);
        assert!(dropped(&manifest.body, &manifest.body).is_empty(), "{}", manifest.object);
    }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": {"spec": spec}}})
}

/// The paths that differ, in one line.
fn paths(rendered: &Value, live: &Value) -> String {
    drift(rendered, live).iter().map(|change| change.path.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn lists_are_compared_as_the_api_has_them() {
    let pod = "spec.template.spec";
    for (ours, live, expected) in [
        // Keyed: theirs are theirs.
        (
            json!({"containers": [{"name": "a", "image": "1"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "1"}]}),
            "",
        ),
        (
            json!({"containers": [{"name": "a", "image": "1"}]}),
            json!({"containers": [{"name": "a", "image": "2"}]}),
            "spec.template.spec.containers[name=a].image",
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "b"}]}),
            "spec.template.spec.containers[name=a]",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "TCP"}]}]}),
            "",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "UDP"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "TCP"}]}]}),
            "spec.template.spec.containers[name=a].ports[containerPort=1,protocol=UDP]",
        ),
        // Atomic: an element more is a change, a default in an element is none.
        (json!({"tolerations": [{"key": "a"}]}), json!({"tolerations": [{"key": "a", "operator": "Equal"}]}), ""),
        (
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "a"}, {"key": "b"}]}),
            "spec.template.spec.tolerations",
        ),
        (
            json!({"containers": [{"name": "a", "args": ["x", "y"]}]}),
            json!({"containers": [{"name": "a", "args": ["y", "x"]}]}),
            "spec.template.spec.containers[name=a].args[0] spec.template.spec.containers[name=a].args[1]",
        ),
        // Atomic maps.
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            "spec.template.spec.nodeSelector",
        ),
        // Amounts.
        (
            json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}}]}),
            json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1024Mi"}}}]}),
            "",
        ),
        (
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1000m"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}),
            "spec.template.spec.containers[name=a].env[name=X].value",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}]}),
            "",
        ),
        // What the server drops or puts in place of nothing.
        (
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": ""}]}], "hostNetwork": false, "tolerations": [], "affinity": {}}),
            json!({"containers": [{"name": "a", "env": [{"name": "X"}]}]}),
            "",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"periodSeconds": 0, "initialDelaySeconds": 0}}]}),
            json!({"containers": [{"name": "a", "livenessProbe": {"periodSeconds": 10}}]}),
            "",
        ),
        (json!({"hostNetwork": false}), json!({"hostNetwork": true}), "spec.template.spec.hostNetwork"),
        (json!({"automountServiceAccountToken": false}), json!({}), "spec.template.spec.automountServiceAccountToken"),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            "spec.template.spec.volumes[name=v].emptyDir",
        ),
        (json!({"priority": null}), json!({"priority": 1}), ""),
        (json!({"hostname": "a"}), json!({"hostname": null}), "spec.template.spec.hostname"),
        (json!({"volumes": 1}), json!({"volumes": []}), "spec.template.spec.volumes"),
    ] {
        assert_eq!(paths(&deployment(ours.clone()), &deployment(live)), expected, "{ours} in {pod}");
    }
}

#[test]
fn more_kinds() {
    let of = |api: &str, kind: &str, fields: Value| {
        let mut body = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "a"}});
        json_patch::merge(&mut body, &fields);
        body
    };
    for (api, kind, ours, live, expected) in [
        (
            "v1",
            "Service",
            json!({"spec": {"selector": {"a": "1"}}}),
            json!({"spec": {"selector": {"a": "1", "b": "2"}}}),
            "spec.selector",
        ),
        (
            "v1",
            "Service",
            json!({"spec": {"ports": [{"port": 1, "targetPort": "8000"}]}}),
            json!({"spec": {"ports": [{"port": 1, "protocol": "TCP", "targetPort": 8000}]}}),
            "",
        ),
        ("v1", "ConfigMap", json!({"data": {"empty": ""}}), json!({"data": {}}), "data.empty"),
        ("v1", "ConfigMap", json!({"data": {"a.b/c": "1"}}), json!({"data": {"a.b/c": "2"}}), "data[\"a.b/c\"]"),
        ("v1", "Secret", json!({"stringData": {"a": "x"}}), json!({"data": {"a": "eA=="}}), ""),
        (
            "v1",
            "Secret",
            json!({"stringData": {"a": "x", "b": "y"}}),
            json!({"data": {"a": "eQ=="}}),
            "stringData.a stringData.b",
        ),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": {"finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["b", "a"]}}),
            "",
        ),
        (
            "v1",
            "ConfigMap",
            json!({"metadata": {"finalizers": ["a", "c"]}}),
            json!({"metadata": {"finalizers": ["b", "a"]}}),
            "metadata.finalizers",
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}}),
            json!({"spec": {"selector": {"matchLabels": {"a": "1", "b": "1"}}}}),
            "spec.selector.matchLabels",
        ),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"metrics": [{"pods": {"target": {"averageValue": "0.5"}}}]}}),
            json!({"spec": {"metrics": [{"pods": {"target": {"averageValue": "500m"}}}]}}),
            "",
        ),
        // Other people's kinds keep zero values.
        ("example.com/v1", "Thing", json!({"spec": {"paused": false}}), json!({"spec": {}}), "spec.paused"),
        ("example.com/v1", "Thing", json!({"spec": {"rate": 1.0}}), json!({"spec": {"rate": 1}}), ""),
        (
            "example.com/v1",
            "Thing",
            json!({"spec": {"containers": [{"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}),
            "spec.containers",
        ),
    ] {
        assert_eq!(paths(&of(api, kind, ours), &of(api, kind, live)), expected, "{kind}");
    }
}

#[test]
fn drift_says_both_values() {
    let found = drift(&deployment(json!({"hostname": "a"})), &deployment(json!({"hostname": "b"})));
    assert_eq!(
        serde_json::to_value(&found).expect("JSON"),
        json!([{"path": "spec.template.spec.hostname", "ours": "a", "live": "b"}])
    );
    let change = Change::from(found[0].clone());
    assert_eq!((change.from, change.to), (Some(json!("b")), Some(json!("a"))));
}

#[test]
fn fields_that_are_no_longer_rendered() {
    let old = deployment(json!({
        "containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}], "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}],
        "tolerations": [{"key": "a"}], "nodeSelector": {"a": "1", "b": "1"}, "hostname": "x", "priority": null}));
    let new = deployment(json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}]}],
        "tolerations": [], "nodeSelector": {"a": "1"}}));
    let found: Vec<_> = dropped(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "spec.template.spec.containers[name=a].env[name=Y]",
            "spec.template.spec.containers[name=a].resources",
            "spec.template.spec.containers[name=b]",
            "spec.template.spec.hostname",
        ]
    );
    let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"finalizers": ["a", "b"]}});
    let new = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"finalizers": ["b"]}});
    assert_eq!(dropped(&old, &new), [FieldPath::of(&["metadata", "finalizers"])]);
    assert!(dropped(&new, &old).is_empty());
    let path = &dropped(&old, &new)[0];
    assert!(path.is_within(&FieldPath::of(&["metadata"])) && !path.is_within(&FieldPath::of(&["spec"])));
}

fn printed(lines: &[backstay::plan::ChangeLine]) -> String {
    lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn changes_print_as_people_read_them() {
    let object = ObjectRef {
        group: "apps".into(),
        kind: "Deployment".into(),
        namespace: "agents".into(),
        name: "support".into(),
    };
    let old = deployment(json!({"hostname": "gone", "containers": [{"name": "agent", "image": "x@sha256:1",
        "env": [{"name": "API_TOKEN", "value": "abc"}, {"name": "DB", "value": "postgres://u:p@db/x"}, {"name": "TEXT", "value": "a\nb\nc\n"}], "args": ["--a"]}]}));
    let new = deployment(json!({"containers": [{"name": "agent", "image": "x@sha256:2",
        "env": [{"name": "API_TOKEN", "value": "def"}, {"name": "DB", "value": "postgres://u:p@db2/x"}, {"name": "TEXT", "value": "a\nB\nc\npassword: x\n"},
            {"name": "NEW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}], "args": ["--a", "\u{1b}[31m"]}]}));
    let changes = changes(&old, &new);
    insta::assert_snapshot!(printed(&object_lines(Mark::Change, &object, &changes)), @r#"
    ~ Deployment/agents/support
      ~ spec.template.spec.containers[name=agent].args: ["--a"] -> ["--a","\u001b[31m"]
      ~ spec.template.spec.containers[name=agent].env[name=API_TOKEN].value: "***" (changed)
      ~ spec.template.spec.containers[name=agent].env[name=DB].value: "postgres://***@db/x" -> "postgres://***@db2/x"
      + spec.template.spec.containers[name=agent].env[name=NEW].valueFrom.secretKeyRef.key: "k"
      + spec.template.spec.containers[name=agent].env[name=NEW].valueFrom.secretKeyRef.name: "s"
      ~ spec.template.spec.containers[name=agent].env[name=TEXT].value:
        - b
        + B
        + password: ***
      ~ spec.template.spec.containers[name=agent].image: "x@sha256:1" -> "x@sha256:2"
      - spec.template.spec.hostname: "gone"
    "#);
    assert_eq!(Mark::Replace.to_string(), "±");
}

#[test]
fn fields_have_their_values_and_say_what_is_masked() {
    let old = deployment(json!({"hostname": "gone", "containers": [{"name": "agent", "image": "x@sha256:1",
        "env": [{"name": "API_TOKEN", "value": "abc"}]}]}));
    let new = deployment(json!({"containers": [{"name": "agent", "image": "x@sha256:2",
        "env": [{"name": "API_TOKEN", "value": "def"}, {"name": "NEW", "value": "postgres://u:p@db/x"}]}]}));
    let fields = json!(FieldView::of("Deployment", &changes(&old, &new)));
    let at = |end: &str| format!("spec.template.spec.{end}");
    let agent = |end: &str| at(&format!("containers[name=agent].{end}"));
    assert_eq!(
        fields,
        json!([
            {"path": agent("env[name=API_TOKEN].value"), "from": "***", "to": "***", "masked": true},
            {"path": agent("env[name=NEW].value"), "to": "postgres://***@db/x", "masked": true},
            {"path": agent("image"), "from": "x@sha256:1", "to": "x@sha256:2", "masked": false},
            {"path": at("hostname"), "from": "gone", "masked": false},
        ])
    );
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n", "labels": {"a": "b"}},
        "data": {"t": "a\nb\n", "password": "x"}});
    let made = json!(FieldView::of_created("ConfigMap", &body));
    assert_eq!(
        made,
        json!([
            {"path": "data.password", "to": "***", "masked": true},
            {"path": "data.t", "to": "a\nb\n", "masked": false},
            {"path": "metadata.labels.a", "to": "b", "masked": false},
        ])
    );
    // The same fields, in the same words, as a person reads.
    let object = ObjectRef { group: "apps".into(), kind: "Deployment".into(), namespace: "n".into(), name: "s".into() };
    let text = printed(&object_lines(Mark::Change, &object, &changes(&old, &new)));
    for field in fields.as_array().expect("a list") {
        assert!(text.contains(field["path"].as_str().expect("a path")), "{field} in {text}");
    }
    assert!(!text.contains("abc") && !text.contains("u:p"));
}

#[test]
fn creations_print_their_fields() {
    let mut agent = Agent::small();
    agent.prompt("system", "You are kind.\nYou are brief.\n");
    let rendered = agent.render();
    let config = rendered.config_map().expect("it");
    let text = printed(&created_lines(&config.object, &config.body));
    assert!(text.starts_with(&format!("+ {}\n  + ", config.object)), "{text}");
    assert!(text.contains("  + data[\"prompts.system.md\"]: \"You are kind.\"… (2 lines, 29 bytes)\n"), "{text}");
    assert!(!text.contains("metadata.name:"), "{text}");
    let secret = ObjectRef { group: String::new(), kind: "Secret".into(), namespace: "n".into(), name: "s".into() };
    let text = printed(&created_lines(&secret, &json!({"data": {"a": "eA=="}, "stringData": {"b": "hunter2"}})));
    assert_eq!(text, "+ Secret/n/s\n  + data.a: \"***\"\n  + stringData.b: \"***\"\n");
    let text = printed(&created_lines(
        &secret,
        &json!({"rules": [{"name": "a", "x": ["long".repeat(40)]}, {"y": 1}], "z": {}}),
    ));
    assert!(text.contains("  + rules[name=a].x: [\"longlong") && text.contains("… (164 bytes)"), "{text}");
    assert!(text.contains("  + rules[1].y: 1\n") && text.contains("  + z: {}\n"), "{text}");
}

#[test]
fn no_file_speaks_to_a_terminal() {
    let object =
        ObjectRef { group: String::new(), kind: "ConfigMap".into(), namespace: "n".into(), name: "\u{1b}[2Jx".into() };
    let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "x\n", "b": "1"}});
    let new = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "x\n\u{1b}[31m\u{202e}\n", "b": "\u{9b}2", "\u{1b}": "1"}});
    let text = printed(&object_lines(Mark::Change, &object, &changes(&old, &new)));
    assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
}
