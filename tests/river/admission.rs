//! A cluster that changes what it is given: a `MutatingAdmissionPolicy` that defaults, and one that wants other values.

use http::Method;
use serde_json::{Value, json};

use crate::audit::{self, Audit};
use crate::daemon::{Daemon, Repo, River, until};
use crate::lab::{Lab, lab};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";

/// Policies are the cluster's: they go with their test.
struct Policies<'a> {
    lab: &'a Lab,
    names: Vec<String>,
}

impl Policies<'_> {
    /// From now on, what is made or changed in this namespace alone is changed so.
    async fn mutate(&mut self, name: &str, groups: &[&str], resources: &[&str], mutations: Value) {
        let name = format!("{}-{name}", self.lab.namespace);
        let rules = json!([{"apiGroups": groups, "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": resources}]);
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": self.lab.namespace}});
        let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {"failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "mutations": mutations,
                "matchConstraints": {"resourceRules": rules, "namespaceSelector": here}}});
        let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name}});
        for (path, object) in [(POLICIES, policy), (BINDINGS, binding)] {
            self.lab.ask(Method::POST, path, Some(object)).await.expect("made");
        }
        self.names.push(name);
    }

    async fn end(self) {
        for name in &self.names {
            for path in [BINDINGS, POLICIES] {
                self.lab.ask(Method::DELETE, &format!("{path}/{name}"), None).await.expect("deleted");
            }
        }
    }
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

/// Waits until the daemon has looked at Git a few times more, and says that nothing was written meanwhile.
async fn rests(river: &River, daemon: &Daemon, when: &str) {
    river.at_rest().await;
    let series = "backstay_source_polls_total{result=\"success\"}";
    let (before, from, audit) = (river.versions().await, daemon.metric(series).await, Audit::now());
    until("five more looks at Git", async || (daemon.metric(series).await >= from + 5.0).then_some(())).await;
    assert_eq!(river.versions().await, before, "{when}: who has nothing to do writes nothing");
    let calls = audit.calls(&river.lab.namespace);
    let by_us = |call: &&audit::Call| call.user == "admin" && call.writes() && call.right.1 != "leases";
    let writes: Vec<_> = calls.iter().filter(by_us).collect();
    assert!(writes.is_empty(), "{when}: {writes:?}");
}

// K13
#[tokio::test]
async fn what_admission_changes_is_written_once() {
    let Some(lab) = lab("admission").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let mut policies = Policies { lab: &river.lab, names: vec![] };
    // Fields that nobody asked for, on all of it and on the pods.
    let seen = r#"Object{metadata: Object.metadata{annotations: {"policy.example.com/seen": "yes"}}}"#;
    policies.mutate("defaults", &["", "apps"], &["configmaps", "services", "deployments"], json!([apply(seen)])).await;
    let pods = r#"Object{spec: Object.spec{template: Object.spec.template{metadata: Object.spec.template.metadata{annotations: {"policy.example.com/pods": "yes"}}}}}"#;
    // And other values than those that are rendered.
    let fewer = r#"[JSONPatch{op: "add", path: "/spec/revisionHistoryLimit", value: 1}, JSONPatch{op: "add", path: "/spec/progressDeadlineSeconds", value: 123}]"#;
    let fewer = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": fewer}});
    policies.mutate("wants", &["apps"], &["deployments"], json!([apply(pods), fewer])).await;
    until("the policies are in force", async || {
        let path = format!("{}?dryRun=All", river.lab.path("configmaps"));
        let probe = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}});
        let would = river.lab.ask(Method::POST, &path, Some(probe)).await.ok()?;
        would.pointer("/metadata/annotations/policy.example.com~1seen").map(drop)
    })
    .await;
    let deployment = || async { river.lab.see("apps/v1/deployments", "support").await.expect("the Deployment") };

    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    river.greets("Hello!").await;
    let is = deployment().await;
    assert_eq!((&is["spec"]["revisionHistoryLimit"], &is["spec"]["progressDeadlineSeconds"]), (&json!(1), &json!(123)));
    assert_eq!(is["spec"]["template"]["metadata"]["annotations"]["policy.example.com/pods"], "yes");
    rests(&river, &daemon, "installed").await;

    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
    river.greets("Ahoy!").await;
    rests(&river, &daemon, "changed").await;

    // Who starts again knows nothing of what was accepted, and asks by dry runs alone.
    daemon.kill();
    let daemon = river.start().await;
    rests(&river, &daemon, "started again").await;

    // Drift beside it is healed, once.
    let replicas = deployment().await["spec"]["replicas"].clone();
    river.lab.merge("apps/v1/deployments", "support", "somebody", &json!({"spec": {"replicas": 0}})).await;
    until("the replicas are back", async || (deployment().await["spec"]["replicas"] == replicas).then_some(())).await;
    river.recorded("it is said", |record| record["driftHealed"] == 1).await;
    river.greets("Ahoy!").await;
    rests(&river, &daemon, "healed").await;
    drop(daemon);
    policies.end().await;
}
