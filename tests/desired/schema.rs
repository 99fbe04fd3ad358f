//! The published schemas and the parser say the same.

use std::collections::BTreeSet;

use backstay::desired::{SchemaKind, WriteBack, consents, environment, schema, validate};
use backstay::source::MemoryTree;
use serde_json::{Value, json};

use crate::repository::{DIGEST, at, example, name, now, small, told};

const KINDS: [SchemaKind; 6] = [
    SchemaKind::Agent,
    SchemaKind::Environment,
    SchemaKind::Repository,
    SchemaKind::Models,
    SchemaKind::Variables,
    SchemaKind::Consent,
];

fn validator(kind: SchemaKind) -> jsonschema::Validator {
    let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
    options.offline().build(schema(kind)).expect("a schema")
}

/// Where a file of each kind stands in the smallest repository.
fn place(kind: SchemaKind) -> &'static str {
    match kind {
        SchemaKind::Agent => "agents/a/agent.yaml",
        SchemaKind::Environment => "environments/prod.yaml",
        SchemaKind::Repository => "backstay.yaml",
        SchemaKind::Models => "shared/models.yaml",
        SchemaKind::Variables => "environments/prod/variables.yaml",
        SchemaKind::Consent => "consent/c.yaml",
    }
}

/// A good file of each kind, with all that makes sense in one.
fn good(kind: SchemaKind) -> Value {
    let header = |kind: &str| json!({"apiVersion": "backstay.dev/v1alpha1", "kind": kind});
    let mut file = header("");
    match kind {
        SchemaKind::Agent => {
            file["kind"] = json!("Agent");
            file["metadata"] = json!({"name": "a"});
            file["spec"] = json!({
                "code": {"image": format!("a@{DIGEST}")},
                "models": {"m": {"provider": "p", "model": "m"}},
                "memory": {"database": {"secret": "s", "key": "k"}},
                "config": {"a": 1},
                "workload": {"port": 8000, "env": {"A": "b"}, "resources": {"requests": {"cpu": 1}},
                    "health": {"live": "/x", "ready": {"httpGet": {"path": "/x", "port": "http"}}}},
                "workers": {"w": {}},
                "replicas": 1, "history": 1, "progressDeadline": "5m", "rolling": {"maxSurge": 1},
                "disruptionBudget": {"minAvailable": 1}, "dependsOn": [], "autoscaling": {"maxReplicas": 2},
                "rollout": {"strategy": "rolling"},
            });
        }
        SchemaKind::Environment => {
            file["kind"] = json!("Environment");
            file["metadata"] = json!({"name": "prod"});
            file["spec"] = json!({"track": {"tags": "v*", "exclude": ["v1.5.0"]}, "agents": ["a"], "images": "digest", "writeBack": "pin", "approvals": {"required": 0}, "freezes": []});
        }
        SchemaKind::Repository => {
            file["kind"] = json!("Repository");
            file["spec"] = json!({"defaults": {"history": 3}});
        }
        SchemaKind::Models => {
            file = json!({"fast": {"provider": "p", "model": "m", "endpoint": "https://example.com", "parameters": {"a": 1}, "retires": "2030-01-01"}});
        }
        SchemaKind::Variables => {
            file = json!({"A": "b", "B": {"secret": "s", "key": "k"}, "C": {"field": "metadata.name"}});
        }
        SchemaKind::Consent => {
            file = json!({"agent": "a", "environment": "prod", "allow": "retry", "release": "r-3f9c2ab1d0f6", "expires": "2030-01-01"});
        }
    }
    file
}

/// What the parser has against a file of a kind, in an otherwise good repository.
fn parser(kind: SchemaKind, file: &Value) -> Option<String> {
    let tree =
        small().with("agents/a/agent.yaml", good(SchemaKind::Agent).to_string()).with(place(kind), file.to_string());
    // A broken catalogue is found where it is used, too.
    let tree = if kind == SchemaKind::Models {
        let mut agent = good(SchemaKind::Agent);
        agent["spec"]["models"]["m"] = json!({"use": "fast"});
        tree.with("agents/a/agent.yaml", agent.to_string())
    } else {
        tree
    };
    let found = validate(&tree, now());
    found.has_errors().then(|| told(&found))
}

fn changed(kind: SchemaKind, pointer: &str, value: &Value) -> Value {
    let mut file = good(kind);
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = file.pointer_mut(parent).and_then(Value::as_object_mut).expect("a map");
    if *value == json!("(gone)") {
        parent.remove(key)
    } else {
        parent.insert(key.to_owned(), value.clone())
    };
    file
}

#[test]
fn good_files_are_good_for_both() {
    for kind in KINDS {
        let file = good(kind);
        let errors: Vec<_> = validator(kind).iter_errors(&file).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{kind:?}");
        assert_eq!(parser(kind, &file), None, "{kind:?}");
    }
}

#[test]
fn bad_files_are_bad_for_both() {
    use SchemaKind::{Agent, Consent, Environment, Models, Repository, Variables};
    let gone = || json!("(gone)");
    let long = "a".repeat(43);
    let table = [
        (Agent, "/apiVersion", json!("v1")),
        (Agent, "/apiVersion", gone()),
        (Agent, "/kind", json!("Environment")),
        (Agent, "/metadata", gone()),
        (Agent, "/metadata/name", gone()),
        (Agent, "/metadata/name", json!("A")),
        (Agent, "/metadata/name", json!(long)),
        (Agent, "/metadata/name", json!("models")),
        (Agent, "/metadata/renamedFrom", json!("a--b")),
        (Agent, "/metadata/labels", json!({})),
        (Agent, "/spec", gone()),
        (Agent, "/spec", json!([])),
        (Agent, "/spec/replcas", json!(1)),
        (Agent, "/spec/replicas", json!("1")),
        (Agent, "/spec/replicas", json!(-1)),
        (Agent, "/spec/replicas", json!(1.5)),
        (Agent, "/spec/replicas", json!(null)),
        (Agent, "/spec/replicas", json!(100_000)),
        (Agent, "/spec/history", json!(0)),
        (Agent, "/spec/progressDeadline", json!("5 minutes")),
        (Agent, "/spec/progressDeadline", json!(300)),
        (Agent, "/spec/code/image", json!("not an image")),
        (Agent, "/spec/code/image", json!(null)),
        (Agent, "/spec/code/command", json!("run")),
        (Agent, "/spec/code/command", json!([])),
        (Agent, "/spec/prompts", json!({"p": "../x"})),
        (Agent, "/spec/prompts", json!({"p": []})),
        (Agent, "/spec/prompts", json!({"p": 1})),
        (Agent, "/spec/prompts", json!({"p.q": "x"})),
        (Agent, "/spec/prompts", json!({"p": {"file": "x", "syntax": "erb"}})),
        (Agent, "/spec/prompts", json!({"p": {"files": "x"}})),
        (Agent, "/spec/models/m/use", json!("a b")),
        (Agent, "/spec/models/m/temperature", json!(1)),
        (Agent, "/spec/models/m/endpoint", json!("ftp://x")),
        (Agent, "/spec/models/m/credentials", json!("plain")),
        (Agent, "/spec/models/m/credentials", json!({"secret": "s"})),
        (Agent, "/spec/models/m/retires", json!("14.01.2027")),
        (Agent, "/spec/models/m/fallbacks", json!(["x", "x"])),
        (Agent, "/spec/tools", json!({"t": {"file": "x"}})),
        (Agent, "/spec/memory/database", json!("postgres://x")),
        (Agent, "/spec/memory/database", gone()),
        (Agent, "/spec/memory/database/secret", json!("A_B")),
        (Agent, "/spec/config", json!([])),
        (Agent, "/spec/workload/port", json!(0)),
        (Agent, "/spec/workload/port", json!(70_000)),
        (Agent, "/spec/workload/port", json!("http")),
        (Agent, "/spec/workload/env/A", json!(1)),
        (Agent, "/spec/workload/env/A", json!(true)),
        (Agent, "/spec/workload/env/A-B", json!("x")),
        (Agent, "/spec/workload/env/A", json!({"secret": "s"})),
        (Agent, "/spec/workload/env/A", json!({"field": 1})),
        (Agent, "/spec/workload/env/A", json!({"field": "x", "secret": "s"})),
        (Agent, "/spec/workload/resources/requests/cpu", json!("one")),
        (Agent, "/spec/workload/resources/limit", json!({})),
        (Agent, "/spec/workload/health/ready/httpGet/port", gone()),
        (Agent, "/spec/workload/health/ready/periodSeconds", json!(0)),
        (Agent, "/spec/workload/health/ready/periodSecond", json!(1)),
        (Agent, "/spec/workload/health/alive", json!("/x")),
        (Agent, "/spec/workload/podTemplate", json!("x")),
        (Agent, "/spec/workload/overlap", json!("no")),
        (Agent, "/spec/workload/serviceAccount", json!("A")),
        (Agent, "/spec/workers", json!({"main": {}})),
        (Agent, "/spec/workers", json!({"w": {"port": 1}})),
        (Agent, "/spec/rolling/maxSurge", json!("25")),
        (Agent, "/spec/rolling/maxSurge", json!(-1)),
        (Agent, "/spec/disruptionBudget", json!({})),
        (Agent, "/spec/disruptionBudget/maxUnavailable", json!(1)),
        (Agent, "/spec/dependsOn", json!("b")),
        (Agent, "/spec/dependsOn", json!(["B"])),
        (Agent, "/spec/autoscaling/maxReplicas", gone()),
        (Agent, "/spec/autoscaling/minReplicas", json!(0)),
        (Agent, "/spec/autoscaling/scaleTargetRef", json!({})),
        (Agent, "/spec/drain", json!({"mode": "quick"})),
        (Agent, "/spec/route", json!({"path": "/"})),
        (Agent, "/spec/rollout/strategy", json!("canary")),
        (Agent, "/spec/rollout/strategy", json!({"canary": {"steps": []}})),
        (Agent, "/spec/rollout/strategy", json!({"canary": {"steps": [{"weight": 200}]}})),
        (Agent, "/spec/rollout/strategy", json!({"blueGreen": {}, "abTest": {"by": {}}})),
        (Agent, "/spec/rollout/onNoData", json!("guess")),
        (Environment, "/metadata/name", json!("Prod")),
        (Environment, "/spec/track", json!({})),
        (Environment, "/spec/track", json!("main")),
        (Environment, "/spec/track", json!({"branch": "main", "tag": "v1"})),
        (Environment, "/spec/track", json!({"branch": "a b"})),
        (Environment, "/spec/track/exclude", json!("v1")),
        (Environment, "/spec/after", json!({"environment": "prod"})),
        (Environment, "/spec/after", json!({"environment": "prod", "for": "long"})),
        (Environment, "/spec/agents", json!(["a", "a"])),
        (Environment, "/spec/agents", json!("a")),
        (Environment, "/spec/pins", json!({"a": "main"})),
        (Environment, "/spec/pins", json!({"A": "3f9c2ab1d0f64a1b8e7c5d2f9a0b1c2d3e4f5a6b"})),
        (Environment, "/spec/images", json!("any")),
        (Environment, "/spec/writeBack", json!("push")),
        (Environment, "/spec/approvals", json!({"required": -1})),
        (Environment, "/spec/freezes", json!([{"cron": "* * * * *"}])),
        (Environment, "/spec/waves", json!({"maxAgents": 0})),
        (Environment, "/spec/trakc", json!({})),
        (Repository, "/kind", json!("Agent")),
        (Repository, "/spec/default", json!({})),
        (Repository, "/spec/defaults/history", json!("many")),
        (Repository, "/spec/defaults/histori", json!(1)),
        (Models, "/fast/provider", gone()),
        (Models, "/fast/use", json!("x")),
        (Models, "/fast/credentials", json!("x")),
        (Models, "/fast/parameters", json!("x")),
        (Models, "/a b", json!({"provider": "p", "model": "m"})),
        (Variables, "/A", json!(1)),
        (Variables, "/A B", json!("x")),
        (Variables, "/B/key", gone()),
        (Consent, "/agent", gone()),
        (Consent, "/allow", json!("everything")),
        (Consent, "/expires", json!("never")),
        (Consent, "/expires", gone()),
        (Consent, "/release", json!("3f9c")),
        (Consent, "/reason", json!("x")),
    ];
    let mut wrong = vec![];
    for (kind, pointer, value) in table {
        let file = changed(kind, pointer, &value);
        let by_schema = !validator(kind).is_valid(&file);
        let by_parser = parser(kind, &file).is_some();
        if !(by_schema && by_parser) {
            wrong.push(format!("{kind:?} {pointer} {value}: schema refuses {by_schema}, parser refuses {by_parser}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every keyword that the schemas use, where schemas stand.
fn keywords(schema: &Value, found: &mut BTreeSet<String>) {
    let Some(fields) = schema.as_object() else { return };
    for (key, value) in fields {
        found.insert(key.clone());
        match key.as_str() {
            "properties" | "$defs" => {
                value.as_object().into_iter().flatten().for_each(|(_, schema)| keywords(schema, found));
            }
            "oneOf" | "anyOf" | "allOf" => {
                value.as_array().into_iter().flatten().for_each(|schema| keywords(schema, found));
            }
            "items" | "additionalProperties" | "propertyNames" => keywords(value, found),
            _ => {}
        }
    }
}

#[test]
fn the_schemas_use_what_the_parser_reads() {
    let mut found = BTreeSet::new();
    KINDS.iter().for_each(|kind| keywords(schema(*kind), &mut found));
    let read = [
        "$ref",
        "$defs",
        "type",
        "properties",
        "additionalProperties",
        "propertyNames",
        "required",
        "items",
        "oneOf",
        "anyOf",
        "const",
        "enum",
        "minimum",
        "maximum",
        "minLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "format",
        // Said by `format` with its own words.
        "pattern",
        "maxLength",
        "not",
        // About the schema, not about files.
        "$schema",
        "title",
        "description",
        "examples",
    ];
    let unread: Vec<_> = found.iter().filter(|keyword| !read.contains(&keyword.as_str())).collect();
    assert!(unread.is_empty(), "{unread:?}");
}

#[test]
fn each_schema_is_valid_and_says_what_things_are() {
    for kind in KINDS {
        let schema = schema(kind);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{kind:?}");
        assert!(schema["description"].is_string() || schema["title"].is_string(), "{kind:?}");
    }
    for field in schema(SchemaKind::Agent)["$defs"]["AgentSpec"]["properties"].as_object().expect("fields") {
        assert!(field.1["description"].is_string(), "{} has no description", field.0);
    }
    for known in ["agent", "environment", "repository", "models", "variables", "consent"] {
        assert!(known.parse::<SchemaKind>().is_ok());
    }
    let unknown = "agnet".parse::<SchemaKind>().expect_err("unknown");
    assert_eq!(
        unknown.to_string(),
        "there is no schema `agnet`: agent, environment, repository, models, variables or consent is expected"
    );
}

#[test]
fn the_example_fits_its_schemas() {
    let Some(tree) = example() else { return };
    for (path, bytes) in tree.files() {
        let parts: Vec<_> = path.split('/').collect();
        let kind = match &*parts {
            ["backstay.yaml"] => SchemaKind::Repository,
            ["agents", _, "agent.yaml"] => SchemaKind::Agent,
            ["environments", name] if name.ends_with(".yaml") => SchemaKind::Environment,
            ["environments", _, "variables.yaml"] => SchemaKind::Variables,
            ["shared", "models.yaml"] => SchemaKind::Models,
            ["consent", _] => SchemaKind::Consent,
            _ => continue,
        };
        let file: Value = serde_yaml::from_slice(bytes).expect("YAML");
        let errors: Vec<_> =
            validator(kind).iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(errors, [""; 0], "{path}");
    }
    let found = validate(&tree, now());
    assert!(!found.has_errors(), "{}", told(&found));
}

#[test]
fn what_a_rollout_may_declare_fits_the_schema() {
    let mut agent = good(SchemaKind::Agent);
    agent["spec"]["route"] =
        json!({"hosts": ["a.example.com"], "path": "/", "gateway": {"name": "public", "namespace": "gateways"}});
    agent["spec"]["drain"] = json!({"mode": "finish", "max": "10m"});
    agent["spec"]["code"]["artifact"] = json!({"url": "https://example.com/a.tar.gz", "sha256": "0".repeat(64)});
    agent["spec"]["rollout"] = json!({
        "strategy": {"canary": {
            "steps": [{"weight": 5, "for": "5m"}, {"weight": 25, "samples": 500, "atMost": "1h"}, {"pause": {}},
                {"weight": 50, "for": "15m", "limits": {"errors": {"max": 0.005}}}],
            "mirror": {"for": "2m"}}},
        "onNewCommit": "supersede", "warmUp": "30s",
        "analysis": {"errors": {"preset": "error_rate", "max": 0.01, "compare": "stable", "margin": 0.01}},
        "onNoData": "hold", "onUndecided": "hold", "rollback": {"bake": "10m", "cooldown": "5m", "maxPerHour": 3},
    });
    assert!(validator(SchemaKind::Agent).is_valid(&agent));
    assert_eq!(parser(SchemaKind::Agent, &agent), None);
    for strategy in [
        json!({"blueGreen": {"preview": {"host": "p.example.com"}, "keepOld": "1h"}}),
        json!({"abTest": {"by": {"header": "x-user-id"}, "share": 50, "for": "14d", "winner": "ask"}}),
    ] {
        agent["spec"]["rollout"]["strategy"] = strategy;
        assert!(validator(SchemaKind::Agent).is_valid(&agent));
    }
    let mut file = good(SchemaKind::Environment);
    file["spec"]["waves"] = json!({"maxAgents": 4, "stopAfterAborts": 1});
    file["spec"]["freezes"] =
        json!([{"cron": "0 17 * * FRI", "for": "64h", "timezone": "Europe/Berlin", "message": "weekend"}]);
    file["spec"]["approvals"] = json!({"required": 1});
    file["spec"]["writeBack"] = json!("pullRequest");
    assert!(validator(SchemaKind::Environment).is_valid(&file));
    let read = environment(&small().with("environments/prod.yaml", file.to_string()), &name("prod"));
    assert_eq!(read.expect("an environment").write_back, WriteBack::PullRequest);
}

#[test]
fn a_repository_is_validated_as_a_whole() {
    let tree = small()
        .with("agents/a/agent.yaml", json!({"apiVersion": "x"}).to_string())
        .with("agents/b/agent.yaml", crate::repository::agent("b", "  code: {image: \"b:1\"}\n"))
        .with("agents/lonely/agent.yaml", crate::repository::agent("lonely", "  code: {image: \"b:latest\"}\n"))
        .with("environments/prod.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\nspec: {agents: [a, b, nobody]}\n")
        .with("environments/dev.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: dev}\nspec: {agents: [a, b], images: tags}\n")
        .with("environments/bad.yaml", "kind: x\n")
        .with("environments/prd/b.yaml", "replicas: 2\n")
        .with("environments/dev/b.yaml", "replicas: x\n")
        .with("consent/x.yaml", "allow: x\n")
        .with("shared/models.yaml", "fast: {}\n");
    insta::assert_snapshot!(told(&validate(&tree, now())), @r#"
    agents/a/agent.yaml:1:1: error: `kind` is missing in the file
      | {"apiVersion":"x"}
      | ^
    agents/a/agent.yaml:1:1: error: `metadata` is missing in the file
      | {"apiVersion":"x"}
      | ^
    agents/a/agent.yaml:1:1: error: `spec` is missing in the file
      | {"apiVersion":"x"}
      | ^
    agents/a/agent.yaml:1:15: error: `apiVersion` cannot be `x`: `backstay.dev/v1alpha1` is expected
      | {"apiVersion":"x"}
      |               ^^^
    agents/b/agent.yaml:5:17: error: the image is named by a tag, and this environment asks for digests
      |   code: {image: "b:1"}
      |                 ^^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`, or write `images: tags` in the environment's file
    agents/lonely/agent.yaml:5:17: error: the image is tagged `latest`, which is another one tomorrow
      |   code: {image: "b:latest"}
      |                 ^^^^^^^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`
    consent/x.yaml:1:1: error: `agent` is missing in the file
      | allow: x
      | ^
    consent/x.yaml:1:1: error: `environment` is missing in the file
      | allow: x
      | ^
    consent/x.yaml:1:1: error: `expires` is missing in the file
      | allow: x
      | ^
    consent/x.yaml:1:8: error: `allow` cannot be `x`: `retry`, `adopt`, `prune`, `replace` or `lossyDown` is expected
      | allow: x
      |        ^
    environments/bad.yaml:1:1: error: `apiVersion` is missing in the file
      | kind: x
      | ^
    environments/bad.yaml:1:1: error: `metadata` is missing in the file
      | kind: x
      | ^
    environments/bad.yaml:1:7: error: `kind` cannot be `x`: `Environment` is expected
      | kind: x
      |       ^
    environments/dev/b.yaml:1:11: error: `replicas` is text, a whole number is expected
      | replicas: x
      |           ^
    environments/prd: error: the folder belongs to no environment: `prd.yaml` is missing beside it
      hint: did you mean `prod`?
    environments/prod.yaml:4:23: error: the agent `nobody` does not exist
      | spec: {agents: [a, b, nobody]}
      |                       ^^^^^^
    shared/models.yaml:1:7: error: `model` is missing in `fast`
      | fast: {}
      |       ^
    shared/models.yaml:1:7: error: `provider` is missing in `fast`
      | fast: {}
      |       ^
    "#);
    insta::assert_snapshot!(told(&validate(&MemoryTree::default(), now())), @"
    backstay.yaml: error: `backstay.yaml` is missing: this is no config repository
      hint: `backstay init` makes one
    ");
    assert!(consents(&tree).1.has_errors());
    assert!(at(&mut backstay::desired::Cache::default(), &tree, "bad", 1).is_err());
}
