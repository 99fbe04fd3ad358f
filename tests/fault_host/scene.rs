//! One host of one's own with one agent, that goes through four stages: installed, changed, reverted, removed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use backstay::daemon::config::Config;
use backstay::daemon::{Asks, Between, DaemonError, HostError};
use http::Method;
use regex::Regex;
use serde_json::{Value, json};

use crate::daemon::{ENVIRONMENT, Repo, condition};
use crate::inside::{Ahead, Log, Running};
use crate::lab::{Lab, lab_at};
use crate::proxy::{Proxy, Seen};
use crate::standing::{difference, leftovers, masked};

/// What happens, in this order.
pub(crate) const STAGES: [&str; 4] = ["install", "change", "revert", "remove"];
/// Longest time in which a stage must come to its end, whatever went wrong in it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
pub(crate) const AGENT: &str = "support";

const OVERLAY: &str = "environments/development/support.yaml";
/// Half of the traffic for two seconds, and then all of it, watched for two.
const CANARY: &str = "
rollout:
  strategy: {canary: {steps: [{weight: 50, for: 2s}]}}
  analysis: {errors: {preset: error_rate, max: 0.01, compare: stable, margin: 0.02}}
  rollback: {bake: 2s, cooldown: 0s}
";

/// The commits of all scenes, made once.
pub(crate) struct Story {
    repo: Repo,
    /// By stage; `race` comes on top of `change`.
    pub(crate) commits: BTreeMap<&'static str, String>,
}

/// One host on its way.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    /// What the daemon asks goes through this.
    pub(crate) daemon: Proxy,
    /// What its supervisor asks goes through this.
    pub(crate) supervisor: Proxy,
    pub(crate) story: &'static Story,
    /// How long what served is kept for a way back.
    keep: &'static str,
    running: Option<Running>,
    log: Log,
    writes_seen: usize,
    _slot: Slot,
}

/// Ports that no other scene has at the same time.
struct Slot(u16);

static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

// === impl Slot ===

impl Slot {
    fn take() -> Self {
        let mut taken = TAKEN.lock().expect("no panic before");
        let free = (0..100).find(|number| !taken.contains(number)).expect("a number");
        taken.push(free);
        Self(free)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        TAKEN.lock().expect("no panic before").retain(|number| *number != self.0);
    }
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
            let install = repo.commit("One agent");
            let change = repo.commit_greeting("Ahoy!");
            let race = repo.commit_greeting("Moin!");
            repo.git(&["reset", "-q", "--hard", &change]);
            repo.git(&["revert", "--no-edit", "HEAD"]);
            let revert = repo.head();
            repo.git(&["rm", "-r", "-q", "agents/support", "environments/development"]);
            repo.git(&["commit", "-q", "-m", "Let it go"]);
            let remove = repo.head();
            repo.git(&["push", "-q", "-f", "origin", "HEAD:refs/heads/last", &format!("{race}:refs/heads/race")]);
            repo.git(&["checkout", "-q", "-b", "canary", &install]);
            repo.edit(OVERLAY, "progressDeadline: 60s\n", &format!("progressDeadline: 60s{CANARY}"));
            repo.git(&["commit", "-q", "-a", "-m", "Roll out step by step"]);
            let canary = repo.head();
            repo.edit(OVERLAY, "progressDeadline: 60s\n", "progressDeadline: 60s\nconfig: {demo: {failEvery: 2}}\n");
            repo.git(&["commit", "-q", "-a", "-m", "Fail every second question"]);
            let bad = repo.head();
            repo.git(&["push", "-q", "-f", "origin", "canary"]);
            let commits = [
                ("install", install),
                ("change", change),
                ("race", race),
                ("revert", revert),
                ("remove", remove),
                ("canary", canary),
                ("bad", bad),
            ];
            Self { repo, commits: commits.into() }
        })
    }

    fn copy_to(&self, folder: &Path) {
        crate::daemon::copy(&self.repo.bare(), &folder.join("repo.git"));
        self.set(folder, "install");
    }

    /// Moves the branch of a copy, as a push does.
    fn set(&self, folder: &Path, stage: &str) {
        let next = folder.join("next");
        std::fs::write(&next, format!("{}\n", self.commits[stage])).expect("written");
        std::fs::rename(next, folder.join("repo.git/refs/heads/main")).expect("moved");
    }
}

// === impl Scene ===

impl Scene {
    /// A host, where what served is kept that long.
    pub(crate) async fn new(keep: &'static str) -> Self {
        Log::listen();
        let story = Story::get();
        let slot = Slot::take();
        let lab = lab_at("hf", slot.0);
        story.copy_to(&lab.at(""));
        lab.secret(
            "agent-secrets",
            &[("openai-api-key", "sk-test"), ("database-url", "postgres://nobody@localhost/none")],
        )
        .await;
        let nobody = lab.client.clone();
        let (daemon, supervisor) = (Proxy::start(nobody.clone()).await, Proxy::start(nobody).await);
        let (running, log) = (None, Log::default());
        Self { lab, daemon, supervisor, story, keep, running, log, writes_seen: 0, _slot: slot }
    }

    /// Moves the branch as a push does.
    pub(crate) fn push(&self, stage: &str) {
        self.story.set(&self.lab.at(""), stage);
    }

    /// Begins a stage: calls are counted anew.
    pub(crate) fn stage(&self, stage: &'static str) {
        self.daemon.stage(stage);
        self.supervisor.stage(stage);
    }

    fn proxy(&self, asks: Asks) -> &Proxy {
        match asks {
            Asks::Daemon => &self.daemon,
            Asks::Supervisor => &self.supervisor,
        }
    }

    /// Who a case is about.
    pub(crate) fn of(&self, by: &str) -> &Proxy {
        if by == "supervisor" { &self.supervisor } else { &self.daemon }
    }

    fn config(&self) -> Config {
        let at = |name: &str| self.lab.at(name).display().to_string();
        let target =
            self.lab.target().replacen("[target.host]\n", &format!("[target.host]\nkeep_old = \"{}\"\n", self.keep), 1);
        let text = format!(
            "installation = \"fault\"\n[source]\nurl = \"{}\"\ninterval = \"1s\"\n[[target]]\n\
             environment = \"{ENVIRONMENT}\"\nprune = {{ max_percent = 100, max_objects = 50 }}\n{target}\n[http]\n\
             listen = \"127.0.0.1:0\"\n[state]\nfolder = \"{}\"\n[journal]\npath = \"{}\"\n[log]\nlevel = \"info\"\n",
            at("repo.git"),
            at("state"),
            at("journal"),
        );
        Config::parse("backstay.toml", Some(&text), &BTreeMap::new()).expect("a configuration")
    }

    /// Starts a daemon in this process, on what an earlier one left on the host.
    pub(crate) async fn start(&mut self) {
        let clients = [(Asks::Daemon, self.daemon.client()), (Asks::Supervisor, self.supervisor.client())];
        let (reached, reach) = std::sync::mpsc::channel();
        let between = Between::new(move |asks, client| {
            let _ = reached.send((asks, client));
            clients.iter().find(|(who, _)| *who == asks).expect("both").1.clone()
        });
        let begun = Instant::now();
        let running = loop {
            match Running::start(self.config(), &self.log, between.clone(), Ahead::default()).await {
                Ok(running) => break running,
                // The one before is about to be gone.
                Err(DaemonError::Host { source: HostError::Taken { .. }, .. }) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("it does not start: {error:?}"),
            }
        };
        // The last one for each: those before were of a daemon that did not start.
        for (asks, client) in reach.try_iter() {
            self.proxy(asks).reach(Some(client));
        }
        self.running = Some(running);
    }

    /// The last of what the daemons in this process said.
    pub(crate) fn said(&self) -> String {
        self.log.last()
    }

    /// Drops the daemon where it stands: nothing of it runs on.
    pub(crate) async fn crash(&mut self) {
        for proxy in [&self.daemon, &self.supervisor] {
            proxy.reach(None);
        }
        if let Some(running) = self.running.take() {
            running.crash_whole().await;
        }
    }

    /// Stops the daemon as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    async fn see(&self, collection: &str, name: &str) -> Option<Value> {
        Some(self.lab.see(&format!("backstay.dev/v1alpha1/{collection}"), name).await?["status"].take())
    }

    /// Whether a stage has come to its end: the record says so.
    async fn arrived(&self, commit: &str, removed: bool) -> bool {
        let Some(record) = self.see("agentreleases", AGENT).await else { return false };
        let newest = &record["operations"][0];
        let at_commit = newest["revision"].as_str().is_some_and(|revision| revision.ends_with(commit));
        let ready = condition(&record, "Ready").is_some_and(|ready| ready["status"] == "True");
        let agent = if removed { record["phase"] == "Removed" } else { at_commit && ready };
        agent && record["operation"].is_null() && self.accepted(commit).await
    }

    async fn accepted(&self, commit: &str) -> bool {
        let Some(found) = self.see("agentenvironments", ENVIRONMENT).await else { return false };
        let accepted = found["accepted"].as_object().into_iter().flatten();
        accepted.clone().count() > 0
            && accepted.map(|(_, at)| at).all(|at| at.as_str().is_some_and(|at| at.ends_with(commit)))
            && condition(&found, "Ready").is_some_and(|ready| ready["status"] == "True")
    }

    /// Waits for the end of a stage; why not, when it does not come.
    pub(crate) async fn arrive(&self, stage: &str) -> Result<(), String> {
        let begun = Instant::now();
        let commit = &self.story.commits[stage];
        loop {
            if self.arrived(commit, stage == "remove").await {
                return Ok(());
            }
            if let Some(end) = self.running.as_ref().and_then(Running::ended) {
                return Err(format!("the daemon ended by itself: {end}"));
            }
            if begun.elapsed() > PATIENCE {
                let (record, environment) =
                    (self.see("agentreleases", AGENT).await, self.see("agentenvironments", ENVIRONMENT).await);
                return Err(format!("not at its end after {} s: {record:?}, {environment:?}", PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The release that is stable, as answers name it.
    pub(crate) async fn stable(&self) -> Option<String> {
        let record = self.see("agentreleases", AGENT).await?;
        Some(format!("r-{}", record["stable"]["release"].as_str()?.replace("r-", "").get(..12)?))
    }

    /// Waits until a bad candidate was taken back, here and in Git; why not, when that does not come.
    pub(crate) async fn taken_back(&self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let record = self.see("agentreleases", AGENT).await.unwrap_or_default();
            let told = record["quarantine"][0]["git"]["commit"].is_string() && record["differs"].is_null();
            let ready = condition(&record, "Ready").is_some_and(|ready| ready["status"] == "True");
            let alone = self.processes() == json!({"keepers": 1, "agents": 1});
            if told && ready && alone && record["operation"].is_null() {
                return Ok(());
            }
            if let Some(end) = self.running.as_ref().and_then(Running::ended) {
                return Err(format!("the daemon ended by itself: {end}"));
            }
            if begun.elapsed() > PATIENCE {
                let processes = self.processes();
                return Err(format!("not taken back after {} s: {processes}, {record}", PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What Git has on top of a commit: subjects and bodies, the newest first.
    pub(crate) fn on_top_of(&self, stage: &str) -> Vec<String> {
        let range = format!("{}..main", self.story.commits[stage]);
        let bare = self.lab.at("repo.git");
        let mut command = std::process::Command::new("git");
        command.arg("--git-dir").arg(bare).args(["log", "--format=%B%x00", &range]);
        let said = String::from_utf8_lossy(&command.output().expect("git runs").stdout).into_owned();
        said.split('\0').map(|message| message.trim().to_owned()).filter(|message| !message.is_empty()).collect()
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

    /// All calls so far, of both.
    pub(crate) fn calls(&self) -> Vec<Seen> {
        [self.daemon.log(), self.supervisor.log()].concat()
    }

    fn writes(&self) -> Vec<String> {
        let writes = self.calls().into_iter().filter(|seen| seen.call.writes() && !seen.call.is_lease());
        writes.map(|seen| seen.call.to_string()).collect()
    }

    /// Waits until nothing was written for a second.
    async fn quiet(&mut self) {
        let mut still = 0;
        for _ in 0..400 {
            let writes = self.writes().len();
            still = if writes == self.writes_seen { still + 1 } else { 0 };
            self.writes_seen = writes;
            if still >= 20 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Five more rounds: each looks at Git. Tells of every write in that time, the lease's apart.
    pub(crate) async fn rounds(&mut self) -> Vec<String> {
        self.quiet().await;
        let before = [self.daemon.count(), self.supervisor.count()];
        for _ in 0..5 {
            if let Some(running) = &self.running {
                running.hint();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let logs = [self.daemon.log(), self.supervisor.log()];
        let new = logs.iter().zip(before).flat_map(|(log, before)| &log[before..]);
        new.filter(|seen| seen.call.writes() && !seen.call.is_lease()).map(|seen| seen.call.to_string()).collect()
    }

    /// Everything that stands on the host and is ours: objects, files, processes, and what the proxy is told; with all masked
    /// that differs between two runs.
    pub(crate) async fn state(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for collection in [
            "configmaps",
            "pods",
            "services",
            "serviceaccounts",
            "persistentvolumeclaims",
            "apps/v1/deployments",
            "apps/v1/replicasets",
            "policy/v1/poddisruptionbudgets",
            "autoscaling/v2/horizontalpodautoscalers",
            "networking.k8s.io/v1/networkpolicies",
            "gateway.networking.k8s.io/v1/httproutes",
            "backstay.dev/v1alpha1/agentreleases",
            "backstay.dev/v1alpha1/agentenvironments",
        ] {
            let Ok(list) = self.lab.ask(Method::GET, &self.lab.path(collection), None).await else {
                all.insert(format!("{collection} cannot be asked for"), Value::Null);
                continue;
            };
            for object in list["items"].as_array().expect("a list") {
                let name = object["metadata"]["name"].as_str().expect("a name");
                let mut object = masked(object, &self.lab.namespace);
                if let Some(notes) = object["metadata"]["annotations"].as_object_mut() {
                    for note in ["port", "launch", "kept-until"] {
                        notes.remove(&format!("backstay.dev/{note}"));
                    }
                }
                all.insert(self.text(&format!("{collection}/{name}")), self.value(&object));
            }
        }
        for folder in ["instances", "releases", "logs/support", "artifacts"] {
            let mut names = self.names(&format!("state/host/{folder}"));
            names.retain(|name| !name.starts_with("lock"));
            all.insert(format!("files/{folder}"), self.value(&json!(names)));
        }
        all.insert("processes".to_owned(), self.processes());
        all.insert("table".to_owned(), self.table());
        all
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.lab.at(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// How many processes there are that this host's daemon began.
    fn processes(&self) -> Value {
        let (mut keepers, mut agents) = (0, 0);
        let own = self.lab.at("state").display().to_string();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
            let has = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
            let line = read("cmdline");
            if has(&line, "backstay-keeper") && has(&line, &own) {
                keepers += 1;
            } else if has(&line, "example-agent") && has(&read("environ"), &own) {
                agents += 1;
            }
        }
        json!({"keepers": keepers, "agents": agents})
    }

    /// What the proxy is told, without where and when.
    fn table(&self) -> Value {
        let loaded = backstay::proxy::load_table(&self.lab.at("table.json"));
        let table = loaded.map(|loaded| serde_json::to_value(&loaded.table).expect("JSON")).unwrap_or_default();
        let mut said = json!({"routes": table["routes"], "agents": table["agents"]});
        forget(&mut said);
        self.value(&said)
    }

    fn text(&self, text: &str) -> String {
        static PORT: OnceLock<Regex> = OnceLock::new();
        let port = PORT.get_or_init(|| Regex::new(r"127\.0\.0\.1:\d+").expect("a pattern"));
        let text = text.replace(&*self.lab.at("").to_string_lossy(), "HOST/");
        port.replace_all(&text, "127.0.0.1:PORT").into_owned()
    }

    fn value(&self, value: &Value) -> Value {
        serde_json::from_str(&self.text(&value.to_string())).expect("JSON")
    }

    /// Instances that were started more often than they were asked for.
    pub(crate) fn started_again(&self) -> Vec<String> {
        let mut again = vec![];
        for pod in self.names("state/host/logs/support") {
            let folder = format!("state/host/logs/support/{pod}");
            let read = |file: &String| std::fs::read_to_string(self.lab.at(&format!("{folder}/{file}")));
            let text: String = self.names(&folder).iter().flat_map(read).collect();
            let starts = text.matches("\"message\":\"listening\"").count();
            let calls = self.supervisor.log();
            let made =
                |seen: &&Seen| seen.call.verb == "create" && seen.call.resource == "pods" && seen.call.name == pod;
            let asked = calls.iter().filter(made).filter(|seen| seen.code.is_some_and(|code| code < 300)).count();
            if starts > asked {
                again.push(format!("{pod} was made {asked} times, and started {starts} times"));
            }
        }
        again
    }

    /// What a daemon must not leave behind in its folder.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        leftovers(&self.lab.at("state"))
    }
}

/// Takes out what counts launches.
fn forget(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("generation");
            fields.values_mut().for_each(forget);
        }
        Value::Array(items) => items.iter_mut().for_each(forget),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
