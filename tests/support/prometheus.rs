//! A real Prometheus, where it is installed.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// The server, ended with this.
pub(crate) struct Prometheus {
    child: Child,
    pub(crate) url: String,
    _folder: tempfile::TempDir,
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts it; once a second it scrapes what is discovered so (`static_configs: […]`, `file_sd_configs: […]`).
    pub(crate) fn start(discovered: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: agents\n  {}\n",
            discovered.replace('\n', "\n  ")
        );
        std::fs::write(at("prometheus.yml"), config).expect("a configuration");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", at("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Self { child, url: format!("http://127.0.0.1:{port}"), _folder: folder }),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "skipped: prometheus is not installed: {error}");
                None
            }
        }
    }

    /// Stops it where it stands, or lets it go on: it takes questions, and answers none.
    pub(crate) fn hang(&self, does: bool) {
        let signal = if does { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "{signal}");
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
