//! A bad candidate gets half of the traffic and is taken back, here and in Git, whatever goes wrong meanwhile.

use std::time::{Duration, Instant};

use futures::StreamExt as _;

use crate::asker::User;
use crate::calls::{AT_ONCE, broken_rules, on_a_host};
use crate::cases::{self, Case};
use crate::proxy::{Fault, Seen};
use crate::scene::Scene;
use crate::tally;

/// How long what served is kept.
const KEEP: &str = "1s";
/// Users at a time: what they get is what the judge knows.
const USERS: usize = 4;
/// Of so many cases one is tried for every change.
const SHARE: usize = 30;
const PROMISES: &str = "K1, T3, D9";

/// One fault at one call of somebody.
struct Told {
    by: &'static str,
    case: Case,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}'s {}", self.case.fault, self.by, self.case.call)
    }
}

/// Runs it with a fault or without; whether that was met, what is wrong, and the calls.
async fn run(told: Option<&Told>) -> (bool, Vec<String>, [(&'static str, Vec<Seen>); 2]) {
    let mut scene = Scene::new(KEEP).await;
    scene.stage("canary");
    scene.push("canary");
    scene.start().await;
    let mut wrong: Vec<String> = scene.arrive("canary").await.err().into_iter().collect();
    let good = scene.stable().await;
    let users: Vec<_> = (0..USERS).map(|_| User::start(&scene.lab.front)).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.rounds().await;
    scene.stage("bad");
    if let Some(told) = told {
        scene.of(told.by).arm(told.case.call.clone(), told.case.fault);
    }
    scene.push("bad");
    let crashes = told.filter(|told| matches!(told.case.fault, Fault::CrashBefore | Fault::CrashAfter));
    let came = match crashes {
        None => scene.taken_back().await,
        Some(told) => {
            let came = tokio::select! {
                biased;
                () = scene.of(told.by).hit() => None,
                came = scene.taken_back() => Some(came),
            };
            match came {
                Some(came) => came,
                None => {
                    scene.crash().await;
                    scene.start().await;
                    scene.taken_back().await
                }
            }
        }
    };
    let came = came.is_ok() || came.map_err(|why| wrong.push(why)).is_ok();
    if came {
        if scene.stable().await != good {
            wrong.push("another release is stable than before".to_owned());
        }
        let writes = scene.rounds().await;
        if !writes.is_empty() {
            wrong.push(format!("after its end it writes: {writes:?}"));
        }
        let told = scene.on_top_of("bad");
        let reverts = format!("This reverts commit {}.", scene.story.commits["bad"]);
        if told.len() != 1 || !told[0].contains(&reverts) {
            wrong.push(format!("Git has on top of it: {told:?}"));
        }
    }
    for got in users.into_iter().map(User::end) {
        // The candidate fails: that is what is bad about it. Nobody else does, and nobody is nobody.
        let others = got.failed.iter().filter(|(release, _)| release.is_none() || *release == good);
        wrong.extend(others.take(1).map(|failed| format!("a user got no answer of the old release: {failed:?}")));
    }
    scene.stop().await;
    // What is of the candidate goes with it, and nothing else.
    let is_of_candidate = |what: &String| {
        what.starts_with("deleted what is needed") && !good.as_ref().is_some_and(|good| what.contains(good))
    };
    wrong.extend(broken_rules(&scene).into_iter().filter(|what| !is_of_candidate(what)));
    wrong.extend(scene.started_again());
    wrong.extend(scene.leftovers().into_iter().map(|file| format!("left behind: {file}")));
    wrong.extend(tally::panics());
    if !wrong.is_empty() {
        crate::say(&format!("{}:\n{}", told.map(ToString::to_string).unwrap_or_default(), scene.said()));
    }
    let hit = told.is_some_and(|told| scene.of(told.by).hits() > 0);
    (hit, wrong, [("daemon", scene.daemon.log()), ("supervisor", scene.supervisor.log())])
}

// K1, T3, D9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_candidate_is_taken_back_whatever_fails() {
    tally::watch_for_panics();
    let begun = Instant::now();
    let (_, wrong, calls) = run(None).await;
    assert!(wrong.is_empty(), "undisturbed: {wrong:#?}");
    let mut all = vec![];
    for (by, calls) in calls {
        let mut cases = on_a_host(&calls);
        cases.retain(|case| case.call.stage == "bad");
        all.extend(cases.into_iter().map(|case| Told { by, case }));
    }
    let of = all.len();
    let told = cases::chosen(all, SHARE, Told::to_string);
    crate::say(&format!("{} of {of} faults while a candidate is taken back", told.len()));
    let running = told.iter().map(|told| async move {
        let (hit, wrong, _) = run(Some(told)).await;
        if !wrong.is_empty() || !hit {
            crate::say(&format!("{told}: hit {hit} {wrong:#?}"));
        }
        let wrong = wrong.into_iter().map(|what| format!("{told}: {what}")).collect();
        tally::note(PROMISES, &told.case.fault.to_string(), 1, usize::from(hit), wrong);
    });
    futures::stream::iter(running).buffer_unordered(AT_ONCE).collect::<()>().await;
    crate::say(&format!("all of them in {} s", begun.elapsed().as_secs()));
    let wrong = tally::table(&["T3"]);
    assert!(wrong.is_empty(), "{} violations: {wrong:#?}", wrong.len());
}
