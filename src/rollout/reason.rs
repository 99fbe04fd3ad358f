//! Why a rollout went back, and what follows.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Person;
use crate::judge::{ArmFigures, Decision, Report, Why};
use crate::model::ReleaseId;

/// Why a rollout went back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reason {
    /// The judge says so, with the figures behind it.
    Judged(Box<Decision>),
    /// The candidate failed by itself, in one sentence.
    Failed {
        /// What failed.
        why: String,
    },
    /// A person took it back.
    Person {
        /// Who.
        by: Person,
        /// In their words.
        reason: String,
    },
    /// Git asks for stable again.
    Reverted,
    /// Git asks for another release.
    Superseded {
        /// Which.
        by: ReleaseId,
    },
    /// The experiment says that the candidate is not better, in one sentence.
    Lost {
        /// What it found.
        sentence: String,
    },
}

/// What follows when the traffic is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aftermath {
    /// The release failed: it is not tried again without consent.
    pub quarantine: bool,
    /// Git still asks for it: it is not rolled forward to again while it does.
    pub hold: bool,
    /// Git is told, in the way of the environment.
    pub tell_git: bool,
}

// === impl Reason ===

impl Reason {
    /// What follows.
    ///
    /// Harm and failure quarantine. A deadline and missing data blame nobody: the release is held, and Git is not
    /// rewritten by them. What Git itself asked for needs nothing more.
    pub fn aftermath(&self) -> Aftermath {
        let (quarantine, hold, tell_git) = match self {
            Self::Judged(decision) => match decision.why {
                Why::Failed | Why::Harm => (true, false, true),
                Why::NoData | Why::Undecided | Why::NoHarm | Why::Waiting => (false, true, false),
            },
            Self::Failed { .. } => (true, false, true),
            Self::Person { .. } | Self::Lost { .. } => (false, true, true),
            Self::Reverted | Self::Superseded { .. } => (false, false, false),
        };
        Aftermath { quarantine, hold, tell_git }
    }

    /// Whether nobody asked for it: what is counted against too many of them.
    pub fn is_automatic(&self) -> bool {
        matches!(self, Self::Judged(_) | Self::Failed { .. })
    }
}

/// The figures behind a reason, one line each, at most `most`: the metric that decided first.
pub fn evidence(reason: &Reason, most: usize) -> Vec<String> {
    let Reason::Judged(decision) = reason else { return vec![] };
    let decided = decision.metric.as_deref();
    let mut metrics: Vec<_> = decision.figures.metrics.iter().collect();
    metrics.sort_by_key(|(name, _)| Some(name.as_str()) != decided);
    let lasted = decision.at.duration_since(decision.figures.since);
    let window = format!("step {} for {} s, until {:.0}", decision.figures.step + 1, lasted.as_secs(), decision.at);
    // What failed outright was not weighed.
    let harm = (decision.why != Why::Failed).then(|| {
        let figures = &decision.figures;
        let harm = if figures.is_beyond_measure() { "beyond measure".to_owned() } else { rounded(figures.harm) };
        format!("harm {harm}: {} is enough", rounded(figures.harm_needed))
    });
    let lines = metrics.into_iter().flat_map(|(name, figures)| {
        let arms = [("candidate", &figures.candidate), ("stable", &figures.stable)];
        arms.into_iter().filter_map(move |(side, figures)| Some(format!("{name}, {side}: {}", arm(figures.as_ref()?))))
    });
    [window].into_iter().chain(harm).chain(lines).take(most).collect()
}

/// What an experiment found, one line each, at most `most`: the metric that decided first.
pub fn findings(report: &Report, most: usize) -> Vec<String> {
    let Report { metric: decided, sentence, figures, better, .. } = report;
    let mut metrics: Vec<_> = figures.metrics.iter().collect();
    metrics.sort_by_key(|(name, _)| Some(*name) != decided.as_ref());
    let weighed = format!(
        "the candidate is better {}, worse {}: {} is enough",
        rounded(*better),
        rounded(figures.harm),
        rounded(figures.harm_needed)
    );
    let lines = metrics.into_iter().flat_map(|(name, figures)| {
        let arms = [("candidate", &figures.candidate), ("stable", &figures.stable)];
        let arms = arms
            .into_iter()
            .filter_map(move |(side, figures)| Some(format!("{name}, {side}: {}", arm(figures.as_ref()?))));
        let difference = figures.difference.map(|(middle, (low, high))| {
            format!("{name}, difference: {}, between {} and {}", rounded(middle), rounded(low), rounded(high))
        });
        arms.chain(difference)
    });
    [sentence.clone(), weighed].into_iter().chain(lines).take(most).collect()
}

fn arm(figures: &ArmFigures) -> String {
    let mut text = match (figures.x, figures.slow_above) {
        (Some(x), Some(bound)) => format!("{x} of {} above {}", figures.n, rounded(bound)),
        (Some(x), None) => format!("{x} of {}", figures.n),
        (None, _) => format!("{} of {}", figures.value.map_or_else(|| "?".to_owned(), rounded), figures.n),
    };
    if let Some((low, high)) = figures.interval {
        let end = |end: Option<f64>| end.map_or_else(|| "?".to_owned(), rounded);
        text.push_str(&format!(", between {} and {}", end(low), end(high)));
    }
    text
}

/// Four figures are enough for people.
fn rounded(value: f64) -> String {
    if value.abs() >= 1e6 {
        return format!("{value:.1e}");
    }
    let digits = if value.abs() >= 100.0 { 0 } else { 4 };
    let text = format!("{value:.digits$}");
    if digits == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Judged(decision) => f.write_str(&decision.sentence),
            Self::Failed { why } => f.write_str(why),
            Self::Person { by, reason } if reason.is_empty() => write!(f, "{by} took it back"),
            Self::Person { by, reason } => write!(f, "{by} took it back: {reason}"),
            Self::Reverted => f.write_str("Git asks for the stable release again"),
            Self::Superseded { by } => write!(f, "Git asks for {by} now"),
            Self::Lost { sentence } => f.write_str(sentence),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::judge::{Figures, Verdict};

    #[test]
    fn harm_is_weighed_but_for_what_failed_outright() {
        let at = "2026-11-25T19:36:29.119344287Z".parse().expect("a time");
        let figures = Figures {
            harm: 0.5,
            harm_needed: 100.0,
            no_harm_needed: 20.0,
            since: at,
            step: 0,
            metrics: BTreeMap::new(),
        };
        let (verdict, metric) = (Verdict::Abort, Some("injections".to_owned()));
        let (sentence, missing, note) = Default::default();
        let decision = Decision { verdict, why: Why::Failed, metric, sentence, missing, note, at, figures };
        let window = "step 1 for 0 s, until 2026-11-25T19:36:29Z";
        assert_eq!(evidence(&Reason::Judged(Box::new(decision.clone())), 10), [window]);
        let harmful = Reason::Judged(Box::new(Decision { why: Why::Harm, ..decision }));
        assert_eq!(evidence(&harmful, 10), [window, "harm 0.5: 100 is enough"]);
    }

    #[test]
    fn an_experiment_is_told_by_the_metric_that_decided_first() {
        let arm =
            |n, x| ArmFigures { n, x: Some(x), slow_above: None, value: None, interval: Some((Some(0.123_456), None)) };
        let metric = |candidate, difference| crate::judge::MetricFigures {
            candidate: Some(candidate),
            stable: Some(arm(1000, 50)),
            difference,
            in_step: 0,
            harm: None,
            over_limit: None,
            no_harm: None,
            within_limit: None,
            muted: false,
            guard: 1.0,
            no_data: None,
            measured: None,
        };
        let metrics =
            [("errors", metric(arm(990, 3), None)), ("goals", metric(arm(1000, 90), Some((0.04, (0.01, 0.07)))))];
        let report = Report {
            outcome: crate::judge::Outcome::Running,
            metric: Some("goals".to_owned()),
            sentence: "goals: the candidate is better".to_owned(),
            figures: Figures {
                harm: 0.02,
                harm_needed: 200.0,
                no_harm_needed: 20.0,
                since: "2026-11-25T19:36:29Z".parse().expect("a time"),
                step: 0,
                metrics: metrics.map(|(name, figures)| (name.to_owned(), figures)).into(),
            },
            better: 1234.5,
        };
        let told = findings(&report, 10);
        assert_eq!(
            told,
            [
                "goals: the candidate is better",
                "the candidate is better 1234, worse 0.02: 200 is enough",
                "goals, candidate: 90 of 1000, between 0.1235 and ?",
                "goals, stable: 50 of 1000, between 0.1235 and ?",
                "goals, difference: 0.04, between 0.01 and 0.07",
                "errors, candidate: 3 of 990, between 0.1235 and ?",
                "errors, stable: 50 of 1000, between 0.1235 and ?",
            ]
        );
        assert_eq!(findings(&report, 3), told[..3]);
    }
}
