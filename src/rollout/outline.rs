//! A rollout before it begins, as `plan` prints it: what each step gives, and what it takes to see harm.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::{Carrier, judged, rounded};
use crate::desired::RolloutSpec;
use crate::desired::rollout::{
    AbTest, BlueGreen, Canary, Field, Match, Metric, Segment, Step, Strategy, Until, Winner,
};
use crate::judge::{Baseline, Need, StepNeed, needs};

/// What is known before anything is tried.
#[derive(Debug, Clone, Copy)]
pub struct Known<'k> {
    /// What stable does, by metric.
    pub baselines: &'k BTreeMap<String, Baseline>,
    /// Requests of the agent in a second; nothing: nobody knows.
    pub per_second: Option<f64>,
    /// How traffic will be split.
    pub carrier: Carrier,
    /// Instances of the agent all in all.
    pub instances: u32,
    /// The gates that the daemon's configuration names; nothing: nobody knows.
    pub gates: Option<&'k BTreeSet<String>>,
}

/// The lines of a rollout; none for one that is but rolling.
///
/// The numbers of requests are estimates of the judge: enough in half of all cases, and in nineteen of twenty.
pub fn outline(spec: &RolloutSpec, known: Known<'_>) -> Vec<String> {
    let mut lines = match &spec.strategy {
        Strategy::Rolling => return vec![],
        Strategy::Canary(canary) => canary_lines(spec, canary, known),
        Strategy::BlueGreen(declared) => blue_green_lines(declared),
        Strategy::AbTest(test) => ab_test_lines(test, spec),
    };
    let bake = spec.rollback.bake;
    if bake.is_positive() {
        lines.push(format!("then it is watched for {}, and goes back by itself if it fails", span(bake)));
    }
    lines
}

fn canary_lines(spec: &RolloutSpec, canary: &Canary, known: Known<'_>) -> Vec<String> {
    let mut lines = vec!["canary".to_owned()];
    if let Some(lasts) = canary.mirror {
        lines.push(format!("  first: a copy of the requests for {}, its answers thrown away", span(lasts)));
    }
    if let Some(reach) = &canary.reach {
        lines.push(format!("  requests with {} reach the candidate all the time", matched(reach)));
    }
    let all = judged(spec).map(|judged| needs(&judged, |name| known.baselines.get(name))).unwrap_or_default();
    let mut judged_at = 0;
    for (n, step) in canary.steps.iter().enumerate() {
        let what = match step {
            Step::Weight { weight, until: Until::Time(lasts), .. } => {
                format!("{weight} % of the traffic for at least {}{}", span(*lasts), by_number(*weight, known))
            }
            Step::Weight { weight, until: Until::Samples { samples, at_most }, .. } => format!(
                "{weight} % of the traffic until {} requests of the candidate, {} at most{}",
                thousands(*samples),
                span(*at_most),
                by_number(*weight, known),
            ),
            Step::Pause { lasts: Some(lasts) } => format!("pause for {}", span(*lasts)),
            Step::Pause { lasts: None } => "pause until `backstay promote`".to_owned(),
            Step::Gate { name } if known.gates.is_some_and(|named| !named.contains(name)) => format!(
                "wait for the gate `{name}`, which nobody can ask: add `[gates.{name}]` to backstay.toml, or it takes \
                 `backstay promote`"
            ),
            Step::Gate { name } => format!("wait for the gate `{name}`"),
            Step::Replicas { count } => format!("{count} instances of the candidate at least"),
        };
        lines.push(format!("  step {}: {what}", n + 1));
        if let Step::Weight { weight, limits, .. } = step {
            let of_step: Vec<_> = all.iter().filter(|need| need.step == judged_at).collect();
            for (name, metric) in &spec.analysis {
                let need = of_step.iter().find(|need| need.metric == *name);
                let limit = limits.get(name).copied().or(metric.limit);
                lines.push(format!("    {name}: {}", metric_line(metric, limit, need.copied(), *weight, known)));
            }
            judged_at += 1;
        }
    }
    lines.push("  then all of the traffic".to_owned());
    lines
}

fn metric_line(metric: &Metric, limit: Option<f64>, need: Option<&StepNeed>, weight: u8, known: Known<'_>) -> String {
    if metric.limit.or(limit) == Some(0.0) && !metric.higher_is_better {
        return "a single event sends it back".to_owned();
    }
    let Some(need) = need else {
        return "nobody knows how many requests it takes: nothing is measured of stable yet".to_owned();
    };
    let said = |need: Option<Need>| match need {
        Some(need) => {
            let time = known.per_second.filter(|rate| *rate > 0.0).map(|rate| {
                let seconds = real(need.half) / (rate * f64::from(weight) / 100.0);
                format!(", about {} at today's traffic", span(rough(seconds)))
            });
            format!(
                "after about {} requests of the candidate ({} in 19 of 20 cases){}",
                thousands(need.half),
                thousands(need.most),
                time.unwrap_or_default(),
            )
        }
        None => "by no number of requests".to_owned(),
    };
    format!("harm shows {}; none shows {}", said(need.harm), said(need.no_harm))
}

/// What the number of instances makes of a weight, where it splits the traffic.
fn by_number(weight: u8, known: Known<'_>) -> String {
    if known.carrier != Carrier::Counted || known.instances == 0 || weight == 100 {
        return String::new();
    }
    let candidate = rounded(known.instances, weight).max(1);
    let stable = (known.instances - rounded(known.instances, weight)).max(1);
    let part = (u64::from(candidate) * 100 + u64::from(candidate + stable) / 2) / u64::from(candidate + stable);
    if part == u64::from(weight) {
        return String::new();
    }
    let pods = if known.instances == 1 { "pod" } else { "pods" };
    format!("; without a Gateway {weight} % of {} {pods} is {part} %", known.instances)
}

fn blue_green_lines(declared: &BlueGreen) -> Vec<String> {
    let seen = match &declared.preview {
        Some(host) => format!("through its preview at {host}"),
        None => "through its preview".to_owned(),
    };
    let mut lines = vec![
        "blueGreen".to_owned(),
        format!("  a full second set; `{}` must answer {seen}", declared.smoke),
        "  then all of the traffic at once".to_owned(),
    ];
    if declared.keep_old.is_positive() {
        lines.push(format!("  the first set stays for {}: back is the same switch", span(declared.keep_old)));
    }
    lines
}

fn ab_test_lines(test: &AbTest, spec: &RolloutSpec) -> Vec<String> {
    let who = match &test.by {
        Segment::Hash { field, share } => format!("{share} % of the users, by the hash of {}", named(field)),
        Segment::Value(value) => format!("requests with {}", matched(value)),
    };
    let compared: Vec<_> =
        spec.analysis.iter().filter(|(_, metric)| metric.compare).map(|(name, _)| name.as_str()).collect();
    let winner = match test.winner {
        Winner::Promote => "a candidate that is better is promoted",
        Winner::Ask => "a person decides",
    };
    vec![
        "abTest".to_owned(),
        format!("  {who} get the candidate"),
        format!(
            "  until {} is decided, {} at least and {} at most; then {winner}",
            compared.join(" or "),
            span(test.at_least),
            span(test.at_most),
        ),
    ]
}

fn named(field: &Field) -> String {
    match field {
        Field::Header(name) => format!("the header `{name}`"),
        Field::Cookie(name) => format!("the cookie `{name}`"),
    }
}

fn matched(matched: &Match) -> String {
    format!("{} = `{}`", named(&matched.field), matched.value)
}

/// Short, in the units that people use.
fn span(span: SignedDuration) -> String {
    format!("{span:#}")
}

/// Whole minutes, or seconds where there are few.
fn rough(seconds: f64) -> SignedDuration {
    let seconds = SignedDuration::try_from_secs_f64(seconds.min(1e9)).unwrap_or(SignedDuration::MAX).as_secs();
    let unit = if seconds >= 36_000 {
        3600
    } else if seconds >= 120 {
        60
    } else {
        1
    };
    SignedDuration::from_secs((seconds + unit / 2) / unit * unit)
}

/// `1,736`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn real(count: u64) -> f64 {
    // Counts of requests are far below where a double is inexact; a larger one is no duration anyway.
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
