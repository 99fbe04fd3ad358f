//! What the judge says: one sentence each, without a full stop.

use jiff::SignedDuration;

use super::binary::Line;
use super::measure::{Arms, Count, Measured};
use super::spec::{Kind, Metric, Mode};
use super::verdict::{Failure, Verdict};

pub(super) fn failure(failure: &Failure) -> String {
    match failure {
        Failure::CrashLoop(which) => format!("the candidate starts and ends again and again: {which}"),
        Failure::Probe(how) => format!("a probe of the candidate failed: {how}"),
    }
}

pub(super) fn forbidden(name: &str, candidate: Count) -> String {
    format!(
        "{name}: nothing is allowed, and the candidate has {} in {}; stable has none",
        events(candidate.x(), "event"),
        events(candidate.n(), "request"),
    )
}

pub(super) fn flat_out(name: &str, run: u64) -> String {
    format!("{name}: the last {} of the candidate all failed", events(run, "request"))
}

pub(super) fn broken(name: &str, count: Count) -> String {
    format!("{name}: {} of the last {} failed", count.x(), events(count.n(), "request"))
}

/// What did harm, by how much, and how sure that is.
pub(super) fn harm(
    name: &str,
    metric: &Metric,
    limit: Option<f64>,
    total: &Arms<Measured>,
    (ln_e, ln_needed): (f64, f64),
) -> String {
    let than = match limit {
        Some(limit) => format!("is over its limit of {}", value(metric, as_said(metric, limit))),
        None => "is worse than stable over the same time".to_owned(),
    };
    let against = match limit {
        Some(_) => String::new(),
        None => format!(" against {}", arm(metric, &total.stable)),
    };
    format!(
        "{name}: the candidate {than}: {}{against}; evidence {} where {} is enough",
        arm(metric, &total.candidate),
        plain(ln_e.exp()),
        plain(ln_needed.exp()),
    )
}

pub(super) fn no_harm(mode: Mode, verdict: Verdict) -> String {
    match (mode, verdict) {
        (Mode::Bake, _) => "the release kept its limits until the end of its watch",
        (Mode::Rollout, Verdict::Promote) => "no harm within the margin of the whole traffic: every metric shows it",
        (Mode::Rollout, _) => "no harm within the margin of the next step: every metric shows it",
    }
    .to_owned()
}

pub(super) fn undecided(over: bool, missing: &[String]) -> String {
    let first = missing.first().map_or("", String::as_str);
    let more = match missing.len() {
        0 | 1 => String::new(),
        more => format!(", and {} more", more - 1),
    };
    let over = if over { "undecided at the deadline of the step: " } else { "" };
    format!("{over}{first}{more}")
}

pub(super) fn time_left(left: SignedDuration) -> String {
    format!("the step lasts {} more", seconds(left))
}

pub(super) fn suspicion(ln_e: f64, ln_needed: f64) -> String {
    format!(
        "harm is suspected: evidence {}, where less than {} lets it go on and {} is enough to go back",
        plain(ln_e.exp()),
        plain(ln_needed.exp() / 10.0),
        plain(ln_needed.exp()),
    )
}

pub(super) fn muted(name: &str) -> String {
    format!("{name}: both releases are over the limit")
}

pub(super) fn samples(name: &str, have: u64, need: u64) -> String {
    format!("{name}: {have} of {} of the candidate in this step", events(need, "request"))
}

pub(super) fn no_harm_missing(name: &str, metric: &Metric, line: Line, more: Option<u64>, coarse: bool) -> String {
    if coarse {
        return format!("{name}: the buckets are too coarse to tell a factor of {}", plain(line.ratio));
    }
    format!("{name}: that the candidate is within {} is not shown yet{}", margin(metric, line), about(more))
}

pub(super) fn limit_missing(name: &str, metric: &Metric, limit: f64, more: Option<u64>) -> String {
    let limit = value(metric, as_said(metric, limit));
    format!("{name}: that the candidate keeps the limit of {limit} is not shown yet{}", about(more))
}

fn about(more: Option<u64>) -> String {
    more.map_or_else(String::new, |more| {
        format!(": about {} more, if it goes on as it should", events(rounded(more), "request"))
    })
}

/// Two digits are enough for an estimate.
fn rounded(count: u64) -> u64 {
    let unit = 10_u64.pow(count.checked_ilog10().unwrap_or(0).saturating_sub(1));
    count.div_ceil(unit) * unit
}

fn margin(metric: &Metric, line: Line) -> String {
    let delta = match metric.kind {
        Kind::Binary { .. } => format!("{} points", plain(line.delta * 100.0)),
        Kind::Mean | Kind::Latency { .. } => plain(line.delta),
    };
    let ratio = format!("{} times", plain(line.ratio));
    match (line.delta > 0.0, (line.ratio - 1.0).abs() > 1e-12) {
        (true, true) => format!("{ratio} of stable and {delta}"),
        (true, false) => format!("{delta} of stable"),
        (false, _) => format!("{ratio} of stable"),
    }
}

fn arm(metric: &Metric, measured: &Measured) -> String {
    match measured {
        Measured::Binary(count) => {
            let (word, x) = if metric.higher_is_better { ("missed", count.x()) } else { ("bad", count.x()) };
            let rate = count.rate().map_or_else(String::new, |rate| format!(" ({})", percent(rate)));
            format!("{x} of {} {word}{rate}", events(count.n(), "request"))
        }
        Measured::Mean(moments) => {
            let mean = moments.mean().map_or(0.0, |mean| as_said(metric, mean));
            format!("{} on average of {}", plain(mean), events(moments.n(), "value"))
        }
        Measured::Latency(histogram) => {
            let quantile = if let Kind::Latency { quantile } = metric.kind { quantile } else { 0.5 };
            let wanted = (1.0 - quantile) * super::measure::real(histogram.n());
            let at = (0..histogram.boundaries().len()).find(|at| histogram.above(*at).x_real() <= wanted);
            let (word, at) = match at.and_then(|at| histogram.boundaries().get(at)) {
                Some(at) => ("at most", *at),
                None => ("above", histogram.boundaries().last().copied().unwrap_or(0.0)),
            };
            format!("p{} {word} {} of {}", plain(quantile * 100.0), plain(at), events(histogram.n(), "request"))
        }
    }
}

fn value(metric: &Metric, value: f64) -> String {
    match metric.kind {
        Kind::Binary { .. } => percent(value),
        Kind::Mean | Kind::Latency { .. } => plain(value),
    }
}

/// A value with the sign that people know it by; misses stay misses.
fn as_said(metric: &Metric, value: f64) -> f64 {
    if metric.higher_is_better && metric.kind == Kind::Mean { -value } else { value }
}

fn percent(rate: f64) -> String {
    format!("{} %", plain(rate * 100.0))
}

/// A number with three digits that mean something.
fn plain(value: f64) -> String {
    if !value.is_finite() {
        return "beyond measure".to_owned();
    }
    let size = value.abs();
    if size >= 1e6 {
        return format!("{value:.1e}");
    }
    let places = if size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else if size >= 1.0 {
        2
    } else {
        4
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn seconds(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(1);
    if seconds >= 120 { format!("{} min", (seconds + 59) / 60) } else { format!("{seconds} s") }
}

fn events(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}
