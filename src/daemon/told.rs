//! What an environment tells of itself: counts of its agents, and how far they are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::environment::Environment;
use super::parts::Settled;
use crate::model::Timestamp;
use crate::record::{AgentRecord, ConditionKind, Phase, Truth};

/// Agents with an operation under way, beyond which people's news wait.
const CROWD: usize = 16;

/// The conditions that are counted.
const KINDS: [ConditionKind; 4] =
    [ConditionKind::Ready, ConditionKind::Progressing, ConditionKind::Degraded, ConditionKind::Stalled];

/// Agents by what their records say; counted on with every record that changes.
#[derive(Default)]
pub(super) struct Tally {
    having: BTreeMap<(ConditionKind, bool), usize>,
    /// Since when Git and the target differ, each with how many agents.
    differs: BTreeMap<Timestamp, usize>,
    /// Agents with an operation under way.
    open: usize,
}

// === impl Tally ===

impl Tally {
    /// Counts a record in the place of another.
    pub(super) fn replace(&mut self, old: Option<&AgentRecord>, new: Option<&AgentRecord>) {
        let counted = |record: &AgentRecord| KINDS.map(|kind| Some((kind, is(record, kind)?)));
        for key in old.map(counted).into_iter().flatten().flatten() {
            take_one(&mut self.having, &key);
        }
        for key in new.map(counted).into_iter().flatten().flatten() {
            *self.having.entry(key).or_default() += 1;
        }
        let open = |record: Option<&AgentRecord>| usize::from(record.is_some_and(|record| record.operation.is_some()));
        self.open = self.open + open(new) - open(old);
        let since = |record: &AgentRecord| Some(record.differs.as_ref()?.since);
        if let Some(since) = old.and_then(since) {
            take_one(&mut self.differs, &since);
        }
        if let Some(since) = new.and_then(since) {
            *self.differs.entry(since).or_default() += 1;
        }
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Whether a condition says yes or no; nothing where it says neither.
fn is(record: &AgentRecord, kind: ConditionKind) -> Option<bool> {
    match record.condition(kind)?.status {
        Truth::True => Some(true),
        Truth::False => Some(false),
        Truth::Unknown => None,
    }
}

impl Environment {
    /// Shows how many agents there are of each condition.
    pub(super) fn count(&self) {
        let (metrics, now) = (&self.parts.metrics, self.now());
        for kind in KINDS {
            for (said, status) in [(true, Truth::True), (false, Truth::False)] {
                let count = self.tally.having.get(&(kind, said)).copied().unwrap_or_default();
                metrics.agents(self.name(), kind, status, count);
            }
        }
        let since = self.tally.differs.keys().next();
        let lag = since.map(|since| Duration::try_from(now.duration_since(*since)).unwrap_or_default());
        metrics.lag(self.name(), lag.unwrap_or_default());
        metrics.queued(self.name(), self.effects.len() + self.turns.len());
        self.herald.crowded(self.tally.open > CROWD);
    }

    /// Says whether anything goes on; looked at closely only when nothing seems to.
    pub(super) fn tell_settled(&self) {
        let going_on = self.word.is_none()
            || self.listening
            || self.listen_again
            || self.admit_again
            || !self.effects.is_empty()
            || !self.turns.is_empty();
        let settled = if going_on { Settled::No } else { self.settled_now() };
        self.parts.settled.send_if_modified(|known| std::mem::replace(known, settled) != settled);
    }

    fn settled_now(&self) -> Settled {
        let open =
            |record: &AgentRecord| record.operation.is_some() && is(record, ConditionKind::Stalled) != Some(true);
        let ready =
            |record: &AgentRecord| record.phase == Phase::Removed || is(record, ConditionKind::Ready) == Some(true);
        let records = || self.agents.values().filter_map(|agent| agent.state.record());
        let busy = self.agents.values().any(|agent| agent.state.is_busy() || agent.admission.is_none());
        if busy || records().any(|record| open(record)) {
            Settled::No
        } else if records().all(|record| ready(record))
            && !self.heard.errors.has_errors()
            && self.heard.refused.is_none()
        {
            Settled::Ready
        } else {
            Settled::Stuck
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_once_whatever_it_was() {
        let at = Timestamp::UNIX_EPOCH;
        let record = |ready| {
            let mut record = AgentRecord::default();
            record.set_condition(ConditionKind::Ready, ready, "Ready", "", at);
            record
        };
        let (yes, no, unknown) = (record(Truth::True), record(Truth::False), record(Truth::Unknown));
        let mut tally = Tally::default();
        let count = |tally: &Tally, said| tally.having.get(&(ConditionKind::Ready, said)).copied().unwrap_or(0);
        tally.replace(None, Some(&yes));
        tally.replace(None, Some(&yes));
        assert_eq!((count(&tally, true), count(&tally, false)), (2, 0));
        tally.replace(Some(&yes), Some(&no));
        assert_eq!((count(&tally, true), count(&tally, false)), (1, 1));
        tally.replace(Some(&no), Some(&unknown));
        tally.replace(Some(&yes), None);
        assert!(tally.having.is_empty());
    }
}
