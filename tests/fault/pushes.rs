//! Git is told of a release that went back: by a push that is lost, refused, or overtaken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use tokio::sync::Notify;

use crate::daemon::holds;
use crate::git::{Answer, GitServer};
use crate::lab::{Lab, lab};
use crate::oracle;
use crate::rollouts::{self, End, Undisturbed};
use crate::scene::AGENT;
use crate::standing::{difference, serving};

/// What happens to the first push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It is taken, and the answer is lost.
    Lost,
    /// It is taken, and half of the answer comes.
    Half,
    /// The server has no time.
    Busy,
    /// A hook refuses it.
    Hook,
    /// The daemon dies before it arrives.
    CrashBefore,
    /// The daemon dies before it hears that it was taken.
    CrashAfter,
    /// A person pushes something else at the same time.
    Person,
    /// A person takes the release back at the same time.
    Taken,
}

const ALL: [(Trouble, &str); 8] = [
    (Trouble::Lost, "push: lost reply"),
    (Trouble::Half, "push: reset mid-answer"),
    (Trouble::Busy, "push: 503"),
    (Trouble::Hook, "push: a hook refuses"),
    (Trouble::CrashBefore, "push: crash before"),
    (Trouble::CrashAfter, "push: crash after"),
    (Trouble::Person, "push: a person's first"),
    (Trouble::Taken, "push: a person's revert"),
];

async fn told(lab: &Lab, trouble: Trouble, usual: &Undisturbed) -> (bool, Vec<String>) {
    let mut scene = rollouts::scene(lab).await;
    let (pushes, met) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let (counted, meets) = (Arc::clone(&pushes), Arc::clone(&met));
    let folder = scene.folder().to_owned();
    let story = scene.story;
    let server = GitServer::http_with(scene.folder(), move |request| {
        let is_push = request.method == "POST" && request.path.ends_with("/git-receive-pack");
        if !is_push || counted.fetch_add(1, Ordering::SeqCst) > 0 {
            return Answer::Serve;
        }
        meets.notify_one();
        match trouble {
            Trouble::Lost | Trouble::CrashAfter => Answer::Lose,
            Trouble::Half => Answer::Half,
            Trouble::Busy => Answer::Status("503 Service Unavailable", vec![]),
            Trouble::CrashBefore => Answer::Hang,
            Trouble::Hook => Answer::Serve,
            Trouble::Person => {
                story.set(&folder, "person");
                Answer::Serve
            }
            Trouble::Taken => {
                story.set(&folder, "taken");
                Answer::Serve
            }
        }
    });
    scene.through(&server);
    if trouble == Trouble::Hook {
        let hook = "test -e \"$GIT_DIR/once\" && exit 0; touch \"$GIT_DIR/once\"; echo 'not today' >&2; exit 1";
        rollouts::hook(scene.folder(), "pre-receive", hook);
    }
    scene.proxy.stage("install");
    scene.push("install");
    scene.start().await;
    if let Err(why) = rollouts::arrive(&scene, "install", End::Stable).await {
        return (false, vec![format!("before anything was done: {why}")]);
    }
    scene.proxy.stage("bad");
    scene.push("bad");
    let came = tokio::select! {
        biased;
        () = met.notified() => None,
        came = rollouts::arrive(&scene, "bad", End::Aborted) => Some(came),
    };
    if let Some(came) = came {
        return (false, came.err().into_iter().collect());
    }
    let mut wrong = vec![];
    // It tries again in two minutes, or as soon as it is started again.
    if trouble == Trouble::Hook && !crate::everything() {
        let refused = async || {
            let release = scene.see("backstay.dev/v1alpha1/agentreleases", AGENT).await.unwrap_or_default();
            release["status"]["quarantine"][0]["git"]["refused"].as_str().is_some_and(|why| why.contains("not today"))
        };
        wrong.extend(scene.comes_to(refused).await.err().map(|why| format!("what the hook says is not told: {why}")));
    }
    let restarts = matches!(trouble, Trouble::CrashBefore | Trouble::CrashAfter | Trouble::Hook);
    if restarts && !(trouble == Trouble::Hook && crate::everything()) {
        scene.crash();
        scene.start().await;
    }
    let came = if trouble == Trouble::Taken {
        let agrees = async || {
            let release = scene.see("backstay.dev/v1alpha1/agentreleases", AGENT).await.unwrap_or_default();
            let record = &release["status"];
            let idle = record["operation"].is_null() && record["differs"].is_null() && holds(record, "Ready", "");
            idle && scene.accepted(&story.commits["taken"]).await
        };
        scene.comes_to(agrees).await
    } else {
        rollouts::arrive(&scene, "bad", End::Aborted).await
    };
    match came {
        Err(why) => wrong.push(why),
        Ok(()) => {
            let wanted = &usual.states["bad"];
            let alone = !matches!(trouble, Trouble::Person | Trouble::Taken);
            let late = if alone { scene.converge(wanted).await } else { vec![] };
            let writes = scene.rounds().await;
            wrong.extend(writes.into_iter().map(|call| format!("after its end it writes: {call}")));
            let differs = match (alone, late.is_empty()) {
                (true, true) => difference(wanted, &scene.state().await),
                (true, false) => late,
                (false, _) => difference(&serving(wanted.clone()), &serving(scene.state().await)),
            };
            wrong.extend(differs.into_iter().map(|what| format!("it ends elsewhere: {what}")));
            let on = if trouble == Trouble::Person { "person" } else { "bad" };
            wrong.extend(if trouble == Trouble::Taken {
                rollouts::added(&scene, &story.commits["taken"], 0)
            } else {
                rollouts::wrong_in_git(&scene, on, "bad", "install")
            });
        }
    }
    scene.stop().await;
    scene.clear().await;
    wrong.extend(rollouts::ever_wrong(&scene));
    if !wrong.is_empty() {
        crate::say(&format!("{trouble:?}: {wrong:#?}\n{}", scene.said()));
    }
    (true, wrong)
}

// D9, D10, D11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_is_told_once_whatever_happens_to_the_push() {
    let Some(lab) = lab("pushes").await else { return };
    oracle::watch_for_panics();
    let usual = rollouts::aborted(&lab).await;
    let (lab, usual) = (&lab, &usual);
    let runs = ALL.into_iter().map(|(trouble, name)| async move {
        let (hit, wrong) = told(lab, trouble, usual).await;
        oracle::note("D9, D10, D11", name, 1, usize::from(hit), wrong);
    });
    futures::stream::iter(runs).buffer_unordered(4).collect::<()>().await;
    let wrong: Vec<_> = oracle::table(&["D10"]).into_iter().filter(|what| what.contains("push: ")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
