//! The id of a release follows from its content, and from nothing else.

use std::collections::BTreeSet;

use backstay::desired::{Release, validate};
use backstay::model::{Digest, ReleaseId};
use backstay::source::MemoryTree;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::repository::{DIGEST, at, good, name, now, small, told};

/// An agent with every component.
fn whole() -> Value {
    json!({
        "apiVersion": "backstay.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a"},
        "spec": {
            "code": {"image": format!("a@{DIGEST}"), "command": ["run", "--fast"]},
            "prompts": {"system": ["/shared/safety.md", "system.md"], "other": "other.md"},
            "models": {
                "primary": {"use": "fast", "parameters": {"temperature": 0.3}, "fallbacks": ["steady"]},
                "judge": {"provider": "p", "model": "j", "retires": "2030-01-01"},
            },
            "tools": {"t": "t.json"},
            "memory": {"database": {"secret": "s", "key": "k"}, "migrations": "m"},
            "config": {"limits": {"per_minute": 100, "share": 0.5}, "languages": ["en", "de"]},
            "workload": {
                "port": 8000,
                "env": {"LOG": "info", "KEY": {"secret": "s", "key": "k"}, "POD": {"field": "metadata.name"}},
                "resources": {"requests": {"cpu": "100m"}},
                "health": {"live": "/live", "ready": {"httpGet": {"path": "/ready", "port": 8000}, "periodSeconds": 2}},
                "podTemplate": {"spec": {"terminationGracePeriodSeconds": 5}},
                "serviceAccount": "sa",
            },
            "workers": {"w": {"command": ["work"], "env": {"A": "b"}, "replicas": 2}},
            "replicas": 3,
            "history": 5,
            "progressDeadline": "5m",
            "rolling": {"maxSurge": "25%", "maxUnavailable": 0},
            "disruptionBudget": {"minAvailable": 1},
            "autoscaling": {"maxReplicas": 9},
        },
    })
}

fn tree(agent: &str) -> MemoryTree {
    small()
        .with("agents/a/agent.yaml", agent)
        .with("agents/a/system.md", "You are kind.\n")
        .with("agents/a/other.md", "Opaque.\n\n")
        .with("shared/safety.md", "Be safe.\n\n\n")
        .with("agents/a/t.json", "{\"name\": \"t\", \"description\": \"d\", \"inputSchema\": {\"type\": \"object\"}}")
        .with("agents/a/m/1_a.up.sql", "CREATE TABLE a ();")
        .with("agents/a/m/1_a.down.sql", "DROP TABLE a;")
        .with("agents/a/flags.json", "{\"flags\": {}}")
        .with("agents/a/manifests/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
        .with("shared/models.yaml", "fast: {provider: p, model: f, parameters: {temperature: 1, top_p: 0.9}, retires: 2031-01-01}\nsteady: {provider: p, model: s}\n")
        .with("environments/prod/variables.yaml", "REGION: eu\n")
}

fn ids(tree: &MemoryTree) -> (ReleaseId, Digest) {
    let agent = good(tree, "prod", "a");
    (agent.release.id, agent.settings.digest)
}

/// The same value as YAML, its keys in another order.
fn yaml(value: &Value, order: &mut impl FnMut(usize) -> usize, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<_> = fields.keys().collect();
            for n in (1..keys.len()).rev() {
                keys.swap(n, order(n + 1));
            }
            if keys.is_empty() {
                out.push_str(" {}\n");
                return;
            }
            if indent > 0 {
                out.push('\n');
            }
            for key in keys {
                out.push_str(&format!("{}{key}:", " ".repeat(indent)));
                yaml(&fields[key], order, indent + 2, out);
            }
        }
        other => out.push_str(&format!(" {other}\n")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_keys_and_the_way_of_writing_do_not_matter(seed in any::<u64>()) {
        let mut state = seed | 1;
        let mut order = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(below).expect("small")).expect("small")
        };
        let mut text = String::new();
        yaml(&whole(), &mut order, 0, &mut text);
        prop_assert_eq!(ids(&tree(&text)), ids(&tree(&whole().to_string())));
    }

    #[test]
    fn the_canonical_form_reads_back(per_minute in any::<i32>(), share in any::<f32>().prop_filter("finite", |share| share.is_finite()), text in "[ -~äöü€😀]{0,20}") {
        let mut agent = whole();
        agent["spec"]["config"] = json!({"per_minute": per_minute, "share": f64::from(share), "text": text});
        let Ok(state) = at(&mut backstay::desired::Cache::default(), &tree(&agent.to_string()), "prod", 1) else {
            return Ok(());
        };
        // A text that looks like a secret is refused.
        if let Ok(agent) = &state.agents[&name("a")] {
            let release = &agent.release;
            let again = Release::from_parts(&release.canonical, release.prompts.clone()).expect("the same release");
            prop_assert_eq!(&again, &**release);
            prop_assert_eq!(ReleaseId::of(&release.canonical), release.id);
        }
    }
}

#[test]
fn where_and_when_it_is_read_does_not_matter() {
    let tree = tree(&whole().to_string());
    let (release, settings) = ids(&tree);
    let other = tree
        .clone()
        .with(
            "environments/other.yaml",
            "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: other}\nspec: {images: tags}\n",
        )
        .with("environments/other/variables.yaml", "REGION: eu\n");
    let agent = good(&other, "other", "a");
    assert_eq!((agent.release.id, agent.settings.digest), (release, settings), "the environment's name");
    let cache = &mut backstay::desired::Cache::default();
    let state = at(cache, &tree, "prod", 99).expect("a state");
    assert_eq!(state.agents[&name("a")].as_ref().expect("good").release.id, release, "the commit");
    // The same agent under another name.
    let renamed: MemoryTree = tree.files().fold(MemoryTree::default(), |renamed, (path, bytes)| {
        let bytes = String::from_utf8_lossy(bytes).replace("\"name\":\"a\"", "\"name\":\"z\"");
        renamed.with(&path.replace("agents/a/", "agents/z/"), bytes)
    });
    assert_eq!(good(&renamed, "prod", "z").release.id, release, "the agent's name");
    // The same bytes, moved to where others share them.
    let mut moved = whole();
    moved["spec"]["prompts"]["other"] = json!("/shared/other.md");
    moved["spec"]["models"]["primary"]["use"] = json!("quick");
    let moved = tree.clone().with("agents/a/agent.yaml", moved.to_string()).with("shared/other.md", "Opaque.\n\n").with("shared/models.yaml", "quick: {provider: p, model: f, parameters: {temperature: 1, top_p: 0.9}}\nsteady: {provider: p, model: s, retires: 2040-01-01}\n");
    assert_eq!(ids(&moved).0, release, "the path of a prompt, the catalogue's names, and when a model retires");
}

#[test]
fn every_component_is_part_of_it() {
    let base = tree(&whole().to_string());
    let (release, settings) = ids(&base);
    let mut seen = BTreeSet::from([release]);
    let mut differs = |what: &str, tree: &MemoryTree| {
        let (other, same) = ids(tree);
        assert!(seen.insert(other), "{what} is not part of the release");
        assert_eq!(same, settings, "{what} is no setting");
    };
    for (pointer, value) in [
        ("/code/image", json!(format!("b@{DIGEST}"))),
        ("/code/command", json!(["run"])),
        ("/prompts/system", json!(["system.md", "/shared/safety.md"])),
        ("/prompts/further", json!("other.md")),
        ("/models/primary/parameters/temperature", json!(0.4)),
        ("/models/primary/parameters/top_p", json!(0.8)),
        ("/models/primary/endpoint", json!("https://example.com")),
        ("/models/primary/fallbacks", json!([])),
        ("/models/judge/model", json!("k")),
        ("/tools", json!({})),
        ("/memory/database/key", json!("l")),
        ("/memory/migrations", Value::Null),
        ("/config/limits/per_minute", json!(101)),
        ("/config/languages", json!(["de", "en"])),
        ("/config", Value::Null),
        ("/workload/port", json!(8001)),
        ("/workload/env/LOG", json!("debug")),
        ("/workload/env/REGION", json!("us")),
        ("/workload/env/KEY/key", json!("l")),
        ("/workload/env/POD/field", json!("status.podIP")),
        ("/workload/resources/requests/cpu", json!("200m")),
        ("/workload/health/live", json!("/alive")),
        ("/workload/health/ready/periodSeconds", json!(3)),
        ("/workload/podTemplate/spec/terminationGracePeriodSeconds", json!(6)),
        ("/workload/overlap", json!(false)),
        ("/workers/w/command", json!(["work", "hard"])),
        ("/workers/w/env/A", json!("c")),
    ] {
        let mut agent = whole();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = agent["spec"].pointer_mut(parent).and_then(Value::as_object_mut).expect("a map");
        if value.is_null() {
            parent.remove(key)
        } else {
            parent.insert(key.to_owned(), value)
        };
        differs(pointer, &base.clone().with("agents/a/agent.yaml", agent.to_string()));
    }
    for (path, text) in [
        ("agents/a/system.md", "You are not kind.\n"),
        ("agents/a/other.md", "Opaque.\n"),
        ("shared/safety.md", "Be safer.\n"),
        ("agents/a/t.json", "{\"name\": \"t\", \"description\": \"D\", \"inputSchema\": {\"type\": \"object\"}}"),
        ("agents/a/m/1_a.up.sql", "CREATE TABLE b ();"),
        ("agents/a/m/1_a.down.sql", "DROP TABLE b;"),
        ("agents/a/m/1_a.verify.sql", "SELECT 1;"),
        (
            "shared/models.yaml",
            "fast: {provider: p, model: f2, parameters: {temperature: 1, top_p: 0.9}}\nsteady: {provider: p, model: s}\n",
        ),
        ("environments/prod/models.yaml", "steady: {model: s2}\n"),
        ("environments/prod/variables.yaml", "REGION: eu\nZONE: a\n"),
        ("environments/prod/a.yaml", "workload: {env: {LOG: trace}}\n"),
        (
            "backstay.yaml",
            "apiVersion: backstay.dev/v1alpha1\nkind: Repository\nspec: {defaults: {workload: {overlap: true}}}\n",
        ),
    ] {
        differs(path, &base.clone().with(path, text));
    }
}

#[test]
fn settings_are_no_part_of_it() {
    let base = tree(&whole().to_string());
    let (release, settings) = ids(&base);
    let mut seen = BTreeSet::from([settings]);
    for (key, value) in [
        ("replicas", json!(4)),
        ("history", json!(6)),
        ("progressDeadline", json!("6m")),
        ("rolling", json!({"maxSurge": 2})),
        ("disruptionBudget", json!({"maxUnavailable": 1})),
        ("autoscaling", json!({"maxReplicas": 10})),
        ("workers", json!({"w": {"command": ["work"], "env": {"A": "b"}, "replicas": 3}})),
    ] {
        let mut agent = whole();
        agent["spec"][key] = value;
        let (same, other) = ids(&base.clone().with("agents/a/agent.yaml", agent.to_string()));
        assert_eq!(same, release, "{key} is part of the release");
        assert!(seen.insert(other), "{key} is no setting");
    }
    for (path, text) in [
        ("agents/a/flags.json", "{\"flags\": {}, \"metadata\": {\"a\": 1}}"),
        ("agents/a/manifests/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"),
    ] {
        let (same, other) = ids(&base.clone().with(path, text));
        assert_eq!(same, release, "{path} is part of the release");
        assert!(seen.insert(other), "{path} is no setting");
    }
    // What says the same is the same.
    for (path, text) in [
        ("agents/a/notes.md", "x"),
        ("agents/a/manifests/c.yaml", "# the same\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: c}\n"),
    ] {
        assert_eq!(ids(&base.clone().with(path, text)), (release, settings), "{path}");
    }
}

#[test]
fn a_deployment_of_your_own_is_split() {
    let deployment = |replicas: u32, seconds: u32, image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": "y"}, "spec": {
            "replicas": replicas, "minReadySeconds": seconds, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "web", "image": format!("{image}@{DIGEST}")}]}}}})
        .to_string()
    };
    let spec = json!({"apiVersion": "backstay.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "a"},
        "spec": {"workload": {"manifest": "deployment.yaml", "container": "web"}}});
    let tree =
        |text: &str| small().with("agents/a/agent.yaml", spec.to_string()).with("agents/a/deployment.yaml", text);
    let agent = good(&tree(&deployment(4, 5, "a")), "prod", "a");
    let foreign = agent.release.spec.workload.manifest.as_ref().expect("a template");
    assert_eq!((&*foreign.container, &foreign.template["metadata"]["labels"]["a"]), ("web", &json!("b")));
    assert_eq!((agent.settings.replicas, &agent.settings.deployment), (Some(4), &Some(json!({"minReadySeconds": 5}))));
    let (release, settings) = (agent.release.id, agent.settings.digest);
    for (text, new_release, new_settings) in [
        (deployment(5, 5, "a"), false, true),
        (deployment(4, 6, "a"), false, true),
        (deployment(4, 5, "b"), true, false),
    ] {
        let (other_release, other_settings) = ids(&tree(&text));
        assert_eq!((other_release != release, other_settings != settings), (new_release, new_settings), "{text}");
    }
}

#[test]
fn a_null_takes_a_default_away() {
    let defaults = "apiVersion: backstay.dev/v1alpha1\nkind: Repository\nspec:\n  defaults:\n    replicas: 2\n    disruptionBudget: {minAvailable: 1}\n    workload: {env: {A: default, B: default}, overlap: true}\n";
    let mut agent = whole();
    agent["spec"] =
        json!({"code": {"image": format!("a@{DIGEST}")}, "disruptionBudget": null, "workload": {"env": {"B": "own"}}});
    let tree = small()
        .with("backstay.yaml", defaults)
        .with("agents/a/agent.yaml", agent.to_string())
        .with("environments/prod/a.yaml", "workload: {env: {A: null, C: overlay}}\n");
    let agent = good(&tree, "prod", "a");
    assert_eq!((agent.settings.replicas, &agent.settings.disruption_budget), (Some(2), &None));
    let env: Map<String, Value> =
        agent.release.spec.workload.env.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    assert_eq!(Value::Object(env), json!({"B": "own", "C": "overlay"}));
    assert_eq!(agent.release.spec.workload.overlap, Some(true));
    assert_eq!(told(&validate(&tree, now())), "");
}
