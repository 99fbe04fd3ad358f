//! What breaks beside the agents: a keeper, the proxy, its table, a release's folder. What serves goes on.

use std::path::Path;
use std::process::Command;

use backstay::keeper::client::Client;
use http::Method;

use crate::daemon::{Daemon, Repo, River, holds, until};
use crate::golden;
use crate::lab::lab;

/// A host where `support` serves, seen by the proxy.
async fn serving(name: &str) -> (River, Daemon) {
    let river = River::new(lab(name).await, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    answers(&river).await;
    (river, daemon)
}

async fn knock(river: &River) -> Option<u16> {
    river.lab.knock("support", "/health/ready").await
}

async fn answers(river: &River) {
    until("it answers", async || (knock(river).await == Some(200)).then_some(())).await;
}

fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success(), "{pid} is there");
}

/// The keeper and the agent of the one instance.
fn processes(folder: &Path) -> Option<(u32, u32)> {
    let mut keeper = Client::connect(folder, None).ok()?;
    let agent = keeper.status().ok()?.agent?.pid;
    Some((keeper.identity().process.pid, agent))
}

#[tokio::test]
async fn a_keeper_that_is_killed_is_replaced_and_its_agent_serves_on() {
    let (river, daemon) = serving("keeper").await;
    let [folder] = &river.lab.instances()[..] else { panic!("one instance") };
    let (keeper, agent) = processes(folder).expect("a keeper");
    kill(keeper);
    let (_, kept) = until("another keeper", async || {
        assert_eq!(knock(&river).await, Some(200), "the agent serves on");
        processes(folder).filter(|(pid, _)| *pid != keeper)
    })
    .await;
    assert_eq!(kept, agent, "the same process is held on");
    golden::says("keeper-killed", &river, &daemon).await;
    answers(&river).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_is_started_again() {
    let (river, daemon) = serving("killed").await;
    let [folder] = &river.lab.instances()[..] else { panic!("one instance") };
    let (keeper, agent) = processes(folder).expect("a keeper");
    kill(agent);
    until("another process", async || processes(folder).filter(|(_, pid)| *pid != agent)).await;
    assert_eq!(processes(folder).map(|(pid, _)| pid), Some(keeper));
    answers(&river).await;
    golden::says("agent-killed", &river, &daemon).await;
}

#[tokio::test]
async fn a_proxy_that_is_killed_is_said_and_stops_nothing() {
    let (mut river, daemon) = serving("proxy").await;
    let before = river.lab.instances();
    river.lab.kill_proxy();
    river.recorded("it is said", |record| holds(record, "Degraded", "the proxy")).await;
    golden::says("proxy-killed", &river, &daemon).await;
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    river.greets("Hello!").await;
    assert_eq!(river.lab.instances(), before);
    river.lab.start_proxy();
    answers(&river).await;
    river.recorded("it is Ready", |record| holds(record, "Ready", "")).await;
    assert_eq!(river.lab.instances(), before);
}

#[tokio::test]
async fn a_table_that_is_damaged_is_written_anew() {
    let (mut river, daemon) = serving("table").await;
    let table = river.lab.at("table.json");
    let sound = || backstay::proxy::load_table(&table).is_ok_and(|loaded| loaded.fallback.is_none());
    assert!(sound());
    std::fs::write(&table, "{").expect("written");
    until("it is as it was", async || {
        assert_eq!(knock(&river).await, Some(200), "the proxy has its table");
        sound().then_some(())
    })
    .await;
    golden::says("table-damaged", &river, &daemon).await;
    assert!(daemon.log().contains("somebody changed the proxy's table"), "it is said");
    // A start of the proxy needs the daemon no more.
    daemon.kill();
    river.lab.kill_proxy();
    river.lab.start_proxy();
    answers(&river).await;
}

#[tokio::test]
async fn a_releases_folder_that_is_changed_is_made_anew() {
    let (river, daemon) = serving("folder").await;
    let pods = river.lab.ask(Method::GET, &river.lab.path("pods"), None).await.expect("the pods");
    let digest = pods["items"][0]["metadata"]["annotations"]["backstay.dev/release-id"].as_str().expect("a release");
    let prompt = river.lab.at(&format!("state/host/releases/{}", digest.trim_start_matches("sha256:")));
    let prompt = prompt.join("prompts/system.md");
    let before = std::fs::read_to_string(&prompt).expect("a prompt");
    let mut somebody = Command::new("sh");
    somebody.args(["-c", "chmod u+w \"$1\" && echo 'Greet with \"Evil!\".' > \"$1\"", "sh"]).arg(&prompt);
    assert!(somebody.status().expect("sh runs").success());
    until("it is as it was", async || std::fs::read_to_string(&prompt).is_ok_and(|now| now == before).then_some(()))
        .await;
    golden::says("release-changed", &river, &daemon).await;
    assert!(daemon.log().contains("a release's folder was changed"), "it is said");
    river.greets("Hello!").await;
}
