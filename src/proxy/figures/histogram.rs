//! A histogram of durations with a bounded relative error, as `HdrHistogram` counts.

use serde::{Deserialize, Serialize};

/// Buckets of each power of two: a value is at most 1/128 away from its bucket's bound.
const PER_OCTAVE: u64 = 128;
/// The same, as a place in memory.
const PLACES: usize = 128;

/// Values beyond 2^40 µs (13 days) count as that.
const OCTAVES: usize = 34;

/// Counts durations in microseconds; any quantile is within 0.8 % of the true value.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    octaves: Vec<Option<Box<[u64; PLACES]>>>,
    count: u64,
    sum: u64,
}

/// A histogram as it is sent: only the buckets that hold something, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// Pairs of bucket and count.
    pub buckets: Vec<(u16, u64)>,
    /// Microseconds of all values together.
    pub sum: u64,
}

// === impl Histogram ===

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, micros: u64) {
        self.add(bucket_of(micros), 1);
        self.sum = self.sum.saturating_add(micros);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Microseconds of all values together.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Counted) {
        for (bucket, count) in &other.buckets {
            self.add(usize::from(*bucket), *count);
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The value in microseconds that a `share` of all lies at or below; none without values.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = rank(share, self.count)?;
        let mut seen = 0;
        self.filled().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| middle(bucket))
        })
    }

    /// How many values lie in buckets that end at or below `micros`, for bounds in rising order.
    pub fn at_or_below(&self, bounds: &[u64]) -> Vec<u64> {
        let mut sums = vec![0; bounds.len()];
        for (bucket, count) in self.filled() {
            let first = bounds.partition_point(|bound| *bound < highest(bucket));
            if let Some(slot) = sums.get_mut(first) {
                *slot += count;
            }
        }
        let mut total = 0;
        for slot in &mut sums {
            total += *slot;
            *slot = total;
        }
        sums
    }

    /// What is sent.
    pub fn counted(&self) -> Counted {
        let pairs = self.filled().map(|(bucket, count)| (u16::try_from(bucket).unwrap_or(u16::MAX), count));
        Counted { buckets: pairs.collect(), sum: self.sum }
    }

    fn add(&mut self, bucket: usize, count: u64) {
        let (octave, place) = (bucket / PLACES, bucket % PLACES);
        if octave > OCTAVES {
            return;
        }
        if self.octaves.len() <= octave {
            self.octaves.resize(octave + 1, None);
        }
        let counts = self.octaves[octave].get_or_insert_with(|| Box::new([0; PLACES]));
        counts[place] = counts[place].saturating_add(count);
        self.count = self.count.saturating_add(count);
    }

    fn filled(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let octaves = self.octaves.iter().enumerate().filter_map(|(octave, counts)| Some((octave, counts.as_ref()?)));
        octaves.flat_map(|(octave, counts)| {
            let each = counts.iter().enumerate().filter(|(_, count)| **count > 0);
            each.map(move |(place, count)| (octave * PLACES + place, *count))
        })
    }
}

/// The rank of a share among `count` values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count is far below 2^52, and a share between 0 and 1"
)]
fn rank(share: f64, count: u64) -> Option<u64> {
    (count > 0).then(|| ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1))
}

/// Values below 128 have buckets of their own; above, each power of two has 128.
fn bucket_of(micros: u64) -> usize {
    let micros = micros.min((1 << 40) - 1);
    let bucket = if micros < PER_OCTAVE {
        micros
    } else {
        let shift = u64::from(micros.ilog2()) - 7;
        (shift + 1) * PER_OCTAVE + ((micros >> shift) - PER_OCTAVE)
    };
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The lowest value of a bucket, and how wide it is.
fn span(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    match bucket / PER_OCTAVE {
        0 => (bucket, 1),
        octave => ((PER_OCTAVE + bucket % PER_OCTAVE) << (octave - 1), 1 << (octave - 1)),
    }
}

fn middle(bucket: usize) -> u64 {
    let (low, width) = span(bucket);
    low + width / 2
}

fn highest(bucket: usize) -> u64 {
    let (low, width) = span(bucket);
    low + width - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_holds_its_values_and_is_narrow(micros in 0_u64..(1 << 40)) {
            let (low, width) = span(bucket_of(micros));
            prop_assert!(low <= micros && micros < low + width);
            prop_assert!(width == 1 || width * 128 <= low);
        }

        #[test]
        fn quantiles_are_within_a_percent(mut values in prop::collection::vec(1_u64..100_000_000, 1..400), share in 0.01_f64..1.0) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let at = usize::try_from(rank(share, values.len() as u64).unwrap()).unwrap() - 1;
            let (told, true_one) = (histogram.quantile(share).unwrap(), values[at]);
            prop_assert!(told.abs_diff(true_one) * 100 <= true_one, "{told} for {true_one}");
        }

        #[test]
        fn what_is_sent_is_all_there_is(values in prop::collection::vec(0_u64..10_000_000, 0..100)) {
            let (mut one, mut other) = (Histogram::default(), Histogram::default());
            values.iter().for_each(|value| one.record(*value));
            other.merge(&one.counted());
            prop_assert_eq!(one.counted(), other.counted());
            prop_assert_eq!(other.count(), values.len() as u64);
            prop_assert_eq!(other.at_or_below(&[u64::MAX]), vec![values.len() as u64]);
        }
    }
}
