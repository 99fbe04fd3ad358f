//! Carrying out an operation to its end, and keeping what stands as it shall be.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::course::{self, Begin, Refused};
use super::state::{AgentState, Pending};
use super::target::{Situation, Target};
use super::{Action, Announcement, How, Wanted, Write};
use crate::judge::{AgentHealth, Fault, Health};
use crate::model::{Manifest, Timestamp};
use crate::plan::{Plan, Step, WaitingOn, differences};
use crate::record::{
    AgentRecord, Cause, Condition, ConditionKind, FORMAT, Operation, OperationId, OperationKind, Outcome, Phase,
    Quarantined, Standing,
};
use crate::render::OPERATION_ANNOTATION;

/// Take-backs within [`CONTEST_WINDOW`] after which an object is left alone.
const CONTEST_LIMIT: usize = 3;
/// How long take-backs count.
const CONTEST_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// How long an operation runs before the record says what it waits for.
const SLOW: SignedDuration = SignedDuration::from_secs(30);
/// How long pods of a stable release may be unready before the record says so.
const FLICKER: SignedDuration = SignedDuration::from_secs(3);

impl AgentState {
    /// Carries out the open operation, or heals what stands.
    pub(super) fn go_on(
        &mut self,
        record: &AgentRecord,
        refused: Option<&Refused>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
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
        health: &AgentHealth,
        record: &AgentRecord,
        open: &Operation,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        // Only Git knows what another agent takes over of an agent that goes.
        if open.kind == OperationKind::Removal && self.admission.is_none() {
            return;
        }
        if let Some(step) = plan.steps.first() {
            if matches!(step, Step::Create { .. }) && !record.making.contains(step.object()) {
                // It was not known by name when the operation began, or somebody deleted it since.
                let mut record = record.clone();
                self.set_out(target, &mut record);
                return self.save(record, actions);
            }
            return self.effect(step, open.id, actions);
        }
        if plan.waiting.is_empty() {
            if let Some(object) = self.missed(target, record) {
                return self.send(Pending::Read(object.clone()), Action::Read(object), actions);
            }
            if open.kind == OperationKind::Removal {
                // What an earlier operation made, and nobody saw until now, goes as well.
                let mut found = record.clone();
                self.collect_inventory(target, &mut found);
                if found.inventory.0.keys().any(|object| !record.inventory.0.contains_key(object)) {
                    return self.save(found, actions);
                }
            }
            return self.finish(target, record, open, now, actions);
        }
        let mut record = record.clone();
        let deadline = target.deadline(open);
        let waits_for_health = plan.waiting.iter().any(|waiting| matches!(waiting, WaitingOn::Healthy(_)));
        let mut stalled = None;
        if waits_for_health && deadline.is_some_and(|deadline| deadline <= now) {
            let own = health.findings.iter().find(|finding| finding.fault == Fault::Release);
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
        let failed = Quarantined::new(candidate.release, now, why);
        record.quarantine.insert(0, failed);
        self.collect_inventory(target, &mut record);
        record.finish(Outcome::Failed(why.to_owned()), now);
        let message = format!("{} failed and is quarantined: {why}", candidate.release);
        actions.push(Action::Announce(self.announcement(true, "Failed", message)));
        let refused = Refused { desired: candidate.release, why: format!("{} failed here: {why}", candidate.release) };
        course::differ(&mut record, Some(&refused), true, now);
        match record.stable.clone() {
            Some(stable) => {
                let to = Standing { since: now, ..stable };
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
    pub(super) fn finish(
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
                record.settings = None;
                if let Some(stable) = record.stable.take() {
                    course::remember(&mut record, stable);
                }
                record.inventory.0.retain(|object, _| target.leaves.get(object) == Some(&false));
                record.making.clear();
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
                record.settings = target.settings_to_keep(&to);
                record.stable = Some(to);
                self.collect_inventory(target, &mut record);
                record.making.retain(|object| !target.asks(object));
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
        health: &AgentHealth,
        record: &AgentRecord,
        refused: Option<&Refused>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let newest = record.operations.first().map_or(OperationId(0), |operation| operation.id);
        for step in &plan.steps {
            let object = step.object();
            // Whether another agent takes over what goes, only Git knows.
            let unknown = matches!(step, Step::Prune { .. }) && self.admission.is_none();
            if unknown || self.memory.contested.contains_key(object) {
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
                    let who = Target::who_writes(self, object);
                    let why = format!("{who} keeps changing {} of {object}", fields.join(", "));
                    actions.push(Action::Announce(self.announcement(true, "Contested", why.clone())));
                    self.memory.contested.insert(object.clone(), why);
                    continue;
                }
                let how = How::Apply { uid: uid.clone(), version: version.clone(), drops_fields: false };
                let write = Write { manifest: manifest.clone(), how };
                // All of it stood here as it was rendered: the server's own defaults make no such difference.
                if target.key.is_some() && self.memory.clean == target.key {
                    return self.send(
                        Pending::Write { write: write.clone(), heal: true },
                        Action::Write(write),
                        actions,
                    );
                }
                let pending = Pending::DryRun { write: write.clone(), asked: differences(changes) };
                return self.send(pending, Action::DryRun(write), actions);
            }
            return self.effect(step, newest, actions);
        }
        if let Some(object) = self.missed(target, record) {
            return self.send(Pending::Read(object.clone()), Action::Read(object), actions);
        }
        if plan.steps.is_empty() && plan.waiting.is_empty() && self.memory.accepted.is_empty() {
            self.memory.clean.clone_from(&target.key);
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
        // What is told by Git's word stands until Git speaks again.
        let by_health = next
            .condition(ConditionKind::Ready)
            .is_none_or(|ready| matches!(&*ready.reason, "Ready" | "Unhealthy" | "Environment"));
        if by_health || self.admission.is_some() {
            self.tell_standing(&mut next, plan, health, contested.as_deref(), now);
        }
        // The record says first that Git asks for something else: telling it may take long.
        if next == *record && self.tell_git(&next, now, actions) {
            return;
        }
        self.save_if_changed(next, actions);
    }

    fn tell_standing(
        &self,
        record: &mut AgentRecord,
        plan: &Plan,
        health: &AgentHealth,
        contested: Option<&str>,
        now: Timestamp,
    ) {
        let keep = match self.admission.as_deref().map(|admission| &admission.wanted) {
            Some(Wanted::Keep(reason)) => Some(reason),
            Some(Wanted::Run(_) | Wanted::Remove) | None => None,
        };
        let before = record.conditions.clone();
        let unhealthy = plan.waiting.iter().any(|waiting| matches!(waiting, WaitingOn::Healthy(_)));
        let blocked: Vec<_> =
            plan.waiting.iter().filter(|waiting| !matches!(waiting, WaitingOn::Healthy(_))).cloned().collect();
        if unhealthy {
            let known = match &health.health {
                Health::Degraded { reason, fault: Some(Fault::Environment) } => Some(reason),
                Health::Degraded { fault: Some(Fault::Release) | None, .. }
                | Health::Healthy
                | Health::Progressing { .. }
                | Health::Suspended
                | Health::Missing
                | Health::Unknown => None,
            };
            let finding = health.findings.first();
            let outside = finding.map_or(known.is_some(), |finding| finding.fault == Fault::Environment);
            let word = if outside { "Environment" } else { "Unhealthy" };
            let why = finding.map(|finding| &finding.sentence).or(known);
            let why = why.map_or("not all pods are ready", String::as_str);
            Situation::Unhealthy { word, why, contested }.tell(record, now);
        } else {
            Situation::Ready { contested, blocked: &blocked }.tell(record, now);
        }
        if let Some(reason) = keep {
            Situation::Kept(reason).tell(record, now);
            // Told in two breaths: only what is another truth at the end of both has changed.
            for condition in &mut record.conditions {
                let same = |old: &&Condition| old.kind == condition.kind && old.status == condition.status;
                if let Some(old) = before.iter().find(same) {
                    condition.last_transition_time = old.last_transition_time;
                }
            }
        }
    }

    /// Nothing runs and nothing is open.
    fn rest(&mut self, record: &AgentRecord, refused: Option<&Refused>, now: Timestamp, actions: &mut Vec<Action>) {
        let mut next = record.clone();
        course::differ(&mut next, refused, self.desired_release().is_some(), now);
        match self.admission.as_deref().map(|admission| &admission.wanted) {
            Some(Wanted::Keep(reason)) => Situation::Kept(reason).tell(&mut next, now),
            Some(Wanted::Remove) if next.phase == Phase::Removed => {
                let leaves = self.admission.as_deref().map(|admission| &admission.leaves);
                next.inventory.0.retain(|object, _| leaves.and_then(|leaves| leaves.get(object)) != Some(&true));
                Situation::Removed.tell(&mut next, now);
            }
            Some(Wanted::Run(_) | Wanted::Remove) | None => {}
        }
        // An agent that never ran leaves no record of a bad first commit but this.
        if record.format > 0 || matches!(self.admission.as_deref().map(|a| &a.wanted), Some(Wanted::Keep(_))) {
            next.format = FORMAT;
            self.save_if_changed(next, actions);
        }
    }

    /// Git is told once the target has moved: of a rollback, or of a release that failed. Where Git asks for the stable release
    /// already, who writes finds whether that was a commit of Backstay's own, whose reply got lost.
    fn tell_git(&mut self, record: &AgentRecord, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let (Some(stable), Some(admission)) = (&record.stable, self.admission.as_deref()) else { return false };
        let Some(asked) = self.desired_release() else { return false };
        let agrees = asked == stable.release;
        let held = record.hold.as_ref().filter(|hold| (hold.left == asked || agrees) && hold.git.is_due());
        let mut failures = record.quarantine.iter();
        let failed = failures.find(|failed| (failed.release == asked || agrees) && failed.git.is_due());
        let Some(gone) = held.map(|hold| hold.left).or(failed.map(|failed| failed.release)) else { return false };
        let mut known = record.left.iter().chain(&record.history);
        let Some(left) = known.find(|standing| standing.release == gone) else { return false };
        let told = |by, reason, word: &str, evidence: &[String]| super::TellGit {
            agent: self.agent.clone(),
            left: left.clone(),
            back_to: stable.clone(),
            by,
            reason,
            word: word.to_owned(),
            evidence: evidence.to_vec(),
            write_back: admission.write_back,
        };
        let tell = match (held, failed) {
            (Some(hold), _) => told(Some(hold.by.clone()), why_left(record), "manual", &[]),
            (None, Some(failed)) => told(None, failed.reason.clone(), &failed.word, &failed.evidence),
            (None, None) => return false,
        };
        if self.git_backoff.holds(now) {
            self.wake_at(self.git_backoff.until);
            return false;
        }
        self.send(Pending::TellGit(tell.clone()), Action::TellGit(tell), actions);
        true
    }
}

/// Why a person left a release, in their words.
fn why_left(record: &AgentRecord) -> String {
    let newest = record.operations.iter().find_map(|operation| match (&operation.cause, &operation.outcome) {
        (Cause::Rollback { reason, .. }, _) => Some(reason.clone()),
        (_, Some(Outcome::Failed(why))) => Some(why.clone()),
        (_, _) => None,
    });
    newest.unwrap_or_default()
}

impl AgentState {
    pub(super) fn effect(&mut self, step: &Step, operation: OperationId, actions: &mut Vec<Action>) {
        let write = |manifest: &Manifest, how| Write { manifest: manifest.clone(), how };
        let write = match step {
            Step::Create { manifest } => write(manifest, How::Create { operation }),
            Step::Update { manifest, uid, version, drops_fields, .. } => {
                let (uid, version) = (uid.clone(), version.clone());
                write(manifest, How::Apply { uid, version, drops_fields: *drops_fields })
            }
            Step::Adopt { manifest, uid, version, .. } => {
                // Until the inventory is recorded, the mark of the operation says whose it is.
                let mut body = (*manifest.body).clone();
                annotate(&mut body, OPERATION_ANNOTATION, format!("{}/{operation}", self.agent));
                let manifest = &Manifest { body: Arc::new(body), ..manifest.clone() };
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
}

/// Sets an annotation; what has no place for any is left as it is.
fn annotate(body: &mut Value, key: &str, text: String) {
    fn object<'v>(of: &'v mut Map<String, Value>, name: &str) -> Option<&'v mut Map<String, Value>> {
        of.entry(name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
    }
    let metadata = body.as_object_mut().and_then(|body| object(body, "metadata"));
    if let Some(annotations) = metadata.and_then(|metadata| object(metadata, "annotations")) {
        annotations.insert(key.to_owned(), text.into());
    }
}
