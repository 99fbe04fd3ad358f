//! Taking turns at an API server: how many requests at once, and silence when it asks for it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Requests in flight where nothing else is configured.
const IN_FLIGHT: usize = 32;
/// The longest `Retry-After` that is believed, in seconds.
const LONGEST: u64 = 60;
/// How often a waiting request is put off before it is handed back.
const PATIENCE: usize = 4;

/// Bounds the requests in flight to one API server, and holds all back while the server asks to wait.
///
/// After a `Retry-After` the waiting ones come back spread over half of that time again, so that they are no herd.
pub struct Limiter {
    turns: Semaphore,
    in_flight: usize,
    until: Mutex<Option<Instant>>,
    jitter: Jitter,
}

/// Random numbers to spread waiting with: not for secrets (`SplitMix64`).
pub(crate) struct Jitter(AtomicU64);

// === impl Limiter ===

impl Limiter {
    /// At most `in_flight` requests at once, at least one.
    pub fn new(in_flight: usize) -> Arc<Self> {
        Self::seeded(in_flight, Jitter::seed())
    }

    /// The same with a seed for its jitter.
    pub fn seeded(in_flight: usize, seed: u64) -> Arc<Self> {
        let in_flight = in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let turns = Semaphore::new(in_flight);
        Arc::new(Self { turns, in_flight, until: Mutex::new(None), jitter: Jitter::new(seed) })
    }

    /// Waits for a turn; when the server keeps asking to wait, gives up with the seconds that are left.
    pub(crate) async fn admit(&self) -> Result<SemaphorePermit<'_>, u64> {
        let mut left = Duration::ZERO;
        for _ in 0..PATIENCE {
            // The semaphore is never closed.
            let turn = self.turns.acquire().await.map_err(|_| LONGEST)?;
            let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            match until {
                Some(until) if until > now => left = until - now,
                Some(_) | None => return Ok(turn),
            }
            drop(turn);
            tokio::time::sleep(left + self.jitter.up_to(left.max(Duration::from_secs(1)) / 2)).await;
        }
        Err(left.as_secs().max(1))
    }

    /// Whether more than half of the turns are free.
    pub(crate) fn is_calm(&self) -> bool {
        self.turns.available_permits() * 2 > self.in_flight
    }

    /// Nobody gets a turn for so many seconds, at most 60.
    pub(crate) fn hold(&self, seconds: u64) {
        let until = Instant::now() + Duration::from_secs(seconds.min(LONGEST));
        let mut held = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(held.map_or(until, |earlier| earlier.max(until)));
    }
}

impl Default for Limiter {
    fn default() -> Self {
        let turns = Semaphore::new(IN_FLIGHT);
        Self { turns, in_flight: IN_FLIGHT, until: Mutex::new(None), jitter: Jitter::new(Jitter::seed()) }
    }
}

// === impl Jitter ===

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A seed from the operating system.
    pub(crate) fn seed() -> u64 {
        RandomState::new().hash_one(0)
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Some time below `most`.
    pub(crate) fn up_to(&self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if nanos == 0 { 0 } else { self.next() % nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_bounded_and_a_hold_keeps_all_back() {
        let limiter = Limiter::seeded(1, 7);
        let turn = limiter.admit().await.expect("a turn");
        assert!(tokio::time::timeout(Duration::from_millis(20), limiter.admit()).await.is_err(), "only one at once");
        drop(turn);
        limiter.hold(1);
        let asked = Instant::now();
        let _turn = limiter.admit().await.expect("a turn");
        assert!(asked.elapsed() >= Duration::from_millis(990));
        assert!(asked.elapsed() < Duration::from_millis(1900), "spread over half of the time again");
    }

    // K10
    #[tokio::test]
    async fn those_held_back_do_not_come_as_a_herd() {
        let limiter = Limiter::seeded(100, 7);
        limiter.hold(1);
        let asked = Instant::now();
        let waits = (0..60).map(|_| async {
            let _turn = limiter.admit().await.expect("a turn");
            asked.elapsed().as_millis() / 100
        });
        let mut arrivals = futures::future::join_all(waits).await;
        arrivals.sort_unstable();
        arrivals.dedup();
        assert!(arrivals.len() >= 4, "arrived in {} tenths of a second", arrivals.len());
    }
}
