//! The command line against a real ledger, with no daemon: what is shown, what is asked, and what people get wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::desired::{Code, FORMAT, Release, ReleaseSpec, Workload};
use backstay::ledger::Ledger;
use backstay::model::{CommitId, Digest, ReleaseId, Revision, Timestamp};
use backstay::record::{
    AgentRecord, Cause, ConditionKind, Differs, Evidence, Operation, OperationId, OperationKind, Outcome, Quarantined,
    RefusedMove, Standing, Truth,
};
use serde_json::json;

use crate::lab::{Lab, lab};
use crate::script;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn commit(digit: char) -> CommitId {
    digit.to_string().repeat(40).parse().expect("a commit")
}

/// A release whose prompt says `text`.
fn release(text: &str) -> Release {
    let prompt: Arc<[u8]> = format!("Be kind.\n{text}\n").into_bytes().into();
    let spec = ReleaseSpec {
        format: FORMAT,
        code: Code { image: Some("registry.example.com/support:1".to_owned()), ..Code::default() },
        prompts: BTreeMap::from([("system".to_owned(), Digest::of(&prompt))]),
        models: BTreeMap::new(),
        tools: BTreeMap::new(),
        memory: None,
        config: None,
        workload: Workload::default(),
        workers: BTreeMap::new(),
    };
    Release::new(spec, BTreeMap::from([("system".to_owned(), prompt)])).expect("a release")
}

fn standing(id: ReleaseId, digit: char) -> Standing {
    let revision = Revision { reference: "main".to_owned(), commit: commit(digit) };
    Standing { release: id, revision, settings: Digest::of(b""), renderer: 1, since: at(1_767_323_045), own_set: false }
}

fn operation(id: u64, cause: Cause, from: Option<ReleaseId>, to: &Standing, outcome: Outcome) -> Operation {
    Operation {
        id: OperationId(id),
        kind: OperationKind::Release,
        cause,
        from: from.map(Into::into),
        to: Some(to.release.into()),
        revision: Some(to.revision.clone()),
        started: at(1_767_323_045),
        finished: Some(at(1_767_323_087)),
        evidence: vec![],
        outcome: Some(outcome),
    }
}

/// Two agents as a daemon would have recorded them: one that was taken back, and one whose newest release failed.
async fn seed(lab: &Lab) -> BTreeMap<&'static str, ReleaseId> {
    let ledger =
        Ledger::new(lab.api(None).await, lab.namespace.clone(), "production".parse().expect("a name"), "backstay");
    ledger.claim().await.expect("claimed");
    let entry = ledger.environment().await.expect("read").expect("there");
    let mut environment = entry.record;
    environment
        .accepted
        .insert("heads/main".to_owned(), Revision { reference: "main".to_owned(), commit: commit('a') });
    environment.refused = Some(RefusedMove {
        reference: "main".to_owned(),
        to: Some(commit('b')),
        why: "it was rewound".to_owned(),
        since: at(1_767_323_045),
    });
    ledger.record_environment(Some(&entry.version), &environment).await.expect("recorded");
    let (good, bad, failed) = (release("Answer briefly."), release("Shout."), release("Crash."));
    for release in [&good, &bad] {
        let name = backstay::render::config_map_name(&"support".parse().expect("a name"), &release.id);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let data =
            json!({"release.json": text(&release.canonical), "prompts.system.md": text(&release.prompts["system"])});
        lab.make("configmaps", json!({"metadata": {"name": name}, "data": data})).await;
    }
    let (stood, before) = (standing(good.id, 'a'), standing(bad.id, '9'));
    let reverted = Cause::Revert { evidence: Evidence::Verified, of: vec![commit('9')] };
    let mut support = AgentRecord {
        stable: Some(stood.clone()),
        history: vec![before.clone()],
        operations: vec![
            operation(3, reverted, Some(bad.id), &stood, Outcome::Succeeded),
            operation(2, Cause::Commit {}, Some(good.id), &before, Outcome::Succeeded),
            operation(1, Cause::Commit {}, None, &stood, Outcome::Succeeded),
        ],
        ..AgentRecord::default()
    };
    support.set_condition(ConditionKind::Ready, Truth::True, "Ready", "", at(1_767_323_087));
    ledger.record(&"support".parse().expect("a name"), None, &support).await.expect("recorded");
    let why = "the new pods crash".to_owned();
    let mut research = AgentRecord {
        stable: Some(stood.clone()),
        quarantine: vec![Quarantined::new(failed.id, at(1_767_323_087), why.clone())],
        differs: Some(Differs { desired: failed.id, since: at(1_767_323_087), why }),
        operations: vec![operation(
            2,
            Cause::Commit {},
            Some(good.id),
            &standing(failed.id, 'a'),
            Outcome::Failed("crash loop".to_owned()),
        )],
        ..AgentRecord::default()
    };
    research.set_condition(ConditionKind::Ready, Truth::False, "Degraded", "", at(1_767_323_087));
    ledger.record(&"research".parse().expect("a name"), None, &research).await.expect("recorded");
    BTreeMap::from([("GOOD", good.id), ("BAD", bad.id), ("FAILED", failed.id)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_type_with_a_cluster() {
    let Some(lab) = lab("cli").await else { return };
    let releases = seed(&lab).await;
    let mut variables = vec![
        ("KUBECONFIG", std::env::var("KUBECONFIG").expect("KUBECONFIG")),
        ("NAMESPACE", lab.namespace.clone()),
        ("USERS", lab.dir.join("users").display().to_string()),
    ];
    variables.extend(releases.iter().map(|(name, id)| (*name, id.short())));
    let mask = |said: String| {
        let said = said.replace(&lab.namespace, "NAMESPACE");
        releases.iter().fold(masked(&said), |said, (name, id)| said.replace(&id.short(), name))
    };
    // The scripts wait for processes of their own: off the runtime.
    tokio::task::block_in_place(|| script::run_all("tests/script/cluster", &variables, mask));
}

/// Ages and the ids of requests: they are others every time.
fn masked(said: &str) -> String {
    let mut out = String::with_capacity(said.len());
    let mut word = String::new();
    for c in said.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let digits = word.trim_end_matches(['s', 'm', 'h', 'd']);
        let is_age = digits.len() + 1 == word.len() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let is_id = word.len() == 19 && word.bytes().all(|b| b.is_ascii_digit());
        out.push_str(if is_age {
            "AGE"
        } else if is_id {
            "ID"
        } else {
            &word
        });
        word.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}
