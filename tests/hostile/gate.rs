//! Section 3, a contributor by privilege: forbidden objects through every way into a target; none is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use backstay::desired::{Allow, At, Cache, Consent, DesiredAgent, Resolve, TargetKind, resolve};
use backstay::model::{AgentName, EnvironmentName, LiveObject, LiveState, Origin, Revision, Uid};
use backstay::plan::{GatePolicy, Step, violations};
use backstay::record::AgentRecord;
use backstay::render::{Identity, RenderOptions, RendererVersion, Set, render};
use backstay::source::MemoryTree;
use serde_json::{Value, json};

use crate::forbidden::{IMAGE, object, objects, pods};
use crate::forge::{self, Planned, agent};

const NAMESPACE: &str = "agents-prod";

/// The gate as the daemon has it where it lives in the target's own namespace, and an account is impersonated.
fn policy() -> GatePolicy {
    let mut policy = GatePolicy::of(NAMESPACE);
    policy.accounts.insert("backstay-prod".to_owned());
    policy.own_names.extend(["backstay", "backstay-git", "backstay-webhooks"].map(str::to_owned));
    policy
}

/// Lists are merged by name, as in a strategic merge.
fn merged(mut base: Value, patch: &Value) -> Value {
    for (field, value) in patch.as_object().expect("a map") {
        match (base.get_mut(field).and_then(Value::as_array_mut), value.as_array()) {
            (Some(list), Some(more)) => {
                for item in more {
                    match list.iter_mut().find(|other| other["name"] == item["name"]) {
                        Some(other) => json_patch::merge(other, item),
                        None => list.push(item.clone()),
                    }
                }
            }
            _ => base[field] = value.clone(),
        }
    }
    base
}

fn pod_spec(patch: &Value) -> Value {
    merged(json!({"containers": [{"name": "agent", "image": IMAGE}]}), patch)
}

fn tree() -> MemoryTree {
    forge::tree("  workload: {port: 8000}\n")
}

/// A way in: a tree that asks for what is forbidden, and an object that stands there and may be adopted.
type Entry = (&'static str, Box<dyn Fn(&Value) -> (MemoryTree, Option<Value>)>);

fn entry(name: &'static str, build: impl Fn(&Value) -> MemoryTree + 'static) -> Entry {
    (name, Box::new(move |evil| (build(evil), None)))
}

fn adoption(body: &Value) -> Value {
    let mut live = body.clone();
    let metadata = json!({"uid": "u-1", "resourceVersion": "7", "namespace": NAMESPACE});
    json_patch::merge(&mut live["metadata"], &metadata);
    live
}

fn ways_of_objects() -> Vec<Entry> {
    let file = |evil: &Value| tree().with("agents/a/manifests/evil.yaml", evil.to_string());
    vec![
        entry("manifests/*.yaml", file),
        entry("manifests/*.yaml, a later document", |evil| {
            let first = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fine}\n";
            tree().with("agents/a/manifests/evil.yaml", format!("{first}---\n{evil}\n"))
        }),
        ("adoption consent", Box::new(move |evil| (file(evil), Some(adoption(evil))))),
        entry("workload.manifest", |evil| {
            let spec = "  workload: {manifest: d.yaml, container: agent}\n";
            tree().with("agents/a/agent.yaml", agent(spec)).with("agents/a/d.yaml", evil.to_string())
        }),
        entry("workload.manifest, a later document", |evil| {
            let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
                "spec": {"template": {"spec": pod_spec(&json!({}))}}});
            let spec = "  workload: {manifest: d.yaml, container: agent}\n";
            tree()
                .with("agents/a/agent.yaml", agent(spec))
                .with("agents/a/d.yaml", format!("{deployment}\n---\n{evil}\n"))
        }),
    ]
}

fn ways_of_pods() -> Vec<Entry> {
    let of_kind = |api: &'static str, kind: &'static str, path: &'static [&'static str]| {
        move |evil: &Value| {
            let mut spec = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod_spec(evil)});
            for field in path.iter().rev() {
                spec = json!({*field: spec});
            }
            let mut body =
                object(api, kind, json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "schedule": "@daily"}}));
            json_patch::merge(&mut body, &spec);
            body
        }
    };
    let file = |body: &Value| tree().with("agents/a/manifests/evil.yaml", body.to_string());
    let deployment = of_kind("apps/v1", "Deployment", &["spec", "template"]);
    let stateful = of_kind("apps/v1", "StatefulSet", &["spec", "template"]);
    let job = of_kind("batch/v1", "Job", &["spec", "template"]);
    let cron = of_kind("batch/v1", "CronJob", &["spec", "jobTemplate", "spec", "template"]);
    let template = |evil: &Value| json!({"spec": evil});
    vec![
        entry("manifests/*.yaml, Deployment", move |evil| file(&deployment(evil))),
        entry("manifests/*.yaml, StatefulSet", move |evil| file(&stateful(evil))),
        entry("manifests/*.yaml, Job", move |evil| file(&job(evil))),
        entry("manifests/*.yaml, CronJob", move |evil| file(&cron(evil))),
        (
            "adoption consent, Deployment",
            Box::new(move |evil| (file(&deployment(evil)), Some(adoption(&deployment(evil))))),
        ),
        entry("workload.manifest", |evil| {
            let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
                "spec": {"template": {"spec": pod_spec(evil)}}});
            let spec = "  workload: {manifest: d.yaml, container: agent}\n";
            tree().with("agents/a/agent.yaml", agent(spec)).with("agents/a/d.yaml", body.to_string())
        }),
        entry("workload.podTemplate", move |evil| {
            let spec = format!("  workload: {{port: 8000, podTemplate: {}}}\n", template(evil));
            tree().with("agents/a/agent.yaml", agent(&spec))
        }),
        entry("workers.*.podTemplate", move |evil| {
            // A worker's container is called as the main one is.
            let spec = format!("  workers: {{w: {{command: [x], podTemplate: {}}}}}\n", template(evil));
            tree().with("agents/a/agent.yaml", agent(&spec))
        }),
        entry("overlay", move |evil| {
            tree().with("environments/prod/a.yaml", json!({"workload": {"podTemplate": template(evil)}}).to_string())
        }),
        entry("defaults of backstay.yaml", move |evil| {
            let spec = json!({"defaults": {"workload": {"podTemplate": template(evil)}}});
            let whole = json!({"apiVersion": "backstay.dev/v1alpha1", "kind": "Repository", "spec": spec});
            tree().with("backstay.yaml", whole.to_string())
        }),
    ]
}

/// Where something was refused: at which door, and in which words.
fn refused(tree: &MemoryTree, standing: Option<&Value>) -> Result<(&'static str, String), String> {
    let environment: EnvironmentName = "prod".parse().expect("a name");
    let revision: Revision = format!("main@sha1:{:040x}", 1).parse().expect("a revision");
    let at = At::unverified_for_display(&revision, tree);
    let (pinned, target) = (BTreeMap::new(), Some(TargetKind::Kubernetes));
    let now = "2026-11-24T12:00:00Z".parse().expect("a time");
    let request = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target };
    let state = match resolve(&mut Cache::default(), &request) {
        Ok(state) => state,
        Err(found) => return Ok(("desired", found.0[0].message.clone())),
    };
    let agent: &Arc<DesiredAgent> = match &state.agents[&"a".parse::<AgentName>().expect("a name")] {
        Ok(agent) => agent,
        Err(found) => return Ok(("desired", found.0[0].message.clone())),
    };
    let identity = Identity {
        agent: &agent.name,
        environment: &environment,
        namespace: NAMESPACE,
        installation: "test",
        target: TargetKind::Kubernetes,
    };
    let options = RenderOptions::default();
    let rendered =
        match render(&identity, &agent.release, &agent.settings, RendererVersion::CURRENT, Set::Rolling, &options) {
            Ok(rendered) => rendered,
            Err(error) => return Ok(("render", error.to_string())),
        };
    let policy = policy();
    let bad: Vec<_> = rendered.manifests.iter().filter(|manifest| !violations(manifest, &policy).is_empty()).collect();
    let mut live = LiveState { synced: true, ..LiveState::default() };
    let mut consents = vec![];
    if let Some(standing) = standing {
        let standing = LiveObject::of(standing.clone()).expect("an object");
        consents.push(Consent {
            agent: agent.name.clone(),
            environment: environment.clone(),
            allow: Allow::Adopt(format!("{}/{}", standing.object.kind, standing.object.name)),
            expires: "2030-01-01T00:00:00Z".parse().expect("a time"),
            origin: Origin::file("consent/x.yaml"),
        });
        live.objects.insert(standing.object.clone(), Arc::new(standing));
    }
    let planned = Planned {
        agent: &agent.name,
        desired: &rendered.manifests,
        previous: None,
        live: &live,
        record: &AgentRecord::default(),
        consents: &consents,
        gate: &policy,
    }
    .plan();
    let touched = |step: &Step| bad.iter().any(|manifest| manifest.object == *step.object());
    if let Some(step) = planned.steps.iter().chain(&planned.then).find(|step| touched(step)) {
        return Err(format!("{} is planned", step.object()));
    }
    let told = planned.waiting.iter().map(ToString::to_string).find(|told| told.contains("refused to write"));
    match (bad.first(), told) {
        (Some(_), Some(told)) => Ok(("gate", told.split_once("): ").map_or(told.clone(), |(_, why)| why.to_owned()))),
        (Some(manifest), None) => Err(format!("nobody is told of {}: {:?}", manifest.object, planned.waiting)),
        (None, _) => Err("it passes".to_owned()),
    }
}

#[test]
fn every_forbidden_object_is_refused_at_every_way_in() {
    let (mut table, mut wrong, mut tried) = (String::new(), vec![], 0);
    for (kind, evil, ways) in [("object", objects(), ways_of_objects()), ("pod", pods(), ways_of_pods())] {
        assert!(evil.len() >= 34, "{}", evil.len());
        for (what, evil) in &evil {
            let _ = writeln!(table, "{kind}: {what}");
            let mut before = String::new();
            for (way, build) in &ways {
                let (tree, standing) = build(evil);
                tried += 1;
                match refused(&tree, standing.as_ref()) {
                    Ok((door, why)) => {
                        let line = format!("{door}: {why}");
                        let line = if line == before {
                            "as before".to_owned()
                        } else {
                            before.clone_from(&line);
                            line
                        };
                        let _ = writeln!(table, "    {way:<38} {line}");
                    }
                    Err(why) => wrong.push(format!("{what} by {way}: {why}")),
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(tried > 500, "{tried}");
    insta::assert_snapshot!("gate", table);
}

// By fields of their own: `serviceAccount`, a worker's, and the environment's overlay.
#[test]
fn an_account_of_ours_is_refused_by_every_field_that_names_one() {
    for account in ["backstay", "backstay-prod"] {
        let specs = [
            tree().with("agents/a/agent.yaml", agent(&format!("  workload: {{port: 1, serviceAccount: {account}}}\n"))),
            tree().with("environments/prod/a.yaml", format!("workload: {{serviceAccount: {account}}}\n")),
            tree().with(
                "backstay.yaml",
                format!("apiVersion: backstay.dev/v1alpha1\nkind: Repository\nspec: {{defaults: {{workload: {{serviceAccount: {account}}}}}}}\n"),
            ),
        ];
        for (n, tree) in specs.iter().enumerate() {
            let (door, why) = refused(tree, None).unwrap_or_else(|why| panic!("{account}, way {n}: {why}"));
            assert_eq!(door, "gate", "{why}");
        }
    }
}

// A record says that something is ours: what is Backstay's own, elsewhere or of the cluster is not deleted all the same.
#[test]
fn what_a_record_claims_is_not_deleted_when_it_cannot_be_ours() {
    let evil = [
        ("apps/v1", "Deployment", "backstay", NAMESPACE),
        ("v1", "Secret", "backstay-git", NAMESPACE),
        ("v1", "ServiceAccount", "backstay-prod", NAMESPACE),
        ("v1", "ConfigMap", "x", "kube-system"),
        ("v1", "ConfigMap", "x", "other"),
        ("v1", "Namespace", "x", NAMESPACE),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "x", NAMESPACE),
        ("backstay.dev/v1alpha1", "AgentRelease", "a", NAMESPACE),
    ];
    for (api, kind, name, namespace) in evil {
        let body = json!({"apiVersion": api, "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "uid": "u-1", "resourceVersion": "7"}});
        let standing = LiveObject::of(body).expect("an object");
        let object = standing.object.clone();
        let mut record = AgentRecord::default();
        record.inventory.0.insert(object.clone(), Uid("u-1".to_owned()));
        let mut live = LiveState { synced: true, ..LiveState::default() };
        live.objects.insert(object.clone(), Arc::new(standing));
        let consents = [Consent {
            agent: "a".parse().expect("a name"),
            environment: "prod".parse().expect("a name"),
            allow: Allow::Prune(format!("{kind}/{name}")),
            expires: "2030-01-01T00:00:00Z".parse().expect("a time"),
            origin: Origin::file("consent/x.yaml"),
        }];
        let planned = Planned {
            agent: &"a".parse().expect("a name"),
            desired: &[],
            previous: None,
            live: &live,
            record: &record,
            consents: &consents,
            gate: &policy(),
        }
        .plan();
        assert!(planned.steps.is_empty() && planned.then.is_empty(), "{object}: {:?}", planned.steps);
        assert!(planned.waiting.iter().any(|waiting| waiting.to_string().contains("refused to delete")), "{object}");
    }
}
