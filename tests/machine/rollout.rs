//! Canaries on a host, with everything real: the proxy splits and measures, the judge decides, and Git is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Daemon, Repo, River, holds, until};
use crate::lab::lab;

const OVERLAY: &str = "environments/development/support.yaml";
/// Half of the traffic for two seconds, and then all of it, watched for two.
const CANARY: &str = "
rollout:
  strategy: {canary: {steps: [{weight: 50, for: 2s}]}}
  analysis: {errors: {preset: error_rate, max: 0.01, compare: stable, margin: 0.02}}
  rollback: {bake: 2s, cooldown: 0s}
";
/// Clients at a time.
const USERS: usize = 8;

/// What users got, by release: answers, failures, and when the last question was sent that it answered.
#[derive(Default, Clone, Debug)]
struct Got {
    answered: u64,
    failed: u64,
    last: Option<Instant>,
}

/// Users who ask all the while.
struct Users {
    got: Arc<Mutex<BTreeMap<String, Got>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

fn note(got: &Mutex<BTreeMap<String, Got>>, release: Option<String>, good: bool, sent: Instant) {
    let mut got = got.lock().expect("no panic before");
    let entry = got.entry(release.unwrap_or_else(|| "nobody".to_owned())).or_default();
    if good {
        entry.answered += 1;
    } else {
        entry.failed += 1;
    }
    entry.last = Some(sent);
}

impl Users {
    fn start(river: &River) -> Self {
        let (got, stop) = (Arc::<Mutex<BTreeMap<String, Got>>>::default(), Arc::<AtomicBool>::default());
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("http://{}/chat", river.lab.front);
        let user = |_| {
            let (got, stop, client, url) = (Arc::clone(&got), Arc::clone(&stop), client.clone(), url.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    let asked = client.post(&url).header("host", "support.localhost").header("backstay-release", "?");
                    let asked = asked.json(&json!({"message": "refund"})).send().await;
                    let (release, good) = match asked {
                        Ok(answer) => {
                            let named = answer.headers().get("backstay-release").and_then(|name| name.to_str().ok());
                            let named = named.map(str::to_owned);
                            let good = answer.status().is_success();
                            let body: Value = answer.json().await.unwrap_or_default();
                            (named.or(body["release"].as_str().map(str::to_owned)), good)
                        }
                        Err(_) => (None, false),
                    };
                    note(&got, release, good, sent);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        let tasks = (0..USERS).map(user).collect();
        Self { got, stop, tasks }
    }

    fn got(&self) -> BTreeMap<String, Got> {
        self.got.lock().expect("no panic before").clone()
    }

    async fn end(self) -> BTreeMap<String, Got> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a user");
        }
        Arc::try_unwrap(self.got).expect("all have gone").into_inner().expect("no panic before")
    }
}

async fn river(name: &str) -> (River, Daemon) {
    let repo = Repo::small();
    let overlay = repo.read(OVERLAY);
    repo.write(OVERLAY, &format!("{}{CANARY}", overlay.trim_end()));
    repo.commit("Roll out step by step");
    let river = River::new(lab(name).await, repo).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    (river, daemon)
}

fn stable(record: &Value) -> String {
    format!("r-{}", &record["stable"]["release"].as_str().expect("a release").replace("r-", "")[..12])
}

#[tokio::test]
async fn a_good_candidate_gets_half_and_then_all_of_the_traffic() {
    let (river, daemon) = river("canary").await;
    let first = stable(&river.record("support").await.expect("a record"));
    let users = Users::start(&river);
    river.repo.commit_greeting("Ahoy!");
    let record = river.recorded("it is promoted", |record| {
        record["operation"].is_null() && record["stable"].is_object() && stable(record) != first
    });
    let record = record.await;
    let second = stable(&record);
    let got = users.end().await;
    assert!(got.values().all(|got| got.failed == 0), "{got:?}");
    assert!(got[&first].answered > 0 && got[&second].answered > 0, "{got:?}");
    let history = daemon.done(&["history", "support"]);
    assert!(history.contains("succeeded") || history.contains("stable"), "{history}");
    assert!(holds(&record, "Ready", ""), "{record}");
}

#[tokio::test]
async fn a_bad_candidate_is_taken_back_and_backstay_writes_the_revert() {
    let (river, daemon) = river("abort").await;
    let good = stable(&river.record("support").await.expect("a record"));
    let users = Users::start(&river);
    until("users are answered", async || (users.got().get(&good)?.answered > 100).then_some(())).await;
    river.repo.edit(OVERLAY, "progressDeadline: 60s\n", "progressDeadline: 60s\nconfig: {demo: {failEvery: 2}}\n");
    let bad_commit = river.repo.commit("Fail every second question");
    let record = river.recorded("Git is told", |record| {
        record["quarantine"][0]["git"]["commit"].is_string() && record["operation"].is_null()
    });
    let record = record.await;
    let failed = &record["quarantine"][0];
    let bad = failed["release"].as_str().expect("an id").replace("r-", "");
    assert_eq!(stable(&record), good);
    assert!(matches!(failed["word"].as_str(), Some("error_rate_high" | "circuit_breaker")), "{failed}");
    // What Git says: the very commit, taken back, with evidence and trailers.
    river.repo.git(&["pull", "-q", "origin", "main"]);
    let message = river.repo.git(&["log", "-1", "--format=%B"]);
    for part in [
        "Revert \"Fail every second question\"",
        &format!("This reverts commit {bad_commit}."),
        "Backstay-Agent: support",
        "Backstay-Environment: development",
        &format!("Backstay-Release: {bad}"),
        "Backstay-Reason: ",
    ] {
        assert!(message.contains(part), "`{part}` in:\n{message}");
    }
    // The commit comes back by the poll: nothing new is deployed, and all is well.
    let agrees = |record: &Value| record["differs"].is_null() && holds(record, "Ready", "");
    let settled = river.recorded("Git agrees", agrees).await;
    assert_eq!(settled["operations"].as_array().map(Vec::len), record["operations"].as_array().map(Vec::len));
    let got = users.end().await;
    assert_eq!(got[&good].failed, 0, "{got:?}");
    assert!(!got.contains_key("nobody"), "{got:?}");
    println!("{}", daemon.done(&["history", "support"]));
    println!("{message}");
    // The same content again stays out.
    river.repo.git(&["revert", "--no-edit", "HEAD"]);
    river.repo.push();
    let refused = river.recorded("it stays out", |record| record["differs"]["why"].is_string()).await;
    assert_eq!(stable(&refused), good);
    assert!(refused["operation"].is_null(), "{refused}");
}

#[tokio::test]
async fn people_hold_a_rollout_promote_and_abort_it() {
    let (river, daemon) = river("people").await;
    let first = stable(&river.record("support").await.expect("a record"));
    river.repo.edit(OVERLAY, "[{weight: 50, for: 2s}]", "[{pause: {}}, {weight: 50, for: 2s}]");
    river.repo.commit("Ask a person first");
    river.settled(&river.repo.head()).await;
    river.repo.commit_greeting("Ahoy!");
    river
        .recorded("it waits for a person", |record| {
            crate::daemon::condition(record, "Progressing").is_some_and(|found| {
                found["message"].as_str().is_some_and(|message| message.contains("backstay promote"))
            })
        })
        .await;
    let status = daemon.done(&["status", "support"]);
    assert!(status.contains("promote"), "{status}");
    daemon.done(&["abort", "support", "--reason", "not today"]);
    let record = river.recorded("it is back", |record| record["operation"].is_null()).await;
    let outcome = record["operations"][0]["outcome"]["failed"].as_str().unwrap_or_default();
    assert!(stable(&record) == first && outcome.contains("not today"), "{record}");
    let again = daemon.run(&["abort", "support", "--reason", "once more"]);
    assert_ne!(again.code, 0, "{again:?}");
}
