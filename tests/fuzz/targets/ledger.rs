//! What an API server answers of the records, the journal, and what is kept of settings and rollouts.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstay::desired::Settings;
use backstay::ledger::{Journal, JournalError, Ledger, LedgerChange, Line, verify, whoami};
use backstay::model::{AgentName, Digest, EnvironmentName, ResourceVersion};
use backstay::observe::{Api, Limiter, Pace};
use backstay::reconcile::{Failure, LedgerEntry};
use backstay::record::{AgentRecord, RolloutRecord};
use backstay::rollout::{Event, Judging, Rollout};
use futures::StreamExt as _;
use jiff::SignedDuration;
use kube::client::Body;
use serde_json::Value;

use super::{assert_plain, now, parts, scratch};

/// A status and a body.
type Said = (u16, Vec<u8>);

/// An API server that gives these answers, one after the other, and none after them.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<Said>>>,
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Server {
    /// Each answer is a digit that chooses its status, and its body.
    fn of<'a>(answers: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let answer = |text: &[u8]| {
            let (first, body) = text.split_first()?;
            let status = [200, 200, 201, 403, 404, 409, 410, 422, 429, 500][usize::from(first.wrapping_sub(b'0') % 10)];
            Some((status, body.to_vec()))
        };
        let answers = answers.into_iter().filter_map(answer).collect();
        Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
    }

    fn ledger(&self) -> Ledger {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move {
                let body = request.into_body().collect_bytes().await.map(|bytes| bytes.to_vec()).unwrap_or_default();
                server.asked.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                let next = server.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let (status, body) = next.unwrap_or((500, b"{}".to_vec()));
                let answer = http::Response::builder().status(status).header("content-type", "application/json");
                Ok::<_, Infallible>(answer.body(Body::from(body)).expect("an answer"))
            }
        });
        let api = Api::new(kube::Client::new(service, "default"), Limiter::seeded(8, 1));
        Ledger::new(api, "agents", environment(), "here")
    }
}

fn agent() -> AgentName {
    "support".parse().expect("a name")
}

fn environment() -> EnvironmentName {
    "production".parse().expect("a name")
}

fn assert_told<T>(told: Result<T, Failure>) -> Option<T> {
    told.map_err(|failure| assert_plain(&failure.message)).ok()
}

fn run<T>(deed: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(deed)
}

/// One answer, to all that the ledger asks; what can be read and may be written is written and read back.
pub(super) fn ledger(data: &[u8]) {
    run(async {
        let ledger = || Server::of([data]).ledger();
        assert_told(ledger().agents().await);
        assert_told(ledger().environment_listed().await);
        assert_told(ledger().environment().await);
        assert_told(ledger().claim().await);
        assert_told(ledger().begin_epoch().await);
        let Some(LedgerEntry::Present { record, version, .. }) = assert_told(ledger().agent(&agent()).await) else {
            return;
        };
        assert!(record.format <= backstay::record::ROLLOUT_FORMAT || !record.is_writable());
        assert_eq!(written(&record, &version).await, record.is_writable().then(|| AgentRecord::clone(&record)));
    });
}

/// The record as it is read back from what the ledger writes of it; nothing where it is not written.
async fn written(record: &AgentRecord, version: &ResourceVersion) -> Option<AgentRecord> {
    let kept = br#"0{"metadata": {"name": "support", "uid": "u", "resourceVersion": "8"}}"#;
    let server = Server::of([kept.as_slice(), kept.as_slice()]);
    let wrote = server.ledger().record(&agent(), Some(version), record).await;
    let asked = server.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !record.is_writable() {
        assert!(wrote.is_err() && asked.is_empty(), "a record that may not be written was");
        return None;
    }
    wrote.expect("it was taken");
    let body: Value = serde_json::from_slice(asked.last().expect("something was sent")).expect("JSON");
    let object = serde_json::json!({"metadata": {"name": "support", "uid": "u", "resourceVersion": "9"},
        "status": body["status"]});
    let again = Server::of([format!("0{object}").as_bytes()]).ledger().agent(&agent()).await.expect("an entry");
    let read = AgentRecord::clone(again.record().expect("a record"));
    // The format that is written is the least that holds what is in it.
    Some(AgentRecord { format: record.format, ..read })
}

/// Answers to the two watches, one after the other.
pub(super) fn watch(data: &[u8]) {
    run(async {
        let server = Server::of(parts(data).take(12));
        let wait = Duration::from_millis(1);
        let pace = Pace { first_wait: wait, longest_wait: wait, ..Pace::default() };
        let Ok(changes) = server.ledger().watch(&pace) else { return };
        let (mut changes, mut troubles) = (pin!(changes), 0);
        // When all is said, every call fails. A server may ask to be left alone for long; that is not waited for.
        while let (0..4, Ok(Some(change))) = (troubles, tokio::time::timeout(wait * 20, changes.next()).await) {
            if let LedgerChange::Trouble(failure) = change {
                assert_plain(&failure.message);
                troubles += 1;
            }
        }
        assert_told(whoami_of(data).await);
    });
}

async fn whoami_of(data: &[u8]) -> Result<String, Failure> {
    let server = Server::of([data]);
    let kept = server.clone();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let next = kept.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let (status, body) = next.unwrap_or((500, b"{}".to_vec()));
        let answer = http::Response::builder().status(status).body(Body::from(body)).expect("an answer");
        async move { Ok::<_, Infallible>(answer) }
    });
    whoami(&Api::new(kube::Client::new(service, "default"), Limiter::seeded(1, 1))).await
}

/// The file of a journal. A line that begins with `~` gets the digests that make it one of the chain.
pub(super) fn journal(data: &[u8]) {
    let folder = scratch();
    let (mut text, mut prev) = (vec![], Digest::of(b""));
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let sealed = line.strip_prefix(b"~").and_then(|line| {
            let mut line: Value = serde_json::from_slice(line).ok()?;
            line.as_object_mut()?.insert("prev".to_owned(), prev.to_string().into());
            let line: Line = serde_json::from_value(line).ok()?;
            serde_json::to_string(&line).ok()
        });
        match sealed {
            Some(line) => {
                prev = Digest::of(line.as_bytes());
                let open = line.strip_suffix('}').unwrap_or(&line);
                text.extend(format!("{open},\"digest\":\"{prev}\"}}\n").as_bytes());
            }
            None => text.extend(line),
        }
    }
    // Files that are full stand before it: the chain may begin anywhere then.
    for older in [false, true] {
        let path = folder.path().join(if older { "with-older" } else { "alone" });
        if older {
            for n in 1..=4 {
                let first = if n == 4 { text.as_slice() } else { b"" };
                std::fs::write(path.with_extension(n.to_string()), first).expect("a file");
            }
        }
        std::fs::write(&path, if older { b"" } else { text.as_slice() }).expect("a file");
        chained(&path, &text);
    }
}

fn chained(path: &std::path::Path, text: &[u8]) {
    let told = |error: &JournalError| {
        assert_plain(&error.to_string());
        if let JournalError::Broken { number, .. } = error {
            assert!(*number > 0);
        }
    };
    let verified = verify(path);
    let opened = Journal::file(path);
    match (&verified, &opened) {
        (Err(error), _) => told(error),
        (Ok(_), Err(error)) => panic!("a whole journal is gone on with: {error}"),
        (Ok(_), Ok(_)) => {}
    }
    let Ok(mut journal) = opened else { return };
    let record = serde_json::json!({"format": 1, "operations": [{"id": 7, "kind": "Release", "cause": {"commit": {}},
        "started": "2026-11-24T10:00:00Z", "outcome": "succeeded"}]});
    let record: AgentRecord = serde_json::from_value(record).expect("a record");
    match journal.note(&environment(), &agent(), &record) {
        Ok(lines) => {
            let (after, _) = verify(path).expect("what was gone on with is whole");
            if let Ok((before, _)) = verified {
                assert_eq!(after, before + lines as u64, "{:?}", String::from_utf8_lossy(text));
            }
        }
        Err(error) => told(&error),
    }
}

/// The canonical form of settings, as a record keeps it.
pub(super) fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert!(Settings::from_canonical(text, Digest::of(b"another")).is_none(), "what is changed is not read");
    let Some(settings) = Settings::from_canonical(text, Digest::of(data)) else { return };
    let Ok(written) = settings.canonical() else { return };
    let again = Settings::from_canonical(&written, Digest::of(written.as_bytes())).expect("what was written is read");
    assert_eq!(again.canonical().ok(), Some(written));
}

/// A rollout on its way as a record keeps it, with what the judge knew.
pub(super) fn rollout(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<RolloutRecord>(data) else { return };
    let _ = record.is_waiting();
    let kept = record.evidence.as_deref();
    drop(kept.and_then(Judging::last_report));
    let mut rollout = match Rollout::read(&record) {
        Ok(rollout) => rollout,
        Err(error) => return assert_plain(&error.to_string()),
    };
    let saved = rollout.saved(record.evidence.clone()).expect("what was read can be written");
    assert_eq!(Rollout::read(&saved).ok().as_ref(), Some(&rollout));
    let mut at = now();
    let mut judging = Judging::of(&rollout, None, kept, at).ok().flatten();
    for round in 0..6 {
        let wanted = rollout.wanted();
        assert!(wanted.routes.split.weight() <= 100);
        drop((rollout.wait(at), rollout.next_look(at)));
        let event = match (round, &mut judging) {
            (1, _) => Event::Ready(wanted.instances.clone()),
            (2, _) => Event::Routes(Some(wanted.routes)),
            (3, Some(judging)) => {
                drop(judging.asks(SignedDuration::from_secs(30), at));
                judging.says(&[], at)
            }
            _ => Event::Tick,
        };
        if let Ok((next, news)) = rollout.step(&event, at) {
            drop(news);
            rollout = next;
        }
        if let Some(judging) = &judging {
            let text = judging.saved().expect("it can be kept");
            let again = Judging::of(&rollout, None, Some(&text), at).ok().flatten();
            drop(again);
        }
        at = at.checked_add(SignedDuration::from_mins(7)).unwrap_or(at);
    }
}
