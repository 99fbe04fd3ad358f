//! The daemon as people run it: a repository that is pushed to, servers for it, the program itself, and what its agents say.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::Lab;

/// The environment that every river serves.
pub(crate) const ENVIRONMENT: &str = "development";
/// The program under test.
pub(crate) const BACKSTAY: &str = env!("CARGO_BIN_EXE_backstay");
/// Images of the example repository.
const IMAGES: [&str; 2] = ["registry.example.com/support-agent", "registry.example.com/research-agent"];
/// What the agents may write is read by everybody: pods run under another account.
const READABLE: u32 = 0o755;

/// Looks again and again until something is there; fails after two minutes.
pub(crate) async fn until<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut look: F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "not within 120 s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A bare repository that begins as the example repository, and a clone of it to work in.
pub(crate) struct Repo {
    folder: TempDir,
}

/// A server that Git is read from; ends with the test.
pub(crate) struct Server {
    child: Child,
    /// `host:port`.
    pub(crate) address: String,
    folder: TempDir,
}

/// A namespace of the lab that one environment of a repository flows into.
pub(crate) struct River {
    pub(crate) lab: Lab,
    pub(crate) repo: Repo,
    folder: TempDir,
    pub(crate) source: String,
}

/// A running daemon; killed at the end.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) port: u16,
    pub(crate) config: PathBuf,
    log: PathBuf,
}

/// What a command of `backstay` came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// What one pod answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Said {
    pub(crate) release: String,
    pub(crate) reply: String,
}

/// The program where every account can run it, once for all tests.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PROGRAM.get_or_init(|| {
        let folder = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(READABLE)).tempdir();
        let folder = folder.expect("a temporary folder");
        let path = folder.path().join("backstay");
        std::fs::copy(BACKSTAY, &path).expect("a copy of the program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(READABLE)).expect("a mode");
        name_images(folder.path());
        (folder, path)
    });
    path
}

/// Lets the lab's images have the program in their `PATH`.
fn name_images(bin: &Path) {
    let path = format!("{}:/usr/bin:/bin", bin.display());
    change_images(|images| {
        for image in IMAGES {
            images[image] = json!({"root": "/", "env": {"PATH": path}});
        }
    });
}

/// Lets an image be the program itself, unless the lab runs one that was built.
pub(crate) fn name_image(image: &str) {
    let program = program().display().to_string();
    change_images(|images| {
        if images.get(image).is_none() {
            images[image] = json!({"root": "/", "entrypoint": [program]});
        }
    });
}

/// One change of the lab's images at a time.
fn change_images(change: impl FnOnce(&mut Value)) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().expect("no panic before");
    let lab = PathBuf::from(std::env::var_os("LAB_DIR").expect("LAB_DIR"));
    let file = lab.join("images.json");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|_| "{}".to_owned());
    let mut images: Value = serde_json::from_str(&text).expect("images.json");
    change(&mut images);
    let next = lab.join("images.json.next");
    std::fs::write(&next, images.to_string()).expect("written");
    std::fs::rename(&next, &file).expect("renamed");
}

/// Copies a folder with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

// === impl Repo ===

impl Repo {
    /// The example repository whole, in its first commit.
    pub(crate) fn whole() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let repo = Self { folder };
        repo.git_in(repo.folder.path(), &["init", "-q", "--bare", "-b", "main", "repo.git"]);
        repo.git_in(repo.folder.path(), &["-C", "repo.git", "config", "http.receivepack", "true"]);
        repo.git_in(repo.folder.path(), &["init", "-q", "-b", "main", "work"]);
        let bare = repo.bare().display().to_string();
        repo.git(&["remote", "add", "origin", &bare]);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("example-repo"), &repo.work());
        repo.commit("Begin");
        repo
    }

    /// The agent `support` alone, without its worker: less to wait for.
    pub(crate) fn small() -> Self {
        let repo = Self::whole();
        for gone in ["agents/research", "consent"] {
            std::fs::remove_dir_all(repo.work().join(gone)).expect("removed");
        }
        for environment in ["development", "production"] {
            let file = format!("environments/{environment}/research.yaml");
            std::fs::remove_file(repo.work().join(file)).expect("removed");
        }
        for environment in ["staging", "production"] {
            repo.edit(&format!("environments/{environment}.yaml"), "[support, research]", "[support]");
        }
        repo.edit("environments/production/support.yaml", "workers:\n  indexer: {replicas: 2}\n", "");
        repo.edit("environments/development/support.yaml", "replicas: 1\n", "replicas: 1\nworkers: null\n");
        repo.commit("Keep one agent");
        repo
    }

    /// The bare repository.
    pub(crate) fn bare(&self) -> PathBuf {
        self.folder.path().join("repo.git")
    }

    /// The folder that a server serves.
    pub(crate) fn parent(&self) -> &Path {
        self.folder.path()
    }

    /// Its clone.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Runs `git` in the clone; gives what it printed.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_in(&self.work(), arguments)
    }

    fn git_in(&self, folder: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(folder).env("HOME", self.folder.path()).env("GIT_EDITOR", "true");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Alice Example");
            command.env(format!("GIT_{who}_EMAIL"), "alice@example.com");
        }
        let output = command.output().expect("git runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}: {out}{err}");
        out.trim().to_owned()
    }

    /// Writes a file in the clone.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }

    /// Reads a file of the clone.
    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.work().join(path)).expect("a file")
    }

    /// Replaces the one place in a file where `from` stands.
    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert_eq!(text.matches(from).count(), 1, "`{from}` once in {path}");
        self.write(path, &text.replace(from, to));
    }

    /// Lets the agent greet so from the next commit on.
    pub(crate) fn greet(&self, greeting: &str) {
        let path = "agents/support/prompts/system.md";
        let greet = format!("Greet with \"{greeting}\".");
        let text = self.read(path);
        let lines: Vec<_> =
            text.lines().map(|line| if line.starts_with("Greet with ") { &greet } else { line }).collect();
        self.write(path, &(lines.join("\n") + "\n"));
    }

    /// Commits all that changed and pushes it; gives the commit.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.push()
    }

    /// Changes the greeting, commits and pushes; gives the commit.
    pub(crate) fn commit_greeting(&self, greeting: &str) -> String {
        self.greet(greeting);
        self.commit(&format!("Greet with {greeting}"))
    }

    /// Reverts as `git revert --no-edit` does, and pushes; gives the commit.
    pub(crate) fn revert(&self, arguments: &[&str]) -> String {
        self.git(&[&["revert", "--no-edit"], arguments].concat());
        self.push()
    }

    /// Pushes `main`; gives its commit.
    pub(crate) fn push(&self) -> String {
        self.git(&["push", "-q", "origin", "main"]);
        self.head()
    }

    /// Puts a hook of the bare repository in place: a shell script.
    pub(crate) fn hook(&self, name: &str, script: &str) {
        let path = self.bare().join("hooks").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder for hooks");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a hook");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// The commit of the clone.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }
}

// === impl Server ===

impl Server {
    /// Smart HTTP for the repositories in a folder.
    pub(crate) fn http(root: &Path) -> Self {
        Self::http_at(root, "127.0.0.1:0")
    }

    /// The same, at an address that others than this machine reach.
    pub(crate) fn http_at(root: &Path, listen: &str) -> Self {
        let mut command = Command::new(std::env::var_os("LAB_BIN").expect("LAB_BIN"));
        command.arg("git-http").arg("--root").arg(root).args(["--listen", listen]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a Git server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("its address");
        let address = line.trim().trim_start_matches("http://").to_owned();
        Self { child, address, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// SSH on the loopback, with host and user keys of its own.
    pub(crate) fn ssh() -> Self {
        // Where `sshd` gives up its rights, when it runs as root.
        let _ = std::fs::create_dir_all("/run/sshd");
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["host", "other", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(folder.path().join(name));
            assert!(keygen.status().expect("ssh-keygen runs").success());
        }
        let port = free_port();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n",
            at("host"),
            at("user.pub")
        );
        std::fs::write(at("sshd_config"), config).expect("a configuration");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &at("sshd_config")]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("sshd runs");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut all = String::new();
        while !all.contains("Server listening") {
            assert!(said.read_line(&mut all).expect("what sshd says") > 0, "sshd ended: {all}");
        }
        // Read on, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, address: format!("127.0.0.1:{port}"), folder }
    }

    /// The `[source]` of a repository behind HTTP, looked at that often.
    pub(crate) fn http_source(&self, interval: &str) -> String {
        format!("url = \"http://{}/repo.git\"\ninterval = \"{interval}\"\n", self.address)
    }

    /// The `[source]` of a repository behind SSH, with this key of `host` or `other` pinned.
    pub(crate) fn ssh_source(&self, repo: &Repo, pinned: &str) -> String {
        let at = |name: &str| self.folder.path().join(name);
        let key = std::fs::read_to_string(at(&format!("{pinned}.pub"))).expect("a key");
        let port = self.address.rsplit(':').next().expect("a port");
        std::fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {key}")).expect("known hosts");
        let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        format!(
            "url = \"ssh://{user}@{}{}\"\ninterval = \"1s\"\nssh_key = \"{}\"\nknown_hosts = \"{}\"\n",
            self.address,
            repo.bare().display(),
            at("user").display(),
            at("known_hosts").display()
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl River ===

impl River {
    /// A river in a namespace of its own, read from the repository's folder once a second; no daemon runs yet.
    pub(crate) async fn new(lab: Lab, repo: Repo) -> Self {
        let source = format!("url = \"{}\"\ninterval = \"1s\"\n", repo.bare().display());
        Self::with_source(lab, repo, source).await
    }

    /// The same, read as `[source]` says.
    pub(crate) async fn with_source(lab: Lab, repo: Repo, source: String) -> Self {
        if Lab::HAS_IMAGES {
            program();
        }
        lab.secret(
            "agent-secrets",
            &[("openai-api-key", "sk-test"), ("database-url", "postgres://nobody@localhost/none")],
        )
        .await;
        Self { lab, repo, folder: tempfile::tempdir().expect("a temporary folder"), source }
    }

    /// Where its daemons keep all they write: state, journals, logs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) async fn start(&self) -> Daemon {
        self.start_as("one", "").await
    }

    /// Starts a daemon with a state of its own and more configuration, and waits until it is ready.
    pub(crate) async fn start_as(&self, name: &str, more: &str) -> Daemon {
        let daemon = self.spawn(name, more);
        until("the daemon is ready", async || daemon.get("/readyz").await.filter(|(code, _)| *code == 200)).await;
        daemon
    }

    /// Starts a daemon without waiting for anything.
    pub(crate) fn spawn(&self, name: &str, more: &str) -> Daemon {
        self.spawn_with(name, more, &[])
    }

    /// The same, on a machine of that name.
    pub(crate) fn spawn_on(&self, machine: &str, name: &str, more: &str) -> Daemon {
        self.spawn_with(name, more, &[("HOSTNAME", machine)])
    }

    /// The same, with these variables.
    pub(crate) fn spawn_with(&self, name: &str, more: &str, variables: &[(&str, &str)]) -> Daemon {
        self.spawn_as(Command::new(BACKSTAY), name, more, variables)
    }

    /// The same, started by another program with these arguments, in a group of its own.
    pub(crate) fn spawn_under(&self, name: &str, before: &[String]) -> Daemon {
        let mut command = Command::new(&before[0]);
        command.args(&before[1..]).arg(BACKSTAY).process_group(0);
        self.spawn_as(command, name, "", &[])
    }

    fn spawn_as(&self, mut command: Command, name: &str, more: &str, variables: &[(&str, &str)]) -> Daemon {
        let port = free_port();
        let at = |end: &str| self.folder.path().join(format!("{name}{end}"));
        let config = format!(
            "installation = \"river\"\n{more}\n[source]\n{}\n[[target]]\nenvironment = \"{ENVIRONMENT}\"\n\
             {}\n[http]\nlisten = \"127.0.0.1:{port}\"\n[state]\nfolder = \"{}\"\n\
             [journal]\npath = \"{}\"\n[log]\nlevel = \"info,backstay=debug\"\n",
            self.source,
            self.lab.target(),
            self.lab.state().unwrap_or_else(|| at("")).display(),
            at(".journal").display(),
        );
        std::fs::write(at(".toml"), config).expect("a configuration");
        let log = at(".log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        command.arg("run").arg("--config").arg(at(".toml")).env("HOME", self.folder.path());
        command.envs(variables.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("the daemon");
        Daemon { child, port, config: at(".toml"), log }
    }

    /// The record of an agent.
    pub(crate) async fn record(&self, agent: &str) -> Option<Value> {
        let mut release = self.lab.see("backstay.dev/v1alpha1/agentreleases", agent).await?;
        Some(release["status"].take())
    }

    /// The record of the environment.
    pub(crate) async fn environment(&self) -> Option<Value> {
        let mut record = self.lab.see("backstay.dev/v1alpha1/agentenvironments", ENVIRONMENT).await?;
        Some(record["status"].take())
    }

    /// Waits until a record of `support` is so.
    pub(crate) async fn recorded(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, async || self.record("support").await.filter(|record| is(record))).await
    }

    /// Waits until the newest operation of `support` is that of a commit, has ended, and all is Ready again.
    pub(crate) async fn settled(&self, commit: &str) -> Value {
        self.recorded(&format!("`support` settles at {commit}"), |record| {
            let newest = &record["operations"][0];
            newest["revision"].as_str().is_some_and(|revision| revision.ends_with(commit))
                && record["operation"].is_null()
                && condition(record, "Ready").is_some_and(|ready| ready["status"] == "True")
        })
        .await
    }

    /// What every pod of an agent that stays says.
    pub(crate) async fn ask(&self, agent: &str) -> Vec<Said> {
        self.ask_pods(agent, false).await
    }

    /// What those say that are ready: the ones that have the traffic.
    pub(crate) async fn ask_serving(&self, agent: &str) -> Vec<Said> {
        self.ask_pods(agent, true).await
    }

    async fn ask_pods(&self, agent: &str, only_ready: bool) -> Vec<Said> {
        let pods = self.lab.ask(Method::GET, &self.lab.path("pods"), None).await.expect("the pods");
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build().expect("a client");
        let mut all = vec![];
        for pod in pods["items"].as_array().expect("a list") {
            let labels = &pod["metadata"]["labels"];
            let of_agent = labels["backstay.dev/agent"] == agent && labels["backstay.dev/process"] == "main";
            let (true, None, Some(address)) = (of_agent, pod["metadata"].get("deletionTimestamp"), Lab::address(pod))
            else {
                continue;
            };
            if only_ready && condition(&pod["status"], "Ready").is_none_or(|ready| ready["status"] != "True") {
                continue;
            }
            let body = json!({"message": "a refund, please"});
            // A pod that ends meanwhile answers no more.
            let Ok(answer) = http.post(format!("http://{address}/chat")).json(&body).send().await else { continue };
            let answer: Value = answer.json().await.expect("JSON");
            let text = |key: &str| answer[key].as_str().expect("text").to_owned();
            all.push(Said { release: text("release"), reply: text("reply") });
        }
        all.sort();
        all
    }

    /// Waits until `support` has pods, and every one of them greets so; gives its release.
    pub(crate) async fn greets(&self, greeting: &str) -> String {
        let said = until(&format!("`support` greets with {greeting}"), async || {
            let said = self.ask("support").await;
            (!said.is_empty() && said.iter().all(|said| said.reply.starts_with(greeting))).then_some(said)
        })
        .await;
        said[0].release.clone()
    }

    /// Waits until Kubernetes' own controllers have ended what a roll-out left to do: old pods that still end.
    pub(crate) async fn at_rest(&self) {
        let ending = |object: &Value| {
            let counted = object["status"]["terminatingReplicas"].as_u64().unwrap_or(0) > 0;
            counted || object["metadata"]["deletionTimestamp"].is_string()
        };
        until("no pod is ending", async || {
            for collection in ["pods", "apps/v1/replicasets", "apps/v1/deployments"] {
                let list = self.lab.ask(Method::GET, &self.lab.path(collection), None).await.expect("a list");
                if list["items"].as_array().expect("a list").iter().any(ending) {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// Every object of the namespace that tells whether something was written, by path, with its version.
    pub(crate) async fn versions(&self) -> Vec<String> {
        let mut versions = vec![];
        for collection in [
            "configmaps",
            "services",
            "serviceaccounts",
            "apps/v1/deployments",
            "apps/v1/replicasets",
            "policy/v1/poddisruptionbudgets",
            "networking.k8s.io/v1/networkpolicies",
            "backstay.dev/v1alpha1/agentreleases",
            "backstay.dev/v1alpha1/agentenvironments",
        ] {
            let list = self.lab.ask(Method::GET, &self.lab.path(collection), None).await.expect("a list");
            for object in list["items"].as_array().expect("a list") {
                let metadata = &object["metadata"];
                versions.push(format!("{collection}/{} {}", metadata["name"], metadata["resourceVersion"]));
            }
        }
        versions
    }
}

/// One condition of a record.
pub(crate) fn condition<'a>(record: &'a Value, kind: &str) -> Option<&'a Value> {
    record["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Whether a condition holds and says this.
pub(crate) fn holds(record: &Value, kind: &str, word: &str) -> bool {
    condition(record, kind).is_some_and(|condition| {
        condition["status"] == "True" && condition["message"].as_str().unwrap_or_default().contains(word)
    })
}

// === impl Daemon ===

impl Daemon {
    /// Runs another command of the program with the daemon's configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(BACKSTAY);
        command.args(arguments).arg("--config").arg(&self.config);
        // What it keeps goes with the test.
        command.env("XDG_CACHE_HOME", self.config.with_extension("cache"));
        let output = command.stdin(Stdio::null()).output().expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The same, which must come to 0; gives its data.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran.out
    }

    /// The newest operation of `support`, as `history` shows it.
    pub(crate) fn newest(&self) -> Value {
        let text = self.done(&["history", "support", "-o", "json"]);
        let mut history: Value = serde_json::from_str(&text).expect("JSON");
        history["operations"][0].take()
    }

    /// The status and body of a page; nothing while nobody listens.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = http.get(format!("http://127.0.0.1:{}{path}", self.port)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// A number of its metrics.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or(" 0");
        line.trim().parse().expect("a number")
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it ended with, if it did.
    pub(crate) fn has_ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok()?
    }

    /// Kills it and who started it, where both are in a group of their own.
    pub(crate) fn end_group(mut self) {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status();
        self.child.wait().expect("gone");
    }

    /// Kills it at once, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let skip = log.lines().count().saturating_sub(60);
            let tail: Vec<_> = log.lines().skip(skip).collect();
            let _ = write!(std::io::stderr(), "the daemon said last:\n{}\n", tail.join("\n"));
        }
    }
}
