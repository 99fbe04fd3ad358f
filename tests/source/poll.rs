//! The poll thread: hints, failure, virtual time, a watched folder.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use backstay::model::Timestamp;
use backstay::source::{Bell, Clock, Mirror, Move, Poller, Ring, SourceStatus, Track, Wishes};
use tokio::sync::watch;

use crate::config;
use crate::git::{Answer, GitServer, TestRepo};

/// Time that passes when the test says so.
#[derive(Default)]
pub(crate) struct TestClock(Mutex<Duration>);

impl TestClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.0.lock().expect("the clock") += time;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + *self.0.lock().expect("the clock")
    }

    fn wait(&self, bell: &Bell, since: Timestamp, time: Duration, hints: bool) -> Ring {
        // Virtual time is looked at between short turns of listening; nothing depends on their length.
        loop {
            let heard = bell.wait(Some(Duration::from_millis(2)), hints);
            if heard != Ring::Due || self.now() >= since + time {
                return heard;
            }
        }
    }
}

/// Waits until the status is as wanted; a minute is for ever.
pub(crate) fn until(
    status: &mut watch::Receiver<Arc<SourceStatus>>,
    what: &str,
    wanted: impl Fn(&SourceStatus) -> bool,
) -> Arc<SourceStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let found = tokio::time::timeout(Duration::from_mins(1), status.wait_for(|status| wanted(status))).await;
        let found = found.unwrap_or_else(|_| panic!("did not become {what}"));
        Arc::clone(&found.expect("the poller runs"))
    })
}

fn wishes() -> Wishes {
    let tracks = [("production".to_owned(), (Track::Branch("main".to_owned()), None))].into();
    Wishes { tracks, ..Wishes::default() }
}

fn start(config: backstay::source::SourceConfig, clock: &Arc<TestClock>) -> (Poller, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mirror = Arc::new(Mirror::open(folder.path(), config).expect("a mirror"));
    let poller = Poller::start(mirror, wishes(), 7, Arc::clone(clock) as Arc<dyn Clock>).expect("a poller");
    (poller, folder)
}

// R4
#[test]
fn a_hundred_thousand_hints_are_one_running_and_one_queued_poll() {
    let repo = TestRepo::with_one_commit();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (shut, waiting) = (Arc::new(AtomicBool::new(false)), Arc::clone(&gate));
    let is_closed = Arc::clone(&shut);
    let server = GitServer::http_with(repo.parent(), move |_| {
        if is_closed.load(Ordering::Acquire) {
            let (open, changed) = &*waiting;
            let guard = open.lock().expect("the gate");
            drop(changed.wait_while(guard, |open| !*open).expect("the gate"));
        }
        Answer::Serve
    });
    let clock = TestClock::start();
    let (poller, _folder) = start(config(server.url("agents.git")), &clock);
    let mut status = poller.status();
    let before = until(&mut status, "polled", |status| status.round == 1);
    assert!(before.error.is_none(), "{:?}", before.error);
    let asked = || server.requests().iter().filter(|line| line.contains("info/refs")).count();
    let first = asked();

    shut.store(true, Ordering::Release);
    poller.hinter().hint();
    server.wait_for("info/refs", first + 1);
    let hinter = poller.hinter();
    (0..100_000).for_each(|_| hinter.hint());
    *gate.0.lock().expect("the gate") = true;
    gate.1.notify_all();
    until(&mut status, "done", |status| status.round == 3 && status.busy_since.is_none());
    // A further one would be asked for by now: what is hinted next is the very next round.
    let round = poller.look();
    assert_eq!(round, 4);
    until(&mut status, "done", |status| status.round == 4 && status.busy_since.is_none());
    assert_eq!(asked(), first + 3);
}

// S2
#[test]
fn a_day_without_the_remote_is_a_status_and_nothing_else() {
    let repo = TestRepo::with_one_commit();
    let away = Arc::new(AtomicBool::new(false));
    let is_away = Arc::clone(&away);
    let server = GitServer::http_with(repo.parent(), move |_| {
        if is_away.load(Ordering::Acquire) { Answer::Status("503 Service Unavailable", vec![]) } else { Answer::Serve }
    });
    let clock = TestClock::start();
    let (poller, _folder) = start(config(server.url("agents.git")), &clock);
    let mut status = poller.status();
    let good = until(&mut status, "polled", |status| status.round == 1);
    let wanted = |status: &SourceStatus| status.settled["production"].clone().expect("settled").serve;
    assert_eq!(wanted(&good).expect("a revision").commit, repo.id("main"));
    assert_eq!(good.settled["production"].as_ref().map(|settled| settled.moved.clone()), Ok(Move::First));

    away.store(true, Ordering::Release);
    let mut rounds = 0;
    let mut passed = Duration::ZERO;
    while passed < Duration::from_hours(24) {
        let before = status.borrow().round;
        clock.pass(Duration::from_mins(11));
        passed += Duration::from_mins(11);
        let failed = until(&mut status, "polled", |status| status.round > before && status.busy_since.is_none());
        assert!(failed.error.is_some() && failed.last_success == good.last_success);
        assert_eq!(wanted(&failed), wanted(&good), "what was seen last stays");
        rounds += 1;
    }
    assert!(rounds > 100);
    away.store(false, Ordering::Release);
    clock.pass(Duration::from_mins(11));
    let back = until(&mut status, "back", |status| status.error.is_none() && status.busy_since.is_none());
    assert_eq!(back.failures, 0);
    poller.stop();
}

#[test]
fn a_push_to_a_folder_wakes_the_poller() {
    let repo = TestRepo::with_one_commit();
    let clock = TestClock::start();
    let (poller, _folder) = start(config(repo.url()), &clock);
    let mut status = poller.status();
    until(&mut status, "polled", |status| status.round >= 1 && status.busy_since.is_none());
    // No time passes on this clock: only the folder can wake it.
    for n in 0..3 {
        if n == 2 {
            repo.git(&["pack-refs", "--all"]);
        }
        let tip = repo.commit(&[("a.txt", &format!("{n}\n"))], "again");
        until(&mut status, "woken", |status| status.polled.tips.get("refs/heads/main") == Some(&tip));
    }
}

#[test]
fn refused_movements_are_in_the_status_and_a_wish_changes_that() {
    let repo = TestRepo::with_one_commit();
    let base = repo.id("main");
    let good = repo.commit(&[("a.txt", "two\n")], "second");
    let clock = TestClock::start();
    let (poller, folder) = start(config(repo.url()), &clock);
    let mut status = poller.status();
    until(&mut status, "polled", |status| status.round >= 1);
    let mut wanted = wishes();
    wanted.tracks.insert("production".to_owned(), (Track::Branch("main".to_owned()), Some(crate::at("main", &good))));
    poller.wish(wanted.clone());
    until(&mut status, "judged", |status| {
        status.settled["production"].as_ref().is_ok_and(|settled| settled.moved == Move::Unchanged)
    });
    repo.force("main", &base);
    let refused = until(&mut status, "refused", |status| status.refused().count() == 1);
    let (name, movement) = refused.refused().next().expect("one");
    assert_eq!((name, movement.kept.commit.clone()), ("production", good.clone()));

    let mirror = git2::Repository::open_bare(folder.path().join("mirror.git")).expect("the mirror");
    let held = mirror.references_glob("refs/backstay/accepted/*").expect("references");
    assert_eq!(held.filter_map(Result::ok).filter_map(|held| held.target()).count(), 1, "the accepted one is held");

    wanted.policy.accepted.insert(base.clone());
    poller.wish(wanted);
    let followed = until(&mut status, "accepted", |status| status.refused().count() == 0);
    assert_eq!(followed.settled["production"].clone().expect("settled").serve.expect("a revision").commit, base);
}

#[test]
fn the_poller_ends_when_it_is_told_and_says_so() {
    let repo = TestRepo::with_one_commit();
    let clock = TestClock::start();
    let (poller, _folder) = start(config(repo.url()), &clock);
    let mut status = poller.status();
    until(&mut status, "polled", |status| status.round >= 1);
    assert!(!poller.is_finished());
    poller.stop();
    assert!(status.has_changed().is_err(), "the channel is closed");
}
