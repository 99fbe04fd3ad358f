//! The judge believes a real Prometheus that scrapes the agent's pods.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::daemon::River;
use crate::lab::{Lab, Objects, lab};
use crate::prometheus::Prometheus;
use crate::rollouts::{self, CANARY, stable};
use crate::users::{Front, Users};

/// How often the pods are listed for Prometheus: Debian's does not ask the API server itself.
const LISTS: Duration = Duration::from_millis(500);
/// Longer than a step of two seconds, were it believed without figures.
const AFTER_THE_STEP: Duration = Duration::from_secs(8);

/// Keeps the list of what is to be scraped, until the test ends.
fn discover(client: kube::Client, namespace: String, list: PathBuf) {
    let objects = Objects { client, namespace };
    tokio::spawn(async move {
        let path = format!("{}?labelSelector=backstay.dev%2Fagent%3Dsupport", objects.path("pods"));
        loop {
            if let Ok(pods) = objects.ask(Method::GET, &path, None).await {
                let pods = pods["items"].as_array().expect("a list");
                let one = |pod: &Value| {
                    let labels = json!({"namespace": objects.namespace, "pod": pod["metadata"]["name"]});
                    Some(json!({"targets": [Lab::address(pod)?], "labels": labels}))
                };
                let next = list.with_extension("next");
                std::fs::write(&next, json!(pods.iter().filter_map(one).collect::<Vec<_>>()).to_string())
                    .expect("kept");
                std::fs::rename(next, &list).expect("kept");
            }
            tokio::time::sleep(LISTS).await;
        }
    });
}

// T2
#[tokio::test]
async fn a_prometheus_that_scrapes_the_pods_is_believed_and_its_silence_promotes_nobody() {
    let Some(lab) = lab("number-scraped").await else { return };
    let asked = CANARY.replace("{preset: error_rate,", "{preset: error_rate, provider: main,");
    let river = River::new(lab, rollouts::repo(&asked)).await;
    let list = river.folder().join("pods.json");
    let discovered = format!("file_sd_configs: [{{files: ['{}']}}]", list.display());
    let Some(server) = Prometheus::start(&discovered) else { return };
    discover(river.lab.client.clone(), river.lab.namespace.clone(), list);
    let more = format!("[metrics.main.prometheus]\nurl = \"{}\"\ntimeout = \"1s\"\n", server.url);
    let daemon = river.start_as("one", &more).await;
    let first = stable(&river.settled(&river.repo.head()).await);
    let front = Front::service(river.lab.client.clone(), &river.lab.namespace).await;
    rollouts::good(&river, &daemon, &front).await;

    // It says nothing any more: the candidate waits where it is, and status tells why.
    let second = stable(&river.record("support").await.expect("a record"));
    assert_ne!(first, second);
    server.hang(true);
    let users = Users::start(&front);
    river.repo.commit_greeting("Moin!");
    let at_the_step = |record: &Value| record["rollout"]["state"]["phase"]["step"]["at"].is_number();
    river.recorded("it is at its step", at_the_step).await;
    tokio::time::sleep(AFTER_THE_STEP).await;
    let record = river.record("support").await.expect("a record");
    assert!(at_the_step(&record) && stable(&record) == second, "{record}");
    let status = daemon.done(&["status", "support"]);
    assert!(status.contains("errors") && status.contains("no data"), "{status}");
    server.hang(false);
    rollouts::promoted(&river, &second).await;
    let got = users.end().await;
    assert!(got.values().all(|got| got.failed == 0), "{got:?}");

    rollouts::bad(&river, &daemon, &front).await;
}
