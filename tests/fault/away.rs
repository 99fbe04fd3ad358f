//! Git is away, speaks nonsense, or breaks off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::git::{Answer, GitServer, Request};
use crate::lab::lab;
use crate::oracle;
use crate::process::{Process, Start, within};
use crate::proxy::Seen;
use crate::scene::Scene;

const FAILURES: &str = "backstay_source_polls_total{result=\"error\"}";

// S2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_away_changes_nothing_and_is_said() {
    let Some(lab) = lab("away").await else { return };
    let scene = Scene::new(&lab).await;
    let mode = Arc::new(AtomicU8::new(0));
    let asked = Arc::clone(&mode);
    let judge = move |_: &Request| match asked.load(Ordering::SeqCst) {
        1 => Answer::Status("403 Forbidden", vec![]),
        2 => Answer::Status("500 Internal Server Error", vec![]),
        3 => Answer::Hang,
        4 => Answer::Raw(vec![]),
        _ => Answer::Serve,
    };
    let server = GitServer::http_with(scene.folder(), judge.clone());
    let source = format!("url = \"{}\"\ntimeout = \"1s\"", server.url("repo.git"));
    let how = Start { name: "one", source, installation: "fault", contained: true };
    scene.proxy.stage("install");
    let process = Process::start(&scene, &scene.proxy, &how);
    scene.arrive("install").await.expect("installed");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (repo, hidden) = (scene.folder().join("repo.git"), scene.folder().join("hidden.git"));
    let quiet = |from: usize| -> Vec<String> {
        let log = scene.proxy.log();
        // That it is away is said in the environment's record, and nowhere else.
        let told = |seen: &&Seen| seen.call.is_lease() || seen.call.resource == "agentenvironments/status";
        let writes = log[from..].iter().filter(|seen| seen.call.writes() && !told(seen));
        writes.map(|seen| format!("it writes: {}", seen.call)).collect()
    };
    for (number, name) in [(1, "refused"), (2, "500"), (3, "timeout"), (4, "reset"), (5, "empty"), (6, "no repository")]
    {
        mode.store(number, Ordering::SeqCst);
        if number >= 5 {
            std::fs::rename(&repo, &hidden).expect("hidden");
        }
        if number == 5 {
            let made = std::process::Command::new("git").args(["init", "-q", "--bare"]).arg(&repo).status();
            assert!(made.expect("git runs").success());
        }
        let (from, failed, asked) = (scene.proxy.count(), process.metric(FAILURES).await, server.requests().len());
        // Each is a failure, also a list that has become empty.
        let looked = async || process.metric(FAILURES).await > failed && server.requests().len() > asked;
        let hit = within(Duration::from_mins(1), looked).await;
        let mut wrong = quiet(from);
        if !process.log().contains("the config repository cannot be read") {
            wrong.push("it does not say so".to_owned());
        }
        if number >= 5 {
            let _ = std::fs::remove_dir_all(&repo);
            std::fs::rename(&hidden, &repo).expect("back");
        }
        oracle::note("S2", name, 1, usize::from(hit), wrong);
    }
    mode.store(0, Ordering::SeqCst);
    // The server itself dies, and comes back where it was.
    let (from, failed, at) = (scene.proxy.count(), process.metric(FAILURES).await, server.address());
    drop(server);
    let hit = within(Duration::from_mins(1), async || process.metric(FAILURES).await > failed + 1.0).await;
    oracle::note("S2", "dead", 1, usize::from(hit), quiet(from));
    let _server = GitServer::http_at(at, scene.folder(), judge);
    scene.proxy.stage("change");
    scene.push("change");
    let back = scene.arrive("change").await.err();
    oracle::note("S2", "Git is back", 1, 1, back.into_iter().collect());
    let wrong = oracle::table(&["S2"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// S5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_a_fetch_the_next_one_works() {
    let Some(lab) = lab("fetch").await else { return };
    let scene = Scene::new(&lab).await;
    let whole = Arc::new(AtomicU8::new(0));
    let asked = Arc::clone(&whole);
    let server = GitServer::http_with(scene.folder(), move |request| {
        if request.method == "POST" && asked.load(Ordering::SeqCst) == 0 { Answer::Half } else { Answer::Serve }
    });
    let source = format!("url = \"{}\"", server.url("repo.git"));
    let how = Start { name: "one", source, installation: "fault", contained: true };
    scene.proxy.stage("install");
    let kills = if crate::everything() { 200 } else { 20 };
    for kill in 1..=kills {
        let process = Process::start(&scene, &scene.proxy, &how);
        server.wait_for("POST", kill);
        // Some at once, some when half of it is there.
        tokio::time::sleep(Duration::from_millis(kill as u64 * 7 % 60)).await;
        process.kill();
    }
    whole.store(1, Ordering::SeqCst);
    let process = Process::start(&scene, &scene.proxy, &how);
    let mut wrong: Vec<String> = scene.arrive("install").await.err().into_iter().collect();
    let mut folders = vec![scene.folder().join("one")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains("_git2_") || name.starts_with("tmp_") {
                wrong.push(format!("left behind: {name}"));
            }
            if entry.path().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    if process.log().contains("panicked") {
        wrong.push("a panic".to_owned());
    }
    oracle::note("S5", "killed in a fetch", kills, kills, wrong);
    let wrong = oracle::table(&["S5"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
