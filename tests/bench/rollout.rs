//! How fast a rollout goes back, whom it fails, and what many of them cost: a daemon, keepers and the proxy as people run them.
//!
//! `cargo bench --bench rollout -- [--case NAME] [--json FILE]`; a Git server over SSH needs `sshd` (Debian: openssh-server).
#![expect(clippy::disallowed_methods, reason = "a bench has clocks, files and tasks of its own")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to people")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "rollout/aborts.rs"]
mod aborts;
#[path = "../judge/bench.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "tests of the judge use more of it, and it is theirs")]
mod bench;
#[path = "rollout/canaries.rs"]
mod canaries;
#[path = "cost.rs"]
mod cost;
#[path = "counted.rs"]
#[expect(dead_code, reason = "a host has no requests to count")]
mod counted;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../machine/lab.rs"]
mod lab;
#[path = "rollout/many.rs"]
mod many;
#[path = "../support/rollouts.rs"]
mod rollouts;
#[path = "rollout/site.rs"]
mod site;
#[path = "../judge/speed.rs"]
#[expect(clippy::unwrap_used, reason = "as in a test, a panic is its failure")]
mod speed;
#[path = "table.rs"]
mod table;
#[path = "../support/users.rs"]
mod users;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser as _;

/// Decisions of the judge that are measured.
const DECISIONS: i64 = 5_000;

/// Measures rollouts on this machine.
#[derive(Debug, clap::Parser)]
struct Options {
    /// Only this case: abort, flat-out-slow, flat-out-fast, canaries, judge, many
    #[arg(long)]
    case: Option<String>,
    /// Candidates that are taken back under load: fewer than 60, the most within an hour
    #[arg(long, default_value_t = 50)]
    aborts: usize,
    /// Candidates that fail flat out, at each rate
    #[arg(long, default_value_t = 20)]
    flat_out: usize,
    /// Canaries of which every fifth fails
    #[arg(long, default_value_t = 100)]
    canaries: usize,
    /// Rollouts at once
    #[arg(long, default_value_t = 1000)]
    rollouts: usize,
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
    if options.wants("judge") {
        judge(&mut table);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(on_a_host(&options, &mut table));
    table.show(options.json.as_deref());
}

/// The cases with a host.
async fn on_a_host(options: &Options, table: &mut table::Table) {
    if options.wants("abort") {
        aborts::under_load(options.aborts, table).await;
    }
    if options.wants("flat-out-slow") {
        aborts::flat_out(options.flat_out, 10, Duration::from_secs(10), table).await;
    }
    if options.wants("flat-out-fast") {
        aborts::flat_out(options.flat_out, 200, Duration::from_secs(3), table).await;
    }
    if options.wants("canaries") {
        canaries::nobody_fails(options.canaries, table).await;
    }
    if options.wants("many") {
        many::at_once(options.rollouts, table).await;
    }
}

/// One decision of the judge.
fn judge(table: &mut table::Table) {
    let (took, saved) = speed::decisions(DECISIONS);
    let mut took: Vec<_> = took.into_iter().map(Duration::from_nanos).collect();
    let (n, p50, p99) = (took.len(), quantile(&mut took, 0.5), quantile(&mut took, 0.99));
    let us = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    table.add(table::Row {
        measured: format!("p50 {}, p99 {}; {saved} bytes are kept", us(p50), us(p99)),
        value: p99.as_secs_f64(),
        limit: "p99 1 ms".to_owned(),
        n: Some(n),
        ratio: Some(p99.as_secs_f64() / 1e-3),
        reached: p99 <= Duration::from_millis(1),
        ..row("judge: 8 metrics, 10,000 measurements each")
    });
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
