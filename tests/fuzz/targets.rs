//! What is fed with anything: every parser, and the core. None of them may panic.

use std::collections::BTreeMap;

use backstay::daemon::config::{Config, HookSecrets, Secret};
use backstay::desired::{At, Cache, Release, Resolve, TargetKind, consents, resolve, validate};
use backstay::measure::Exposition;
use backstay::model::{
    AgentName, CommitId, Digest, EnvironmentName, LiveObject, Manifest, ObjectRef, Origin, Revision, WorkerName,
};
use backstay::plan::{GatePolicy, changes, created_lines, drift, dropped, mask_text, object_lines, violations};
use backstay::reconcile::read_release;
use backstay::record::{AgentRecord, ConditionKind, EnvironmentRecord, EnvironmentRequests, Operation, Requests};
use backstay::source::{AllowedSigners, Keyring, MemoryTree, Person, RemoteUrl};
use backstay::{flag, migration, revert};
use jiff::SignedDuration;
use serde_json::Value;

use crate::plane::Class;
use crate::world::World;

/// One thing that is fed.
pub(crate) type Target = fn(&[u8]);

/// All of them, by name.
pub(crate) const TARGETS: [(&str, Target); 28] = [
    ("agent", |data| tree("agents/a/agent.yaml", data)),
    ("environment", |data| tree("environments/prod.yaml", data)),
    ("repository", |data| tree("backstay.yaml", data)),
    ("overlay", |data| tree("environments/prod/a.yaml", data)),
    ("catalogue", |data| tree("shared/models.yaml", data)),
    ("variables", |data| tree("environments/prod/variables.yaml", data)),
    ("consent", |data| tree("consent/x.yaml", data)),
    ("manifests", |data| tree("agents/a/manifests/x.yaml", data)),
    ("deployment", |data| tree("agents/a/d.yaml", data)),
    ("tool", |data| tree("agents/a/t.json", data)),
    ("flags", flags),
    ("template", template),
    ("migrations", migrations),
    ("names", names),
    ("config", config),
    ("variable", variable),
    ("records", records),
    ("release", release),
    ("live", live),
    ("quantity", quantity),
    ("message", message),
    ("hook", hook),
    ("reconcile", reconcile),
    ("signers", signers),
    ("signed", signed),
    ("keyring", keyring),
    ("openpgp", openpgp),
    ("exposition", exposition),
];

/// What an agent says at `/metrics`.
fn exposition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Exposition::parse(text) {
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
}

/// The target of this name.
#[cfg_attr(not(fuzzing), allow(dead_code, reason = "the fuzzer asks for one by name"))]
pub(crate) fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

const IMAGE: &str = "a@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn agent(spec: &str) -> String {
    format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  code: {{image: \"{IMAGE}\"}}\n{spec}"
    )
}

/// A repository that reads every kind of file, with this one in its place.
fn tree(path: &str, data: &[u8]) {
    let spec = match path {
        "agents/a/d.yaml" => "  workload: {manifest: d.yaml, container: agent}\n",
        "agents/a/t.json" => "  tools: {t: t.json}\n",
        _ => "  models: {m: {use: m}}\n  prompts: {p: p.md}\n",
    };
    let tree = MemoryTree::default()
        .with("backstay.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Repository\n")
        .with("agents/a/agent.yaml", agent(spec))
        .with("agents/a/p.md", "hello\n")
        .with("shared/models.yaml", "m: {provider: openai, model: x}\n")
        .with(
            "environments/prod.yaml",
            "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\n",
        )
        .with(path, data);
    look(&tree);
}

fn look(tree: &MemoryTree) {
    let Ok(environment) = "prod".parse::<EnvironmentName>() else { return };
    let revision = Revision { reference: "main".to_owned(), commit: commit() };
    let at = At::unverified_for_display(&revision, tree);
    let (pinned, target, now) = (BTreeMap::new(), Some(TargetKind::Kubernetes), now());
    let request = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target };
    let (mut cache, mut told) = (Cache::default(), String::new());
    for _ in 0..2 {
        match resolve(&mut cache, &request) {
            Ok(state) => {
                for agent in state.agents.values().flatten() {
                    // What is read can be kept and read back.
                    let files = agent.release.files();
                    let canonical = files.get("release.json").map(AsRef::as_ref).unwrap_or_default();
                    let prompts = files.iter().filter_map(|(path, bytes)| {
                        let name = path.strip_prefix("prompts/")?.strip_suffix(".md")?;
                        Some((name.to_owned(), bytes.clone()))
                    });
                    let back = Release::from_parts(canonical, prompts.collect());
                    assert!(back.is_ok_and(|back| back.id == agent.release.id), "a release is its content");
                }
                told = state
                    .agents
                    .values()
                    .filter_map(|agent| agent.as_ref().err())
                    .map(|found| format!("{found:?}"))
                    .collect();
            }
            Err(found) => told = format!("{found:?}"),
        }
    }
    drop((told, consents(tree), validate(tree, now)));
}

fn now() -> backstay::model::Timestamp {
    backstay::model::Timestamp::from_second(1_795_000_000).unwrap_or_default()
}

fn commit() -> CommitId {
    "2c26b46b68ffc68ff99b453c1d30413413422d70".parse().expect("a commit id")
}

/// A file of allowed signers.
fn signers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = AllowedSigners::parse("signers", text) {
        let told = error.to_string();
        assert!(told.starts_with("signers:") && !told.chars().any(char::is_control), "{told:?}");
    }
}

/// A commit whose signature is looked at; the key is the corpus' own.
fn signed(data: &[u8]) {
    const LINE: &str = include_str!("corpus/signers/one");
    let signers = AllowedSigners::parse("signers", LINE).expect("signers");
    let now = backstay::model::Timestamp::from_second(1_800_000_000).unwrap_or_default();
    match signers.signer_of(data, now) {
        Ok(who) => assert_eq!(who, "alice@example.com"),
        Err(why) => assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}"),
    }
}

fn keyring(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Keyring::parse("keys.asc", text) {
        let told = error.to_string();
        assert!(told.starts_with("keys.asc:") && !told.chars().any(char::is_control), "{told:?}");
    }
}

/// A commit whose signature of `OpenPGP` is looked at; the key is the corpus' own.
fn openpgp(data: &[u8]) {
    const KEYS: &str = include_str!("corpus/keyring/one");
    let keyring = Keyring::parse("keys.asc", KEYS).expect("keys");
    let now = backstay::model::Timestamp::from_second(1_800_000_000).unwrap_or_default();
    match keyring.signer_of(data, now) {
        Ok(who) => assert!(who.ends_with("(alice <alice@example.com>)"), "{who}"),
        Err(why) => assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}"),
    }
}

fn flags(data: &[u8]) {
    tree("agents/a/flags.json", data);
    if let Ok(value) = serde_json::from_slice(data) {
        let _ = flag::parse(&value);
    }
}

/// The first byte chooses the syntax.
fn template(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let syntax = ["mustache", "jinja", "format", "dollar"][usize::from(first % 4)];
    let spec = format!("  prompts: {{p: {{file: p.md, syntax: {syntax}, variables: [a, b]}}}}\n");
    let tree = MemoryTree::default()
        .with("backstay.yaml", "apiVersion: backstay.dev/v1alpha1\nkind: Repository\n")
        .with("agents/a/agent.yaml", agent(&spec))
        .with("agents/a/p.md", text)
        .with(
            "environments/prod.yaml",
            "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\n",
        );
    look(&tree);
}

/// Names and scripts, each ended by a zero.
fn migrations(data: &[u8]) {
    let parts: Vec<&[u8]> = data.split(|byte| *byte == 0).collect();
    let files = parts.chunks(2).filter_map(|pair| {
        let [name, script] = pair else { return None };
        Some((std::str::from_utf8(name).ok()?, *script))
    });
    let _ = migration::chain(files);
}

fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shown = |text: Result<String, String>| text.unwrap_or_else(|error| error);
    for word in [
        shown(text.parse::<AgentName>().map(|name| name.to_string()).map_err(|error| error.to_string())),
        shown(text.parse::<EnvironmentName>().map(|name| name.to_string()).map_err(|error| error.to_string())),
        shown(text.parse::<WorkerName>().map(|name| name.to_string()).map_err(|error| error.to_string())),
        shown(text.parse::<CommitId>().map(|id| id.short().to_owned()).map_err(|error| error.to_string())),
        shown(text.parse::<Digest>().map(|digest| digest.to_string()).map_err(|error| error.to_string())),
        shown(text.parse::<Person>().map(|_| String::new()).map_err(|error| error.to_string())),
    ] {
        assert!(!word.chars().any(char::is_control), "{word:?}");
    }
    if let Ok(revision) = text.parse::<Revision>() {
        assert_eq!(revision.to_string().parse::<Revision>().as_ref(), Ok(&revision));
    }
    match text.parse::<RemoteUrl>() {
        Ok(url) => drop((url.host().map(str::to_owned), url.local().is_some(), url.to_string())),
        Err(error) => drop(error.to_string()),
    }
    let _ = mask_text(text);
}

fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse("backstay.toml", Some(text), &BTreeMap::new()) {
        Ok(config) => {
            for target in &config.target {
                drop((target.gate(), target.prune.limits()));
            }
            drop(config.source.remote());
        }
        Err(found) => found.0.iter().for_each(|one| drop(format!("{one} {:?}", one.snippet))),
    }
}

/// A variable of the environment, `NAME=value` in each line.
fn variable(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (format!("BACKSTAY_{name}"), value.to_owned())).collect();
    let base = "[source]\nurl = \"/a\"\n[[target]]\nenvironment = \"prod\"\nkubernetes = { namespace = \"a\" }\n";
    if let Err(found) = Config::parse("backstay.toml", Some(base), &variables) {
        found.0.iter().for_each(|one| drop(one.to_string()));
    }
}

fn records(data: &[u8]) {
    if let Ok(mut record) = serde_json::from_slice::<AgentRecord>(data) {
        let text = serde_json::to_string(&record).expect("what was read can be written");
        assert!(serde_json::from_str::<AgentRecord>(&text).is_ok_and(|back| back == record), "{text}");
        let _ = (record.is_writable(), record.next_operation());
        record.bound(3, None);
        record.set_condition(ConditionKind::Ready, backstay::record::Truth::True, "Ready", "", now());
        // The core takes whatever the ledger holds.
        let mut world = World::new();
        world.ledger.entry(crate::git::agent()).or_default().rewrite(|known| *known = record);
        world.git("one").run();
    }
    let _ = serde_json::from_slice::<EnvironmentRecord>(data);
    let _ = serde_json::from_slice::<Requests>(data);
    let _ = serde_json::from_slice::<EnvironmentRequests>(data);
    let _ = serde_json::from_slice::<Operation>(data);
}

/// The files of a release, as a ConfigMap holds them.
fn release(data: &[u8]) {
    let Ok(Value::Object(files)) = serde_json::from_slice::<Value>(data) else {
        let _ = Release::from_parts(data, BTreeMap::new());
        return;
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
    let canonical = files.get("release.json").map(text).unwrap_or_default();
    let prompts = files.iter().filter(|(name, _)| *name != "release.json");
    let prompts = prompts.map(|(name, value)| (name.clone(), text(value).into())).collect();
    if let Ok(release) = Release::from_parts(&canonical, prompts) {
        drop(release.files());
    }
    let mut world = World::new();
    let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": true, "data": files,
        "metadata": {"name": "support-r-x", "labels": {"app.kubernetes.io/managed-by": "backstay", "backstay.dev/agent": "support"}}});
    if let Some(map) = LiveObject::of(body.clone()) {
        let _ = read_release(&map);
    }
    world = world.foreign(body).git("one");
    world.run();
}

/// Two objects: ours, and what stands there.
fn live(data: &[u8]) {
    let mut pair = serde_json::Deserializer::from_slice(data).into_iter::<Value>().flatten();
    let (Some(ours), theirs) = (pair.next(), pair.next().unwrap_or_default()) else { return };
    drop((drift(&ours, &theirs), dropped(&ours, &theirs)));
    let Some(object) = ObjectRef::of(&ours, "agents") else { return };
    let changed = changes(&theirs, &ours);
    for line in
        object_lines(backstay::plan::Mark::Change, &object, &changed).iter().chain(&created_lines(&object, &ours))
    {
        assert!(!line.to_string().chars().any(char::is_control), "{line}");
    }
    let manifest = Manifest { object, body: ours.into(), origin: Origin::file("x.yaml") };
    for forbidden in violations(&manifest, &GatePolicy::of("agents")) {
        assert!(!forbidden.to_string().chars().any(char::is_control), "{forbidden}");
    }
    if let Some(live) = LiveObject::of(theirs) {
        let _ = (live.is_terminating(), live.version.is_at_least(&live.version));
        if ["Pod", "Deployment", "ReplicaSet", "ConfigMap"].contains(&live.object.kind.as_str()) {
            let mut world = World::new().git("one");
            world.run();
            let mut body = (*live.body).clone();
            let labels =
                serde_json::json!({"app.kubernetes.io/managed-by": "backstay", "backstay.dev/agent": "support"});
            if body["metadata"].is_object() {
                body["metadata"]["labels"] = labels;
                drop(world.foreign(body).past());
            }
        }
    }
}

/// Two amounts, with a line break between.
fn quantity(data: &[u8]) {
    let Some((one, other)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else { return };
    let pod = |cpu: &str| {
        serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"template": {"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}}}})
    };
    let found = drift(&pod(one), &pod(other));
    assert!(one != other || found.is_empty(), "{one} is itself");
    assert_eq!(found.is_empty(), drift(&pod(other), &pod(one)).is_empty(), "{one:?} {other:?}");
}

fn message(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let named = revert::named(text);
    drop((named.is_empty(), named));
    let Ok(agent) = "support".parse() else { return };
    if let Ok(pinned) = revert::pin(text, &agent, &commit()) {
        assert!(pinned.contains(commit().as_str()), "{pinned}");
    }
}

/// Headers in lines, an empty line, a body; to each door.
fn hook(data: &[u8]) {
    use hyper::service::Service as _;
    let end = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..end], data.get(end + 2..).unwrap_or_default());
    let secret = || Some(Secret::new("hunter2"));
    let app = backstay::web::App {
        status: backstay::daemon::Status::serving([]),
        metrics: std::sync::Arc::new(backstay::daemon::Metrics::new()),
        secrets: HookSecrets { github: secret(), gitlab: secret(), gitea: secret(), generic: secret() },
        hint: std::sync::Arc::new(|| panic!("nobody signed this")),
    };
    let service =
        hyper_util::service::TowerToHyperService::new(backstay::web::router(&app, &backstay::web::Limits::default()));
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    for door in ["github", "gitlab", "gitea", "generic"] {
        let mut request = http::Request::post(format!("/hooks/{door}"));
        for line in head.split(|byte| *byte == b'\n') {
            let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            request = request.header(&line[..at], line.get(at + 1..).unwrap_or_default());
        }
        let Ok(request) = request.body(axum::body::Body::from(body.to_vec())) else { continue };
        let answer = runtime.block_on(service.call(request));
        assert!(answer.is_ok_and(|answer| answer.status().is_client_error()), "{door}");
    }
}

/// Bytes as a story: what people, controllers and faults do, one byte each.
fn reconcile(data: &[u8]) {
    let mut world = World::new().git("one");
    for pair in data.chunks(2).take(24) {
        let (deed, with) = (pair[0], usize::from(pair.get(1).copied().unwrap_or_default()));
        world.effects = 0;
        world = match deed % 14 {
            0 => world.git(["one", "two", "three", "four"][with % 4]),
            1 => world.git_removes(),
            2 => world.git_is_bad(),
            3 => world.later(SignedDuration::from_secs([1, 11, 90, 700, 90_000][with % 5])),
            4 => {
                world.restart();
                world
            }
            5 => {
                let class = if with % 2 == 0 { Class::CrashBefore } else { Class::CrashAfter };
                world.plane.fault = Some((class, 1 + with % 9));
                world
            }
            6 => {
                let kind = ["ConfigMap", "Deployment", "Service", "ServiceAccount"][with % 4];
                if let Some(object) = world.cluster.objects.keys().find(|object| object.kind == kind).cloned() {
                    world.delete(kind, &object.name);
                }
                world
            }
            7 => {
                if world.find("Deployment", "support").is_some() {
                    world.edit("Deployment", "support", |body| body["spec"]["replicas"] = serde_json::json!(with));
                }
                world
            }
            8 => {
                let kind = ["ConfigMap", "Deployment", "Service"][with % 3].to_owned();
                if !world.unseen.remove(&kind) {
                    world.unseen.insert(kind);
                }
                world
            }
            9 => {
                let release = world.running().unwrap_or_default();
                if world.cluster.sick.remove(&release).is_none() {
                    world.cluster.sick.insert(release, "CrashLoopBackOff");
                }
                world
            }
            10 => {
                world.plane.stale = (with % 2 == 0).then(|| world.past());
                world
            }
            11 => {
                world.lose_ledger();
                world
            }
            12 => {
                *world.requests() = Requests::default();
                world
            }
            _ => world,
        };
        // What is old is shown for one deed only.
        world.plane.stale = world.plane.stale.filter(|_| deed % 14 == 10);
        world.run();
        // A crash strikes in what is done next.
        world.plane.fault = world.plane.fault.filter(|_| deed % 14 == 5);
    }
}
