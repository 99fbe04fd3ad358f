//! Many rollouts at once: what the daemon costs while it measures and judges each of them every second.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use crate::cost::{Cost, cost};
use crate::daemon::{Repo, River, condition};
use crate::hollow::{Hollow, PORT};
use crate::lab::lab;
use crate::table::{Row, Table, megabytes};

/// How long it is measured.
const MEASURED: Duration = Duration::from_mins(1);
/// How long nothing may move before it is given up.
const PATIENCE: Duration = Duration::from_mins(3);
/// What the daemon may have, in bytes.
const MEMORY: u64 = 200_000_000;

/// So many agents, each with a pod of stable and one of a candidate, which is looked at for half a day.
pub(crate) async fn at_once(rollouts: usize, table: &mut Table) {
    let lab = lab("bench-at-once").await.expect("the lab");
    let hollow = Hollow::join(&lab).await;
    let repo = Repo::small();
    let names: Vec<_> = (0..rollouts).map(|at| format!("agent-{at:04}")).collect();
    for name in &names {
        repo.write(&format!("agents/{name}/agent.yaml"), &agent(name));
        repo.write(&format!("agents/{name}/system.md"), "Greet with \"Hello!\".\n");
    }
    repo.commit("Add many");
    let river = River::new(lab, repo).await;
    let begun = Instant::now();
    let daemon = river.start().await;
    let is_ready = |status: &Value| condition(status, "Ready").is_some_and(|ready| ready["status"] == "True");
    until_all(&river, "agents are ready", rollouts, is_ready).await;
    table.note(format!("{rollouts} agents are ready after {:.0} s", begun.elapsed().as_secs_f64()));

    for name in &names {
        river.repo.write(&format!("agents/{name}/system.md"), "Greet with \"Ahoy!\".\n");
    }
    let begun = Instant::now();
    river.repo.commit("Change all of them");
    let at_its_step = |status: &Value| status["rollout"]["state"]["phase"]["step"]["since"].is_string();
    until_all(&river, "rollouts are at their step", rollouts, at_its_step).await;
    table.note(format!("{rollouts} rollouts are at their step after {:.0} s", begun.elapsed().as_secs_f64()));

    // What came of the last step, such as writing it down, is not what is measured.
    tokio::time::sleep(MEASURED / 4).await;
    let (before, asked) = (cost(daemon.id()).expect("it runs"), hollow.asked());
    tokio::time::sleep(MEASURED).await;
    let (after, asked) = (cost(daemon.id()).expect("it runs"), hollow.asked() - asked);
    let still = count(&river, at_its_step).await;
    let cores = (after.cpu - before.cpu) / MEASURED.as_secs_f64();
    table.add(Row {
        case: format!("{rollouts} rollouts at once, {} s of the daemon", MEASURED.as_secs()),
        measured: format!(
            "{cores:.2} cores, {} MB ({} MB at most since its start); {} figures of pods a second, {still} still at their step",
            megabytes(after.resident),
            megabytes(after.peak),
            asked / MEASURED.as_secs()
        ),
        value: cores,
        limit: format!("1 core, {} MB", megabytes(MEMORY)),
        ratio: Some(cores),
        reached: cores <= 1.0 && after.resident <= MEMORY && still == rollouts,
        cost: Some(Cost { cpu: after.cpu - before.cpu, ..after }),
        ..Row::default()
    });
}

/// An agent whose candidates are looked at for a long time.
fn agent(name: &str) -> String {
    format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  code: {{image: \
         registry.example.com/{name}:1.0.0}}\n  prompts: {{system: system.md}}\n  workload: {{port: {PORT}}}\n  replicas: 1\n  \
         rollout:\n    strategy: {{canary: {{steps: [{{weight: 5, for: 12h}}]}}}}\n    analysis:\n      errors: {{preset: \
         error_rate, max: 0.01, compare: stable, margin: 0.02}}\n      p99: {{preset: latency_p99, max: 1000ms}}\n"
    )
}

/// How many of the agents' records are so.
async fn count(river: &River, is: impl Fn(&Value) -> bool) -> usize {
    let path = river.lab.path("backstay.dev/v1alpha1/agentreleases");
    let Ok(list) = river.lab.ask(Method::GET, &path, None).await else { return 0 };
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter(|agent| agent["metadata"]["name"] != "support" && is(&agent["status"])).count()
}

/// Waits until so many agents are so, as long as there is any progress.
async fn until_all(river: &River, what: &str, all: usize, is: impl Fn(&Value) -> bool) {
    let (mut known, mut moved) = (0, Instant::now());
    loop {
        let found = count(river, &is).await;
        if found >= all {
            return;
        }
        if found != known {
            eprintln!("{found} of {all} {what}");
            (known, moved) = (found, Instant::now());
        }
        assert!(moved.elapsed() < PATIENCE, "{known} of {all} {what}, and no more");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
