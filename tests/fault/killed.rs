//! The process is killed, again and again, at any time; and the parts of the cluster are.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;

use crate::lab::{Lab, lab, lab_alone, part};
use crate::oracle;
use crate::process::{Process, Start};
use crate::scene::{Scene, Story};
use crate::standing::{difference, serving};

/// Daemons that are killed at the same time, each in a namespace of its own.
const AT_ONCE: usize = 4;

/// The state of who went to a commit directly.
pub(crate) async fn directly(lab: &Lab, to: &str) -> BTreeMap<String, Value> {
    let mut scene = Scene::new(lab).await;
    scene.proxy.stage("install");
    scene.push(to);
    scene.start().await;
    scene.arrive(to).await.unwrap_or_else(|why| panic!("undisturbed: {why}"));
    let state = serving(scene.state().await);
    scene.stop().await;
    state
}

/// Numbers that look random, from a seed (`SplitMix64`).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

async fn killed_again_and_again(lab: &Lab, kills: usize, mut seed: u64, wanted: &BTreeMap<String, Value>) {
    let scene = Scene::new(lab).await;
    let long = &Story::get().long;
    scene.proxy.stage("kills");
    scene.push("install");
    let how = Start { name: "killed", source: scene.source(), installation: "fault", contained: true };
    for kill in 0..kills {
        let process = Process::start(&scene, &scene.proxy, &how);
        scene.push(long[kill * (long.len() - 1) / kills.max(1)]);
        tokio::time::sleep(Duration::from_millis(random(&mut seed) % 2500)).await;
        process.kill();
    }
    let last = long.last().expect("commits");
    let process = Process::start(&scene, &scene.proxy, &how);
    scene.push(last);
    let mut wrong: Vec<String> = scene.arrive(last).await.err().into_iter().collect();
    if wrong.is_empty() {
        wrong.extend(difference(wanted, &serving(scene.state().await)));
    }
    wrong.extend(oracle::broken_rules(&scene.proxy.log(), &scene.namespace));
    if process.log().contains("panicked") {
        wrong.push("a panic".to_owned());
    }
    if !wrong.is_empty() {
        crate::say(&format!("kill -9: {wrong:#?}\n{}", tail(&process.log())));
    }
    oracle::note("R1", "kill -9", kills, kills, wrong);
}

fn tail(log: &str) -> String {
    let skip = log.lines().count().saturating_sub(30);
    log.lines().skip(skip).collect::<Vec<_>>().join("\n")
}

// R1, K1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_time_it_goes_on_where_it_was() {
    let Some(lab) = lab("killed").await else { return };
    let each = if crate::everything() { 50 } else { 15 };
    let seed = u64::from(std::process::id());
    crate::say(&format!("kill -9: {AT_ONCE} times {each}, seed {seed}"));
    let wanted = directly(&lab, Story::get().long.last().expect("commits")).await;
    let runs = (0..AT_ONCE as u64).map(|n| killed_again_and_again(&lab, each, seed.wrapping_add(n << 32), &wanted));
    futures::stream::iter(runs).buffer_unordered(AT_ONCE).collect::<()>().await;
    let wrong = oracle::table(&["R1"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// R1, K11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_of_the_cluster_die_and_stop() {
    let Some(lab) = lab_alone("parts").await else { return };
    let mut scene = Scene::new(&lab).await;
    scene.proxy.stage("kills");
    scene.push("install");
    scene.start().await;
    scene.arrive("install").await.expect("installed");
    let long = &Story::get().long;
    let mut commits = long.iter();
    // Longer than the lease, so that it is lost and won again.
    let pause = if crate::everything() { Duration::from_secs(25) } else { Duration::from_secs(4) };
    for name in ["apiserver", "etcd", "controller-manager"] {
        for (end, begin) in [("kill", "start"), ("stop", "cont")] {
            let commit = commits.next().expect("enough commits");
            part(end, name);
            scene.push(commit);
            tokio::time::sleep(if end == "stop" { pause } else { Duration::from_secs(1) }).await;
            part(begin, name);
            let mut wrong: Vec<String> = scene.arrive(commit).await.err().into_iter().collect();
            if wrong.is_empty() {
                let writes = scene.rounds().await;
                wrong.extend((!writes.is_empty()).then(|| format!("after its end it writes: {writes:?}")));
                wrong.extend(difference(&directly(&lab, commit).await, &serving(scene.state().await)));
            }
            if !wrong.is_empty() {
                crate::say(&format!("{end} {name}: {wrong:#?}"));
            }
            oracle::note("R1", &format!("{end} {name}"), 1, 1, wrong);
        }
    }
    let broken = oracle::broken_rules(&scene.proxy.log(), &scene.namespace);
    scene.stop().await;
    assert!(broken.is_empty(), "{broken:#?}");
    let wrong = oracle::table(&["R1"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
