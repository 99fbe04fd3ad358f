//! How fast it is, on a real API server, against a limit that is measured in the same run.
//!
//! `tests/lab/with cargo bench --locked --offline --bench river -- [--agents N] [--large N] [--case NAME] [--json FILE]`
//! `cargo bench --bench river -- --workload DIR` writes the same agents as plain manifests, for another tool.
#![expect(clippy::disallowed_methods, reason = "a bench has clocks, files and tasks of its own")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to people")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "cases.rs"]
mod cases;
#[path = "cost.rs"]
mod cost;
#[path = "counted.rs"]
mod counted;
#[path = "daemon.rs"]
mod daemon;
#[path = "../support/lab.rs"]
mod lab;
#[path = "latency.rs"]
mod latency;
#[path = "limit.rs"]
mod limit;
#[path = "requests.rs"]
mod requests;
#[path = "table.rs"]
mod table;
#[path = "workload.rs"]
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser as _;

/// Measures the daemon against a bare client on the same API server.
#[derive(Debug, clap::Parser)]
struct Options {
    /// Agents that are installed, changed and reverted
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// Agents of the large repository; default: ten times as many
    #[arg(long)]
    large: Option<usize>,
    /// Only this case: install, change, revert, start, idle, drift, memory, commit
    #[arg(long)]
    case: Option<String>,
    /// How long nothing changes in the case `idle`, in seconds
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Drifts, and one-line commits, that are measured
    #[arg(long, default_value_t = 100)]
    samples: usize,
    /// Writes the agents as plain manifests into a folder, and ends
    #[arg(long)]
    workload: Option<PathBuf>,
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

    fn wants_any(&self, cases: &[&str]) -> bool {
        cases.iter().any(|case| self.wants(case))
    }
}

fn main() {
    let options = Options::parse();
    if let Some(folder) = &options.workload {
        workload::write_plain(options.agents, folder).expect("the folder can be written");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let Some(table) = runtime.block_on(run(&options)) else { return };
    table.show(options.json.as_deref());
    // Namespaces go with the lab: deleting thousands of objects one by one would take longer than all of this.
    std::process::exit(0);
}

/// Runs all cases that are asked for; nothing where there is no lab.
async fn run(options: &Options) -> Option<table::Table> {
    let mut table = table::Table::default();
    if options.wants_any(&["install", "change", "revert", "start", "idle", "drift", "memory"]) {
        let lab = lab::lab("bench").await?;
        cases::small(options, &lab, &mut table).await;
        std::mem::forget(lab);
    }
    if options.wants_any(&["commit", "memory"]) {
        let lab = lab::lab("bench-large").await?;
        cases::large(options, &lab, &mut table).await;
        std::mem::forget(lab);
    }
    Some(table)
}

/// A long time for that many agents: what takes longer has failed.
fn longest(agents: usize) -> Duration {
    Duration::from_secs(60 + agents as u64 / 20)
}
