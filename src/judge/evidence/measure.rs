//! What was measured, checked once at the door: what does not make sense is no data, with the reason.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// No measurement counts more than this, 2^53: a real number holds every count below it exactly.
pub(super) const MOST: u64 = 1 << 53;
/// No histogram has more boundaries.
const MOST_BOUNDARIES: usize = 1_000;

/// One of the two releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The release on its way.
    Candidate,
    /// The release that holds the traffic.
    Stable,
}

/// A value for each release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arms<T> {
    /// Of the release on its way.
    pub candidate: T,
    /// Of the release that holds the traffic.
    pub stable: T,
}

/// Why there is no measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum NoData {
    /// A release has none.
    #[error("{0} was not measured")]
    Missing(Side),
    /// Whoever measures did not answer, or not with a measurement.
    #[error("{0}")]
    Provider(String),
    /// A value is NaN.
    #[error("the value is not a number")]
    NotANumber,
    /// A count or a sum of squares is below zero.
    #[error("the value is negative")]
    Negative,
    /// A value is infinite, or greater than any true measurement.
    #[error("the value is absurdly large")]
    Absurd,
    /// More bad events than requests, or squares that no values have.
    #[error("the values contradict each other: {0}")]
    Contradiction(String),
    /// The histograms of the two releases cannot be compared, or a histogram is none.
    #[error("the boundaries of the histograms differ or are not ascending")]
    Boundaries,
    /// A measurement of another kind than the metric is of.
    #[error("the measurement is of another kind than the metric")]
    Kind,
    /// Its time is over.
    #[error("the measurement is stale")]
    Stale,
    /// It ends later than now, or before it begins.
    #[error("the time of the measurement makes no sense")]
    Time,
    /// It covers time that was judged already.
    #[error("the time of the measurement was judged already")]
    Again,
}

/// Requests with a known outcome, and how many of them were bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Count {
    n: u64,
    x: u64,
}

/// How many values, their sum and the sum of their squares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Moments {
    n: u64,
    sum: f64,
    squares: Option<f64>,
}

/// Requests by how long they took: one count per boundary (those at or below it and above the one before), and a last
/// one for those above all boundaries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Histogram {
    boundaries: Arc<[f64]>,
    counts: Vec<u64>,
}

/// What one release did in one interval, by the kind of the metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Measured {
    /// Events that happen or do not.
    Binary(Count),
    /// Values with a mean.
    Mean(Moments),
    /// Durations.
    Latency(Histogram),
}

/// One interval of one metric, both releases over the same time.
///
/// # Assumptions
///
/// A request counts when its outcome is known, in the release that answered it; late outcomes have the same waiting time in
/// both, and "not yet" is no miss. Instances that are still warming up are left out of both arms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// When it begins.
    pub start: Timestamp,
    /// When it ends; each end is used once.
    pub end: Timestamp,
    /// What both releases did.
    pub arms: Arms<Measured>,
    /// What the candidate's instances did that are still warming up: seen by the hard rules alone.
    #[serde(default)]
    pub warming: Option<Measured>,
    /// What stable's instances did, each by its name, where they report singly.
    #[serde(default)]
    pub instances: Vec<(String, Measured)>,
    /// How many of the candidate's last requests failed in a row, where that is known better than the counts say.
    #[serde(default)]
    pub failing: Option<u64>,
}

// === impl Side ===

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Candidate => "the candidate",
            Self::Stable => "stable",
        })
    }
}

// === impl Arms ===

impl<T> Arms<T> {
    /// Applies a function to both.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Arms<U> {
        Arms { candidate: f(self.candidate), stable: f(self.stable) }
    }

    /// The other way round.
    #[must_use]
    pub fn swapped(self) -> Self {
        Self { candidate: self.stable, stable: self.candidate }
    }
}

// === impl Count ===

impl Count {
    /// Checks whole numbers.
    pub fn new(n: u64, x: u64) -> Result<Self, NoData> {
        if n > MOST {
            Err(NoData::Absurd)
        } else if x > n {
            Err(NoData::Contradiction(format!("{x} events in {n} requests")))
        } else {
            Ok(Self { n, x })
        }
    }

    /// Checks what a provider answered; fractions are rounded.
    pub fn read(n: f64, x: f64) -> Result<Self, NoData> {
        Self::new(whole(n)?, whole(x)?)
    }

    /// Requests.
    pub fn n(self) -> u64 {
        self.n
    }

    /// Bad events among them.
    pub fn x(self) -> u64 {
        self.x
    }

    /// The share of bad events; nothing without requests.
    pub fn rate(self) -> Option<f64> {
        (self.n > 0).then(|| self.x_real() / self.n_real())
    }

    /// The good events counted instead.
    #[must_use]
    pub fn complement(self) -> Self {
        Self { n: self.n, x: self.n.saturating_sub(self.x) }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { n: self.n.saturating_add(other.n), x: self.x.saturating_add(other.x) }
    }

    pub(super) fn n_real(self) -> f64 {
        real(self.n)
    }

    pub(super) fn x_real(self) -> f64 {
        real(self.x)
    }
}

// === impl Moments ===

impl Moments {
    /// Checks a number of values, their sum, and the sum of their squares where it is known.
    pub fn read(n: f64, sum: f64, squares: Option<f64>) -> Result<Self, NoData> {
        let n = whole(n)?;
        let sum = sane(sum)?;
        let Some(squares) = squares else { return Self::without_values(n, sum, None) };
        let squares = sane(squares)?;
        if squares < 0.0 {
            return Err(NoData::Negative);
        }
        // By Cauchy and Schwarz, with room for rounding.
        if sum * sum > real(n) * squares * (1.0 + 1e-9) {
            return Err(NoData::Contradiction("the sum is too large for the squares".to_owned()));
        }
        Self::without_values(n, sum, Some(squares))
    }

    fn without_values(n: u64, sum: f64, squares: Option<f64>) -> Result<Self, NoData> {
        if n == 0 && (sum != 0.0 || squares.is_some_and(|squares| squares != 0.0)) {
            return Err(NoData::Contradiction("a sum of no values".to_owned()));
        }
        Ok(Self { n, sum, squares })
    }

    /// Values.
    pub fn n(&self) -> u64 {
        self.n
    }

    pub(super) fn parts(&self) -> (f64, Option<f64>) {
        (self.sum, self.squares)
    }

    /// Their mean; nothing without values.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / real(self.n))
    }

    /// Σ(v − v̄)², where the squares are known.
    pub fn squares_around_mean(&self) -> Option<f64> {
        let mean = self.mean()?;
        Some((self.squares? - self.sum * mean).max(0.0))
    }

    /// The values with the other sign.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { sum: -self.sum, ..self }
    }

    /// Both together; the squares are known where both know them.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        if self.n == 0 {
            return other;
        }
        if other.n == 0 {
            return self;
        }
        let squares = self.squares.zip(other.squares).map(|(one, two)| one + two);
        Self { n: self.n.saturating_add(other.n), sum: self.sum + other.sum, squares }
    }

    pub(super) fn n_real(&self) -> f64 {
        real(self.n)
    }
}

// === impl Histogram ===

impl Histogram {
    /// Checks whole numbers.
    pub fn new(boundaries: Arc<[f64]>, counts: Vec<u64>) -> Result<Self, NoData> {
        let ascending = boundaries.windows(2).all(|pair| pair[0] < pair[1]);
        let finite = boundaries.iter().all(|boundary| boundary.is_finite());
        let fits =
            !boundaries.is_empty() && boundaries.len() <= MOST_BOUNDARIES && counts.len() == boundaries.len() + 1;
        if !(ascending && finite && fits) {
            return Err(NoData::Boundaries);
        }
        let total = counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count)).ok_or(NoData::Absurd)?;
        if total > MOST { Err(NoData::Absurd) } else { Ok(Self { boundaries, counts }) }
    }

    /// Checks what a provider answered, one count per bucket and a last one above all boundaries; fractions are rounded.
    pub fn read(boundaries: Arc<[f64]>, counts: &[f64]) -> Result<Self, NoData> {
        Self::new(boundaries, counts.iter().map(|count| whole(*count)).collect::<Result<_, _>>()?)
    }

    /// The boundaries, ascending.
    pub fn boundaries(&self) -> &Arc<[f64]> {
        &self.boundaries
    }

    /// The counts of the buckets.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Requests.
    pub fn n(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Requests above the boundary of that number, among all.
    pub fn above(&self, boundary: usize) -> Count {
        let x = self.counts.iter().skip(boundary + 1).sum();
        Count { n: self.n(), x }
    }

    /// Both together; nothing where the boundaries differ.
    pub fn plus(mut self, other: &Self) -> Option<Self> {
        if self.boundaries != other.boundaries {
            return None;
        }
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
        Some(self)
    }
}

// === impl Measured ===

impl Measured {
    /// Requests or values.
    pub fn n(&self) -> u64 {
        match self {
            Self::Binary(count) => count.n,
            Self::Mean(moments) => moments.n,
            Self::Latency(histogram) => histogram.n(),
        }
    }

    /// Both together; nothing where they are not of one kind.
    pub(super) fn plus(self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Binary(one), Self::Binary(two)) => Some(Self::Binary(one.plus(*two))),
            (Self::Mean(one), Self::Mean(two)) => Some(Self::Mean(one.plus(*two))),
            (Self::Latency(one), Self::Latency(two)) => one.plus(two).map(Self::Latency),
            (Self::Binary(_) | Self::Mean(_) | Self::Latency(_), _) => None,
        }
    }

    /// The same without a single request.
    pub(super) fn emptied(&self) -> Self {
        match self {
            Self::Binary(_) => Self::Binary(Count::default()),
            Self::Mean(_) => Self::Mean(Moments::default()),
            Self::Latency(histogram) => Self::Latency(Histogram {
                boundaries: histogram.boundaries.clone(),
                counts: vec![0; histogram.counts.len()],
            }),
        }
    }
}

/// A count that a provider answered.
pub(super) fn whole(value: f64) -> Result<u64, NoData> {
    let value = sane(value)?;
    if value < 0.0 {
        return Err(NoData::Negative);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in [0, 2^53]")]
    Ok(value.round() as u64)
}

fn sane(value: f64) -> Result<f64, NoData> {
    if value.is_nan() {
        Err(NoData::NotANumber)
    } else if value.abs() > real(MOST) * real(MOST) || value.is_infinite() {
        Err(NoData::Absurd)
    } else {
        Ok(value)
    }
}

#[expect(clippy::cast_precision_loss, reason = "what is counted is below 2^53")]
pub(super) fn real(count: u64) -> f64 {
    count as f64
}
