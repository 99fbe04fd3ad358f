//! Many rollouts at once: what the daemon costs while it measures and judges each of them every second.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use crate::cost::{Cost, cost};
use crate::daemon::{Repo, River};
use crate::lab::lab;
use crate::row;
use crate::table::{Row, Table, megabytes};
use crate::users::{Front, Users};

/// How long it is measured.
const MEASURED: Duration = Duration::from_mins(1);
/// Requests a second, to each agent in turn.
const RATE: u32 = 100;
/// How long nothing may move before it is given up.
const PATIENCE: Duration = Duration::from_mins(3);

/// So many agents at 5 % of a canary, with real keepers, agents, a proxy and a little traffic.
pub(crate) async fn at_once(rollouts: usize, table: &mut Table) {
    let repo = Repo::small();
    let names: Vec<_> = (0..rollouts).map(|at| format!("agent-{at:04}")).collect();
    for name in &names {
        repo.write(&format!("agents/{name}/agent.yaml"), &agent(name));
        repo.write(&format!("agents/{name}/system.md"), "Greet with \"Hello!\".\n");
    }
    repo.commit("Add many");
    let mut lab = lab("many").await;
    lab.ports.1 = lab.ports.0 + 2 * u16::try_from(rollouts).expect("no more than ports") + 100;
    let river = River::new(lab, repo).await;
    let begun = Instant::now();
    let daemon = river.start().await;
    let ready = |agent: &Value| {
        crate::daemon::condition(&agent["status"], "Ready").is_some_and(|ready| ready["status"] == "True")
    };
    until_all(&river, "agents are ready", rollouts, ready, table).await;
    table.note(format!("{rollouts} agents are ready after {:.0} s", begun.elapsed().as_secs_f64()));
    for name in &names {
        river.repo.write(&format!("agents/{name}/system.md"), "Greet with \"Ahoy!\".\n");
    }
    let begun = Instant::now();
    river.repo.commit("Change all of them");
    let at_its_step = |agent: &Value| {
        let state = &agent["status"]["rollout"]["state"];
        state["phase"]["step"]["since"].is_string()
    };
    until_all(&river, "rollouts are at their step", rollouts, at_its_step, table).await;
    table.note(format!("{rollouts} rollouts are at their step after {:.0} s", begun.elapsed().as_secs_f64()));

    let front = |name: &String| Front::Named { address: river.lab.front.clone(), host: format!("{name}.localhost") };
    let users = Users::paced(&names.iter().map(front).collect::<Vec<_>>(), RATE);
    let before = cost(daemon.id()).expect("it runs");
    tokio::time::sleep(MEASURED).await;
    let after = cost(daemon.id()).expect("it runs");
    let got = users.end().await;
    let (answered, failed) = got.values().fold((0, 0), |sum, got| (sum.0 + got.answered, sum.1 + got.failed));
    let still = count(&river, at_its_step).await;
    let cores = (after.cpu - before.cpu) / MEASURED.as_secs_f64();
    table.add(Row {
        measured: format!(
            "{cores:.2} cores, {} MB, {} MB at most since its start; {answered} requests answered, {failed} failed",
            megabytes(after.resident),
            megabytes(after.peak)
        ),
        value: cores,
        limit: "1 core, 200 MB".to_owned(),
        n: Some(still),
        ratio: Some(cores),
        reached: cores <= 1.0 && after.resident <= 200_000_000 && failed == 0 && still == rollouts,
        cost: Some(Cost { cpu: after.cpu - before.cpu, ..after }),
        ..row(&format!("{rollouts} rollouts at once, the daemon for {} s", MEASURED.as_secs()))
    });
}

/// An agent with traffic, whose candidates stay at 5 % for a long time.
fn agent(name: &str) -> String {
    format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  code:\n    image: \
         registry.example.com/{name}:1.0.0\n    command: [backstay, example-agent]\n  prompts: {{system: system.md}}\n  \
         workload: {{port: 8000, health: {{ready: {{httpGet: {{path: /health/ready, port: 8000}}, periodSeconds: 10}}}}}}\n  \
         replicas: 1\n  rollout:\n    strategy: {{canary: {{steps: [{{weight: 5, for: 12h}}]}}}}\n    analysis: {{errors: \
         {{preset: error_rate, max: 0.01, compare: stable, margin: 0.02}}, p99: {{preset: latency_p99, max: 1000ms}}}}\n"
    )
}

async fn count(river: &River, is: impl Fn(&Value) -> bool) -> usize {
    let path = river.lab.path("backstay.dev/v1alpha1/agentreleases");
    let Ok(list) = river.lab.ask(Method::GET, &path, None).await else { return 0 };
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter(|agent| agent["metadata"]["name"] != "support" && is(agent)).count()
}

/// Waits until so many agents are so, as long as there is any progress.
async fn until_all(river: &River, what: &str, all: usize, is: impl Fn(&Value) -> bool, table: &mut Table) {
    let (mut known, mut moved) = (0, Instant::now());
    loop {
        let found = count(river, &is).await;
        if found >= all {
            return;
        }
        if found != known {
            if found / 100 != known / 100 {
                table.note(format!("  {found} {what}"));
            }
            (known, moved) = (found, Instant::now());
        }
        assert!(moved.elapsed() < PATIENCE, "{known} of {all} {what}, and no more");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
