//! What is known of the requests of one release, in all and for each of the last seconds.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::histogram::{Counted, Histogram};

/// Seconds that are kept.
pub const KEPT_SECONDS: u64 = 300;

/// Counts of requests by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Given to the release.
    pub requests: u64,
    /// Answered 1xx, which is an upgrade.
    pub c1xx: u64,
    /// Answered 2xx.
    pub c2xx: u64,
    /// Answered 3xx.
    pub c3xx: u64,
    /// Answered 4xx.
    pub c4xx: u64,
    /// Answered 5xx, by the release or in its place.
    pub c5xx: u64,
    /// Among 5xx: the release gave no answer (it could not be reached, was silent or broke off).
    pub failed: u64,
    /// The answer broke off in its middle.
    pub broken: u64,
    /// The client left before the end.
    pub cancelled: u64,
    /// Tried a second time, on a fresh connection.
    pub retried: u64,
    /// Copies that were sent to it; they count nowhere else.
    pub mirrored: u64,
}

/// One second of one release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    /// Seconds since 1970.
    pub second: u64,
    /// What happened in it.
    pub counts: Counts,
    /// Time to the end of answers that ended in it.
    pub latency: Counted,
    /// Time to the head of answers that began in it.
    pub first_byte: Counted,
}

/// What is known of one release.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    total: Counts,
    latency: Histogram,
    first_byte: Histogram,
    now: Open,
    closed: VecDeque<Second>,
}

/// The second that goes on.
#[derive(Debug, Default)]
struct Open {
    second: u64,
    counts: Counts,
    latency: Histogram,
    first_byte: Histogram,
}

// === impl Counts ===

impl Counts {
    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.fields().into_iter().zip(other.clone().fields()) {
            *own = own.saturating_add(*other);
        }
    }

    /// Counts one answer with this status.
    pub fn answer(&mut self, status: u16) {
        let class = match status / 100 {
            1 => &mut self.c1xx,
            2 => &mut self.c2xx,
            3 => &mut self.c3xx,
            4 => &mut self.c4xx,
            _ => &mut self.c5xx,
        };
        *class += 1;
    }

    fn fields(&mut self) -> [&mut u64; 11] {
        let Self { requests, c1xx, c2xx, c3xx, c4xx, c5xx, failed, broken, cancelled, retried, mirrored } = self;
        [requests, c1xx, c2xx, c3xx, c4xx, c5xx, failed, broken, cancelled, retried, mirrored]
    }
}

// === impl Second ===

impl Second {
    /// Adds what another process saw in the same second.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        for (own, other) in [(&mut self.latency, &other.latency), (&mut self.first_byte, &other.first_byte)] {
            let mut both = Histogram::default();
            both.merge(own);
            both.merge(other);
            *own = both.counted();
        }
    }
}

// === impl Figures ===

impl Figures {
    /// Counts something in the given second.
    pub(crate) fn count(&mut self, second: u64, what: impl Fn(&mut Counts)) {
        self.turn(second);
        what(&mut self.total);
        what(&mut self.now.counts);
    }

    /// Counts the time to the head of an answer.
    pub(crate) fn first_byte(&mut self, second: u64, micros: u64) {
        self.turn(second);
        self.first_byte.record(micros);
        self.now.first_byte.record(micros);
    }

    /// Counts the time to the end of an answer.
    pub(crate) fn latency(&mut self, second: u64, micros: u64) {
        self.turn(second);
        self.latency.record(micros);
        self.now.latency.record(micros);
    }

    /// Ends the seconds before `second`; later calls with an earlier one count in it.
    pub(crate) fn turn(&mut self, second: u64) {
        if second <= self.now.second {
            return;
        }
        let Open { second: then, counts, latency, first_byte } =
            std::mem::replace(&mut self.now, Open { second, ..Open::default() });
        if counts != Counts::default() || latency.count() > 0 || first_byte.count() > 0 {
            let (latency, first_byte) = (latency.counted(), first_byte.counted());
            self.closed.push_back(Second { second: then, counts, latency, first_byte });
        }
        while self.closed.front().is_some_and(|first| first.second + KEPT_SECONDS < second) {
            self.closed.pop_front();
        }
    }

    /// The ended seconds after `since` in which something happened.
    pub(crate) fn since(&self, since: u64) -> Vec<Second> {
        self.closed.iter().filter(|second| second.second > since).cloned().collect()
    }

    /// All counts since the start.
    pub(crate) fn total(&self) -> &Counts {
        &self.total
    }

    /// Time to the end of answers, since the start.
    pub(crate) fn all_latency(&self) -> &Histogram {
        &self.latency
    }

    /// Time to the head of answers, since the start.
    pub(crate) fn all_first_byte(&self) -> &Histogram {
        &self.first_byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_close_in_order_and_are_forgotten() {
        let mut figures = Figures::default();
        figures.count(10, |counts| counts.answer(200));
        figures.latency(10, 1500);
        figures.count(11, |counts| counts.answer(503));
        assert_eq!(figures.since(0).len(), 1, "the second that goes on is not told");
        figures.turn(12);
        let told = figures.since(10);
        assert_eq!((told.len(), told[0].second, told[0].counts.c5xx), (1, 11, 1));
        figures.count(9, |counts| counts.answer(200));
        figures.turn(12 + KEPT_SECONDS);
        assert_eq!(figures.since(0).iter().map(|second| second.second).collect::<Vec<_>>(), [12]);
        assert_eq!((figures.total().c2xx, figures.total().c5xx), (2, 1));
    }

    #[test]
    fn the_same_second_of_two_processes_adds_up() {
        let of = |micros| {
            let mut figures = Figures::default();
            figures.count(5, |counts| counts.answer(200));
            figures.latency(5, micros);
            figures.turn(6);
            figures.since(0).remove(0)
        };
        let mut one = of(100);
        one.add(&of(90_000));
        assert_eq!((one.counts.c2xx, one.latency.buckets.len(), one.latency.sum), (2, 2, 90_100));
    }
}
