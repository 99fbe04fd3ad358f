//! A release that does not get healthy: whose fault it is decides, and what becomes of it once its cause is gone.

use serde_json::{Value, json};

use crate::daemon::{Repo, River, holds};
use crate::lab::lab;
use crate::stories;

const OVERLAY: &str = "environments/development/support.yaml";
const DEADLINE: (&str, &str) = ("progressDeadline: 60s\n", "progressDeadline: 10s\n");

/// The reason of the one quarantined release.
fn quarantined(record: &Value) -> Option<&str> {
    match &**record["quarantine"].as_array()? {
        [only] => only["reason"].as_str(),
        _ => None,
    }
}

#[tokio::test]
async fn a_release_that_fits_on_no_node_is_blamed_on_nobody() {
    let Some(lab) = lab("nowhere").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;

    let huge = "workload:\n  resources: {requests: {cpu: 90k}, limits: {cpu: 90k}}\n";
    river.repo.edit(OVERLAY, "workload:\n", huge);
    river.repo.edit(OVERLAY, DEADLINE.0, DEADLINE.1);
    river.repo.greet("Enormous!");
    river.repo.commit("Ask for a machine that nobody has");
    let record = river.recorded("it is Stalled with its cause", |record| holds(record, "Stalled", "fits on no node"));
    let record = record.await;
    assert_eq!(record["quarantine"].as_array().map_or(0, Vec::len), 0, "{record}");
    assert!(record["operation"].is_object(), "it may still come: {record}");
    assert!(daemon.done(&["status"]).contains("fits on no node"), "it says so");
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    let said = river.ask_serving("support").await;
    assert!(!said.is_empty() && said.iter().all(|said| said.release == first), "the old pods serve on: {said:?}");

    river.repo.revert(&["HEAD"]);
    river.recorded("it is Ready", |record| holds(record, "Ready", "") && record["candidate"].is_null()).await;
    assert_eq!(river.greets("Hello!").await, first);
}

#[tokio::test]
async fn a_missing_key_is_the_releases_own_fault_and_a_retry_succeeds_once_it_is_there() {
    let Some(lab) = lab("key").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;

    let signed = "env: {LOG_LEVEL: DEBUG, SIGNING_KEY: {secret: agent-secrets, key: signing-key}}";
    river.repo.edit(OVERLAY, "env: {LOG_LEVEL: DEBUG}", signed);
    river.repo.edit(OVERLAY, DEADLINE.0, DEADLINE.1);
    river.repo.greet("Signed!");
    let signed = river.repo.commit("Sign what is said");
    let back = |record: &Value| {
        quarantined(record).is_some_and(|why| why.contains("signing-key")) && record["operation"].is_null()
    };
    river.recorded("it is back, and the key is named", |record| back(record)).await;
    assert_eq!(river.greets("Hello!").await, first);

    // The cause goes, and nothing is tried unasked: its failure may have had another one.
    let key = json!({"stringData": {"signing-key": "very secret, this one"}});
    river.lab.merge("secrets", "agent-secrets", "somebody", &key).await;
    daemon.done(&["sync"]);
    let record = river.record("support").await.expect("a record");
    assert!(back(&record), "{record}");

    daemon.done(&["retry", "support", "--reason", "the key is there now"]);
    let record = river.settled(&signed).await;
    assert_ne!(river.greets("Signed!").await, first);
    assert!(quarantined(&record).is_none() && record["differs"].is_null(), "{record}");
    let newest = daemon.newest();
    assert!(newest["cause"]["retry"].is_object(), "{newest}");
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 0);
    let said =
        format!("{}{}{}", daemon.done(&["status", "support"]), daemon.done(&["history", "support"]), daemon.log());
    assert!(!said.contains("very secret"), "what a Secret holds is never said");
}

#[tokio::test]
async fn a_release_that_never_gets_ready_is_taken_back() {
    let Some(lab) = lab("unready").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    stories::never_ready(&river, &daemon).await;
}
