//! Every call of four scenarios, and what may go wrong at it: in process, many at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::Value;

use crate::cases::{self, Case};
use crate::killed::directly;
use crate::lab::{Lab, lab};
use crate::oracle;
use crate::proxy::{Fault, Seen};
use crate::scene::{STAGES, Scene};
use crate::standing::{difference, serving};

/// Of so many cases one is tried for every change; all of them with `BACKSTAY_FAULTS=all`.
const SHARE: usize = 4;
/// Scenarios that run at once.
const AT_ONCE: usize = 12;

/// How a scenario goes when nothing goes wrong.
struct Undisturbed {
    states: BTreeMap<&'static str, BTreeMap<String, Value>>,
    calls: Vec<Seen>,
}

async fn undisturbed(lab: &Lab) -> Undisturbed {
    let mut scene = Scene::new(lab).await;
    let mut states = BTreeMap::new();
    for stage in STAGES {
        scene.proxy.stage(stage);
        scene.push(stage);
        if stage == "install" {
            scene.start().await;
        }
        scene.arrive(stage).await.unwrap_or_else(|why| panic!("{stage}, undisturbed: {why}"));
        let writes = scene.rounds().await;
        assert!(writes.is_empty(), "{stage}, undisturbed, five rounds later: {writes:?}");
        states.insert(stage, scene.state().await);
    }
    scene.stop().await;
    states.insert("race", directly(lab, "race").await);
    let calls = scene.proxy.log();
    let broken = oracle::broken_rules(&calls, &scene.namespace);
    assert!(broken.is_empty(), "undisturbed: {broken:#?}");
    assert!(scene.leftovers().is_empty(), "{:?}", scene.leftovers());
    Undisturbed { states, calls }
}

/// Runs the scenario with a fault; tells whether it was met, and all that is wrong then.
async fn disturbed(lab: &Lab, undisturbed: &Undisturbed, case: &Case) -> (bool, Vec<String>) {
    let mut scene = Scene::new(lab).await;
    let mut wrong = vec![];
    // A watch that is opened in one stage tells of the later ones.
    let spans = matches!(case.fault, Fault::Dropped | Fault::Swapped);
    for stage in STAGES {
        let here = stage == case.call.stage;
        if here && case.fault == Fault::Stale {
            scene.proxy.snapshot().await;
        }
        scene.proxy.stage(stage);
        if here {
            scene.proxy.arm(case.call.clone(), case.fault);
        }
        scene.push(stage);
        if stage == "install" {
            scene.start().await;
        }
        let crashes = matches!(case.fault, Fault::CrashBefore | Fault::CrashAfter | Fault::Stale | Fault::Push);
        let came = if here && crashes {
            let hit = tokio::select! {
                biased;
                () = scene.proxy.hit() => None,
                came = scene.arrive(stage) => Some(came),
            };
            match (hit, case.fault) {
                (Some(came), _) => came,
                (None, Fault::Push) => {
                    scene.push("race");
                    scene.arrive("race").await
                }
                (None, Fault::Stale) => {
                    scene.crash();
                    scene.proxy.stale(true);
                    scene.start().await;
                    // Long enough to decide and to write on what it was shown.
                    let _ = tokio::time::timeout(Duration::from_secs(2), scene.arrive(stage)).await;
                    scene.proxy.stale(false);
                    scene.arrive(stage).await
                }
                (None, _) => {
                    scene.crash();
                    scene.start().await;
                    scene.arrive(stage).await
                }
            }
        } else {
            scene.arrive(stage).await
        };
        if (here || spans) && came.is_ok() {
            // The same end first, however late; then it must be one.
            // A call that never came was no moment to push at.
            let pushed = case.fault == Fault::Push && scene.proxy.hits() > 0;
            let wanted = &undisturbed.states[if pushed { "race" } else { stage }];
            let mut differs = if pushed { vec![] } else { scene.converge(wanted).await };
            let writes = scene.rounds().await;
            if !writes.is_empty() {
                wrong.push(format!("after its end it writes: {writes:?}"));
            }
            if pushed {
                // How far the commit before it came, the ledger and the history may tell.
                differs = difference(wanted, &serving(scene.state().await));
                wrong.extend(oracle::mixes(&scene.proxy.log()));
            } else if differs.is_empty() {
                differs = difference(wanted, &scene.state().await);
            }
            if !differs.is_empty() {
                wrong.push(format!("it ends elsewhere: {}", differs.join("; ")));
            }
        }
        if let Err(why) = came {
            wrong.push(why);
        }
        if here && !spans || !wrong.is_empty() {
            break;
        }
    }
    scene.stop().await;
    let hit = scene.proxy.hits() > 0;
    wrong.extend(oracle::broken_rules(&scene.proxy.log(), &scene.namespace));
    wrong.extend(scene.leftovers().into_iter().map(|file| format!("left behind: {file}")));
    wrong.extend(oracle::panics());
    if !wrong.is_empty() {
        crate::say(&format!("{} at {}:\n{}", case.fault, case.call, scene.said()));
    }
    (hit, wrong.into_iter().map(|what| format!("{} at {}: {what}", case.fault, case.call)).collect())
}

// K1, K2, K3, K4, K10, K11, K14, S10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_call() {
    let Some(lab) = lab("calls").await else { return };
    oracle::watch_for_panics();
    let begun = Instant::now();
    let undisturbed = Arc::new(undisturbed(&lab).await);
    let mut cases = cases::chosen(cases::of(&undisturbed.calls, STAGES[0]), SHARE, |case| {
        format!("{} at {}", case.fault, case.call)
    });
    // The slow ones first, so that nobody waits for them alone.
    cases.sort_by_key(|case| !cases::is_slow(case));
    crate::say(&format!(
        "{} faults at the {} calls of {} scenarios",
        cases.len(),
        undisturbed.calls.len(),
        STAGES.len()
    ));
    let running = cases.iter().map(|case| {
        let (lab, undisturbed) = (&lab, Arc::clone(&undisturbed));
        async move {
            let from = Instant::now();
            let (hit, wrong) = disturbed(lab, &undisturbed, case).await;
            let slow = from.elapsed() > Duration::from_secs(40);
            if slow || !wrong.is_empty() || !hit {
                let took = from.elapsed().as_secs();
                crate::say(&format!("{} at {}: hit {hit}, {took} s {wrong:#?}", case.fault, case.call));
            }
            oracle::note(case.promise, &case.fault.to_string(), 1, usize::from(hit), wrong);
        }
    });
    let mut running = futures::stream::iter(running).buffer_unordered(AT_ONCE).enumerate();
    while let Some((done, ())) = running.next().await {
        if (done + 1) % 50 == 0 {
            crate::say(&format!("{} of {} faults, {} s", done + 1, cases.len(), begun.elapsed().as_secs()));
        }
    }
    crate::say(&format!("all of them in {} s", begun.elapsed().as_secs()));
    let promises = ["K1", "K2", "K3", "K4", "K10", "K11", "K14", "S10"];
    let wrong = oracle::table(&promises);
    assert!(wrong.is_empty(), "{} violations: {wrong:#?}", wrong.len());
    // A call may not come where another one did its work; but what is not met tries nothing.
    let (injected, hit) = oracle::hits(&promises);
    assert!(hit * 20 >= injected * 19, "only {hit} of {injected} faults were met");
}
