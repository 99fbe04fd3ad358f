//! The machines of an environment's agents: what they learn, what they ask for, and whose turn it is.

use std::sync::Arc;

use super::effect::carry_out;
use super::environment::{Environment, Finished};
use super::word::Word;
use crate::model::{AgentName, Timestamp};
use crate::reconcile::{Action, Admission, Admitted, AgentState, Done, LedgerEntry, Observation, preview, step};

/// Agents that are kept ready for more news: more of them rest, and take far less memory.
const AWAKE: usize = 32;
/// Agents that are told of something new before anything else is heard.
const BATCH: usize = 64;
/// Agents whose lines reach the journal's disk together.
const AT_ONCE: usize = 256;

/// One agent's machine.
pub(super) struct Agent {
    pub(super) state: AgentState,
    pub(super) admission: Option<Arc<Admission>>,
    asleep_until: Option<Timestamp>,
    /// It waits for its turn to learn of its admission.
    waits: bool,
    /// It holds what is seen and rendered; else that is shown to it before anything else.
    awake: bool,
}

// === what they may do ===

impl Environment {
    fn admitted(&self, word: &Word) -> Admitted {
        word.admit(&self.records, &self.parts.config.namespace, self.parts.limits, self.now())
    }

    /// Where nothing may be written, what would be done is said.
    pub(super) fn tell_plans(&self) {
        let (true, Some(word)) = (self.parts.config.observe, &self.word) else { return };
        for (agent, admission) in self.admitted(word).agents {
            let entry = self.entries.get(&agent).cloned().unwrap_or(LedgerEntry::Absent);
            let live = self.parts.observer.snapshot(&agent);
            self.parts.observer.rest(&agent);
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

    /// Decides for all agents what they may do; those that may do something else are told in turn.
    pub(super) fn admit(&mut self) {
        if !self.may_decide() {
            return;
        }
        let Some(word) = &self.word else { return };
        let admitted = self.admitted(word);
        self.admit_again = false;
        self.admitted_at = self.now();
        self.admit_at = admitted.again;
        self.parts.metrics.prune_blocked(self.name(), usize::from(admitted.prune_blocked.is_some()));
        for (name, admission) in admitted.agents {
            self.agent(&name);
            let Some(agent) = self.agents.get_mut(&name) else { continue };
            let same = agent.admission.as_ref().is_some_and(|known| known.asks_the_same(&admission));
            if same {
                agent.state.follow(&admission);
            } else if !std::mem::replace(&mut agent.waits, true) {
                self.turns.push_back(name);
            }
            agent.admission = Some(admission);
        }
    }

    /// Whether everything that decisions depend on was seen: without all of it no machine is made.
    pub(super) fn may_decide(&self) -> bool {
        self.epoch.is_some() && self.ledger_synced && self.parts.observer.is_synced()
    }

    /// Tells those who wait for their turn what they may do, while not too many are at work.
    pub(super) fn take_turns(&mut self) {
        for _ in 0..BATCH {
            if !self.has_turns() {
                return;
            }
            let Some(name) = self.turns.pop_front() else { return };
            let Some(agent) = self.agents.get_mut(&name) else { continue };
            agent.waits = false;
            if let Some(admission) = agent.admission.clone() {
                self.observe(&name, Observation::Admitted(admission));
            }
        }
    }

    /// Whether somebody's turn has come.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty() && self.effects.len() < self.parts.at_work
    }

    // === what they learn ===

    /// Makes the machine of every agent that the ledger knows and that has none yet.
    pub(super) fn all_agents(&mut self) {
        let known: Vec<_> = self.entries.keys().cloned().collect();
        for agent in known {
            self.agent(&agent);
        }
    }

    /// Makes the machine of an agent that has none yet, and tells it all that is known.
    pub(super) fn agent(&mut self, name: &AgentName) {
        if self.agents.contains_key(name) || !self.may_decide() {
            return;
        }
        let state = AgentState::new(name.clone(), Arc::clone(&self.parts.config));
        let agent = Agent { state, admission: None, asleep_until: None, waits: false, awake: true };
        self.agents.insert(name.clone(), agent);
        self.awake.push_back(name.clone());
        let entry = self.entries.get(name).cloned().unwrap_or(LedgerEntry::Absent);
        self.observe(name, Observation::Ledger(entry));
        let live = self.parts.observer.snapshot(name);
        self.observe(name, Observation::Live(live));
    }

    pub(super) fn observe(&mut self, name: &AgentName, observation: Observation) {
        let (Some(epoch), now) = (self.epoch, self.now()) else { return };
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let Some(agent) = self.agents.get_mut(name) else { return };
        if !std::mem::replace(&mut agent.awake, true) {
            self.awake.push_back(name.clone());
            if !matches!(observation, Observation::Live(_)) {
                agent.state.rouse(self.parts.observer.snapshot(name));
            }
        }
        // Only these two bring a record: another one is journalled, and the journal knows what it has.
        let brings_record = matches!(observation, Observation::Ledger(_) | Observation::Done(Done::Recorded(_)));
        let state = std::mem::replace(&mut agent.state, AgentState::new(name.clone(), Arc::clone(&self.parts.config)));
        let (state, actions) = step(state, observation, now, self.seed >> 16);
        agent.state = state;
        if brings_record && let Some(record) = agent.state.record().filter(|record| record.format > 0) {
            self.acknowledged.insert(name.clone(), Arc::clone(record));
        }
        for action in actions {
            self.act(name, epoch, action);
        }
        self.let_rest();
    }

    /// Lets those rest that were awake longest, where too many are.
    fn let_rest(&mut self) {
        // Two for each one that may have been roused: those at work are passed over.
        for _ in 0..2 {
            if self.awake.len() <= AWAKE {
                return;
            }
            let Some(name) = self.awake.pop_front() else { return };
            let Some(agent) = self.agents.get_mut(&name) else { continue };
            agent.awake = !agent.state.doze();
            if agent.awake {
                self.awake.push_back(name);
            } else {
                self.parts.observer.rest(&name);
            }
        }
    }

    /// Writes acknowledged records into the journal, off the runtime's threads: it waits for the disk.
    ///
    /// What comes meanwhile is written with the next ones: the newest record of an agent has all that is due.
    pub(super) fn write_journal(&mut self) {
        if self.journalling || self.acknowledged.is_empty() {
            return;
        }
        self.journalling = true;
        let records = std::mem::take(&mut self.acknowledged);
        if let Some(notes) = &self.parts.notes {
            records.iter().for_each(|(agent, record)| notes.tell(self.name(), agent, record));
        }
        let (journal, environment) = (Arc::clone(&self.parts.journal), self.name().clone());
        self.effects.spawn_blocking(move || {
            let mut journal = journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let records: Vec<_> = records.iter().map(|(agent, record)| (agent, &**record)).collect();
            for some in records.chunks(AT_ONCE) {
                if let Err(error) = journal.note_all(&environment, some.iter().copied()) {
                    let agents: Vec<_> = some.iter().map(|(agent, _)| agent.as_str()).collect();
                    tracing::error!(%environment, agents = agents.join(" "), %error, "the journal is not written");
                }
            }
            Finished::Journalled
        });
    }

    // === what they ask for ===

    fn act(&mut self, name: &AgentName, epoch: u64, action: Action) {
        match action {
            Action::Wake(at) => {
                let old = self.agents.get_mut(name).and_then(|agent| agent.asleep_until.replace(at));
                if let Some(old) = old
                    && let Some(waiting) = self.timers.get_mut(&old)
                {
                    waiting.remove(name);
                    if waiting.is_empty() {
                        self.timers.remove(&old);
                    }
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
                let now = self.now();
                self.herald.tell(name.clone(), news, now);
            }
            Action::Measure(question) => {
                let (agent, now) = (name.clone(), self.now());
                let providers = Arc::clone(&self.parts.providers);
                self.effects.spawn(async move {
                    let measured = providers.measure(&question, now).await;
                    Finished::Answered {
                        agent,
                        epoch,
                        observation: Box::new(Observation::Measured(Box::new(measured))),
                    }
                });
            }
            Action::Smoke(smoke) => {
                let (agent, front) = (name.clone(), self.parts.front.clone());
                self.effects.spawn(async move {
                    let seen = super::smoke::smoke(front.as_ref(), &smoke).await;
                    let observation = Box::new(Observation::Smoked(smoke.release, seen));
                    Finished::Answered { agent, epoch, observation }
                });
            }
            Action::Gate(question) => {
                let (agent, gates) = (name.clone(), Arc::clone(&self.parts.gates));
                self.effects.spawn(async move {
                    let answer = gates.ask(&question).await;
                    Finished::Answered { agent, epoch, observation: Box::new(Observation::Gate(question, answer)) }
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

    pub(super) fn next_alarm(&self) -> Option<Timestamp> {
        let timer = self.timers.first_key_value().map(|(at, _)| *at);
        [timer, self.due, self.admit_at].into_iter().flatten().min()
    }

    pub(super) fn ring_alarms(&mut self) {
        let now = self.now();
        while let Some(entry) = self.timers.first_entry().filter(|entry| *entry.key() <= now) {
            for agent in entry.remove() {
                let due = self.agents.get_mut(&agent).is_some_and(|known| {
                    known.asleep_until = None;
                    known.state.is_due(now)
                });
                if due {
                    self.observe(&agent, Observation::Woken);
                }
            }
        }
        if self.admit_at.take_if(|at| *at <= now).is_some() {
            self.admit_again = true;
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.listen_again = true;
            self.record_word();
        }
    }
}
