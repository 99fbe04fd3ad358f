//! One environment with one agent, in a namespace of its own, that goes through four stages: installed, changed,
//! reverted, removed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backstay::daemon::Between;
use backstay::daemon::config::Config;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::{Repo, condition};
use crate::git::GitServer;
use crate::inside::{Ahead, Log, Running};
use crate::lab::Lab;
use crate::proxy::Proxy;
use crate::rights;
use crate::standing::{difference, leftovers, masked, unnamed};

/// Commits of the long way.
const LONG: [&str; 16] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
/// What happens, in this order.
pub(crate) const STAGES: [&str; 4] = ["install", "change", "revert", "remove"];
/// Longest time in which a stage must come to its end, whatever went wrong in it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);
pub(crate) const AGENT: &str = "support";

/// The commits of all scenes, made once.
pub(crate) struct Story {
    repo: Repo,
    /// By stage; `race` comes on top of `change`.
    pub(crate) commits: BTreeMap<&'static str, String>,
    /// The names of more commits, each on top of the one before, the first on top of `install`.
    pub(crate) long: Vec<&'static str>,
}

/// One environment on its way.
pub(crate) struct Scene<'l> {
    pub(crate) lab: &'l Lab,
    pub(crate) namespace: String,
    pub(crate) proxy: Proxy,
    pub(crate) story: &'static Story,
    folder: TempDir,
    source: String,
    /// What else the daemon's configuration says.
    pub(crate) more: String,
    /// How far the daemon's clock is from this machine's.
    pub(crate) ahead: SignedDuration,
    /// A wrong clock may see the hour pass for which a record remembers what went back.
    pub(crate) forgets: bool,
    daemon: Option<Running>,
    /// What the daemons in this process said.
    log: Log,
    starts: usize,
    writes_seen: usize,
}

// === impl Story ===

impl Story {
    pub(crate) fn get() -> &'static Self {
        static STORY: OnceLock<Story> = OnceLock::new();
        STORY.get_or_init(|| {
            let repo = Repo::small();
            for gone in [
                "environments/staging.yaml",
                "environments/production.yaml",
                "environments/staging",
                "environments/production",
            ] {
                repo.git(&["rm", "-r", "-q", gone]);
            }
            // No pods: what is tried here is who writes what.
            repo.edit("environments/development/support.yaml", "replicas: 1\n", "replicas: 0\n");
            let install = repo.commit("One agent, no pods");
            let change = repo.commit_greeting("Ahoy!");
            let race = repo.commit_greeting("Moin!");
            repo.git(&["reset", "-q", "--hard", &change]);
            let revert = {
                repo.git(&["revert", "--no-edit", "HEAD"]);
                repo.head()
            };
            repo.git(&["rm", "-r", "-q", "agents/support", "environments/development"]);
            repo.git(&["commit", "-q", "-m", "Let it go"]);
            let remove = repo.head();
            repo.git(&["push", "-q", "-f", "origin", "HEAD:refs/heads/last", &format!("{race}:refs/heads/race")]);
            repo.git(&["checkout", "-q", "-b", "long", &install]);
            let mut far = vec![];
            for name in LONG {
                repo.greet(&format!("Hello {name}!"));
                repo.git(&["commit", "-q", "-a", "-m", &format!("Greet by {name}")]);
                far.push((name, repo.head()));
            }
            repo.git(&["push", "-q", "-f", "origin", "long"]);
            // Everything is there from the start; only the branch moves.
            let mut commits = BTreeMap::from([
                ("install", install),
                ("change", change),
                ("race", race),
                ("revert", revert),
                ("remove", remove),
            ]);
            commits.extend(far);
            Self { repo, commits, long: LONG.to_vec() }
        })
    }

    /// Commits of a repository, by the names of their stages.
    pub(crate) fn of(repo: Repo, commits: BTreeMap<&'static str, String>) -> Self {
        Self { repo, commits, long: vec![] }
    }

    /// A bare repository of one's own, at no commit yet.
    pub(crate) fn copy_to(&self, folder: &Path) {
        let to = folder.join("repo.git");
        crate::daemon::copy(&self.repo.bare(), &to);
        // The packed or loose branch goes: the first stage sets it.
        self.set(folder, "install");
    }

    /// Moves the branch of a copy, as a push does.
    pub(crate) fn set(&self, folder: &Path, stage: &str) {
        let heads = folder.join("repo.git/refs/heads");
        let next = folder.join("next");
        std::fs::write(&next, format!("{}\n", self.commits[stage])).expect("written");
        std::fs::rename(next, heads.join("main")).expect("moved");
    }
}

/// The configuration of a daemon that serves a namespace through a port of this machine.
pub(crate) fn configuration(
    folder: &Path,
    state: &str,
    namespace: &str,
    source: &str,
    port: u16,
    listen: u16,
) -> String {
    let kubeconfig = folder.join(format!("kubeconfig-{port}"));
    let cluster = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "proxy", "user": {"token": "none"}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    });
    std::fs::write(&kubeconfig, cluster.to_string()).expect("a kubeconfig");
    let at = |name: String| folder.join(name).display().to_string();
    format!(
        "installation = \"fault\"\n[source]\n{source}\ninterval = \"1s\"\n[[target]]\nenvironment = \"development\"\n\
         kubernetes = {{ namespace = \"{namespace}\", service_account = \"backstay-development\", kubeconfig = \"{}\" }}\n\
         prune = {{ max_percent = 100, max_objects = 50 }}\n[http]\nlisten = \"127.0.0.1:{listen}\"\n[state]\nfolder = \"{}\"\n\
         [journal]\npath = \"{}\"\n[log]\nlevel = \"info,backstay=debug\"\n",
        kubeconfig.display(),
        at(state.to_owned()),
        at(format!("{state}.journal")),
    )
}

/// A namespace in which the environment's account may do what `manifests/` lets it.
pub(crate) async fn namespace(lab: &Lab) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    static ROLE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    ROLE.get_or_init(|| async {
        let mut role = rights::documents("rbac.yaml");
        role.retain(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "backstay-environment");
        role[0]["metadata"]["name"] = json!("fault-environment");
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        if let Err(status) = lab.ask(Method::POST, path, role.pop()).await {
            assert_eq!(status.reason, "AlreadyExists", "{}", status.message);
        }
    })
    .await;
    let name = format!("{}-{}", lab.namespace, NEXT.fetch_add(1, Ordering::Relaxed));
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    lab.ask(Method::POST, "/api/v1/namespaces", Some(body)).await.expect("a namespace");
    let account = "backstay-development";
    let body = json!({"metadata": {"name": account}});
    lab.ask(Method::POST, &format!("/api/v1/namespaces/{name}/serviceaccounts"), Some(body)).await.expect("an account");
    let body = json!({
        "metadata": {"name": "fault"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "fault-environment"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": name}],
    });
    let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings");
    lab.ask(Method::POST, &path, Some(body)).await.expect("a binding");
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": format!("system:serviceaccount:{name}:{account}"),
            "resourceAttributes": {"namespace": name, "verb": "create", "resource": "services"},
        },
    });
    crate::lab::eventually("the binding is in force", async || {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = lab.ask(Method::POST, path, Some(review.clone())).await.ok()?;
        (answer["status"]["allowed"] == true).then_some(())
    })
    .await;
    name
}

// === impl Scene ===

impl<'l> Scene<'l> {
    pub(crate) async fn new(lab: &'l Lab) -> Self {
        Self::of(lab, Story::get()).await
    }

    /// An environment that these commits come to.
    pub(crate) async fn of(lab: &'l Lab, story: &'static Story) -> Self {
        Log::listen();
        let folder = tempfile::tempdir().expect("a temporary folder");
        story.copy_to(folder.path());
        let proxy = Proxy::start(lab.client.clone()).await;
        let namespace = namespace(lab).await;
        let source = format!("url = \"{}\"", folder.path().join("repo.git").display());
        Self {
            lab,
            namespace,
            proxy,
            story,
            folder,
            source,
            more: String::new(),
            ahead: SignedDuration::ZERO,
            forgets: false,
            daemon: None,
            log: Log::default(),
            starts: 0,
            writes_seen: 0,
        }
    }

    /// Lets the daemon reach the scene's repository through this server.
    pub(crate) fn through(&mut self, server: &GitServer) {
        self.source = format!("url = \"{}\"", server.url("repo.git"));
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The `[source]` of the scene's own repository.
    pub(crate) fn source(&self) -> String {
        self.source.clone()
    }

    /// Moves the branch as a push does.
    pub(crate) fn push(&self, stage: &str) {
        self.story.set(self.folder(), stage);
    }

    /// Starts a daemon in this process, on what an earlier one left in the cluster.
    pub(crate) async fn start(&mut self) {
        self.starts += 1;
        let source = self.source();
        let state = format!("state-{}", self.starts);
        let text = configuration(self.folder(), &state, &self.namespace, &source, self.proxy.port, 0) + &self.more;
        let config = Config::parse("backstay.toml", Some(&text), &BTreeMap::new()).expect("a configuration");
        let running = Running::start(config, &self.log, Between::default(), Ahead::by(self.ahead));
        self.daemon = Some(running.await.expect("a daemon"));
    }

    /// The last of what the daemons in this process said.
    pub(crate) fn said(&self) -> String {
        self.log.last()
    }

    /// Drops the daemon where it stands: nothing of it runs on.
    pub(crate) fn crash(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.crash();
        }
    }

    /// Stops the daemon as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().await;
        }
    }

    pub(crate) async fn see(&self, collection: &str, name: &str) -> Option<Value> {
        self.lab.ask(Method::GET, &format!("{}/{name}", path(&self.namespace, collection)), None).await.ok()
    }

    /// Whether a stage has come to its end: the record says so.
    pub(crate) async fn arrived(&self, commit: &str, removed: bool) -> bool {
        let Some(release) = self.see("backstay.dev/v1alpha1/agentreleases", AGENT).await else { return false };
        let record = &release["status"];
        let newest = &record["operations"][0];
        let at_commit = newest["revision"].as_str().is_some_and(|revision| revision.ends_with(commit));
        let agent = if removed {
            record["phase"] == "Removed"
        } else {
            at_commit && condition(record, "Ready").is_some_and(|ready| ready["status"] == "True")
        };
        agent && record["operation"].is_null() && self.accepted(commit).await
    }

    /// Whether the environment's record says that a commit was accepted, and nothing against it.
    pub(crate) async fn accepted(&self, commit: &str) -> bool {
        let Some(found) = self.see("backstay.dev/v1alpha1/agentenvironments", "development").await else {
            return false;
        };
        let accepted = found["status"]["accepted"].as_object().into_iter().flatten();
        accepted.clone().count() > 0
            && accepted.map(|(_, at)| at).all(|at| at.as_str().is_some_and(|at| at.ends_with(commit)))
            && condition(&found["status"], "Ready").is_some_and(|ready| ready["status"] == "True")
    }

    /// Waits until all stands as it does where nothing went wrong; tells what differs when it never does.
    pub(crate) async fn converge(&self, wanted: &BTreeMap<String, Value>) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let differs = difference(wanted, &self.state().await);
            if differs.is_empty() || begun.elapsed() > PATIENCE {
                return differs;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits for the end of a stage; why not, when it does not come.
    pub(crate) async fn arrive(&self, stage: &str) -> Result<(), String> {
        let commit = &self.story.commits[stage];
        self.comes_to(async || self.arrived(commit, stage == "remove").await).await
    }

    /// Waits until it is so; why not, when it never is.
    pub(crate) async fn comes_to(&self, is: impl AsyncFn() -> bool) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            if is().await {
                return Ok(());
            }
            if let Some(daemon) = &self.daemon
                && let Some(end) = daemon.ended()
            {
                return Err(format!("the daemon ended by itself: {end}"));
            }
            if begun.elapsed() > PATIENCE {
                let record = self.see("backstay.dev/v1alpha1/agentreleases", AGENT).await;
                let record = record.map(|record| record["status"].clone()).unwrap_or_default();
                let environment = self.see("backstay.dev/v1alpha1/agentenvironments", "development").await;
                let environment = environment.map(|found| found["status"].clone()).unwrap_or_default();
                return Err(format!("not at its end after {} s: {record}, {environment}", PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Five more rounds: each looks at Git. Tells of every write in that time, the lease's apart.
    pub(crate) async fn rounds(&mut self) -> Vec<String> {
        // What the end of the stage still tells: Events, the environment's record, status of the controllers.
        self.quiet(Duration::from_secs(1)).await;
        let from = self.proxy.count();
        for _ in 0..5 {
            if let Some(daemon) = &self.daemon {
                daemon.hint();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let log = self.proxy.log();
        let writes = log[from..].iter().filter(|seen| seen.call.writes() && !seen.call.is_lease());
        writes.map(|seen| seen.call.to_string()).collect()
    }

    /// Waits until nothing was written for so long.
    pub(crate) async fn quiet(&mut self, so_long: Duration) {
        const LOOK: Duration = Duration::from_millis(50);
        let mut still = Duration::ZERO;
        for _ in 0..400 {
            let log = self.proxy.log();
            let writes = log.iter().filter(|seen| seen.call.writes() && !seen.call.is_lease()).count();
            still = if writes == self.writes_seen { still + LOOK } else { Duration::ZERO };
            self.writes_seen = writes;
            if still >= so_long {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Everything that stands in the namespace and is ours, with all that differs between two runs masked.
    pub(crate) async fn state(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        let is_known = |id: &str| self.story.commits.values().any(|commit| commit.starts_with(id));
        for collection in [
            "configmaps",
            "services",
            "serviceaccounts",
            "persistentvolumeclaims",
            "apps/v1/deployments",
            "policy/v1/poddisruptionbudgets",
            "autoscaling/v2/horizontalpodautoscalers",
            "networking.k8s.io/v1/networkpolicies",
            "gateway.networking.k8s.io/v1/httproutes",
            "backstay.dev/v1alpha1/agentreleases",
            "backstay.dev/v1alpha1/agentenvironments",
        ] {
            let list = self.lab.ask(Method::GET, &path(&self.namespace, collection), None).await.expect("a list");
            for object in list["items"].as_array().expect("a list") {
                let name = object["metadata"]["name"].as_str().expect("a name");
                if !["kube-root-ca.crt", "default", "backstay-development"].contains(&name) {
                    let object = unnamed(&masked(object, &self.namespace), is_known);
                    all.insert(format!("{collection}/{name}"), object);
                }
            }
        }
        self.comparable(all)
    }

    /// Without what this scene may forget.
    pub(crate) fn comparable(&self, mut state: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
        let records = state.values_mut().filter_map(|object| object.get_mut("status")?.as_object_mut());
        records.filter(|_| self.forgets).for_each(|record| drop(record.remove("rollbacks")));
        state
    }

    /// Lets its pods go: a node has room for so many.
    pub(crate) async fn clear(&self) {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        self.lab.ask(Method::DELETE, &path, None).await.expect("deleted");
    }

    /// What a daemon must not leave behind in its folder.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        leftovers(&self.folder().join(format!("state-{}", self.starts)))
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.crash();
    }
}

/// The path of a collection of a namespace.
pub(crate) fn path(namespace: &str, collection: &str) -> String {
    match collection.rsplit_once('/') {
        None => format!("/api/v1/namespaces/{namespace}/{collection}"),
        Some((version, plural)) => format!("/apis/{version}/namespaces/{namespace}/{plural}"),
    }
}
