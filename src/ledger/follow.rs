//! What changed in the ledger, as a stream.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, PoisonError};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};

use super::entry::{EnvironmentEntry, Kept, KeptAgent};
use super::store::{Ledger, PAGE};
use crate::model::{AgentName, ResourceVersion};
use crate::observe::{Jitter, Pace, Read, Told, Watch};
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
    Agents(Told<KeptAgent>),
    Environments(Told<Kept>),
}

// === impl Ledger ===

impl Ledger {
    /// Tells of every agent and of the environment, and then of every change; never ends.
    ///
    /// What is older than what this ledger wrote or told is left out.
    pub fn watch(&self, pace: &Pace) -> Result<impl Stream<Item = LedgerChange> + Send + use<>, Failure> {
        let jitter = Arc::new(Jitter::new(Jitter::seed()));
        let path = |plural: &str| self.collection(plural).map_err(|refusal| refusal.failure("watch the ledger"));
        let (agents, environments) = (path("agentreleases")?, path("agentenvironments")?);
        let read = Read { listed: KeptAgent::of, told: KeptAgent::of };
        let agents = Watch::new(self.api.clone(), agents, "", PAGE, read, pace.clone(), jitter.clone());
        let read = Read { listed: Kept::of, told: Kept::of };
        let environments = Watch::new(self.api.clone(), environments, "", PAGE, read, pace.clone(), jitter);
        let following = Following {
            ledger: self.clone(),
            told: futures::stream::select(
                agents.stream().map(Side::Agents),
                environments.stream().map(Side::Environments),
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
    fn is_news(&self, kept: &KeptAgent) -> bool {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let held = newest.get(&kept.agent);
        let news = held.is_none_or(|(uid, held)| &kept.uid != uid || kept.version.is_at_least(held));
        drop(newest);
        if news {
            self.saw(&kept.agent, &kept.uid, &kept.version);
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

    fn agents(&mut self, told: Told<KeptAgent>) {
        match told {
            Told::Listed(listed, at) => {
                let mut before = std::mem::take(&mut self.shown);
                for kept in listed {
                    before.remove(&kept.agent);
                    self.present(kept);
                }
                for agent in before {
                    self.absent(agent, &at);
                }
                self.due.push_back(LedgerChange::Synced);
            }
            Told::Changed(kept) => self.present(kept),
            Told::Gone(kept) => {
                self.shown.remove(&kept.agent);
                self.absent(kept.agent, &kept.version);
            }
            Told::At(_) => {}
            Told::Trouble(refusal, _) => self.due.push_back(LedgerChange::Trouble(refusal.failure("watch the ledger"))),
        }
    }

    fn present(&mut self, kept: KeptAgent) {
        self.shown.insert(kept.agent.clone());
        if self.ledger.is_news(&kept) {
            self.due.push_back(LedgerChange::Agent(kept.agent, Box::new(kept.entry)));
        }
    }

    fn absent(&mut self, agent: AgentName, at: &ResourceVersion) {
        if self.ledger.is_gone(&agent, at) {
            self.due.push_back(LedgerChange::Agent(agent, Box::new(LedgerEntry::Absent)));
        }
    }

    fn environment(&mut self, told: Told<Kept>) {
        let ours = self.ledger.environment.as_str().to_owned();
        let is_ours = |kept: &Kept| kept.name == ours;
        let entry = match told {
            Told::Listed(listed, _) => Some(listed.into_iter().find(is_ours)),
            Told::Changed(kept) => is_ours(&kept).then_some(Some(kept)),
            Told::Gone(kept) => is_ours(&kept).then_some(None),
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
