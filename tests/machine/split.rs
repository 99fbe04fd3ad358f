//! Two releases behind one route, with the real supervisor, proxy, keepers and agents, and without a daemon that decides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backstay::desired::rollout::Field;
use backstay::desired::{HostSettings, Release, Rolling, Settings, TargetKind};
use backstay::host::{HostApi, Store};
use backstay::ledger::{Role, SystemClock};
use backstay::model::{AgentName, Digest, EnvironmentName, Manifest};
use backstay::render::{Backend, Identity, RenderOptions, RendererVersion, Routing, Set, render, route};
use backstay::supervisor::{Launcher, Supervisor};
use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::daemon::{BACKSTAY, until};
use crate::lab::{Lab, lab};

const NAMESPACE: &str = "production";
const ROUTES: &str = "gateway.networking.k8s.io/v1/httproutes";

/// A host with a supervisor in this process.
struct Host {
    lab: Lab,
    api: HostApi,
    agent: AgentName,
    environment: EnvironmentName,
    http: reqwest::Client,
    stop: CancellationToken,
    supervised: tokio::task::JoinHandle<()>,
}

/// An agent's release; `prompt` is what makes it another one, and streams take `chunk` milliseconds for each word.
fn release(prompt: &str, chunk: u64) -> Release {
    let spec = json!({
        "format": 1,
        "code": {"command": ["backstay", "example-agent"]},
        "prompts": {"system": Digest::of(prompt.as_bytes())},
        "config": {"demo": {"chunkDelayMs": chunk}},
        "workload": {
            "port": 8000,
            "env": {"LOG_LEVEL": "WARNING"},
            "health": {"ready": {"httpGet": {"path": "/health/ready", "port": 8000}, "periodSeconds": 1}},
        },
    });
    let files = BTreeMap::from([("system".to_owned(), Arc::from(prompt.as_bytes()))]);
    Release::new(serde_json::from_value(spec).expect("a release"), files).expect("a release")
}

fn settings(replicas: u32) -> Settings {
    Settings {
        digest: Digest::of(b"settings"),
        replicas: Some(replicas),
        worker_replicas: BTreeMap::new(),
        history: 10,
        progress_deadline: Duration::from_mins(1),
        rolling: Rolling::default(),
        disruption_budget: None,
        depends_on: vec![],
        autoscaling: None,
        deployment: None,
        manifests: vec![],
        flags: None,
        route: None,
        host: HostSettings::default(),
        rollout: None,
    }
}

/// How stable and a candidate share the requests.
fn shared<'a>(stable: &Release, candidate: Option<(&Release, u8)>) -> Routing<'a> {
    let backend = |release: &Release, weight| Backend { release: release.id, set: Set::PerRelease, weight };
    Routing {
        stable: backend(stable, 100 - candidate.map_or(0, |(_, weight)| weight)),
        candidate: candidate.map(|(release, weight)| backend(release, weight)),
        mirror: false,
        reach: None,
        sticky: None,
        preview: None,
    }
}

// === impl Host ===

impl Host {
    async fn new(name: &str, keep_old: Duration) -> Self {
        let lab = lab(name).await;
        let state = lab.state().expect("a folder").join("host");
        std::fs::create_dir_all(&state).expect("a folder");
        let clock: Arc<SystemClock> = Arc::default();
        let store = Store::open(&state.join("host.db"), clock.clone()).expect("a store");
        let api = HostApi::new(Arc::new(store));
        let settings = backstay::supervisor::Settings {
            launcher: Launcher::Fork { keeper: lab.keeper.clone() },
            secrets: lab.at("secrets"),
            interpreters: BTreeMap::from([("backstay".to_owned(), PathBuf::from(BACKSTAY))]),
            ports: lab.ports.0..=lab.ports.1,
            keep_old,
            table: lab.at("table.json"),
            control: lab.at("proxy.sock"),
            state,
        };
        let (leads, role) = tokio::sync::watch::channel(Role::Leading(1));
        let code: backstay::supervisor::Code = Arc::new(|_, _| Ok(None));
        let supervisor = Supervisor::new(api.client(), NAMESPACE.to_owned(), settings, code, role, clock);
        let (supervisor, stop) = (supervisor.expect("a supervisor"), CancellationToken::new());
        let stopped = stop.clone();
        let supervised = tokio::spawn(async move {
            let _leads = leads;
            supervisor.run(stopped).await;
        });
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (agent, environment) = ("support".parse().expect("a name"), "production".parse().expect("a name"));
        Self { lab, api, agent, environment, http, stop, supervised }
    }

    fn identity(&self) -> Identity<'_> {
        Identity {
            agent: &self.agent,
            environment: &self.environment,
            namespace: NAMESPACE,
            installation: "3b1f",
            target: TargetKind::Host,
        }
    }

    fn path(collection: &str) -> String {
        let (version, plural) = collection.rsplit_once('/').unwrap_or(("", collection));
        let root = if version.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        format!("{root}/namespaces/{NAMESPACE}/{plural}")
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Option<Value> {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/apply-patch+yaml");
        let body = body.map(ToString::to_string).unwrap_or_default().into_bytes();
        match self.api.client().request::<Value>(request.body(body).expect("a request")).await {
            Ok(answer) => Some(answer),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    async fn apply(&self, manifest: &Manifest) -> Value {
        let collection = match manifest.object.kind.as_str() {
            "ConfigMap" => "configmaps",
            "Service" => "services",
            "Deployment" => "apps/v1/deployments",
            "HTTPRoute" => ROUTES,
            kind => panic!("{kind}"),
        };
        let path = format!("{}/{}?fieldManager=backstay&force=true", Self::path(collection), manifest.object.name);
        self.ask(Method::PATCH, &path, Some(&manifest.body)).await.expect("applied")
    }

    /// Applies a release of its own, and waits until all of it is ready.
    async fn deploy(&self, release: &Release, replicas: u32) {
        let options = RenderOptions::default();
        let rendered =
            render(&self.identity(), release, &settings(replicas), RendererVersion::CURRENT, Set::PerRelease, &options);
        let rendered = rendered.expect("rendered");
        for manifest in &rendered.manifests {
            self.apply(manifest).await;
        }
        let path = format!("{}/{}", Self::path("apps/v1/deployments"), rendered.main().expect("one").object.name);
        until("it is as large as it is to be", async || {
            let live = self.ask(Method::GET, &path, None).await?;
            let count = |field: &str| live["status"][field].as_u64() == Some(u64::from(replicas));
            (live["status"]["observedGeneration"] == live["metadata"]["generation"]
                && count("availableReplicas")
                && count("replicas"))
            .then_some(())
        })
        .await;
    }

    async fn delete(&self, release: &Release) {
        for collection in ["apps/v1/deployments", "services"] {
            let path = format!("{}/support--{}", Self::path(collection), release.id);
            self.ask(Method::DELETE, &path, None).await.expect("deleted");
        }
    }

    /// Puts up a route, and waits until it says that it is in force; gives its generation.
    async fn routed(&self, routing: &Routing<'_>) -> i64 {
        let applied = self.apply(&route(&self.identity(), &settings(1), 8000, routing)).await;
        let generation = applied["metadata"]["generation"].as_i64().expect("a generation");
        let said = until("it says something of this generation", async || {
            let live = self.ask(Method::GET, &format!("{}/support", Self::path(ROUTES)), None).await?;
            let programmed = live["status"]["parents"][0]["conditions"]
                .as_array()?
                .iter()
                .find(|one| one["type"] == "Programmed")?
                .clone();
            (programmed["observedGeneration"].as_i64()? >= generation).then_some(programmed)
        })
        .await;
        assert_eq!(said["status"], "True", "{said}");
        generation
    }

    /// One request, as whoever: the release that answered, and the status.
    async fn knock(&self, user: Option<&str>) -> Result<String, String> {
        let request = self.http.get(format!("http://{}/health/live", self.lab.front));
        let request = request.header("host", "support.localhost").header("backstay-release", "?");
        let request = if let Some(user) = user { request.header("x-user", user) } else { request };
        let answer = request.send().await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string());
        }
        let release = answer.headers().get("backstay-release").and_then(|value| value.to_str().ok());
        release.map(str::to_owned).ok_or_else(|| "no release".to_owned())
    }

    async fn end(self) {
        self.stop.cancel();
        self.supervised.await.expect("it ends");
    }
}

/// A part of `of` at a chance of `percent`, within a 99.9 % interval of the binomial distribution.
fn is_share(part: u32, of: u32, percent: u32) -> bool {
    let (part, of, chance) = (f64::from(part), f64::from(of), f64::from(percent) / 100.0);
    (part - of * chance).abs() <= 3.2905 * (of * chance * (1.0 - chance)).sqrt()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_split_as_the_route_says_and_none_fails_while_it_changes() {
    let host = Arc::new(Host::new("split", Duration::from_mins(5)).await);
    let (one, two) = (release("Greet with \"One\".", 0), release("Greet with \"Two\".", 0));
    host.deploy(&one, 1).await;
    host.routed(&shared(&one, None)).await;
    host.deploy(&two, 1).await;
    host.routed(&shared(&one, Some((&two, 5)))).await;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..2_000 {
        *seen.entry(host.knock(None).await.expect("an answer")).or_default() += 1;
    }
    let part = seen.get(&two.id.short()).copied().unwrap_or(0);
    assert!(seen.len() <= 2 && is_share(part, 2_000, 5), "{seen:?}");

    // People ask all the while.
    let (going, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let people: Vec<_> = (0..8)
        .map(|_| {
            let (host, going, asked) = (Arc::clone(&host), Arc::clone(&going), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut failed = vec![];
                while going.load(Ordering::Acquire) {
                    failed.extend(host.knock(None).await.err());
                    asked.fetch_add(1, Ordering::AcqRel);
                }
                failed
            })
        })
        .collect();
    let some_more = async || {
        let before = asked.load(Ordering::Acquire);
        until("people ask", async || (asked.load(Ordering::Acquire) > before + 50).then_some(())).await;
    };
    for shift in 0..20 {
        if shift % 2 == 0 {
            host.routed(&shared(&one, Some((&two, if shift % 4 == 0 { 100 } else { 50 })))).await;
            some_more().await;
            continue;
        }
        host.routed(&shared(&one, None)).await;
        // Each way that a candidate can go.
        match shift % 6 {
            1 => host.deploy(&two, 0).await,
            3 => host.delete(&two).await,
            _ => {}
        }
        some_more().await;
        host.deploy(&two, 1).await;
    }
    going.store(false, Ordering::Release);
    for person in people {
        assert_eq!(person.await.expect("no panic"), Vec::<String>::new(), "of {asked:?}");
    }
    Arc::into_inner(host).expect("nobody else has it").end().await;
}

#[tokio::test]
async fn users_only_ever_move_towards_the_candidate() {
    let host = Host::new("sticky", Duration::from_mins(5)).await;
    let (one, two) = (release("Greet with \"One\".", 0), release("Greet with \"Two\".", 0));
    host.deploy(&one, 1).await;
    host.deploy(&two, 1).await;
    let sticky = Field::Header("x-user".to_owned());
    let plain = host.routed(&shared(&one, Some((&two, 0)))).await;
    let with_users = host.routed(&Routing { sticky: Some(&sticky), ..shared(&one, Some((&two, 0))) }).await;
    assert!(with_users > plain, "what the annotation says alone is a generation too");
    let mut before: BTreeSet<u32> = BTreeSet::new();
    for weight in [0, 5, 25, 50, 75, 100] {
        host.routed(&Routing { sticky: Some(&sticky), ..shared(&one, Some((&two, weight))) }).await;
        let mut moved = BTreeSet::new();
        for user in 0..200 {
            let first = host.knock(Some(&user.to_string())).await.expect("an answer");
            assert_eq!(host.knock(Some(&user.to_string())).await.as_ref(), Ok(&first), "user {user} stays");
            if first == two.id.short() {
                moved.insert(user);
            }
        }
        assert!(moved.is_superset(&before), "{weight} %: {:?} moved back", before.difference(&moved));
        assert!(
            is_share(u32::try_from(moved.len()).expect("few"), 200, u32::from(weight)),
            "{} at {weight} %",
            moved.len()
        );
        before = moved;
    }
    assert_eq!(before.len(), 200);
    host.end().await;
}

#[tokio::test]
async fn a_stream_of_a_candidate_that_is_deleted_comes_to_its_end() {
    let host = Host::new("leave", Duration::ZERO).await;
    let words = ["word"; 40].join(" ");
    let (one, two) = (release("Greet with \"One\".", 0), release(&format!("Answer \"long\" with \"{words}\"."), 50));
    host.deploy(&one, 1).await;
    host.deploy(&two, 1).await;
    host.routed(&shared(&one, Some((&two, 100)))).await;
    let request =
        host.http.post(format!("http://{}/chat?stream=true", host.lab.front)).header("host", "support.localhost");
    let request = request.header("content-type", "application/json").body(json!({"message": "long"}).to_string());
    let mut answer = request.send().await.expect("an answer");
    let mut text = String::from_utf8(answer.chunk().await.expect("a part").expect("more").to_vec()).expect("text");
    host.routed(&shared(&one, None)).await;
    host.delete(&two).await;
    assert_eq!(host.knock(None).await, Ok(one.id.short()));
    while let Some(part) = answer.chunk().await.expect("the stream is not cut") {
        text.push_str(&String::from_utf8_lossy(&part));
    }
    assert!(text.contains("event: done") && text.matches("word").count() >= 80, "{text}");
    until("its process has ended", async || (host.lab.instances().len() == 1).then_some(())).await;
    host.end().await;
}
