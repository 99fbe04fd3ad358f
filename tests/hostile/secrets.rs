//! Law 11: a secret, wherever it lies, comes out in no word that is said of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use backstay::daemon::config::Config;
use backstay::desired::{At, Cache, Resolve, TargetKind, resolve, validate};
use backstay::model::{
    Diagnostics, EnvironmentName, LiveObject, LiveState, Manifest, ObjectRef, Origin, Revision, Uid,
};
use backstay::plan::{GatePolicy, changes, created_lines, object_lines};
use backstay::record::AgentRecord;
use backstay::source::{Auth, Followed, MemoryTree, Mirror, RemoteUrl, Secret, SourceConfig};
use serde_json::{Value, json};

use crate::forge::{self, Planned, agent};
use crate::raw::Raw;

/// Put together here, so that no scanner takes this file for a leak.
fn canary() -> String {
    ["sk", "C4n4ryTh4tMustNeverBeSeen", "123"].join("-")
}

/// A secret that nothing but its place shows to be one.
fn plain_canary() -> String {
    ["plain", "c4n4ry", "of", "no", "form"].join("")
}

fn holds(text: &str) -> bool {
    // Parts too: nothing is cut short and then shown.
    text.contains("C4n4ryTh4tMust") || text.contains("c4n4ryofno")
}

fn told(found: &Diagnostics) -> String {
    found.0.iter().fold(String::new(), |mut text, one| {
        let _ = write!(text, "{one}\n{:?}\n{:?}\n{one:?}\n", one.snippet, one.hint);
        text
    })
}

fn small() -> MemoryTree {
    forge::tree("")
}

/// All that is said of a tree, and whether anything of it is refused.
fn words(tree: &MemoryTree) -> (String, bool) {
    let environment: EnvironmentName = "prod".parse().expect("a name");
    let revision: Revision = format!("main@sha1:{:040x}", 1).parse().expect("a revision");
    let at = At::unverified_for_display(&revision, tree);
    let (pinned, target) = (BTreeMap::new(), Some(TargetKind::Kubernetes));
    let now = "2026-11-24T12:00:00Z".parse().expect("a time");
    let request = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target };
    let mut text = told(&validate(tree, now));
    let mut refused = false;
    match resolve(&mut Cache::default(), &request) {
        Err(found) => {
            refused = true;
            text += &told(&found);
        }
        Ok(state) => {
            text += &told(&state.warnings);
            refused |= state.warnings.has_errors();
            for agent in state.agents.values() {
                match agent {
                    Ok(agent) => text += &told(&agent.warnings),
                    Err(found) => {
                        refused = true;
                        text += &told(found);
                    }
                }
            }
        }
    }
    (text, refused)
}

#[test]
fn what_is_said_of_a_repository_holds_no_secret() {
    for secret in [canary(), plain_canary()] {
        let by_form = secret == canary();
        let at = |path: &str, text: &str| small().with(path, text.replace("CANARY", &secret));
        let in_agent = |spec: &str| at("agents/a/agent.yaml", &agent(spec));
        let trees = vec![
            in_agent("  workload: {env: {OPENAI_API_KEY: \"CANARY\"}}\n"),
            in_agent("  workload:\n    env:\n      DB_PASSWORD: CANARY\n"),
            in_agent("  workload: {env: {OPENAI_API_KEY: {secret: a, key: b, value: CANARY}}}\n"),
            in_agent("  models: {m: {provider: openai, model: x, credentials: CANARY}}\n"),
            in_agent("  models: {m: {provider: openai, model: x, apiKey: CANARY}}\n"),
            in_agent("  models: {m: {provider: openai, model: x, parameters: {api_key: CANARY}}}\n"),
            in_agent("  models: {m: {provider: openai, model: x, endpoint: \"https://u:CANARY@h/v1\"}}\n"),
            in_agent("  memory: {database: \"postgres://u:CANARY@db/x\"}\n"),
            in_agent("  config: {client_secret: CANARY}\n"),
            in_agent(
                "  workload: {podTemplate: {spec: {containers: [{name: agent, env: [{name: API_TOKEN, value: CANARY}]}]}}}\n",
            ),
            in_agent("  password: CANARY\n"),
            in_agent("  workload:\n    env:\n      API_KEY: \"CANARY\n"),
            in_agent("  workload:\n    env: {API_KEY: CANARY\n"),
            in_agent("  workload: {env: {API_KEY: CANARY}, env: {API_KEY: CANARY}}\n"),
            in_agent("  workload: {env: {API_KEY: !!binary CANARY}}\n"),
            at("environments/prod/a.yaml", "workload: {env: {API_KEY: CANARY}}\n"),
            at("environments/prod/a.yaml", "workload: {env: {API_KEY: [CANARY]}}\n"),
            at("environments/prod/a.yaml", "workload:\n  env:\n    API_KEY:\n      - CANARY\n"),
            at("environments/prod/a.yaml", "workload:\n  env:\n    API_KEY: [\n      CANARY]\n"),
            at("environments/prod/variables.yaml", "GITHUB_TOKEN: CANARY\n"),
            at("shared/models.yaml", "m: {provider: openai, model: x, credentials: CANARY}\n")
                .with("agents/a/agent.yaml", agent("  models: {m: {use: m}}\n")),
            at(
                "backstay.yaml",
                "apiVersion: backstay.dev/v1alpha1\nkind: Repository\nspec: {defaults: {workload: {env: {API_KEY: CANARY}}}}\n",
            ),
            at(
                "agents/a/manifests/s.yaml",
                "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: CANARY}\n",
            ),
            at(
                "agents/a/manifests/s.yaml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {db.password: CANARY}\n",
            ),
            at("agents/a/manifests/s.yaml", "apiVersion: v1\nkind: Secret\nstringData:\n  password: \"CANARY\n"),
        ];
        for (n, tree) in trees.iter().enumerate() {
            let (text, refused) = words(tree);
            assert!(refused, "tree {n} is taken");
            assert!(!holds(&text), "tree {n}: {text}");
        }
        if by_form {
            // Where nothing but its form tells.
            let named = |spec: &str, path: &str, text: &str| {
                let text = text.replace("CANARY", &secret);
                in_agent(spec).with(path, text)
            };
            let trees = [
                in_agent("  config: {note: \"use CANARY\"}\n"),
                in_agent("  workload: {env: {NOTE: CANARY}}\n"),
                in_agent("  models: {m: {provider: openai, model: CANARY}}\n"),
                named(
                    "  prompts: {p: {file: p.md, syntax: mustache, variables: [x]}}\n",
                    "agents/a/p.md",
                    "{{CANARY}}\n",
                ),
                named(
                    "  prompts: {p: {file: p.md, syntax: jinja, variables: [x]}}\n",
                    "agents/a/p.md",
                    "{{ x }} {% set k = 'CANARY' %}",
                ),
                named(
                    "  prompts: {p: {file: p.md, syntax: mustache, variables: [x]}}\n",
                    "agents/a/p.md",
                    "{{#x}} CANARY",
                ),
                named(
                    "  tools: {t: t.json}\n",
                    "agents/a/t.json",
                    r#"{"name": "t", "description": "CANARY", "inputSchema": {"type": "object"}}"#,
                ),
                named("  tools: {t: t.json}\n", "agents/a/t.json", r#"{"name": "t", "descripton": "CANARY"#),
            ];
            for (n, tree) in trees.iter().enumerate() {
                assert!(!holds(&words(tree).0), "tree {n}: {}", words(tree).0);
            }
        }
    }
}

#[test]
fn what_is_said_of_the_daemons_configuration_holds_no_secret() {
    let base = "[source]\nurl = \"https://git.example.com/a.git\"\n[[target]]\nenvironment = \"prod\"\nkubernetes = { namespace = \"a\" }\n";
    for secret in [canary(), plain_canary()] {
        let texts = [
            base.replace("https://git", &format!("https://bot:{secret}@git")),
            base.replace("https://git", &format!("https://{secret}@git")),
            base.replace("[[target]]", &format!("token = \"{secret}\"\n[[target]]")),
            base.replace("[[target]]", &format!("password = \"{secret}\"\n[[target]]")),
            base.replace("[[target]]", &format!("password = \"{secret}\n[[target]]")),
            format!("{base}[webhooks]\ngithub.secret = \"{secret}\"\n"),
            format!("{base}[webhooks.github]\nsecret_file = 5\ntoken = \"{secret}\"\n"),
            format!("{base}[http]\npassword = \"{secret}\"\n"),
        ];
        for text in texts {
            let found = Config::parse("backstay.toml", Some(&text), &BTreeMap::new()).expect_err(&text);
            assert!(!holds(&told(&found)), "{text}\n{}", told(&found));
        }
        for name in ["BACKSTAY_SOURCE_URL", "BACKSTAY_SOURCE_INTERVAL", "BACKSTAY_SOURCE_TOKEN", "BACKSTAY_HTTP_LISTEN"]
        {
            let value = if name.ends_with("URL") { format!("https://u:{secret}@h/a") } else { secret.clone() };
            let variables = BTreeMap::from([(name.to_owned(), value)]);
            if !name.ends_with("URL") && secret != canary() {
                // Nothing shows that the wrong value of a time or an address is a secret.
                continue;
            }
            match Config::parse("backstay.toml", Some(base), &variables) {
                Err(found) => assert!(!holds(&told(&found)), "{name}: {}", told(&found)),
                Ok(config) => assert!(!holds(&format!("{config:?}")), "{name}"),
            }
        }
        for url in [format!("https://u:{secret}@h/a"), format!("https://{secret}@h/a"), format!("ssh://u:{secret}@h/a")]
        {
            let error = url.parse::<RemoteUrl>().expect_err(&url);
            assert!(!holds(&format!("{error} {error:?}")), "{error:?}");
        }
    }
}

/// A remote that knows our token, for we give it, and says it back in every place it has.
#[test]
fn what_a_remote_says_back_is_not_repeated() {
    let base64 = |text: &str| {
        use std::process::{Command, Stdio};
        let mut child = Command::new("base64")
            .args(["-w", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("base64 runs");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), text.as_bytes()).expect("written");
        String::from_utf8(child.wait_with_output().expect("base64 ends").stdout).expect("text")
    };
    for secret in [canary(), plain_canary()] {
        let coded = base64(&format!("x-access-token:{secret}"));
        for form in [secret.clone(), coded.clone()] {
            for place in 0..5 {
                let said = form.clone();
                let server = Raw::http(move |asked, out| {
                    let known = asked.head.to_ascii_lowercase().contains("authorization:");
                    let answer = match place {
                        _ if !known => "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\n\r\n".to_owned(),
                        0 => format!("HTTP/1.1 500 {said}\r\nContent-Length: 0\r\n\r\n"),
                        1 => format!("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.invalid/{said}\r\nContent-Length: 0\r\n\r\n"),
                        2 => format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {said} realm=\"{said}\"\r\nContent-Length: 0\r\n\r\n"),
                        3 => format!("HTTP/1.1 200 OK\r\nContent-Type: {said}\r\nContent-Length: 0\r\n\r\n"),
                        _ => {
                            let error = format!("ERR {said}");
                            let body = format!("001e# service=git-upload-pack\n0000{:04x}{error}", error.len() + 4);
                            format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                        }
                    };
                    out.send(answer);
                });
                let folder = tempfile::tempdir().expect("a temporary folder");
                let url = format!("http://{}/agents.git", server.address).parse().expect("an address");
                let auth = Auth::Token(Secret::Value(secret.clone()));
                let config = SourceConfig { auth, ..SourceConfig::new(url) };
                let mirror = Mirror::open(folder.path(), config).expect("a mirror");
                let error = mirror.poll(&Followed::branch("main")).expect_err("no poll");
                let text = format!("{error} {error:?} {:?} {mirror:?}", error.hint());
                assert!(!text.contains(&secret) && !text.contains(&coded), "place {place}: {text}");
            }
        }
    }
}

/// A secret that somebody wrote onto the live objects by hand, and one that stands in a Secret.
#[test]
fn what_a_plan_says_holds_no_secret() {
    let namespace = "agents";
    for secret in [canary(), plain_canary()] {
        let deployment = |env: Value| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "a", "namespace": namespace, "uid": "u-1", "resourceVersion": "7"},
                "spec": {"template": {"spec": {"containers": [{"name": "agent", "env": env}]}}}})
        };
        let reference = json!({"secretKeyRef": {"name": "s", "key": "k"}});
        let objects = [
            (
                deployment(json!([{"name": "API_KEY", "valueFrom": reference}])),
                deployment(json!([{"name": "API_KEY", "value": secret}])),
            ),
            (
                deployment(json!([{"name": "DB_PASSWORD", "value": "x"}])),
                deployment(json!([{"name": "DB_PASSWORD", "value": secret}])),
            ),
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace}, "data": {"db.password": "x"}}),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace, "uid": "u-2", "resourceVersion": "8",
                    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": format!("{{\"data\":{{\"password\":\"{secret}\"}}}}")}},
                    "data": {"db.password": secret, "notes": format!("line\npassword: {secret}\nurl: https://u:{secret}@h/\n")}}),
            ),
            (
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}, "stringData": {"k": "x"}}),
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace, "uid": "u-3", "resourceVersion": "9"}, "data": {"k": secret}}),
            ),
        ];
        for (ours, theirs) in objects {
            let (object, standing) =
                (ObjectRef::of(&ours, namespace).expect("an identity"), LiveObject::of(theirs.clone()).map(Arc::new));
            let manifest =
                Manifest { object: object.clone(), body: Arc::new(ours.clone()), origin: Origin::file("x.yaml") };
            let mut gate = GatePolicy::of(namespace);
            gate.kinds.insert(object.group_kind());
            let mut text = String::new();
            for (live, owned) in [(standing.clone(), true), (standing, false), (None, false)] {
                let mut record = AgentRecord::default();
                let mut seen = LiveState { synced: true, ..LiveState::default() };
                if let Some(live) = live {
                    if owned {
                        record.inventory.0.insert(object.clone(), Uid(live.uid.0.clone()));
                    }
                    seen.objects.insert(object.clone(), live);
                }
                let planned = Planned {
                    agent: &"a".parse().expect("a name"),
                    desired: std::slice::from_ref(&manifest),
                    previous: Some(std::slice::from_ref(&manifest)),
                    live: &seen,
                    record: &record,
                    consents: &[],
                    gate: &gate,
                }
                .plan();
                for step in &planned.steps {
                    let _ = writeln!(text, "{step}");
                }
                for waiting in &planned.waiting {
                    let _ = writeln!(text, "{waiting}");
                }
                for note in &planned.notes {
                    let _ = writeln!(text, "{}", note.kind);
                }
            }
            let lines = object_lines(backstay::plan::Mark::Change, &object, &changes(&theirs, &ours));
            let back = object_lines(backstay::plan::Mark::Change, &object, &changes(&ours, &theirs));
            for line in lines.iter().chain(&back).chain(&created_lines(&object, &theirs)) {
                let _ = writeln!(text, "{line}");
            }
            assert!(text.len() > 50, "something is said: {text}");
            assert!(!holds(&text), "{text}");
        }
    }
}
