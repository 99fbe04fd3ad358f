//! What the machine of one agent makes of an answer: of the ledger, of an effect that ended, of one that failed.

use std::sync::Arc;

use jiff::SignedDuration;

use super::state::{AgentState, InVain, Ledger, Pending, Refusal};
use super::{Action, Done, Failure, FailureKind, How, LedgerEntry, TellGit, Write};
use crate::model::{Digest, LiveObject, ObjectRef, Timestamp};
use crate::plan::{differences, drift};
use crate::record::{AgentRecord, Told};

/// When a refused object is tried again.
const REFUSED_RETRY: SignedDuration = SignedDuration::from_mins(2);
/// Writes of one object in a row that may come to nothing for reasons that pass, such as a conflict: each is followed by a
/// look and another try. A server that always says so refuses the object, and the others of its agent have their turn.
const IN_VAIN: u32 = 8;

impl AgentState {
    pub(super) fn read_entry(&mut self, entry: LedgerEntry) {
        let asked = matches!(self.pending, Some(Pending::ReadLedger));
        let known = self.ledger.as_ref().and_then(|ledger| ledger.version.clone());
        match entry {
            LedgerEntry::Present { record, requests, generation, version } => {
                let stale = known.is_some_and(|known| known != version && known.is_at_least(&version));
                if stale && !asked {
                    return;
                }
                let blank = record.format == 0;
                let mut record = record;
                if record.observed_generation != Some(generation) {
                    Arc::make_mut(&mut record).observed_generation = Some(generation);
                }
                self.ledger = Some(Ledger { record, requests, version: Some(version), blank });
            }
            // A list that is older than our own creation does not know it: only a fresh read counts.
            LedgerEntry::Absent if known.is_some() && !asked => {
                self.ledger_again();
                return;
            }
            LedgerEntry::Absent => {
                let (record, requests) = Default::default();
                self.ledger = Some(Ledger { record, requests, version: None, blank: true });
            }
        }
        if asked {
            self.pending = None;
            self.ledger_confirmed = true;
        }
    }

    pub(super) fn end_effect(&mut self, done: Done, now: Timestamp, seed: u64, actions: &mut Vec<Action>) {
        let Some(pending) = self.pending.take() else { return };
        match (pending, done) {
            (pending, Done::Failed(failure)) => self.failed(pending, failure, now, seed, actions),
            (Pending::Record(record), Done::Recorded(version)) => {
                self.backoff.clear();
                self.memory.ledger_in_vain = 0;
                self.memory.keep_to(&record);
                self.ledger_confirmed = true;
                if let Some(ledger) = &mut self.ledger {
                    ledger.record = record;
                    ledger.version = Some(version);
                    ledger.blank = false;
                }
            }
            (Pending::Write { write, heal }, Done::Written(live)) => self.written(&write, heal, live, now, actions),
            (Pending::DryRun { write, asked }, Done::WouldBe(would_be)) => {
                self.backoff.clear();
                self.memory.in_vain.remove(&write.manifest.object);
                self.asked(write, asked, &would_be, actions);
            }
            (Pending::Delete(object), Done::Deleted(_)) => {
                self.backoff.clear();
                self.memory.in_vain.remove(&object);
                self.note(&object, None, now);
            }
            (Pending::Read(object), Done::Seen(_, live)) => {
                self.backoff.clear();
                if live.is_some() && self.memory.in_vain.get(&object).is_some_and(|vain| vain.met) {
                    self.memory.in_vain.remove(&object);
                }
                self.note(&object, live, now);
            }
            (Pending::TellGit(tell), Done::Told(commit)) => self.told(&tell, commit, actions),
            // An answer to something else: the shell broke the protocol, and a fresh look mends it.
            (
                Pending::Record(_)
                | Pending::Write { .. }
                | Pending::DryRun { .. }
                | Pending::Delete(_)
                | Pending::Read(_)
                | Pending::ReadLedger
                | Pending::TellGit(_),
                _,
            ) => self.send(Pending::ReadLedger, Action::ReadLedger, actions),
        }
    }

    fn written(&mut self, write: &Write, heal: bool, live: Arc<LiveObject>, now: Timestamp, actions: &mut Vec<Action>) {
        self.backoff.clear();
        let object = live.object.clone();
        match &write.how {
            How::Handover { .. } => drop(self.memory.handed_over.insert(object.clone())),
            How::Apply { drops_fields: true, .. } => drop(self.memory.dropped.insert(object.clone())),
            How::Create { .. } | How::Apply { .. } | How::Adopt { .. } => {}
        }
        if !matches!(write.how, How::Handover { .. }) {
            // What the server made of it (defaults, admission) is no drift.
            let left = drift(&write.manifest.body, &live.body);
            if left.is_empty() {
                self.memory.accepted.remove(&object);
            } else {
                self.memory.accepted.insert(object.clone(), differences(&left));
                self.memory.clean = None;
            }
        }
        self.memory.refused.remove(&object);
        self.memory.in_vain.remove(&object);
        // A write that changed nothing keeps the version: the difference is the server's own, and nothing was healed. What
        // the watch shows may be newer than what was written to.
        let same = matches!(&write.how, How::Apply { version, .. } if *version == live.version);
        if heal && !same {
            let heals = self.memory.heals.entry(object.clone()).or_default();
            heals.push(now);
            self.memory.untold += 1;
            let message = format!("{object} healed: it is as {} says again", write.manifest.origin);
            actions.push(Action::Announce(self.announcement(false, "DriftHealed", message)));
        }
        self.note(&object, Some(live), now);
    }

    /// A dry run answered: where the server would change nothing, the difference is none.
    fn asked(&mut self, write: Write, asked: Digest, would_be: &LiveObject, actions: &mut Vec<Action>) {
        let object = write.manifest.object.clone();
        let live = self.live.objects.get(&object);
        let same = live.is_some_and(|live| {
            let (now, then) = (drift(&write.manifest.body, &live.body), drift(&write.manifest.body, &would_be.body));
            differences(&now) == differences(&then)
        });
        if same {
            self.memory.accepted.insert(object, asked);
        } else if live.is_some() {
            self.send(Pending::Write { write: write.clone(), heal: true }, Action::Write(write), actions);
        }
    }

    fn told(&mut self, tell: &TellGit, commit: Option<String>, actions: &mut Vec<Action>) {
        self.git_backoff.clear();
        let Some(ledger) = &mut self.ledger else { return };
        let mut record = AgentRecord::clone(&ledger.record);
        let commit = commit.unwrap_or_else(|| "the tip already says so".to_owned());
        let message = format!("Git is told that {} was left: {commit}", tell.left.release);
        if let Some(git) = git_of(&mut record, tell) {
            *git = Told::Commit(commit);
            actions.push(Action::Announce(self.announcement(false, "GitTold", message)));
            self.save(record, actions);
        }
    }

    fn failed(&mut self, pending: Pending, failure: Failure, now: Timestamp, seed: u64, actions: &mut Vec<Action>) {
        let Failure { kind, message } = failure;
        let read = |object: &ObjectRef| (Pending::Read(object.clone()), Action::Read(object.clone()));
        if kind == FailureKind::Fenced {
            self.fenced = Some(message);
            return;
        }
        let in_vain = self.is_in_vain(&pending, &kind);
        match (pending, kind) {
            (
                Pending::Record(_) | Pending::ReadLedger,
                FailureKind::Conflict | FailureKind::Exists | FailureKind::Gone,
            ) if self.memory.ledger_in_vain < IN_VAIN => {
                self.memory.ledger_in_vain += 1;
                self.send(Pending::ReadLedger, Action::ReadLedger, actions);
            }
            (Pending::Record(_) | Pending::ReadLedger, kind) => {
                self.backoff.fail(&message, retry_after(&kind), now, seed);
                self.ledger_again();
            }
            (Pending::TellGit(tell), kind) => {
                self.git_backoff.fail(&message, retry_after(&kind), now, seed);
                self.git_refused(&tell, message, actions);
            }
            (Pending::Read(_), kind) => self.backoff.fail(&message, retry_after(&kind), now, seed),
            (
                Pending::Write { write, .. } | Pending::DryRun { write, .. },
                FailureKind::Conflict | FailureKind::Exists,
            ) if !in_vain => {
                // Who is behind with the object may be so with the ledger, and would write what an old record means.
                self.ledger_again();
                let (pending, action) = read(&write.manifest.object);
                self.send(pending, action, actions);
            }
            (Pending::Delete(object), FailureKind::Conflict | FailureKind::Exists) if !in_vain => {
                let (pending, action) = read(&object);
                self.send(pending, action, actions);
            }
            (Pending::Write { write, .. } | Pending::DryRun { write, .. }, FailureKind::Gone) if !in_vain => {
                self.note(&write.manifest.object, None, now);
            }
            (Pending::Delete(object), FailureKind::Gone) => self.note(&object, None, now),
            // It may have happened: a fresh look comes before the next try.
            (
                Pending::Write { write, .. } | Pending::DryRun { write, .. },
                FailureKind::Unavailable { retry_after },
            ) if !in_vain => {
                self.backoff.fail(&message, retry_after, now, seed);
                self.memory.unsure.push(write.manifest.object);
            }
            (Pending::Delete(object), FailureKind::Unavailable { retry_after }) if !in_vain => {
                self.backoff.fail(&message, retry_after, now, seed);
                self.memory.unsure.push(object);
            }
            (Pending::DryRun { write, asked }, FailureKind::Refused) => {
                // No dry run is possible here: heal once, then report.
                let again = self.memory.heals.contains_key(&write.manifest.object);
                if again {
                    self.memory.accepted.insert(write.manifest.object, asked);
                } else {
                    self.send(Pending::Write { write: write.clone(), heal: true }, Action::Write(write), actions);
                }
            }
            (
                Pending::Write { write, .. } | Pending::DryRun { write, .. },
                kind @ (FailureKind::Conflict
                | FailureKind::Exists
                | FailureKind::Gone
                | FailureKind::Unavailable { .. }
                | FailureKind::Refused
                | FailureKind::Immutable
                | FailureKind::Forbidden
                | FailureKind::Gate
                | FailureKind::Fenced),
            ) => {
                let asked = body_digest(&write.manifest.body);
                self.refuse(write.manifest.object, asked, message, kind, now);
            }
            (
                Pending::Delete(object),
                kind @ (FailureKind::Conflict
                | FailureKind::Exists
                | FailureKind::Unavailable { .. }
                | FailureKind::Refused
                | FailureKind::Immutable
                | FailureKind::Forbidden
                | FailureKind::Gate
                | FailureKind::Fenced),
            ) => self.refuse(object, Digest::of(b""), message, kind, now),
        }
    }

    /// Counts a write that came to nothing for a reason that may pass; says whether too many in a row did.
    fn is_in_vain(&mut self, pending: &Pending, kind: &FailureKind) -> bool {
        let (object, creates) = match pending {
            Pending::Write { write, .. } | Pending::DryRun { write, .. } => {
                (&write.manifest.object, matches!(write.how, How::Create { .. }))
            }
            // What is gone need not be deleted.
            Pending::Delete(object) if *kind != FailureKind::Gone => (object, false),
            Pending::Delete(_) | Pending::Record(_) | Pending::ReadLedger | Pending::Read(_) | Pending::TellGit(_) => {
                return false;
            }
        };
        let may_pass = matches!(
            kind,
            FailureKind::Conflict
                | FailureKind::Exists
                | FailureKind::Gone
                | FailureKind::Unavailable { retry_after: None }
        );
        if !may_pass {
            return false;
        }
        let vain = self.memory.in_vain.entry(object.clone()).or_default();
        let met = creates && *kind == FailureKind::Exists;
        *vain = InVain { times: vain.times.saturating_add(1), met };
        vain.times > IN_VAIN
    }

    fn refuse(&mut self, object: ObjectRef, asked: Digest, why: String, kind: FailureKind, now: Timestamp) {
        let until = now.saturating_add(REFUSED_RETRY).unwrap_or(now);
        self.memory.refused.insert(object, Refusal { asked, why, kind, until });
    }

    fn git_refused(&mut self, tell: &TellGit, message: String, actions: &mut Vec<Action>) {
        let Some(ledger) = &self.ledger else { return };
        let mut record = AgentRecord::clone(&ledger.record);
        if let Some(git) = git_of(&mut record, tell).filter(|git| **git != Told::Refused(message.clone())) {
            *git = Told::Refused(message);
            self.save(record, actions);
        }
    }

    /// The last read or write of the ledger did not come through: look again before anything else.
    fn ledger_again(&mut self) {
        self.memory.ledger_unsure = true;
    }
}

/// Where a record says whether Git was told of this.
fn git_of<'r>(record: &'r mut AgentRecord, tell: &TellGit) -> Option<&'r mut Told> {
    let left = tell.left.release;
    match &tell.by {
        Some(_) => record.hold.as_mut().filter(|hold| hold.left == left).map(|hold| &mut hold.git),
        None => record.quarantine.iter_mut().find(|entry| entry.release == left).map(|entry| &mut entry.git),
    }
}

fn retry_after(kind: &FailureKind) -> Option<u64> {
    match kind {
        FailureKind::Unavailable { retry_after } => *retry_after,
        FailureKind::Conflict
        | FailureKind::Exists
        | FailureKind::Gone
        | FailureKind::Refused
        | FailureKind::Immutable
        | FailureKind::Forbidden
        | FailureKind::Gate
        | FailureKind::Fenced => None,
    }
}

pub(super) fn body_digest(body: &serde_json::Value) -> Digest {
    Digest::of(body.to_string().as_bytes())
}
