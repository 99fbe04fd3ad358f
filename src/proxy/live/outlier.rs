//! When an instance that fails is left alone for a while: a plain state machine.

use std::time::Duration;

/// Failed connections in a row that eject.
const CONNECTS: u32 = 2;

/// Answers with 5xx, or none at all, in a row that eject.
const ANSWERS: u32 = 5;

/// The first absence; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);

/// The longest absence.
const LONGEST: Duration = Duration::from_mins(1);

/// How one instance has done lately.
///
/// Times are durations since some fixed start.
#[derive(Debug, Clone, Default)]
pub(super) struct Outlier {
    connects: u32,
    answers: u32,
    ejections: u32,
    until: Duration,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    /// It answered below 500.
    Well,
    /// It answered 5xx, or broke off.
    Badly,
    /// It could not be reached.
    Nowhere,
}

// === impl Outlier ===

impl Outlier {
    /// Takes in how a request went.
    pub(super) fn saw(&mut self, went: Went, now: Duration) {
        match went {
            Went::Well => *self = Self::default(),
            Went::Badly => (self.connects, self.answers) = (0, self.answers + 1),
            Went::Nowhere => self.connects += 1,
        }
        // Whoever is asked all the same, because all fail, does not stay away longer for it.
        if self.ejected(now) {
            return;
        }
        if self.connects >= CONNECTS || self.answers >= ANSWERS {
            let absence = FIRST.saturating_mul(1 << self.ejections.min(6)).min(LONGEST);
            self.until = now + absence;
            self.ejections += 1;
            // One more failure after it comes back is enough.
            (self.connects, self.answers) = (CONNECTS - 1, ANSWERS - 1);
        }
    }

    /// Whether it is left alone now.
    pub(super) fn ejected(&self, now: Duration) -> bool {
        now < self.until
    }

    /// Whether nothing bad is known of it.
    pub(super) fn fine(&self) -> bool {
        self.connects == 0 && self.answers == 0 && self.ejections == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time() {
        let mut outlier = Outlier::default();
        (0..4).for_each(|_| outlier.saw(Went::Badly, s(0)));
        assert!(!outlier.ejected(s(0)));
        outlier.saw(Went::Badly, s(0));
        assert!(outlier.ejected(Duration::from_millis(999)) && !outlier.ejected(s(1)));
        outlier.saw(Went::Nowhere, s(10));
        assert!(outlier.ejected(s(11)) && !outlier.ejected(s(12)));
        (0..20).for_each(|_| outlier.saw(Went::Nowhere, s(11)));
        assert!(!outlier.ejected(s(12)));
        (0..20).for_each(|round| outlier.saw(Went::Nowhere, s(100 * (round + 1))));
        assert!(outlier.ejected(s(2_059)) && !outlier.ejected(s(2_060)));
        outlier.saw(Went::Well, s(2_060));
        assert!(outlier.fine() && !outlier.ejected(s(2_060)));
    }

    #[test]
    fn an_answer_between_starts_the_count_anew() {
        let mut outlier = Outlier::default();
        for _ in 0..10 {
            (0..4).for_each(|_| outlier.saw(Went::Badly, s(0)));
            outlier.saw(Went::Well, s(0));
        }
        assert!(outlier.fine());
    }
}
