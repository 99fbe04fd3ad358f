//! What a rollout knows, and what the target shall look like by it.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Carrier, Closed, Instances, Outside, Person, Reason, Sides};
use crate::desired::RolloutSpec;
use crate::desired::rollout::{Segment, Step, Strategy};
use crate::model::{ReleaseId, Timestamp};
use crate::record::{OperationId, RolloutRecord};

/// The layout of the state that this version writes.
pub const VERSION: u32 = 1;

/// Where a rollout comes from: all that never changes about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Beginning {
    /// The operation that it belongs to.
    pub operation: OperationId,
    /// Where it goes.
    pub candidate: ReleaseId,
    /// Where it comes from, and goes back to.
    pub stable: ReleaseId,
    /// Forward or back.
    pub way: Way,
    /// How, as it was declared at the start.
    pub spec: RolloutSpec,
    /// How traffic is split.
    pub carrier: Carrier,
    /// Instances all in all.
    pub size: Instances,
    /// People who must agree.
    pub approvals: u32,
    /// The names of those who wrote the commit: they do not count.
    pub authors: BTreeSet<Person>,
    /// When releases of this agent went back by themselves lately.
    pub rollbacks: Vec<Timestamp>,
}

/// Forward or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// To what has not been stable here: by the strategy, held by freezes, approvals and waves.
    Forward,
    /// To what was stable here: as soon as it is ready, held by nothing, and never taken back by itself.
    Back,
}

/// A rollout on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    pub(super) operation: OperationId,
    pub(super) candidate: ReleaseId,
    pub(super) stable: ReleaseId,
    pub(super) way: Way,
    pub(super) spec: RolloutSpec,
    pub(super) carrier: Carrier,
    pub(super) size: Instances,
    pub(super) approvals: u32,
    pub(super) authors: BTreeSet<Person>,
    /// When releases of this agent went back by themselves, this one included.
    pub(super) rollbacks: Vec<Timestamp>,
    pub(super) phase: Phase,
    /// The split that is asked for.
    pub(super) granted: Split,
    /// Ready instances, as they were seen last.
    pub(super) ready: Sides<Instances>,
    /// They were seen at all.
    pub(super) was_seen: bool,
    /// What the route said last.
    pub(super) in_force: Option<Routes>,
    /// The candidate was once asked to be put into the route.
    pub(super) was_attached: bool,
    pub(super) outside: Outside,
    pub(super) approved: BTreeSet<Person>,
    pub(super) paused: Option<Person>,
    /// A person lets it start in spite of those that went back before.
    pub(super) waived: bool,
    /// What Git asks for that waits for the end of this one.
    pub(super) next: Option<ReleaseId>,
    /// What the gate of this step said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gate: Option<GateSaid>,
    /// What was told and still holds.
    pub(super) told: BTreeSet<Alarm>,
    /// The wait that was told last.
    pub(super) said: Option<super::Wait>,
}

/// What a gate that is not open said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GateSaid {
    pub(super) closed: Closed,
    /// When it said so first.
    pub(super) at: Timestamp,
}

/// Where a rollout is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// Nothing is made yet.
    Waiting,
    /// The candidate's set is made, and put into the route without weight.
    Starting,
    /// The second set is looked at through its preview.
    Smoke {
        /// It answered.
        passed: bool,
        /// Why the last look did not come so far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unreached: Option<String>,
    },
    /// A copy of the requests goes to the candidate.
    Mirror {
        /// Since when.
        since: Option<Timestamp>,
    },
    /// A step of a canary.
    Step {
        /// Which, from 0.
        at: usize,
        /// Since when: a weight counts from when it is in force.
        since: Option<Timestamp>,
    },
    /// Segments of users, until it is decided.
    Experiment {
        /// Since when it is in force.
        since: Option<Timestamp>,
        /// It is decided, and a person is asked.
        decided: bool,
    },
    /// The candidate gets all of the traffic.
    Promoting,
    /// The candidate has all of it, and is watched.
    Baking {
        /// Since when.
        since: Timestamp,
    },
    /// The watch is over, and the old set stays for a while.
    Keeping {
        /// Since when the candidate has the traffic.
        since: Timestamp,
    },
    /// The candidate is stable now.
    Done {
        /// Since when.
        at: Timestamp,
    },
    /// The traffic goes back to stable.
    Aborting {
        /// Why.
        reason: Reason,
        /// The weight that the candidate's set was made for, which it keeps until the traffic is off.
        sized: u8,
        /// As was asked for by number.
        least: u32,
        /// Something of the candidate was made.
        made: bool,
        /// The route said since that nothing goes to the candidate. What was in force before says nothing of that: a weight
        /// may have been written since.
        #[serde(default)]
        off: bool,
    },
    /// The traffic is back on stable.
    Aborted {
        /// Why.
        reason: Reason,
        /// Since when.
        at: Timestamp,
    },
}

/// How traffic is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Split {
    /// So much goes to the candidate, in percent, and all else to stable.
    Weight(u8),
    /// The segment that the experiment names goes to the candidate, and all else to stable.
    Segment,
}

/// What a route does: what is asked of it, and what it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routes {
    /// The candidate is known to it, with its preview and with the requests that reach it on purpose.
    pub attached: bool,
    /// How traffic is split.
    pub split: Split,
    /// A copy of the requests goes to the candidate.
    pub mirror: bool,
}

/// What the target shall look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of the route; where instances are replaced in place, there is none.
    pub routes: Routes,
    /// Of each side's instances.
    pub instances: Sides<Instances>,
    /// Where instances are replaced in place: whether by the candidate's.
    pub in_place: Option<bool>,
}

/// Something that was told and still holds, so that it is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Alarm {
    StableLost,
    CandidateLost,
    NoWayBack,
    HeldBack,
    Undecided,
    Stuck,
}

/// Why a saved rollout cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Another version wrote it.
    #[error("cannot read the rollout: it is of layout {0}, this version reads {VERSION}")]
    Version(u32),
    /// It is no rollout.
    #[error("cannot read the rollout")]
    State(#[source] serde_json::Error),
}

// === impl Split ===

impl Split {
    /// Nothing for the candidate.
    pub const STABLE: Self = Self::Weight(0);
    /// All for the candidate.
    pub const CANDIDATE: Self = Self::Weight(100);

    /// Whether the candidate gets anything.
    pub fn gives(self) -> bool {
        self != Self::STABLE
    }

    /// The candidate's part in percent: of a segment nobody knows it, and it counts as half.
    pub fn weight(self) -> u8 {
        match self {
            Self::Weight(weight) => weight.min(100),
            Self::Segment => 50,
        }
    }

    /// Both sides' weights: they sum to 100. Nothing for a segment, which is by match.
    pub fn weights(self) -> Option<Sides<u8>> {
        let Self::Weight(weight) = self else { return None };
        let candidate = weight.min(100);
        Some(Sides { candidate, stable: 100 - candidate })
    }
}

// === impl Rollout ===

impl Rollout {
    /// Begins: it waits, and nothing is made.
    pub fn new(beginning: Beginning) -> Self {
        let Beginning { operation, candidate, stable, way, spec, carrier, size, approvals, authors, rollbacks } =
            beginning;
        let carrier = if spec.strategy == Strategy::Rolling { Carrier::InPlace } else { carrier };
        Self {
            operation,
            candidate,
            stable,
            way,
            spec,
            carrier,
            size,
            approvals,
            authors,
            rollbacks,
            phase: Phase::Waiting,
            granted: Split::STABLE,
            ready: Sides::default(),
            was_seen: false,
            in_force: None,
            was_attached: false,
            outside: Outside::default(),
            approved: BTreeSet::new(),
            paused: None,
            waived: false,
            next: None,
            gate: None,
            told: BTreeSet::new(),
            said: None,
        }
    }

    /// What a record keeps of it.
    ///
    /// # Errors
    ///
    /// None that can be met: the state has no maps but those with texts for keys.
    pub fn saved(&self, evidence: Option<String>) -> Result<RolloutRecord, serde_json::Error> {
        let state = serde_json::from_value(serde_json::to_value(self)?)?;
        Ok(RolloutRecord { version: VERSION, state, evidence })
    }

    /// Reads what a record keeps.
    pub fn read(record: &RolloutRecord) -> Result<Self, Unreadable> {
        if record.version != VERSION {
            return Err(Unreadable::Version(record.version));
        }
        serde_json::from_value(Value::Object(record.state.clone())).map_err(Unreadable::State)
    }

    /// The operation that it belongs to.
    pub fn operation(&self) -> OperationId {
        self.operation
    }

    /// Where it goes.
    pub fn candidate(&self) -> ReleaseId {
        self.candidate
    }

    /// Where it comes from.
    pub fn stable(&self) -> ReleaseId {
        self.stable
    }

    /// How, as it was declared at the start.
    pub fn spec(&self) -> &RolloutSpec {
        &self.spec
    }

    /// How traffic is split.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Where it is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What Git asks for that waits for the end of this one.
    pub fn next(&self) -> Option<ReleaseId> {
        self.next
    }

    /// When releases of this agent went back by themselves lately, this one included.
    pub fn rollbacks(&self) -> &[Timestamp] {
        &self.rollbacks
    }

    /// Whether a person may take it back: it goes forward, and is not back yet.
    pub fn may_be_aborted(&self) -> bool {
        self.way == Way::Forward && !self.is_over() && !matches!(self.phase, Phase::Aborting { .. })
    }

    /// Whether the candidate is asked to get anything.
    pub fn gives(&self) -> bool {
        self.granted.gives()
    }

    /// It goes to a release that was stable before, which is not judged.
    pub fn goes_back(&self) -> bool {
        self.way == Way::Back
    }

    /// The candidate has as many ready instances as it shall have now.
    pub fn has_its_instances(&self) -> bool {
        self.is_sized()
    }

    /// Whether nothing more happens.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done { .. } | Phase::Aborted { .. })
    }

    /// The gate that is to be asked now, with its step from 0.
    pub fn at_gate(&self) -> Option<(&str, usize)> {
        let Phase::Step { at, .. } = self.phase else { return None };
        let Some(Step::Gate { name }) = self.steps().get(at) else { return None };
        Some((name, at))
    }

    /// The number of the judge's step, from 0, where one is in force: the judge enters it at that time.
    pub fn judged_step(&self) -> Option<(usize, Timestamp)> {
        let Phase::Step { at, since: Some(since) } = self.phase else { return None };
        matches!(self.steps().get(at), Some(Step::Weight { .. })).then(|| (self.judged_index(at), since))
    }

    /// What the target shall look like: of the state alone.
    pub fn wanted(&self) -> Wanted {
        let replaced = match &self.phase {
            Phase::Waiting | Phase::Aborting { .. } | Phase::Aborted { .. } => false,
            Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Step { .. }
            | Phase::Experiment { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. }
            | Phase::Done { .. } => true,
        };
        let in_place = (self.carrier == Carrier::InPlace).then_some(replaced);
        Wanted { routes: self.routes(), instances: self.instances(), in_place }
    }

    fn routes(&self) -> Routes {
        let serves = self.ready.candidate.agent > 0 && self.carrier != Carrier::InPlace;
        let attached = match &self.phase {
            Phase::Waiting | Phase::Aborted { .. } => false,
            // Without weight until that is in force: who splits the traffic may forget where a side is before it learns that
            // nothing goes there any more.
            Phase::Aborting { .. } => self.was_attached,
            Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Step { .. }
            | Phase::Experiment { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. }
            | Phase::Done { .. } => serves,
        };
        let mirror = attached && matches!(self.phase, Phase::Mirror { .. });
        Routes { attached, split: self.granted, mirror }
    }

    fn instances(&self) -> Sides<Instances> {
        let whole = |stable| Sides { candidate: self.size.none(), stable };
        match &self.phase {
            Phase::Waiting | Phase::Aborted { .. } | Phase::Aborting { made: false, .. } => whole(self.size.clone()),
            Phase::Done { .. } => Sides { candidate: self.size.clone(), stable: self.size.none() },
            Phase::Aborting { sized, least, .. } => {
                let sides = self.size.at(*sized, self.carrier, *least);
                Sides { candidate: sides.candidate, stable: self.size.clone() }
            }
            Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Step { .. }
            | Phase::Experiment { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. } => self.size.at(self.sized_for(), self.carrier, self.least()),
        }
    }

    /// The weight that the candidate's set is made for.
    pub(super) fn sized_for(&self) -> u8 {
        let first = match (&self.spec.strategy, self.way) {
            (_, Way::Back) | (Strategy::BlueGreen(_) | Strategy::Rolling, _) => 100,
            (Strategy::Canary(canary), _) if canary.mirror.is_some() => 100,
            (Strategy::Canary(_), _) => self.first_weight(),
            (Strategy::AbTest(test), _) => match test.by {
                Segment::Hash { share, .. } => share,
                Segment::Value(_) => 100,
            },
        };
        match &self.phase {
            Phase::Waiting | Phase::Aborted { .. } => 0,
            Phase::Starting | Phase::Experiment { .. } => first,
            Phase::Step { at, .. } => self.weight_at(*at).max(self.first_weight()),
            Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Promoting
            | Phase::Baking { .. }
            | Phase::Keeping { .. }
            | Phase::Done { .. } => 100,
            Phase::Aborting { sized, .. } => *sized,
        }
    }

    fn first_weight(&self) -> u8 {
        self.steps().iter().find_map(weight_of).unwrap_or(100)
    }

    /// Instances of the candidate that were asked for by number.
    pub(super) fn least(&self) -> u32 {
        let Phase::Step { at, .. } = self.phase else { return 0 };
        let counts = self.steps().iter().take(at + 1).filter_map(|step| match step {
            Step::Replicas { count } => Some(*count),
            Step::Weight { .. } | Step::Pause { .. } | Step::Gate { .. } => None,
        });
        counts.max().unwrap_or(0)
    }

    /// The split that the phase is about.
    pub(super) fn target(&self) -> Split {
        match &self.phase {
            Phase::Waiting
            | Phase::Starting
            | Phase::Smoke { .. }
            | Phase::Mirror { .. }
            | Phase::Aborting { .. }
            | Phase::Aborted { .. } => Split::STABLE,
            Phase::Step { at, .. } => Split::Weight(self.weight_at(*at)),
            Phase::Experiment { .. } => match &self.spec.strategy {
                Strategy::AbTest(test) => match test.by {
                    Segment::Hash { share, .. } => Split::Weight(share),
                    Segment::Value(_) => Split::Segment,
                },
                Strategy::Rolling | Strategy::Canary(_) | Strategy::BlueGreen(_) => Split::STABLE,
            },
            Phase::Promoting | Phase::Baking { .. } | Phase::Keeping { .. } | Phase::Done { .. } => Split::CANDIDATE,
        }
    }

    /// The weight at a step: its own, or that of the last one that has any.
    pub(super) fn weight_at(&self, at: usize) -> u8 {
        self.steps().iter().take(at + 1).rev().find_map(weight_of).unwrap_or(0)
    }

    pub(super) fn judged_index(&self, at: usize) -> usize {
        self.steps().iter().take(at).filter(|step| weight_of(step).is_some()).count()
    }

    pub(super) fn steps(&self) -> &[Step] {
        match &self.spec.strategy {
            Strategy::Canary(canary) if self.way == Way::Forward => &canary.steps,
            Strategy::Canary(_) | Strategy::Rolling | Strategy::BlueGreen(_) | Strategy::AbTest(_) => &[],
        }
    }

    pub(super) fn mirror_for(&self) -> Option<SignedDuration> {
        if let Strategy::Canary(canary) = &self.spec.strategy { canary.mirror } else { None }
    }

    /// How long the old set stays after the switch.
    pub(super) fn keep_old(&self) -> SignedDuration {
        let keep = if let Strategy::BlueGreen(declared) = &self.spec.strategy {
            declared.keep_old
        } else {
            SignedDuration::ZERO
        };
        keep.max(self.spec.rollback.bake)
    }

    /// The candidate has as many ready instances as the phase asks for.
    pub(super) fn is_sized(&self) -> bool {
        let wanted = if self.carrier == Carrier::InPlace { self.size.clone() } else { self.instances().candidate };
        self.ready.candidate.cover(&wanted)
    }

    /// What the phase is about was asked for, and the route says so.
    pub(super) fn routes_are_in_force(&self) -> bool {
        let asked = self.granted == self.target();
        asked && self.in_force.is_some_and(|routes| routes.attached && routes.split == self.granted)
    }
}

pub(super) fn weight_of(step: &Step) -> Option<u8> {
    match step {
        Step::Weight { weight, .. } => Some(*weight),
        Step::Pause { .. } | Step::Gate { .. } | Step::Replicas { .. } => None,
    }
}

// === impl Phase ===

impl Phase {
    /// Reads after "the rollout is ".
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting to start",
            Self::Starting => "starting",
            Self::Smoke { .. } => "looking at the second set",
            Self::Mirror { .. } => "mirroring",
            Self::Step { .. } => "at a step",
            Self::Experiment { .. } => "an experiment that runs",
            Self::Promoting => "being promoted",
            Self::Baking { .. } => "promoted, and watched",
            Self::Keeping { .. } => "promoted, and keeps the old set",
            Self::Done { .. } => "done",
            Self::Aborting { .. } => "going back",
            Self::Aborted { .. } => "back",
        }
    }
}
