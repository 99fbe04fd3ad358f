//! What breaks beside the agents: a keeper, the proxy, its table, a release's folder. What serves goes on.

use std::path::Path;
use std::process::Command;

use backstay::keeper::client::Client;
use http::Method;

use crate::daemon::{holds, until};
use crate::golden;
use crate::lab::lab;
use crate::serving::{answers, kill, knock, serving};

/// The keeper and the agent of the one instance.
fn processes(folder: &Path) -> Option<(u32, u32)> {
    let mut keeper = Client::connect(folder, None).ok()?;
    let agent = keeper.status().ok()?.agent?.pid;
    Some((keeper.identity().process.pid, agent))
}

#[tokio::test]
async fn a_keeper_that_is_killed_is_replaced_and_its_agent_serves_on() {
    let (river, daemon) = serving(lab("keeper").await).await;
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
    let (river, daemon) = serving(lab("killed").await).await;
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
    let (mut river, daemon) = serving(lab("proxy").await).await;
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
    let (mut river, daemon) = serving(lab("table").await).await;
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
    let (river, daemon) = serving(lab("folder").await).await;
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
