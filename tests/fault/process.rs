//! The program itself as a process that is killed and stopped.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::BACKSTAY;
use crate::proxy::Proxy;
use crate::scene::{Scene, configuration};

/// A running daemon; killed at the end.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    port: u16,
}

/// How a daemon is started.
pub(crate) struct Start<'a> {
    /// Names its state, its journal and its log.
    pub(crate) name: &'a str,
    pub(crate) source: String,
    pub(crate) installation: &'a str,
    /// First in a process namespace, as in a container: it has the same name after each start.
    pub(crate) contained: bool,
}

// === impl Process ===

impl Process {
    /// Starts a daemon that reaches the API server through `proxy`.
    pub(crate) fn start(scene: &Scene<'_>, proxy: &Proxy, how: &Start<'_>) -> Self {
        let listen =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let folder = scene.folder();
        let text = configuration(folder, how.name, &scene.namespace, &how.source, proxy.port, listen);
        let text = text.replacen("\"fault\"", &format!("\"{}\"", how.installation), 1);
        let at = |end: &str| folder.join(format!("{}{end}", how.name));
        std::fs::write(at(".toml"), text).expect("a configuration");
        let log = at(".log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let mut command = if how.contained {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--kill-child=KILL"]).arg(BACKSTAY);
            command
        } else {
            Command::new(BACKSTAY)
        };
        command.arg("run").arg("--config").arg(at(".toml")).env("HOME", folder);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("the daemon");
        Self { child, log, port: listen }
    }

    /// `kill -9`; returns when it is gone.
    pub(crate) fn kill(mut self) {
        // In a namespace, it is the child of who made that, and who made it ends when the child is gone.
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        match children.split_whitespace().next() {
            Some(daemon) => drop(Command::new("kill").args(["-KILL", daemon]).status()),
            None => self.child.kill().expect("killed"),
        }
        self.child.wait().expect("gone");
    }

    /// Sends a signal by name, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill runs").success(), "kill -{name}");
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A number of its metrics; 0 where it has none, or does not listen yet.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let Ok(answer) = http.get(format!("http://127.0.0.1:{}/metrics", self.port)).send().await else { return 0.0 };
        let text = answer.text().await.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or(" 0");
        line.trim().parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until it is so; false after the time is over.
pub(crate) async fn within(time: Duration, mut is: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < time {
        if is().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}
