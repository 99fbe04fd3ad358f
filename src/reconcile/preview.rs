//! What the core would do, without doing it: the very plan that would be carried out.

use std::sync::Arc;

use super::course;
use super::state::{AgentConfig, AgentState};
use super::target::Target;
use super::{Admission, LedgerEntry, Observation, Wanted, step};
use crate::model::{AgentName, LiveState, Timestamp};
use crate::plan::Plan;
use crate::record::{AgentRecord, Operation};

/// What would be done to one agent now.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The operation that would be begun, or that is open; nothing: what stands is only kept as it is.
    pub operation: Option<Operation>,
    /// Its steps, what it waits for, and what would follow.
    pub plan: Plan,
    /// Why Git is not followed, if it is not.
    pub refused: Option<String>,
    /// Warnings of what Git asks for.
    pub warnings: Vec<String>,
}

/// Plans one agent from what Git, the ledger and the target say now; nothing has an effect.
///
/// # Errors
///
/// In one sentence, when what shall stand cannot be rendered.
pub fn preview(
    agent: &AgentName,
    config: &Arc<AgentConfig>,
    admission: &Arc<Admission>,
    entry: LedgerEntry,
    live: LiveState,
    now: Timestamp,
) -> Result<Preview, String> {
    // A machine that only observes learns everything and asks for nothing.
    let silent = Arc::new(AgentConfig { observe: true, ..(**config).clone() });
    let mut state = AgentState::new(agent.clone(), silent);
    for seen in [Observation::Ledger(entry), Observation::Live(live), Observation::Admitted(Arc::clone(admission))] {
        (state, _) = step(state, seen, now, 0);
    }
    let mut record: AgentRecord = state.record().map(|record| (**record).clone()).unwrap_or_default();
    let (begin, refused) = course::wanted(&state, admission, &record, now);
    let carried_on =
        record.operation.as_ref().is_some_and(|open| course::still_wanted(open, &record, admission, begin.as_ref()));
    if let (Some(begin), false) = (begin, carried_on) {
        course::open(&mut record, begin, now);
    }
    let plan = match Target::of(&mut state, &record)? {
        Some(target) => {
            let health = target.health(&state, now);
            target.plan(&state, &record, &health)
        }
        None => Plan::default(),
    };
    let (kept, warnings) = match &admission.wanted {
        Wanted::Run(desired) => (None, desired.warnings.0.iter().map(ToString::to_string).collect()),
        Wanted::Keep(reason) => (Some(reason.message.clone()), vec![]),
        Wanted::Remove => (None, vec![]),
    };
    Ok(Preview { operation: record.operation, plan, refused: kept.or(refused.map(|refused| refused.why)), warnings })
}
