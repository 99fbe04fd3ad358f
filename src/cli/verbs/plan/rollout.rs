//! How a release would get the traffic, and what it takes to see harm.

use std::collections::BTreeMap;

use crate::daemon::Rolled;
use crate::desired::RolloutSpec;
use crate::desired::rollout::{Measure, Strategy};
use crate::judge::{Baseline, Decision};
use crate::record::{AgentRecord, Operation, OperationKind};
use crate::rollout::{Known, Rollout, outline};

/// The lines of the rollout that `operation` begins or is; none where it has none.
pub(super) fn lines(operation: Option<&Operation>, rolled: Option<&Rolled>) -> Vec<String> {
    let Some((operation, rolled)) = operation.zip(rolled) else { return vec![] };
    let moves = operation.kind == OperationKind::Release && operation.from.is_some() && operation.from != operation.to;
    if !moves || operation.cause.goes_back() {
        return vec![];
    }
    let running = rolled.record.as_ref().and_then(|record| record.rollout.as_ref());
    let running =
        running.and_then(|saved| Rollout::read(saved).ok()).filter(|rollout| rollout.operation() == operation.id);
    // One that is on its way goes on as it was declared at its start.
    let spec = running.as_ref().map_or(&rolled.spec, Rollout::spec);
    let mut baselines = rolled.record.as_deref().map(|record| measured(spec, record)).unwrap_or_default();
    let mut assumed = assumed(spec);
    assumed.retain(|name, _| !baselines.contains_key(*name));
    let names = assumed.keys().copied().collect::<Vec<_>>().join(", ");
    baselines.extend(assumed.into_iter().map(|(name, baseline)| (name.to_owned(), baseline)));
    let known = Known {
        baselines: &baselines,
        per_second: None,
        carrier: rolled.carrier,
        instances: rolled.instances,
        gates: Some(&rolled.gates),
    };
    let mut lines = outline(spec, known);
    if let (Strategy::Canary(_), false) = (&spec.strategy, baselines.is_empty()) {
        if !names.is_empty() {
            lines.push(format!(
                "{names}: as if stable had half of what the limit allows, for nothing is measured of it yet"
            ));
        }
        lines.push("how long so many requests take is not known: nobody counts today's traffic here".to_owned());
    }
    lines
}

/// What the judge has measured of stable.
fn measured(spec: &RolloutSpec, record: &AgentRecord) -> BTreeMap<String, Baseline> {
    let saved = record.rollout.as_ref().and_then(|rollout| rollout.evidence.as_deref());
    let kept: serde_json::Value = saved.and_then(|saved| serde_json::from_str(saved).ok()).unwrap_or_default();
    let decision: Option<Decision> = kept.get("decision").and_then(|kept| serde_json::from_value(kept.clone()).ok());
    let metrics = decision.map(|decision| decision.figures.metrics).unwrap_or_default();
    let rate = |(name, figures): (String, crate::judge::MetricFigures)| {
        let stable = figures.stable?;
        // Durations count slow requests, too: their share is no rate of events.
        let rate = stable.value.filter(|rate| stable.x.is_some() && stable.slow_above.is_none() && *rate > 0.0)?;
        let reached = spec.analysis.get(&name).is_some_and(|metric| metric.higher_is_better);
        Some((name, Baseline::Rate(if reached { 1.0 - rate } else { rate })))
    };
    metrics.into_iter().filter_map(rate).collect()
}

/// A stable release that keeps its limits with room to spare, for events alone: nothing like it is there for durations.
fn assumed(spec: &RolloutSpec) -> BTreeMap<&str, Baseline> {
    let half = spec.analysis.iter().filter_map(|(name, metric)| {
        let limit = metric.limit.filter(|limit| *limit > 0.0 && *limit < 1.0)?;
        let Measure::Rate { .. } = metric.source.measure() else { return None };
        let rate = if metric.higher_is_better { f64::midpoint(limit, 1.0) } else { limit / 2.0 };
        Some((name.as_str(), Baseline::Rate(rate)))
    });
    half.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::rollout::samples;
    use crate::record::Cause;
    use crate::rollout::Carrier;

    fn told(operation: &Operation, record: Option<AgentRecord>, carrier: Carrier) -> String {
        let rolled = Rolled {
            spec: samples::canary_spec(),
            carrier,
            instances: 3,
            gates: std::collections::BTreeSet::new(),
            record: record.map(Into::into),
        };
        lines(Some(operation), Some(&rolled)).join("\n")
    }

    #[test]
    fn a_canary_is_planned_with_what_it_takes_to_see_harm() {
        insta::assert_snapshot!(told(&samples::operation(), None, Carrier::Counted));
    }

    #[test]
    fn what_was_measured_takes_the_place_of_what_is_assumed() {
        let told = told(&samples::operation(), Some(samples::canary()), Carrier::Routed);
        assert!(!told.contains("as if stable"), "{told}");
        assert!(told.contains("errors: harm shows after about"), "{told}");
    }

    #[test]
    fn the_way_back_has_no_steps() {
        let back = Operation { cause: Cause::Failed { why: "it crashed".to_owned() }, ..samples::operation() };
        assert_eq!(told(&back, None, Carrier::Routed), "");
        let first = Operation { from: None, ..samples::operation() };
        assert_eq!(told(&first, None, Carrier::Routed), "");
        assert_eq!(lines(None, None), Vec::<String>::new());
    }
}
