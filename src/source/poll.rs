//! The thread that keeps a mirror current.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::watch::Watch;
use super::{Followed, Mirror, MovePolicy, Polled, RefusedMove, Settled, SourceError, Track};
use crate::model::{CommitId, Revision, Timestamp};

/// The longest time between two polls while they fail, unless the interval itself is longer.
const LONGEST: Duration = Duration::from_mins(10);
/// The shortest time between two polls while they fail, however many hints come.
const GAP: Duration = Duration::from_secs(2);

/// Keeps a mirror current, on a thread of its own; ends with it.
#[derive(Debug)]
pub struct Poller {
    bell: Arc<Bell>,
    wishes: Arc<Mutex<Wishes>>,
    status: watch::Receiver<Arc<SourceStatus>>,
    thread: Option<JoinHandle<()>>,
}

/// What the daemon wants to know of the remote.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// By a name of the caller's choice: what is followed, and the revision that was accepted last.
    pub tracks: BTreeMap<String, (Track, Option<Revision>)>,
    /// Commits that are pinned.
    pub pins: BTreeSet<CommitId>,
    /// What may happen without a person.
    pub policy: MovePolicy,
}

/// How the source is.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// Polls that ended.
    pub round: u64,
    /// Polls that brought objects.
    pub fetches: u64,
    /// Since when the present poll runs.
    pub busy_since: Option<Timestamp>,
    /// When the last poll ended.
    pub last_poll: Option<Timestamp>,
    /// When the last poll ended well.
    pub last_success: Option<Timestamp>,
    /// When the next one is due.
    pub next_poll: Option<Timestamp>,
    /// Polls that failed since the last good one.
    pub failures: u32,
    /// Why the last one failed.
    pub error: Option<SourceError>,
    /// What the last good one saw.
    pub polled: Polled,
    /// What each track came to at the last good one.
    pub settled: BTreeMap<String, Result<Settled, SourceError>>,
}

/// Asks for a poll now. Cheap to clone, never waits.
#[derive(Debug, Clone)]
pub struct Hinter(Arc<Bell>);

/// What wakes the poller: any number of hints before it listens are one.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    hint: bool,
    due: bool,
    stop: bool,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Somebody asked.
    Hint,
    /// The time is over.
    Due,
    /// The poller ends.
    Stop,
}

/// Time, as the poller takes it.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Waits until `bell` rings, or `time` has passed since `since`; hints count only where `hints` says so.
    ///
    /// A clock that was set back makes no wait longer than `time`.
    fn wait(&self, bell: &Bell, since: Timestamp, time: Duration, hints: bool) -> Ring;
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// When to poll next: the interval, or longer and longer while it fails; a tenth more or less.
#[derive(Debug, Clone)]
pub struct Pace {
    interval: Duration,
    failures: u32,
    random: u64,
}

// === impl Pace ===

impl Pace {
    /// A pace that begins well. Equal seeds give equal paces.
    pub fn new(interval: Duration, seed: u64) -> Self {
        Self { interval, failures: 0, random: seed }
    }

    /// The time until the next poll, after one that went well or not.
    pub fn next(&mut self, well: bool) -> Duration {
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
        let longest = LONGEST.max(self.interval);
        let base = self.interval.max(Duration::from_millis(1)).saturating_mul(1 << self.failures.min(16)).min(longest);
        // 900 to 1100 thousandths, by SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let thousandths = u32::try_from(900 + mixed % 201).unwrap_or(1000);
        base.saturating_mul(thousandths) / 1000
    }
}

// === impl Bell ===

impl Bell {
    /// Asks for a poll.
    pub fn ring(&self) {
        self.set(|rung| rung.hint = true);
    }

    /// Says that the time is over; for clocks that are not this machine's.
    pub fn due(&self) {
        self.set(|rung| rung.due = true);
    }

    /// Ends the poller.
    pub fn stop(&self) {
        self.set(|rung| rung.stop = true);
    }

    /// Waits until it rings, for at most `time` of this machine's clock; for ever without.
    pub fn wait(&self, time: Option<Duration>, hints: bool) -> Ring {
        let until = time.map(|time| Instant::now() + time);
        let mut rung = self.lock();
        loop {
            if rung.stop {
                return Ring::Stop;
            }
            if hints && rung.hint {
                rung.hint = false;
                return Ring::Hint;
            }
            if rung.due {
                rung.due = false;
                return Ring::Due;
            }
            rung = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Ring::Due,
                Some(left) => self.changed.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    fn set(&self, change: impl FnOnce(&mut Rung)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Hinter ===

impl Hinter {
    /// Asks for a poll now. While one runs, any number of hints are one more after it.
    pub fn hint(&self) {
        self.0.ring();
    }
}

// === impl SystemClock ===

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn wait(&self, bell: &Bell, since: Timestamp, time: Duration, hints: bool) -> Ring {
        let passed = Duration::try_from(self.now().duration_since(since)).unwrap_or_default();
        bell.wait(Some(time.saturating_sub(passed)), hints)
    }
}

// === impl Wishes ===

impl Wishes {
    fn followed(&self, branch: &str) -> Followed {
        let mut followed = Followed { commits: self.pins.clone(), ..Followed::branch(branch) };
        for (track, _) in self.tracks.values() {
            match track {
                Track::Branch(name) => followed.branches.insert(name.clone()),
                Track::Tag(name) => followed.tags.insert(name.clone()),
                Track::Tags { pattern, .. } => followed.tags.insert(pattern.clone()),
            };
        }
        followed
    }
}

// === impl SourceStatus ===

impl SourceStatus {
    /// The movements that were not followed, by the name of their track.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &RefusedMove)> {
        self.settled.iter().filter_map(|(name, settled)| Some((&**name, settled.as_ref().ok()?.refused.as_ref()?)))
    }
}

// === impl Poller ===

impl Poller {
    /// Starts the thread; it polls at once.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(mirror: Arc<Mirror>, wishes: Wishes, seed: u64, clock: Arc<dyn Clock>) -> Result<Self, SourceError> {
        let bell = Arc::new(Bell::default());
        let wishes = Arc::new(Mutex::new(wishes));
        let (publish, status) = watch::channel(Arc::default());
        let task = Task {
            pace: Pace::new(mirror.config().interval, seed),
            watch: mirror.config().url.local().map(|path| Watch::new(path, Arc::clone(&bell))),
            mirror,
            bell: Arc::clone(&bell),
            wishes: Arc::clone(&wishes),
            clock,
            publish,
            status: SourceStatus::default(),
        };
        let thread = std::thread::Builder::new()
            .name("source".to_owned())
            .spawn(move || task.run())
            .map_err(|error| SourceError::Setup { deed: "start the thread of the source", why: error.to_string() })?;
        Ok(Self { bell, wishes, status, thread: Some(thread) })
    }

    /// What can ask for a poll.
    pub fn hinter(&self) -> Hinter {
        Hinter(Arc::clone(&self.bell))
    }

    /// How the source is, and how it changes. The channel closes when the thread ends, for whatever reason.
    pub fn status(&self) -> watch::Receiver<Arc<SourceStatus>> {
        self.status.clone()
    }

    /// Asks for a poll, and says with which [`SourceStatus::round`] one is done that began after this call.
    pub fn look(&self) -> u64 {
        let now = Arc::clone(&self.status.borrow());
        self.bell.ring();
        now.round + if now.busy_since.is_some() { 2 } else { 1 }
    }

    /// Changes what is wanted, and polls.
    pub fn wish(&self, wishes: Wishes) {
        *self.wishes.lock().unwrap_or_else(PoisonError::into_inner) = wishes;
        self.bell.ring();
    }

    /// Whether the thread ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread; blocks until its present poll is over.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.bell.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there, and closed the channel.
            let _ = thread.join();
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.end();
    }
}

struct Task {
    mirror: Arc<Mirror>,
    bell: Arc<Bell>,
    wishes: Arc<Mutex<Wishes>>,
    clock: Arc<dyn Clock>,
    publish: watch::Sender<Arc<SourceStatus>>,
    status: SourceStatus,
    pace: Pace,
    watch: Option<Watch>,
}

// === impl Task ===

impl Task {
    fn run(mut self) {
        while !self.bell.is_stopped() {
            let (ended, next) = self.poll();
            if self.status.failures > 0 && self.clock.wait(&self.bell, ended, GAP, false) == Ring::Stop {
                return;
            }
            if self.clock.wait(&self.bell, ended, next, true) == Ring::Stop {
                return;
            }
        }
    }

    /// One poll, and what it means; gives when it ended, and how long after that the next one is due.
    fn poll(&mut self) -> (Timestamp, Duration) {
        // Whoever wished before this is seen still hears of it in this round; whoever wishes later waits for the next.
        self.status.busy_since = Some(self.clock.now());
        self.publish.send_replace(Arc::new(self.status.clone()));
        let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let result = self.mirror.poll(&wishes.followed(&self.mirror.config().branch));
        let result = result.and_then(|polled| still_there(&self.mirror, polled));
        let now = self.clock.now();
        let next = self.pace.next(result.is_ok());
        let status = &mut self.status;
        status.round += 1;
        status.busy_since = None;
        status.last_poll = Some(now);
        status.next_poll = now.checked_add(next).ok();
        match result {
            Ok(polled) => {
                status.fetches += u64::from(polled.fetched);
                status.last_success = Some(now);
                status.failures = 0;
                status.error = None;
                status.polled = polled;
                status.settled = settle(&self.mirror, &wishes);
            }
            Err(error) => {
                status.failures = status.failures.saturating_add(1);
                status.error = Some(error);
            }
        }
        if let Some(watch) = &mut self.watch {
            watch.renew();
        }
        self.publish.send_replace(Arc::new(self.status.clone()));
        (now, next)
    }
}

/// A remote that showed something and now shows nothing has lost its data, or is another one: that is said as a failure.
fn still_there(mirror: &Mirror, polled: Polled) -> Result<Polled, SourceError> {
    if polled.empty && !polled.tips.is_empty() {
        let why = "it shows no branch and no tag any more".to_owned();
        return Err(SourceError::NoRepository { url: mirror.config().url.to_string(), why });
    }
    Ok(polled)
}

/// Judges each track, and holds what was accepted.
fn settle(mirror: &Mirror, wishes: &Wishes) -> BTreeMap<String, Result<Settled, SourceError>> {
    let one = |(name, (track, last)): (&String, &(Track, Option<Revision>))| {
        let mut settled = mirror.store().settle(track, last.as_ref(), &wishes.policy);
        if let Err(SourceError::Lost { reference, commit }) = &settled {
            settled = match mirror.recover(reference, commit) {
                Ok(()) => mirror.store().settle(track, last.as_ref(), &wishes.policy),
                Err(error) => Err(error),
            };
        }
        if let (Ok(_), Some(last)) = (&settled, last)
            && let Err(error) = mirror.hold(name, &last.commit)
        {
            tracing::debug!(track = %name, %error, "the accepted commit cannot be held");
        }
        (name.clone(), settled)
    };
    wishes.tracks.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_slows_while_it_fails_and_has_jitter() {
        let interval = Duration::from_secs(30);
        let mut pace = Pace::new(interval, 7);
        let well: Vec<Duration> = (0..200).map(|_| pace.next(true)).collect();
        assert!(well.iter().all(|time| (interval * 9 / 10..=interval * 11 / 10).contains(time)), "{well:?}");
        assert!(well.iter().max() > well.iter().min().map(|least| *least + interval / 10).as_ref());
        let failed: Vec<Duration> = (0..40).map(|_| pace.next(false)).collect();
        assert!(failed[0] >= interval * 18 / 10 && failed[1] >= interval * 36 / 10, "{failed:?}");
        assert!(failed.iter().all(|time| *time <= LONGEST * 11 / 10), "{failed:?}");
        assert!(pace.next(true) <= interval * 11 / 10);
        assert_eq!(Pace::new(interval, 7).next(true), well[0], "equal seeds are equal paces");
    }

    #[test]
    fn any_number_of_hints_are_one() {
        let bell = Bell::default();
        (0..100_000).for_each(|_| bell.ring());
        assert_eq!(bell.wait(Some(Duration::ZERO), false), Ring::Due, "not heard where only the end counts");
        assert_eq!(bell.wait(None, true), Ring::Hint);
        assert_eq!(bell.wait(Some(Duration::ZERO), true), Ring::Due);
        bell.stop();
        assert_eq!(bell.wait(None, false), Ring::Stop);
    }
}
