//! The proxy beside nginx, to the same upstream, turn by turn.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstay::proxy::{Address, Agent, Arm, Instance, Protocol, Role, WHOLE};

use crate::daemon::free_port;
use crate::row;
use crate::support::process::{Proxy, release, table as routes};
use crate::table::{Row, Table};

/// Pairs of runs.
const ROUNDS: usize = 5;
/// Of each run.
const SECONDS: u32 = 6;
const CONNECTIONS: u32 = 64;

/// nginx, ended with this.
struct Nginx {
    child: Child,
    port: u16,
}

/// What `wrk` counted.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// Requests per second.
    rate: f64,
    /// 99th percentile, in seconds.
    p99: f64,
    failed: u64,
}

// === impl Nginx ===

impl Nginx {
    /// Starts it with the given `http` section.
    fn start(folder: &Path, name: &str, http: impl FnOnce(u16) -> String) -> Self {
        let port = free_port();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let at = |end: &str| folder.join(format!("{name}{end}")).display().to_string();
        let file = at(".conf");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", at(&format!("-{kind}"))))
            .concat();
        let text = format!(
            "daemon off;\nworker_processes {threads};\npid {};\nerror_log {};\nevents {{ worker_connections 4096; }}\n\
             http {{\naccess_log off;\nkeepalive_requests 100000000;\n{temporary}{}\n}}\n",
            at(".pid"),
            at(".log"),
            http(port),
        );
        fs::write(&file, text).expect("a configuration");
        let mut nginx = Command::new("nginx");
        nginx.args(["-c", &file, "-p"]).arg(folder).stdin(Stdio::null()).stderr(Stdio::null());
        let child = nginx.spawn().expect("nginx is installed");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "nginx does not listen: see {}", at(".log"));
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, port }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

// === impl Counted ===

impl Counted {
    fn of(url: &str) -> Self {
        let (connections, time) = (CONNECTIONS.to_string(), format!("{SECONDS}s"));
        let arguments = ["-t2", "-c", &connections, "-d", &time, "--latency", url];
        let output = Command::new("wrk").args(arguments).output().expect("wrk is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let word = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
        let rate = word("Requests/sec:").and_then(|text| text.parse().ok());
        let p99 = word("99%").and_then(seconds);
        let (Some(rate), Some(p99)) = (rate, p99) else { panic!("wrk said: {text}") };
        let failed = word("Non-2xx or 3xx responses:").and_then(|text| text.parse().ok()).unwrap_or(0);
        let errors = u64::from(text.contains("Socket errors"));
        Self { rate, p99, failed: failed + errors }
    }
}

/// `1.23ms` in seconds.
fn seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    units.iter().find_map(|(unit, of)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * of))
}

/// Runs both, turn by turn, on kept connections with answers of 1 KiB.
pub(crate) fn beside_nginx(table: &mut Table) {
    if Command::new("nginx").arg("-v").output().is_err() || Command::new("wrk").arg("-v").output().is_err() {
        table.note("nginx or wrk is not installed: the proxy was not measured beside nginx".to_owned());
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let body = "x".repeat(1024);
    let upstream = Nginx::start(folder.path(), "upstream", |port| {
        format!("server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{body}'; }} }}")
    });
    let rival = Nginx::start(folder.path(), "rival", |port| {
        format!(
            "upstream agent {{ server 127.0.0.1:{}; keepalive 64; }}\nserver {{ listen 127.0.0.1:{port} backlog=4096; \
             location / {{ proxy_pass http://agent; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}",
            upstream.port
        )
    });
    let instance = Instance {
        id: "upstream-0".to_owned(),
        generation: 1,
        address: Address::Tcp(([127, 0, 0, 1], upstream.port).into()),
        protocol: Protocol::default(),
    };
    let arm = Arm { release: release("one"), role: Role::Stable, weight: WHOLE, instances: vec![instance] };
    let proxy = Proxy::start(&routes(1, Agent { arms: vec![arm], ..Agent::default() }));
    let (ours, theirs) = (format!("http://{}/", proxy.address), format!("http://127.0.0.1:{}/", rival.port));
    let (mut own, mut other) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        own.push(Counted::of(&ours));
        other.push(Counted::of(&theirs));
    }
    let alone = Counted::of(&format!("http://127.0.0.1:{}/", upstream.port));
    let (rate, rate_of_nginx) = (median(&own, |run| run.rate), median(&other, |run| run.rate));
    let (p99, p99_of_nginx) = (median(&own, |run| run.p99), median(&other, |run| run.p99));
    let failed: u64 = own.iter().map(|run| run.failed).sum();
    table.note(format!("the upstream alone: {:.0} requests a second", alone.rate));
    table.add(Row {
        measured: format!("{rate:.0} requests a second beside {rate_of_nginx:.0}; {failed} failed"),
        value: rate,
        limit: "0.7 of nginx".to_owned(),
        ratio: Some(rate / rate_of_nginx),
        reached: rate >= 0.7 * rate_of_nginx && failed == 0,
        ..row("proxy beside nginx, 64 connections")
    });
    table.add(Row {
        measured: format!("p99 {:.2} ms beside {:.2} ms", p99 * 1e3, p99_of_nginx * 1e3),
        value: p99,
        limit: "1.5 of nginx".to_owned(),
        ratio: Some(p99 / p99_of_nginx),
        reached: p99 <= 1.5 * p99_of_nginx,
        ..row("proxy beside nginx, latency")
    });
}

fn median(runs: &[Counted], of: impl Fn(&Counted) -> f64) -> f64 {
    let mut all: Vec<_> = runs.iter().map(of).collect();
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}
