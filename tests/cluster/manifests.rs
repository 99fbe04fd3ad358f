//! `manifests/` on a real API server: it takes them, a request carries its maker's name, and the rights are those.

use std::path::Path;

use backstay::ledger::{Ask, Asker, Ledger};
use backstay::model::Timestamp;
use backstay::reconcile::FailureKind;
use http::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, eventually, lab};

/// The documents of all files that `kustomization.yaml` lists, with the namespaces of production and of the daemon
/// become the test's own.
fn documents(lab: &Lab) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let read = |file: &str| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let text = text.replace("agents-production", &lab.namespace).replace("backstay-system", &lab.namespace);
        serde_yaml::from_multiple::<Value>(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let listed = read("kustomization.yaml").remove(0);
    let files = listed["resources"].as_array().expect("resources").iter().filter_map(Value::as_str);
    files.filter(|file| !file.contains("development") && !file.contains("staging")).flat_map(read).collect()
}

/// The collection that an object is made in.
fn collection(object: &Value) -> String {
    let kind = object["kind"].as_str().expect("a kind").to_lowercase();
    let plural = if let Some(stem) = kind.strip_suffix('y') { format!("{stem}ies") } else { format!("{kind}s") };
    let version = object["apiVersion"].as_str().expect("a version");
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{plural}"),
    }
}

#[tokio::test]
async fn a_server_takes_every_manifest() {
    let Some(lab) = lab("a_server_takes_every_manifest").await else { return };
    let documents = documents(&lab);
    assert!(documents.len() > 15, "{}", documents.len());
    for object in documents {
        let path = format!("{}?dryRun=All&fieldValidation=Strict", collection(&object));
        let told = format!("{} {}", object["kind"], object["metadata"]["name"]);
        match lab.ask(Method::POST, &path, Some(object)).await {
            Ok(_) => {}
            // Namespaces and the ledger's kinds stand there, as every test needs them.
            Err(status) => assert_eq!(status.reason, "AlreadyExists", "{told}: {}", status.message),
        }
    }
}

#[tokio::test]
async fn a_request_carries_its_makers_name() {
    let Some(lab) = lab("a_request_carries_its_makers_name").await else { return };
    for mut object in documents(&lab) {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        if !kind.starts_with("ValidatingAdmissionPolicy") {
            continue;
        }
        // Other tests share the server: the policy holds in this namespace alone.
        object["metadata"]["name"] = json!(lab.namespace);
        if kind == "ValidatingAdmissionPolicyBinding" {
            object["spec"]["policyName"] = json!(lab.namespace);
            let here = json!({"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}});
            object["spec"]["matchResources"] = json!({"namespaceSelector": here});
        }
        let path = collection(&object);
        lab.ask(Method::POST, &path, Some(object)).await.expect("made");
    }
    for user in ["alice", "bob"] {
        let subject = json!({"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"});
        lab.allow(user, subject, &["backstay.dev"], &["agentreleases"], &["get", "list", "create", "patch"]).await;
    }
    let release =
        json!({"apiVersion": "backstay.dev/v1alpha1", "kind": "AgentRelease", "metadata": {"name": "a"}, "spec": {}});
    lab.make("backstay.dev/v1alpha1/agentreleases", release).await;

    let environment = "production".parse().expect("a name");
    let alice = Ledger::new(lab.api(Some("alice")).await, lab.namespace.clone(), environment, "i");
    let agent = "a".parse().expect("a name");
    let by = |by: &str, at: &str| Asker { by: by.to_owned(), reason: String::new(), at: at.parse().expect("a time") };
    // Each is another request: one that slipped through before the policy held must not be asked again as it stands.
    let mut tries = 0;
    let failure = eventually("the policy is in force", async || {
        tries += 1;
        let forged = Asker { at: Timestamp::from_second(tries).expect("a time"), ..by("bob", "2026-11-24T10:00:00Z") };
        alice.request(&agent, &Ask::Suspend, &forged).await.err().filter(|failure| failure.message.contains("`by`"))
    })
    .await;
    assert_eq!(failure.kind, FailureKind::Refused, "{}", failure.message);
    assert!(failure.message.contains("alice"), "{}", failure.message);

    // In one's own name, beside what others asked, and again.
    let bob =
        Ledger::new(lab.api(Some("bob")).await, lab.namespace.clone(), "production".parse().expect("a name"), "i");
    bob.request(&agent, &Ask::Suspend, &by("bob", "2026-11-24T10:00:01Z")).await.expect("his own name");
    alice.request(&agent, &Ask::Resume, &by("alice", "2026-11-24T10:00:02Z")).await.expect("beside his");
    alice.request(&agent, &Ask::Suspend, &by("alice", "2026-11-24T10:00:03Z")).await.expect("in place of his");

    // Nobody takes a request back, makes an agent with somebody else's, or leaves the name out: not even an administrator.
    let path = format!("{}/a", lab.path("backstay.dev/v1alpha1/agentreleases"));
    let mut held = lab.ask(Method::GET, &path, None).await.expect("read");
    held["spec"].as_object_mut().expect("a map").remove("resume");
    let refused = lab.ask(Method::PUT, &path, Some(held)).await.expect_err("taken back");
    assert!(refused.message.contains("not taken back"), "{}", refused.message);
    for spec in [json!({"retry": {"id": "1", "by": "alice"}}), json!({"retry": {"id": "1"}})] {
        let release = json!({"apiVersion": "backstay.dev/v1alpha1", "kind": "AgentRelease", "metadata": {"name": "b"}, "spec": spec});
        let refused = lab.ask(Method::POST, &lab.path("backstay.dev/v1alpha1/agentreleases"), Some(release)).await;
        let refused = refused.expect_err("made");
        assert!(refused.code == 403 || refused.code == 422, "{}", refused.message);
    }

    for kind in ["validatingadmissionpolicybindings", "validatingadmissionpolicies"] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}/{}", lab.namespace);
        lab.ask(Method::DELETE, &path, None).await.expect("deleted");
    }
}

#[tokio::test]
async fn the_rights_are_those_that_are_used() {
    let Some(lab) = lab("the_rights_are_those_that_are_used").await else { return };
    for mut object in documents(&lab) {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        if !matches!(kind.as_str(), "ServiceAccount" | "Role" | "ClusterRole" | "RoleBinding") {
            continue;
        }
        // Roles of the whole cluster under names of this test's own.
        for name in ["/metadata/name", "/roleRef/name"] {
            let whole = kind == "ClusterRole" || (kind == "RoleBinding" && object["roleRef"]["kind"] == "ClusterRole");
            if let Some(name) = object.pointer_mut(name).filter(|_| whole) {
                *name = json!(format!("{}-{}", name.as_str().expect("a name"), lab.namespace));
            }
        }
        let path = collection(&object);
        lab.ask(Method::POST, &path, Some(object)).await.expect("made");
    }
    let daemon = format!("system:serviceaccount:{}:backstay", lab.namespace);
    let account = format!("system:serviceaccount:{}:backstay-production", lab.namespace);
    let may = async |who: &str, verb: &str, group: &str, resource: &str, name: &str| {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = json!({
            "namespace": lab.namespace, "verb": verb, "group": group, "resource": resource, "subresource": sub, "name": name,
        });
        let groups = ["system:serviceaccounts", "system:authenticated"];
        let spec = json!({"user": who, "groups": groups, "resourceAttributes": attributes});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        lab.ask(Method::POST, path, Some(review)).await.expect("reviewed")["status"]["allowed"] == true
    };
    let expected = [
        (&daemon, "impersonate", "", "serviceaccounts", "backstay-production", true),
        (&daemon, "impersonate", "", "serviceaccounts", "default", false),
        (&daemon, "impersonate", "", "users", "admin", false),
        (&daemon, "update", "backstay.dev", "agentreleases/status", "a", true),
        (&daemon, "update", "backstay.dev", "agentreleases", "a", false),
        (&daemon, "patch", "backstay.dev", "agentreleases", "a", false),
        (&daemon, "update", "coordination.k8s.io", "leases", "l", true),
        (&daemon, "create", "events.k8s.io", "events", "", true),
        (&daemon, "create", "apps", "deployments", "", false),
        (&daemon, "get", "", "secrets", "s", false),
        (&daemon, "list", "", "secrets", "", false),
        (&account, "patch", "apps", "deployments", "d", true),
        (&account, "delete", "", "configmaps", "c", true),
        (&account, "update", "backstay.dev", "agentreleases/status", "a", false),
        (&account, "create", "rbac.authorization.k8s.io", "rolebindings", "", false),
        (&account, "get", "", "secrets", "s", false),
        (&account, "create", "", "pods", "", false),
    ];
    // The API server learns of roles and bindings by watching them, of each at its own time.
    for (who, verb, group, resource, name, _) in expected.iter().filter(|(.., allowed)| *allowed) {
        let what = format!("{who} may {verb} {group}/{resource} {name}");
        eventually(&what, async || may(who, verb, group, resource, name).await.then_some(())).await;
    }
    for (who, verb, group, resource, name, allowed) in expected {
        assert_eq!(may(who, verb, group, resource, name).await, allowed, "{who}: {verb} {group}/{resource} {name}");
    }
    for object in documents(&lab).iter().filter(|object| object["kind"] == "ClusterRole") {
        let path = format!(
            "{}/{}-{}",
            collection(object),
            object["metadata"]["name"].as_str().expect("a name"),
            lab.namespace
        );
        lab.ask(Method::DELETE, &path, None).await.expect("deleted");
    }
}
