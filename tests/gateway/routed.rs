//! Behind the lab's Gateway: Contour and Envoy split by the weights of the agent's HTTPRoute.

use std::io::Write as _;

use serde_json::Value;

use crate::daemon::{Daemon, River, until};
use crate::lab::{Lab, lab};
use crate::rollouts::{self, CANARY, stable};
use crate::users::{Front, Users};

/// Requests of one look at a split.
const LOOK: u32 = 10_000;
/// Two-sided, 99.9 %.
const Z: f64 = 3.29;

/// Where the lab's gateway is; nothing, with one line that says so, where there is none.
fn gateway(name: &str) -> Option<String> {
    let found = std::env::var("LAB_GATEWAY").ok();
    if found.is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: {name} needs the lab's gateway (run tests/run)");
    }
    Some(found?.trim_start_matches("http://").to_owned())
}

fn host(lab: &Lab) -> String {
    format!("{}.example.com", lab.namespace)
}

/// `support` settled, behind the gateway, with these lines in its overlay.
async fn river(name: &str, lines: &str) -> Option<(River, Daemon, Front)> {
    let address = gateway(name)?;
    let lab = lab(name).await?;
    let host = host(&lab);
    let route = format!("\nroute: {{hosts: [{host}], gateway: {{name: public, namespace: gateways}}}}{lines}");
    let route = route.replace("HOST", &host);
    let river = River::new(lab, rollouts::repo(&route)).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let front = Front::Named { address, host };
    let http = front.client();
    until("the gateway answers", async || front.ask(&http, &[]).await.1.ok()).await;
    Some((river, daemon, front))
}

async fn route(river: &River) -> Value {
    river.lab.see("gateway.networking.k8s.io/v1/httproutes", "support").await.expect("a route")
}

#[tokio::test]
async fn a_good_candidate_gets_half_and_then_all_of_the_traffic() {
    let Some((river, daemon, front)) = river("routed-good", CANARY).await else { return };
    rollouts::good(&river, &daemon, &front).await;
    let route = route(&river).await;
    let managers: Vec<_> = route["metadata"]["managedFields"].as_array().expect("managers").iter().collect();
    let spec = managers.iter().filter(|entry| entry["fieldsV1"].get("f:spec").is_some());
    let names: Vec<_> = spec.map(|entry| entry["manager"].clone()).collect();
    assert!(names.iter().all(|name| name == "backstay-traffic") && !names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn a_bad_candidate_is_taken_back_and_backstay_writes_the_revert() {
    let Some((river, daemon, front)) = river("routed-bad", CANARY).await else { return };
    rollouts::bad(&river, &daemon, &front).await;
}

#[tokio::test]
async fn people_hold_a_rollout_promote_and_abort_it() {
    let Some((river, daemon, _)) = river("routed-people", CANARY).await else { return };
    rollouts::people(&river, &daemon).await;
}

#[tokio::test]
async fn a_change_of_strategy_fails_nobody() {
    let Some((river, _daemon, front)) = river("routed-strategy", "\n").await else { return };
    rollouts::every_strategy(&river, &front).await;
}

// At each step 10,000 requests: the split lies within the 99.9 % interval of its weight, and none fails.
#[tokio::test]
async fn every_weight_is_what_users_get() {
    let lines = "
rollout:
  strategy: {canary: {steps: [{weight: 5, for: 1s}, {pause: {}}, {weight: 25, for: 1s}, {pause: {}}, {weight: 50, for: 1s}, {pause: {}}], reach: {header: x-canary, value: 'yes'}}}
  analysis: {errors: {preset: error_rate, max: 0.3}}
  rollback: {bake: 1s, cooldown: 0s}
";
    let Some((river, daemon, front)) = river("routed-split", lines).await else { return };
    let first = stable(&river.record("support").await.expect("a record"));
    let users = Users::start(&front);
    river.repo.commit_greeting("Ahoy!");
    for (step, weight) in [(1, 5.0), (3, 25.0), (5, 50.0)] {
        let at = |record: &Value| record["rollout"]["state"]["phase"]["step"]["at"] == step;
        let record = river.recorded(&format!("it waits at {weight} %"), at).await;
        let second = rollouts::short(&record["candidate"]["release"]);
        let (counts, failed) = front.count(LOOK, &[]).await;
        assert_eq!(failed, 0, "{counts:?}");
        let (n, p) = (f64::from(LOOK), weight / 100.0);
        let share = f64::from(counts.get(&second).copied().unwrap_or(0)) / n;
        let allowed = Z * (p * (1.0 - p) / n).sqrt();
        println!("{weight} %: {:.2} % of {LOOK} requests, allowed {:.2} % about it", share * 100.0, allowed * 100.0);
        assert!((share - p).abs() <= allowed, "{counts:?} at {weight} %");
        // Who asks for the candidate on purpose gets it.
        let (asked, failed) = front.count(50, &[("x-canary", "yes")]).await;
        assert_eq!((asked.get(&second), failed), (Some(&50), 0), "{asked:?}");
        daemon.done(&["promote", "support"]);
    }
    rollouts::promoted(&river, &first).await;
    let got = users.end().await;
    assert!(got.values().all(|got| got.failed == 0), "{got:?}");
    let backends = route(&river).await["spec"]["rules"][0]["backendRefs"].clone();
    assert_eq!(backends.as_array().map(Vec::len), Some(1), "{backends}");
}

// T1: pods that take 300 ms to start and drain for two seconds, and one release after another under load.
#[tokio::test]
async fn rollouts_one_after_another_fail_nobody() {
    let lines = "
config: {demo: {startupDelayMs: 300}}
rollout:
  strategy: {canary: {steps: [{weight: 20, for: 1s}]}}
  analysis: {errors: {preset: error_rate, max: 0.3}}
  rollback: {bake: 1s, cooldown: 0s}
";
    let Some((river, _daemon, front)) = river("routed-many", lines).await else { return };
    let times = if std::env::var("BACKSTAY_FAULTS").is_ok_and(|faults| faults == "all") { 50 } else { 6 };
    let mut before = stable(&river.record("support").await.expect("a record"));
    let users = Users::start(&front);
    for n in 0..times {
        river.repo.commit_greeting(&format!("Hello {n}!"));
        before = stable(&rollouts::promoted(&river, &before).await);
    }
    users.answered(&before, 20).await;
    let got = users.end().await;
    let (asked, failed) = got.values().fold((0, 0), |(asked, failed), got| (asked + got.answered, failed + got.failed));
    println!("{times} rollouts, {asked} requests, {failed} failed");
    assert_eq!((failed, got.len()), (0, times + 1), "{got:?}");
}

#[tokio::test]
async fn a_second_set_has_a_preview_and_is_switched_to_at_once() {
    let Some((river, daemon, front)) = river("routed-switch", rollouts::BLUE_GREEN).await else { return };
    rollouts::switched_at_once(&river, &daemon, &front).await;
}

#[tokio::test]
async fn an_experiment_has_its_segment_and_a_mirror_its_copies() {
    let Some((river, daemon, front)) = river("routed-segment", rollouts::EXPERIMENT).await else { return };
    rollouts::segment_and_mirror(&river, &daemon, &front).await;
}

#[tokio::test]
async fn what_people_take_back_in_git_is_known_by_its_content() {
    let Some((river, daemon, front)) = river("routed-reverts", CANARY).await else { return };
    rollouts::reverts_by_people(&river, &daemon, &front).await;
}
