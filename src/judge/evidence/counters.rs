//! Counters that only grow, until a process starts anew: readings become intervals of both arms.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::measure::{Arms, Count, Histogram, Measured, Moments, NoData, Sample, Side, whole};
use crate::model::Timestamp;

/// How long an instance is remembered that is not read any more.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(15);
/// Instances of one arm that are read.
const MOST_INSTANCES: usize = 10_000;

/// What one instance has counted since it started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Totals {
    /// Requests and bad events.
    Binary {
        /// Requests.
        n: f64,
        /// Bad events among them.
        x: f64,
    },
    /// Values.
    Mean {
        /// How many.
        n: f64,
        /// Their sum.
        sum: f64,
        /// The sum of their squares, where it is counted.
        squares: Option<f64>,
    },
    /// Durations: the requests of each bucket, and last those above all boundaries.
    Latency {
        /// The boundaries, ascending.
        boundaries: Arc<[f64]>,
        /// One count per bucket; not cumulative.
        counts: Vec<f64>,
    },
}

/// A reading of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// The name of the instance, unique in its arm.
    pub instance: String,
    /// When it started, where that is known.
    pub started: Option<Timestamp>,
    /// What it has counted.
    pub totals: Totals,
}

/// The last readings of one metric, and what was counted since the last interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Counters {
    /// How old an instance must be to count; its start included.
    warm_up: SignedDuration,
    arms: Arms<Arm>,
    /// Up to when both arms are in intervals.
    covered: Option<Timestamp>,
}

/// One arm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Arm {
    instances: BTreeMap<String, Seen>,
    read: Option<Timestamp>,
    /// What was counted and is in no interval yet.
    waiting: Option<Measured>,
    warming: Option<Measured>,
    singly: BTreeMap<String, Measured>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seen {
    at: Timestamp,
    totals: Totals,
}

// === impl Counters ===

impl Counters {
    /// Begins; instances younger than `warm_up` count for the hard rules alone.
    pub fn new(warm_up: SignedDuration) -> Self {
        Self { warm_up, ..Self::default() }
    }

    /// Takes a reading of both arms at one time, and makes an interval of what was counted since the last one.
    ///
    /// Where an arm could not be read there is no interval, and the next reading of both covers the gap.
    pub fn read(
        &mut self,
        at: Timestamp,
        candidate: Result<Vec<Reading>, NoData>,
        stable: Result<Vec<Reading>, NoData>,
    ) -> Result<Sample, NoData> {
        let warm_up = self.warm_up;
        let candidate = candidate.and_then(|readings| self.arms.candidate.read(at, readings, warm_up, Side::Candidate));
        let stable = stable.and_then(|readings| self.arms.stable.read(at, readings, warm_up, Side::Stable));
        let whole = match (candidate, stable) {
            (Ok(ours), Ok(theirs)) => ours && theirs,
            // What does not add up is dropped for both.
            (Err(NoData::Boundaries), _) | (_, Err(NoData::Boundaries)) => {
                self.drop_waiting(at);
                return Err(NoData::Boundaries);
            }
            (Err(problem), _) | (_, Err(problem)) => return Err(problem),
        };
        let Some(start) = self.covered.filter(|start| whole && *start < at) else {
            self.drop_waiting(at);
            return Err(NoData::Provider("the first reading is the one that later ones are measured from".to_owned()));
        };
        self.covered = Some(at);
        let (ours, theirs) = (self.arms.candidate.empty(), self.arms.stable.empty());
        let kind = ours.waiting.as_ref().or(theirs.waiting.as_ref()).map(Measured::emptied);
        let arms = Arms { candidate: ours.waiting.or(kind.clone()), stable: theirs.waiting.or(kind) };
        let (Some(candidate), Some(stable)) = (arms.candidate, arms.stable) else {
            return Err(NoData::Provider("no instance was there long enough to tell a difference".to_owned()));
        };
        Ok(Sample {
            start,
            end: at,
            arms: Arms { candidate, stable },
            warming: ours.warming,
            instances: theirs.singly.into_iter().collect(),
            failing: None,
        })
    }

    fn drop_waiting(&mut self, at: Timestamp) {
        self.arms.candidate.empty();
        self.arms.stable.empty();
        self.covered = Some(at);
    }
}

// === impl Arm ===

impl Arm {
    /// Whether it is known what any instance counted since the last reading.
    fn read(
        &mut self,
        at: Timestamp,
        readings: Vec<Reading>,
        warm_up: SignedDuration,
        side: Side,
    ) -> Result<bool, NoData> {
        if readings.is_empty() {
            return Err(NoData::Missing(side));
        }
        if readings.len() > MOST_INSTANCES || self.read.is_some_and(|last| last >= at) {
            return Err(if readings.len() > MOST_INSTANCES { NoData::Absurd } else { NoData::Again });
        }
        // All or nothing: a reading with one absurd instance moves no baseline.
        let mut counted = vec![];
        for reading in &readings {
            reading.totals.check()?;
            counted.push(self.since(reading)?);
        }
        let whole = counted.iter().any(Option::is_some);
        for (reading, counted) in readings.into_iter().zip(counted) {
            self.instances.insert(reading.instance.clone(), Seen { at, totals: reading.totals });
            let Some(counted) = counted else { continue };
            let young = reading.started.is_some_and(|started| at.duration_since(started) < warm_up);
            let into = if young { &mut self.warming } else { &mut self.waiting };
            add(into, &counted)?;
            if !young {
                let mut singly = self.singly.remove(&reading.instance);
                add(&mut singly, &counted)?;
                self.singly.extend(singly.map(|singly| (reading.instance, singly)));
            }
        }
        self.instances.retain(|_, seen| at.duration_since(seen.at) <= FORGOTTEN);
        self.read = Some(at);
        Ok(whole)
    }

    /// What an instance counted since it was last read: all of it where it started anew; nothing at first sight, unless it
    /// started after the last reading.
    fn since(&self, reading: &Reading) -> Result<Option<Measured>, NoData> {
        match self.instances.get(&reading.instance) {
            Some(seen) => reading.totals.since(Some(&seen.totals)).map(Some),
            None if self.read.is_some_and(|last| reading.started.is_some_and(|started| started > last)) => {
                reading.totals.since(None).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Takes out what waits for an interval.
    fn empty(&mut self) -> Self {
        Self {
            waiting: self.waiting.take(),
            warming: self.warming.take(),
            singly: std::mem::take(&mut self.singly),
            ..Self::default()
        }
    }
}

// === impl Totals ===

impl Totals {
    /// Whether each value is one that a counter can have.
    fn check(&self) -> Result<(), NoData> {
        self.since(None).map(drop)
    }

    /// The difference to an earlier reading; what is smaller than before started anew, and counts from zero as a whole.
    fn since(&self, before: Option<&Self>) -> Result<Measured, NoData> {
        match (self, before) {
            (Self::Binary { n, x }, before) => {
                let from = if let Some(Self::Binary { n: n0, x: x0 }) = before
                    && n0 <= n
                    && x0 <= x
                {
                    (*n0, *x0)
                } else {
                    (0.0, 0.0)
                };
                Count::read(*n, *x)?;
                Count::read(n - from.0, x - from.1).map(Measured::Binary)
            }
            (Self::Mean { n, sum, squares }, before) => {
                let whole = Moments::read(*n, *sum, *squares)?;
                let Some(Self::Mean { n: n0, sum: sum0, squares: squares0 }) = before else {
                    return Ok(Measured::Mean(whole));
                };
                let smaller = n0 > n || squares0.zip(*squares).is_some_and(|(before, now)| before > now);
                let squares = squares.zip(*squares0).map(|(now, before)| now - before);
                if smaller {
                    return Ok(Measured::Mean(whole));
                }
                // Rounding of large sums may contradict itself a little; then the squares are left out.
                let exact = Moments::read(n - n0, sum - sum0, squares);
                exact.or_else(|_| Moments::read(n - n0, sum - sum0, None)).map(Measured::Mean)
            }
            (Self::Latency { boundaries, counts }, before) => {
                let now = Histogram::read(boundaries.clone(), counts)?;
                let Some(Self::Latency { boundaries: boundaries0, counts: counts0 }) = before else {
                    return Ok(Measured::Latency(now));
                };
                let smaller =
                    counts0.len() != counts.len() || counts0.iter().zip(counts).any(|(before, now)| before > now);
                if boundaries0 != boundaries || smaller || counts0.iter().sum::<f64>() > counts.iter().sum() {
                    return Ok(Measured::Latency(now));
                }
                let apart: Vec<u64> =
                    counts.iter().zip(counts0).map(|(now, before)| whole(now - before)).collect::<Result<_, _>>()?;
                Histogram::new(boundaries.clone(), apart).map(Measured::Latency)
            }
        }
    }
}

fn add(into: &mut Option<Measured>, counted: &Measured) -> Result<(), NoData> {
    *into = Some(match into.take() {
        None => counted.clone(),
        Some(sum) => sum.plus(counted).ok_or(NoData::Boundaries)?,
    });
    Ok(())
}
