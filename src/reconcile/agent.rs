//! The machine of one agent: it executes what the environment admitted.

use std::sync::Arc;

use super::course::{self, Begin};
use super::state::{AgentState, Ledger, Pending};
use super::target::{Situation, Target};
use super::{Action, Announcement, Observation, Wanted, rebuild};
use crate::model::{ReleaseId, Timestamp};
use crate::record::{AgentRecord, Cause, FORMAT, OperationKind, Outcome};

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
        Observation::Ledger(entry) => state.read_entry(entry),
        Observation::Done(done) => state.end_effect(done, now, seed, &mut actions),
        Observation::Woken => state.woken_at = None,
        Observation::Measured(measured) => {
            if let Some(judging) = &mut state.judging {
                judging.take(*measured, now);
            }
        }
        Observation::Smoked(release, answer) => state.smoked = Some((release, answer)),
        Observation::Gate(question, answer) => {
            state.memory.gate_asked = state.memory.gate_asked.map(|(asked, _)| (asked, false));
            state.gate_said = Some((question, answer));
        }
    }
    state.expire(now);
    if state.pending.is_none() && state.fenced.is_none() && !state.config.observe {
        state.decide(now, &mut actions);
    }
    state.wake(now, &mut actions);
    (state, actions)
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
            let mut record = AgentRecord::clone(&ledger.record);
            Situation::Suspended(&ledger.requests).tell(&mut record, now);
            return self.save_if_changed(record, actions);
        }
        if !self.live.synced {
            return;
        }
        if ledger.blank
            && let Some(record) = rebuild::from_what_runs(self, now)
        {
            let message = "the ledger was lost and is made anew from what runs: `backstay retry` confirms it";
            actions.push(Action::Announce(self.announcement(true, "LedgerRebuilt", message.to_owned())));
            return self.save(record, actions);
        }
        if self.handle_requests(&ledger, now, actions) {
            return;
        }
        if ledger.record.rollout.is_some() && !self.is_removed() {
            return self.roll(&ledger, now, actions);
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
                let mut record = AgentRecord::clone(&ledger.record);
                record.finish(Outcome::Superseded, now);
                record.candidate = None;
                self.save(record, actions);
            }
            (None, None) => {
                let mut record = AgentRecord::clone(&ledger.record);
                let asked = self
                    .desired_release()
                    .filter(|asked| record.stable.as_ref().is_some_and(|stable| stable.release == *asked));
                // Git asks for what stands: the hold has done its work, and who asks for the other one again gets it.
                record.hold = record.hold.filter(|hold| asked.is_none_or(|asked| asked == hold.left));
                self.go_on(&record, refused.as_ref(), now, actions);
            }
        }
    }

    /// Requests of people, and consents that lift a quarantine. Says whether something was begun.
    fn handle_requests(&mut self, ledger: &Ledger, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let new = |kind: &str, id: &str| ledger.record.handled.get(kind).is_none_or(|handled| handled != id);
        let mut record = AgentRecord::clone(&ledger.record);
        if self.refuse_idle_deeds(ledger, &mut record, actions) {
            return true;
        }
        let asked = ledger.requests.rollback.as_ref().filter(|asked| new("rollback", &asked.request.id));
        if let Some(asked) = asked.filter(|_| !self.heeds_rollbacks(&record)) {
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
            if let Some(newest) = record.operations.first() {
                record.handled.insert(course::RETRIED_AFTER.to_owned(), newest.id.to_string());
            }
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

    pub(super) fn begin(&mut self, record: &AgentRecord, begin: Begin, now: Timestamp, actions: &mut Vec<Action>) {
        self.memory.new_operation();
        let mut record = record.clone();
        // What the operation that ends here has made is ours, whether or not the next one asks for it.
        if record.operation.is_some() {
            let target = Target::of(self, &record).ok().flatten();
            self.collect_inventory(&target.unwrap_or_else(|| Target::nothing(self)), &mut record);
        }
        if let Some(hold) = &record.hold {
            // Git asks for another release than the one that was left: the hold has done its work.
            let left = begin.to.as_ref().is_some_and(|to| to.release == hold.left);
            let by_git = !matches!(begin.cause, Cause::Rollback { .. } | Cause::Failed { .. });
            if by_git && begin.kind == OperationKind::Release && !left {
                record.hold = None;
            }
        }
        let begin = self.with_its_set(begin, &record);
        let kind = begin.kind;
        let text = match (kind, &begin.to) {
            (OperationKind::Removal, _) | (_, None) => format!("removal begins ({})", begin.cause),
            (OperationKind::Settings, Some(to)) => format!("settings of {} change ({})", to.release, begin.cause),
            (OperationKind::Release, Some(to)) => format!("{} is on its way ({})", to.release, begin.cause),
        };
        course::open(&mut record, begin, now);
        self.open_rollout(&mut record, now);
        // What it makes is ours by name before it stands: who restarts may not be able to render it any more.
        if let Ok(Some(target)) = Target::of(self, &record) {
            self.set_out(&target, &mut record);
        }
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
}

// === small parts ===

impl AgentState {
    /// Sends an effect on its way.
    ///
    /// The first list of the ledger after a start may be old: before anything is changed by it, it is read past all
    /// caches, unless a record of our own was acknowledged since.
    pub(super) fn send(&mut self, pending: Pending, action: Action, actions: &mut Vec<Action>) {
        let changes = match &pending {
            Pending::Write { .. } | Pending::DryRun { .. } | Pending::Delete(_) | Pending::TellGit(_) => true,
            Pending::Record(_) | Pending::Read(_) | Pending::ReadLedger => false,
        };
        if changes && !self.ledger_confirmed {
            self.pending = Some(Pending::ReadLedger);
            actions.push(Action::ReadLedger);
            return;
        }
        self.pending = Some(pending);
        actions.push(action);
    }

    pub(super) fn save(&mut self, mut record: AgentRecord, actions: &mut Vec<Action>) {
        record.drift_healed += std::mem::take(&mut self.memory.untold);
        if record.format > 0 {
            record.format = record.format.max(record.least_format());
        }
        let expected = self.ledger.as_ref().and_then(|ledger| ledger.version.clone());
        let record = Arc::new(record);
        let action = Action::Record { expected, record: Arc::clone(&record) };
        self.send(Pending::Record(record), action, actions);
    }

    pub(super) fn save_if_changed(&mut self, record: AgentRecord, actions: &mut Vec<Action>) {
        if self.memory.untold > 0 || self.record().is_none_or(|held| **held != record) {
            self.save(record, actions);
        }
    }

    pub(super) fn announcement(&self, warning: bool, reason: &'static str, message: String) -> Announcement {
        let open = self.record().and_then(|record| record.operation.as_ref());
        Announcement { warning, reason, message, operation: open.map(|operation| operation.id) }
    }

    /// The release that Git asks for, if it asks for one.
    pub(super) fn desired_release(&self) -> Option<ReleaseId> {
        match &self.admission.as_deref()?.wanted {
            Wanted::Run(desired) => Some(desired.release.id),
            Wanted::Remove | Wanted::Keep(_) => None,
        }
    }

    /// Git no longer asks for it.
    fn is_removed(&self) -> bool {
        self.admission.as_deref().is_some_and(|admission| admission.wanted == Wanted::Remove)
    }

    pub(super) fn desires(&self, id: ReleaseId) -> bool {
        self.desired_release() == Some(id)
    }

    pub(super) fn wake_at(&mut self, at: Option<Timestamp>) {
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
        self.wants = next;
        if next.is_some() && next != self.woken_at {
            self.woken_at = next;
            actions.extend(next.map(Action::Wake));
        }
    }
}
