//! Who is asked for figures is silent, lies, is slow or says nothing, at any moment of a step: nobody is promoted by that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;

use crate::lab::{Lab, lab};
use crate::oracle;
use crate::rollouts::{self, End};
use crate::scene::{AGENT, Scene};
use crate::server::{Reply, Server};

/// Longer than a step of a second waits when it is undecided.
const AFTER_THE_DEADLINE: Duration = Duration::from_secs(6);
/// The step with a weight, at which figures are asked for.
const STEP: u64 = 2;

type Trouble = (&'static str, fn() -> Reply);

const ALL: [Trouble; 9] = [
    ("silent", || Reply::Silent),
    ("slow", || {
        std::thread::sleep(Duration::from_secs(12));
        says("{\"load\": 1}")
    }),
    ("endless", || Reply::Endless("application/json")),
    ("broken off", || Reply::Claims(1000)),
    ("elsewhere", || Reply::Sends("http://127.0.0.1:9/".to_owned())),
    ("empty", || says("{}")),
    ("not a number", || says("{\"load\": \"NaN\"}")),
    ("absurd", || says("{\"load\": 1e400}")),
    ("an error", || Reply::Says(500, "text/plain", "no".to_owned())),
];

fn says(text: &str) -> Reply {
    Reply::Says(200, "application/json", text.to_owned())
}

async fn record(scene: &Scene<'_>) -> Value {
    let release = scene.see("backstay.dev/v1alpha1/agentreleases", AGENT).await;
    release.map(|mut release| release["status"].take()).unwrap_or_default()
}

/// A candidate at a step whose figures are bad after so many good ones; whether they were asked for then, and what is wrong.
async fn tried(lab: &Lab, (name, trouble): Trouble, good: usize) -> (bool, Vec<String>) {
    let (asked, healed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (count, is_healed) = (Arc::clone(&asked), Arc::clone(&healed));
    let numbers = Server::start(move |_| {
        let before = count.fetch_add(1, Ordering::SeqCst);
        if before < good || is_healed.load(Ordering::SeqCst) { says("{\"load\": 1}") } else { trouble() }
    });
    let mut scene = rollouts::scene_asking(lab, &numbers).await;
    scene.proxy.stage("install");
    scene.push("install");
    scene.start().await;
    let mut wrong = vec![];
    wrong.extend(rollouts::arrive(&scene, "install", End::Stable).await.err());
    let stable = record(&scene).await["stable"].clone();
    scene.proxy.stage("better");
    scene.push("better");
    let at_the_step = async || record(&scene).await["rollout"]["state"]["phase"]["step"]["at"] == STEP;
    wrong.extend(scene.comes_to(at_the_step).await.err());
    tokio::time::sleep(AFTER_THE_DEADLINE).await;
    let now = record(&scene).await;
    if now["rollout"]["state"]["phase"]["step"]["at"] != STEP || now["stable"] != stable {
        wrong.push(format!("T2: it goes on though nothing is known: {now}"));
    }
    let hit = asked.load(Ordering::SeqCst) > good;
    healed.store(true, Ordering::SeqCst);
    wrong.extend(rollouts::arrive(&scene, "better", End::Stable).await.err());
    scene.stop().await;
    scene.clear().await;
    wrong.extend(rollouts::ever_wrong(&scene));
    if !wrong.is_empty() {
        crate::say(&format!("figures that are {name}: {wrong:#?}\n{}", scene.said()));
    }
    (hit, wrong)
}

// T2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_that_are_bad_promote_nobody_at_any_moment() {
    let Some(lab) = lab("figures").await else { return };
    oracle::watch_for_panics();
    let lab = &lab;
    let all = ALL.into_iter().flat_map(|trouble| [0, 1, 2].map(|good| (trouble, good)));
    let runs = all.map(|(trouble, good)| async move {
        let (hit, wrong) = tried(lab, trouble, good).await;
        oracle::note("T2", &format!("figures: {}", trouble.0), 1, usize::from(hit), wrong);
    });
    futures::stream::iter(runs).buffer_unordered(9).collect::<()>().await;
    let wrong = oracle::table(&["T2"]);
    assert!(wrong.is_empty(), "{} violations: {wrong:#?}", wrong.len());
    let (injected, hit) = oracle::hits(&["T2"]);
    assert_eq!(hit, injected, "figures were not asked for");
}
