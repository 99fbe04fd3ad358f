//! Thousands of rounds of one daemon: what it holds does not grow.

use std::collections::BTreeMap;
use std::process::Command;

use jiff::SignedDuration;
use serde_json::json;

use super::git::{desired, extra, name};
use super::scenarios::request;
use super::world::World;
use backstay::record::RetryRequest;

const ROUNDS: usize = 1080;
/// Rounds between two looks.
const LOOK: usize = 24;
/// Set in the process that does the rounds: what others allocate meanwhile is not counted.
const ALONE: &str = "STORY_SOAK";
const AGENTS: [&str; 3] = ["helpdesk", "support", "zoo"];

/// Commits, drift, failures, lost objects and bad files in turn; the daemon is never started again.
fn round(world: &mut World, round: usize) {
    let who = AGENTS[round % AGENTS.len()];
    let prompt = format!("prompt {round}");
    let asked = desired(&name(who), &prompt, |_, settings| {
        settings.manifests = (round % 5 < 3).then(|| extra(&format!("{who}-{}", round % 4))).into_iter().collect();
    });
    match round % 12 {
        3 => world.edit("Deployment", who, |body| body["spec"]["replicas"] = json!(7)),
        5 => world.delete("Service", who),
        7 => {
            world.cluster.sick.insert(asked.release.id.short(), "CrashLoopBackOff");
            world.commit(asked);
            world.converge();
            world.wake(world.now + SignedDuration::from_mins(11));
        }
        8 => world.git.is_bad(&name(who)),
        9 => {
            let request = request(&format!("r{round}"));
            world.requests_of(&name(who)).retry = Some(RetryRequest { request, release: None });
        }
        10 => world.wake(world.now + SignedDuration::from_hours(2)),
        _ => world.commit(asked),
    }
    world.converge();
    if round.is_multiple_of(12) {
        world.cluster.sick.clear();
    }
    world.forget_the_past();
}

fn soak() {
    let mut world = World::new();
    for who in AGENTS {
        world.commit(desired(&name(who), "hello", |_, _| {}));
    }
    world.converge();
    for n in 0..ROUNDS {
        round(&mut world, n);
        if n % LOOK == LOOK - 1 {
            let records = world.ledger.values().filter_map(|entry| entry.record.as_ref());
            let records: usize = records.map(|record| serde_json::to_string(record).expect("JSON").len()).sum();
            println!("look {} {} {records} {}", resident(), world.held(), world.cluster.objects.len());
        }
    }
    assert_eq!(world.oracle.violations, []);
}

/// Bytes of memory of this process.
#[expect(clippy::disallowed_methods, reason = "a test: it looks at its own process")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// By how much the values grow from look to look, by least squares.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn slope(values: &[usize]) -> f64 {
    let n = values.len() as f64;
    let (x, y) = ((n - 1.0) / 2.0, values.iter().sum::<usize>() as f64 / n);
    let at = |(at, value): (usize, &usize)| (at as f64 - x, *value as f64 - y);
    let (both, square) =
        values.iter().enumerate().map(at).fold((0.0, 0.0), |(both, square), (x, y)| (both + x * y, square + x * x));
    both / square
}

// R2
#[test]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn thousands_of_rounds_grow_nothing() {
    if std::env::var_os(ALONE).is_some() {
        return soak();
    }
    let me = std::env::current_exe().expect("this program");
    let mut command = Command::new(me);
    command.args(["--exact", "soak::thousands_of_rounds_grow_nothing", "--nocapture"]).env(ALONE, "1");
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let mut columns: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for line in said.lines().filter_map(|line| line.strip_prefix("look ")) {
        for (what, value) in ["memory", "state", "records", "objects"].into_iter().zip(line.split(' ')) {
            columns.entry(what).or_default().push(value.parse().expect("a number"));
        }
    }
    assert!(columns.values().all(|values| values.len() == ROUNDS / LOOK), "{said}");
    for (what, values) in columns {
        // The first third fills what is bounded.
        let settled = &values[values.len() / 3..];
        let mean = settled.iter().sum::<usize>() as f64 / settled.len() as f64;
        let grows = slope(settled) * settled.len() as f64;
        println!("{what}: {mean:.0} on average, {grows:+.0} in {} rounds", settled.len() * LOOK);
        // A tenth of what there is, and of memory what its allocator may do.
        let margin = if what == "memory" { mean / 5.0 + 4e6 } else { mean / 10.0 };
        assert!(grows < margin, "{what} grows: {values:?}");
    }
}

#[test]
fn a_slope_is_seen() {
    assert!((slope(&[1, 3, 5, 7]) - 2.0).abs() < 1e-9 && slope(&[4, 9, 4, 9, 4]).abs() < 1e-9);
}
