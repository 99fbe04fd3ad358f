//! Without a Gateway: the number of pods behind the agent's Service splits its traffic.

use serde_json::Value;

use crate::daemon::{Daemon, River};
use crate::lab::lab;
use crate::rollouts::{self, CANARY, OVERLAY, stable};
use crate::users::{Front, Users};

/// `support` settled, with these lines in its overlay, and so many pods.
async fn river(name: &str, pods: u8, lines: &str) -> Option<(River, Daemon, Front)> {
    let lab = lab(name).await?;
    let repo = rollouts::repo(lines);
    repo.edit(OVERLAY, "replicas: 1\n", &format!("replicas: {pods}\n"));
    repo.commit("More of it");
    let river = River::new(lab, repo).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let front = Front::service(river.lab.client.clone(), &river.lab.namespace).await;
    Some((river, daemon, front))
}

#[tokio::test]
async fn a_good_candidate_gets_its_pods_and_then_all_of_the_traffic() {
    let Some((river, daemon, front)) = river("number-good", 2, CANARY).await else { return };
    rollouts::good(&river, &daemon, &front).await;
}

#[tokio::test]
async fn a_bad_candidate_is_taken_back_and_backstay_writes_the_revert() {
    let Some((river, daemon, front)) = river("number-bad", 2, CANARY).await else { return };
    rollouts::bad(&river, &daemon, &front).await;
}

#[tokio::test]
async fn a_change_of_strategy_fails_nobody() {
    let Some((river, _daemon, front)) = river("number-strategy", 2, "\n").await else { return };
    rollouts::every_strategy(&river, &front).await;
}

#[tokio::test]
async fn what_people_take_back_in_git_is_known_by_its_content() {
    let Some((river, daemon, front)) = river("number-reverts", 2, CANARY).await else { return };
    rollouts::reverts_by_people(&river, &daemon, &front).await;
}

#[tokio::test]
async fn a_weight_is_a_share_of_the_pods() {
    let lines = "
rollout:
  strategy: {canary: {steps: [{weight: 5, for: 1s}, {pause: {}}]}}
  analysis: {errors: {preset: error_rate, max: 0.3}}
  rollback: {bake: 1s, cooldown: 0s}
";
    let Some((river, daemon, front)) = river("number-share", 3, lines).await else { return };
    let users = Users::start(&front);
    daemon.done(&["suspend", "support", "--reason", "to look at the plan"]);
    river.repo.commit_greeting("Ahoy!");
    let plan = daemon.done(&["plan", "support"]);
    assert!(plan.contains("without a Gateway 5 % of 3 pods is 33 %"), "{plan}");
    daemon.done(&["resume", "support"]);
    let at = |record: &Value| record["rollout"]["state"]["phase"]["step"]["at"] == 1;
    let record = river.recorded("it waits at a third", at).await;
    let second = rollouts::short(&record["candidate"]["release"]);
    let (counts, failed) = front.count(3000, &[]).await;
    let share = f64::from(counts[&second]) / 3000.0;
    assert!(failed == 0 && (share - 1.0 / 3.0).abs() < 0.03, "5 % of three pods is a third: {counts:?}");
    daemon.done(&["abort", "support", "--reason", "seen enough"]);
    let record = river.recorded("it is back", |record| record["operation"].is_null()).await;
    front.only(&stable(&record), 300, &[]).await;
    let got = users.end().await;
    assert!(got.values().all(|got| got.failed == 0), "{got:?}");
}
