//! When nothing may be written, nothing is: only observing, a newer record, somebody else's turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::desired::WriteBack;
use backstay::model::{LiveState, ResourceVersion};
use backstay::plan::GatePolicy;
use backstay::reconcile::{
    Action, Admission, AgentConfig, AgentState, Done, Failure, FailureKind, LedgerEntry, Observation, Wanted, step,
};
use backstay::record::{AgentRecord, ConditionKind, FORMAT, ROLLOUT_FORMAT, Request, Requests, Truth};

use super::world::{NAMESPACE, agent, desired, start};

fn state(observe: bool) -> AgentState {
    let config = AgentConfig {
        environment: "production".parse().expect("a name"),
        namespace: NAMESPACE.to_owned(),
        target: backstay::desired::TargetKind::Kubernetes,
        installation: "story".to_owned(),
        gate: GatePolicy::of(NAMESPACE),
        observe,
        gates: BTreeMap::new(),
    };
    AgentState::new(agent(), Arc::new(config))
}

/// Everything that an agent is told at a start: an empty target, Git that asks for something, this entry of the ledger.
fn told(entry: LedgerEntry) -> Vec<Observation> {
    let admission = Admission {
        wanted: Wanted::Run(Arc::new(desired(&agent(), "hello", |_, _| {}))),
        standing: None,
        revert: None,
        consents: vec![],
        takes: BTreeMap::new(),
        leaves: BTreeMap::new(),
        write_back: WriteBack::Revert,
        outside: backstay::rollout::Outside::default(),
        approvals: 0,
        authors: std::collections::BTreeSet::new(),
    };
    vec![
        Observation::Ledger(entry),
        Observation::Live(LiveState { synced: true, ..LiveState::default() }),
        Observation::Admitted(Arc::new(admission)),
        Observation::Woken,
    ]
}

fn present(format: u32) -> LedgerEntry {
    LedgerEntry::Present {
        record: AgentRecord { format, ..AgentRecord::default() }.into(),
        requests: Requests::default(),
        generation: 1,
        version: ResourceVersion("7".to_owned()),
    }
}

/// What is done, told all of it; announcements and alarms apart.
fn effects(mut state: AgentState, observations: Vec<Observation>) -> (AgentState, Vec<Action>) {
    let mut all = vec![];
    for observation in observations {
        let (next, actions) = step(state, observation, start(), 7);
        state = next;
        all.extend(actions.into_iter().filter(|action| !matches!(action, Action::Announce(_) | Action::Wake(_))));
    }
    (state, all)
}

#[test]
fn who_only_observes_writes_nothing() {
    for entry in [LedgerEntry::Absent, present(FORMAT)] {
        assert_eq!(effects(state(true), told(entry.clone())).1, []);
        let first = effects(state(false), told(entry)).1;
        assert!(matches!(&*first, [Action::Record { .. }]), "the same would begin with a record: {first:?}");
    }
}

// R7
#[test]
fn a_newer_record_is_never_written_over() {
    let (_, effects) = effects(state(false), told(present(ROLLOUT_FORMAT + 1)));
    assert_eq!(effects, []);
}

// F1
#[test]
fn who_is_fenced_off_writes_nothing_more() {
    let (state, _) = effects(state(false), told(present(FORMAT)));
    assert!(state.is_busy(), "the intent is on its way");
    let failure = Failure { kind: FailureKind::Fenced, message: "another one leads".to_owned() };
    let mut after = vec![Observation::Done(Done::Failed(failure))];
    after.extend(told(present(FORMAT)));
    assert_eq!(effects(state, after).1, []);
}

// K1
#[test]
fn the_intent_is_recorded_before_the_first_write() {
    let (state, first) = effects(state(false), told(LedgerEntry::Absent));
    let [Action::Record { expected: None, record }] = &*first else { panic!("{first:?}") };
    assert!(record.operation.is_some(), "it says what is begun: {record:?}");
    let acknowledged = Observation::Done(Done::Recorded(ResourceVersion("8".to_owned())));
    let (_, next) = effects(state, vec![acknowledged]);
    assert!(matches!(&*next, [Action::Write(_)]), "{next:?}");
}

// K2
#[test]
fn an_old_view_of_the_ledger_is_not_believed() {
    let (state, _) = effects(state(false), told(present(FORMAT)));
    let recorded = Observation::Done(Done::Recorded(ResourceVersion("8".to_owned())));
    let (state, _) = effects(state, vec![recorded, Observation::Ledger(present(FORMAT))]);
    assert!(state.record().is_some_and(|record| record.operation.is_some()), "what was begun is not forgotten");
}

// R8
#[test]
fn a_suspension_needs_neither_git_nor_a_view_of_the_target() {
    let by = Request { id: "1".to_owned(), by: "alice".to_owned(), reason: "a look inside".to_owned() };
    let requests = Requests { suspend: Some(by), ..Requests::default() };
    let entry = |record: AgentRecord| LedgerEntry::Present {
        record: record.into(),
        requests: requests.clone(),
        generation: 1,
        version: ResourceVersion("7".to_owned()),
    };
    let started = AgentRecord { format: FORMAT, ..AgentRecord::default() };
    let (_, first) = effects(state(false), vec![Observation::Ledger(entry(started))]);
    let [Action::Record { record, .. }] = &*first else { panic!("{first:?}") };
    assert!(record.condition(ConditionKind::Suspended).is_some_and(|told| told.status == Truth::True), "{record:?}");
    // Git and the view come back: nothing more happens.
    let (_, after) = effects(state(false), told(entry((**record).clone())));
    assert_eq!(after, []);
}
