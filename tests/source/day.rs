//! A day on which Git is away, in every way that there is.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backstay::desired::{At, Cache, Resolve, resolve};
use backstay::model::{ReleaseId, Timestamp};
use backstay::source::{Mirror, Move, NoVerification, Poller, SourceStatus, Track, Wishes};

use crate::back::{production, repository};
use crate::config;
use crate::git::{Answer, GitServer, TestRepo};
use crate::poll::{TestClock, until};

/// Set in the process that lives through the days: how long a silence lasts holds for a whole process.
const ALONE: &str = "SOURCE_DAY";

const MODES: [&str; 8] = [
    "it refuses",
    "it is broken",
    "it is silent",
    "it hangs up",
    "it talks nonsense",
    "it breaks off",
    "it has no branch",
    "there is no repository",
];
/// From here on the repository itself is another one.
const OTHER: usize = 6;

fn answer(mode: usize) -> Answer {
    let list = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n";
    let text = |body: &str| Answer::Raw(format!("{list}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes());
    match mode {
        0 => Answer::Status("403 Forbidden", vec![]),
        1 => Answer::Status("500 Internal Server Error", vec![]),
        2 => Answer::Hang,
        3 => Answer::Raw(vec![]),
        4 => text("<html>Down for maintenance</html>"),
        5 => text("001e# service=git-upload-pack\n0000"),
        _ => Answer::Serve,
    }
}

/// What the environment asks for, as the mirror has it.
fn releases(mirror: &Mirror, status: &SourceStatus) -> BTreeMap<String, ReleaseId> {
    let settled = status.settled["production"].clone().expect("settled");
    let revision = settled.serve.expect("a revision");
    let checkout = mirror.store().verified(&revision, None, &NoVerification).expect("it is there");
    let (environment, pinned, at) = (production(), BTreeMap::new(), At::from(&checkout));
    let now = Timestamp::UNIX_EPOCH;
    let ask = Resolve { environment: &environment, head: at, tracked: at, pinned: &pinned, now, target: None };
    let state = resolve(&mut Cache::default(), &ask).expect("a state");
    let release = |agent: &Result<Arc<backstay::desired::DesiredAgent>, _>| agent.as_ref().expect("good").release.id;
    state.agents.iter().map(|(name, agent)| (name.to_string(), release(agent))).collect()
}

/// Puts an empty repository, or none, in the place of the real one; or that back.
fn other(repo: &TestRepo, mode: usize, away: bool) {
    let hidden = repo.parent().join("hidden.git");
    if !away {
        let _ = std::fs::remove_dir_all(repo.path());
        return std::fs::rename(hidden, repo.path()).expect("back");
    }
    std::fs::rename(repo.path(), hidden).expect("hidden");
    if mode == OTHER {
        repo.plain(&["init", "-q", "--bare", "-b", "main", repo.path().to_str().expect("a path")]);
    }
}

#[expect(clippy::print_stdout, reason = "the process that asked for it listens")]
fn days() {
    let repo = repository();
    let mode = Arc::new(AtomicUsize::new(usize::MAX));
    let asked = Arc::clone(&mode);
    let server = GitServer::http_with(repo.parent(), move |_| answer(asked.load(Ordering::SeqCst)));
    let mut config = config(server.url("agents.git"));
    config.limits.idle = Duration::from_millis(1500);
    config.limits.connect = Duration::from_secs(20);
    let clock = TestClock::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mirror = Arc::new(Mirror::open(folder.path(), config).expect("a mirror"));
    // What was accepted last is known, as the daemon's record has it.
    let last = crate::at("main", &repo.id("main"));
    let tracks = [("production".to_owned(), (Track::Branch("main".to_owned()), Some(last.clone())))].into();
    let wishes = Wishes { tracks, ..Wishes::default() };
    let poller = Poller::start(Arc::clone(&mirror), wishes, 7, Arc::clone(&clock) as _).expect("a poller");
    let mut status = poller.status();
    let good = until(&mut status, "polled", |status| status.round >= 1 && status.busy_since.is_none());
    assert!(good.error.is_none(), "{:?}", good.error);
    let wanted = releases(&mirror, &good);
    assert_eq!(wanted.len(), 3);
    for (number, name) in MODES.into_iter().enumerate() {
        let before = Arc::clone(&status.borrow());
        mode.store(number, Ordering::SeqCst);
        if number >= OTHER {
            other(&repo, number, true);
        }
        let (mut passed, mut rounds) = (Duration::ZERO, 0);
        // A silence takes its time in this world, too.
        let step = if number == 2 { Duration::from_hours(1) } else { Duration::from_mins(11) };
        while passed < Duration::from_hours(24) {
            let round = status.borrow().round;
            clock.pass(step);
            passed += step;
            let now = until(&mut status, "polled", |status| status.round > round && status.busy_since.is_none());
            let settled = now.settled["production"].clone().expect("settled");
            assert_eq!(settled.serve.as_ref(), Some(&last), "{name}: what was accepted stays");
            let error = now.error.as_ref().unwrap_or_else(|| panic!("{name}: the status does not say so"));
            assert!(!error.to_string().is_empty() && now.last_success == before.last_success, "{name}: {error}");
            assert!(now.failures > 0 && settled.refused.is_none(), "{name}: {settled:?}");
            if rounds % 24 == 0 {
                assert_eq!(releases(&mirror, &now), wanted, "{name}: nothing else is asked for");
            }
            rounds += 1;
        }
        assert!(rounds >= 24, "{name}: {rounds}");
        mode.store(usize::MAX, Ordering::SeqCst);
        if number >= OTHER {
            other(&repo, number, false);
        }
        clock.pass(Duration::from_mins(11));
        let back = until(&mut status, "back", |status| {
            let same = status.settled["production"].as_ref().is_ok_and(|settled| settled.moved == Move::Unchanged);
            status.error.is_none() && status.busy_since.is_none() && same
        });
        assert_eq!((back.failures, releases(&mirror, &back)), (0, wanted.clone()), "{name}");
        println!("day: {name}: {rounds} looks");
    }
    poller.stop();
}

// S2
#[test]
fn a_day_without_git_changes_nothing_that_is_asked_for() {
    if std::env::var_os(ALONE).is_some() {
        return days();
    }
    let me = std::env::current_exe().expect("this program");
    let mut command = Command::new(me);
    command
        .args(["--exact", "day::a_day_without_git_changes_nothing_that_is_asked_for", "--nocapture"])
        .env(ALONE, "1");
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let days = said.lines().filter(|line| line.starts_with("day: ")).count();
    assert_eq!(days, MODES.len(), "{said}");
}
