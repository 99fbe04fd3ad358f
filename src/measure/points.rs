//! Points of a time series: the newest one, or all of them added up to a total that grows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::told::{because, counted, valued};
use crate::judge::{NoData, Reading, Totals};
use crate::model::{AgentName, ReleaseId, Timestamp};

/// Series that are kept; beyond them those that were asked for least lately are dropped.
const MOST_SERIES: usize = 4096;
/// Points of one answer.
pub(super) const MAX_POINTS: usize = 10_000;
/// How far back is looked, at most.
const LONGEST: Duration = Duration::from_hours(1);

/// One point: when its time begins, in milliseconds since 1970, and its value.
pub(super) type Point = (i64, f64);

/// Totals of what a provider tells by intervals.
pub(super) struct Growing {
    /// Tells this process' totals from those of the daemon before: each begins at zero.
    life: String,
    kept: Mutex<BTreeMap<Key, Sums>>,
}

/// Whose, and by which queries.
pub(super) type Key = (AgentName, ReleaseId, String, String);

#[derive(Debug, Clone, Copy)]
struct Sums {
    /// Points before this are counted.
    until: i64,
    n: f64,
    x: f64,
}

/// The newest point; one older than `fresh` is stale.
pub(super) fn newest(points: &[Point], at: Timestamp, fresh: Duration) -> Result<f64, NoData> {
    let now = at.as_millisecond();
    let past = points.iter().filter(|(time, _)| *time <= now);
    let (time, value) = past.max_by_key(|(time, _)| *time).ok_or_else(|| because("the query finds no points"))?;
    if now.saturating_sub(*time) > millis(fresh) {
        return Err(NoData::Stale);
    }
    valued(*value)
}

// === impl Growing ===

impl Growing {
    pub(super) fn new() -> Self {
        Self { life: format!("since-{}", Timestamp::now().as_millisecond()), kept: Mutex::default() }
    }

    /// From when to when points are asked for: up to `fresh` before now, when all of them have come.
    pub(super) fn span(&self, key: &Key, at: Timestamp, fresh: Duration) -> (i64, i64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Whole minutes: no point is half within.
        let until = (at.as_millisecond() - millis(fresh)).div_euclid(60_000) * 60_000;
        let from = kept.get(key).map_or(until, |sums| sums.until).clamp(until - millis(LONGEST), until);
        (from, until)
    }

    /// Adds the points of a span; the first one only says from where on it is counted.
    pub(super) fn add(
        &self,
        key: Key,
        span: (i64, i64),
        of: &[Point],
        events: &[Point],
    ) -> Result<Vec<Reading>, NoData> {
        let sum = |points: &[Point], since: i64| -> Result<f64, NoData> {
            let within = points.iter().filter(|(time, _)| (since..span.1).contains(time));
            let mut total = 0.0;
            for (_, value) in within {
                total += counted(*value)?;
            }
            counted(total)
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.get(&key).copied().unwrap_or(Sums { until: span.1, n: 0.0, x: 0.0 });
        // Another question may have counted a part of it meanwhile.
        let since = before.until.max(span.0);
        let (n, x) = (counted(before.n + sum(of, since)?)?, counted(before.x + sum(events, since)?)?);
        kept.insert(key, Sums { until: before.until.max(span.1), n, x });
        while kept.len() > MOST_SERIES {
            let oldest = kept.iter().min_by_key(|(_, sums)| sums.until).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            kept.remove(&oldest);
        }
        Ok(vec![Reading { instance: self.life.clone(), started: None, totals: Totals::Binary { n, x } }])
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_add_up_and_none_counts_twice() {
        let growing = Growing::new();
        let key: Key = ("a".parse().unwrap(), ReleaseId::of(b"r"), "x".to_owned(), "n".to_owned());
        let at = |second| Timestamp::from_second(second).unwrap();
        let fresh = Duration::from_mins(1);
        let total = |readings: Result<Vec<Reading>, NoData>| readings.unwrap()[0].totals.clone();
        let span = growing.span(&key, at(6000), fresh);
        assert_eq!(span, (5_940_000, 5_940_000));
        let first = growing.add(key.clone(), span, &[(5_880_000, 7.0)], &[]);
        assert_eq!(total(first), Totals::Binary { n: 0.0, x: 0.0 });
        let span = growing.span(&key, at(6130), fresh);
        assert_eq!(span, (5_940_000, 6_060_000));
        let of = [(5_880_000, 7.0), (5_940_000, 3.0), (6_000_000, 2.0), (6_060_000, 9.0)];
        for _ in 0..2 {
            let again = growing.add(key.clone(), span, &of, &[(6_000_000, 1.0)]);
            assert_eq!(total(again), Totals::Binary { n: 5.0, x: 1.0 });
        }
        assert_eq!(growing.add(key, (0, 6_120_000), &[(6_060_000, f64::NAN)], &[]), Err(NoData::NotANumber));
    }

    #[test]
    fn the_newest_point_counts_while_it_is_fresh() {
        let at = Timestamp::from_second(100).unwrap();
        let fresh = Duration::from_secs(30);
        assert_eq!(newest(&[(90_000, 2.0), (80_000, 1.0), (110_000, 9.0)], at, fresh), Ok(2.0));
        assert_eq!(newest(&[(60_000, 2.0)], at, fresh), Err(NoData::Stale));
        assert!(newest(&[], at, fresh).is_err());
    }
}
