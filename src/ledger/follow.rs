//! What changed in the ledger, as a stream.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, PoisonError};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};

use super::entry::{EnvironmentEntry, Kept};
use super::store::Ledger;
use crate::model::{AgentName, ResourceVersion};
use crate::observe::{Jitter, Pace, Told, Watch};
use crate::reconcile::{Failure, LedgerEntry};

/// One change of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub enum LedgerChange {
    /// What it holds of one agent now.
    Agent(AgentName, Box<LedgerEntry>),
    /// What it holds of the environment now.
    Environment(Option<Box<EnvironmentEntry>>),
    /// All agents were told of once.
    Synced,
    /// It cannot be watched; it is tried again by itself.
    Trouble(Failure),
}

/// Both watches and what they last told.
struct Following {
    ledger: Ledger,
    told: BoxStream<'static, Side>,
    /// Agents that the watch has shown, so that a list can tell who is gone.
    shown: HashSet<AgentName>,
    due: VecDeque<LedgerChange>,
}

/// Which of the two watches told something.
enum Side {
    Agents(Told),
    Environments(Told),
}

// === impl Ledger ===

impl Ledger {
    /// Tells of every agent and of the environment, and then of every change; never ends.
    ///
    /// What is older than what this ledger wrote or told is left out.
    pub fn watch(&self, pace: &Pace) -> Result<impl Stream<Item = LedgerChange> + Send + use<>, Failure> {
        let jitter = Arc::new(Jitter::new(Jitter::seed()));
        let watch = |plural: &str| {
            let path = self.collection(plural).map_err(|refusal| refusal.failure("watch the ledger"))?;
            Ok(Watch::new(self.api.clone(), path, "", 500, pace.clone(), jitter.clone()))
        };
        let following = Following {
            ledger: self.clone(),
            told: futures::stream::select(
                watch("agentreleases")?.stream().map(Side::Agents),
                watch("agentenvironments")?.stream().map(Side::Environments),
            )
            .boxed(),
            shown: HashSet::new(),
            due: VecDeque::new(),
        };
        Ok(futures::stream::unfold(following, |mut following| async {
            let change = following.next().await?;
            Some((change, following))
        }))
    }

    /// Whether something that new was told or written already; else remembers it.
    fn is_news(&self, agent: &AgentName, kept: &Kept) -> bool {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let news = newest.get(agent).is_none_or(|(uid, held)| &kept.uid != uid || kept.version.is_at_least(held));
        drop(newest);
        if news {
            self.saw(agent, &kept.uid, &kept.version);
        }
        news
    }

    /// Forgets an agent that is gone at `at`; no when something newer was written since.
    fn is_gone(&self, agent: &AgentName, at: &ResourceVersion) -> bool {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = newest.get(agent).is_none_or(|(_, held)| at.is_at_least(held));
        if gone {
            newest.remove(agent);
        }
        gone
    }
}

// === impl Following ===

impl Following {
    async fn next(&mut self) -> Option<LedgerChange> {
        loop {
            if let Some(change) = self.due.pop_front() {
                return Some(change);
            }
            match self.told.next().await? {
                Side::Agents(told) => self.agents(told),
                Side::Environments(told) => self.environment(told),
            }
        }
    }

    fn agents(&mut self, told: Told) {
        match told {
            Told::Listed(objects, at) => {
                let kept: Vec<_> = objects.into_iter().filter_map(Kept::of).collect();
                let mut before = std::mem::take(&mut self.shown);
                for kept in kept {
                    if let Some(agent) = kept.agent() {
                        before.remove(&agent);
                    }
                    self.present(kept);
                }
                for agent in before {
                    self.absent(agent, &at);
                }
                self.due.push_back(LedgerChange::Synced);
            }
            Told::Changed(object) => {
                if let Some(kept) = Kept::of(object) {
                    self.present(kept);
                }
            }
            Told::Gone(object) => {
                let Some(kept) = Kept::of(object) else { return };
                if let Some(agent) = kept.agent() {
                    self.shown.remove(&agent);
                    self.absent(agent, &kept.version);
                }
            }
            Told::At(_) => {}
            Told::Trouble(refusal, _) => self.due.push_back(LedgerChange::Trouble(refusal.failure("watch the ledger"))),
        }
    }

    fn present(&mut self, kept: Kept) {
        let Some(agent) = kept.agent() else { return };
        self.shown.insert(agent.clone());
        if self.ledger.is_news(&agent, &kept) {
            self.due.push_back(LedgerChange::Agent(agent, Box::new(kept.agent_entry())));
        }
    }

    fn absent(&mut self, agent: AgentName, at: &ResourceVersion) {
        if self.ledger.is_gone(&agent, at) {
            self.due.push_back(LedgerChange::Agent(agent, Box::new(LedgerEntry::Absent)));
        }
    }

    fn environment(&mut self, told: Told) {
        let ours = self.ledger.environment.as_str().to_owned();
        let is_ours = |kept: &Kept| kept.name == ours;
        let entry = match told {
            Told::Listed(objects, _) => objects.into_iter().filter_map(Kept::of).find(is_ours).map(Some).or(Some(None)),
            Told::Changed(object) => Kept::of(object).filter(is_ours).map(Some),
            Told::Gone(object) => Kept::of(object).filter(is_ours).map(|_| None),
            Told::At(_) => None,
            Told::Trouble(refusal, _) => {
                self.due.push_back(LedgerChange::Trouble(refusal.failure("watch the ledger")));
                None
            }
        };
        if let Some(entry) = entry {
            let entry = entry.map(|kept| Box::new(kept.environment_entry()));
            self.due.push_back(LedgerChange::Environment(entry));
        }
    }
}
