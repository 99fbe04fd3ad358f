//! The cases, the same for every target.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser as _;
use jiff::Timestamp;
use serde_json::Value;

use crate::daemon::River;
use crate::place::{BACK, site};
use crate::rollouts::{self, OVERLAY, stable};
use crate::table::{Row, Table};
use crate::users::{Got, Users};

/// Half of the traffic for a second, then all of it, watched for one; as many goings back as there are.
const HALF: &str = "
rollout:
  strategy: {canary: {steps: [{weight: 50, for: 1s}]}}
  analysis: {errors: {preset: error_rate, max: 0.05, compare: stable, margin: 0.05}}
  rollback: {bake: 1s, cooldown: 0s, maxPerHour: 60}
";
/// The default step, for a candidate that fails every question.
const FEW: &str = "
rollout:
  strategy: {canary: {steps: [{weight: 5, for: 1m}]}}
  rollback: {bake: 1s, cooldown: 0s, maxPerHour: 60}
";
/// What the environment's overlay has in every case.
const PLACE: &str = "progressDeadline: 60s\n";

/// Measures rollouts.
#[derive(Debug, clap::Parser)]
struct Options {
    /// Only this case: abort, flat-out, canaries, and in the lab at-once
    #[arg(long)]
    case: Option<String>,
    /// Aborts that are measured
    #[arg(long, default_value_t = 20)]
    aborts: u32,
    /// Candidates that fail flat out, at each rate
    #[arg(long, default_value_t = 5)]
    failures: u32,
    /// Canaries under load; every fifth of them is bad
    #[arg(long, default_value_t = 100)]
    canaries: u32,
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

/// Runs the cases that are asked for; `at_once` is that of many rollouts, where there is one.
pub(crate) fn main(at_once: impl AsyncFnOnce(usize, &mut Table)) {
    let options = Options::parse();
    let wants = |case: &str| options.case.as_deref().is_none_or(|only| only == case);
    let mut table = Table::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if wants("abort") {
            aborts(options.aborts, &mut table).await;
        }
        if wants("flat-out") {
            flat_out(10, options.failures, 10.0, &mut table).await;
            flat_out(200, options.failures, 3.0, &mut table).await;
        }
        if wants("canaries") {
            canaries(options.canaries, &mut table).await;
        }
        if wants("at-once") {
            at_once(options.rollouts, &mut table).await;
        }
    });
    let build = if cfg!(debug_assertions) { "without optimisation" } else { "optimised" };
    table.note(format!("built {build}; the last question is that which was sent last"));
    table.show(options.json.as_deref());
}

/// Pushes a candidate that fails one question of `every`, and waits until Git has been told of its end; gives what is
/// recorded of it.
async fn fails(river: &River, every: u32, n: u32) -> Value {
    river.repo.git(&["pull", "-q", "--rebase", "origin", "main"]);
    river.repo.edit(OVERLAY, PLACE, &format!("{PLACE}config: {{demo: {{failEvery: {every}}}, number: {n}}}\n"));
    let commit = river.repo.commit(&format!("Fail, for the {n}. time"));
    let told = |record: &Value| {
        let newest = &record["operations"][0];
        let of_commit = newest["revision"].as_str().is_some_and(|revision| revision.ends_with(&commit));
        of_commit && record["operation"].is_null() && record["quarantine"][0]["git"]["commit"].is_string()
    };
    river.recorded("Git is told", told).await
}

/// When the newest going back was decided.
fn decided(record: &Value) -> Timestamp {
    let last = record["rollbacks"].as_array().and_then(|times| times.last()).and_then(Value::as_str);
    last.expect("a time").parse().expect("a time")
}

/// When the branch of the repository was moved last.
fn moved(river: &River) -> Timestamp {
    let branch = river.repo.bare().join("refs/heads/main");
    let moved = branch.metadata().and_then(|of| of.modified()).expect("a branch");
    moved.try_into().expect("a time")
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// The middle and the 99th percentile.
fn quantiles(values: &mut [f64]) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let last = values.len() as f64 - 1.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index that is within")]
        let index = (last * share).ceil() as usize;
        values[index]
    };
    (at(0.5), at(0.99))
}

fn row(case: String, mut values: Vec<f64>, limit: f64, table: &mut Table) {
    let (middle, high) = quantiles(&mut values);
    let measured = format!("p50 {:.0} ms, p99 {:.0} ms of {}", middle * 1e3, high * 1e3, values.len());
    let limit_text = format!("p99 {:.0} ms", limit * 1e3);
    table.add(Row { case, measured, value: high, limit: limit_text, reached: high <= limit, ..Row::default() });
}

/// From the verdict to the last question that the candidate was given, and to the commit on the server.
async fn aborts(times: u32, table: &mut Table) {
    let (river, _daemon, front) = site("bench-abort", HALF).await;
    let good = stable(&river.record("support").await.expect("a record"));
    let (mut back, mut told, mut failed) = (vec![], vec![], 0);
    for n in 0..times {
        let users = Users::start(&front);
        let record = fails(&river, 2, n).await;
        let bad = rollouts::short(&record["quarantine"][0]["release"]);
        let got = users.end().await;
        let last = got.get(&bad).and_then(|got| got.last).expect("the candidate was asked");
        back.push(seconds(decided(&record), last).max(0.0));
        told.push(seconds(decided(&record), moved(&river)));
        failed += got.get(&good).map_or(0, |got| got.failed) + got.get("nobody").map_or(0, |got| got.failed);
    }
    row("verdict to the last question of the candidate".to_owned(), back, BACK, table);
    row("verdict to the revert commit on the server".to_owned(), told, 2.0, table);
    none_failed(format!("{times} aborts under load"), failed, 0, table);
}

/// A candidate that fails every question, at so many questions a second, of which it gets 5 %.
async fn flat_out(per_second: u32, times: u32, limit: f64, table: &mut Table) {
    let (river, _daemon, front) = site(&format!("bench-flat-{per_second}"), FEW).await;
    let mut took = vec![];
    for n in 0..times {
        let users = Users::every(&front, per_second);
        let record = fails(&river, 1, n).await;
        let bad = rollouts::short(&record["quarantine"][0]["release"]);
        let got = users.end().await;
        let Some(Got { first: Some(first), last: Some(last), .. }) = got.get(&bad) else { panic!("{got:?}") };
        took.push(seconds(*first, *last));
    }
    row(format!("fails flat out, 5 % of {per_second}/s: first to last question"), took, limit, table);
}

/// One canary after another, every fifth of them bad, and nobody on stable is failed.
async fn canaries(times: u32, table: &mut Table) {
    let (river, daemon, front) = site("bench-many", HALF).await;
    let mut good = vec![stable(&river.record("support").await.expect("a record"))];
    let users = Users::start(&front);
    let mut aborted = 0;
    for n in 0..times {
        if n % 5 == 4 {
            fails(&river, 2, n).await;
            aborted += 1;
            continue;
        }
        river.repo.git(&["pull", "-q", "--rebase", "origin", "main"]);
        river.repo.commit_greeting(&format!("Hello {n}!"));
        let before = good.last().expect("one").clone();
        good.push(stable(&rollouts::promoted(&river, &before).await));
    }
    let got = users.end().await;
    let asked: u64 = got.values().map(|got| got.answered + got.failed).sum();
    let of_stable: u64 = good.iter().filter_map(|release| Some(got.get(release)?.failed)).sum();
    let failed = of_stable + got.get("nobody").map_or(0, |got| got.failed);
    good.iter().map(String::as_str).chain(["nobody"]).filter_map(|release| got.get(release)).for_each(|got| {
        got.why.iter().for_each(|why| table.note(format!("failed at {why}")));
        blame(&daemon.log(), &got.when).into_iter().for_each(|line| table.note(line));
    });
    none_failed(format!("{times} canaries, {aborted} of them aborted"), failed, asked, table);
}

/// After which words of the daemon's somebody was failed, and how long after: one line for each of the words.
fn blame(log: &str, failures: &[Timestamp]) -> Vec<String> {
    let said = |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let at: Timestamp = line["timestamp"].as_str()?.parse().ok()?;
        (line["level"] != "DEBUG").then(|| (at, line["message"].to_string()))
    };
    let said: Vec<_> = log.lines().filter_map(said).collect();
    let mut after: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for &failure in failures {
        let Some((at, words)) = said.iter().rev().find(|(at, _)| *at <= failure) else { continue };
        // Releases and commits differ; what happened is the same.
        let same = words.split(' ').filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit()));
        after.entry(same.collect::<Vec<_>>().join(" ")).or_default().push(seconds(*at, failure));
    }
    let line = |(words, mut times): (String, Vec<f64>)| {
        let (middle, high) = quantiles(&mut times);
        let (from, count) = (times[0], times.len());
        format!("{count} failed {from:.3} to {high:.3} s (middle {middle:.3}) after {words}")
    };
    after.into_iter().map(line).collect()
}

fn none_failed(case: String, failed: u64, asked: u64, table: &mut Table) {
    let measured = if asked > 0 { format!("{failed} of {asked} failed") } else { format!("{failed} failed") };
    let limit = "0 of users on stable".to_owned();
    table.add(Row { case, measured, value: failed as f64, limit, reached: failed == 0, ..Row::default() });
}
