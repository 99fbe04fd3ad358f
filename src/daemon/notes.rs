//! Each ended operation as a line in the Git notes of the commit that it deployed: `git log --notes=backstay` shows them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::git::Git;
use crate::ledger::Clock;
use crate::model::{AgentName, CommitId, EnvironmentName};
use crate::record::{AgentRecord, Operation, OperationId};
use crate::source::Person;

/// Lines that are pushed together.
const TOGETHER: usize = 500;
/// Lines that wait while the remote is away; beyond that the oldest are dropped.
const WAITING: usize = 10_000;
/// When it is tried again after the first failure, and at last.
const SOON: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_mins(30);

/// Takes what ended, and writes it into the notes when the remote lets it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Notes(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<(CommitId, String)>,
    /// The last operation of each agent that was taken.
    taken: HashMap<(EnvironmentName, AgentName), OperationId>,
    dropped: usize,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    environment: &'a EnvironmentName,
    agent: &'a AgentName,
    #[serde(flatten)]
    operation: &'a Operation,
}

// === impl Notes ===

impl Notes {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { queue: Mutex::default(), more: Notify::new() }))
    }

    /// Takes what ended since the last call; of an agent that is told of for the first time, what ended last: it may have
    /// ended just before this process began, and a line that is there already is not written again.
    pub(crate) fn tell(&self, environment: &EnvironmentName, agent: &AgentName, record: &AgentRecord) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (environment.clone(), agent.clone());
        let ended = |operation: &&Operation| operation.outcome.is_some();
        let new: Vec<_> = match queue.taken.get(&key).copied() {
            Some(taken) => {
                record.operations.iter().filter(ended).take_while(|operation| operation.id > taken).collect()
            }
            None => record.operations.iter().filter(ended).take(1).collect(),
        };
        if let Some(newest) = new.first() {
            queue.taken.insert(key, newest.id);
        }
        for operation in new.into_iter().rev() {
            let Some(revision) = &operation.revision else { continue };
            match serde_json::to_string(&Line { environment, agent, operation }) {
                Ok(line) => queue.lines.push_back((revision.commit.clone(), line)),
                Err(error) => tracing::error!(%environment, %agent, %error, "a note cannot be written"),
            }
        }
        while queue.lines.len() > WAITING {
            queue.lines.pop_front();
            queue.dropped += 1;
        }
        if !queue.lines.is_empty() {
            self.0.more.notify_one();
        }
    }

    /// Writes until `stop`; nothing and nobody waits for it. What did not get there until then is found at the next start.
    pub(crate) async fn run(self, git: Arc<Git>, by: Person, clock: Arc<dyn Clock>, stop: CancellationToken) {
        let mut wait = SOON;
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => return,
                () = self.0.more.notified() => {}
            }
            while let Some((lines, dropped)) = self.take() {
                if dropped > 0 {
                    tracing::warn!(dropped, "notes were dropped: the remote did not take them for too long");
                }
                let (lines, by, now) = (Arc::new(lines), by.clone(), clock.now());
                let (git, batch) = (Arc::clone(&git), Arc::clone(&lines));
                let written = tokio::task::spawn_blocking(move || git.mirror.add_notes(&batch, &by, now)).await;
                let why = match written {
                    Ok(Ok(_)) => {
                        wait = SOON;
                        continue;
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                tracing::warn!(error = why, again = ?wait, "the notes of {} operations are not written", lines.len());
                self.put_back(&lines);
                tokio::select! { biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = LATE.min(wait * 2);
            }
        }
    }

    fn take(&self) -> Option<(Vec<(CommitId, String)>, usize)> {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let some = TOGETHER.min(queue.lines.len());
        let lines: Vec<_> = queue.lines.drain(..some).collect();
        let dropped = std::mem::take(&mut queue.dropped);
        (!lines.is_empty()).then_some((lines, dropped))
    }

    fn put_back(&self, lines: &[(CommitId, String)]) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().for_each(|line| queue.lines.push_front(line.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::record::{Cause, OperationKind, Outcome};

    fn ended(id: u64) -> Operation {
        Operation {
            id: OperationId(id),
            kind: OperationKind::Release,
            cause: Cause::Commit {},
            from: None,
            to: None,
            revision: Some("main@sha1:3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a revision")),
            started: Timestamp::UNIX_EPOCH,
            finished: Some(Timestamp::UNIX_EPOCH),
            evidence: vec![],
            outcome: Some(Outcome::Succeeded),
        }
    }

    fn record(newest: u64) -> AgentRecord {
        AgentRecord { operations: (1..=newest).rev().map(ended).collect(), ..AgentRecord::default() }
    }

    fn told(notes: &Notes, newest: u64) -> Vec<u64> {
        let (environment, agent) = ("prod".parse().expect("a name"), "support".parse().expect("a name"));
        notes.tell(&environment, &agent, &record(newest));
        let id = |(_, line): (CommitId, String)| {
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!((&line["agent"], &line["environment"]), (&"support".into(), &"prod".into()));
            line["id"].as_u64().expect("a number")
        };
        notes.take().map(|(lines, _)| lines.into_iter().map(id).collect()).unwrap_or_default()
    }

    #[test]
    fn each_operation_is_told_once() {
        let notes = Notes::new();
        assert_eq!(told(&notes, 3), [3], "what ended last may have ended just before");
        assert_eq!(told(&notes, 3), [0; 0]);
        assert_eq!(told(&notes, 5), [4, 5]);
    }

    #[test]
    fn what_was_not_written_waits_in_its_place_and_never_without_end() {
        let notes = Notes::new();
        let commit = CommitId::clone(&ended(1).revision.expect("a revision").commit);
        let line = |n: usize| (commit.clone(), n.to_string());
        notes.put_back(&[line(1), line(2)]);
        let (lines, _) = notes.take().expect("lines");
        notes.put_back(&lines);
        assert_eq!(notes.take().expect("lines").0, [line(1), line(2)]);
        notes.put_back(&(0..WAITING + 7).map(line).collect::<Vec<_>>());
        let (environment, agent) = ("prod".parse().expect("a name"), "support".parse().expect("a name"));
        notes.tell(&environment, &agent, &record(1));
        let (first, dropped) = notes.take().expect("lines");
        assert_eq!((&first[0], dropped), (&line(8), 8), "the oldest go first");
    }
}
