//! What `plan` will print of a rollout.

use std::collections::{BTreeMap, BTreeSet};

use backstay::desired::RolloutSpec;
use backstay::desired::rollout::{Field, Match, Metric, Preset, Step, Strategy, Until};
use backstay::judge::Baseline;
use backstay::rollout::{Carrier, Known, outline};
use insta::assert_snapshot;
use jiff::SignedDuration;

use super::bench::{blue_green, canary};

fn told(
    spec: &RolloutSpec,
    baselines: &BTreeMap<String, Baseline>,
    per_second: Option<f64>,
    carrier: Carrier,
) -> String {
    outline(spec, Known { baselines, per_second, carrier, instances: 3, gates: None }).join("\n")
}

fn errors() -> BTreeMap<String, Baseline> {
    BTreeMap::from([("errors".to_owned(), Baseline::Rate(0.01))])
}

#[test]
fn a_canary_says_how_many_requests_each_step_takes() {
    let spec = canary(RolloutSpec::default_steps(true));
    assert_snapshot!(told(&spec, &errors(), Some(10.0), Carrier::Routed));
}

#[test]
fn without_a_gateway_it_says_what_the_pods_make_of_it() {
    let mut spec = canary(vec![
        Step::Weight {
            weight: 5,
            until: Until::Samples { samples: 1500, at_most: SignedDuration::from_hours(1) },
            limits: BTreeMap::new(),
        },
        Step::Pause { lasts: None },
        Step::Gate { name: "load".to_owned() },
        Step::Replicas { count: 2 },
    ]);
    let injections = Metric { limit: Some(0.0), ..Metric::preset(Preset::PromptInjections) };
    spec.analysis = BTreeMap::from([("injections".to_owned(), injections)]);
    if let Strategy::Canary(canary) = &mut spec.strategy {
        canary.mirror = Some(SignedDuration::from_mins(2));
        canary.reach = Some(Match { field: Field::Header("x-canary".to_owned()), value: "yes".to_owned() });
    }
    assert_snapshot!(told(&spec, &BTreeMap::new(), None, Carrier::Counted));
}

#[test]
fn a_switch_says_what_stays() {
    assert_snapshot!(told(&blue_green(), &BTreeMap::new(), None, Carrier::Routed));
    assert_eq!(told(&RolloutSpec::default(), &BTreeMap::new(), None, Carrier::InPlace), "");
}

#[test]
fn a_gate_that_nobody_can_ask_is_told_before_it_begins() {
    let spec = canary(vec![Step::Gate { name: "load".to_owned() }]);
    let told = |gates: Option<&BTreeSet<String>>| {
        let baselines = BTreeMap::new();
        let known = Known { baselines: &baselines, per_second: None, carrier: Carrier::Routed, instances: 3, gates };
        outline(&spec, known)[1].clone()
    };
    assert_eq!(told(None), "  step 1: wait for the gate `load`");
    assert_eq!(told(Some(&BTreeSet::from(["load".to_owned()]))), "  step 1: wait for the gate `load`");
    let unnamed = told(Some(&BTreeSet::from(["lode".to_owned()])));
    assert!(
        unnamed.contains("add `[gates.load]` to backstay.toml") && unnamed.contains("backstay promote"),
        "{unnamed}"
    );
}
