//! How fast the host target is, and what it costs: a daemon, keepers and the proxy as people run them.
//!
//! `cargo bench --bench host -- [--case NAME] [--json FILE]`; the case `nginx` needs `nginx` and `wrk` (Debian).
#![expect(clippy::disallowed_methods, reason = "a bench has clocks, files and tasks of its own")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to people")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "cost.rs"]
mod cost;
#[path = "counted.rs"]
#[expect(dead_code, reason = "a host has no requests to count")]
mod counted;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "host/deploys.rs"]
mod deploys;
#[path = "../machine/lab.rs"]
mod lab;
#[expect(dead_code, reason = "the demo asks more than one question")]
#[path = "../../src/cli/verbs/demo/load.rs"]
mod load;
#[path = "host/processes.rs"]
mod processes;
#[path = "host/proxies.rs"]
mod proxies;
#[path = "host/rival.rs"]
mod rival;
#[path = "host/streams.rs"]
mod streams;
#[path = "host/support.rs"]
#[expect(dead_code, reason = "tests of the proxy use more of it")]
#[expect(clippy::unwrap_used, reason = "as in a test, a panic is its failure")]
mod support;
#[path = "table.rs"]
mod table;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser as _;

/// Measures the daemon, the keeper and the proxy on this machine.
#[derive(Debug, clap::Parser)]
struct Options {
    /// Only this case: revert, slow-revert, switch, kill, upgrade, nginx, streams, steady
    #[arg(long)]
    case: Option<String>,
    /// Reverts that are measured
    #[arg(long, default_value_t = 50)]
    reverts: usize,
    /// Switches under load
    #[arg(long, default_value_t = 300)]
    switches: usize,
    /// Kills of the daemon, over a tenth as many deploys
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Agents in steady state
    #[arg(long, default_value_t = 200)]
    agents: usize,
    /// Writes what was measured as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

// === impl Options ===

impl Options {
    /// Whether a case is asked for.
    fn wants(&self, case: &str) -> bool {
        self.case.as_deref().is_none_or(|only| only == case)
    }
}

fn main() {
    let options = Options::parse();
    let mut table = table::Table::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(deployed(&options, &mut table));
    for (case, run) in [
        ("upgrade", proxies::upgrades as fn(&mut table::Table)),
        ("streams", proxies::idle_streams),
        ("nginx", rival::beside_nginx),
    ] {
        if options.wants(case) {
            run(&mut table);
        }
    }
    table.show(options.json.as_deref());
}

/// The cases with a daemon.
async fn deployed(options: &Options, table: &mut table::Table) {
    if options.wants("revert") {
        deploys::reverts("revert, old instances kept", options.reverts, "", 0, 1.0, table).await;
    }
    if options.wants("slow-revert") {
        let none_kept = deploys::KEPT_SHORTLY;
        deploys::reverts("revert, 200 ms to start", options.reverts, none_kept, 200, 2.0, table).await;
    }
    if options.wants("switch") {
        deploys::switches(options.switches, table).await;
    }
    if options.wants("kill") {
        deploys::kills(options.kills, table).await;
    }
    if options.wants("steady") {
        processes::steady(options.agents, table).await;
    }
}

/// A row with nothing but its name.
fn row(case: &str) -> table::Row {
    table::Row { case: case.to_owned(), ..table::Row::default() }
}

/// The value below which that share of all lies.
fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index that is within")]
    let at = ((values.len() as f64 * share).ceil() as usize).clamp(1, last + 1) - 1;
    values[at]
}

/// Milliseconds for people.
fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
