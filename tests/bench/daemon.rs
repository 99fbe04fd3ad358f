//! The daemon under test: the real program, what it costs, and how far it is.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::cost::{Cost, cost};
use super::workload::{ENVIRONMENT, INSTALLATION};

const BACKSTAY: &str = env!("CARGO_BIN_EXE_backstay");
/// The secret of the webhook.
const SECRET: &str = "for the bench alone";

/// A Git server over HTTP for the repositories of a folder; ends with this.
pub(crate) struct GitServer {
    child: Child,
    address: String,
}

/// Where a daemon runs: its folder, configuration, and the namespace that it serves.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    port: u16,
    counted: std::cell::Cell<(u64, usize)>,
}

/// A running daemon; killed at the end.
pub(crate) struct Daemon {
    child: Child,
    port: u16,
    started: Instant,
}

// === impl GitServer ===

impl GitServer {
    pub(crate) fn of(root: &Path) -> Self {
        let mut command = Command::new(std::env::var_os("LAB_BIN").expect("LAB_BIN"));
        command.arg("git-http").arg("--root").arg(root).args(["--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a Git server");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("its address");
        Self { child, address: line.trim().trim_start_matches("http://").to_owned() }
    }

    /// The URL of the repository.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/repo.git", self.address)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Place ===

impl Place {
    /// A place for daemons that follow `url` into `namespace`.
    pub(crate) fn new(url: &str, namespace: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "installation = \"{INSTALLATION}\"\n[source]\nurl = \"{url}\"\n[[target]]\nenvironment = \"{ENVIRONMENT}\"\n\
             kubernetes = {{ namespace = \"{namespace}\" }}\n[webhooks.generic]\nsecret_file = \"{}\"\n[http]\n\
             listen = \"127.0.0.1:{port}\"\n[state]\nfolder = \"{}\"\n[journal]\npath = \"{}\"\n",
            at("secret"),
            at("state"),
            at("journal"),
        );
        std::fs::write(folder.path().join("secret"), SECRET).expect("a secret");
        std::fs::write(folder.path().join("backstay.toml"), config).expect("a configuration");
        Self { folder, port, counted: std::cell::Cell::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spawn(&self, arguments: &[&str]) -> Daemon {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.at("log")).expect("a log");
        let mut command = Command::new(BACKSTAY);
        command
            .arg("run")
            .args(arguments)
            .arg("--config")
            .arg(self.at("backstay.toml"))
            .env("HOME", self.folder.path());
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("the daemon");
        Daemon { child, port: self.port, started }
    }

    /// Starts a daemon and waits until it is ready to follow.
    pub(crate) async fn start(&self) -> Daemon {
        let mut daemon = self.spawn(&[]);
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        until("the daemon is ready", Duration::from_mins(2), async || {
            let ended = daemon.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
        daemon
    }

    /// Lets a daemon converge and end; gives how long it took, how it ended and what it cost.
    pub(crate) async fn once(&self) -> (Duration, ExitStatus, Cost) {
        let mut daemon = self.spawn(&["--once"]);
        let mut cost = Cost::default();
        let end = until("the daemon ends", Duration::from_mins(5), async || {
            cost = daemon.cost().unwrap_or(cost);
            daemon.child.try_wait().expect("a child")
        })
        .await;
        (daemon.started.elapsed(), end, cost)
    }

    /// Operations that ended, as the journal has them.
    fn ended(&self) -> usize {
        let (from, mut count) = self.counted.get();
        let Ok(mut journal) = std::fs::File::open(self.at("journal")) else { return 0 };
        let mut text = String::new();
        journal.seek(SeekFrom::Start(from)).expect("a place in the journal");
        journal.read_to_string(&mut text).expect("the journal");
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        count += text[..whole].matches("\"event\":\"ended\"").count();
        self.counted.set((from + whole as u64, count));
        count
    }

    /// Waits until so many operations have ended since the place was made.
    pub(crate) async fn until_ended(&self, operations: usize, longest: Duration) {
        let what = format!("{operations} operations have ended (see {})", self.at("log").display());
        until(&what, longest, async || (self.ended() >= operations).then_some(())).await;
    }

    /// What the daemon said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }
}

// === impl Daemon ===

impl Daemon {
    /// What it has cost since it began; nothing once it has ended.
    pub(crate) fn cost(&self) -> Option<Cost> {
        cost(self.child.id())
    }

    /// Forgets the peak of its memory.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("a process of ours");
    }

    /// Says by a signed webhook that something was pushed; gives when it was sent.
    pub(crate) async fn hint(&self, http: &reqwest::Client) -> Instant {
        use hmac::{KeyInit as _, Mac as _};
        let body = "{\"ref\": \"refs/heads/main\"}";
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
        mac.update(body.as_bytes());
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let request = http.post(format!("http://127.0.0.1:{}/hooks/generic", self.port)).body(body);
        let sent = Instant::now();
        let answer = request.header("x-backstay-signature", format!("sha256={hex}")).send().await.expect("an answer");
        assert!(answer.status().is_success(), "the hint was not taken: {}", answer.status());
        sent
    }

    /// Ends it as an upgrade does: its lease is given back.
    pub(crate) async fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().expect("kill runs").success());
        until("the daemon stops", Duration::from_mins(1), async || self.child.try_wait().expect("a child")).await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again until something is there.
pub(crate) async fn until<T, F: AsyncFnMut() -> Option<T>>(what: &str, longest: Duration, mut look: F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < longest, "not within {longest:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
