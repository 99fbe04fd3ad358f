//! Experiments from the push to their end: decided in their time, kept in the record, and ended at once by harm.

use backstay::desired::RolloutSpec;
use backstay::desired::rollout::{AbTest, Field, Segment, Strategy, Winner};
use backstay::judge::{Outcome as Found, Report, Side};
use backstay::record::{Operation, Outcome, Told};
use backstay::rollout::Phase;
use jiff::SignedDuration;

use super::rollout::{by, canary, serving, turns};
use super::world::World;

/// Half of the users for two minutes at least and an hour at most; whoever wins stays.
fn ab_test() -> RolloutSpec {
    let test = AbTest {
        by: Segment::Hash { field: Field::Header("x-user-id".to_owned()), share: 50 },
        at_least: SignedDuration::from_mins(2),
        at_most: SignedDuration::from_hours(1),
        winner: Winner::Promote,
    };
    RolloutSpec { strategy: Strategy::AbTest(test), ..canary() }
}

/// What the record has of the experiment.
fn report(world: &World) -> Option<Report> {
    let evidence = world.record().rollout.as_ref()?.evidence.clone()?;
    let kept: serde_json::Value = serde_json::from_str(&evidence).expect("JSON");
    serde_json::from_value(kept.get("report")?.clone()).expect("a report")
}

/// An experiment in which this release fails so many requests.
fn experiment(of_candidate: f64, of_stable: f64) -> World {
    let mut world = serving();
    let stable = world.stable().expect("stable");
    world = world.git_with("better", by(ab_test())).settle();
    let candidate = world.candidate();
    world.traffic.errors.extend([(candidate, of_candidate), (stable, of_stable)]);
    world.until("figures", |world| report(world).is_some_and(|report| report.figures.metrics["errors"].in_step > 5000))
}

#[test]
fn an_experiment_keeps_what_it_found_through_restarts_and_after_its_end() {
    let mut world = experiment(0.02, 0.05);
    let candidate = world.candidate();
    let before = report(&world).expect("a report");
    assert_eq!(before.outcome, Found::Running);
    world.restart();
    let world = world.settle();
    let after = report(&world).expect("a report after the restart");
    let n = |report: &Report| report.figures.metrics["errors"].candidate.as_ref().expect("figures").n;
    assert!(n(&after) >= n(&before), "{} after {}", n(&after), n(&before));
    let world = world.until("baking", |world| matches!(world.rollout().phase(), Phase::Baking { .. }));
    let world = turns(world, 60);
    let won = report(&world).expect("it stays while the winner is watched");
    assert_eq!(won.outcome, Found::Won(Side::Candidate));
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(candidate));
    let evidence = &world.record().operations[0].evidence;
    assert_eq!(evidence[0], "errors: the candidate is better than stable over the same time");
    assert!(
        evidence[1].starts_with("the candidate is better ") && evidence[1].ends_with(": 200 is enough"),
        "{evidence:?}"
    );
    assert!(evidence[2].starts_with("errors, candidate: ") && evidence[2].contains(", between 0.0"), "{evidence:?}");
    assert!(evidence[3].starts_with("errors, stable: "), "{evidence:?}");
    assert!(world.record().operations[1].evidence.is_empty(), "only the experiment's own");
}

#[test]
fn an_experiment_that_stable_won_keeps_what_it_found_too() {
    let mut world = experiment(0.05, 0.02);
    let (stable, candidate) = (world.stable(), world.candidate());
    world.restart();
    let world = world.settle().until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), stable);
    assert_eq!(world.record().hold.as_ref().map(|hold| hold.left.short()), Some(candidate));
    let failed = |operation: &&Operation| matches!(operation.outcome, Some(Outcome::Failed(_)));
    let evidence = &world.record().operations.iter().find(failed).expect("it went back").evidence;
    assert!(evidence[0].starts_with("errors: the candidate is worse than stable over the same time"), "{evidence:?}");
    assert!(evidence.len() > 3, "{evidence:?}");
}

#[test]
fn an_experiment_ends_at_once_when_its_candidate_fails_flat_out() {
    let mut world = serving();
    let stable = world.stable();
    world = world.git_with("bad", by(ab_test())).settle();
    let (candidate, began) = (world.candidate(), world.now);
    world.traffic.errors.insert(candidate.clone(), 1.0);
    // Long before its least time, and though the daemon restarts.
    world = world.until("figures", |world| world.weight_of(&candidate) > 0.0);
    world.restart();
    let world = world.settle().until("at rest", World::is_at_rest).settle();
    assert!(world.now.duration_since(began) < SignedDuration::from_secs(30), "{began} to {}", world.now);
    assert_eq!(world.stable(), stable);
    assert_eq!(world.record().quarantine[0].release.short(), candidate);
    assert_eq!(world.record().quarantine[0].git, Told::Commit("c0ffee".to_owned()));
}
