//! Every call of four scenarios, and what may go wrong at it: in process, several at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::Value;

use crate::asker::User;
use crate::cases::{self, Case};
use crate::daemon::condition;
use crate::proxy::{Fault, SLOW, Seen};
use crate::rules;
use crate::scene::{STAGES, Scene};
use crate::standing::{self, difference};
use crate::tally;

/// Scenarios that run at once.
pub(crate) const AT_ONCE: usize = 6;
/// The ways that are gone: what served is gone when the next stage begins, or is kept until then for an instant way back.
const WAYS: [Way; 2] = [
    Way { name: "gone", keep: "1s", stages: &STAGES, tried: &STAGES },
    Way { name: "kept", keep: "5m", stages: &["install", "change", "revert"], tried: &["revert"] },
];
/// Of so many cases one is tried for every change.
const SHARE: usize = 20;

/// One way through the stages.
struct Way {
    name: &'static str,
    /// How long what served is kept.
    keep: &'static str,
    stages: &'static [&'static str],
    /// Stages at whose calls something goes wrong.
    tried: &'static [&'static str],
}

/// How a scenario goes when nothing goes wrong.
struct Undisturbed {
    way: &'static Way,
    states: BTreeMap<&'static str, BTreeMap<String, Value>>,
    calls: BTreeMap<&'static str, Vec<Seen>>,
}

/// One fault at one call of somebody.
struct Told {
    undisturbed: Arc<Undisturbed>,
    by: &'static str,
    case: Case,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { undisturbed, by, case } = self;
        write!(f, "{} at {by}'s {} ({})", case.fault, case.call, undisturbed.way.name)
    }
}

async fn undisturbed(way: &'static Way) -> Undisturbed {
    let mut scene = Scene::new(way.keep).await;
    let mut states = BTreeMap::new();
    let mut user = None;
    for &stage in way.stages {
        scene.stage(stage);
        let from = Instant::now();
        let got = if stage == "remove" { user.take().map(User::end) } else { None };
        if let Some(got) = got {
            assert!(got.failed.is_empty() && got.answers > 0, "undisturbed: {got:?}");
        }
        scene.push(stage);
        if stage == "install" {
            scene.start().await;
        }
        scene.arrive(stage).await.unwrap_or_else(|why| panic!("{stage}, undisturbed: {why}\n{}", scene.said()));
        let arrived = from.elapsed();
        if user.is_none() && stage == "install" {
            user = Some(User::start(&scene.lab.front));
        }
        let writes = scene.rounds().await;
        assert!(writes.is_empty(), "{stage}, undisturbed, five rounds later: {writes:?}");
        crate::say(&format!("{stage} undisturbed in {arrived:?}, at rest after {:?}", from.elapsed()));
        states.insert(stage, scene.state().await);
        // Later, their logs are gone.
        let again = scene.started_again();
        assert!(again.is_empty(), "{stage}, undisturbed: {again:?}");
    }
    if let Some(end) = states.get("remove") {
        for gone in ["files/instances", "files/releases", "files/logs/support"] {
            assert_eq!(end[gone], serde_json::json!([]), "{gone} after the end");
        }
        assert_eq!(end["processes"], serde_json::json!({"keepers": 0, "agents": 0}));
    }
    scene.stop().await;
    states.insert("race", directly("race").await);
    let broken = broken_rules(&scene);
    assert!(broken.is_empty(), "undisturbed: {broken:#?}");
    assert!(scene.leftovers().is_empty(), "{:?}", scene.leftovers());
    let calls = [("daemon", scene.daemon.log()), ("supervisor", scene.supervisor.log())];
    Undisturbed { way, states, calls: calls.into() }
}

/// The state of who went to a commit directly.
async fn directly(to: &str) -> BTreeMap<String, Value> {
    let mut scene = Scene::new(WAYS[0].keep).await;
    scene.stage("install");
    scene.push(to);
    scene.start().await;
    scene.arrive(to).await.unwrap_or_else(|why| panic!("undisturbed: {why}"));
    scene.rounds().await;
    let state = serving(scene.state().await);
    scene.stop().await;
    state
}

/// What serves: all but what is kept of what served before, and the ledger.
fn serving(state: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let mut state = standing::serving(state);
    state.retain(|key, object| {
        let of_before = key.starts_with("apps/v1/replicasets/") && object["spec"]["replicas"] == 0;
        !of_before && !key.starts_with("files/releases") && !key.starts_with("files/logs")
    });
    state
}

/// Everything in the history of writes that breaks a rule of safety.
pub(crate) fn broken_rules(scene: &Scene) -> Vec<String> {
    let mut broken = vec![];
    let mut record = Some(Value::Null);
    for seen in scene.daemon.log().iter().filter(|seen| seen.call.writes() && !seen.dry_run) {
        let wrong = rules::of_write(seen, &mut record);
        broken.extend(wrong.into_iter().map(|what| format!("{what}: {}", seen.call)));
        if ["pods", "apps/replicasets"].contains(&seen.call.resource.trim_end_matches("/status")) {
            broken.push(format!("the daemon does what its supervisor does: {}", seen.call));
        }
    }
    broken.extend(told_unready(&scene.supervisor.log()));
    for seen in scene.supervisor.log().iter().filter(|seen| seen.call.writes()) {
        let own = ["pods", "apps/replicasets"].contains(&seen.call.resource.as_str());
        if !own && !seen.call.resource.ends_with("/status") {
            broken.push(format!("the supervisor decides what runs: {}", seen.call));
        }
        let uid = seen.body.pointer("/preconditions/uid").and_then(Value::as_str);
        if seen.call.verb == "delete" && seen.call.resource == "pods" && uid.is_none() {
            broken.push(format!("deleted without saying exactly what: {}", seen.call));
        }
    }
    broken
}

/// Instances of which was told that they are ready no more though nothing was wrong with them: whoever believes that keeps
/// no way back to them.
fn told_unready(calls: &[Seen]) -> Vec<String> {
    let (mut ready, mut retired) = (BTreeSet::new(), BTreeSet::new());
    let mut broken = vec![];
    for Seen { call, body, .. } in calls.iter().filter(|seen| seen.code.is_some_and(|code| code < 300)) {
        let name = call.name.as_str();
        match call.resource.as_str() {
            // Another one of the same name.
            "pods" if call.verb == "create" => _ = (ready.remove(name), retired.remove(name)),
            "pods" if body["metadata"]["annotations"]["backstay.dev/retired"].is_string() => _ = retired.insert(name),
            "pods" => _ = retired.remove(name),
            "pods/status" => {
                let is_ready = condition(&body["status"], "Ready").is_some_and(|ready| ready["status"] == "True");
                if is_ready {
                    ready.insert(name);
                } else if ready.contains(name) && !retired.contains(name) {
                    broken.push(format!("told that {name} is ready no more: {call}"));
                }
            }
            _ => {}
        }
    }
    broken
}

/// Runs the scenario with a fault; tells whether it was met, and all that is wrong then.
async fn disturbed(told: &Told) -> (bool, Vec<String>) {
    let Told { undisturbed, by, case } = told;
    let mut scene = Scene::new(undisturbed.way.keep).await;
    let mut wrong = vec![];
    let mut user: Option<User> = None;
    for &stage in undisturbed.way.stages {
        let here = stage == case.call.stage;
        if stage == "remove" {
            wrong.extend(user.take().map(refusals).unwrap_or_default());
        }
        scene.stage(stage);
        if here {
            scene.of(by).arm(case.call.clone(), case.fault);
        }
        scene.push(stage);
        if stage == "install" {
            scene.start().await;
        }
        let crashes = matches!(case.fault, Fault::CrashBefore | Fault::CrashAfter | Fault::Push);
        let came = if here && crashes {
            // The call may come only when the end is there already, such as what ends what served before.
            let wanted = &undisturbed.states[stage];
            let hit = tokio::select! {
                biased;
                () = scene.of(by).hit() => None,
                came = async { scene.arrive(stage).await.map(|()| scene.converge(wanted)) } => match came {
                    Err(why) => Some(Err(why)),
                    Ok(converged) => tokio::select! {
                        biased;
                        () = scene.of(by).hit() => None,
                        _ = converged => Some(Ok(())),
                    },
                },
            };
            match (hit, case.fault) {
                (Some(came), _) => came,
                (None, Fault::Push) => {
                    scene.push("race");
                    scene.arrive("race").await
                }
                (None, _) => {
                    scene.crash().await;
                    scene.start().await;
                    scene.arrive(stage).await
                }
            }
        } else {
            scene.arrive(stage).await
        };
        if came.is_ok() && stage == "install" {
            user = Some(User::start(&scene.lab.front));
        }
        if !here && came.is_ok() {
            // Each stage begins as it does where nothing goes wrong.
            let differs = scene.converge(&undisturbed.states[stage]).await;
            wrong.extend((!differs.is_empty()).then(|| format!("it went elsewhere: {}", differs.join("; "))));
        }
        if here && came.is_ok() {
            // A call that never came was no moment to push at.
            let pushed = case.fault == Fault::Push && scene.of(by).hits() > 0;
            let wanted = &undisturbed.states[if pushed { "race" } else { stage }];
            let mut differs = if pushed { vec![] } else { scene.converge(wanted).await };
            if case.fault == Fault::Slow {
                // What was asked for slowly may tell of more to do.
                tokio::time::sleep(2 * SLOW).await;
            }
            let writes = scene.rounds().await;
            if !writes.is_empty() {
                wrong.push(format!("after its end it writes: {writes:?}"));
            }
            if pushed {
                differs = difference(wanted, &serving(scene.state().await));
                wrong.extend(rules::mixes(&scene.daemon.log()));
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
        if here || !wrong.is_empty() {
            break;
        }
    }
    wrong.extend(user.take().map(refusals).unwrap_or_default());
    scene.stop().await;
    let hit = scene.of(by).hits() > 0;
    wrong.extend(broken_rules(&scene));
    wrong.extend(scene.started_again());
    wrong.extend(scene.leftovers().into_iter().map(|file| format!("left behind: {file}")));
    wrong.extend(tally::panics());
    if !wrong.is_empty() {
        crate::say(&format!("{told}:\n{}", scene.said()));
    }
    (hit, wrong.into_iter().map(|what| format!("{told}: {what}")).collect())
}

/// Requests of a user that somebody should have answered.
fn refusals(user: User) -> Vec<String> {
    let got = user.end();
    if got.failed.is_empty() {
        return vec![];
    }
    vec![format!("a user got no answer, {} times of {}: {:?}", got.failed.len(), got.answers, got.failed[0])]
}

/// What is tried on a host: its API is in the daemon's own process, so that nothing of a network goes wrong on the way.
pub(crate) fn on_a_host(calls: &[Seen]) -> Vec<Case> {
    let mut cases = cases::of(calls, "install");
    cases.retain(|case| match case.fault {
        Fault::CrashBefore | Fault::CrashAfter | Fault::Lost | Fault::Push | Fault::Slow => true,
        // Nobody is forbidden anything here, nor told to wait.
        Fault::Code(410) => !case.call.writes(),
        Fault::Code(code) => !matches!(code, 403 | 429),
        Fault::Reset => case.call.verb == "watch",
        Fault::Truncated
        | Fault::Silence
        | Fault::Twice
        | Fault::Stale
        | Fault::Dropped
        | Fault::Swapped
        | Fault::Held
        | Fault::Clock(_) => false,
    });
    // Once for each verb and kind, as the codes are. What changes is told within the process, and never late.
    let first = cases.iter().filter(|case| case.fault == Fault::Code(500) && case.call.verb != "watch");
    let slow: Vec<_> = first.map(|case| Case { promise: "K1", fault: Fault::Slow, call: case.call.clone() }).collect();
    cases.extend(slow);
    cases
}

// K1, K4, K10, K11, K14, S10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_call_to_the_hosts_api() {
    tally::watch_for_panics();
    let begun = Instant::now();
    let (mut all, mut calls) = (vec![], 0);
    for way in &WAYS {
        let undisturbed = Arc::new(undisturbed(way).await);
        for (&by, seen) in &undisturbed.calls {
            let mut cases = on_a_host(seen);
            cases.retain(|case| way.tried.contains(&case.call.stage));
            all.extend(cases.into_iter().map(|case| Told { undisturbed: Arc::clone(&undisturbed), by, case }));
            calls += seen.iter().filter(|seen| way.tried.contains(&seen.call.stage)).count();
        }
    }
    let of = all.len();
    let mut told = cases::chosen(all, SHARE, Told::to_string);
    told.sort_by_key(|told| !cases::is_slow(&told.case));
    crate::say(&format!("{} of {of} faults at the {calls} calls of {} ways", told.len(), WAYS.len()));
    let running = told.iter().map(|told| async move {
        let from = Instant::now();
        let (hit, wrong) = disturbed(told).await;
        let slow = from.elapsed() > Duration::from_secs(30);
        if slow || !wrong.is_empty() || !hit {
            crate::say(&format!("{told}: hit {hit}, {} s {wrong:#?}", from.elapsed().as_secs()));
        }
        tally::note(told.case.promise, &told.case.fault.to_string(), 1, usize::from(hit), wrong);
    });
    let mut running = futures::stream::iter(running).buffer_unordered(AT_ONCE).enumerate();
    while let Some((done, ())) = running.next().await {
        if (done + 1) % 25 == 0 {
            crate::say(&format!("{} of {} faults, {} s", done + 1, told.len(), begun.elapsed().as_secs()));
        }
    }
    crate::say(&format!("all of them in {} s", begun.elapsed().as_secs()));
    let promises = ["K1", "K4", "K10", "K11", "K14", "S10"];
    let wrong = tally::table(&promises);
    assert!(wrong.is_empty(), "{} violations: {wrong:#?}", wrong.len());
    // A call may not come where another one did its work; but what is not met tries nothing.
    let (injected, hit) = tally::hits(&promises);
    assert!(hit * 20 >= injected * 17, "only {hit} of {injected} faults were met");
}
