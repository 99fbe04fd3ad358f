//! The real cluster for tests (`tests/lab`): a client, a namespace of one's own, and ways to break the connection.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::disallowed_methods, reason = "tests read files, and have clocks and tasks of their own")]

#[path = "objects.rs"]
mod objects;
#[path = "wire.rs"]
mod wire;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backstay::observe::{Account, Api, Cluster, Limiter, connect};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use objects::{Objects, eventually};
pub(crate) use wire::Wire;

/// Tests that stop parts of the lab run alone.
static TURN: RwLock<()> = RwLock::const_new(());
/// The ledger's kinds are installed once.
static INSTALLED: OnceCell<()> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// What holds the others off, or is held off.
enum Turn {
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

/// A namespace of one's own in the lab, as its administrator; deleted at the end.
pub(crate) struct Lab {
    objects: Objects,
    pub(crate) dir: PathBuf,
    kubeconfig: PathBuf,
    _turn: Turn,
}

/// The lab, shared with other tests; nothing, with one line that says so, where there is none.
pub(crate) async fn lab(name: &str) -> Option<Lab> {
    let kubeconfig = kubeconfig(name)?;
    Some(Lab::open(name, kubeconfig, Turn::Shared(TURN.read().await)).await)
}

/// The same while no other test of this binary runs: for stopping parts of it.
pub(crate) async fn lab_alone(name: &str) -> Option<Lab> {
    let kubeconfig = kubeconfig(name)?;
    Some(Lab::open(name, kubeconfig, Turn::Alone(TURN.write().await)).await)
}

fn kubeconfig(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("LAB_DIR").and(std::env::var_os("KUBECONFIG"));
    if found.is_none() {
        // Past the harness, which keeps what a passing test prints to itself.
        let _ = writeln!(std::io::stderr(), "skipped: {name} needs the lab (run tests/run)");
    }
    found.map(PathBuf::from)
}

/// Stops, continues, kills or starts a part of the lab, for a test that runs alone.
pub(crate) fn part(verb: &str, part: &str) {
    let lab = std::env::var_os("LAB_BIN").expect("LAB_BIN");
    let status = std::process::Command::new(lab).args(["part", verb, part]).status().expect("lab part");
    assert!(status.success(), "lab part {verb} {part}");
}

// === impl Lab ===

impl Lab {
    /// Whether agents run in images.
    pub(crate) const HAS_IMAGES: bool = true;

    async fn open(name: &str, kubeconfig: PathBuf, turn: Turn) -> Self {
        let dir = PathBuf::from(std::env::var_os("LAB_DIR").expect("LAB_DIR"));
        let cluster = Cluster { kubeconfig: Some(kubeconfig.clone()), context: None, own: false };
        let client = connect(&cluster, None).await.expect("a client");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut namespace = format!("{}-{}-{number}", name.replace('_', "-"), std::process::id());
        namespace = namespace[namespace.len().saturating_sub(60)..].trim_start_matches('-').to_owned();
        let lab = Self { objects: Objects { client, namespace }, dir, kubeconfig, _turn: turn };
        INSTALLED
            .get_or_init(|| async {
                for crd in backstay::ledger::crds() {
                    lab.install(&serde_json::to_value(crd).expect("JSON")).await;
                }
            })
            .await;
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}});
        lab.ask(Method::POST, "/api/v1/namespaces", Some(body)).await.expect("a namespace");
        lab
    }

    /// What a daemon's configuration says of this place, within its `[[target]]`.
    pub(crate) fn target(&self) -> String {
        format!("kubernetes = {{ namespace = \"{}\" }}", self.namespace)
    }

    /// Where every daemon of this place keeps its state, if it may not choose.
    #[expect(clippy::unused_self, reason = "called as a host's is")]
    pub(crate) fn state(&self) -> Option<PathBuf> {
        None
    }

    /// Where a Pod answers.
    pub(crate) fn address(pod: &Value) -> Option<String> {
        Some(format!("{}:8000", pod["status"]["podIP"].as_str()?))
    }

    /// Makes a secret.
    pub(crate) async fn secret(&self, name: &str, values: &[(&str, &str)]) {
        let values: serde_json::Map<_, _> =
            values.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.make("secrets", json!({"metadata": {"name": name}, "stringData": values})).await;
    }

    /// Installs a definition and waits until its kind is served.
    pub(crate) async fn install(&self, crd: &Value) {
        let mut crd = crd.clone();
        crd.as_object_mut().expect("an object").remove("status");
        let text = |at: &str| crd.pointer(at).and_then(Value::as_str).expect("text").to_owned();
        let (name, group, plural) = (text("/metadata/name"), text("/spec/group"), text("/spec/names/plural"));
        let version = text("/spec/versions/0/name");
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let path = format!("{path}?fieldManager=tests&force=true");
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", crd.to_string()).await.expect("installed");
        eventually("the kind is served", async || {
            self.ask(Method::GET, &format!("/apis/{group}/{version}/{plural}"), None).await.ok()
        })
        .await;
    }

    /// An [`Api`] as the administrator, or as somebody of `users/`, with a deadline of 5 s.
    pub(crate) async fn api(&self, user: Option<&str>) -> Api {
        let client = match user {
            None => self.client.clone(),
            Some(user) => {
                let kubeconfig = self.dir.join(format!("users/{user}.kubeconfig"));
                let cluster = Cluster { kubeconfig: Some(kubeconfig), context: None, own: false };
                connect(&cluster, None).await.expect("a client")
            }
        };
        Api::new(client, Arc::new(Limiter::default())).with_timeout(Duration::from_secs(5))
    }

    /// An [`Api`] that is impersonated as an account of the namespace.
    pub(crate) async fn api_as(&self, account: &str) -> Api {
        let cluster = Cluster { kubeconfig: Some(self.kubeconfig.clone()), context: None, own: false };
        let account = Account { namespace: self.namespace.clone(), name: account.to_owned() };
        let client = connect(&cluster, Some(&account)).await.expect("a client");
        Api::new(client, Arc::new(Limiter::default())).with_timeout(Duration::from_secs(5))
    }

    /// An [`Api`] with a token of one's own choice.
    pub(crate) async fn api_with_token(&self, token: &str) -> Api {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let options = kube::config::KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
        config.auth_info.token = Some(token.to_owned().into());
        config.default_retry = false;
        let client = kube::Client::try_from(config).expect("a client");
        Api::new(client, Arc::new(Limiter::default()))
    }

    /// An [`Api`] through a wire that can be cut, with a deadline of 2 s.
    pub(crate) async fn api_over(&self, wire: &Wire) -> Api {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let options = kube::config::KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
        config.cluster_url = format!("https://127.0.0.1:{}", wire.port).parse().expect("a URL");
        config.default_retry = false;
        let client = kube::Client::try_from(config).expect("a client");
        Api::new(client, Arc::new(Limiter::default())).with_timeout(Duration::from_secs(2))
    }

    /// The host and port of the API server.
    pub(crate) fn server(&self) -> String {
        let text = std::fs::read_to_string(&self.kubeconfig).expect("a kubeconfig");
        let (_, rest) = text.split_once("server: https://").expect("a server");
        rest.lines().next().expect("a line").trim().to_owned()
    }

    /// Lets a subject (`{"kind": "User", …}`) do `verbs` to `resources` in the namespace.
    pub(crate) async fn allow(&self, role: &str, subject: Value, groups: &[&str], resources: &[&str], verbs: &[&str]) {
        let rules = json!([{"apiGroups": groups, "resources": resources, "verbs": verbs}]);
        let body = json!({"metadata": {"name": role}, "rules": rules});
        self.make("rbac.authorization.k8s.io/v1/roles", body).await;
        let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role});
        let body = json!({"metadata": {"name": role}, "roleRef": role_ref, "subjects": [subject]});
        self.make("rbac.authorization.k8s.io/v1/rolebindings", body).await;
    }
}

impl std::ops::Deref for Lab {
    type Target = Objects;

    fn deref(&self) -> &Objects {
        &self.objects
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let (kubeconfig, namespace) = (self.kubeconfig.clone(), self.namespace.clone());
        let delete = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let cluster = Cluster { kubeconfig: Some(kubeconfig), context: None, own: false };
                let client = connect(&cluster, None).await.expect("a client");
                let request = Request::delete(format!("/api/v1/namespaces/{namespace}")).body(Vec::new());
                let delete = client.request::<Value>(request.expect("a request"));
                let _ = tokio::time::timeout(Duration::from_secs(5), delete).await;
            });
        };
        let _ = std::thread::spawn(delete).join();
    }
}
