//! A host of one's own in a temporary folder: its proxy runs, its daemon is the test's.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use backstay::keeper::client::Client;
use serde_json::Value;
use tempfile::TempDir;

#[path = "../support/objects.rs"]
mod objects;

pub(crate) use objects::Objects;

/// Ports for the agents of each test.
const PORTS: u16 = 40;

/// A host; everything that runs on it ends with this.
pub(crate) struct Lab {
    objects: Objects,
    folder: TempDir,
    proxy: Child,
    pub(crate) ports: (u16, u16),
    /// The program of keepers.
    pub(crate) keeper: PathBuf,
    /// More that a daemon's configuration says of this host.
    pub(crate) more: String,
    /// Where the proxy listens.
    pub(crate) front: String,
}

/// A host for a test. `name` is what it is called among others.
#[allow(clippy::unused_async, reason = "called as the cluster's is")]
pub(crate) async fn lab(name: &str) -> Lab {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    lab_at(name, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A host at the ports of that number; no other one has them at the same time.
pub(crate) fn lab_at(name: &str, number: u16) -> Lab {
    let folder = tempfile::Builder::new().prefix(name).tempdir().expect("a folder");
    let first = 20_000 + (u16::try_from(std::process::id() % 60).expect("small") * 160) % 9_000 + number * PORTS;
    let client = backstay::host::client(&state(folder.path()).join("host/api.sock"));
    let front = format!("127.0.0.1:{first}");
    let objects = Objects { client, namespace: crate::daemon::ENVIRONMENT.to_owned() };
    let proxy_config = folder.path().join("proxy.toml");
    std::fs::write(&proxy_config, proxy_section(folder.path(), &front)).expect("a configuration");
    let proxy = proxy(folder.path());
    let keeper = PathBuf::from(env!("CARGO_BIN_EXE_backstay-keeper"));
    Lab { objects, folder, proxy, ports: (first + 1, first + PORTS - 1), keeper, more: String::new(), front }
}

/// Starts the proxy of a host.
fn proxy(folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("proxy.log"));
    let mut command = Command::new(crate::daemon::BACKSTAY);
    command.arg("proxy").arg("--config").arg(folder.join("proxy.toml")).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(log.expect("a log")).spawn().expect("the proxy")
}

fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}

fn proxy_section(folder: &Path, front: &str) -> String {
    format!(
        "[proxy]\nlisten = [\"{front}\"]\ntable = \"{}\"\ncontrol = \"{}\"\n",
        folder.join("table.json").display(),
        folder.join("proxy.sock").display(),
    )
}

// === impl Lab ===

impl Lab {
    /// Whether agents run in images.
    pub(crate) const HAS_IMAGES: bool = false;

    /// A path in the host's folder.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Kills the proxy at once, as `kill -9` does.
    pub(crate) fn kill_proxy(&mut self) {
        self.proxy.kill().expect("killed");
        self.proxy.wait().expect("gone");
    }

    /// The proxy's process.
    pub(crate) fn proxy_id(&self) -> u32 {
        self.proxy.id()
    }

    /// Starts the proxy again.
    pub(crate) fn start_proxy(&mut self) {
        self.proxy = proxy(self.folder.path());
    }

    /// What a daemon's configuration says of this place, within its `[[target]]`.
    pub(crate) fn target(&self) -> String {
        format!(
            "[target.host]\nsecrets = \"{}\"\nartifacts = \"{}\"\nports = \"{}-{}\"\nkeeper = \"{}\"\n{}\
             [target.host.interpreters]\nbackstay = \"{}\"\nsh = \"/bin/sh\"\n{}",
            self.at("secrets").display(),
            self.at("artifacts").display(),
            self.ports.0,
            self.ports.1,
            self.keeper.display(),
            self.more,
            crate::daemon::BACKSTAY,
            proxy_section(self.folder.path(), &self.front),
        )
    }

    /// Where every daemon of this place keeps its state: whoever serves a host takes it over.
    #[expect(clippy::unnecessary_wraps, reason = "called as the cluster's is")]
    pub(crate) fn state(&self) -> Option<PathBuf> {
        Some(state(self.folder.path()))
    }

    /// Where a Pod answers; none for one that is only kept for the way back.
    pub(crate) fn address(pod: &Value) -> Option<String> {
        if pod["metadata"]["annotations"]["backstay.dev/retired"].is_string() {
            return None;
        }
        Some(format!("127.0.0.1:{}", pod["metadata"]["annotations"]["backstay.dev/port"].as_str()?))
    }

    /// Makes a secret.
    #[expect(clippy::unused_async, reason = "called as the cluster's is")]
    pub(crate) async fn secret(&self, name: &str, values: &[(&str, &str)]) {
        let folder = self.folder.path().join("secrets").join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (key, value) in values {
            std::fs::write(folder.join(key), value).expect("a secret");
        }
    }

    /// What the proxy answers to a request for an agent; nothing while it does not listen.
    pub(crate) async fn knock(&self, agent: &str, path: &str) -> Option<u16> {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = http.get(format!("http://{}{path}", self.front)).header("host", format!("{agent}.localhost"));
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// The folders of all instances.
    pub(crate) fn instances(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(state(self.folder.path()).join("host/instances"));
        entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
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
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
        for folder in self.instances() {
            if let Ok(mut keeper) = Client::connect(&folder, Some(u64::MAX)) {
                let _ = keeper.stop(Some(Duration::from_millis(100)), Duration::from_secs(10));
            }
        }
    }
}
