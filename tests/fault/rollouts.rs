//! Rollouts, with pods: every call of theirs, and what may go wrong at it; and Git, which is told of what went back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::cases::{self, Case};
use crate::daemon::{Repo, condition, holds, program};
use crate::lab::{Lab, lab, lab_alone, part};
use crate::oracle;
use crate::proxy::{Call, Fault, Seen};
use crate::scene::{AGENT, Scene, Story, path};
use crate::server::{Reply, Server};
use crate::standing::{difference, differing, serving};
use crate::traffic;

/// Of so many cases one is tried for every change; all of them with `BACKSTAY_FAULTS=all`.
const SHARE: usize = 16;
/// Scenarios that run at once: each has up to four pods.
const AT_ONCE: usize = 10;
/// Of those that wait for minutes, and do nothing then.
const WAITING_AT_ONCE: usize = 40;
/// Longer than a pod goes on serving after it was asked to end: what belongs to it goes after it.
const LEAVES: Duration = Duration::from_secs(7);
/// How wrong a clock is, in hours: one, and ten years.
const JUMPS: [i64; 4] = [1, -1, 87_660, -87_660];
/// What all of it is about.
const PROMISES: [&str; 7] = ["T1", "T3", "S10", "D9", "D10", "D11", "F2"];

const OVERLAY: &str = "environments/development/support.yaml";
/// One pod and a pause, half of the traffic for a second, and then all of it, watched for one; nobody asks anything.
const CANARY: &str = "
rollout:
  strategy: {canary: {steps: [{replicas: 1}, {pause: {for: 1s}}, {weight: 50, for: 1s}]}}
  analysis: {load: {provider: numbers, query: '$.load', max: 10}}
  onUndecided: advance
  rollback: {bake: 1s, cooldown: 0s}
";

/// How a stage ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its release is stable.
    Stable,
    /// It waits for a person.
    Held,
    /// Its release is in quarantine, and Git says so.
    Aborted,
    /// Its release is in quarantine from before, and stays out.
    Out,
}

/// What happens to an agent, in this order; nothing goes wrong in its first stage.
struct Scenario {
    name: &'static str,
    promises: &'static str,
    stages: &'static [(&'static str, End)],
}

const ALL: [Scenario; 5] = [
    Scenario {
        name: "canary with promotion",
        promises: "T1, T3",
        stages: &[("install", End::Stable), ("better", End::Stable)],
    },
    Scenario {
        name: "canary with abort and revert",
        promises: "T1, T3, D9, D10, D11",
        stages: &[("install", End::Stable), ("bad", End::Aborted), ("again", End::Out)],
    },
    Scenario {
        name: "candidate that is never ready",
        promises: "T1, T3, D9, D10, D11",
        stages: &[("install", End::Stable), ("unready", End::Aborted), ("again", End::Out)],
    },
    Scenario {
        name: "blue-green switch and back",
        promises: "T1, T3",
        stages: &[("switch", End::Stable), ("switched", End::Stable), ("back", End::Stable)],
    },
    Scenario {
        name: "superseding commit",
        promises: "T1, T3, S10",
        stages: &[("install", End::Stable), ("held", End::Held), ("third", End::Stable)],
    },
];

/// How a scenario goes when nothing goes wrong.
pub(crate) struct Undisturbed {
    /// By stage, where it comes to rest; and `race`, where a commit came in the midst of it.
    pub(crate) states: BTreeMap<&'static str, BTreeMap<String, Value>>,
    calls: Vec<Seen>,
}

fn story() -> &'static Story {
    static STORY: OnceLock<Story> = OnceLock::new();
    STORY.get_or_init(|| {
        let repo = Repo::small();
        for gone in ["staging.yaml", "production.yaml", "staging", "production"] {
            repo.git(&["rm", "-r", "-q", &format!("environments/{gone}")]);
        }
        repo.edit(OVERLAY, "replicas: 1\n", "replicas: 2\n");
        let rolling = repo.read(OVERLAY).trim_end().to_owned();
        repo.commit("One agent, two pods");
        let base = repo.head();
        let mut commits = BTreeMap::new();
        let mut step = |name: &'static str, on: &str, edit: &dyn Fn()| {
            repo.git(&["checkout", "-q", "-f", "-B", name, on]);
            edit();
            repo.git(&["add", "-A"]);
            repo.git(&["commit", "-q", "-m", &format!("Go on to {name}")]);
            commits.insert(name, repo.head());
        };
        let rolls = |strategy: &str| repo.write(OVERLAY, &format!("{rolling}{strategy}"));
        let misbehaves = |how: &str| {
            let with = format!("progressDeadline: 60s\nconfig: {{demo: {{{how}}}}}\n");
            repo.edit(OVERLAY, "progressDeadline: 60s\n", &with);
        };
        step("install", &base, &|| rolls(CANARY));
        step("better", "install", &|| repo.greet("Ahoy!"));
        step("race", "better", &|| repo.greet("Moin!"));
        step("bad", "install", &|| misbehaves("crash: true"));
        step("unready", "install", &|| {
            misbehaves("notReady: true");
            repo.edit(OVERLAY, "progressDeadline: 60s\n", "progressDeadline: 4s\n");
        });
        step("held", "install", &|| {
            repo.edit(OVERLAY, "{pause: {for: 1s}}", "{pause: {}}");
            repo.greet("Moin!");
        });
        step("third", "held", &|| {
            repo.edit(OVERLAY, "{pause: {}}", "{pause: {for: 1s}}");
            repo.greet("Servus!");
        });
        step("switch", &base, &|| {
            rolls(&CANARY.replace(
                "{canary: {steps: [{replicas: 1}, {pause: {for: 1s}}, {weight: 50, for: 1s}]}}",
                "{blueGreen: {keepOld: 1s}}",
            ));
        });
        step("switched", "switch", &|| repo.greet("Ahoy!"));
        step("person", "bad", &|| repo.write("NOTES.md", "Alice looks after it.\n"));
        for (name, on) in [("back", "switched"), ("taken", "bad")] {
            repo.git(&["checkout", "-q", "-f", "-B", name, on]);
            repo.git(&["revert", "--no-edit", "HEAD"]);
            commits.insert(name, repo.head());
        }
        repo.git(&["push", "-q", "-f", "--all", "origin"]);
        Story::of(repo, commits)
    })
}

/// Who is asked for the agent's figures.
fn numbers() -> &'static Server {
    static NUMBERS: OnceLock<Server> = OnceLock::new();
    NUMBERS.get_or_init(|| Server::start(|_| Reply::Says(200, "application/json", json!({"load": 1}).to_string())))
}

/// An environment whose agent has pods.
pub(crate) async fn scene(lab: &Lab) -> Scene<'_> {
    scene_asking(lab, numbers()).await
}

/// The same, where somebody else is asked for figures.
pub(crate) async fn scene_asking<'l>(lab: &'l Lab, numbers: &Server) -> Scene<'l> {
    program();
    let mut scene = Scene::of(lab, story()).await;
    scene.more = format!("[metrics.numbers]\njson = {{ url = \"http://{}\" }}\n", numbers.address);
    scene.proxy.watch(traffic::look());
    let secret = json!({
        "metadata": {"name": "agent-secrets"},
        "stringData": {"openai-api-key": "sk-test", "database-url": "postgres://nobody@localhost/none"},
    });
    lab.ask(Method::POST, &path(&scene.namespace, "secrets"), Some(secret)).await.expect("a secret");
    scene
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("--git-dir").arg(folder.join("repo.git")).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Alice Example").env(format!("GIT_{who}_EMAIL"), "alice@example.com");
        command.env(format!("GIT_{who}_DATE"), "1790000000 +0000");
    }
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

// === one stage ===

/// Moves the branch; what is refused comes again on top of what Backstay wrote.
fn push(scene: &Scene<'_>, scenario: &Scenario, stage: &str) {
    if stage != "again" {
        return scene.push(stage);
    }
    let bad = &scene.story.commits[scenario.stages[1].0];
    let tree = format!("{bad}^{{tree}}");
    let again = git(scene.folder(), &["commit-tree", "-p", "refs/heads/main", "-m", "Once more", &tree]);
    git(scene.folder(), &["update-ref", "refs/heads/main", &again]);
}

pub(crate) async fn arrive(scene: &Scene<'_>, stage: &'static str, end: End) -> Result<(), String> {
    match end {
        End::Stable => scene.arrive(stage).await,
        End::Held | End::Aborted | End::Out => scene.comes_to(async || is_at(scene, stage, end).await).await,
    }
}

async fn is_at(scene: &Scene<'_>, stage: &str, end: End) -> bool {
    let Some(release) = scene.see("backstay.dev/v1alpha1/agentreleases", AGENT).await else { return false };
    let record = &release["status"];
    let tip = git(scene.folder(), &["rev-parse", "refs/heads/main"]);
    let idle = record["operation"].is_null();
    match end {
        End::Stable => false,
        End::Held => {
            let asks = condition(record, "Progressing").and_then(|found| found["message"].as_str());
            let commit = &scene.story.commits[stage];
            let here = record["candidate"]["revision"].as_str().is_some_and(|revision| revision.ends_with(commit));
            here && asks.is_some_and(|message| message.contains("backstay promote"))
        }
        End::Aborted => {
            let told = record["quarantine"][0]["git"]["commit"].is_string();
            idle && told && record["differs"].is_null() && holds(record, "Ready", "") && scene.accepted(&tip).await
        }
        End::Out => {
            let environment = scene.see("backstay.dev/v1alpha1/agentenvironments", "development").await;
            let accepted = environment.map(|found| found["status"]["accepted"].to_string()).unwrap_or_default();
            idle && record["differs"]["why"].is_string() && accepted.contains(&tip)
        }
    }
}

/// What is wrong with what a stage left, whatever went wrong in it.
async fn wrong_after(scene: &Scene<'_>, scenario: &Scenario, stage: &'static str, end: End) -> Vec<String> {
    let mut wrong = vec![];
    if end == End::Aborted {
        wrong.extend(wrong_in_git(scene, stage, stage, scenario.stages[0].0));
    }
    if end == End::Out {
        let added = git(scene.folder(), &["log", "-1", "--format=%s", "refs/heads/main"]);
        wrong.extend((added != "Once more").then(|| format!("D9: Git is told once more: {added}")));
    }
    // Nothing half done: all that has a release's name is of the one that is stable, but for files of the history.
    if end != End::Held {
        let release = scene.see("backstay.dev/v1alpha1/agentreleases", AGENT).await.unwrap_or_default();
        let id = release["status"]["stable"]["release"].as_str().unwrap_or_default().to_owned();
        let kept = format!("--r-{}", id.get(..12).unwrap_or_default());
        for collection in ["apps/v1/deployments", "services"] {
            let list = scene.lab.ask(Method::GET, &path(&scene.namespace, collection), None).await.expect("a list");
            for object in list["items"].as_array().expect("a list") {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                if name.contains("--r-") && !name.ends_with(&kept) && object["metadata"]["deletionTimestamp"].is_null()
                {
                    wrong.push(format!("T3: {name} is left behind at {stage}"));
                }
            }
        }
    }
    wrong
}

/// Git has one commit more than that of `on`, which takes back exactly `bad`: all is as at `first`, but for what `on` adds.
pub(crate) fn wrong_in_git(scene: &Scene<'_>, on: &str, bad: &str, first: &str) -> Vec<String> {
    let ask = |arguments: &[&str]| git(scene.folder(), arguments);
    let commit = |stage: &str| scene.story.commits[stage].as_str();
    let mut wrong = added(scene, commit(on), 1);
    let message = ask(&["log", "-1", "--format=%B", "refs/heads/main"]);
    if !message.contains(&format!("This reverts commit {}.", commit(bad))) || !message.contains("Backstay-Reason: ") {
        wrong.push(format!("D10: it does not say what it takes back: {message}"));
    }
    let differs = |one: &str, other: &str| ask(&["diff", "--stat", one, other]);
    let (kept, found) = (differs(commit(bad), commit(on)), differs(commit(first), "refs/heads/main"));
    if kept != found {
        wrong.push(format!("D11: it is another tree: {found}"));
    }
    wrong
}

/// What is wrong with the number of commits that Backstay added to `on`.
pub(crate) fn added(scene: &Scene<'_>, on: &str, count: usize) -> Vec<String> {
    let added = git(scene.folder(), &["log", "--format=%H %s", &format!("{on}..refs/heads/main")]);
    (added.lines().count() != count).then(|| format!("D9: not {count} commits, but {added:?}")).into_iter().collect()
}

/// Puts a hook of the scene's repository in place: a line of shell.
pub(crate) fn hook(folder: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let file = folder.join("repo.git/hooks").join(name);
    std::fs::create_dir_all(file.parent().expect("a parent")).expect("a folder for hooks");
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a hook");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

// === a whole scenario ===

async fn undisturbed(lab: &Lab, scenario: &'static Scenario) -> Undisturbed {
    let mut scene = scene(lab).await;
    let mut states = BTreeMap::new();
    for (number, &(stage, end)) in scenario.stages.iter().enumerate() {
        scene.proxy.stage(stage);
        push(&scene, scenario, stage);
        if number == 0 {
            scene.start().await;
        }
        let name = scenario.name;
        if let Err(why) = arrive(&scene, stage, end).await {
            panic!("{name}, {stage}, undisturbed: {why}\n{}", scene.said());
        }
        // What is left of a stage goes by the cluster's own hands, and on a busy machine they are slow.
        scene.quiet(LEAVES).await;
        let writes = scene.rounds().await;
        let mut wrong = wrong_after(&scene, scenario, stage, end).await;
        wrong.extend(writes.into_iter().map(|call| format!("five rounds later: {call}")));
        if !wrong.is_empty() {
            crate::say(&way(&scene));
            panic!("{name}, {stage}, undisturbed: {wrong:#?}\n{}", scene.said());
        }
        if end != End::Held {
            states.insert(stage, scene.state().await);
        }
    }
    scene.stop().await;
    scene.clear().await;
    let calls = scene.proxy.log();
    let mut broken = oracle::broken_rules(&calls, &scene.namespace);
    broken.extend(scene.proxy.found());
    assert!(broken.is_empty(), "{}, undisturbed: {broken:#?}", scenario.name);
    Undisturbed { states, calls }
}

/// What was written, and what each record changed: for people who look for the reason of a failure.
fn way(scene: &Scene<'_>) -> String {
    let mut before = Value::Null;
    let mut bodies = BTreeMap::<(String, String), Value>::new();
    let mut text = String::new();
    for seen in scene.proxy.log() {
        if !seen.call.writes() || seen.dry_run || seen.call.is_lease() || seen.call.resource.ends_with("/events") {
            continue;
        }
        let _ = writeln!(text, "{} {:?}", seen.call, seen.code);
        if seen.call.resource == "agentreleases/status" {
            let status = &seen.body["status"];
            differing(&before, status).iter().for_each(|line| text += &format!("    {line}\n"));
            before.clone_from(status);
        } else if let Some(old) = bodies.insert((seen.call.resource, seen.call.name), seen.body.clone()) {
            differing(&old, &seen.body).iter().for_each(|line| text += &format!("    {line}\n"));
        }
    }
    text
}

/// How the candidate that crashes goes back when nothing goes wrong.
pub(crate) async fn aborted(lab: &Lab) -> Undisturbed {
    undisturbed(lab, &ALL[1]).await
}

/// Two runs of a scenario: they end alike, and only a call that came in both is one that can be waited for.
async fn twice(lab: &Lab, scenario: &'static Scenario) -> Undisturbed {
    let (mut one, other) = tokio::join!(undisturbed(lab, scenario), undisturbed(lab, scenario));
    for (stage, state) in &one.states {
        let differs = difference(state, &other.states[stage]);
        assert!(differs.is_empty(), "{}, {stage}: two runs end elsewhere: {differs:#?}", scenario.name);
    }
    let came: BTreeSet<&Call> = other.calls.iter().map(|seen| &seen.call).collect();
    one.calls.retain(|seen| came.contains(&seen.call));
    one
}

/// The state of who went to a commit directly.
async fn directly(lab: &Lab, to: &'static str) -> BTreeMap<String, Value> {
    let mut scene = scene(lab).await;
    scene.proxy.stage("install");
    scene.push(to);
    scene.start().await;
    scene.arrive(to).await.unwrap_or_else(|why| panic!("undisturbed: {why}"));
    let state = serving(scene.state().await);
    scene.stop().await;
    scene.clear().await;
    state
}

/// Runs a scenario with a fault; tells whether it was met, and all that is wrong then.
async fn disturbed(lab: &Lab, scenario: &Scenario, usual: &Undisturbed, case: &Case) -> (bool, Vec<String>) {
    let mut scene = scene(lab).await;
    scene.forgets = matches!(case.fault, Fault::Clock(_));
    let mut wrong = vec![];
    let spans = matches!(case.fault, Fault::Dropped | Fault::Swapped);
    let mut after = false;
    for (number, &(stage, end)) in scenario.stages.iter().enumerate() {
        let here = stage == case.call.stage;
        if here && case.fault == Fault::Stale {
            scene.proxy.snapshot().await;
        }
        scene.proxy.stage(stage);
        if here {
            scene.proxy.arm(case.call.clone(), case.fault);
        }
        push(&scene, scenario, stage);
        if number == 0 {
            scene.start().await;
        }
        after |= here;
        let came = if here { strike(&mut scene, case, stage, end).await } else { arrive(&scene, stage, end).await };
        let pushed = here && case.fault == Fault::Push && scene.proxy.hits() > 0;
        if (after || spans) && came.is_ok() && end != End::Held {
            let wanted = &scene.comparable(usual.states[if pushed { "race" } else { stage }].clone());
            let mut differs = if pushed { vec![] } else { scene.converge(wanted).await };
            if pushed {
                scene.quiet(LEAVES).await;
            }
            let writes = scene.rounds().await;
            if !writes.is_empty() {
                wrong.push(format!("after its end it writes: {writes:?}"));
            }
            if pushed {
                differs = difference(wanted, &serving(scene.state().await));
                wrong.extend(oracle::mixes(&scene.proxy.log()));
            } else if differs.is_empty() {
                differs = difference(wanted, &scene.state().await);
            }
            if !differs.is_empty() {
                wrong.push(format!("it ends elsewhere: {}", differs.join("; ")));
            }
            wrong.extend(wrong_after(&scene, scenario, stage, end).await);
        } else if came.is_ok() && end != End::Held {
            // What is left of a stage goes before the next one begins, as it does undisturbed.
            wrong.extend(scene.converge(&scene.comparable(usual.states[stage].clone())).await);
        }
        if let Err(why) = came {
            wrong.push(why);
        }
        if !wrong.is_empty() {
            break;
        }
    }
    scene.stop().await;
    scene.clear().await;
    let hit = scene.proxy.hits() > 0;
    wrong.extend(ever_wrong(&scene));
    if !wrong.is_empty() {
        let at = format!("{}: {} at {}", scenario.name, case.fault, case.call);
        crate::say(&format!("{at}:\n{}{}", way(&scene), scene.said()));
    }
    (hit, wrong.into_iter().map(|what| format!("{} at {}: {what}", case.fault, case.call)).collect())
}

/// What must never be, at any write, and what must not be left.
pub(crate) fn ever_wrong(scene: &Scene<'_>) -> Vec<String> {
    let mut wrong = oracle::broken_rules(&scene.proxy.log(), &scene.namespace);
    wrong.extend(scene.proxy.found());
    wrong.extend(scene.leftovers().into_iter().map(|file| format!("left behind: {file}")));
    wrong.extend(oracle::panics());
    wrong
}

/// What a fault means for the daemon's process and for Git, and the end of its stage.
async fn strike(scene: &mut Scene<'_>, case: &Case, stage: &'static str, end: End) -> Result<(), String> {
    let ends =
        matches!(case.fault, Fault::CrashBefore | Fault::CrashAfter | Fault::Stale | Fault::Push | Fault::Clock(_));
    if !ends {
        return arrive(scene, stage, end).await;
    }
    let came = tokio::select! {
        biased;
        () = scene.proxy.hit() => None,
        came = arrive(scene, stage, end) => Some(came),
    };
    if let Some(came) = came {
        return came;
    }
    if case.fault == Fault::Push {
        scene.push("race");
        return scene.arrive("race").await;
    }
    scene.crash();
    // Long enough to decide and to write on what it was shown, or by a wrong clock.
    if case.fault == Fault::Stale {
        scene.proxy.stale(true);
        scene.start().await;
        let _ = tokio::time::timeout(Duration::from_secs(2), arrive(scene, stage, end)).await;
        scene.proxy.stale(false);
        return arrive(scene, stage, end).await;
    }
    if let Fault::Clock(hours) = case.fault {
        scene.ahead = SignedDuration::from_hours(hours);
        scene.start().await;
        let _ = tokio::time::timeout(Duration::from_secs(4), arrive(scene, stage, end)).await;
        scene.crash();
        scene.ahead = SignedDuration::ZERO;
    }
    scene.start().await;
    arrive(scene, stage, end).await
}

/// The cases of a scenario: those of every other, and at each write of it another commit and a wrong clock.
fn cases_of(scenario: &'static Scenario, calls: &[Seen]) -> Vec<Case> {
    let first = scenario.stages[0].0;
    // What is pushed on top of Backstay's own commit is another commit each time, and tries nothing new.
    let later = |call: &Call| scenario.stages[1..].iter().any(|&(stage, end)| stage == call.stage && end != End::Out);
    let concerns = |call: &Call| later(call) || call.stage == first && call.verb == "watch";
    let concerned: Vec<_> = calls.iter().filter(|seen| concerns(&seen.call)).cloned().collect();
    let mut all = cases::of(&concerned, first);
    // A watch is opened before, and fails later.
    all.retain(|case| later(&case.call) || matches!(case.fault, Fault::Dropped | Fault::Swapped));
    all.retain(|case| case.fault != Fault::Push);
    for case in &mut all {
        case.promise = scenario.promises;
    }
    let writes = calls.iter().filter(|seen| {
        let own = seen.call.is_lease() || seen.call.resource.ends_with("/events");
        seen.call.writes() && !own && !seen.dry_run && later(&seen.call)
    });
    for (number, seen) in writes.enumerate() {
        let call = seen.call.clone();
        if call.stage == "better" {
            all.push(Case { promise: "T1, T3, S10", call: call.clone(), fault: Fault::Push });
        }
        all.push(Case { promise: "F2", call, fault: Fault::Clock(JUMPS[number % JUMPS.len()]) });
    }
    all
}

// T3, R1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_that_run_pods_die_and_stop_during_a_rollout() {
    let Some(lab) = lab_alone("pod-parts").await else { return };
    let scenario = &ALL[0];
    let usual = undisturbed(&lab, scenario).await;
    let [(first, _), (stage, end)] = scenario.stages else { panic!("two stages") };
    for name in ["scheduler", "kubelet", "controller-manager"] {
        for (ends, begins) in [("kill", "start"), ("stop", "cont")] {
            let mut scene = scene(&lab).await;
            scene.proxy.stage(first);
            push(&scene, scenario, first);
            scene.start().await;
            let mut wrong: Vec<String> = scene.arrive(first).await.err().into_iter().collect();
            part(ends, name);
            scene.proxy.stage(stage);
            push(&scene, scenario, stage);
            // Long enough for the candidate to be made, and to wait for what does not come.
            tokio::time::sleep(Duration::from_secs(3)).await;
            part(begins, name);
            wrong.extend(arrive(&scene, stage, *end).await.err());
            wrong.extend(scene.converge(&usual.states[stage]).await);
            let writes = scene.rounds().await;
            wrong.extend((!writes.is_empty()).then(|| format!("after its end it writes: {writes:?}")));
            wrong.extend(wrong_after(&scene, scenario, stage, *end).await);
            scene.stop().await;
            scene.clear().await;
            wrong.extend(ever_wrong(&scene));
            if !wrong.is_empty() {
                crate::say(&format!("{ends} {name}: {wrong:#?}\n{}{}", way(&scene), scene.said()));
            }
            oracle::note("R1", &format!("{ends} {name}"), 1, 1, wrong);
        }
    }
    let wrong = oracle::table(&["R1"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// T1, T3, S10, D9, D10, D11, F2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_call_of_a_rollout() {
    let Some(lab) = lab("rollouts").await else { return };
    oracle::watch_for_panics();
    let begun = Instant::now();
    let lab = &lab;
    let race = directly(lab, "race");
    let all = futures::future::join_all(ALL.iter().map(|scenario| twice(lab, scenario)));
    let (race, mut usual) = tokio::join!(race, all);
    usual[0].states.insert("race", race);
    let mut chosen = vec![];
    for (scenario, usual) in ALL.iter().zip(&usual) {
        let cases = cases_of(scenario, &usual.calls);
        crate::say(&format!("{}: {} calls, {} faults", scenario.name, usual.calls.len(), cases.len()));
        chosen.extend(cases.into_iter().map(|case| (scenario, usual, case)));
    }
    let mut chosen = cases::chosen(chosen, SHARE, |(scenario, _, case)| {
        format!("{}: {} at {}", scenario.name, case.fault, case.call)
    });
    if !crate::everything() && std::env::var_os("BACKSTAY_FAULT").is_none() {
        // What is met after minutes is for who has them.
        chosen.retain(|(_, _, case)| !cases::is_slow(case));
    }
    let (waiting, quick): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(_, _, case)| cases::is_slow(case));
    let all = waiting.len() + quick.len();
    crate::say(&format!("rollouts: {all} faults, after {} s", begun.elapsed().as_secs()));
    let done = AtomicUsize::new(0);
    let try_all = async |cases: Vec<(&Scenario, &Undisturbed, Case)>, at_once: usize| {
        let all_of_them = futures::stream::iter(cases).for_each_concurrent(at_once, async |(scenario, usual, case)| {
            let from = Instant::now();
            let (hit, wrong) = disturbed(lab, scenario, usual, &case).await;
            let took = from.elapsed().as_secs();
            if took > 180 || !wrong.is_empty() || !hit {
                let name = scenario.name;
                crate::say(&format!("{name}: {} at {}: hit {hit}, {took} s {wrong:#?}", case.fault, case.call));
            }
            oracle::note(case.promise, &case.fault.to_string(), 1, usize::from(hit), wrong);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(50) {
                crate::say(&format!("rollouts: {done} of {all} faults, {} s", begun.elapsed().as_secs()));
            }
        });
        all_of_them.await;
    };
    tokio::join!(try_all(waiting, WAITING_AT_ONCE), try_all(quick, AT_ONCE));
    crate::say(&format!("rollouts: all of them in {} s", begun.elapsed().as_secs()));
    let wrong = oracle::table(&PROMISES);
    assert!(wrong.is_empty(), "{} violations: {wrong:#?}", wrong.len());
    // Two ways of the same end make other calls; but what is not met tries nothing.
    let (injected, hit) = oracle::hits(&PROMISES);
    assert!(hit * 10 >= injected * 9, "only {hit} of {injected} faults were met");
}
