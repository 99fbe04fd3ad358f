//! What stands costs: the daemon with many agents, and each keeper.

use std::fs;
use std::time::Duration;

use crate::cost::{Cost, cost};
use crate::daemon::{ENVIRONMENT, Repo, River, until};
use crate::lab::lab;
use crate::row;
use crate::table::{Row, Table, megabytes};

/// How long nothing changes.
const QUIET: Duration = Duration::from_mins(1);
/// Keepers that are measured.
const KEEPERS: usize = 50;

/// Many agents that nobody changes.
pub(crate) async fn steady(agents: usize, table: &mut Table) {
    let repo = Repo::small();
    let names: Vec<_> = (0..agents).map(|at| format!("agent-{at:03}")).collect();
    for name in &names {
        repo.write(&format!("agents/{name}/agent.yaml"), &agent(name));
        repo.write(&format!("agents/{name}/system.md"), &format!("You are {name}.\n"));
    }
    repo.commit("Add many");
    let river = River::new(lab("steady").await, repo).await;
    let daemon = river.start().await;
    let all = agents + 1;
    until_ready(&river, all).await;
    let before = cost(daemon.id()).expect("it runs");
    tokio::time::sleep(QUIET).await;
    let after = cost(daemon.id()).expect("it runs");
    let share = (after.cpu - before.cpu) / QUIET.as_secs_f64() * 100.0;
    table.add(Row {
        measured: format!("{} MB, {share:.2} % of a core", megabytes(after.resident)),
        value: after.resident as f64,
        limit: "60 MB, 0.5 %".to_owned(),
        reached: after.resident <= 60_000_000 && share <= 0.5,
        cost: Some(Cost { cpu: after.cpu - before.cpu, ..after }),
        ..row(&format!("{all} agents, nothing changes"))
    });
    let sizes: Vec<_> = keepers().into_iter().filter_map(proportional).take(KEEPERS).collect();
    let mean = sizes.iter().sum::<u64>() / sizes.len().max(1) as u64;
    let most = sizes.iter().max().copied().unwrap_or_default();
    table.add(Row {
        measured: format!("{} MB each, {} MB at most, over {}", megabytes(mean), megabytes(most), sizes.len()),
        value: mean as f64,
        limit: "1 MB".to_owned(),
        reached: mean <= 1_000_000 && sizes.len() == KEEPERS,
        ..row("keeper, proportional set")
    });
}

/// An agent without traffic.
fn agent(name: &str) -> String {
    format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  code:\n    image: \
         registry.example.com/{name}:1.0.0\n    command: [backstay, example-agent, --worker]\n  prompts: {{system: \
         system.md}}\n  replicas: 1\n"
    )
}

async fn until_ready(river: &River, agents: usize) {
    let path = river.lab.path("backstay.dev/v1alpha1/agentreleases");
    until(&format!("{agents} agents of `{ENVIRONMENT}` are ready"), async || {
        let list = river.lab.ask(http::Method::GET, &path, None).await.ok()?;
        let ready = |record: &&serde_json::Value| {
            crate::daemon::condition(&record["status"], "Ready").is_some_and(|ready| ready["status"] == "True")
        };
        let count = list["items"].as_array()?.iter().filter(ready).count();
        (count == agents).then_some(())
    })
    .await;
}

/// The keepers on this machine: their program alone has that whole name, which `comm` has room for.
fn keepers() -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "backstay-keeper"))
        .collect()
}

/// The bytes of a process, those that others share counted in part.
fn proportional(process: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
