//! Time as a value that tests can hold.

use std::time::{Duration, Instant};

use crate::model::Timestamp;

/// What time it is: the calendar's for people, and one that only goes forward for leases.
pub trait Clock: Send + Sync {
    /// The calendar's time; may jump.
    fn now(&self) -> Timestamp;
    /// Time since some moment of this process's; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

// === impl SystemClock ===

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}
