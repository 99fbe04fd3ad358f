//! What `manifests/` installs: no right too many, a pod that is nobody, and a configuration that the daemon can read.
//!
//! `tests/cluster/manifests.rs` installs them on a real API server.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: it reads files, and a panic is its failure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use backstay::daemon::config::{Config, Place};
use backstay::plan::GatePolicy;
use serde_json::{Value, json};

use rights::{documents, rights};

#[path = "support/rights.rs"]
mod rights;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests"))
}

/// The files that `kustomization.yaml` lists.
fn listed() -> Vec<String> {
    let kustomization = documents("kustomization.yaml").remove(0);
    kustomization["resources"].as_array().unwrap().iter().map(|file| file.as_str().unwrap().to_owned()).collect()
}

fn all() -> Vec<Value> {
    listed().iter().flat_map(|file| documents(file)).collect()
}

fn find<'v>(objects: &'v [Value], kind: &str, name: &str) -> &'v Value {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn every_file_is_listed_and_every_environment_has_one() {
    let yaml = |name: &String| Path::new(name).extension().is_some_and(|found| found == "yaml");
    let mut files: BTreeSet<String> = BTreeSet::new();
    for (folder, prefix) in [(folder().to_owned(), ""), (folder().join("targets"), "targets/")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            files.extend(yaml(&name).then(|| format!("{prefix}{name}")));
        }
    }
    files.remove("kustomization.yaml");
    assert_eq!(files, listed().into_iter().collect());

    let environments = Path::new(env!("CARGO_MANIFEST_DIR")).join("example-repo/environments");
    let targets: BTreeSet<String> =
        files.iter().filter_map(|file| file.strip_prefix("targets/")).map(str::to_owned).collect();
    let declared =
        std::fs::read_dir(environments).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(targets, declared.filter(yaml).collect());
}

#[test]
fn the_environments_differ_by_name_alone() {
    let read = |name: &str| {
        let text = std::fs::read_to_string(folder().join("targets").join(format!("{name}.yaml"))).unwrap();
        text.replace(name, "NAME")
    };
    assert_eq!(read("development"), read("production"));
    assert_eq!(read("staging"), read("production"));
}

#[test]
fn the_configuration_binds_the_environments() {
    let config = documents("config.yaml").remove(0);
    let text = config["data"]["backstay.toml"].as_str().unwrap();
    let config = Config::parse("backstay.toml", Some(text), &BTreeMap::new()).unwrap();
    let objects = all();
    for target in &config.target {
        let Place::Kubernetes(at) = target.place() else { panic!("a target of a cluster") };
        let (namespace, account) = (at.namespace.to_string(), at.service_account.clone());
        let account = account.unwrap().to_string();
        find(&objects, "Namespace", &namespace);
        assert_eq!(find(&objects, "ServiceAccount", &account)["metadata"]["namespace"], namespace.as_str());
    }
    assert_eq!(config.target.len(), 3);
}

// Supply chain, neighbours: a narrow RBAC, read from the rendered manifests.
#[test]
fn nobody_has_a_right_too_many() {
    for object in all() {
        let kind = object["kind"].as_str().unwrap();
        assert_ne!(kind, "ClusterRoleBinding", "rights hold in the namespaces of targets only");
        if !matches!(kind, "Role" | "ClusterRole") {
            continue;
        }
        let name = object["metadata"]["name"].as_str().unwrap();
        for (group, resource, verb) in rights(&object) {
            let told = format!("{kind} {name}: {verb} {group}/{resource}");
            assert!(group != "*" && resource != "*" && verb != "*" && verb != "deletecollection", "{told}");
            assert!(!resource.starts_with("secrets") && !resource.contains("token"), "{told}");
            assert!(!group.starts_with("rbac.") && verb != "escalate" && verb != "bind", "{told}");
            assert!(!matches!(resource.as_str(), "pods/exec" | "nodes" | "namespaces"), "{told}");
            if verb == "impersonate" {
                assert_eq!((kind, resource.as_str()), ("Role", "serviceaccounts"), "{told}");
                assert_eq!(object["rules"][0]["resourceNames"].as_array().unwrap().len(), 1, "{told}");
            }
        }
    }
    let objects = all();
    let daemon = rights(find(&objects, "ClusterRole", "backstay-daemon"));
    for (group, resource, verb) in &daemon {
        let looks = matches!(verb.as_str(), "list" | "watch");
        let keeps = matches!(group.as_str(), "backstay.dev" | "coordination.k8s.io" | "events.k8s.io");
        assert!(looks || keeps, "the daemon itself may only look: {verb} {resource}");
    }
}

#[test]
fn an_environment_writes_the_kinds_of_the_policy_gate() {
    let plural = |kind: &str| match kind.to_lowercase() {
        kind if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
        kind => format!("{kind}s"),
    };
    let mut expected = BTreeSet::new();
    for kind in GatePolicy::of("n").kinds {
        for verb in ["get", "create", "patch", "delete"] {
            expected.insert((kind.group.clone(), plural(&kind.kind), verb.to_owned()));
        }
    }
    let objects = all();
    assert_eq!(rights(find(&objects, "ClusterRole", "backstay-environment")), expected);
    let daemon = rights(find(&objects, "ClusterRole", "backstay-daemon"));
    for (group, resource, _) in expected {
        for verb in ["list", "watch"] {
            let right = (group.clone(), resource.clone(), verb.to_owned());
            assert!(daemon.contains(&right), "what is written is observed: {right:?}");
        }
    }
}

#[test]
fn the_daemons_pod_is_nobody() {
    let objects = all();
    let deployment = find(&objects, "Deployment", "backstay");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!((&deployment["spec"]["replicas"], &pod["serviceAccountName"]), (&json!(1), &json!("backstay")));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let containers = pod["containers"].as_array().unwrap();
    let [container] = containers.as_slice() else { panic!("{containers:?}") };
    let expected = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], expected);
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "http"}));
    }
    assert_eq!(container["ports"], json!([{"name": "http", "containerPort": 8740, "protocol": "TCP"}]));
    let writable: Vec<_> =
        container["volumeMounts"].as_array().unwrap().iter().filter(|mount| mount["readOnly"] != true).collect();
    assert_eq!(writable, [&json!({"name": "state", "mountPath": "/var/lib/backstay"})]);
    let namespace = find(&objects, "Namespace", "backstay-system");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}
