//! The real cluster for tests (`tests/lab`): a client, a namespace of one's own, and ways to break the connection.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::disallowed_methods, reason = "tests read files, and have clocks and tasks of their own")]

#[path = "wire.rs"]
mod wire;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use backstay::observe::{Account, Api, Cluster, Limiter, connect};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
    pub(crate) client: kube::Client,
    pub(crate) namespace: String,
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

/// Asks again and again until something is there; fails after 30 s.
pub(crate) async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut look: F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// === impl Lab ===

impl Lab {
    async fn open(name: &str, kubeconfig: PathBuf, turn: Turn) -> Self {
        let dir = PathBuf::from(std::env::var_os("LAB_DIR").expect("LAB_DIR"));
        let cluster = Cluster { kubeconfig: Some(kubeconfig.clone()), context: None, own: false };
        let client = connect(&cluster, None).await.expect("a client");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut namespace = format!("{}-{}-{number}", name.replace('_', "-"), std::process::id());
        namespace = namespace[namespace.len().saturating_sub(60)..].trim_start_matches('-').to_owned();
        let lab = Self { client, namespace, dir, kubeconfig, _turn: turn };
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

    /// The path of a collection of the namespace: `configmaps`, `apps/v1/deployments`.
    pub(crate) fn path(&self, collection: &str) -> String {
        match collection.rsplit_once('/') {
            None => format!("/api/v1/namespaces/{}/{collection}", self.namespace),
            Some((version, plural)) => format!("/apis/{version}/namespaces/{}/{plural}", self.namespace),
        }
    }

    /// One request with a JSON body, and the answer; or the server's status.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Box<kube::core::Status>> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.send(method, path, "application/json", body).await
    }

    /// Makes an object in a collection of the namespace.
    pub(crate) async fn make(&self, collection: &str, body: Value) -> Value {
        self.ask(Method::POST, &self.path(collection), Some(body)).await.expect("made")
    }

    /// Reads an object of the namespace.
    pub(crate) async fn see(&self, collection: &str, name: &str) -> Option<Value> {
        self.ask(Method::GET, &format!("{}/{name}", self.path(collection)), None).await.ok()
    }

    /// Changes an object of the namespace by a merge patch, under a field manager.
    pub(crate) async fn merge(&self, collection: &str, name: &str, manager: &str, patch: &Value) -> Value {
        let object = format!("{}/{name}?fieldManager={manager}", self.path(collection));
        self.send(Method::PATCH, &object, "application/merge-patch+json", patch.to_string()).await.expect("changed")
    }

    /// Deletes an object of the namespace.
    pub(crate) async fn remove(&self, collection: &str, name: &str) {
        let path = format!("{}/{name}", self.path(collection));
        self.ask(Method::DELETE, &path, None).await.expect("deleted");
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

    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Value, Box<kube::core::Status>> {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.body(body.into_bytes()).expect("a request");
        match self.client.request::<Value>(request).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => Err(status),
            Err(error) => Err(Box::new(kube::core::Status::failure(&error.to_string(), "Unreachable"))),
        }
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
