//! Time as a value that tests can hold.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use crate::model::Timestamp;

/// What time it is: the calendar's for people, and one that only goes forward for leases.
pub trait Clock: Send + Sync {
    /// The calendar's time; may jump.
    fn now(&self) -> Timestamp;
    /// Time since some moment of this process's; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
///
/// # Guarantees
///
/// The time of day is the machine's as long as that one is steady. A jump of up to 15 minutes is made up little by little, so
/// that a deadline is a tenth off at the most: nothing is given up or kept because a clock was corrected. A longer one is
/// taken over at once, since the time before it was plainly wrong: a machine that slept, or began without a clock.
#[derive(Debug)]
pub struct SystemClock {
    begun: Instant,
    /// What was told last, and when.
    told: Mutex<(Timestamp, Instant)>,
}

/// What is no jump yet: a clock that is kept in step is moved by less.
const STEP: SignedDuration = SignedDuration::from_secs(2);
/// The longest jump that is made up little by little.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);
/// How much of the time that passes makes up for a jump: one part in so many.
const SLEW: i32 = 10;

/// What is told when `passed` went by since `told`, and the machine says `wall`.
fn absorbed(told: Timestamp, passed: SignedDuration, wall: Timestamp) -> Timestamp {
    let steady = told.saturating_add(passed).unwrap_or(wall);
    let jump = wall.duration_since(steady);
    if jump.abs() <= STEP || jump.abs() > LONGEST {
        return wall;
    }
    let most = passed / SLEW;
    steady.saturating_add(jump.clamp(-most, most)).unwrap_or(wall)
}

// === impl SystemClock ===

impl Default for SystemClock {
    fn default() -> Self {
        let begun = Instant::now();
        Self { begun, told: Mutex::new((Timestamp::now(), begun)) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passed = SignedDuration::try_from(now.duration_since(told.1)).unwrap_or_default();
        *told = (absorbed(told.0, passed, Timestamp::now()), now);
        told.0
    }

    fn monotonic(&self) -> Duration {
        self.begun.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: SignedDuration = SignedDuration::from_mins(10);

    /// What is told each second for `seconds`, from noon, of a clock that is off by `jump`.
    fn told(jump: SignedDuration, seconds: i64) -> Timestamp {
        let second = SignedDuration::from_secs(1);
        let noon = Timestamp::from_second(1_800_000_000).expect("a time");
        let wall = |n: i64| noon + jump + second * i32::try_from(n).expect("small");
        (1..=seconds).fold(noon, |told, n| absorbed(told, second, wall(n)))
    }

    #[test]
    fn a_jump_of_the_clock_is_made_up_little_by_little() {
        let noon = told(SignedDuration::ZERO, 0);
        for (jump, passed) in [(MINUTES, 660), (-MINUTES, 540), (SignedDuration::from_secs(1), 601)] {
            assert_eq!(told(jump, 600).duration_since(noon).as_secs(), passed, "after ten minutes");
        }
        let made_up = told(MINUTES, 2 * 3600).duration_since(noon);
        assert_eq!(made_up, MINUTES * 13, "and it is the machine's again");
    }

    #[test]
    fn a_clock_that_was_plainly_wrong_is_not_followed_any_more() {
        let (noon, year) = (told(SignedDuration::ZERO, 0), SignedDuration::from_hours(24 * 365));
        for jump in [year, -year] {
            assert_eq!(told(jump, 1).duration_since(noon), jump + SignedDuration::from_secs(1));
        }
    }

    #[test]
    fn time_only_goes_on() {
        let seconds: Vec<_> = (0..200).map(|seconds| told(-MINUTES, seconds)).collect();
        assert!(seconds.is_sorted());
    }
}
