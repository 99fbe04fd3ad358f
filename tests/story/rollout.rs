//! A rollout from the push to its end: step by step, judged, taken back, told to Git, and never through a half state.

use std::collections::BTreeMap;

use backstay::desired::RolloutSpec;
use backstay::desired::Settings;
use backstay::desired::rollout::{BlueGreen, Canary, OnNewCommit, Rollback, Step, Strategy, Until};
use backstay::record::{ConditionKind, Outcome, Request, RollbackRequest, Told};
use backstay::rollout::{Answer, Closed, Phase, Rollout, Smoked};
use jiff::SignedDuration;
use serde_json::json;

use super::cluster::{Endpoints, UNREADY};
use super::git::route;
use super::traffic::Traffic;
use super::world::{World, agent};

/// 5 % for a minute, 50 % for a minute, all; watched for two minutes; the default metrics.
pub(super) fn canary() -> RolloutSpec {
    let step =
        |weight| Step::Weight { weight, until: Until::Time(SignedDuration::from_mins(1)), limits: BTreeMap::new() };
    RolloutSpec {
        strategy: Strategy::Canary(Canary { steps: vec![step(5), step(50)], mirror: None, reach: None }),
        analysis: RolloutSpec::default_metrics(),
        default_analysis: true,
        rollback: Rollback { bake: SignedDuration::from_mins(2), ..Rollback::default() },
        ..RolloutSpec::default()
    }
}

fn blue_green() -> RolloutSpec {
    let switch = BlueGreen { preview: None, smoke: "/healthz".to_owned(), keep_old: SignedDuration::from_mins(5) };
    RolloutSpec { strategy: Strategy::BlueGreen(switch), ..canary() }
}

/// Behind a Gateway.
pub(super) fn by(spec: RolloutSpec) -> impl FnOnce(&mut backstay::desired::ReleaseSpec, &mut Settings) {
    move |_, settings| {
        settings.route = Some(route());
        settings.rollout = Some(spec);
    }
}

/// By the number of pods behind the agent's Service: ten all in all.
pub(super) fn by_number(spec: RolloutSpec) -> impl FnOnce(&mut backstay::desired::ReleaseSpec, &mut Settings) {
    move |_, settings| {
        settings.replicas = Some(10);
        settings.rollout = Some(spec);
    }
}

/// `support` serves `good`, with a set of its own and 200 requests a second.
pub(super) fn serving() -> World {
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    world.git_with("good", by(canary())).settle()
}

impl World {
    pub(super) fn rollout(&self) -> Rollout {
        Rollout::read(self.record().rollout.as_ref().expect("a rollout")).expect("a state")
    }

    /// Lets time pass, second by second as the core asks for it, until something holds.
    pub(super) fn until(mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Self {
        for _ in 0..3000 {
            if holds(&self) {
                return self;
            }
            self = self.until_woken();
        }
        panic!("never {what}: {:?}; told {:?}", self.record(), self.told);
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.record().operation.is_none()
    }

    pub(super) fn weight_of(&self, release: &str) -> f64 {
        self.weights(&super::world::agent()).get(release).copied().unwrap_or(0.0)
    }

    pub(super) fn candidate(&self) -> String {
        self.record().candidate.as_ref().expect("a candidate").release.short()
    }

    pub(super) fn has_told(&self, word: &str) -> bool {
        self.told.iter().any(|told| told.starts_with(&format!("{word}:")))
    }
}

fn ask(id: &str) -> Request {
    Request { id: id.to_owned(), by: "alice".to_owned(), reason: "it is wrong".to_owned() }
}

#[test]
fn a_first_release_has_a_set_of_its_own_and_all_of_the_traffic() {
    let world = serving();
    let stable = world.stable().expect("a release");
    assert!(world.record().stable.as_ref().expect("stable").own_set);
    assert!(world.find("Deployment", &format!("support--{stable}")).is_some());
    assert!(world.find("Deployment", "support").is_none());
    assert!((world.weight_of(&stable) - 100.0).abs() < f64::EPSILON);
    assert!(world.holds(ConditionKind::Ready));
}

#[test]
fn a_good_candidate_goes_out_step_by_step() {
    let world = serving().git_with("better", by(canary())).settle();
    let (stable, candidate) = (world.stable().expect("stable"), world.candidate());
    let world = world.until("at 5 %", |world| (world.weight_of(&candidate) - 5.0).abs() < f64::EPSILON);
    assert!((world.weight_of(&stable) - 95.0).abs() < f64::EPSILON);
    let world = world.until("at 50 %", |world| (world.weight_of(&candidate) - 50.0).abs() < f64::EPSILON);
    let world = world.until("baking", |world| matches!(world.rollout().phase(), Phase::Baking { .. }));
    assert!((world.weight_of(&candidate) - 100.0).abs() < f64::EPSILON);
    // The old set stays for the way back while the new one is watched.
    assert!(world.find("Deployment", &format!("support--{stable}")).is_some());
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(candidate.clone()));
    assert!(world.find("Deployment", &format!("support--{stable}")).is_none(), "{:?}", world.writes);
    assert_eq!(world.record().operations[0].outcome, Some(Outcome::Succeeded));
    assert!(world.holds(ConditionKind::Ready), "{:?}", world.record().conditions);
    let effects = world.effects;
    let world = world.later(SignedDuration::from_mins(7)).settle();
    assert_eq!(world.effects, effects, "at rest nothing is written");
}

// D9
#[test]
fn what_git_was_told_is_known_though_nobody_heard_its_answer() {
    let mut world = serving().git_with("bad", by(canary())).settle();
    let candidate = world.candidate();
    world.traffic.errors.insert(candidate, 0.5);
    let mut world = world.until("at rest", World::is_at_rest).settle();
    // As it stood when the daemon died: the push was sent, and the commit came by the first poll of the next one.
    world.ledger.get_mut(&agent()).expect("an entry").rewrite(|record| record.quarantine[0].git = Told::Pending);
    assert!(world.git.arrive());
    world.restart();
    let world = world.settle();
    assert_eq!(world.record().quarantine[0].git, Told::Commit("c0ffee".to_owned()));
    assert!(world.holds(ConditionKind::Ready), "{:?}", world.record().conditions);
    assert!(!world.git.clone().arrive(), "Git is told once");
}

#[test]
fn a_bad_candidate_goes_back_and_git_is_told() {
    let mut world = serving().git_with("bad", by(canary())).settle();
    let (stable, candidate) = (world.stable().expect("stable"), world.candidate());
    world.traffic.errors.insert(candidate.clone(), 0.5);
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(stable.clone()));
    assert!(world.weight_of(&candidate) < f64::EPSILON);
    let record = world.record();
    let failed = &record.quarantine[0];
    assert_eq!(failed.release.short(), candidate);
    assert!(failed.word == "error_rate_high" || failed.word == "circuit_breaker", "{failed:?}");
    assert!(!failed.evidence.is_empty(), "{failed:?}");
    assert_eq!(failed.git, Told::Commit("c0ffee".to_owned()));
    assert!(matches!(&record.operations[0].outcome, Some(Outcome::Failed(_))), "{:?}", record.operations[0]);
    assert!(world.find("Deployment", &format!("support--{candidate}")).is_none());
    // The revert arrives: nothing new is deployed, and nothing is reverted again.
    let (operations, told) =
        (record.operations.len(), world.writes.iter().filter(|w| w.starts_with("tell git")).count());
    let mut world = world;
    assert!(world.git.arrive());
    let world = world.settle().later(SignedDuration::from_mins(20)).settle();
    assert_eq!(world.record().operations.len(), operations);
    assert_eq!(world.writes.iter().filter(|w| w.starts_with("tell git")).count(), told);
    assert!(world.holds(ConditionKind::Ready), "{:?}", world.record().conditions);
    // The same content again stays out, with the reason.
    let world = world.git_with("bad", by(canary())).settle().later(SignedDuration::from_mins(20)).settle();
    assert_eq!(world.stable(), Some(stable));
    assert!(!world.holds(ConditionKind::Ready));
}

#[test]
fn traffic_goes_back_before_anything_else_does() {
    let mut world = serving().git_with("bad", by(canary())).settle();
    let candidate = world.candidate();
    world.traffic.errors.insert(candidate.clone(), 1.0);
    let before = world.writes.len();
    let world = world.until("aborting", |world| world.has_told("Aborting")).settle();
    let after: Vec<_> = world.writes[before..].iter().filter(|write| *write != "record").cloned().collect();
    let route = after.iter().rposition(|write| write == "~ HTTPRoute/support").expect("the route is taken back");
    let pruned = after.iter().position(|write| write.starts_with('-')).expect("the candidate is pruned");
    assert!(route < pruned, "{after:?}");
    let told = after.iter().position(|write| write.starts_with("tell git")).expect("Git is told");
    assert!(route < told, "{after:?}");
}

#[test]
fn a_candidate_that_crashes_gets_no_traffic_and_goes_back_at_once() {
    let mut world = serving();
    let stable = world.stable();
    world = world.git_with("bad", by(canary()));
    let bad = super::world::desired(&super::world::agent(), "bad", by(canary())).release.id.short();
    world.cluster.sick.insert(bad.clone(), "CrashLoopBackOff");
    let world = world.settle();
    assert!(world.is_at_rest(), "{:?}", world.record());
    assert_eq!(world.stable(), stable);
    assert_eq!(world.record().quarantine[0].word, "health_check_failed");
    assert_eq!(world.record().quarantine[0].release.short(), bad);
    assert!(!world.has_told("TrafficShifted"));
}

#[test]
fn a_revert_during_a_rollout_ends_it_at_once() {
    let world = serving().git_with("better", by(canary())).settle();
    let (stable, candidate) = (world.stable(), world.candidate());
    let world = world.until("at 5 %", |world| world.weight_of(&candidate) > 1.0);
    let world = world.git_with("good", by(canary())).settle();
    assert!(world.is_at_rest(), "{:?}", world.record());
    assert_eq!(world.stable(), stable);
    assert!(world.weight_of(&candidate) < f64::EPSILON);
    assert!(world.record().quarantine.is_empty());
    assert!(!world.writes.iter().any(|write| write.starts_with("tell git")));
    assert!(world.holds(ConditionKind::Ready), "{:?}", world.record().conditions);
}

#[test]
fn a_newer_commit_supersedes_a_rollout_or_waits_for_its_end() {
    for (rule, waits) in [(OnNewCommit::Supersede, false), (OnNewCommit::Queue, true)] {
        let spec = || RolloutSpec { on_new_commit: rule, ..canary() };
        let mut world = World::new();
        world.traffic = Traffic::of(200.0);
        world = world.git_with("good", by(spec())).settle().git_with("better", by(spec())).settle();
        let first = world.candidate();
        let world = world.until("at 5 %", |world| world.weight_of(&first) > 1.0);
        let world = world.git_with("best", by(spec())).settle();
        assert_eq!(world.candidate() == first, waits);
        let world = world.until("the last", |world| {
            world.is_at_rest()
                && world.stable().is_some_and(|stable| stable != first)
                && world.record().history.len() > usize::from(waits)
        });
        let best = super::world::desired(&super::world::agent(), "best", by(spec())).release.id.short();
        assert_eq!(world.stable(), Some(best));
    }
}

#[test]
fn people_pause_promote_and_abort() {
    let mut world = serving().git_with("better", by(canary())).settle();
    let (stable, candidate) = (world.stable(), world.candidate());
    world = world.until("at 5 %", |world| world.weight_of(&candidate) > 1.0);
    world.requests().pause = Some(ask("1"));
    world = world.settle().later(SignedDuration::from_mins(30)).settle();
    for _ in 0..200 {
        world = world.until_woken();
    }
    assert!((world.weight_of(&candidate) - 5.0).abs() < f64::EPSILON, "paused");
    world.requests().promote = Some(ask("2"));
    world = world.settle().until("at 50 %", |world| world.weight_of(&candidate) > 6.0);
    world.requests().abort = Some(ask("3"));
    let world = world.settle();
    assert!(world.is_at_rest());
    assert_eq!(world.stable(), stable);
    let hold = world.record().hold.clone().expect("a hold");
    assert_eq!((hold.left.short(), &*hold.by), (candidate, "alice"));
    assert_eq!(hold.git, Told::Commit("c0ffee".to_owned()));
    assert!(world.record().quarantine.is_empty());
}

/// 5 % for a minute, then a gate, then 50 % for a minute.
fn gated(gate: &str) -> RolloutSpec {
    let mut spec = canary();
    if let Strategy::Canary(canary) = &mut spec.strategy {
        canary.steps.insert(1, Step::Gate { name: gate.to_owned() });
    }
    spec
}

/// At the gate `gate`, which says this.
fn at_a_gate(gate: &str, says: Option<Answer>) -> World {
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    world.gate = says;
    let world = world.git_with("good", by(gated(gate))).settle().git_with("better", by(gated(gate))).settle();
    world.until("at the gate", |world| world.rollout().at_gate().is_some())
}

pub(super) fn turns(mut world: World, turns: usize) -> World {
    for _ in 0..turns {
        world = world.until_woken();
    }
    world
}

fn progressing(world: &World) -> String {
    world.record().condition(ConditionKind::Progressing).expect("a condition").message.clone()
}

#[test]
fn a_gate_holds_until_it_opens_and_is_asked_every_five_seconds() {
    let not_yet = Answer::Closed(Closed::Because("it answers 409: 3 of 5 done".to_owned()));
    let world = at_a_gate("load", Some(not_yet));
    let candidate = world.candidate();
    let (asked, since) = (world.gate_asked.len(), world.now);
    let mut world = turns(world, 200);
    assert!((world.weight_of(&candidate) - 5.0).abs() < f64::EPSILON, "{:?}", world.told);
    let lasted = world.now.duration_since(since).as_secs();
    let often = i64::try_from(world.gate_asked.len() - asked).expect("few");
    assert!(lasted >= 60 && (lasted / 5 - 2..=lasted / 5 + 2).contains(&often), "{often} times in {lasted} s");
    let (_, question) = world.gate_asked.last().expect("a question");
    assert_eq!((&*question.gate, question.step, question.releases.candidate.short()), ("load", 1, candidate.clone()));
    assert!(progressing(&world).contains("the gate `load`: it answers 409: 3 of 5 done"), "{}", progressing(&world));
    assert_eq!(world.told.iter().filter(|told| told.contains("the gate `load`")).count(), 1, "{:?}", world.told);
    assert!(!world.holds(ConditionKind::Stalled));
    world.gate = Some(Answer::Open);
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(candidate));
}

#[test]
fn a_gate_that_refuses_takes_the_candidate_back_and_git_is_told() {
    let mut world = at_a_gate("load", None);
    let candidate = world.candidate();
    world.gate = Some(Answer::Refused("load test failed".to_owned()));
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_ne!(world.stable(), Some(candidate.clone()));
    let failed = &world.record().quarantine[0];
    assert_eq!((failed.release.short(), &*failed.reason), (candidate, "the gate `load` refuses it: load test failed"));
    assert_eq!(failed.git, Told::Commit("c0ffee".to_owned()));
}

#[test]
fn an_answer_that_gets_lost_holds_and_the_gate_is_asked_again() {
    let world = at_a_gate("load", None);
    let candidate = world.candidate();
    let (asked, since) = (world.gate_asked.len(), world.now);
    let mut world = turns(world, 200);
    assert!((world.weight_of(&candidate) - 5.0).abs() < f64::EPSILON);
    let lasted = world.now.duration_since(since).as_secs();
    let often = i64::try_from(world.gate_asked.len() - asked).expect("few");
    assert!((lasted / 11 - 2..=lasted / 11 + 2).contains(&often), "{often} times in {lasted} s");
    world.restart();
    world.gate = Some(Answer::Open);
    let world = world.settle().until("at rest", World::is_at_rest);
    assert_eq!(world.stable(), Some(candidate));
}

#[test]
fn a_gate_that_nobody_names_waits_for_a_person_and_says_the_way_out() {
    let mut world = turns(at_a_gate("lode", Some(Answer::Open)), 100);
    let candidate = world.candidate();
    assert!((world.weight_of(&candidate) - 5.0).abs() < f64::EPSILON);
    assert!(world.gate_asked.is_empty());
    let stalled = world.record().condition(ConditionKind::Stalled).expect("a condition").message.clone();
    assert!(stalled.contains("add `[gates.lode]` to backstay.toml, or `backstay promote` passes it"), "{stalled}");
    world.requests().promote = Some(ask("1"));
    let world = world.settle().until("at rest", World::is_at_rest);
    assert_eq!(world.stable(), Some(candidate));
}

#[test]
fn a_deed_without_a_rollout_is_refused_and_does_not_wait_for_the_next() {
    let mut world = serving();
    world.requests().abort = Some(ask("1"));
    let world = world.settle();
    assert!(world.record().handled["abort/refused"].contains("no rollout is on its way"));
    let world = world.git_with("better", by(canary())).settle();
    assert!(!world.is_at_rest());
}

#[test]
fn a_rollback_during_a_rollout_takes_the_candidate_back() {
    let mut world = serving().git_with("better", by(canary())).settle();
    let (stable, candidate) = (world.stable(), world.candidate());
    world = world.until("at 5 %", |world| world.weight_of(&candidate) > 1.0);
    world.requests().rollback = Some(RollbackRequest { request: ask("1"), to: None, no_git: false });
    let world = world.settle();
    assert!(world.is_at_rest());
    assert_eq!(world.stable(), stable);
    assert_eq!(world.record().hold.as_ref().map(|hold| hold.left.short()), Some(candidate));
}

#[test]
fn going_back_to_a_known_release_needs_no_canary() {
    let world = serving().git_with("better", by(canary())).settle();
    let (old, candidate) = (world.stable().expect("stable"), world.candidate());
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(candidate.clone()));
    let now = world.now;
    let world = world.git_with("good", by(canary())).settle();
    assert!(world.is_at_rest(), "{:?}", world.record());
    assert_eq!((world.stable(), world.now), (Some(old.clone()), now), "at once");
    assert!((world.weight_of(&old) - 100.0).abs() < f64::EPSILON);
    assert!(world.has_told("Reverted"), "{:?}", world.told);
}

#[test]
fn a_way_back_leaves_nothing_to_heal() {
    for spec in [canary, blue_green] {
        let mut world = World::new();
        world.traffic = Traffic::of(200.0);
        let world = world.git_with("good", by(spec())).settle().git_with("better", by(spec())).settle();
        let (old, new) = (world.stable().expect("stable"), world.candidate());
        let world = world.until("at rest", World::is_at_rest).settle();
        let world = world.git_with("good", by(spec())).settle().until("at rest", World::is_at_rest).settle();
        assert_eq!(world.stable(), Some(old.clone()));
        assert!(!world.has_told("DriftHealed"), "{:?}", world.told);
        let surge =
            world.body("Deployment", &format!("support--{old}")).pointer("/spec/strategy/rollingUpdate/maxSurge");
        assert_eq!(surge, Some(&1.into()), "as it was declared");
        assert!(world.find("Deployment", &format!("support--{new}")).is_none(), "{:?}", world.writes);
    }
}

// K3
#[test]
fn a_watch_that_is_faster_than_an_answer_holds_nothing_up() {
    let spec = |more: bool| {
        move |_: &mut backstay::desired::ReleaseSpec, settings: &mut Settings| {
            settings.replicas = Some(if more { 1 } else { 3 });
            settings.manifests = more.then(|| super::git::extra("extra")).into_iter().collect();
        }
    };
    let mut world = World::new().git_with("good", spec(true)).settle();
    assert!(world.find("ConfigMap", "extra").is_some());
    world.fast_watch = true;
    let now = world.now;
    let world = world.git_with("good", spec(false)).settle();
    assert!(world.find("ConfigMap", "extra").is_none(), "it waits for what it has seen: {:?}", world.writes);
    assert!(world.now == now && world.is_at_rest() && world.holds(ConditionKind::Ready), "{:?}", world.record());
}

#[test]
fn settings_alone_start_no_rollout() {
    let world = serving();
    let operations = world.record().operations.len();
    let more = |spec: RolloutSpec| {
        move |_: &mut backstay::desired::ReleaseSpec, settings: &mut Settings| {
            settings.route = Some(route());
            settings.rollout = Some(spec);
            settings.replicas = Some(4);
        }
    };
    let world = world.git_with("good", more(blue_green())).settle();
    assert!(world.is_at_rest());
    assert_eq!(world.record().operations.len(), operations + 1);
    assert!(!world.has_told("RolloutStarted"));
    let stable = world.stable().expect("stable");
    assert_eq!(world.body("Deployment", &format!("support--{stable}")).pointer("/spec/replicas"), Some(&4.into()));
}

#[test]
fn a_second_set_is_looked_at_and_switched_to_at_once() {
    let mut world = World::new();
    world.traffic = Traffic::of(50.0);
    let world = world.git_with("good", by(blue_green())).settle().git_with("better", by(blue_green())).settle();
    let (stable, candidate) = (world.stable().expect("stable"), world.candidate());
    let world = world.until("switched", |world| world.weight_of(&candidate) > 0.0);
    assert!((world.weight_of(&candidate) - 100.0).abs() < f64::EPSILON, "no half state");
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(candidate));
    assert_ne!(world.stable(), Some(stable));
}

#[test]
fn a_second_set_that_does_not_answer_is_never_switched_to() {
    let mut world = World::new().git_with("good", by(blue_green())).settle();
    let stable = world.stable();
    world.preview = Smoked::Fails("500".to_owned());
    let world = world.git_with("bad", by(blue_green())).settle().until("at rest", World::is_at_rest);
    assert_eq!(world.stable(), stable);
    assert_eq!(world.record().quarantine.len(), 1);
    assert!(!world.has_told("Promoted"));
}

#[test]
fn a_second_set_that_nobody_can_look_at_waits_and_is_not_blamed() {
    let mut world = World::new().git_with("good", by(blue_green())).settle();
    let stable = world.stable();
    world.preview = Smoked::Unreached("no route to host".to_owned());
    let mut world = world.git_with("better", by(blue_green())).settle().later(SignedDuration::from_mins(10)).settle();
    assert_eq!((world.stable(), world.record().quarantine.len()), (stable.clone(), 0));
    let stalled = world.record().condition(ConditionKind::Stalled).expect("a condition").message.clone();
    assert!(stalled.contains("no route to host") && stalled.contains("backstay promote"), "{stalled}");
    world.preview = Smoked::Answers;
    let world = world.later(SignedDuration::from_secs(3)).until("at rest", World::is_at_rest).settle();
    assert_ne!(world.stable(), stable);
    assert!(world.record().condition(ConditionKind::Stalled).is_none());
}

#[test]
fn a_change_of_strategy_never_leaves_the_traffic_with_a_set_that_is_not_ready() {
    let rolling = || |_: &mut backstay::desired::ReleaseSpec, _: &mut Settings| {};
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    let world = world.git_with("one", rolling()).settle();
    assert!(!world.record().stable.as_ref().expect("stable").own_set);
    let world = world.git_with("two", by(canary())).settle().until("at rest", World::is_at_rest).settle();
    assert!(world.record().stable.as_ref().expect("stable").own_set);
    assert!(world.find("Deployment", "support").is_none(), "the rolling set is pruned after the promotion");
    let world = world.git_with("three", by(blue_green())).settle().until("at rest", World::is_at_rest).settle();
    let world = world.git_with("four", rolling()).settle().until("at rest", World::is_at_rest).settle();
    assert!(!world.record().stable.as_ref().expect("stable").own_set);
    assert_eq!(world.running(), world.stable());
    assert!(world.find("HTTPRoute", "support").is_none(), "nobody declares a route any more: {:?}", world.writes);
}

#[test]
fn a_route_leads_to_what_rolls_as_well() {
    let routed = |_: &mut backstay::desired::ReleaseSpec, settings: &mut Settings| settings.route = Some(route());
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    let world = world.git_with("one", routed).settle();
    let backends = |world: &World| world.body("HTTPRoute", "support")["spec"]["rules"][0]["backendRefs"].clone();
    assert_eq!(backends(&world), json!([{"name": "support--rolling", "port": 8000, "weight": 100}]));
    let world = world.git_with("two", by(canary())).settle().until("at rest", World::is_at_rest).settle();
    assert_eq!(backends(&world)[0]["name"], format!("support--{}", world.stable().expect("stable")));
    let world = world.git_with("three", routed).settle().until("at rest", World::is_at_rest).settle();
    assert_eq!(backends(&world), json!([{"name": "support--rolling", "port": 8000, "weight": 100}]));
    assert_eq!(world.running(), world.stable());
}

#[test]
fn without_a_gateway_the_number_of_pods_splits_the_traffic() {
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    let world = world.git_with("good", by_number(canary())).settle();
    let stable = world.stable().expect("stable");
    let world = world.git_with("better", by_number(canary())).settle();
    let candidate = world.candidate();
    // 5 % of ten pods is one of them.
    let world = world.until("at 10 %", |world| (world.weight_of(&candidate) - 10.0).abs() < 1e-6);
    assert!((world.weight_of(&stable) - 90.0).abs() < 1e-6);
    let world = world.until("at 50 %", |world| (world.weight_of(&candidate) - 50.0).abs() < 1e-6);
    let world = world.until("all of it", |world| (world.weight_of(&candidate) - 100.0).abs() < 1e-6);
    let kept = world.body("Deployment", &format!("support--{stable}"));
    assert_eq!(kept.pointer("/spec/replicas"), Some(&10.into()), "the way back is whole while the new one is watched");
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(candidate));
    assert!(world.find("HTTPRoute", "support").is_none());
    assert!(world.find("Deployment", &format!("support--{stable}")).is_none());
}

#[test]
fn without_a_gateway_a_bad_candidate_goes_back_before_its_pods_do() {
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    let mut world = world.git_with("good", by_number(canary())).settle().git_with("bad", by_number(canary())).settle();
    let (stable, candidate) = (world.stable().expect("stable"), world.candidate());
    world.traffic.errors.insert(candidate.clone(), 0.5);
    let before = world.writes.len();
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(stable.clone()));
    assert!((world.weight_of(&stable) - 100.0).abs() < 1e-6);
    assert_eq!(world.record().quarantine.len(), 1);
    let after = &world.writes[before..];
    let service = after.iter().rposition(|write| write == "~ Service/support").expect("the Service leaves it");
    let gone = after.iter().position(|write| write.starts_with('-')).expect("the candidate is pruned");
    assert!(service < gone, "{after:?}");
    assert_eq!(
        world.body("Deployment", &format!("support--{stable}")).pointer("/spec/replicas"),
        Some(&10.into()),
        "stable is whole again"
    );
}

#[test]
fn without_a_gateway_a_second_set_is_switched_to_by_the_selector() {
    let mut world = World::new();
    world.traffic = Traffic::of(50.0);
    let mut world =
        world.git_with("good", by_number(blue_green())).settle().git_with("better", by_number(blue_green()));
    let (mut shares, mut steps) = (std::collections::BTreeSet::new(), 0);
    while steps == 0 || !world.is_at_rest() {
        world = world.until_woken();
        let candidate = world.record().candidate.as_ref().map(|candidate| candidate.release.short());
        shares.extend(candidate.map(|candidate| format!("{:.0}", world.weight_of(&candidate))));
        steps += 1;
        assert!(steps < 1000, "{:?}", world.record());
    }
    assert!(shares.contains("100") && shares.iter().all(|share| share == "0" || share == "100"), "{shares:?}");
}

#[test]
fn an_autoscaler_keeps_the_way_back_whole() {
    let scaled = |spec: RolloutSpec| {
        move |_: &mut backstay::desired::ReleaseSpec, settings: &mut Settings| {
            settings.route = Some(route());
            settings.rollout = Some(spec);
            settings.replicas = None;
            settings.autoscaling = Some(json!({"minReplicas": 2, "maxReplicas": 20}));
        }
    };
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    let mut world = world.git_with("good", scaled(canary())).settle();
    let stable = format!("support--{}", world.stable().expect("stable"));
    world.edit("Deployment", &stable, |body| body["spec"]["replicas"] = json!(8));
    let world = world.settle().git_with("better", scaled(canary())).settle();
    let candidate = world.candidate();
    let own = format!("support--{candidate}");
    let world = world.until("at 50 %", |world| (world.weight_of(&candidate) - 50.0).abs() < f64::EPSILON);
    assert_eq!(world.body("Deployment", &own).pointer("/spec/replicas"), Some(&4.into()), "half of eight");
    assert!(world.find("HorizontalPodAutoscaler", &own).is_none(), "its weight sizes it");
    let kept = world.body("HorizontalPodAutoscaler", &stable);
    assert_eq!(kept.pointer("/spec/minReplicas"), Some(&8.into()));
    assert_eq!(world.body("Deployment", &stable).pointer("/spec/replicas"), Some(&8.into()));
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.body("HorizontalPodAutoscaler", &own).pointer("/spec/minReplicas"), Some(&2.into()));
    assert_eq!(world.body("Deployment", &own).pointer("/spec/replicas"), Some(&8.into()));
    assert!(world.find("HorizontalPodAutoscaler", &stable).is_none());
}

#[test]
fn a_silent_provider_promotes_nobody() {
    let mut world = serving();
    world.traffic.silent = true;
    let mut world = world.git_with("better", by(canary())).settle();
    let candidate = world.candidate();
    for _ in 0..600 {
        world = world.until_woken();
    }
    assert!((world.weight_of(&candidate) - 5.0).abs() < f64::EPSILON, "{:?}", world.record().conditions);
    assert!(world.has_told("Undecided"), "{:?}", world.told);
}

#[test]
fn a_route_that_no_gateway_speaks_of_carries_nobody() {
    let mut world = serving();
    let stable = world.stable().expect("stable");
    world.cluster.silent_gateway = true;
    let world = world.git_with("better", by(canary())).settle().later(SignedDuration::from_mins(30)).settle();
    let candidate = world.candidate();
    assert!(world.weight_of(&candidate) < f64::EPSILON && world.weight_of(&stable) > 99.0, "{:?}", world.told);
    assert!(!world.has_told("TrafficShifted") && *world.rollout().phase() == Phase::Starting, "{:?}", world.told);
    assert!(progressing(&world).contains("the route to say that"), "{}", progressing(&world));
}

#[test]
fn a_candidate_that_its_service_does_not_know_yet_gets_nothing() {
    let mut world = World::new();
    world.traffic = Traffic::of(200.0);
    world.cluster.endpoints = Some(Endpoints::Follow);
    let mut world = world.git_with("good", by(canary())).settle();
    let stable = world.stable().expect("stable");
    world.cluster.endpoints = Some(Endpoints::Late);
    let mut world = world.git_with("better", by(canary())).settle().later(SignedDuration::from_secs(20)).settle();
    let candidate = world.candidate();
    let route = world.body("HTTPRoute", "support")["spec"].to_string();
    assert!(
        world.weight_of(&stable) > 99.0 && !route.contains(&candidate),
        "its pods are ready, and nobody knows: {route}"
    );
    world.cluster.endpoints = Some(Endpoints::Follow);
    world.cluster.clock += 1;
    let world = world.settle();
    assert!((world.weight_of(&candidate) - 5.0).abs() < f64::EPSILON, "{:?}", world.record().conditions);
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), Some(candidate));
}

#[test]
fn a_restart_at_any_time_changes_nothing_of_the_end() {
    for every in [1, 7, 23] {
        let mut world = serving().git_with("bad", by(canary())).settle();
        let (stable, candidate) = (world.stable(), world.candidate());
        world.traffic.errors.insert(candidate.clone(), 0.3);
        for turn in 0..2000 {
            if world.is_at_rest() {
                break;
            }
            if turn % every == 0 {
                world.restart();
                world = world.settle();
            }
            world = world.until_woken();
        }
        let world = world.settle();
        assert_eq!((world.stable(), world.record().quarantine.len()), (stable, 1), "every {every}: {:?}", world.told);
    }
}

#[test]
fn an_agent_that_is_removed_during_a_rollout_goes_whole() {
    let world = serving().git_with("better", by(canary())).settle();
    let candidate = world.candidate();
    let world = world.until("at 5 %", |world| world.weight_of(&candidate) > 1.0);
    let world = world.git_removes().settle();
    assert!(world.is_at_rest(), "{:?}", world.record());
    for kind in ["Deployment", "Service", "HTTPRoute"] {
        assert!(!world.cluster.objects.keys().any(|object| object.kind == kind), "{kind} is left");
    }
}

/// A promoted release that is watched, and what stood before it.
fn watched() -> (World, Option<String>, String) {
    let world = serving().git_with("better", by(canary())).settle();
    let (stable, candidate) = (world.stable(), world.candidate());
    let world = world.until("baking", |world| matches!(world.rollout().phase(), Phase::Baking { .. }));
    (world, stable, candidate)
}

#[test]
fn a_promoted_release_that_goes_bad_while_it_is_watched_goes_back_and_git_is_told() {
    let (mut world, stable, candidate) = watched();
    world.traffic.errors.insert(candidate.clone(), 0.5);
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), stable);
    assert!(world.weight_of(&candidate) < f64::EPSILON);
    let failed = &world.record().quarantine[0];
    assert_eq!((failed.release.short(), &failed.git), (candidate, &Told::Commit("c0ffee".to_owned())));
}

#[test]
fn a_promoted_release_whose_pods_are_ready_no_more_goes_back_after_three_looks() {
    let (mut world, stable, candidate) = watched();
    world.cluster.sick.insert(candidate.clone(), UNREADY);
    let (began, world) = (world.now, world.settle());
    let world = world.until("aborting", |world| world.has_told("Aborting"));
    let took = world.now.duration_since(began);
    assert!((SignedDuration::from_secs(20)..SignedDuration::from_secs(25)).contains(&took), "{took:#}");
    let world = world.until("at rest", World::is_at_rest).settle();
    assert_eq!(world.stable(), stable);
    assert_eq!(world.record().quarantine[0].release.short(), candidate);
}

#[test]
fn a_promoted_release_that_fails_after_too_many_others_says_so_until_it_may_go_back() {
    let (mut world, _, candidate) = watched();
    let now = world.now;
    world.ledger.get_mut(&agent()).expect("an entry").rewrite(|record| {
        record.rollout.as_mut().expect("a rollout").state["rollbacks"] = json!([now]);
    });
    world.restart();
    world.traffic.errors.insert(candidate.clone(), 0.5);
    let world = world.settle().until("held back", |world| world.has_told("RollbackHeld"));
    assert!(world.message(ConditionKind::Stalled).contains("backstay rollback"), "{:?}", world.record().conditions);
    assert!((world.weight_of(&candidate) - 100.0).abs() < f64::EPSILON);
}
