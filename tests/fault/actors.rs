//! One actor: a leader that is paused before a write, and a second installation.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use http::Method;

use crate::cases;
use crate::lab::{Lab, lab};
use crate::oracle;
use crate::process::{Process, Start, within};
use crate::proxy::{Call, Fault, Proxy};
use crate::scene::{STAGES, Scene, path};

/// Of so many writes the leader is paused before one, for every change; before all of them with `BACKSTAY_FAULTS=all`.
const SHARE: usize = 3;

/// The versions of all objects that a daemon writes, the lease's and the events' apart.
async fn versions(scene: &Scene<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for collection in [
        "configmaps",
        "services",
        "serviceaccounts",
        "apps/v1/deployments",
        "networking.k8s.io/v1/networkpolicies",
        "backstay.dev/v1alpha1/agentreleases",
        "backstay.dev/v1alpha1/agentenvironments",
    ] {
        let list = scene.lab.ask(Method::GET, &path(&scene.namespace, collection), None).await.expect("a list");
        for object in list["items"].as_array().expect("a list") {
            let metadata = &object["metadata"];
            all.insert(format!("{collection}/{}", metadata["name"]), metadata["resourceVersion"].to_string());
        }
    }
    all
}

/// The same once nothing was written for two seconds: the end of a stage comes before the environment's record, and before
/// what the cluster's controllers still tell.
async fn at_rest(scene: &Scene<'_>) -> BTreeMap<String, String> {
    let mut before = versions(scene).await;
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = versions(scene).await;
        if now == before {
            break;
        }
        before = now;
    }
    before
}

/// The writes of all stages, in their order.
async fn writes(lab: &Lab) -> Vec<Call> {
    let mut scene = Scene::new(lab).await;
    for stage in STAGES {
        scene.proxy.stage(stage);
        scene.push(stage);
        if stage == "install" {
            scene.start().await;
        }
        scene.arrive(stage).await.unwrap_or_else(|why| panic!("{stage}, undisturbed: {why}"));
        scene.rounds().await;
    }
    scene.stop().await;
    let log = scene.proxy.log();
    let own = |call: &Call| call.is_lease() || call.resource.ends_with("/events");
    let writes = log.into_iter().filter(|seen| !seen.dry_run && seen.call.writes() && !own(&seen.call));
    writes.map(|seen| seen.call).collect()
}

async fn paused(lab: &Lab, call: &Call) -> (bool, Vec<String>) {
    let scene = Scene::new(lab).await;
    let other = Proxy::start(lab.client.clone()).await;
    let start = |name: &'static str| Start { name, source: scene.source(), installation: "fault", contained: false };
    scene.proxy.stage("install");
    if call.stage == "install" {
        scene.proxy.arm(call.clone(), Fault::Held);
    }
    let first = Process::start(&scene, &scene.proxy, &start("first"));
    let mut second = None;
    let mut wrong = vec![];
    for stage in STAGES {
        if stage != "install" {
            scene.proxy.stage(stage);
        }
        other.stage(stage);
        if stage != call.stage {
            scene.push(stage);
            if let Err(why) = scene.arrive(stage).await {
                return (false, vec![format!("before anything was done: {stage}: {why}")]);
            }
            continue;
        }
        // Who is there first leads; later the other one stands by.
        if stage != "install" {
            second = Some(Process::start(&scene, &other, &start("second")));
            scene.proxy.arm(call.clone(), Fault::Held);
            scene.push(stage);
        }
        let met = tokio::time::timeout(Duration::from_secs(30), scene.proxy.hit()).await;
        if met.is_err() {
            return (false, vec![]);
        }
        first.signal("STOP");
        second.get_or_insert_with(|| Process::start(&scene, &other, &start("second")));
        if let Err(why) = scene.arrive(stage).await {
            wrong.push(format!("the other one does not go on: {why}"));
        }
        break;
    }
    let (before, said) = (at_rest(&scene).await, scene.proxy.count());
    scene.proxy.go_on();
    first.signal("CONT");
    let late = async || {
        let log = scene.proxy.log();
        log.iter().any(|seen| seen.call == *call && seen.code.is_some()) && log.len() > said
    };
    if !within(Duration::from_secs(20), late).await {
        wrong.push("the late call never arrived".to_owned());
    }
    let follows = async || first.log().contains("following") && first.log().contains("leader");
    within(Duration::from_secs(10), follows).await;
    let after = versions(&scene).await;
    for (object, version) in &after {
        if before.get(object) != Some(version) {
            wrong.push(format!("{object} was written late"));
        }
    }
    wrong.extend(
        before.keys().filter(|object| !after.contains_key(*object)).map(|gone| format!("{gone} was deleted late")),
    );
    for seen in scene.proxy.log().iter().skip(said).filter(|seen| seen.call.writes() && !seen.call.is_lease()) {
        if seen.code.is_some_and(|code| code < 300) && !seen.call.resource.ends_with("/events") {
            wrong.push(format!("written by the former leader: {}", seen.call));
        }
    }
    drop((first, second));
    wrong.extend(oracle::broken_rules_of_a_successor(&other.log(), &scene.namespace));
    (true, wrong.into_iter().map(|what| format!("paused before {call}: {what}")).collect())
}

// F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_does_no_lasting_harm() {
    let Some(lab) = lab("paused").await else { return };
    let chosen = cases::chosen(writes(&lab).await, SHARE, |call| format!("{} at {call}", Fault::Held));
    crate::say(&format!("the leader is paused before {} writes", chosen.len()));
    let lab = &lab;
    let runs = chosen.iter().map(|call| async move {
        let (hit, wrong) = paused(lab, call).await;
        if !hit || !wrong.is_empty() {
            crate::say(&format!("paused before {call}: hit {hit} {wrong:#?}"));
        }
        oracle::note("F1", "paused before a write", 1, usize::from(hit), wrong);
    });
    futures::stream::iter(runs).buffer_unordered(8).collect::<()>().await;
    let wrong = oracle::table(&["F1"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// F3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_installation_only_reads() {
    let Some(lab) = lab("second").await else { return };
    let scene = Scene::new(&lab).await;
    let other = Proxy::start(lab.client.clone()).await;
    let start = |name: &'static str| Start { name, source: scene.source(), installation: name, contained: false };
    for (proxy, stage) in [(&scene.proxy, "install"), (&other, "other")] {
        proxy.stage(stage);
    }
    let first = Process::start(&scene, &scene.proxy, &start("first"));
    scene.arrive("install").await.expect("installed");
    let second = Process::start(&scene, &other, &start("second"));
    let read = within(Duration::from_secs(30), async || other.log().iter().any(|seen| seen.call.verb == "watch")).await;
    assert!(read, "the second one reads: {}", second.log());
    scene.push("change");
    scene.arrive("change").await.expect("changed by the first");
    let writes = |proxy: &Proxy| -> Vec<String> {
        proxy.log().iter().filter(|seen| seen.call.writes()).map(|seen| seen.call.to_string()).collect()
    };
    let mut wrong = writes(&other);
    // The first is gone: the target is its all the same.
    first.kill();
    let noticed = within(Duration::from_mins(1), async || second.log().contains("only reading")).await;
    assert!(noticed, "it says so: {}", second.log());
    scene.push("revert");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let more = other.log().into_iter().filter(|seen| seen.call.writes() && !seen.call.is_lease());
    wrong.extend(more.map(|seen| seen.call.to_string()));
    oracle::note("F3", "two installations", 1, 1, wrong.clone());
    oracle::table(&[]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
