//! The daemon as it is installed: a pod from `manifests/`, with its account's token and only its rights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::audit::Audit;
use crate::daemon::{Repo, River, Server, name_image, until};
use crate::lab::lab;
use crate::rights::{self, Right};

/// The pods' network, as the lab has it.
const REACHED_BY_PODS: &str = "10.244.0.1:0";
const IMAGE: &str = "registry.example.com/backstay";

/// One object of each kind that an agent may bring, with a field that goes at the next commit.
const EVERYTHING: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: every, annotations: {note: first}}
data: {a: b}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: every, annotations: {note: first}}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: every, annotations: {note: first}}
spec: {selector: {app: every}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: every, annotations: {note: first}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: every, annotations: {note: first}}
spec:
  replicas: 0
  selector: {matchLabels: {app: every}}
  template:
    metadata: {labels: {app: every}}
    spec: {containers: [{name: one, image: registry.example.com/support-agent:1}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: every, annotations: {note: first}}
spec:
  replicas: 0
  serviceName: every
  selector: {matchLabels: {app: every}}
  template:
    metadata: {labels: {app: every}}
    spec: {containers: [{name: one, image: registry.example.com/support-agent:1}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: every, annotations: {note: first}}
spec:
  maxReplicas: 2
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: every}
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: every, annotations: {note: first}}
spec:
  schedule: '0 0 1 1 *'
  suspend: true
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: one, image: registry.example.com/support-agent:1}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: every, annotations: {note: first}}
spec:
  suspend: true
  template:
    spec: {restartPolicy: Never, containers: [{name: one, image: registry.example.com/support-agent:1}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: every, annotations: {note: first}}
spec: {hostnames: [every.example.com]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: every, annotations: {note: first}}
spec: {podSelector: {matchLabels: {app: every}}, policyTypes: [Ingress]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: every, annotations: {note: first}}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: every}}}
";

const CONSENT: &str = "agent: support\nenvironment: development\nallow: prune\nobject: PersistentVolumeClaim/every\n\
                       expires: 2036-06-30\n";

/// Rights that a run without mishaps does not show, and why the daemon needs them.
const UNSEEN: [(&str, &str, &str, &str); 2] = [
    ("backstay.dev", "agentreleases", "get", "the record is read again after a write of it that was lost or refused"),
    ("batch", "jobs", "get", "an object is read again after a write of it that was lost or refused"),
];

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
    let audit = Audit::now();
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

    // Each kind that an agent may bring, made; a field of each taken back; gone again.
    let file = "agents/support/manifests/everything.yaml";
    river.repo.write(file, EVERYTHING);
    let made = river.repo.commit("Bring one of each");
    river.settled(&made).await;
    // A Job has its content in its name, so it is never changed but for drift.
    let jobs = river.lab.ask(Method::GET, &river.lab.path("batch/v1/jobs"), None).await.expect("the Jobs");
    let job = jobs["items"][0]["metadata"]["name"].as_str().expect("a name");
    let theirs = json!({"metadata": {"annotations": {"note": "theirs"}}});
    river.lab.merge("batch/v1/jobs", job, "somebody", &theirs).await;
    until("it is healed", async || {
        let job = river.lab.see("batch/v1/jobs", job).await?;
        (job["metadata"]["annotations"]["note"] == "first").then_some(())
    })
    .await;
    river.repo.write(file, &EVERYTHING.replace(", annotations: {note: first}", ""));
    let changed = river.repo.commit("Take the notes off");
    river.settled(&changed).await;
    river.repo.git(&["rm", "-q", file]);
    river.repo.write("consent/claim.yaml", CONSENT);
    let gone = river.repo.commit("Take them away");
    river.settled(&gone).await;
    until("they are gone", async || river.lab.see("persistentvolumeclaims", "every").await.is_none().then_some(()))
        .await;
    // Where a route leads is looked at, too.
    let overlay = "environments/development/support.yaml";
    let route = "route: {hosts: [support.example.com], gateway: {name: public, namespace: gateways}}\n";
    river.repo.write(overlay, &(river.repo.read(overlay) + route));
    river.repo.commit("Have a route");
    until("the route is there", async || river.lab.see("gateway.networking.k8s.io/v1/httproutes", "support").await)
        .await;
    // A watch is in the record once it ends.
    river.lab.remove("apps/v1/deployments", "backstay").await;
    let running = async || {
        let pods = river.lab.ask(Method::GET, &river.lab.path("pods"), None).await.expect("the pods");
        pods["items"].as_array().expect("a list").iter().any(|pod| pod["spec"]["serviceAccountName"] == "backstay")
    };
    until("the daemon is gone", async || (!running().await).then_some(())).await;
    the_rights_are_those_that_were_used(&audit, &river.lab.namespace).await;
}

/// Whatever the two accounts asked for was allowed, by `manifests/`; and whatever that allows was asked for.
async fn the_rights_are_those_that_were_used(audit: &Audit, namespace: &str) {
    let daemon = format!("system:serviceaccount:{namespace}:backstay");
    let environment = format!("system:serviceaccount:{namespace}:backstay-development");
    let of = |name: &str| {
        let documents = rights::documents("rbac.yaml");
        let role =
            documents.iter().find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == name);
        rights::rights(role.expect("a role"))
    };
    let unseen = UNSEEN.map(|(group, resource, verb, _)| (group.to_owned(), resource.to_owned(), verb.to_owned()));
    let mut granted: BTreeMap<&str, BTreeSet<Right>> =
        BTreeMap::from([("itself", of("backstay-daemon")), ("for its environment", of("backstay-environment"))]);
    let named = |right: &Right| !right.1.is_empty();
    let look = || {
        let calls = audit.calls(namespace).into_iter().filter(|call| call.user == daemon && named(&call.right));
        let mut used: BTreeMap<&str, BTreeSet<Right>> = BTreeMap::from([("itself", BTreeSet::new())]);
        for call in calls {
            assert_ne!(call.code, 403, "what it asks for is allowed: {call:?}");
            let who = match &call.acting_as {
                None => "itself",
                Some(account) => {
                    assert_eq!(account, &environment, "nobody else is impersonated: {call:?}");
                    "for its environment"
                }
            };
            used.entry(who).or_default().insert(call.right);
        }
        used
    };
    for (who, used) in look() {
        let more: Vec<_> = used.difference(&granted[who]).collect();
        assert!(more.is_empty(), "asked for, and allowed by something else than `manifests/`, {who}: {more:?}");
    }
    for rights in granted.values_mut() {
        rights.retain(|right| !unseen.contains(right));
    }
    let mut idle = granted.clone();
    let all_seen = async || {
        let used = look();
        for (who, rights) in &mut idle {
            rights.retain(|right| used.get(who).is_none_or(|used| !used.contains(right)));
        }
        idle.values().all(BTreeSet::is_empty).then_some(())
    };
    let in_time =
        tokio::time::timeout(std::time::Duration::from_secs(20), until("every right is seen", all_seen)).await;
    assert!(in_time.is_ok(), "granted and never used: {idle:?}");
}
