//! The machine of one agent: it executes what the environment admitted.

use std::sync::Arc;

use jiff::SignedDuration;

use super::course::{self, Begin, Refused};
use super::state::{AgentState, Ledger, Pending, Refusal};
use super::target::{Situation, Target};
use super::{Action, Announcement, Done, Failure, FailureKind, How, LedgerEntry, Observation, Wanted, Write, rebuild};
use crate::model::{Digest, LiveObject, ObjectRef, Timestamp};
use crate::plan::{Plan, Step, WaitingOn, differences, drift};
use crate::record::{
    AgentRecord, Cause, ConditionKind, FORMAT, Operation, OperationKind, Outcome, Phase, Quarantined, Told,
};
use crate::render::OPERATION_ANNOTATION;

/// Take-backs within [`CONTEST_WINDOW`] after which an object is left alone.
const CONTEST_LIMIT: usize = 3;
/// How long take-backs count.
const CONTEST_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// How long an operation runs before the record says what it waits for.
const SLOW: SignedDuration = SignedDuration::from_secs(10);
/// How long pods of a stable release may be unready before the record says so.
const FLICKER: SignedDuration = SignedDuration::from_secs(3);
/// When a refused object is tried again.
const REFUSED_RETRY: SignedDuration = SignedDuration::from_mins(2);

/// One step of the machine of one agent.
///
/// # Guarantees
///
/// Pure: no clock, no IO; `seed` is the only randomness. At most one effect is outstanding, and a write to the target
/// follows the acknowledged record of its operation. Nothing is asked for twice: in a steady state the answer to every
/// observation is no effect at all.
pub fn step(mut state: AgentState, observation: Observation, now: Timestamp, seed: u64) -> (AgentState, Vec<Action>) {
    let mut actions = vec![];
    match observation {
        Observation::Admitted(admission) => state.learn(&admission),
        Observation::Live(live) => state.see(live, now),
        Observation::Ledger(entry) => state.read_entry(entry, &mut actions),
        Observation::Done(done) => state.end_effect(done, now, seed, &mut actions),
        Observation::Woken => state.woken_at = None,
    }
    state.expire(now);
    if state.pending.is_none() && state.fenced.is_none() && !state.config.observe {
        state.decide(now, &mut actions);
    }
    state.wake(now, &mut actions);
    (state, actions)
}

// === what was learned ===

impl AgentState {
    fn read_entry(&mut self, entry: LedgerEntry, actions: &mut Vec<Action>) {
        let asked = matches!(self.pending, Some(Pending::ReadLedger));
        let known = self.ledger.as_ref().and_then(|ledger| ledger.version.clone());
        match entry {
            LedgerEntry::Present { record, requests, generation, version } => {
                let stale = known.is_some_and(|known| known != version && known.is_at_least(&version));
                if stale && !asked {
                    return;
                }
                let blank = record.format == 0;
                let mut record = *record;
                record.observed_generation = Some(generation);
                self.ledger = Some(Ledger { record, requests, version: Some(version), blank });
            }
            // A list that is older than our own creation does not know it: only a fresh read counts.
            LedgerEntry::Absent if known.is_some() && !asked => {
                if self.pending.is_none() {
                    self.send(Pending::ReadLedger, Action::ReadLedger, actions);
                }
                return;
            }
            LedgerEntry::Absent => {
                let (record, requests) = Default::default();
                self.ledger = Some(Ledger { record, requests, version: None, blank: true });
            }
        }
        if asked {
            self.pending = None;
        }
    }

    fn end_effect(&mut self, done: Done, now: Timestamp, seed: u64, actions: &mut Vec<Action>) {
        let Some(pending) = self.pending.take() else { return };
        match (pending, done) {
            (pending, Done::Failed(failure)) => self.failed(pending, failure, now, seed, actions),
            (Pending::Record(record), Done::Recorded(version)) => {
                self.backoff.clear();
                if let Some(ledger) = &mut self.ledger {
                    ledger.record = *record;
                    ledger.version = Some(version);
                    ledger.blank = false;
                }
            }
            (Pending::Write { write, heal }, Done::Written(live)) => self.written(&write, heal, live, now, actions),
            (Pending::DryRun { write, asked }, Done::WouldBe(would_be)) => {
                self.backoff.clear();
                self.asked(write, asked, &would_be, actions);
            }
            (Pending::Delete(object), Done::Deleted(_)) => {
                self.backoff.clear();
                self.note(&object, None, now);
            }
            (Pending::Read(object), Done::Seen(_, live)) => {
                self.backoff.clear();
                self.note(&object, live, now);
            }
            (Pending::TellGit(_), Done::Told(commit)) => self.told(commit, actions),
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
            self.memory.accepted.insert(object.clone(), differences(&left));
        }
        self.memory.refused.remove(&object);
        if heal {
            let heals = self.memory.heals.entry(object.clone()).or_default();
            heals.push(now);
            if let Some(ledger) = &mut self.ledger {
                ledger.record.drift_healed += 1;
            }
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

    fn told(&mut self, commit: Option<String>, actions: &mut Vec<Action>) {
        self.backoff.clear();
        let Some(ledger) = &mut self.ledger else { return };
        let mut record = ledger.record.clone();
        if let Some(hold) = &mut record.hold {
            let commit = commit.unwrap_or_else(|| "the tip already says so".to_owned());
            let message = format!("Git is told of the rollback from {}: {commit}", hold.left);
            hold.git = Told::Commit(commit);
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
        match (pending, kind) {
            (
                Pending::Record(_) | Pending::ReadLedger,
                FailureKind::Conflict | FailureKind::Exists | FailureKind::Gone,
            ) => {
                self.send(Pending::ReadLedger, Action::ReadLedger, actions);
            }
            (Pending::Record(_) | Pending::ReadLedger, kind) => {
                self.backoff.fail(&message, retry_after(&kind), now, seed);
                self.ledger_again();
            }
            (Pending::TellGit(_), kind) => {
                self.backoff.fail(&message, retry_after(&kind), now, seed);
                self.git_refused(message, actions);
            }
            (Pending::Read(_), kind) => self.backoff.fail(&message, retry_after(&kind), now, seed),
            (
                Pending::Write { write, .. } | Pending::DryRun { write, .. },
                FailureKind::Conflict | FailureKind::Exists,
            ) => {
                let (pending, action) = read(&write.manifest.object);
                self.send(pending, action, actions);
            }
            (Pending::Delete(object), FailureKind::Conflict | FailureKind::Exists) => {
                let (pending, action) = read(&object);
                self.send(pending, action, actions);
            }
            (Pending::Write { write, .. } | Pending::DryRun { write, .. }, FailureKind::Gone) => {
                self.note(&write.manifest.object, None, now);
            }
            (Pending::Delete(object), FailureKind::Gone) => self.note(&object, None, now),
            // It may have happened: a fresh look comes before the next try.
            (
                Pending::Write { write, .. } | Pending::DryRun { write, .. },
                FailureKind::Unavailable { retry_after },
            ) => {
                self.backoff.fail(&message, retry_after, now, seed);
                self.memory.unsure.push(write.manifest.object);
            }
            (Pending::Delete(object), FailureKind::Unavailable { retry_after }) => {
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
                kind @ (FailureKind::Refused
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
                kind @ (FailureKind::Refused
                | FailureKind::Immutable
                | FailureKind::Forbidden
                | FailureKind::Gate
                | FailureKind::Fenced),
            ) => self.refuse(object, Digest::of(b""), message, kind, now),
        }
    }

    fn refuse(&mut self, object: ObjectRef, asked: Digest, why: String, kind: FailureKind, now: Timestamp) {
        let until = now.saturating_add(REFUSED_RETRY).unwrap_or(now);
        self.memory.refused.insert(object, Refusal { asked, why, kind, until });
    }

    fn git_refused(&mut self, message: String, actions: &mut Vec<Action>) {
        let Some(ledger) = &self.ledger else { return };
        let mut record = ledger.record.clone();
        if let Some(hold) = record.hold.as_mut().filter(|hold| hold.git != Told::Refused(message.clone())) {
            hold.git = Told::Refused(message);
            self.save(record, actions);
        }
    }

    /// The last read or write of the ledger did not come through: look again before anything else.
    fn ledger_again(&mut self) {
        self.memory.ledger_unsure = true;
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

// === what to do ===

impl AgentState {
    fn decide(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.backoff.holds(now) || self.ledger.is_none() {
            return;
        }
        if std::mem::take(&mut self.memory.ledger_unsure) {
            return self.send(Pending::ReadLedger, Action::ReadLedger, actions);
        }
        if let Some(object) = self.memory.unsure.pop() {
            return self.send(Pending::Read(object.clone()), Action::Read(object), actions);
        }
        let Some(ledger) = self.ledger.clone() else { return };
        if !ledger.record.is_writable() {
            let message = format!(
                "the record is of format {}, this version writes {FORMAT}: only reading, until Backstay is upgraded",
                ledger.record.format
            );
            self.fenced = Some(message.clone());
            actions.push(Action::Announce(self.announcement(true, "NewerRecord", message)));
            return;
        }
        if ledger.requests.suspended().is_some() {
            let mut record = ledger.record.clone();
            Situation::Suspended(&ledger.requests).tell(&mut record, now);
            return self.save_if_changed(record, actions);
        }
        if !self.live.synced {
            return;
        }
        if ledger.blank {
            if let Some(record) = rebuild::from_what_runs(self, now) {
                let message = "the ledger was lost and is made anew from what runs: `backstay retry` confirms it";
                actions.push(Action::Announce(self.announcement(true, "LedgerRebuilt", message.to_owned())));
                return self.save(record, actions);
            }
        }
        if self.handle_requests(&ledger, now, actions) {
            return;
        }
        let Some(admission) = self.admission.clone() else {
            // Git has not spoken yet: an operation that is open goes on, if the ledger and what runs suffice for it.
            return self.go_on(&ledger.record, None, now, actions);
        };
        let (begin, refused) = course::wanted(self, &admission, &ledger.record, now);
        match (&ledger.record.operation, begin) {
            (Some(open), begin) if course::still_wanted(open, &ledger.record, &admission, begin.as_ref()) => {
                self.go_on(&ledger.record, refused.as_ref(), now, actions);
            }
            (_, Some(begin)) => self.begin(&ledger.record, begin, now, actions),
            (Some(_), None) => {
                let mut record = ledger.record.clone();
                record.finish(Outcome::Superseded, now);
                record.candidate = None;
                self.save(record, actions);
            }
            (None, None) => self.go_on(&ledger.record, refused.as_ref(), now, actions),
        }
    }

    /// Requests of people, and consents that lift a quarantine. Says whether something was begun.
    fn handle_requests(&mut self, ledger: &Ledger, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let new = |kind: &str, id: &str| ledger.record.handled.get(kind).is_none_or(|handled| handled != id);
        let mut record = ledger.record.clone();
        if let Some(asked) = ledger.requests.rollback.as_ref().filter(|asked| new("rollback", &asked.request.id)) {
            record.handled.insert("rollback".to_owned(), asked.request.id.clone());
            match course::rollback(asked, &record, now) {
                Ok((begin, hold)) => {
                    record.hold = hold.or(record.hold);
                    self.begin(&record, begin, now, actions);
                }
                Err(why) => {
                    let message = format!("the rollback that {} asked for cannot be done: {why}", asked.request.by);
                    record.handled.insert("rollback/refused".to_owned(), why);
                    actions.push(Action::Announce(self.announcement(true, "RollbackRefused", message)));
                    self.save(record, actions);
                }
            }
            return true;
        }
        if let Some(asked) = ledger.requests.retry.as_ref().filter(|asked| new("retry", &asked.request.id)) {
            record.handled.insert("retry".to_owned(), asked.request.id.clone());
            let names = |short: &str, whole: String| {
                asked.release.as_ref().is_none_or(|release| release == short || *release == whole)
            };
            record.quarantine.retain(|entry| !names(&entry.release.short(), entry.release.digest().to_string()));
            record.hold = record.hold.filter(|hold| !names(&hold.left.short(), hold.left.digest().to_string()));
            record.unconfirmed = false;
            self.memory.refused.clear();
            self.memory.new_operation();
            let message = format!("{} lets it try again", asked.request.by);
            actions.push(Action::Announce(self.announcement(false, "Retry", message)));
            self.save(record, actions);
            return true;
        }
        let retries = self.admission.as_deref().map(|admission| course::consented_retries(admission, &record));
        if let Some(retries) = retries.filter(|retries| !retries.is_empty()) {
            record.quarantine.retain(|entry| !retries.contains(&entry.release));
            actions.push(Action::Announce(self.announcement(false, "Retry", "a consent lets it try again".to_owned())));
            self.save(record, actions);
            return true;
        }
        false
    }

    fn begin(&mut self, record: &AgentRecord, begin: Begin, now: Timestamp, actions: &mut Vec<Action>) {
        self.memory.new_operation();
        let mut record = record.clone();
        if let Some(hold) = &record.hold {
            // Git asks for another release than the one that was left: the hold has done its work.
            let left = begin.to.as_ref().is_some_and(|to| to.release == hold.left);
            let by_git = !matches!(begin.cause, Cause::Rollback { .. } | Cause::Failed { .. });
            if by_git && begin.kind == OperationKind::Release && !left {
                record.hold = None;
            }
        }
        let kind = begin.kind;
        let text = match (kind, &begin.to) {
            (OperationKind::Removal, _) | (_, None) => format!("removal begins ({})", begin.cause),
            (OperationKind::Settings, Some(to)) => format!("settings of {} change ({})", to.release, begin.cause),
            (OperationKind::Release, Some(to)) => format!("{} is on its way ({})", to.release, begin.cause),
        };
        course::open(&mut record, begin, now);
        Situation::Progressing { waiting: &[], stalled: None }.tell(&mut record, now);
        let announcement = Announcement {
            warning: false,
            reason: "Started",
            message: text,
            operation: record.operation.as_ref().map(|operation| operation.id),
        };
        actions.push(Action::Announce(announcement));
        self.save(record, actions);
    }

    /// Carries out the open operation, or heals what stands.
    fn go_on(&mut self, record: &AgentRecord, refused: Option<&Refused>, now: Timestamp, actions: &mut Vec<Action>) {
        let target = match Target::of(self, record) {
            Ok(Some(target)) => target,
            Ok(None) => return self.rest(record, refused, now, actions),
            // Before Git has spoken, the content may just not be known yet.
            Err(_) if self.admission.is_none() => return,
            Err(why) => {
                let mut record = record.clone();
                let asked = self.desired_release().is_some();
                course::differ(&mut record, refused, asked, now);
                Situation::Stalled { word: "CannotRender", why: &why }.tell(&mut record, now);
                return self.save_if_changed(record, actions);
            }
        };
        let health = target.health(self, now);
        let plan = target.plan(self, record, &health);
        let errors: Vec<_> = plan.errors().collect();
        if !errors.is_empty() {
            let why = errors.join("; ");
            let mut record = record.clone();
            Situation::Stalled { word: "PlanRefused", why: &why }.tell(&mut record, now);
            return self.save_if_changed(record, actions);
        }
        match &record.operation {
            Some(open) => self.carry_out(&target, &plan, &health, record, open, now, actions),
            None => self.heal(&target, &plan, &health, record, refused, now, actions),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the whole situation of one decision")]
    fn carry_out(
        &mut self,
        target: &Target,
        plan: &Plan,
        health: &crate::judge::AgentHealth,
        record: &AgentRecord,
        open: &Operation,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        if let Some(step) = plan.steps.first() {
            return self.effect(step, open.id, actions);
        }
        if plan.waiting.is_empty() {
            if let Some(object) = self.missed(target, record) {
                return self.send(Pending::Read(object.clone()), Action::Read(object), actions);
            }
            return self.finish(target, record, open, now, actions);
        }
        let mut record = record.clone();
        let deadline = target.deadline(open);
        let waits_for_health = plan.waiting.iter().any(|waiting| matches!(waiting, WaitingOn::Healthy(_)));
        let mut stalled = None;
        if waits_for_health && deadline.is_some_and(|deadline| deadline <= now) {
            let own = health.findings.iter().find(|finding| finding.fault == crate::judge::Fault::Release);
            match own {
                Some(finding) if open.kind == OperationKind::Release && !open.cause.goes_back() => {
                    return self.give_up(target, &finding.sentence, &record, now, actions);
                }
                Some(finding) => stalled = Some(finding.sentence.clone()),
                None => {
                    let why = health.findings.first().map_or_else(
                        || "the deadline has passed, and nothing says why it is not ready".to_owned(),
                        |finding| finding.sentence.clone(),
                    );
                    stalled = Some(why);
                }
            }
        } else if waits_for_health {
            self.wake_at(deadline);
        }
        // A wait for health that is short and ordinary is not worth a write to the ledger.
        let slow = open.started.saturating_add(SLOW).unwrap_or(now);
        let ordinary = stalled.is_none() && plan.waiting.iter().all(|waiting| matches!(waiting, WaitingOn::Healthy(_)));
        if ordinary && now < slow && record.condition(ConditionKind::Stalled).is_none() {
            return self.wake_at(Some(slow));
        }
        Situation::Progressing { waiting: &plan.waiting, stalled: stalled.as_deref() }.tell(&mut record, now);
        self.save_if_changed(record, actions);
    }

    /// The release failed by its own fault: back to the last stable one, at once.
    fn give_up(&mut self, target: &Target, why: &str, record: &AgentRecord, now: Timestamp, actions: &mut Vec<Action>) {
        let mut record = record.clone();
        let Some(candidate) = record.candidate.take() else { return };
        record.quarantine.retain(|entry| entry.release != candidate.release);
        let failed = Quarantined { release: candidate.release, since: now, reason: why.to_owned() };
        record.quarantine.insert(0, failed);
        self.collect_inventory(target, &mut record);
        record.finish(Outcome::Failed(why.to_owned()), now);
        let message = format!("{} failed and is quarantined: {why}", candidate.release);
        actions.push(Action::Announce(self.announcement(true, "Failed", message)));
        let refused = Refused { desired: candidate.release, why: format!("{} failed here: {why}", candidate.release) };
        course::differ(&mut record, Some(&refused), true, now);
        match record.stable.clone() {
            Some(stable) => {
                let to = crate::record::Standing { since: now, ..stable };
                let cause = Cause::Failed { why: why.to_owned() };
                self.begin(&record, Begin { kind: OperationKind::Release, cause, to: Some(to) }, now, actions);
            }
            None => {
                Situation::Failed { why }.tell(&mut record, now);
                self.save(record, actions);
            }
        }
    }

    /// All of it is done and healthy.
    fn finish(
        &mut self,
        target: &Target,
        record: &AgentRecord,
        open: &Operation,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let mut record = record.clone();
        let left = record.stable.clone();
        let message = match open.kind {
            OperationKind::Removal => {
                record.phase = Phase::Removed;
                if let Some(stable) = record.stable.take() {
                    course::remember(&mut record, stable);
                }
                record.inventory.0.retain(|object, _| target.leaves.get(object) == Some(&false));
                record.hold = None;
                format!("removed ({})", open.cause)
            }
            OperationKind::Settings | OperationKind::Release => {
                let Some(mut to) = record.candidate.take() else { return };
                if let Some(stable) = left.clone().filter(|stable| stable.release == to.release) {
                    to.since = stable.since;
                } else {
                    to.since = now;
                }
                if let Some(left) = left.filter(|left| left.release != to.release) {
                    course::remember(&mut record, left);
                }
                record.history.retain(|standing| standing.release != to.release);
                let message = format!("{} is stable ({})", to.release, open.cause);
                record.stable = Some(to);
                self.collect_inventory(target, &mut record);
                message
            }
        };
        record.finish(Outcome::Succeeded, now);
        let agrees = |id| self.desires(id);
        if record.stable.as_ref().is_none_or(|stable| agrees(stable.release)) {
            record.differs = None;
        }
        record.bound(target.history(), self.desired_release());
        match open.kind {
            OperationKind::Removal => Situation::Removed.tell(&mut record, now),
            OperationKind::Settings | OperationKind::Release => {
                Situation::Ready { contested: None, blocked: &[] }.tell(&mut record, now);
            }
        }
        let reason = match (&open.cause, open.kind) {
            (_, OperationKind::Removal) => "Removed",
            (Cause::Revert { .. }, _) => "Reverted",
            (Cause::Rollback { .. } | Cause::Failed { .. }, _) => "RolledBack",
            (_, OperationKind::Settings) => "SettingsApplied",
            (_, OperationKind::Release) => "Deployed",
        };
        let announcement = Announcement { warning: false, reason, message, operation: Some(open.id) };
        actions.push(Action::Announce(announcement));
        self.memory.new_operation();
        self.save(record, actions);
    }

    /// Nothing is open: drift is healed at once, and the record says how things stand.
    #[expect(clippy::too_many_arguments, reason = "the whole situation of one decision")]
    fn heal(
        &mut self,
        target: &Target,
        plan: &Plan,
        health: &crate::judge::AgentHealth,
        record: &AgentRecord,
        refused: Option<&Refused>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let newest = record.operations.first().map_or(crate::record::OperationId(0), |operation| operation.id);
        for step in &plan.steps {
            let object = step.object();
            if self.memory.contested.contains_key(object) {
                continue;
            }
            if let Step::Update { manifest, uid, version, changes, .. } = step {
                let heals = self.memory.heals.get(object).map_or(&[][..], Vec::as_slice);
                let recent = heals.iter().filter(|at| now.duration_since(**at) < CONTEST_WINDOW).count();
                if recent >= CONTEST_LIMIT {
                    // Only a fresh read has the managers that say who it was.
                    if self
                        .live
                        .objects
                        .get(object)
                        .is_some_and(|live| live.body.pointer("/metadata/managedFields").is_none())
                        && self.memory.asked_who.insert(object.clone())
                    {
                        return self.send(Pending::Read(object.clone()), Action::Read(object.clone()), actions);
                    }
                    let fields: Vec<_> = changes.iter().map(|change| change.path.to_string()).collect();
                    let who = target.who_writes(self, object);
                    let why = format!("{who} keeps changing {} of {object}", fields.join(", "));
                    actions.push(Action::Announce(self.announcement(true, "Contested", why.clone())));
                    self.memory.contested.insert(object.clone(), why);
                    continue;
                }
                let how = How::Apply { uid: uid.clone(), version: version.clone(), drops_fields: false };
                let write = Write { manifest: manifest.clone(), how };
                let pending = Pending::DryRun { write: write.clone(), asked: differences(changes) };
                return self.send(pending, Action::DryRun(write), actions);
            }
            return self.effect(step, newest, actions);
        }
        if let Some(object) = self.missed(target, record) {
            return self.send(Pending::Read(object.clone()), Action::Read(object), actions);
        }
        let mut next = record.clone();
        self.collect_inventory(target, &mut next);
        course::differ(&mut next, refused, self.desired_release().is_some(), now);
        let unhealthy = plan.waiting.iter().any(|waiting| matches!(waiting, WaitingOn::Healthy(_)));
        let since = *self.memory.unhealthy_since.get_or_insert(now);
        let settled = since.saturating_add(FLICKER).unwrap_or(now);
        if !unhealthy {
            self.memory.unhealthy_since = None;
        } else if now < settled {
            return self.wake_at(Some(settled));
        }
        let contested: Vec<_> = self.memory.contested.values().cloned().collect();
        let contested = (!contested.is_empty()).then(|| contested.join("; "));
        self.tell_standing(&mut next, plan, health, contested.as_deref(), now);
        // The record says first that Git asks for something else: telling it may take long.
        if next == *record && self.tell_git(&next, actions) {
            return;
        }
        self.save_if_changed(next, actions);
    }

    fn tell_standing(
        &self,
        record: &mut AgentRecord,
        plan: &Plan,
        health: &crate::judge::AgentHealth,
        contested: Option<&str>,
        now: Timestamp,
    ) {
        let keep = match self.admission.as_deref().map(|admission| &admission.wanted) {
            Some(Wanted::Keep(reason)) => Some(reason),
            Some(Wanted::Run(_) | Wanted::Remove) | None => None,
        };
        let unhealthy = plan.waiting.iter().any(|waiting| matches!(waiting, WaitingOn::Healthy(_)));
        let blocked: Vec<_> =
            plan.waiting.iter().filter(|waiting| !matches!(waiting, WaitingOn::Healthy(_))).cloned().collect();
        if unhealthy {
            let why = health.findings.first().map_or("not all pods are ready", |finding| &finding.sentence);
            Situation::Unhealthy { why, contested }.tell(record, now);
        } else {
            Situation::Ready { contested, blocked: &blocked }.tell(record, now);
        }
        if let Some(reason) = keep {
            Situation::Kept(reason).tell(record, now);
        }
    }

    /// Nothing runs and nothing is open.
    fn rest(&mut self, record: &AgentRecord, refused: Option<&Refused>, now: Timestamp, actions: &mut Vec<Action>) {
        let mut next = record.clone();
        course::differ(&mut next, refused, self.desired_release().is_some(), now);
        match self.admission.as_deref().map(|admission| &admission.wanted) {
            Some(Wanted::Keep(reason)) => Situation::Kept(reason).tell(&mut next, now),
            Some(Wanted::Run(_) | Wanted::Remove) | None => {}
        }
        // An agent that never ran leaves no record of a bad first commit but this.
        if record.format > 0 || matches!(self.admission.as_deref().map(|a| &a.wanted), Some(Wanted::Keep(_))) {
            next.format = FORMAT;
            self.save_if_changed(next, actions);
        }
    }

    /// Git is told of a rollback once the target has moved.
    fn tell_git(&mut self, record: &AgentRecord, actions: &mut Vec<Action>) -> bool {
        let (Some(hold), Some(stable), Some(admission)) = (&record.hold, &record.stable, self.admission.as_deref())
        else {
            return false;
        };
        let due = matches!(hold.git, Told::Pending | Told::Refused(_));
        let Some(left) = record.history.iter().find(|standing| standing.release == hold.left) else { return false };
        if !due || !self.desires(hold.left) {
            return false;
        }
        let reason = record.operations.iter().find_map(|operation| match &operation.cause {
            Cause::Rollback { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        let tell = super::TellGit {
            agent: self.agent.clone(),
            left: left.clone(),
            back_to: stable.clone(),
            by: hold.by.clone(),
            reason: reason.unwrap_or_default(),
            write_back: admission.write_back,
        };
        self.send(Pending::TellGit(tell.clone()), Action::TellGit(tell), actions);
        true
    }
}

// === small parts ===

impl AgentState {
    fn effect(&mut self, step: &Step, operation: crate::record::OperationId, actions: &mut Vec<Action>) {
        let write = |manifest: &crate::model::Manifest, how| Write { manifest: manifest.clone(), how };
        let write = match step {
            Step::Create { manifest } => write(manifest, How::Create { operation }),
            Step::Update { manifest, uid, version, drops_fields, .. } => {
                let (uid, version) = (uid.clone(), version.clone());
                write(manifest, How::Apply { uid, version, drops_fields: *drops_fields })
            }
            Step::Adopt { manifest, uid, version, .. } => {
                // Until the inventory is recorded, the mark of the operation says whose it is.
                let mut body = (*manifest.body).clone();
                body["metadata"]["annotations"][OPERATION_ANNOTATION] = format!("{}/{operation}", self.agent).into();
                let manifest = &crate::model::Manifest { body: Arc::new(body), ..manifest.clone() };
                write(manifest, How::Adopt { uid: uid.clone(), version: version.clone() })
            }
            Step::Handover { manifest, uid, version } => {
                write(manifest, How::Handover { uid: uid.clone(), version: version.clone() })
            }
            Step::Prune { object, uid, version, .. } => {
                let (object, uid, version) = (object.clone(), uid.clone(), version.clone());
                return self.send(Pending::Delete(object.clone()), Action::Delete { object, uid, version }, actions);
            }
        };
        self.send(Pending::Write { write: write.clone(), heal: false }, Action::Write(write), actions);
    }

    fn send(&mut self, pending: Pending, action: Action, actions: &mut Vec<Action>) {
        self.pending = Some(pending);
        actions.push(action);
    }

    fn save(&mut self, record: AgentRecord, actions: &mut Vec<Action>) {
        let expected = self.ledger.as_ref().and_then(|ledger| ledger.version.clone());
        let action = Action::Record { expected, record: Box::new(record.clone()) };
        self.send(Pending::Record(Box::new(record)), action, actions);
    }

    fn save_if_changed(&mut self, record: AgentRecord, actions: &mut Vec<Action>) {
        if self.record() != Some(&record) {
            self.save(record, actions);
        }
    }

    fn announcement(&self, warning: bool, reason: &'static str, message: String) -> Announcement {
        let open = self.record().and_then(|record| record.operation.as_ref());
        Announcement { warning, reason, message, operation: open.map(|operation| operation.id) }
    }

    /// The release that Git asks for, if it asks for one.
    pub(super) fn desired_release(&self) -> Option<crate::model::ReleaseId> {
        match &self.admission.as_deref()?.wanted {
            Wanted::Run(desired) => Some(desired.release.id),
            Wanted::Remove | Wanted::Keep(_) => None,
        }
    }

    fn desires(&self, id: crate::model::ReleaseId) -> bool {
        self.desired_release() == Some(id)
    }

    fn wake_at(&mut self, at: Option<Timestamp>) {
        self.memory.alarm = match (self.memory.alarm, at) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
    }

    fn wake(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let alarm = self.memory.alarm.take();
        let refused = self.memory.refused.values().map(|refusal| refusal.until).min();
        let due = [alarm, refused, self.backoff.until.filter(|until| *until > now), self.overlay_ends()];
        let next = due.into_iter().flatten().filter(|at| *at > now).min();
        if next.is_some() && next != self.woken_at {
            self.woken_at = next;
            actions.extend(next.map(Action::Wake));
        }
    }
}
