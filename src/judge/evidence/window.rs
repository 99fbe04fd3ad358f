//! What happened lately: counts of the last seconds, in slices.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Slices of a window: its edge is sharp to that part.
const SLICES: i64 = 30;

/// Sums over the last seconds: how many, and how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Window {
    seconds: i64,
    /// The start of a slice in seconds, what was counted in it, and the sum.
    slices: VecDeque<(i64, f64, f64)>,
}

// === impl Window ===

impl Window {
    /// Opens a window of so many seconds.
    pub(super) fn new(seconds: i64) -> Self {
        Self { seconds: seconds.max(1), slices: VecDeque::new() }
    }

    /// Adds what an interval brought that ended at `at`.
    pub(super) fn add(&mut self, at: Timestamp, n: f64, sum: f64) {
        if !(n.is_finite() && sum.is_finite()) {
            return;
        }
        let width = (self.seconds / SLICES).max(1);
        let slice = at.as_second().div_euclid(width) * width;
        match self.slices.back_mut() {
            Some((last, count, total)) if *last >= slice => {
                *count += n;
                *total += sum;
            }
            _ => self.slices.push_back((slice, n, sum)),
        }
        while self.slices.front().is_some_and(|(start, ..)| *start <= slice - self.seconds) {
            self.slices.pop_front();
        }
    }

    /// The count and the sum of the window that ends now.
    pub(super) fn at(&self, now: Timestamp) -> (f64, f64) {
        let oldest = now.as_second() - self.seconds;
        let inside = self.slices.iter().filter(|(start, ..)| *start > oldest);
        inside.fold((0.0, 0.0), |(n, sum), (_, count, total)| (n + count, sum + total))
    }
}
