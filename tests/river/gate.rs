//! Section 3, a contributor by privilege: what nobody may write is pushed to a real daemon by every way in, and none of it
//! is written.

use http::Method;
use serde_json::{Value, json};

use crate::audit::Audit;
use crate::daemon::{Daemon, Repo, River, condition, until};
use crate::forbidden::{IMAGE, object, objects, pods};
use crate::lab::lab;

/// A forbidden object, and where it would stand.
struct Evil {
    /// The agent that asks for it.
    agent: String,
    what: &'static str,
    path: String,
}

/// An agent with these lines in its `spec`, of which no pod runs.
fn agent(name: &str, spec: &str) -> String {
    let head = format!("apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n");
    format!("{head}  code: {{image: \"{IMAGE}\"}}\n  replicas: 0\n{spec}")
}

/// A pod's spec with what it may not have.
fn pod(patch: &Value) -> Value {
    let mut spec = json!({"containers": [{"name": "agent", "image": IMAGE}], "restartPolicy": "Never"});
    let mut patch = patch.clone();
    if let Some(containers) = patch.get_mut("containers").and_then(Value::as_array_mut) {
        for container in containers {
            container["image"] = json!(IMAGE);
        }
    }
    json_patch::merge(&mut spec, &patch);
    spec
}

/// A workload of this kind with that pod in it.
fn workload(api: &str, kind: &str, name: &str, patch: &Value) -> Value {
    let mut spec = pod(patch);
    if matches!(kind, "Deployment" | "StatefulSet") {
        spec.as_object_mut().expect("a map").remove("restartPolicy");
    }
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
    let spec = match kind {
        "Job" => json!({"template": template}),
        "CronJob" => json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}),
        _ => json!({"selector": {"matchLabels": {"a": "b"}}, "template": template}),
    };
    object(api, kind, json!({"metadata": {"name": name}, "spec": spec}))
}

/// Pushes nothing yet: writes an agent for each of some forbidden objects, each by another way in.
fn forbidden_objects(river: &River) -> Vec<Evil> {
    let (lab, repo) = (&river.lab, &river.repo);
    let rbac = "rbac.authorization.k8s.io/v1";
    let cluster = |path: &str| format!("/apis/{rbac}/{path}");
    let chosen = [
        ("Namespace", "/api/v1/namespaces".to_owned()),
        ("ClusterRoleBinding", cluster("clusterrolebindings")),
        ("RoleBinding to cluster-admin", lab.path(&format!("{rbac}/rolebindings"))),
        ("Secret", lab.path("secrets")),
        ("DaemonSet", lab.path("apps/v1/daemonsets")),
        ("Pod", lab.path("pods")),
        ("Lease", lab.path("coordination.k8s.io/v1/leases")),
        ("AgentRelease", lab.path("backstay.dev/v1alpha1/agentreleases")),
        ("an object of kube-system", "/api/v1/namespaces/kube-system/configmaps".to_owned()),
        ("Service of type LoadBalancer", lab.path("services")),
    ];
    let all = objects();
    let mut evils = vec![];
    for (n, (what, collection)) in chosen.into_iter().enumerate() {
        let (_, mut body) = all.iter().find(|(name, _)| *name == what).expect("it is forbidden").clone();
        // Its own among all that other tests leave in the cluster.
        let (agent_name, name) = (format!("evil-o{n}"), format!("{}-o{n}", lab.namespace));
        body["metadata"]["name"] = json!(name);
        let folder = format!("agents/{agent_name}");
        let mut spec = "";
        match n % 4 {
            0 => repo.write(&format!("{folder}/manifests/evil.yaml"), &body.to_string()),
            1 => {
                let fine =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{name}-fine")}});
                repo.write(&format!("{folder}/manifests/evil.yaml"), &format!("{fine}\n---\n{body}\n"));
            }
            2 => {
                spec = "  workload: {manifest: d.yaml, container: agent}\n";
                repo.write(&format!("{folder}/d.yaml"), &body.to_string());
            }
            _ => {
                spec = "  workload: {manifest: d.yaml, container: agent}\n";
                let own = workload("apps/v1", "Deployment", &format!("{name}-d"), &json!({}));
                repo.write(&format!("{folder}/d.yaml"), &format!("{own}\n---\n{body}\n"));
            }
        }
        repo.write(&format!("{folder}/agent.yaml"), &agent(&agent_name, spec));
        evils.push(Evil { agent: agent_name, what, path: format!("{collection}/{name}") });
    }
    evils
}

/// The same for pods: what they may not have, in every template that an agent's files fill. What would tell of each stands
/// beside it.
fn forbidden_pods(repo: &Repo) -> Vec<(Evil, &'static str)> {
    let chosen = [
        ("hostNetwork", "\"hostNetwork\":true"),
        ("hostPID", "\"hostPID\":true"),
        ("hostPath", "\"hostPath\""),
        ("privileged", "\"privileged\":true"),
        ("SYS_ADMIN", "SYS_ADMIN"),
        ("hostPort", "\"hostPort\""),
        ("seccomp off", "Unconfined"),
        ("nodeName", "\"nodeName\":\"node-1\""),
    ];
    let all = pods();
    let mut evils = vec![];
    for (n, (what, mark)) in chosen.into_iter().enumerate() {
        let (_, patch) = all.iter().find(|(name, _)| *name == what).expect("it is forbidden");
        let name = format!("evil-p{n}");
        let folder = format!("agents/{name}");
        let template = json!({"spec": patch});
        let mut spec = "  workload: {port: 8000}\n".to_owned();
        let file = |api, kind| {
            let body = workload(api, kind, &format!("{name}-x"), patch);
            repo.write(&format!("{folder}/manifests/evil.yaml"), &body.to_string());
        };
        match n {
            0 => spec = format!("  workload: {{port: 8000, podTemplate: {template}}}\n"),
            1 => file("apps/v1", "Deployment"),
            2 => {
                "  workload: {manifest: d.yaml, container: agent}\n".clone_into(&mut spec);
                let own = workload("apps/v1", "Deployment", &format!("{name}-x"), patch);
                repo.write(&format!("{folder}/d.yaml"), &own.to_string());
            }
            3 => spec = format!("  workers: {{w: {{command: [x], podTemplate: {template}}}}}\n"),
            4 => {
                let overlay = json!({"workload": {"podTemplate": template}}).to_string();
                repo.write(&format!("environments/development/{name}.yaml"), &overlay);
            }
            5 => file("apps/v1", "StatefulSet"),
            6 => file("batch/v1", "Job"),
            _ => file("batch/v1", "CronJob"),
        }
        repo.write(&format!("{folder}/agent.yaml"), &agent(&name, &spec));
        evils.push((Evil { agent: name, what, path: String::new() }, mark));
    }
    evils
}

/// What the target's workloads are made of, as one text.
async fn workloads(river: &River) -> String {
    let mut all = String::new();
    for collection in [
        "apps/v1/deployments",
        "apps/v1/statefulsets",
        "apps/v1/daemonsets",
        "batch/v1/jobs",
        "batch/v1/cronjobs",
        "pods",
    ] {
        let list = river.lab.ask(Method::GET, &river.lab.path(collection), None).await.expect("a list");
        all += &list["items"].to_string();
    }
    all
}

/// Why an agent does not go on: its own condition, or what the environment says of its files.
async fn refused(river: &River, agent: &str) -> Option<String> {
    if let Some(record) = river.record(agent).await
        && let Some(stalled) = condition(&record, "Stalled").filter(|stalled| stalled["status"] == "True")
    {
        return Some(stalled["message"].as_str().expect("a message").to_owned());
    }
    let record = river.environment().await?;
    let errors = record["errors"].as_array()?.iter().map(ToString::to_string);
    let names = [format!("agents/{agent}/"), format!("environments/development/{agent}.yaml")];
    errors.into_iter().find(|error| names.iter().any(|name| error.contains(name)))
}

async fn told(river: &River, daemon: &Daemon, agent: &str, what: &str) -> String {
    let why = until(&format!("`{agent}` says why it has no {what}"), async || refused(river, agent).await).await;
    assert!(daemon.done(&["status", agent]).len() > agent.len(), "{agent}");
    why
}

// Section 3
#[tokio::test]
async fn what_nobody_may_write_is_written_by_no_way_in_and_the_others_go_on() {
    let Some(lab) = lab("refused").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let hello = river.greets("Hello!").await;

    // What stands there already may be adopted by consent, but not be made into what is forbidden.
    let name = format!("{}-standing", river.lab.namespace);
    let ports = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    let service = river.lab.make("services", ports.clone()).await;
    let secret = json!({"metadata": {"name": name}, "stringData": {"a": "b"}});
    let secret = river.lab.make("secrets", secret).await;
    let audit = Audit::now();
    let mut taken = ports;
    taken["apiVersion"] = json!("v1");
    taken["kind"] = json!("Service");
    taken["spec"]["type"] = json!("NodePort");
    let hidden = object("v1", "Secret", json!({"metadata": {"name": name}, "type": "Opaque"}));
    for (agent_name, kind, body) in [("evil-a0", "Service", &taken), ("evil-a1", "Secret", &hidden)] {
        river.repo.write(&format!("agents/{agent_name}/agent.yaml"), &agent(agent_name, ""));
        river.repo.write(&format!("agents/{agent_name}/manifests/evil.yaml"), &body.to_string());
        let consent = format!(
            "agent: {agent_name}\nenvironment: development\nallow: adopt\nobject: {kind}/{name}\nexpires: 2036-06-30\n"
        );
        river.repo.write(&format!("consent/{agent_name}.yaml"), &consent);
    }
    let objects = forbidden_objects(&river);
    let pods = forbidden_pods(&river.repo);
    river.repo.commit("Ask for what nobody may have");

    // Each says why, in its own words.
    let adopted = [("evil-a0", "NodePort"), ("evil-a1", "Secret")];
    let all = objects.iter().chain(pods.iter().map(|(evil, _)| evil)).map(|evil| (&*evil.agent, evil.what));
    for (agent, what) in all.chain(adopted) {
        let why = told(&river, &daemon, agent, what).await;
        println!("{agent:<8} {what:<30} {why}");
        let refused = why.contains("refused to write") || why.contains("error:") && agent.starts_with("evil-o");
        assert!(refused && why.contains(agent), "{agent}, {what}: {why}");
    }
    // The others go on.
    let ahoy = river.repo.commit_greeting("Ahoy!");
    river.settled(&ahoy).await;
    let second = river.greets("Ahoy!").await;
    assert_ne!(hello, second);

    // Nothing is written, and the API server was not even asked.
    let mut found = vec![];
    for evil in &objects {
        match river.lab.ask(Method::GET, &evil.path, None).await {
            Err(status) if status.code == 404 => {}
            other => found.push(format!("{} by {}: {other:?}", evil.what, evil.agent)),
        }
    }
    let standing = workloads(&river).await;
    for (evil, mark) in &pods {
        if standing.contains(mark) {
            found.push(format!("{} by {}", evil.what, evil.agent));
        }
    }
    for (collection, before) in [("services", &service), ("secrets", &secret)] {
        let now = river.lab.see(collection, &name).await.expect("it stands");
        if now["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            found.push(format!("{collection}/{name} is changed: {now}"));
        }
    }
    let names: Vec<_> = objects.iter().filter_map(|evil| evil.path.rsplit('/').next()).chain([&*name]).collect();
    for call in audit.calls(&river.lab.namespace) {
        // What runs is what they ask for, where it is not a workload beside the agent's own.
        let runs = ["deployments", "statefulsets", "jobs", "cronjobs"].contains(&&*call.right.1);
        let own = ["evil-p0", "evil-p2", "evil-p3--w", "evil-p4"].contains(&&*call.name);
        let beside = call.name.starts_with("evil-p") && call.name.contains("-x");
        let pod = runs && (own || beside);
        if call.user == "admin" && call.writes() && (pod || names.contains(&&*call.name)) {
            found.push(format!("{call:?}"));
        }
    }
    assert_eq!(found, Vec::<String>::new());

    // By what holds for all agents: nobody's pods change, the agent that ran runs on, and all go on when it is gone.
    let history = "    history: 10\n";
    let every = format!("{history}    workload: {{podTemplate: {{spec: {{hostNetwork: true}}}}}}\n");
    river.repo.edit("backstay.yaml", history, &every);
    river.repo.commit("Let everybody have the node");
    let why = told(&river, &daemon, "support", "node").await;
    assert!(why.contains("hostNetwork"), "{why}");
    assert_eq!(river.greets("Ahoy!").await, second);
    assert!(!workloads(&river).await.contains("\"hostNetwork\":true"));
    river.repo.edit("backstay.yaml", &every, history);
    let servus = river.repo.commit_greeting("Servus!");
    river.settled(&servus).await;
    river.greets("Servus!").await;
}
