//! The task of one environment: it hears Git, the ledger and the target, and brings what they say to the core.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use jiff::SignedDuration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Ended;
use super::effect::word_of;
use super::git::Wish;
use super::machines::Agent;
use super::parts::Parts;
use super::told::Tally;
use super::word::{Ask, Heard, Word, listen};
use crate::desired::Cache;
use crate::ledger::{EnvironmentEntry, Herald, LedgerChange, Role};
use crate::model::{AgentName, CommitId, EnvironmentName, ObjectRef, Timestamp};
use crate::observe::{Changed, Pace};
use crate::reconcile::{Done, Failure, FailureKind, LedgerEntry, Observation, Ties};
use crate::record::{ConditionKind, EnvironmentRecord, FORMAT, Records, Truth};
use crate::source::{self, SourceError, SourceStatus};

/// Longest time between two looks at what only time changes: expired consents, models that retire.
const STALE: Duration = Duration::from_mins(5);
/// When what could not be recorded is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(1);
/// How long people's news are waited for when it ends.
const LAST_NEWS: Duration = Duration::from_secs(10);
/// News that are heard before it is decided what follows, even if there are more.
const MANY: usize = 1000;
/// Lines of errors that the environment's record keeps.
const MAX_ERRORS: usize = 10;

/// The task of one environment.
#[expect(clippy::struct_excessive_bools, reason = "each is a piece of work that is due or under way")]
pub(crate) struct Environment {
    pub(super) parts: Parts,
    pub(super) epoch: Option<u64>,
    pub(super) agents: HashMap<AgentName, Agent>,
    /// Agents that wait to be told what they may do.
    pub(super) turns: VecDeque<AgentName>,
    /// Agents whose machines hold what they saw, those first that have held it longest.
    pub(super) awake: VecDeque<AgentName>,
    pub(super) entries: BTreeMap<AgentName, LedgerEntry>,
    /// The records of `entries`.
    pub(super) records: Records,
    pub(super) tally: Tally,
    count_again: bool,
    pub(super) ledger_synced: bool,
    /// Nothing: it was not told of yet.
    entry: Option<Told>,
    pub(super) word: Option<Word>,
    ties: Ties,
    pub(super) heard: Heard,
    /// What was read with: handed to the blocking reader and back.
    cache: Option<Cache>,
    pub(super) listening: bool,
    pub(super) listen_again: bool,
    pub(super) admit_again: bool,
    /// News that were heard since it was decided what follows.
    undecided: usize,
    pub(super) admitted_at: Timestamp,
    /// When time alone changes what agents may do.
    pub(super) admit_at: Option<Timestamp>,
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
    /// Records that the journal does not have yet.
    pub(super) acknowledged: Records,
    pub(super) journalling: bool,
    pub(super) effects: JoinSet<Finished>,
    pub(super) herald: Herald,
    pub(super) timers: BTreeMap<Timestamp, BTreeSet<AgentName>>,
    pub(super) due: Option<Timestamp>,
    pub(super) seed: u64,
}

/// What the ledger told of the environment.
enum Told {
    Absent,
    Present(Box<EnvironmentEntry>),
}

/// What a spawned piece of work brings back.
pub(super) enum Finished {
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
    Journalled,
    /// What was asked for beside the effects.
    Answered {
        agent: AgentName,
        epoch: u64,
        observation: Box<Observation>,
    },
}

impl Environment {
    pub(crate) fn new(parts: Parts, seed: u64) -> Self {
        let herald = Herald::new(parts.ledger.clone(), parts.instance.clone());
        Self {
            parts,
            epoch: None,
            agents: HashMap::new(),
            turns: VecDeque::new(),
            awake: VecDeque::new(),
            entries: BTreeMap::new(),
            records: Records::new(),
            tally: Tally::default(),
            count_again: false,
            ledger_synced: false,
            entry: None,
            word: None,
            ties: Ties::default(),
            heard: Heard::default(),
            cache: Some(Cache::default()),
            listening: false,
            listen_again: false,
            admit_again: false,
            undecided: 0,
            admitted_at: Timestamp::UNIX_EPOCH,
            admit_at: None,
            settled: BTreeMap::new(),
            away: None,
            round: 0,
            sync_round: None,
            answered: None,
            judged: 0,
            recording: false,
            acknowledged: Records::new(),
            journalling: false,
            effects: JoinSet::new(),
            herald,
            timers: BTreeMap::new(),
            due: None,
            seed,
        }
    }

    pub(super) fn name(&self) -> &EnvironmentName {
        &self.parts.config.environment
    }

    pub(super) fn now(&self) -> Timestamp {
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
                Some(ended) = self.effects.join_next() => match ended {
                    Ok(ended) => self.ended(ended),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                Some(change) = ledger.next() => self.ledger_changed(change),
                changed = self.parts.observer.changed() => self.target_changed(changed),
                changed = source.changed() => {
                    if changed.is_err() {
                        return Err(Failure { kind: FailureKind::Refused, message: "the source ended".to_owned() });
                    }
                    let status = source.borrow_and_update().clone();
                    self.source_changed(&status);
                }
                // Everything that is there was heard: only now is it decided what follows.
                () = std::future::ready(()), if self.undecided > 0 || self.has_turns() => {
                    self.decide();
                    continue;
                }
                () = stale => {}
            }
            self.ring_alarms();
            self.write_journal();
            self.undecided += 1;
            if self.undecided >= MANY {
                self.decide();
            }
        }
        // The fence still holds: effects that were begun may end, and their records are found at the next start.
        self.write_journal();
        while let Some(ended) = self.effects.join_next().await {
            if let Ok(Finished::Journalled) = ended {
                self.journalling = false;
            }
            self.write_journal();
        }
        self.herald.end(LAST_NEWS).await;
        Ok(())
    }

    /// Decides what follows from all that was heard.
    fn decide(&mut self) {
        self.undecided = 0;
        let stale = self.now().duration_since(self.admitted_at) >= SignedDuration::try_from(STALE).unwrap_or_default();
        if self.admit_again || stale {
            self.admit();
        }
        self.take_turns();
        self.write_journal();
        self.listen();
        if std::mem::take(&mut self.count_again) {
            self.count();
        }
        self.tell_settled();
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
        self.turns.clear();
        self.awake.clear();
        self.timers.clear();
        if let Some(epoch) = epoch {
            tracing::info!(environment = %self.name(), epoch, "leading");
            self.admit_again = true;
            self.all_agents();
            self.asked_to_sync();
            // What was heard before it led was not recorded then.
            self.record_word();
        }
    }

    fn ledger_changed(&mut self, change: LedgerChange) {
        match change {
            LedgerChange::Agent(agent, entry) => {
                let mut entry = *entry;
                if self.entries.get(&agent) == Some(&entry) {
                    return;
                }
                // Its own record comes back by the watch: that is no news for whom it was acknowledged to.
                let known = self.agents.get(&agent).map(|known| &known.state).filter(|state| state.holds(&entry));
                let own = known.and_then(|state| state.record().cloned());
                if let (LedgerEntry::Present { record, .. }, Some(own)) = (&mut entry, &own) {
                    *record = Arc::clone(own);
                }
                if self.word.is_none() {
                    self.watch_what_is_owned(&entry);
                }
                let moved = standing_of(self.entries.get(&agent)) != standing_of(Some(&entry));
                self.entries.insert(agent.clone(), entry.clone());
                self.remember(&agent, &entry);
                self.listen_again |= moved && self.must_reread(&agent);
                if own.is_none() {
                    self.observe(&agent, Observation::Ledger(entry));
                }
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
                self.all_agents();
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
                let known = self.agents.keys().cloned().collect();
                // All first lists may just have come in.
                self.tell_plans();
                self.all_agents();
                known
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
            Finished::Journalled => self.journalling = false,
            Finished::Answered { agent, epoch, observation } => {
                if Some(epoch) == self.epoch {
                    self.observe(&agent, *observation);
                }
            }
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
    pub(super) fn accepted_head(&self) -> Option<CommitId> {
        let Some(Told::Present(entry)) = &self.entry else { return None };
        let head = crate::desired::Track::Branch(self.parts.git.branch().to_owned());
        entry.record.accepted.get(&head.key()).map(|revision| revision.commit.clone())
    }

    /// Takes the record of an agent, and lets other environments see it.
    fn remember(&mut self, agent: &AgentName, entry: &LedgerEntry) {
        let new = entry.record().cloned();
        let old = match &new {
            Some(record) => self.records.insert(agent.clone(), Arc::clone(record)),
            None => self.records.remove(agent),
        };
        let (before, after) = (old.as_deref(), new.as_deref());
        self.tally.replace(before, after);
        self.count_again = true;
        let moves = self.agents.get(agent).and_then(|known| known.admission.as_deref());
        let moves = moves.is_some_and(|admission| !admission.takes.is_empty() || !admission.leaves.is_empty());
        let asked = self.word.as_ref().map(|word| &word.desired);
        self.admit_again |= moves || asked.is_none_or(|asked| self.ties.concern(asked, agent, before, after));
        let mut shared = self.parts.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let here = shared.entry(self.name().clone()).or_default();
        match new {
            Some(record) => drop(here.insert(agent.clone(), record)),
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
        if !self.listen_again || self.listening || self.is_deaf() {
            return;
        }
        let status = Arc::clone(&self.parts.git.status().borrow());
        let Some(mut cache) = self.cache.take() else { return };
        self.listen_again = false;
        self.listening = true;
        let (git, environment) = (Arc::clone(&self.parts.git), self.name().clone());
        let target = self.parts.config.target;
        let write_backs = Arc::clone(&self.parts.write_backs);
        let (record, records, now) = (self.record(), self.records.clone(), self.now());
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
                target,
                record: &record,
                records: &records,
                elsewhere,
                now,
                people: &write_backs.people,
            };
            let heard = listen(&ask, &mut cache);
            Finished::Heard { heard: Box::new(heard), cache: Box::new(cache), round: status.round }
        });
    }

    /// Whether Git cannot be understood yet: the ledger or the first look is not there.
    fn is_deaf(&self) -> bool {
        let git = self.parts.git.status();
        let status = git.borrow();
        let unseen = status.last_success.is_none() || status.round < self.round && self.word.is_none();
        unseen || self.entry.is_none() || !self.ledger_synced
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
            let config = &self.parts.config;
            word.kinds(config.target, &config.gate).for_each(|kind| self.parts.observer.watch_kind(kind));
            self.due = word.due;
        }
        let more = heard.tracks != self.heard.tracks || heard.pins != self.heard.pins;
        let (word, heard) = (heard.word, Heard { word: None, ..heard });
        if let Some(word) = word {
            self.ties = Ties::of(&word.desired, &self.parts.config.namespace);
            self.word = Some(word);
        }
        self.heard = heard;
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
    pub(super) fn record_word(&mut self) {
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
}

fn standing_of(entry: Option<&LedgerEntry>) -> Option<crate::model::ReleaseId> {
    entry?.record()?.stable.as_ref().map(|stable| stable.release)
}
