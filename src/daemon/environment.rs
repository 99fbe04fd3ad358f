//! The task of one environment: it brings observations to the core and carries out what the core asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Ended;
use super::effect::{carry_out, word_of};
use super::git::Wish;
use super::parts::{Parts, Settled};
use super::word::{Ask, Heard, Word, listen};
use crate::desired::Cache;
use crate::ledger::{EnvironmentEntry, LedgerChange, Role};
use crate::model::{AgentName, CommitId, EnvironmentName, ObjectRef, Timestamp};
use crate::observe::{Changed, Pace};
use crate::reconcile::{
    Action, Admission, Admitted, AgentState, Done, Failure, FailureKind, LedgerEntry, Observation, preview, step,
};
use crate::record::{AgentRecord, ConditionKind, EnvironmentRecord, FORMAT, Truth};
use crate::source::{self, SourceError, SourceStatus};

/// Longest time between two looks at what only time changes: expired consents, models that retire.
const STALE: Duration = Duration::from_mins(5);
/// When what could not be recorded is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(1);
/// Lines of errors that the environment's record keeps.
const MAX_ERRORS: usize = 10;

/// The task of one environment.
#[expect(clippy::struct_excessive_bools, reason = "each is a piece of work that is due or under way")]
pub(crate) struct Environment {
    parts: Parts,
    epoch: Option<u64>,
    agents: HashMap<AgentName, Agent>,
    entries: BTreeMap<AgentName, LedgerEntry>,
    ledger_synced: bool,
    /// Nothing: it was not told of yet.
    entry: Option<Told>,
    word: Option<Word>,
    heard: Heard,
    /// What was read with: handed to the blocking reader and back.
    cache: Option<Cache>,
    listening: bool,
    listen_again: bool,
    admit_again: bool,
    /// What each track came to at the last look that was another one.
    settled: BTreeMap<String, Result<source::Settled, SourceError>>,
    /// Why Git cannot be read, as it was first said.
    away: Option<SourceError>,
    /// The round of the poller that answers what we wished for.
    round: u64,
    sync_round: Option<(String, u64)>,
    /// The request to look at Git that what was heard last answers.
    answered: Option<String>,
    /// The round after which an unverified commit was looked at last.
    judged: u64,
    recording: bool,
    effects: JoinSet<Finished>,
    timers: BTreeMap<Timestamp, BTreeSet<AgentName>>,
    due: Option<Timestamp>,
    seed: u64,
}

/// What the ledger told of the environment.
enum Told {
    Absent,
    Present(Box<EnvironmentEntry>),
}

struct Agent {
    state: AgentState,
    admission: Option<Arc<Admission>>,
    asleep_until: Option<Timestamp>,
}

/// What a spawned piece of work brings back.
enum Finished {
    Effect {
        agent: AgentName,
        epoch: u64,
        observation: Box<Observation>,
        took: Duration,
    },
    Heard {
        heard: Box<Heard>,
        cache: Box<Cache>,
        round: u64,
    },
    /// What the ledger holds of the environment now: written by us, or read since somebody else wrote.
    Recorded(Result<Option<Box<EnvironmentEntry>>, Failure>),
    Nothing,
}

impl Environment {
    pub(crate) fn new(parts: Parts, seed: u64) -> Self {
        Self {
            parts,
            epoch: None,
            agents: HashMap::new(),
            entries: BTreeMap::new(),
            ledger_synced: false,
            entry: None,
            word: None,
            heard: Heard::default(),
            cache: Some(Cache::default()),
            listening: false,
            listen_again: false,
            admit_again: false,
            settled: BTreeMap::new(),
            away: None,
            round: 0,
            sync_round: None,
            answered: None,
            judged: 0,
            recording: false,
            effects: JoinSet::new(),
            timers: BTreeMap::new(),
            due: None,
            seed,
        }
    }

    fn name(&self) -> &EnvironmentName {
        &self.parts.config.environment
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// Runs until `stop`; what is under way then is finished as far as one request goes.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Failure> {
        let pace = Pace::default();
        let mut ledger: Pin<Box<dyn Stream<Item = LedgerChange> + Send>> = Box::pin(self.parts.ledger.watch(&pace)?);
        let mut source = self.parts.git.status();
        let mut role = self.parts.role.clone();
        role.mark_changed();
        loop {
            let now = self.now();
            let wait =
                self.next_alarm().map_or(STALE, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
            let stale = tokio::time::sleep(wait.min(STALE));
            tokio::select! { biased;
                () = stop.cancelled() => break,
                // Who only observes takes no part in an election.
                changed = role.changed(), if !self.parts.config.observe => {
                    if changed.is_err() {
                        return Err(Failure { kind: FailureKind::Fenced, message: "the election ended".to_owned() });
                    }
                    let now = role.borrow_and_update().clone();
                    self.took_role(now);
                }
                Some(change) = ledger.next() => self.ledger_changed(change),
                changed = self.parts.observer.changed() => self.target_changed(changed),
                changed = source.changed() => {
                    if changed.is_err() {
                        return Err(Failure { kind: FailureKind::Refused, message: "the source ended".to_owned() });
                    }
                    let status = source.borrow_and_update().clone();
                    self.source_changed(&status);
                }
                Some(ended) = self.effects.join_next() => match ended {
                    Ok(ended) => self.ended(ended),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                () = stale => {}
            }
            self.ring_alarms();
            if self.admit_again {
                self.admit();
            }
            self.listen();
            self.tell_settled();
        }
        // The fence still holds: effects that were begun may end, and their records are found at the next start.
        while self.effects.join_next().await.is_some() {}
        Ok(())
    }

    // === what changed ===

    fn took_role(&mut self, role: Role) {
        let epoch = match role {
            Role::Leading(epoch) => Some(epoch),
            Role::Following(leader) => {
                tracing::info!(environment = %self.name(), leader = leader.as_deref().unwrap_or("nobody"), "following");
                None
            }
            Role::ReadOnly(why) => {
                tracing::warn!(environment = %self.name(), %why, "only reading");
                None
            }
        };
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        self.agents.clear();
        self.timers.clear();
        if let Some(epoch) = epoch {
            tracing::info!(environment = %self.name(), epoch, "leading");
            self.admit_again = true;
            let known: Vec<_> = self.entries.keys().cloned().collect();
            for agent in known {
                self.agent(&agent);
            }
            self.asked_to_sync();
            // What was heard before it led was not recorded then.
            self.record_word();
        }
    }

    fn ledger_changed(&mut self, change: LedgerChange) {
        match change {
            LedgerChange::Agent(agent, entry) => {
                let entry = *entry;
                if self.entries.get(&agent) == Some(&entry) {
                    return;
                }
                if self.word.is_none() {
                    self.watch_what_is_owned(&entry);
                }
                let moved = standing_of(self.entries.get(&agent)) != standing_of(Some(&entry));
                self.entries.insert(agent.clone(), entry.clone());
                self.share(&agent, &entry);
                self.admit_again = true;
                self.listen_again |= moved && self.must_reread(&agent);
                self.observe(&agent, Observation::Ledger(entry));
            }
            LedgerChange::Environment(entry) => {
                self.parts.status.ledger(&self.parts.config.environment, true);
                // A watch that lags behind what was written or read since is not believed.
                if let (Some(Told::Present(known)), Some(told)) = (&self.entry, &entry)
                    && known.version.is_at_least(&told.version)
                {
                    return;
                }
                if let Some(entry) = &entry {
                    self.parts.fence.saw_epoch(entry.record.epoch);
                }
                self.entry = Some(entry.map_or(Told::Absent, Told::Present));
                self.asked_to_sync();
                self.record_word();
                self.wish();
                self.listen_again = true;
            }
            LedgerChange::Synced => {
                self.ledger_synced = true;
                self.parts.status.ledger(&self.parts.config.environment, true);
                self.admit_again = true;
                self.listen_again = true;
            }
            LedgerChange::Trouble(failure) => {
                tracing::warn!(environment = %self.name(), error = %failure.message, "the ledger cannot be watched");
                self.parts.status.ledger(&self.parts.config.environment, false);
            }
        }
    }

    /// What is ours is watched before Git has spoken; later its word names the kinds.
    fn watch_what_is_owned(&self, entry: &LedgerEntry) {
        let owned = entry.record().into_iter().flat_map(|record| record.inventory.0.keys().chain(&record.making));
        let gate = &self.parts.config.gate;
        let kinds: BTreeSet<_> = owned.map(ObjectRef::group_kind).filter(|kind| gate.kinds.contains(kind)).collect();
        kinds.into_iter().for_each(|kind| self.parts.observer.watch_kind(kind));
    }

    /// Whether what stands at another release than Git asks for must be read again: for going back, and for healing.
    fn must_reread(&self, agent: &AgentName) -> bool {
        let Some(word) = &self.word else { return false };
        let stands = standing_of(self.entries.get(agent));
        let asked = word.desired.agents.get(agent).and_then(|asked| asked.as_ref().ok()).map(|asked| asked.release.id);
        stands != asked
    }

    fn target_changed(&mut self, changed: Changed) {
        let agents: Vec<AgentName> = match changed {
            Changed::Agents(agents) => agents.into_iter().collect(),
            Changed::Everyone => {
                // All first lists may just have come in.
                self.tell_plans();
                self.agents.keys().cloned().collect()
            }
        };
        for agent in agents {
            if self.agents.contains_key(&agent) {
                let live = self.parts.observer.snapshot(&agent);
                self.observe(&agent, Observation::Live(live));
            }
        }
    }

    fn source_changed(&mut self, status: &SourceStatus) {
        if status.last_success.is_some() {
            self.parts.status.git_seen();
        }
        // What a look that was asked for saw is heard first, and recorded with its answer; a failed one saw nothing.
        if status.error.is_some() && self.answer(status.round) {
            self.record_word();
        }
        self.listen_again |= self.sync_round.as_ref().is_some_and(|(_, round)| status.round >= *round);
        // A commit that was not verified is looked at again: the signers may be others, or the time.
        if self.heard.unverified && status.round != self.judged {
            self.judged = status.round;
            self.listen_again = true;
        }
        if status.settled != self.settled {
            self.settled.clone_from(&status.settled);
            self.listen_again = true;
        }
        // One failure is written once: its numbers may differ from poll to poll.
        let reason = |error: &Option<SourceError>| error.as_ref().map(SourceError::reason);
        if reason(&self.away) != reason(&status.error) {
            self.away.clone_from(&status.error);
            self.record_word();
        }
    }

    /// A look at Git came to its end: whether somebody asked for it.
    fn answer(&mut self, round: u64) -> bool {
        let asked = self.sync_round.take_if(|(_, wanted)| round >= *wanted);
        let answers = asked.is_some();
        self.answered = asked.map(|(id, _)| id).or(self.answered.take());
        answers
    }

    fn asked_to_sync(&mut self) {
        let Some(Told::Present(entry)) = &self.entry else { return };
        let Some(sync) = &entry.requests.sync else { return };
        let id = sync.request.id.clone();
        let handled = entry.record.handled.get("sync") == Some(&id);
        let known = self.sync_round.as_ref().map(|(known, _)| known).or(self.answered.as_ref());
        let under_way = known == Some(&id);
        if !handled && !under_way && self.epoch.is_some() {
            self.wish();
            self.sync_round = Some((id, self.parts.git.look()));
        }
    }

    fn ended(&mut self, ended: Finished) {
        match ended {
            Finished::Effect { agent, epoch, observation, took } => {
                let failed = matches!(&*observation, Observation::Done(Done::Failed(_)));
                let result = if failed { Ended::Failure } else { Ended::Success };
                self.parts.metrics.reconciled(&self.parts.config.environment, result, took);
                if let Observation::Done(Done::Written(live)) = &*observation {
                    self.parts.observer.note(live);
                }
                if let Observation::Done(Done::Failed(failure)) = &*observation {
                    tracing::warn!(environment = %self.name(), %agent, error = %failure.message, "an effect failed");
                    self.parts.metrics.failed(&self.parts.config.environment, word_of(&failure.kind));
                }
                if Some(epoch) == self.epoch {
                    self.observe(&agent, *observation);
                }
            }
            Finished::Heard { heard, cache, round } => {
                self.cache = Some(*cache);
                self.listening = false;
                self.answer(round);
                self.heard(*heard);
            }
            Finished::Recorded(result) => {
                self.recording = false;
                match result {
                    // The watch may show it much later: what came up meanwhile is written now.
                    Ok(now) => {
                        self.ledger_changed(LedgerChange::Environment(now));
                        self.record_word();
                    }
                    Err(failure) => {
                        tracing::warn!(environment = %self.name(), error = %failure.message, "the environment is not recorded");
                        let again = self.now().saturating_add(RECORD_AGAIN).unwrap_or(Timestamp::MAX);
                        self.due = Some(self.due.map_or(again, |due| due.min(again)));
                    }
                }
            }
            Finished::Nothing => {}
        }
    }

    // === Git's word ===

    fn record(&self) -> EnvironmentRecord {
        match &self.entry {
            Some(Told::Present(entry)) => entry.record.clone(),
            Some(Told::Absent) | None => EnvironmentRecord::default(),
        }
    }

    /// What the followed branch was accepted at last.
    fn accepted_head(&self) -> Option<CommitId> {
        let Some(Told::Present(entry)) = &self.entry else { return None };
        let head = crate::desired::Track::Branch(self.parts.git.branch().to_owned());
        entry.record.accepted.get(&head.key()).map(|revision| revision.commit.clone())
    }

    fn records(&self) -> BTreeMap<AgentName, AgentRecord> {
        self.entries.iter().filter_map(|(agent, entry)| Some((agent.clone(), entry.record()?.clone()))).collect()
    }

    /// Lets other environments see the record of an agent.
    fn share(&self, agent: &AgentName, entry: &LedgerEntry) {
        let mut shared = self.parts.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let here = shared.entry(self.name().clone()).or_default();
        match entry.record() {
            Some(record) => drop(here.insert(agent.clone(), record.clone())),
            None => drop(here.remove(agent)),
        }
    }

    /// Says what this environment follows, once the ledger says what was accepted last.
    fn wish(&mut self) {
        let accepted = match &self.entry {
            None => return,
            Some(Told::Absent) => None,
            Some(Told::Present(entry)) => entry.requests.sync.as_ref().and_then(|sync| sync.accept_rewind.clone()),
        };
        let record = self.record();
        let head = crate::desired::Track::Branch(self.parts.git.branch().to_owned());
        let tracks = if self.heard.tracks.is_empty() { vec![head] } else { self.heard.tracks.clone() };
        let wish = Wish {
            tracks: tracks
                .into_iter()
                .map(|track| (track.clone(), record.accepted.get(&track.key()).cloned()))
                .collect(),
            pins: self.heard.pins.iter().cloned().collect(),
            accepted: accepted.into_iter().collect(),
        };
        if let Some(round) = self.parts.git.wish(&self.parts.config.environment, wish) {
            self.round = round;
        }
    }

    /// Reads Git's word off the runtime, one reading at a time.
    fn listen(&mut self) {
        let ready = self.entry.is_some() && self.ledger_synced;
        if !self.listen_again || self.listening || !ready {
            return;
        }
        let status = Arc::clone(&self.parts.git.status().borrow());
        if status.last_success.is_none() || status.round < self.round && self.word.is_none() {
            return;
        }
        let Some(mut cache) = self.cache.take() else { return };
        self.listen_again = false;
        self.listening = true;
        let (git, environment) = (Arc::clone(&self.parts.git), self.name().clone());
        let (record, records, now) = (self.record(), self.records(), self.now());
        let rule = self.word.as_ref().and_then(|word| word.desired.spec.after.clone());
        let shared = Arc::clone(&self.parts.shared);
        self.effects.spawn_blocking(move || {
            let shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            // Without a word yet, every bound environment may be the one that `after` names.
            let elsewhere = rule.map_or_else(
                || shared.iter().find(|(name, _)| **name != environment).map(|(_, records)| records),
                |rule| shared.get(&rule.environment),
            );
            let ask = Ask {
                git: &git,
                status: &status,
                environment: &environment,
                record: &record,
                records: &records,
                elsewhere,
                now,
            };
            let heard = listen(&ask, &mut cache);
            Finished::Heard { heard: Box::new(heard), cache: Box::new(cache), round: status.round }
        });
    }

    fn heard(&mut self, heard: Heard) {
        let first_rule =
            self.word.is_none() && heard.word.as_ref().is_some_and(|word| word.desired.spec.after.is_some());
        for error in &heard.errors.0 {
            if !self.heard.errors.0.contains(error) {
                tracing::error!(environment = %self.name(), "{error}");
            }
        }
        if let Some(word) = &heard.word {
            let revisions = word.accepted.values();
            self.parts.metrics.followed(revisions);
            if self.word.as_ref().map(|old| &old.desired.tracked) != Some(&word.desired.tracked) {
                tracing::info!(environment = %self.name(), revision = %word.desired.tracked, "Git asks for");
            }
            word.kinds(&self.parts.config.gate).for_each(|kind| self.parts.observer.watch_kind(kind));
            self.due = word.due;
        }
        let more = heard.tracks != self.heard.tracks || heard.pins != self.heard.pins;
        if let Some(word) = heard.word.clone() {
            self.word = Some(word);
        }
        self.heard = Heard { word: None, ..heard };
        if more {
            self.wish();
            self.listen_again = true;
        }
        // The rule is known now: read once more with the right environment's records.
        self.listen_again |= first_rule;
        self.record_word();
        self.tell_plans();
        self.admit_again = true;
    }

    /// Writes what was accepted, what was refused and what is wrong, where the record does not say so yet.
    fn record_word(&mut self) {
        let silent = self.word.is_none() && self.away.is_none() && self.heard.errors.0.is_empty();
        if silent && self.answered.is_none() {
            return;
        }
        let accepted = self.word.as_ref().map(|word| word.accepted.clone());
        let errors: Vec<_> = self.heard.errors.0.iter().take(MAX_ERRORS).map(ToString::to_string).collect();
        let (refused, unverified) = (self.heard.refused.clone(), self.heard.unverified);
        let away = self.away.as_ref().map(|error| {
            let hint = error.hint().map_or_else(String::new, |hint| format!(" (hint: {hint})"));
            (error.reason(), format!("Git cannot be read: {error}{hint}"))
        });
        let (now, answered) = (self.now(), self.answered.clone());
        self.record_environment(move |record| {
            if let Some(id) = &answered {
                record.handled.insert("sync".to_owned(), id.clone());
            }
            if let Some(accepted) = &accepted {
                record.accepted.clone_from(accepted);
            }
            record.errors.clone_from(&errors);
            record.refused = refused.clone().map(|mut refused| {
                if let Some(old) =
                    record.refused.as_ref().filter(|old| old.reference == refused.reference && old.to == refused.to)
                {
                    refused.since = old.since;
                }
                refused
            });
            let (status, reason, message) = match (&away, &record.refused, record.errors.first()) {
                (Some((reason, message)), _, _) => (Truth::False, *reason, message.clone()),
                (None, Some(refused), _) => (Truth::False, "RewindRefused", refused.why.clone()),
                (None, None, Some(error)) if unverified => (Truth::False, "Unverified", error.clone()),
                (None, None, Some(error)) => (Truth::False, "Invalid", error.clone()),
                (None, None, None) => (Truth::True, "Ready", String::new()),
            };
            record.set_condition(ConditionKind::Ready, status, reason, &message, now);
        });
    }

    fn record_environment(&mut self, change: impl Fn(&mut EnvironmentRecord)) {
        if self.epoch.is_none() || self.parts.config.observe {
            return;
        }
        let Some(Told::Present(entry)) = &self.entry else { return };
        let mut record = entry.record.clone();
        record.format = FORMAT;
        change(&mut record);
        if record == entry.record || self.recording {
            return;
        }
        self.recording = true;
        let (ledger, mut entry) = (self.parts.ledger.clone(), entry.clone());
        self.effects.spawn(async move {
            Finished::Recorded(match ledger.record_environment(Some(&entry.version), &record).await {
                Ok(version) => {
                    (entry.record, entry.version) = (record, version);
                    Ok(Some(entry))
                }
                // Somebody else wrote, be it this daemon's own election: a watch may be silent about it for long.
                Err(failure) if failure.kind == FailureKind::Conflict => match ledger.environment_listed().await {
                    // A server that contradicts itself is asked again later.
                    Ok(Some(now)) if now.version == entry.version => Err(failure),
                    now => now.map(|now| now.map(Box::new)),
                },
                Err(failure) => Err(failure),
            })
        });
    }

    // === the core ===

    fn admitted(&self, word: &Word) -> Admitted {
        word.admit(&self.records(), &self.parts.config.namespace, self.parts.limits, self.now())
    }

    /// Where nothing may be written, what would be done is said.
    fn tell_plans(&self) {
        let (true, Some(word)) = (self.parts.config.observe, &self.word) else { return };
        for (agent, admission) in self.admitted(word).agents {
            let entry = self.entries.get(&agent).cloned().unwrap_or(LedgerEntry::Absent);
            let live = self.parts.observer.snapshot(&agent);
            // What was not seen yet would be planned as if it were not there.
            if !live.synced {
                continue;
            }
            match preview(&agent, &self.parts.config, &admission, entry, live, self.now()) {
                Ok(planned) => {
                    let steps: Vec<_> = planned.plan.steps.iter().map(ToString::to_string).collect();
                    let waits: Vec<_> = planned.plan.waiting.iter().map(ToString::to_string).collect();
                    tracing::info!(environment = %self.name(), %agent, ?steps, ?waits, "would be done; only observing");
                }
                Err(why) => tracing::warn!(environment = %self.name(), %agent, %why, "cannot be planned"),
            }
        }
    }

    fn admit(&mut self) {
        if self.epoch.is_none() || !self.ledger_synced {
            return;
        }
        let Some(word) = &self.word else { return };
        let admitted = self.admitted(word);
        self.admit_again = false;
        self.parts.metrics.prune_blocked(self.name(), usize::from(admitted.prune_blocked.is_some()));
        for (agent, admission) in admitted.agents {
            self.agent(&agent);
            let Some(known) = self.agents.get_mut(&agent) else { continue };
            if known.admission.as_ref() != Some(&admission) {
                known.admission = Some(Arc::clone(&admission));
                self.observe(&agent, Observation::Admitted(admission));
            }
        }
        self.count();
    }

    /// Makes the machine of an agent that has none yet, and tells it all that is known.
    fn agent(&mut self, name: &AgentName) {
        if self.agents.contains_key(name) || self.epoch.is_none() || !self.ledger_synced {
            return;
        }
        let state = AgentState::new(name.clone(), Arc::clone(&self.parts.config));
        self.agents.insert(name.clone(), Agent { state, admission: None, asleep_until: None });
        let entry = self.entries.get(name).cloned().unwrap_or(LedgerEntry::Absent);
        self.observe(name, Observation::Ledger(entry));
        let live = self.parts.observer.snapshot(name);
        self.observe(name, Observation::Live(live));
    }

    fn observe(&mut self, name: &AgentName, observation: Observation) {
        let (Some(epoch), now) = (self.epoch, self.now()) else { return };
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let Some(agent) = self.agents.get_mut(name) else { return };
        // Only these two bring a record: another one is journalled, and the journal knows what it has.
        let brings_record = matches!(observation, Observation::Ledger(_) | Observation::Done(Done::Recorded(_)));
        let state = std::mem::replace(&mut agent.state, AgentState::new(name.clone(), Arc::clone(&self.parts.config)));
        let (state, actions) = step(state, observation, now, self.seed >> 16);
        agent.state = state;
        if brings_record {
            self.recorded(name);
        }
        for action in actions {
            self.act(name, epoch, action);
        }
    }

    /// A record was acknowledged: it goes into the journal.
    fn recorded(&self, name: &AgentName) {
        let record = self.agents.get(name).and_then(|agent| agent.state.record());
        let Some(record) = record.filter(|record| record.format > 0) else { return };
        let mut journal = self.parts.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = journal.note(self.name(), name, record) {
            tracing::error!(environment = %self.name(), agent = %name, %error, "the journal is not written");
        }
    }

    fn act(&mut self, name: &AgentName, epoch: u64, action: Action) {
        match action {
            Action::Wake(at) => {
                let old = self.agents.get_mut(name).and_then(|agent| agent.asleep_until.replace(at));
                if let Some(waiting) = old.and_then(|old| self.timers.get_mut(&old)) {
                    waiting.remove(name);
                }
                self.timers.entry(at).or_default().insert(name.clone());
            }
            Action::Announce(news) => {
                if news.warning {
                    tracing::warn!(environment = %self.name(), agent = %name, reason = news.reason, "{}", news.message);
                } else {
                    tracing::info!(environment = %self.name(), agent = %name, reason = news.reason, "{}", news.message);
                }
                if news.reason == "DriftHealed" {
                    self.parts.metrics.drift_healed(self.name());
                }
                let (ledger, agent, now) = (self.parts.ledger.clone(), name.clone(), self.now());
                let instance = self.parts.instance.clone();
                self.effects.spawn(async move {
                    ledger.announce(&agent, &news, now, &instance).await;
                    Finished::Nothing
                });
            }
            effect @ (Action::Record { .. }
            | Action::Write(_)
            | Action::DryRun(_)
            | Action::Delete { .. }
            | Action::Read(_)
            | Action::ReadLedger
            | Action::TellGit(_)) => {
                let (target, ledger) = (Arc::clone(&self.parts.target), self.parts.ledger.clone());
                let (agent, fence, clock) = (name.clone(), self.parts.fence.clone(), Arc::clone(&self.parts.clock));
                let write_backs = Arc::clone(&self.parts.write_backs);
                let environment = self.name().clone();
                // Only a commit of our own is held against it.
                let accepted = if matches!(effect, Action::TellGit(_)) { self.accepted_head() } else { None };
                self.effects.spawn(async move {
                    let begun = clock.monotonic();
                    let observation =
                        carry_out(&agent, (&environment, accepted), effect, &target, &ledger, &fence, write_backs)
                            .await;
                    let took = clock.monotonic().saturating_sub(begun);
                    Finished::Effect { agent, epoch, observation: Box::new(observation), took }
                });
            }
        }
    }

    // === time ===

    fn next_alarm(&self) -> Option<Timestamp> {
        let timer = self.timers.iter().find(|(_, agents)| !agents.is_empty()).map(|(at, _)| *at);
        [timer, self.due].into_iter().flatten().min()
    }

    fn ring_alarms(&mut self) {
        let now = self.now();
        while let Some(entry) = self.timers.first_entry().filter(|entry| *entry.key() <= now) {
            for agent in entry.remove() {
                if let Some(known) = self.agents.get_mut(&agent) {
                    known.asleep_until = None;
                }
                self.observe(&agent, Observation::Woken);
            }
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.listen_again = true;
            self.record_word();
        }
    }

    // === what is told ===

    fn count(&self) {
        let records = self.records();
        let now = self.now();
        for kind in [ConditionKind::Ready, ConditionKind::Progressing, ConditionKind::Degraded, ConditionKind::Stalled]
        {
            for status in [Truth::True, Truth::False] {
                let having = records
                    .values()
                    .filter(|record| record.condition(kind).is_some_and(|condition| condition.status == status));
                self.parts.metrics.agents(self.name(), kind, status, having.count());
            }
        }
        let lag = records
            .values()
            .filter_map(|record| record.differs.as_ref())
            .map(|differs| Duration::try_from(now.duration_since(differs.since)).unwrap_or_default());
        self.parts.metrics.lag(self.name(), lag.max().unwrap_or_default());
        let busy = self.agents.values().filter(|agent| agent.state.is_busy()).count();
        self.parts.metrics.queued(self.name(), busy);
    }

    /// Whether anything goes on.
    fn tell_settled(&self) {
        let quiet = self.word.is_some()
            && !self.listening
            && !self.listen_again
            && !self.admit_again
            && !self.recording
            && self.agents.values().all(|agent| !agent.state.is_busy() && agent.admission.is_some());
        let records: Vec<_> = self.agents.values().filter_map(|agent| agent.state.record()).collect();
        let open = |record: &&AgentRecord| record.operation.is_some();
        let stalled = |record: &&AgentRecord| {
            record.condition(ConditionKind::Stalled).is_some_and(|condition| condition.status == Truth::True)
        };
        let ready = |record: &&AgentRecord| {
            record.phase == crate::record::Phase::Removed
                || record.condition(ConditionKind::Ready).is_some_and(|condition| condition.status == Truth::True)
        };
        let settled = if !quiet || records.iter().any(|record| open(record) && !stalled(record)) {
            Settled::No
        } else if records.iter().all(ready) && !self.heard.errors.has_errors() && self.heard.refused.is_none() {
            Settled::Ready
        } else {
            Settled::Stuck
        };
        self.parts.settled.send_if_modified(|known| std::mem::replace(known, settled) != settled);
    }
}

fn standing_of(entry: Option<&LedgerEntry>) -> Option<crate::model::ReleaseId> {
    entry?.record()?.stable.as_ref().map(|stable| stable.release)
}
