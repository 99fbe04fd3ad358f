//! One metric of a rollout: both figures with their intervals, the limit, and one word.

use serde::Serialize;

use crate::desired::rollout::{Measure, Metric, Step, Strategy};
use crate::judge::{ArmFigures, Decision, Figures, MetricFigures, Outcome, Report, Side, Verdict, Why};
use crate::model::Timestamp;
use crate::rollout::{Phase, Rollout, bake};

/// Digits of a number that mean something.
const DIGITS: i32 = 3;
/// In milliseconds.
const SECOND: f64 = 1000.0;

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct MetricShown {
    pub(in crate::cli) name: String,
    #[serde(skip)]
    pub(super) unit: Unit,
    /// What the judge makes of it.
    pub(in crate::cli) verdict: Word,
    pub(super) candidate: Figure,
    pub(super) stable: Figure,
    /// The difference of the means, and where it is at all times together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) difference: Option<(f64, (f64, f64))>,
    /// Of an experiment: how much the candidate differs from stable; shares between -1 and 1, durations in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effect: Option<Effect>,
    /// The most that is allowed in this step; the least, where more is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<f64>,
    pub(super) higher_is_better: bool,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) no_data: Option<String>,
    /// When it was measured last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) measured: Option<Timestamp>,
}

/// The figure of one release: shares between 0 and 1, durations in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figure {
    /// Requests, or values.
    pub(super) n: u64,
    /// The share or the mean; of durations the share of requests that are slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<f64>,
    /// Where the share or the quantile is, at all times together; an open end is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interval: Option<(Option<f64>, Option<f64>)>,
}

/// How much the candidate differs from stable.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Effect {
    /// Of durations nothing: only where their quantiles are is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    /// Where it is at all times together; an open end is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<(Option<f64>, Option<f64>)>,
}

/// In what a metric is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Share,
    Milliseconds,
    Value,
}

/// What the judge makes of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) enum Word {
    /// Harm is shown.
    Harm,
    /// Of an experiment: the candidate is shown to be better.
    Better,
    /// Of an experiment: the candidate is shown to be worse.
    Worse,
    /// That there is none beyond the margin is shown.
    NoHarm,
    /// Neither is shown.
    Undecided,
    /// Only harm is looked for, and none is shown.
    Watched,
    /// Nothing was measured.
    NoData,
    /// Both releases are over the limit, so that it says nothing.
    BothOver,
}

/// What the judge said last.
pub(super) struct Judged<'j> {
    pub(super) figures: &'j Figures,
    pub(super) decision: Option<&'j Decision>,
    pub(super) report: Option<&'j Report>,
}

/// All metrics that were judged.
pub(super) fn shown(rollout: &Rollout, judged: &Judged<'_>) -> Vec<MetricShown> {
    let of = |(name, figures): (&String, &MetricFigures)| MetricShown::of(rollout, name, figures, judged);
    judged.figures.metrics.iter().map(of).collect()
}

// === impl MetricShown ===

impl MetricShown {
    fn of(rollout: &Rollout, name: &str, figures: &MetricFigures, judged: &Judged<'_>) -> Self {
        // Where we chose the metrics of a watch ourselves, nobody declared them.
        let declared = rollout.spec().analysis.get(name);
        let unit = declared.map_or(Unit::of_figures(figures), |metric| Unit::of(metric.source.measure()));
        let higher_is_better = declared.is_some_and(|metric| metric.higher_is_better);
        // The judge counts what was missed; people declare what was reached.
        let flip = higher_is_better && unit == Unit::Share;
        let arm = |arm: &Option<ArmFigures>| arm.as_ref().map_or_else(Figure::default, |arm| Figure::of(arm, flip));
        let limit = limit(rollout, name, declared);
        let (candidate, stable) = (arm(&figures.candidate), arm(&figures.stable));
        Self {
            name: name.to_owned(),
            unit,
            verdict: word(rollout, name, limit, figures, judged),
            effect: judged.report.map(|_| Effect::of(unit, &candidate, &stable, figures.difference)),
            candidate,
            stable,
            difference: figures.difference,
            limit,
            higher_is_better,
            no_data: figures.no_data.clone(),
            measured: figures.measured,
        }
    }

    /// What is drawn of it over time.
    pub(in crate::cli) fn point(&self) -> Option<f64> {
        self.candidate.value
    }

    /// The effect's cell; nothing: it is no experiment's.
    pub(super) fn effect_cell(&self) -> Option<String> {
        Some(self.effect.as_ref()?.cell(self.unit))
    }

    /// The candidate's cell.
    pub(super) fn candidate_cell(&self) -> String {
        match (self.unit, self.difference, self.candidate.value) {
            (Unit::Value, Some((difference, (low, high))), Some(value)) if self.effect.is_none() => {
                format!("{}, {} ({}..{})", number(value), signed(difference), signed(low), signed(high))
            }
            (_, _, _) => self.candidate.cell(self.unit, true),
        }
    }

    /// Stable's cell; the interval only where there is room.
    pub(super) fn stable_cell(&self, interval: bool) -> String {
        self.stable.cell(self.unit, interval || self.unit == Unit::Milliseconds)
    }

    /// The limit's cell.
    pub(super) fn limit_cell(&self) -> String {
        let Some(limit) = self.limit else { return "-".to_owned() };
        if limit == 0.0 && !self.higher_is_better {
            return "none".to_owned();
        }
        let word = if self.higher_is_better { "min" } else { "max" };
        format!("{word} {}", self.unit.told(limit))
    }
}

/// The limit in this step; of a watch after the promotion, its own. An experiment has none.
fn limit(rollout: &Rollout, name: &str, declared: Option<&Metric>) -> Option<f64> {
    if is_watch(rollout) {
        return bake(rollout.spec()).0.get(name).and_then(|metric| metric.limit);
    }
    let of_all = declared.and_then(|metric| metric.limit);
    let of_step = match super::current(rollout) {
        Some(Step::Weight { limits, .. }) => limits.get(name).copied(),
        Some(Step::Pause { .. } | Step::Gate { .. } | Step::Replicas { .. }) | None => None,
    };
    of_step.or(of_all).filter(|_| !matches!(rollout.spec().strategy, Strategy::AbTest(_)))
}

/// The candidate has the traffic, and is watched or was.
fn is_watch(rollout: &Rollout) -> bool {
    matches!(rollout.phase(), Phase::Baking { .. } | Phase::Keeping { .. } | Phase::Done { .. })
}

fn word(rollout: &Rollout, name: &str, limit: Option<f64>, figures: &MetricFigures, judged: &Judged<'_>) -> Word {
    let is_it = |metric: Option<&String>| metric.is_some_and(|metric| metric == name);
    let sent_back = judged.decision.is_some_and(|decision| {
        decision.verdict == Verdict::Abort
            && matches!(decision.why, Why::Harm | Why::Failed)
            && is_it(decision.metric.as_ref())
    });
    match judged.report.filter(|report| is_it(report.metric.as_ref())).map(|report| &report.outcome) {
        _ if sent_back => return Word::Harm,
        Some(Outcome::Won(Side::Stable)) => return Word::Worse,
        Some(Outcome::Won(Side::Candidate)) => return Word::Better,
        Some(Outcome::Running | Outcome::Draw) | None => {}
    }
    if figures.no_data.is_some() || figures.candidate.is_none() {
        return Word::NoData;
    }
    if figures.muted {
        return Word::BothOver;
    }
    let enough = |evidence: Option<f64>| evidence.is_some_and(|evidence| evidence >= judged.figures.no_harm_needed);
    let decided = |evidence| if enough(evidence) { Word::NoHarm } else { Word::Undecided };
    let declared = rollout.spec().analysis.get(name);
    match declared.filter(|_| !is_watch(rollout)) {
        Some(_) if matches!(rollout.spec().strategy, Strategy::AbTest(_)) => Word::Undecided,
        Some(metric) if metric.compare && metric.margin.is_some() => decided(figures.no_harm),
        // Where nothing at all is allowed, one event decides.
        Some(metric) if metric.compare || limit == Some(0.0) && !metric.higher_is_better => Word::Watched,
        Some(_) if limit.is_some() => decided(figures.within_limit),
        Some(_) | None => Word::Watched,
    }
}

// === impl Figure ===

impl Figure {
    fn of(arm: &ArmFigures, flip: bool) -> Self {
        let turn = |value: f64| if flip { 1.0 - value } else { value };
        let interval = arm.interval.map(|(low, high)| {
            let (low, high) = (low.map(turn), high.map(turn));
            if flip { (high, low) } else { (low, high) }
        });
        Self { n: arm.n, value: arm.value.map(turn), interval }
    }

    fn cell(&self, unit: Unit, with_interval: bool) -> String {
        let interval = self.interval.filter(|_| with_interval);
        match (unit, self.value, interval) {
            (Unit::Milliseconds, _, Some((None, None))) => "not known yet".to_owned(),
            (Unit::Milliseconds, _, Some((None, Some(high)))) => format!("at most {}", unit.told(high)),
            (Unit::Milliseconds, _, Some((Some(low), None))) => format!("at least {}", unit.told(low)),
            // Both ends in the unit of the second one.
            (Unit::Milliseconds, _, Some((Some(low), Some(high)))) if high >= SECOND => {
                format!("{}..{}", number(low / SECOND), unit.told(high))
            }
            (Unit::Milliseconds, _, Some((Some(low), Some(high)))) => format!("{}..{}", number(low), unit.told(high)),
            (Unit::Share, Some(value), Some((Some(low), Some(high)))) => {
                format!("{} ({}..{})", unit.told(value), number(low * 100.0), number(high * 100.0))
            }
            (_, Some(value), _) => unit.told(value),
            (_, None, _) => "-".to_owned(),
        }
    }
}

// === impl Effect ===

impl Effect {
    /// Where both sides' intervals hold, so does this one: each has half of the chance to err.
    fn of(unit: Unit, candidate: &Figure, stable: &Figure, difference: Option<(f64, (f64, f64))>) -> Self {
        if let Some((middle, (low, high))) = difference {
            return Self { value: Some(middle), interval: Some((Some(low), Some(high))) };
        }
        let apart = |one: Option<f64>, other: Option<f64>| Some(one? - other?);
        let value = apart(candidate.value, stable.value).filter(|_| unit != Unit::Milliseconds);
        let ends = candidate.interval.zip(stable.interval);
        let interval = ends.map(|(ours, theirs)| (apart(ours.0, theirs.1), apart(ours.1, theirs.0)));
        Self { value, interval }
    }

    fn cell(&self, unit: Unit) -> String {
        let (factor, name) = match unit {
            Unit::Share => (100.0, " points"),
            Unit::Milliseconds => (1.0, " ms"),
            Unit::Value => (1.0, ""),
        };
        let told = |value: f64| signed(value * factor);
        let interval = match self.interval {
            Some((None, None)) | None => None,
            Some((low, high)) => {
                let end = |end: Option<f64>| end.map_or_else(|| "?".to_owned(), told);
                Some(format!("{}..{}", end(low), end(high)))
            }
        };
        match (self.value, interval) {
            (Some(value), Some(interval)) => format!("{}{name} ({interval})", told(value)),
            (Some(value), None) => format!("{}{name}", told(value)),
            (None, Some(interval)) => format!("{interval}{name}"),
            (None, None) => "-".to_owned(),
        }
    }
}

// === impl Unit ===

impl Unit {
    fn of(measure: Measure) -> Self {
        match measure {
            Measure::Rate { .. } => Self::Share,
            Measure::Mean => Self::Value,
            Measure::Duration { .. } => Self::Milliseconds,
        }
    }

    /// Only durations have a boundary, and only events a number of bad ones.
    fn of_figures(figures: &MetricFigures) -> Self {
        match figures.candidate.as_ref().or(figures.stable.as_ref()) {
            Some(ArmFigures { slow_above: None, x: Some(_), .. }) => Self::Share,
            Some(ArmFigures { interval: Some(_), .. }) => Self::Milliseconds,
            Some(_) | None => Self::Value,
        }
    }

    fn told(self, value: f64) -> String {
        match self {
            Self::Share => format!("{} %", number(value * 100.0)),
            Self::Milliseconds if value >= SECOND => format!("{} s", number(value / SECOND)),
            Self::Milliseconds => format!("{} ms", number(value)),
            Self::Value => number(value),
        }
    }
}

// === impl Word ===

impl Word {
    /// As people read it.
    pub(in crate::cli) fn told(self) -> &'static str {
        match self {
            Self::Harm => "harm",
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoHarm => "no harm",
            Self::Undecided => "undecided",
            Self::Watched => "watched",
            Self::NoData => "no data",
            Self::BothOver => "both over",
        }
    }
}

/// A number with three digits that mean something.
fn number(value: f64) -> String {
    if !value.is_finite() || value.abs() >= 1e9 {
        return format!("{value:.1e}");
    }
    // Below one, the digits count from the point.
    let before = if value.abs() < 1.0 { 1 } else { digits(value.abs()) };
    let places = usize::try_from((DIGITS - before).max(0)).unwrap_or(0);
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    if text == "-0" { "0".to_owned() } else { text }
}

/// Digits before the point.
fn digits(value: f64) -> i32 {
    (1..10).find(|power| value < 10_f64.powi(*power)).unwrap_or(10)
}

fn signed(value: f64) -> String {
    let text = number(value);
    if text.starts_with('-') || text == "0" { text } else { format!("+{text}") }
}

/// `1,736`.
pub(super) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_mean_something() {
        let told = [0.0, 0.414, 0.004, 1.0, 1.234, 12.34, 850.0, 1234.5, -0.000_1, 2e9].map(number);
        assert_eq!(told, ["0", "0.41", "0", "1", "1.23", "12.3", "850", "1234", "0", "2.0e9"]);
        assert_eq!([signed(3.0), signed(-3.0), signed(0.0)], ["+3", "-3", "0"]);
        assert_eq!([thousands(7), thousands(1736), thousands(1_000_000)], ["7", "1,736", "1,000,000"]);
        assert_eq!([Unit::Milliseconds.told(999.0), Unit::Milliseconds.told(12_300.0)], ["999 ms", "12.3 s"]);
    }

    #[test]
    fn what_was_missed_is_told_as_what_was_reached() {
        let arm = ArmFigures {
            n: 100,
            x: Some(10),
            slow_above: None,
            value: Some(0.1),
            interval: Some((Some(0.05), Some(0.2))),
        };
        assert_eq!(Figure::of(&arm, true).cell(Unit::Share, true), "90 % (80..95)");
        assert_eq!(Figure::of(&arm, false).cell(Unit::Share, false), "10 %");
    }

    #[test]
    fn an_effect_is_a_difference_with_both_ends() {
        let side = |value, interval| Figure { n: 100, value, interval };
        let (ours, theirs) =
            (side(Some(0.9), Some((Some(0.85), Some(0.95)))), side(Some(0.8), Some((Some(0.7), Some(0.875)))));
        let effect =
            |unit, ours: &Figure, theirs: &Figure, difference| Effect::of(unit, ours, theirs, difference).cell(unit);
        assert_eq!(effect(Unit::Share, &ours, &theirs, None), "+10 points (-2.5..+25)");
        assert_eq!(effect(Unit::Share, &theirs, &ours, None), "-10 points (-25..+2.5)");
        assert_eq!(effect(Unit::Share, &side(Some(0.9), None), &theirs, None), "+10 points");
        assert_eq!(effect(Unit::Share, &Figure::default(), &theirs, None), "-");
        assert_eq!(effect(Unit::Value, &ours, &theirs, Some((3.0, (-1.0, 7.0)))), "+3 (-1..+7)");
        let (fast, slow) =
            (side(Some(0.01), Some((Some(80.0), Some(100.0)))), side(Some(0.02), Some((Some(120.0), None))));
        assert_eq!(effect(Unit::Milliseconds, &fast, &slow, None), "?..-20 ms");
        assert_eq!(effect(Unit::Milliseconds, &fast, &Figure::default(), None), "-");
    }
}
