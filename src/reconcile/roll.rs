//! Carrying out a rollout: what was seen becomes events, what it becomes is recorded, and only then is it done.

use jiff::SignedDuration;

use super::course::{self, Begin, Refused};
use super::sides::{self, Side, is_in_force};
use super::state::{AgentState, Ledger, Pending};
use super::target::{Situation, Target, content};
use super::{Action, Announcement, Smoke, Wanted};
use crate::desired::rollout::{Canary, Preset, Rollback, Source, Strategy};
use crate::desired::{RolloutSpec, WriteBack};
use crate::judge::{Arms, Fault, Finding, Why};
use crate::model::{LiveObject, ReleaseId, Timestamp};
use crate::plan::{Plan, Step, WaitingOn};
use crate::record::{AgentRecord, Cause, Hold, MAX_EVIDENCE, OperationKind, Outcome, Quarantined, Request, Told};
use crate::render::{AGENT_LABEL, PROCESS_LABEL, Set, service_name};
use crate::rollout::{
    Answer, Beginning, Carrier, Closed, Deed, Event, GateQuestion, Illegal, Instances, Judging, News, Person, Phase,
    Question, Reason, Rollout, Sides, Smoked, Way, evidence, findings,
};

/// How often a rollout is measured, where its metrics do not say it.
const MEASURE_EVERY: SignedDuration = SignedDuration::from_secs(1);
/// How often evidence is recorded while nothing else is.
const EVIDENCE_KEPT: SignedDuration = SignedDuration::from_secs(30);
/// How often the preview of a second set is asked, and how often in vain before the release has failed.
const SMOKE_EVERY: SignedDuration = SignedDuration::from_secs(2);
const SMOKE_TRIES: u32 = 3;
/// How often a gate is asked.
const GATE_EVERY: SignedDuration = SignedDuration::from_secs(5);
/// How long instances that were ready may be so no more: three looks at their health, ten seconds apart.
const UNWELL: SignedDuration = SignedDuration::from_secs(20);
/// Rounds in which what was seen is told to a rollout until nothing moves any more.
const ROUNDS: usize = 8;

/// The deeds that people ask for.
const DEEDS: [&str; 3] = ["abort", "promote", "pause"];

// === beginning ===

impl AgentState {
    /// Where an operation goes, with the kind of set that the strategy asks for.
    pub(super) fn with_its_set(&mut self, begin: Begin, record: &AgentRecord) -> Begin {
        let Begin { kind: OperationKind::Release, cause, to: Some(mut to) } = begin else { return begin };
        to.own_set = match record.stable.as_ref().filter(|stable| stable.release == to.release) {
            Some(stable) => stable.own_set,
            None => self.settings(to.settings).is_some_and(|settings| settings.has_sets()),
        };
        Begin { kind: OperationKind::Release, cause, to: Some(to) }
    }

    /// Begins a rollout where an operation moves between two releases of which one has a set of its own.
    pub(super) fn open_rollout(&mut self, record: &mut AgentRecord, now: Timestamp) {
        (self.judging, self.smoked, self.gate_said) = (None, None, None);
        let (Some(open), Some(stable), Some(candidate)) = (&record.operation, &record.stable, &record.candidate) else {
            return;
        };
        let moves = open.kind == OperationKind::Release && stable.release != candidate.release;
        if !moves || !(stable.own_set || candidate.own_set) {
            return;
        }
        let retried = matches!(open.cause, Cause::Retry { .. });
        let (operation, way) = (open.id, if open.cause.goes_back() { Way::Back } else { Way::Forward });
        let (stable, candidate) = (stable.clone(), candidate.clone());
        let Ok((release, settings)) = content(self, &candidate) else { return };
        let spec = settings.rollout.clone().filter(|spec| spec.strategy != Strategy::Rolling);
        let before = self.settings(stable.settings).unwrap_or_else(|| std::sync::Arc::clone(&settings));
        let routed = [&before, &settings].into_iter().any(|side| sides::carrier(self, side) == Carrier::Routed);
        let carrier = if routed { Carrier::Routed } else { Carrier::Counted };
        let admission = self.admission.as_deref();
        let beginning = Beginning {
            operation,
            candidate: candidate.release,
            stable: stable.release,
            way,
            spec: spec.unwrap_or_else(at_once),
            carrier,
            size: self.size(&release.spec, &settings),
            approvals: admission.map_or(0, |admission| admission.approvals),
            authors: admission.map(|admission| admission.authors.clone()).unwrap_or_default(),
            // Who lets a release try again knows what went back before.
            rollbacks: if retried { vec![] } else { lately(&record.rollbacks, now) },
        };
        record.rollout = Rollout::new(beginning).saved(None).ok();
    }

    /// Whether something live is of the process that has the agent's traffic.
    fn is_main(&self, live: &LiveObject) -> bool {
        live.label(PROCESS_LABEL) == Some("main") && live.label(AGENT_LABEL) == Some(self.agent.as_str())
    }

    /// How many instances there shall be all in all: as declared, or as an autoscaler has it now.
    fn size(&self, spec: &crate::desired::ReleaseSpec, settings: &crate::desired::Settings) -> Instances {
        let autoscaled = || {
            let replicas = |live: &std::sync::Arc<crate::model::LiveObject>| {
                live.body.pointer("/spec/replicas").and_then(serde_json::Value::as_u64)
            };
            self.live.of_kind("apps", "Deployment").filter(|live| self.is_main(live)).filter_map(replicas).max()
        };
        let live = settings.autoscaling.as_ref().and_then(|_| autoscaled()).and_then(|count| u32::try_from(count).ok());
        let workers =
            spec.workers.keys().map(|name| (name.clone(), settings.worker_replicas.get(name).copied().unwrap_or(1)));
        Instances { agent: live.or(settings.replicas).unwrap_or(1), workers: workers.collect() }
    }
}

/// The way of a release that the target would roll, from one that has a set of its own: as soon as it is ready.
fn at_once() -> RolloutSpec {
    let rollback = Rollback { bake: SignedDuration::ZERO, ..Rollback::default() };
    let strategy = Strategy::Canary(Canary { steps: vec![], mirror: None, reach: None });
    RolloutSpec { strategy, rollback, ..RolloutSpec::default() }
}

/// Those of the last hour.
fn lately(rollbacks: &[Timestamp], now: Timestamp) -> Vec<Timestamp> {
    rollbacks.iter().copied().filter(|at| now.duration_since(*at) < SignedDuration::from_hours(1)).collect()
}

// === going on ===

impl AgentState {
    /// Goes on with the rollout of the open operation.
    pub(super) fn roll(&mut self, ledger: &Ledger, now: Timestamp, actions: &mut Vec<Action>) {
        let mut record = AgentRecord::clone(&ledger.record);
        let stalled = |record: &mut AgentRecord, word, why: &str| {
            Situation::Stalled { word, why }.tell(record, now);
        };
        let saved = match self.read_rollout(&record) {
            Ok(rollout) => rollout,
            Err(why) => {
                stalled(&mut record, "UnreadableRollout", &why);
                return self.save_if_changed(record, actions);
            }
        };
        let mut news = vec![];
        let mut rollout = self.hear(&saved, ledger, &mut record, &mut news, now);
        self.adopt_settings(&mut record, &rollout);
        let both = match sides::sides(self, &record, &rollout) {
            Ok(both) => both,
            // Before Git has spoken, the content may just not be known yet.
            Err(_) if self.admission.is_none() => return,
            Err(why) => {
                stalled(&mut record, "CannotRender", &why);
                return self.save_if_changed(record, actions);
            }
        };
        self.judge(&rollout, &record, &both, now, actions);
        let (next, plan) = match self.look(rollout, both, &record, &mut news, now) {
            Ok(seen) => seen,
            Err(why) => {
                stalled(&mut record, "CannotRender", &why);
                return self.save_if_changed(record, actions);
            }
        };
        rollout = next;
        let waits = plan.waiting.iter().find(|waiting| !matches!(waiting, WaitingOn::Healthy(_)));
        let refused = plan.errors().next().or_else(|| waits.map(|waiting| format!("waiting for {waiting}")));
        tell_rollout(&mut record, &rollout, refused.as_deref(), now);
        self.keep(&saved, &rollout, &mut record, now);
        if *ledger.record != record {
            for news in news {
                actions.push(Action::Announce(Announcement {
                    warning: news.is_warning(),
                    reason: news.word(),
                    message: news.to_string(),
                    operation: Some(rollout.operation()),
                }));
            }
            return self.save(record, actions);
        }
        self.memory.rollout = record.rollout.clone().map(|saved| (saved, rollout.clone()));
        self.follow_up(&rollout, &plan, &record, now, actions);
    }

    /// What is recorded is done: one effect, or the end, or a wait.
    fn follow_up(
        &mut self,
        rollout: &Rollout,
        plan: &Plan,
        record: &AgentRecord,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.wake_at(rollout.next_look(now));
        let Some(open) = &record.operation else { return };
        if plan.errors().next().is_some() {
            return;
        }
        if let Some(step) = plan.steps.first() {
            if matches!(step, Step::Create { .. }) && !record.making.contains(step.object()) {
                let mut record = record.clone();
                if let Ok(both) = sides::sides(self, &record, rollout) {
                    let target = both.target(self, rollout);
                    self.set_out(&target, &mut record);
                }
                return self.save_if_changed(record, actions);
            }
            return self.effect(step, open.id, actions);
        }
        if !rollout.is_over() {
            self.smoke(rollout, now, actions);
            return self.ask_gate(rollout, record, now, actions);
        }
        let Ok(both) = sides::sides(self, record, rollout) else { return };
        let target = both.target(self, rollout);
        if let Some(object) = self.missed(&target, record) {
            return self.send(Pending::Read(object.clone()), Action::Read(object), actions);
        }
        self.judging = None;
        match rollout.phase() {
            Phase::Aborted { reason, .. } => {
                let reason = reason.clone();
                self.end_aborted(&target, &reason, rollout, record, now, actions);
            }
            Phase::Done { .. }
            | Phase::Waiting
            | Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Step { .. }
            | Phase::Experiment { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. }
            | Phase::Aborting { .. } => {
                let mut record = record.clone();
                keep_findings(&mut record);
                record.rollout = None;
                record.rollbacks = lately(rollout.rollbacks(), now);
                let open = open.clone();
                self.finish(&target, &record, &open, now, actions);
            }
        }
    }

    fn read_rollout(&mut self, record: &AgentRecord) -> Result<Rollout, String> {
        let saved = record.rollout.as_ref().ok_or("there is none")?;
        if let Some((known, rollout)) = &self.memory.rollout
            && known.version == saved.version
            && known.state == saved.state
        {
            return Ok(rollout.clone());
        }
        let rollout = Rollout::read(saved).map_err(|error| error.to_string())?;
        self.memory.rollout = Some((saved.clone(), rollout.clone()));
        Ok(rollout)
    }

    /// New settings of the release that is on its way are taken over as they come: they start nothing anew.
    fn adopt_settings(&self, record: &mut AgentRecord, rollout: &Rollout) {
        let Some(Wanted::Run(desired)) = self.admission.as_deref().map(|admission| &admission.wanted) else { return };
        if let Some(candidate) = &mut record.candidate
            && desired.release.id == rollout.candidate()
            && candidate.settings != desired.settings.digest
        {
            candidate.settings = desired.settings.digest;
            candidate.revision = desired.revision.clone();
        }
    }

    /// What Git and people ask for, in this order.
    fn hear(
        &mut self,
        rollout: &Rollout,
        ledger: &Ledger,
        record: &mut AgentRecord,
        news: &mut Vec<News>,
        now: Timestamp,
    ) -> Rollout {
        let mut next = rollout.clone();
        for (kind, request) in new_deeds(ledger) {
            let deed = match kind {
                "abort" | "rollback" => Deed::Abort { reason: request.reason.clone() },
                "promote" => Deed::Promote,
                _ => Deed::Pause,
            };
            let event = Event::Person { by: Person(request.by.clone()), deed };
            record.handled.insert(kind.to_owned(), request.id.clone());
            match told(&mut next, &event, news, now) {
                Ok(()) => drop(record.handled.remove(&refused_key(kind))),
                Err(illegal) => drop(record.handled.insert(refused_key(kind), illegal.to_string())),
            }
        }
        if let Some(admission) = self.admission.clone() {
            if let Some(desired) = self.desired_release().filter(|id| !is_left(record, *id)) {
                let _ = told(&mut next, &Event::Desired(desired), news, now);
            }
            let _ = told(&mut next, &Event::Outside(admission.outside.clone()), news, now);
        }
        next
    }

    /// What is seen of instances and route, until nothing moves any more; with the plan for what is wanted then.
    fn look(
        &mut self,
        rollout: Rollout,
        mut both: Sides<Side>,
        record: &AgentRecord,
        news: &mut Vec<News>,
        now: Timestamp,
    ) -> Result<(Rollout, Plan), String> {
        let mut rollout = rollout;
        let mut round = 0;
        loop {
            round += 1;
            let before = rollout.clone();
            let ready = Sides { candidate: both.candidate.ready(self, now), stable: both.stable.ready(self, now) };
            let _ = told(&mut rollout, &Event::Ready(ready), news, now);
            if let Some(release) = self.release(rollout.candidate())
                && let Some(settings) = record.candidate.as_ref().and_then(|to| self.settings(to.settings))
            {
                let size = self.size(&release.spec, &settings);
                let _ = told(&mut rollout, &Event::Size(size), news, now);
            }
            if let Some(event) = self.failure(&rollout, &both.candidate, now) {
                let _ = told(&mut rollout, &event, news, now);
            }
            if let Some((release, answer)) = self.smoked.take()
                && release == rollout.candidate()
            {
                self.smoke_answered(&mut rollout, answer, news, now);
            }
            if let Some(event) = self.gate_answered(&rollout) {
                let _ = told(&mut rollout, &event, news, now);
            }
            if let Some(judging) = &mut self.judging {
                let _ = told(&mut rollout, &judging.says(&[], now), news, now);
            }
            let _ = told(&mut rollout, &Event::Tick, news, now);
            both = sides::sides(self, record, &rollout)?;
            let target = both.target(self, &rollout);
            let plan = target.plan_where(self, record, Some("the end of the rollout"));
            if is_in_force(self, &rollout, &plan) {
                let routes = rollout.wanted().routes;
                let _ = told(&mut rollout, &Event::Routes(Some(routes)), news, now);
            }
            if rollout == before || round >= ROUNDS {
                return Ok((rollout, plan));
            }
            both = sides::sides(self, record, &rollout)?;
        }
    }

    /// What the candidate does to fail: at once where that is certain, else when its deadline has passed.
    fn failure(&mut self, rollout: &Rollout, candidate: &Side, now: Timestamp) -> Option<Event> {
        if matches!(rollout.phase(), Phase::Waiting) || rollout.is_over() {
            (self.memory.unsized_since, self.memory.had) = (None, None);
            return None;
        }
        let health = candidate.health(self, now);
        let own = health.blame();
        let failed = |finding: &Finding| Event::Failed { why: finding.sentence.clone(), by_release: true };
        if let Some(certain) = own.filter(|finding| finding.certain) {
            return Some(failed(certain));
        }
        let wanted = rollout.wanted().instances.candidate;
        if rollout.has_its_instances() {
            (self.memory.unsized_since, self.memory.had) = (None, Some(wanted));
            return None;
        }
        let since = *self.memory.unsized_since.get_or_insert(now);
        // What answered and does so no more has no start to wait for.
        let lost = own.is_some() && self.memory.had.as_ref().is_some_and(|had| had.cover(&wanted));
        let deadline = if lost { since.checked_add(UNWELL).ok()? } else { candidate.deadline(since)? };
        if now < deadline {
            self.wake_at(Some(deadline));
            return None;
        }
        let why = health.findings.iter().find(|finding| finding.fault == Fault::Environment);
        let nobody = || Event::Failed {
            why: why.map_or_else(
                || "the candidate is not ready by its deadline, and nothing says why".to_owned(),
                |finding| finding.sentence.clone(),
            ),
            by_release: false,
        };
        Some(own.map_or_else(nobody, failed))
    }

    /// The judge of what the rollout is at, and what it wants to be measured.
    fn judge(
        &mut self,
        rollout: &Rollout,
        record: &AgentRecord,
        both: &Sides<Side>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let saved = record.rollout.as_ref().and_then(|rollout| rollout.evidence.as_deref());
        self.judging = Judging::of(rollout, self.judging.take(), saved, now).unwrap_or_default();
        let Some(judging) = &mut self.judging else { return };
        let metrics = judging.asks(MEASURE_EVERY, now);
        self.wake_at(now.checked_add(MEASURE_EVERY).ok());
        if metrics.is_empty() {
            return;
        }
        let tools = |side: &Side| side.release.spec.tools.keys().map(ToString::to_string).collect();
        actions.push(Action::Measure(Box::new(Question {
            agent: self.agent.clone(),
            releases: Arms { candidate: rollout.candidate(), stable: rollout.stable() },
            tools: Arms { candidate: tools(&both.candidate), stable: tools(&both.stable) },
            pods: self.live.of_kind("", "Pod").filter(|live| self.is_main(live)).cloned().collect(),
            metrics,
        })));
    }

    fn smoke(&mut self, rollout: &Rollout, now: Timestamp, actions: &mut Vec<Action>) {
        let (Phase::Smoke { passed: false, .. }, Strategy::BlueGreen(declared)) =
            (rollout.phase(), &rollout.spec().strategy)
        else {
            return;
        };
        let again = self.memory.smoke_asked.and_then(|asked| asked.checked_add(SMOKE_EVERY).ok());
        if let Some(again) = again.filter(|again| *again > now) {
            return self.wake_at(Some(again));
        }
        self.memory.smoke_asked = Some(now);
        self.wake_at(now.checked_add(SMOKE_EVERY).ok());
        let host = sides::preview_of(self, declared).unwrap_or_else(|| self.agent.to_string());
        let (agent, release, path) = (self.agent.clone(), rollout.candidate(), declared.smoke.clone());
        let port = self.release(release).and_then(|release| release.spec.workload.port).unwrap_or_default();
        let service = self.service_of(release);
        actions.push(Action::Smoke(Smoke { agent, release, host, path, port, service }));
    }

    /// Where the Service of one release's own set is.
    fn service_of(&self, release: ReleaseId) -> Option<String> {
        let name = service_name(&self.agent, Set::PerRelease, &release);
        let service = self.live.of_kind("", "Service").find(|live| live.object.name == name)?;
        service.body.pointer("/spec/clusterIP")?.as_str().map(str::to_owned)
    }

    /// Asks the gate that the rollout is at, one question at a time.
    fn ask_gate(&mut self, rollout: &Rollout, record: &AgentRecord, now: Timestamp, actions: &mut Vec<Action>) {
        let Some((gate, step)) = rollout.at_gate() else {
            self.memory.gate_asked = None;
            return;
        };
        // An answer that got lost is waited for no longer than it may take.
        let Some(patience) = self.config.gates.get(gate) else { return };
        let again = self.memory.gate_asked.and_then(|(asked, waits)| {
            asked.checked_add(if waits { GATE_EVERY.max(*patience) } else { GATE_EVERY }).ok()
        });
        if let Some(again) = again.filter(|again| *again > now) {
            return self.wake_at(Some(again));
        }
        let Some(candidate) = &record.candidate else { return };
        actions.push(Action::Gate(Box::new(GateQuestion {
            gate: gate.to_owned(),
            agent: self.agent.clone(),
            environment: self.config.environment.clone(),
            namespace: self.config.namespace.clone(),
            releases: Arms { candidate: rollout.candidate(), stable: rollout.stable() },
            revision: candidate.revision.clone(),
            step,
        })));
        self.memory.gate_asked = Some((now, true));
        self.wake_at(now.checked_add(GATE_EVERY).ok());
    }

    /// What the gate of this very step said; of one that nobody can ask, just that.
    fn gate_answered(&mut self, rollout: &Rollout) -> Option<Event> {
        let (gate, step) = rollout.at_gate()?;
        let name = gate.to_owned();
        if !self.config.gates.contains_key(gate) {
            return Some(Event::Gate { name, answer: Answer::Closed(Closed::Unnamed) });
        }
        let (asked, answer) = self.gate_said.take()?;
        let is_of_this = asked.gate == gate && asked.step == step && asked.releases.candidate == rollout.candidate();
        is_of_this.then_some(Event::Gate { name, answer })
    }

    /// One answer that is bad may be of a moment: it is asked again.
    fn smoke_answered(&mut self, rollout: &mut Rollout, answer: Smoked, news: &mut Vec<News>, now: Timestamp) {
        let failed = matches!(answer, Smoked::Fails(_));
        self.memory.smoke_failed = if failed { self.memory.smoke_failed + 1 } else { 0 };
        if !failed || self.memory.smoke_failed >= SMOKE_TRIES {
            let _ = told(rollout, &Event::Smoked(answer), news, now);
        }
    }

    /// Puts the rollout into the record, with what its judge knows where that is due.
    fn keep(&mut self, saved: &Rollout, rollout: &Rollout, record: &mut AgentRecord, now: Timestamp) {
        let due = self.memory.evidence_saved.is_none_or(|at| now.duration_since(at) >= EVIDENCE_KEPT);
        if saved == rollout && !(due && self.judging.is_some()) {
            return;
        }
        let before = record.rollout.as_ref().and_then(|rollout| rollout.evidence.clone());
        let known = self.judging.as_ref().and_then(|judging| judging.saved().ok());
        self.memory.evidence_saved = Some(now);
        if let Ok(kept) = rollout.saved(known.or(before)) {
            record.rollout = Some(kept);
        }
    }
}

/// Tells a rollout of one event.
fn told(rollout: &mut Rollout, event: &Event, news: &mut Vec<News>, now: Timestamp) -> Result<(), Illegal> {
    let (next, more) = rollout.step(event, now)?;
    *rollout = next;
    news.extend(more);
    Ok(())
}

/// A person or a failure left this release: that Git still asks for it is no news.
fn is_left(record: &AgentRecord, id: ReleaseId) -> bool {
    record.hold.as_ref().is_some_and(|hold| hold.left == id) || record.quarantined(id).is_some()
}

/// The conditions of an agent whose rollout is on its way.
fn tell_rollout(record: &mut AgentRecord, rollout: &Rollout, refused: Option<&str>, now: Timestamp) {
    let wait = rollout.wait(now);
    let text = match &wait {
        Some(wait) => format!("{}: waiting for {wait}", rollout.phase().word()),
        None => rollout.phase().word().to_owned(),
    };
    let stalled = wait.as_ref().filter(|wait| wait.is_stalled()).map(|_| text.as_str());
    Situation::Rolling { text: &text, stalled: refused.or(stalled) }.tell(record, now);
}

// === what people ask for ===

/// Requests about a rollout that were not handled yet, the oldest first.
fn new_deeds(ledger: &Ledger) -> Vec<(&'static str, &Request)> {
    let requests = &ledger.requests;
    let rollback = requests.rollback.as_ref();
    let stable = ledger.record.stable.as_ref().map(|stable| stable.release);
    // A rollback to another release than the stable one takes the candidate back first, and is done after that.
    let leaves = rollback.filter(|asked| {
        asked
            .to
            .as_ref()
            .is_none_or(|to| stable.is_some_and(|stable| *to == stable.short() || *to == stable.digest().to_string()))
    });
    let asked = [
        ("abort", requests.abort.as_ref()),
        ("promote", requests.promote.as_ref()),
        ("pause", requests.pause.as_ref()),
        ("rollback", leaves.map(|asked| &asked.request)),
    ];
    let mut new: Vec<_> = asked
        .into_iter()
        .filter_map(|(kind, request)| Some((kind, request?)))
        .filter(|(kind, request)| ledger.record.handled.get(*kind) != Some(&request.id))
        .collect();
    new.sort_by(|(_, one), (_, other)| (one.id.len(), &one.id).cmp(&(other.id.len(), &other.id)));
    new
}

fn refused_key(kind: &str) -> String {
    format!("{kind}/refused")
}

impl AgentState {
    /// Says of a deed about a rollout, where there is none, that it cannot be done: a later one is not meant.
    pub(super) fn refuse_idle_deeds(
        &mut self,
        ledger: &Ledger,
        record: &mut AgentRecord,
        actions: &mut Vec<Action>,
    ) -> bool {
        if record.rollout.is_some() {
            return false;
        }
        let new: Vec<_> = new_deeds(ledger).into_iter().filter(|(kind, _)| DEEDS.contains(kind)).collect();
        for (kind, request) in &new {
            record.handled.insert((*kind).to_owned(), request.id.clone());
            record.handled.insert(refused_key(kind), format!("cannot {kind}: no rollout is on its way"));
        }
        if !new.is_empty() {
            self.save(record.clone(), actions);
        }
        !new.is_empty()
    }

    /// Whether a rollout on its way takes a person's rollback as its abort.
    pub(super) fn heeds_rollbacks(&mut self, record: &AgentRecord) -> bool {
        record.rollout.is_some() && self.read_rollout(record).is_ok_and(|rollout| rollout.may_be_aborted())
    }
}

// === the end of one that went back ===

impl AgentState {
    fn end_aborted(
        &mut self,
        target: &Target,
        reason: &Reason,
        rollout: &Rollout,
        record: &AgentRecord,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let mut record = record.clone();
        let Some(candidate) = record.candidate.take() else { return };
        let what_follows = reason.aftermath();
        let writes = self.admission.as_deref().is_none_or(|admission| admission.write_back != WriteBack::None);
        let git = if what_follows.tell_git && writes { Told::Pending } else { Told::ByHand };
        let why = reason.to_string();
        if what_follows.quarantine {
            let failed = Quarantined {
                word: word(reason, rollout.spec()),
                evidence: evidence(reason, MAX_EVIDENCE),
                git: git.clone(),
                ..Quarantined::new(candidate.release, now, why.clone())
            };
            record.quarantine.retain(|entry| entry.release != candidate.release);
            record.quarantine.insert(0, failed);
        }
        if what_follows.hold {
            let by = if let Reason::Person { by, .. } = reason { by.0.clone() } else { "backstay".to_owned() };
            record.hold = Some(Hold { left: candidate.release, by, since: now, git });
        }
        keep_findings(&mut record);
        record.rollout = None;
        record.rollbacks = lately(rollout.rollbacks(), now);
        self.collect_inventory(target, &mut record);
        let outcome = match reason {
            Reason::Reverted | Reason::Superseded { .. } => Outcome::Superseded,
            Reason::Judged(_) | Reason::Failed { .. } | Reason::Person { .. } | Reason::Lost { .. } => {
                Outcome::Failed(why.clone())
            }
        };
        record.finish(outcome, now);
        if what_follows.quarantine || what_follows.hold {
            let refused =
                Refused { desired: candidate.release, why: format!("{} went back here: {why}", candidate.release) };
            course::differ(&mut record, Some(&refused), true, now);
            record.left = Some(candidate);
        }
        record.bound(target.history(), self.desired_release());
        Situation::Ready { contested: None, blocked: &[] }.tell(&mut record, now);
        self.memory.new_operation();
        self.save(record, actions);
    }
}

/// What an experiment found stays with its operation.
fn keep_findings(record: &mut AgentRecord) {
    let saved = record.rollout.as_ref().and_then(|rollout| rollout.evidence.as_deref());
    let report = saved.and_then(Judging::last_report);
    if let (Some(open), Some(report)) = (&mut record.operation, report) {
        open.evidence = findings(&report, MAX_EVIDENCE);
    }
}

/// Why it went back, as one word for people's tools.
fn word(reason: &Reason, spec: &RolloutSpec) -> String {
    let Reason::Judged(decision) = reason else {
        return match reason {
            Reason::Person { .. } => "manual",
            Reason::Lost { .. } => "experiment_lost",
            Reason::Failed { .. } | Reason::Judged(_) | Reason::Reverted | Reason::Superseded { .. } => {
                "health_check_failed"
            }
        }
        .to_owned();
    };
    let declared = decision.metric.as_ref().and_then(|name| Some((name, spec.analysis.get(name)?)));
    let preset = declared.and_then(|(_, metric)| match &metric.source {
        Source::Preset(preset) => Some(*preset),
        Source::Value(_) | Source::Rate { .. } => None,
    });
    let word = match (preset, decision.why) {
        (Some(Preset::ErrorRate), Why::Failed) => "circuit_breaker",
        (Some(Preset::ErrorRate), _) => "error_rate_high",
        (Some(Preset::LatencyP50 | Preset::LatencyP95 | Preset::LatencyP99 | Preset::TimeToFirstToken), _) => {
            "latency_degraded"
        }
        (Some(Preset::TokensPerRequest), _) => "tokens_high",
        (Some(Preset::ToolErrors), _) => "tool_errors_high",
        (Some(Preset::PromptInjections), _) => "prompt_injection",
        (Some(Preset::UnexpectedToolUse), _) => "unexpected_tool_use",
        (Some(Preset::GoalCompletion), _) => "goal_completion_low",
        (Some(Preset::FallbackCalls), _) => "fallback_calls_high",
        (None, _) => match &decision.metric {
            Some(name) => return format!("{}_degraded", name.replace(|char: char| !char.is_ascii_alphanumeric(), "_")),
            None => "health_check_failed",
        },
    };
    word.to_owned()
}
