//! The daemon as it is installed: a pod from `manifests/`, with its account's token and only its rights.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::daemon::{Repo, River, Server, name_image, until};
use crate::lab::lab;

/// The pods' network, as the lab has it.
const REACHED_BY_PODS: &str = "10.244.0.1:0";
const IMAGE: &str = "registry.example.com/backstay";

/// What `manifests/` installs for one environment, with the daemon and its environment in the test's own namespace.
fn documents(namespace: &str, source: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let read = |file: &str| {
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let text = text.replace("agents-development", namespace).replace("backstay-system", namespace);
        serde_yaml::from_multiple::<Value>(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let files = ["rbac.yaml", "config.yaml", "deployment.yaml", "service.yaml", "targets/development.yaml"];
    let mut documents: Vec<Value> = files.into_iter().flat_map(read).collect();
    documents.retain(|object| object["kind"] != "Namespace");
    for object in &mut documents {
        if object["kind"] == "ConfigMap" {
            object["data"]["backstay.toml"] = json!(format!(
                "installation = \"pod\"\n[source]\nurl = \"{source}\"\ninterval = \"1s\"\n[[target]]\n\
                 environment = \"development\"\nkubernetes = {{ namespace = \"{namespace}\", \
                 service_account = \"backstay-development\" }}\n[http]\nlisten = \"0.0.0.0:8740\"\n"
            ));
        }
    }
    documents
}

fn collection(object: &Value) -> String {
    let kind = object["kind"].as_str().expect("a kind").to_lowercase();
    let version = object["apiVersion"].as_str().expect("a version");
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{kind}s"),
        None => format!("{root}/{kind}s"),
    }
}

#[tokio::test]
async fn from_its_manifests_under_its_own_rights() {
    let Some(lab) = lab("pod").await else { return };
    let repo = Repo::small();
    let server = Server::http_at(repo.parent(), REACHED_BY_PODS);
    let source = format!("http://{}/repo.git", server.address);
    let river = River::with_source(lab, repo, String::new()).await;
    name_image(IMAGE);
    for object in documents(&river.lab.namespace, &source) {
        let told = format!("{} {}", object["kind"], object["metadata"]["name"]);
        match river.lab.ask(Method::POST, &collection(&object), Some(object)).await {
            Ok(_) => {}
            // Roles of the cluster are shared by tests that install them too.
            Err(status) => assert_eq!(status.reason, "AlreadyExists", "{told}: {}", status.message),
        }
    }
    let deployments = river.lab.path("apps/v1/deployments");
    until("the daemon's pod is available", async || {
        let daemon = river.lab.ask(Method::GET, &format!("{deployments}/backstay"), None).await.ok()?;
        (daemon["status"]["availableReplicas"] == 1).then_some(())
    })
    .await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
    river.greets("Ahoy!").await;
    let reverted = river.repo.revert(&["HEAD"]);
    let record = river.settled(&reverted).await;
    assert_eq!(river.greets("Hello!").await, first);
    let newest = &record["operations"][0];
    assert_eq!(newest["cause"]["revert"]["evidence"], "Verified", "{newest}");
    // The workloads were written by the environment's account, never by the daemon's own.
    let deployment = river.lab.ask(Method::GET, &format!("{deployments}/support"), None).await.expect("a Deployment");
    assert_eq!(deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"], "backstay");
}
