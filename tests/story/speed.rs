//! What a rollout costs the core; printed, not asserted.

use std::collections::BTreeMap;
use std::time::Duration;

use backstay::desired::rollout::{Canary, Step, Strategy, Until};
use backstay::desired::{RolloutSpec, Settings};
use jiff::SignedDuration;

use super::git::route;
use super::traffic::Traffic;
use super::world::World;

/// Rollouts at once.
const AGENTS: u32 = 1000;

/// Half of the traffic for an hour: it is judged all the while, and nothing ends it.
fn long() -> RolloutSpec {
    let until = Until::Time(SignedDuration::from_hours(1));
    let step = Step::Weight { weight: 50, until, limits: BTreeMap::new() };
    RolloutSpec {
        strategy: Strategy::Canary(Canary { steps: vec![step], mirror: None, reach: None }),
        analysis: RolloutSpec::default_metrics(),
        ..RolloutSpec::default()
    }
}

#[test]
#[ignore = "a measurement: run it optimised"]
fn tables_of_rollouts_at_once() {
    let by = |_: &mut backstay::desired::ReleaseSpec, settings: &mut Settings| {
        settings.route = Some(route());
        settings.rollout = Some(long());
    };
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    let mut world = world.git_with("one", by).settle().git_with("two", by).settle();
    for _ in 0..30 {
        world = world.until_woken();
    }
    let (from, begun) = (world.now, std::mem::take(&mut world.worked));
    assert!(begun > Duration::ZERO);
    while world.now.duration_since(from) < SignedDuration::from_mins(5) {
        world = world.until_woken();
    }
    let seconds = world.now.duration_since(from).as_secs_f64();
    let each = world.worked.as_secs_f64() / seconds;
    let state = world.record().rollout.as_ref().and_then(|saved| saved.evidence.as_ref()).map_or(0, String::len);
    println!(
        "a rollout with {} metrics: {:.3} ms of the core in a second, {state} bytes of evidence; {AGENTS} at once: {:.2} of a core",
        long().analysis.len(),
        each * 1e3,
        each * f64::from(AGENTS)
    );
}
