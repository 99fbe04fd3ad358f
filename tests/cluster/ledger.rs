//! Records in custom resources: round trips, compare-and-swap, claims, and what people ask.

use std::time::Duration;

use backstay::ledger::{Ask, Asker, Claim, Ledger, LedgerChange, whoami};
use backstay::model::{AgentName, CommitId, Digest, ReleaseId, ResourceVersion, Timestamp};
use backstay::observe::Api;
use backstay::reconcile::{Announcement, FailureKind, LedgerEntry};
use backstay::record::{
    AgentRecord, Cause, ConditionKind, EnvironmentRecord, Evidence, FORMAT, Operation, OperationId, OperationKind,
    Outcome, ROLLOUT_FORMAT, Requests, Truth,
};
use futures::StreamExt as _;
use http::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, eventually, lab};
use crate::network::pace;

const AGENTS: &str = "backstay.dev/v1alpha1/agentreleases";
const ENVIRONMENTS: &str = "backstay.dev/v1alpha1/agentenvironments";

pub(crate) fn ledger(api: Api, lab: &Lab, installation: &str) -> Ledger {
    Ledger::new(api, lab.namespace.clone(), "production".parse().expect("a name"), installation)
}

fn agent(name: &str) -> AgentName {
    name.parse().expect("a name")
}

fn now() -> Timestamp {
    "2026-11-24T10:00:00.123456789Z".parse().expect("a time")
}

fn commit() -> CommitId {
    "3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a commit")
}

/// A record that uses every field and every variant.
fn full() -> AgentRecord {
    let release = ReleaseId::of(b"one");
    let revision = format!("main@sha1:{}", commit());
    let standing = json!({"release": release, "revision": revision, "settings": Digest::of(b"s"), "renderer": 1,
        "since": now()});
    let causes = [
        json!({"commit": {}}),
        json!({"revert": {"evidence": "Verified", "of": [commit()]}}),
        json!({"rollback": {"by": "alice", "reason": "it is rude", "tellGit": true}}),
        json!({"failed": {"why": "crash loop"}}),
        json!({"retry": {"by": "bob"}}),
        json!({"rename": {"from": "helpdesk"}}),
        json!({"rebuilt": {}}),
    ];
    let outcomes = [json!("succeeded"), json!({"failed": "no key"}), json!("superseded")];
    let operations: Vec<_> = causes
        .iter()
        .zip(outcomes.iter().cycle())
        .enumerate()
        .map(|(n, (cause, outcome))| {
            json!({"id": 7 - n, "kind": "Release", "cause": cause, "from": "r-0123456789ab", "to": release.short(),
                "revision": revision, "started": now(), "finished": now(), "outcome": outcome})
        })
        .collect();
    let owned = json!([{"group": "apps", "kind": "Deployment", "namespace": "n", "name": "support", "uid": "u"},
        {"kind": "Service", "namespace": "n", "name": "support", "uid": "v"}]);
    let condition = json!({"type": "Ready", "status": "True", "reason": "Deployed", "message": "all is well",
        "lastTransitionTime": now(), "observedGeneration": 3});
    let record = json!({
        "format": FORMAT, "phase": "Active", "stable": standing, "candidate": standing,
        "operation": {"id": 8, "kind": "Settings", "cause": {"commit": {}}, "started": now()},
        "operations": operations, "inventory": owned, "history": [standing],
        "quarantine": [{"release": release, "since": now(), "reason": "crash loop"}],
        "hold": {"left": release, "by": "alice", "since": now(), "git": {"commit": "3f9c2ab1"}},
        "differs": {"desired": release, "since": now(), "why": "it failed here"},
        "handled": {"rollback": "1700000000000000000"}, "driftHealed": 3, "observedGeneration": 3,
        "conditions": [condition],
    });
    serde_json::from_value(record).expect("a record")
}

fn present(entry: LedgerEntry) -> (AgentRecord, Requests, ResourceVersion) {
    match entry {
        LedgerEntry::Present { record, requests, version, .. } => {
            (std::sync::Arc::unwrap_or_clone(record), requests, version)
        }
        LedgerEntry::Absent => panic!("it is there"),
    }
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_written() {
    let Some(lab) = lab("a_record_comes_back_as_it_was_written").await else { return };
    let ledger = ledger(lab.api(None).await, &lab, "here");
    let support = agent("support");
    assert_eq!(ledger.agent(&support).await, Ok(LedgerEntry::Absent));
    assert_eq!(ledger.agents().await, Ok(vec![]));
    let version = ledger.record(&support, None, &full()).await.expect("recorded");
    let entry = ledger.agent(&support).await.expect("read");
    let (record, requests, read) = present(entry.clone());
    assert_eq!((record, requests, read), (full(), Requests::default(), version));
    assert_eq!(ledger.agents().await, Ok(vec![(support, entry)]));
    let object = lab.see(AGENTS, "support").await.expect("it is there");
    assert!(object["metadata"].get("finalizers").is_none() && object["metadata"].get("ownerReferences").is_none());
    // What people see.
    let table = http::Request::get(format!("{}/support", lab.path(AGENTS)))
        .header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
        .body(Vec::new())
        .expect("a request");
    let table: Value = lab.client.request(table).await.expect("a table");
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    let cells: Vec<_> = cells[1..7].iter().filter_map(Value::as_str).collect();
    let shown = [ReleaseId::of(b"one").short(), "main@3f9c2ab1".to_owned(), "8:Settings:open".to_owned()];
    assert_eq!(cells, ["Active", "True", &shown[0], &shown[1], &shown[2], "all is well"]);
}

#[tokio::test]
async fn each_condition_outcome_and_evidence_passes_the_definition() {
    let Some(lab) = lab("each_condition_outcome_and_evidence_passes_the_definition").await else { return };
    let ledger = ledger(lab.api(None).await, &lab, "here");
    let mut record = AgentRecord { format: FORMAT, ..AgentRecord::default() };
    for kind in [
        ConditionKind::Ready,
        ConditionKind::Progressing,
        ConditionKind::Degraded,
        ConditionKind::Stalled,
        ConditionKind::Contested,
        ConditionKind::PruneBlocked,
        ConditionKind::Suspended,
        ConditionKind::GitBehind,
    ] {
        for status in [Truth::True, Truth::False, Truth::Unknown] {
            record.set_condition(kind, status, "Because", "of a test", now());
        }
    }
    let operation = |id: u64, kind, evidence, outcome| Operation {
        id: OperationId(id),
        kind,
        cause: Cause::Revert { evidence, of: vec![] },
        from: None,
        to: None,
        revision: None,
        started: now(),
        finished: None,
        evidence: vec![],
        outcome,
    };
    record.operations = vec![
        operation(3, OperationKind::Removal, Evidence::Verified, Some(Outcome::Superseded)),
        operation(2, OperationKind::Settings, Evidence::Claimed, Some(Outcome::Failed("x".to_owned()))),
        operation(1, OperationKind::Release, Evidence::KnownRelease, Some(Outcome::Succeeded)),
    ];
    record.phase = backstay::record::Phase::Removed;
    ledger.record(&agent("support"), None, &record).await.expect("recorded");
    assert_eq!(present(ledger.agent(&agent("support")).await.expect("read")).0, record);
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_kept_and_left_alone() {
    // R7
    let Some(lab) = lab("what_a_newer_version_wrote_is_kept_and_left_alone").await else { return };
    let ledger = ledger(lab.api(None).await, &lab, "here");
    let support = agent("support");
    ledger.record(&support, None, &full()).await.expect("recorded");
    // Of the same format: unknown fields go through us unharmed.
    let path = "support/status";
    lab.merge(AGENTS, path, "newer", &json!({"status": {"novel": {"deep": [1, {"b": 2}]}}})).await;
    let (mut record, _, version) = present(ledger.agent(&support).await.expect("read"));
    assert_eq!(record.unknown["novel"], json!({"deep": [1, {"b": 2}]}));
    record.drift_healed += 1;
    ledger.record(&support, Some(&version), &record).await.expect("recorded");
    let object = lab.see(AGENTS, "support").await.expect("it is there");
    assert_eq!(object["status"]["novel"], json!({"deep": [1, {"b": 2}]}));
    assert_eq!(object["status"]["driftHealed"], 4);
    // Of a newer format: only read, also where it cannot be read.
    lab.merge(AGENTS, path, "newer", &json!({"status": {"format": ROLLOUT_FORMAT + 1, "driftHealed": 9}})).await;
    let before = lab.see(AGENTS, "support").await;
    let (record, _, version) = present(ledger.agent(&support).await.expect("read"));
    assert!(!record.is_writable() && record.drift_healed == 9);
    let failure = ledger.record(&support, Some(&version), &record).await.expect_err("newer");
    assert_eq!(failure.kind, FailureKind::Fenced);
    assert!(failure.message.contains("it only reads"), "{}", failure.message);
    lab.merge(AGENTS, path, "newer", &json!({"status": {"hold": {"left": "nonsense"}}})).await;
    let (record, ..) = present(ledger.agent(&support).await.expect("read"));
    assert_eq!(record.format, ROLLOUT_FORMAT + 1);
    // Of ours, and yet not to be read: somebody's hand. The others are not harmed.
    ledger.record(&agent("research"), None, &full()).await.expect("recorded");
    lab.merge(AGENTS, path, "hand", &json!({"status": {"format": FORMAT}})).await;
    let agents = ledger.agents().await.expect("listed");
    let formats: Vec<_> = agents.into_iter().map(|(_, entry)| present(entry).0.format).collect();
    assert_eq!(formats, [FORMAT, backstay::ledger::UNREADABLE]);
    let (broken, _, version) = present(ledger.agent(&support).await.expect("read"));
    let failure = ledger.record(&support, Some(&version), &broken).await.expect_err("unreadable");
    assert_eq!(failure.kind, FailureKind::Fenced);
    let after = lab.see(AGENTS, "support").await.expect("it is there");
    assert_eq!(after["status"]["driftHealed"], before.expect("it was there")["status"]["driftHealed"]);
}

#[tokio::test]
async fn a_record_is_swapped_only_for_the_one_that_was_read() {
    let Some(lab) = lab("a_record_is_swapped_only_for_the_one_that_was_read").await else { return };
    let ledger = ledger(lab.api(None).await, &lab, "here");
    let support = agent("support");
    let record = |healed| AgentRecord { format: FORMAT, drift_healed: healed, ..AgentRecord::default() };
    let first = ledger.record(&support, None, &record(1)).await.expect("recorded");
    let second = ledger.record(&support, Some(&first), &record(2)).await.expect("recorded");
    for expected in [None, Some(&first)] {
        let failure = ledger.record(&support, expected, &record(3)).await.expect_err("a conflict");
        assert_eq!(failure.kind, FailureKind::Conflict, "{}", failure.message);
    }
    let (read, _, version) = present(ledger.agent(&support).await.expect("read"));
    assert_eq!((read, version), (record(2), second.clone()));
    // A request of a person moves the version, and no record overwrites it.
    let asker = Asker { by: "alice".to_owned(), reason: "quiet".to_owned(), at: now() };
    ledger.request(&support, &Ask::Suspend, &asker).await.expect("asked");
    let failure = ledger.record(&support, Some(&second), &record(3)).await.expect_err("a conflict");
    assert_eq!(failure.kind, FailureKind::Conflict);
    let (_, requests, version) = present(ledger.agent(&support).await.expect("read"));
    let third = ledger.record(&support, Some(&version), &record(3)).await.expect("recorded");
    let (read, still, _) = present(ledger.agent(&support).await.expect("read"));
    assert!(read.drift_healed == 3 && still == requests && still.suspended().is_some());
    // Deleted: it is not made again by accident.
    lab.remove(AGENTS, "support").await;
    let failure = ledger.record(&support, Some(&third), &record(4)).await.expect_err("it is gone");
    assert_eq!(failure.kind, FailureKind::Gone, "{}", failure.message);
    assert_eq!(lab.see(AGENTS, "support").await, None);
    // Made by a person, without a record: there, and new.
    lab.make(
        AGENTS,
        json!({"apiVersion": "backstay.dev/v1alpha1", "kind": "AgentRelease",
        "metadata": {"name": "support"}, "spec": {}}),
    )
    .await;
    let (read, _, version) = present(ledger.agent(&support).await.expect("read"));
    assert_eq!(read, AgentRecord::default());
    ledger.record(&support, Some(&version), &record(5)).await.expect("recorded");
}

#[tokio::test]
async fn people_ask_under_their_own_rights() {
    let Some(lab) = lab("people_ask_under_their_own_rights").await else { return };
    let daemon = ledger(lab.api(None).await, &lab, "here");
    let support = agent("support");
    daemon.record(&support, None, &full()).await.expect("recorded");
    daemon.record_environment(None, &EnvironmentRecord::default()).await.expect("recorded");
    let subject = json!({"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"});
    lab.allow("asker", subject, &["backstay.dev"], &["agentreleases", "agentenvironments"], &["get", "patch"]).await;
    let alice = lab.api(Some("alice")).await;
    assert_eq!(whoami(&alice).await.as_deref(), Ok("alice"));
    let asks = ledger(alice, &lab, "");
    let asker = |at: &str| Asker { by: "alice".to_owned(), reason: String::new(), at: at.parse().expect("a time") };
    let first = asker("2026-11-24T10:00:00Z");
    let to = Some("r-0123456789ab".to_owned());
    let ask = Ask::Rollback { to: to.clone(), no_git: true };
    let id = eventually("her rights are there", async || asks.request(&support, &ask, &first).await.ok()).await;
    assert_eq!(id, "1795514400000000000");
    let (record, requests, _) = present(daemon.agent(&support).await.expect("read"));
    let rollback = requests.rollback.expect("asked");
    assert_eq!((rollback.to, rollback.no_git, rollback.request.id), (to, true, id));
    assert_eq!(record, full(), "the record is untouched");
    // Asked again for less: nothing of the first request is left.
    let ask = Ask::Rollback { to: None, no_git: false };
    let second = Asker { reason: "it is rude".to_owned(), ..asker("2026-11-24T10:00:01Z") };
    asks.request(&support, &ask, &second).await.expect("asked");
    asks.request(&support, &Ask::Retry { release: None }, &second).await.expect("asked");
    asks.request(&support, &Ask::Suspend, &first).await.expect("asked");
    asks.request(&support, &Ask::Resume, &second).await.expect("asked");
    let (_, requests, _) = present(daemon.agent(&support).await.expect("read"));
    let rollback = requests.rollback.as_ref().expect("asked");
    assert_eq!(
        (rollback.to.as_deref(), rollback.no_git, rollback.request.reason.as_str()),
        (None, false, "it is rude")
    );
    assert!(requests.retry.is_some() && requests.suspended().is_none());
    asks.request_sync(Some(&commit()), &first).await.expect("asked");
    let sync = daemon.environment().await.expect("read").expect("there").requests.sync.expect("asked");
    assert_eq!(sync.accept_rewind, Some(commit()));
    asks.request_sync(None, &second).await.expect("asked");
    let sync = daemon.environment().await.expect("read").expect("there").requests.sync.expect("asked");
    assert_eq!(sync.accept_rewind, None);
    // Nothing is made for an agent that is not there; the way out is named.
    let failure = asks.request(&agent("nobody"), &Ask::Suspend, &first).await.expect_err("absent");
    assert_eq!(failure.kind, FailureKind::Gone);
    assert!(failure.message.ends_with("`backstay status` lists the agents of production"), "{}", failure.message);
    assert_eq!(lab.see(AGENTS, "nobody").await, None);
    // She may ask, and not write the record; others may not even ask.
    let version = present(daemon.agent(&support).await.expect("read")).2;
    let failure = asks.record(&support, Some(&version), &full()).await.expect_err("not hers");
    assert_eq!(failure.kind, FailureKind::Forbidden);
    let viewer = ledger(lab.api(Some("viewer")).await, &lab, "");
    let failure = viewer.request(&support, &Ask::Suspend, &first).await.expect_err("not theirs");
    assert_eq!(failure.kind, FailureKind::Forbidden, "{}", failure.message);
}

#[tokio::test]
async fn the_ledger_tells_of_every_change() {
    let Some(lab) = lab("the_ledger_tells_of_every_change").await else { return };
    let writer = ledger(lab.api(None).await, &lab, "here");
    let record = |healed| AgentRecord { format: FORMAT, drift_healed: healed, ..AgentRecord::default() };
    let first = writer.record(&agent("support"), None, &record(1)).await.expect("recorded");
    let reader = ledger(lab.api(None).await, &lab, "here");
    let mut changes = Box::pin(reader.watch(&pace()).expect("a watch"));
    let mut next = async || {
        let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
        change.expect("something").expect("it never ends")
    };
    // The two kinds come in any order; the agents before what says that they are all.
    let mut told = vec![next().await, next().await, next().await];
    told.retain(|change| *change != LedgerChange::Environment(None));
    let [LedgerChange::Agent(name, entry), LedgerChange::Synced] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((name, present((**entry).clone()).0), (&agent("support"), record(1)));
    let second = writer.record(&agent("support"), Some(&first), &record(2)).await.expect("recorded");
    let LedgerChange::Agent(_, entry) = next().await else { panic!("an agent") };
    assert_eq!((present((*entry).clone()).0, present(*entry).2), (record(2), second.clone()));
    let asker = Asker { by: "alice".to_owned(), reason: String::new(), at: now() };
    writer.request(&agent("support"), &Ask::Suspend, &asker).await.expect("asked");
    let LedgerChange::Agent(_, entry) = next().await else { panic!("an agent") };
    let (_, requests, version) = present(*entry);
    assert!(requests.suspended().is_some());
    // What the reader itself wrote last is what it is told, or nothing: never something older.
    let third = reader.record(&agent("support"), Some(&version), &record(3)).await.expect("recorded");
    let LedgerChange::Agent(_, entry) = next().await else { panic!("an agent") };
    assert_eq!(present(*entry).2, third);
    writer.record_environment(None, &EnvironmentRecord::default()).await.expect("recorded");
    let LedgerChange::Environment(Some(_)) = next().await else { panic!("an environment") };
    // Its status, a request of its own.
    let LedgerChange::Environment(Some(_)) = next().await else { panic!("an environment") };
    lab.remove(AGENTS, "support").await;
    assert_eq!(next().await, LedgerChange::Agent(agent("support"), Box::new(LedgerEntry::Absent)));
    lab.remove(ENVIRONMENTS, "production").await;
    assert_eq!(next().await, LedgerChange::Environment(None));
}

#[tokio::test]
async fn a_namespace_has_one_installation_and_one_environment() {
    // F3
    let Some(lab) = lab("a_namespace_has_one_installation_and_one_environment").await else { return };
    let api = lab.api(None).await;
    let here = ledger(api.clone(), &lab, "here");
    let Claim::Ours(entry) = here.claim().await.expect("claimed") else { panic!("it was nobody's") };
    assert_eq!(entry.record.installation, "here");
    assert!(matches!(here.claim().await, Ok(Claim::Ours(_))), "and is still ours");
    let there = ledger(api.clone(), &lab, "there");
    let Claim::ReadOnly(why) = there.claim().await.expect("looked") else { panic!("it is another's") };
    assert!(why.contains("`here`"), "{why}");
    let staging = Ledger::new(api.clone(), lab.namespace.clone(), "staging".parse().expect("a name"), "here");
    let Claim::ReadOnly(why) = staging.claim().await.expect("looked") else { panic!("production is at home") };
    assert!(why.contains("`production`"), "{why}");
    assert_eq!(lab.see(ENVIRONMENTS, "staging").await, None);
    // An object that a person made first, without a record, is taken.
    lab.remove(ENVIRONMENTS, "production").await;
    lab.make(
        ENVIRONMENTS,
        json!({"apiVersion": "backstay.dev/v1alpha1", "kind": "AgentEnvironment",
        "metadata": {"name": "production"}, "spec": {}}),
    )
    .await;
    assert!(matches!(there.claim().await, Ok(Claim::Ours(_))));
    // Both at once: one of them.
    lab.remove(ENVIRONMENTS, "production").await;
    let (a, b) = tokio::join!(here.claim(), there.claim());
    let ours = [a, b].into_iter().filter(|claim| matches!(claim, Ok(Claim::Ours(_)))).count();
    assert_eq!(ours, 1);
    // A newer version's is only read.
    let newer = json!({"status": {"format": ROLLOUT_FORMAT + 1}});
    lab.merge(ENVIRONMENTS, "production/status", "newer", &newer).await;
    let Claim::ReadOnly(why) = here.claim().await.expect("looked") else { panic!("it is newer") };
    assert!(why.contains("newer"), "{why}");
    let record = EnvironmentRecord { format: ROLLOUT_FORMAT + 1, ..EnvironmentRecord::default() };
    assert_eq!(here.record_environment(None, &record).await.expect_err("newer").kind, FailureKind::Fenced);
}

#[tokio::test]
async fn an_environment_comes_back_as_it_was_written() {
    let Some(lab) = lab("an_environment_comes_back_as_it_was_written").await else { return };
    let ledger = ledger(lab.api(None).await, &lab, "here");
    assert_eq!(ledger.environment().await, Ok(None));
    let record: EnvironmentRecord = serde_json::from_value(json!({
        "format": FORMAT, "installation": "here", "epoch": 3, "accepted": {"heads/main": format!("main@sha1:{}", commit()), "tags/v*": format!("v1@sha1:{}", commit())},
        "refused": {"reference": "main", "to": commit(), "why": "it was rewound", "since": now()},
        "errors": ["agents/support/agent.yaml:3:1: error: no"], "handled": {"sync": "1"}, "novel": {"a": 1},
        "conditions": [{"type": "Stalled", "status": "True", "reason": "Rewound", "lastTransitionTime": now()}],
    }))
    .expect("a record");
    let version = ledger.record_environment(None, &record).await.expect("recorded");
    let entry = ledger.environment().await.expect("read").expect("there");
    assert_eq!((entry.record, entry.version.clone()), (record.clone(), version.clone()));
    ledger
        .record_environment(Some(&version), &EnvironmentRecord { epoch: 4, ..record.clone() })
        .await
        .expect("recorded");
    let failure = ledger.record_environment(Some(&version), &record).await.expect_err("a conflict");
    assert_eq!(failure.kind, FailureKind::Conflict);
}

#[tokio::test]
async fn an_announcement_is_an_event_on_the_agent() {
    let Some(lab) = lab("an_announcement_is_an_event_on_the_agent").await else { return };
    let ledger = ledger(lab.api(None).await, &lab, "here");
    let support = agent("support");
    ledger.record(&support, None, &full()).await.expect("recorded");
    let announcement = Announcement {
        warning: true,
        reason: "Failed",
        message: format!("it crashes: ä{}", "x".repeat(2000)),
        operation: Some(OperationId(3)),
    };
    ledger.announce(&support, &announcement, now(), "pod-1").await;
    let events = lab.ask(Method::GET, &lab.path("events"), None).await.expect("events");
    let event = &events["items"][0];
    let object = lab.see(AGENTS, "support").await.expect("it is there");
    assert_eq!(event["involvedObject"]["uid"], object["metadata"]["uid"]);
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("Failed")));
    assert_eq!(event["message"].as_str().map(str::len), Some(1024));
    // Where Events may not be written, nothing else happens.
    let viewer = super::ledger::ledger(lab.api(Some("viewer")).await, &lab, "");
    viewer.announce(&support, &announcement, now(), "pod-1").await;
}

#[tokio::test]
async fn without_its_definitions_the_way_out_is_named() {
    let Some(lab) = lab("without_its_definitions_the_way_out_is_named").await else { return };
    // A server that has no such kind, which the real one is before its first installation.
    let api = super::network::empty_server().await;
    let ledger = ledger(api, &lab, "here");
    for failure in [
        ledger.agent(&agent("support")).await.expect_err("unknown"),
        ledger.record(&agent("support"), None, &full()).await.expect_err("unknown"),
    ] {
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.message.ends_with("apply manifests/crds.yaml"), "{}", failure.message);
    }
}
