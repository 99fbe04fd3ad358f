//! What the core asks the shell rooms to do, and what they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::{Consent, DesiredAgent, WriteBack};
use crate::model::{
    AgentName, CommitId, LiveObject, LiveState, Manifest, ObjectRef, ReleaseId, ResourceVersion, Timestamp, Uid,
};
use crate::record::{AgentRecord, Evidence, OperationId, Requests, Standing};
use crate::rollout::{Answer, GateQuestion, Measurements, Outside, Person, Question, Smoked};

/// One thing to do for one agent.
///
/// `Record` to `TellGit` are effects: one of an agent is outstanding at a time, and the core waits for its
/// [`Observation::Done`]. The others are not waited for.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Writes the record, if the ledger still holds `expected`; nothing expected: makes it.
    Record {
        /// The version it was read at.
        expected: Option<ResourceVersion>,
        /// The whole record.
        record: Arc<AgentRecord>,
    },
    /// Writes one object of the target.
    Write(Write),
    /// Asks the target what a write would give, and writes nothing.
    DryRun(Write),
    /// Deletes one object: exactly this one (UID) as it was read (version), its dependants in the background.
    Delete {
        /// Which object.
        object: ObjectRef,
        /// Only this one.
        uid: Uid,
        /// Only as it was read.
        version: ResourceVersion,
    },
    /// Reads one object past every cache, with `managedFields`.
    Read(ObjectRef),
    /// Reads the ledger's entry past every cache: answered by [`Observation::Ledger`].
    ReadLedger,
    /// Writes the commit that tells Git of a rollback, and pushes it.
    TellGit(TellGit),
    /// Tells people: a Kubernetes Event and a line of the journal.
    Announce(Announcement),
    /// Measures both releases of a rollout: answered by [`Observation::Measured`], or not at all.
    Measure(Box<Question>),
    /// Looks at the second set through its preview: answered by [`Observation::Smoked`].
    Smoke(Smoke),
    /// Asks the gate that a rollout is at: answered by [`Observation::Gate`], always.
    Gate(Box<GateQuestion>),
    /// Sends [`Observation::Woken`] at that time, or a little later; a later `Wake` replaces an earlier one.
    Wake(Timestamp),
}

/// One write to the target, with its precondition.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// What shall stand there: rendered fields only.
    pub manifest: Manifest,
    /// What must stand there now.
    pub how: How,
}

/// How a manifest is written.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// `POST` under field manager `backstay`, with the annotation `backstay.dev/operation: <agent>/<operation>`: an
    /// object that exists is left as it is.
    Create {
        /// The operation that makes it.
        operation: OperationId,
    },
    /// Server-side apply by force under field manager `backstay`, on exactly this object at this version.
    Apply {
        /// Only this one.
        uid: Uid,
        /// Only as it was read.
        version: ResourceVersion,
        /// Fields that we rendered before are dropped: our `Update` entry in `managedFields` becomes `Apply` first.
        drops_fields: bool,
    },
    /// The same on an object that somebody else made, by consent: fields of kubectl and Helm are taken over.
    Adopt {
        /// Only this one.
        uid: Uid,
        /// Only as it was read.
        version: ResourceVersion,
    },
    /// Server-side apply under the manager `backstay-handover`, which keeps a field alive while its owner changes.
    Handover {
        /// Only this one.
        uid: Uid,
        /// Only as it was read.
        version: ResourceVersion,
    },
}

/// A look at the second set through its preview, before it gets any traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smoke {
    /// Whose.
    pub agent: AgentName,
    /// Which release must answer.
    pub release: ReleaseId,
    /// The name of the host at which it is seen.
    pub host: String,
    /// The path that must answer with success.
    pub path: String,
    /// The port of the release.
    pub port: u16,
    /// The address of the release's own Service, where the target has given it one.
    pub service: Option<String>,
}

/// The target went back: Git shall agree.
#[derive(Debug, Clone, PartialEq)]
pub struct TellGit {
    /// The agent that was moved.
    pub agent: AgentName,
    /// Where it was before, or was on its way to.
    pub left: Standing,
    /// Where it is now.
    pub back_to: Standing,
    /// Who moved it; nothing: the release failed, and nobody had to ask.
    pub by: Option<String>,
    /// Why, in one sentence; of a person, in their words.
    pub reason: String,
    /// The same as one word for the trailer: `manual`, `error_rate_high`, `health_check_failed`, …
    pub word: String,
    /// The figures behind it, one line each; none for a person.
    pub evidence: Vec<String>,
    /// How Git is told.
    pub write_back: WriteBack,
}

/// Something that people may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Whether somebody should look.
    pub warning: bool,
    /// One word: `Deployed`, `Reverted`, `Failed`, `DriftHealed`, …
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// The operation it is about.
    pub operation: Option<OperationId>,
}

/// One thing that the core learns.
#[derive(Debug, Clone)]
pub enum Observation {
    /// What shall be, as the environment admitted it.
    Admitted(Arc<Admission>),
    /// What is, for the objects of this agent.
    Live(LiveState),
    /// What the ledger holds, at start and whenever it changed.
    Ledger(LedgerEntry),
    /// The outstanding effect ended.
    Done(Done),
    /// The time that was asked for has come.
    Woken,
    /// What was asked to be measured.
    Measured(Box<Measurements>),
    /// What came of a look at a release through its preview.
    Smoked(ReleaseId, Smoked),
    /// What a gate answered to a question.
    Gate(Box<GateQuestion>, Answer),
}

/// What the environment admits for one agent, with all that is needed to do it.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// What shall be.
    pub wanted: Wanted,
    /// What Git asked for at the revision that is stable here, where that is another one: for healing and going back.
    pub standing: Option<Arc<DesiredAgent>>,
    /// How sure it is that `wanted` takes commits back, and which; present when it asks for a release that stood here.
    pub revert: Option<(Evidence, Vec<CommitId>)>,
    /// Deeds that somebody allowed on this agent and that have not expired.
    pub consents: Vec<Consent>,
    /// Objects that move here from another agent, by the UID it owned.
    pub takes: BTreeMap<ObjectRef, Uid>,
    /// Objects of this agent's inventory that another agent asks for now: never pruned. `true` once that one owns it.
    pub leaves: BTreeMap<ObjectRef, bool>,
    /// How Git is told of a rollback.
    pub write_back: WriteBack,
    /// What the environment says about a rollout of it.
    pub outside: Outside,
    /// People who must agree before a rollout starts.
    pub approvals: u32,
    /// Who wrote the commit that asks for it: their own word does not count.
    pub authors: BTreeSet<Person>,
}

/// What shall be of one agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// It shall run like this.
    Run(Arc<DesiredAgent>),
    /// It shall go: a verified tree does not have it.
    Remove,
    /// What runs shall stay as it is: Git's word cannot be used or may not yet.
    Keep(Reason),
}

/// Why what runs stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// One word, for the condition: `Invalid`, `AfterUnknown`, `DependencyNotReady`, `PruneLimit`, `Unverified`, …
    pub word: &'static str,
    /// One sentence.
    pub message: String,
    /// A person must do something, else it never goes on.
    pub stalled: bool,
}

/// What the ledger holds of one agent.
#[derive(Debug, Clone, PartialEq)]
pub enum LedgerEntry {
    /// Nothing.
    Absent,
    /// A record and the requests of people.
    Present {
        /// The record; a new one where an object has no status.
        record: Arc<AgentRecord>,
        /// What people ask for.
        requests: Requests,
        /// `metadata.generation` of the requests.
        generation: i64,
        /// For compare-and-swap.
        version: ResourceVersion,
    },
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// `Record`: the version it has now.
    Recorded(ResourceVersion),
    /// `Write`: the object as the server has it now.
    Written(Arc<LiveObject>),
    /// `DryRun`: the object as the server would have it.
    WouldBe(Arc<LiveObject>),
    /// `Delete`: it is gone, or on its way.
    Deleted(ObjectRef),
    /// `Read`: what stands there.
    Seen(ObjectRef, Option<Arc<LiveObject>>),
    /// `TellGit`: the commit that says it; nothing when Git says it already.
    Told(Option<String>),
    /// It failed.
    Failed(Failure),
}

/// Why an effect failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is: decides what happens next.
    pub kind: FailureKind,
    /// Deed, object and cause in one sentence, without secrets.
    pub message: String,
}

/// What kind of failure it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureKind {
    /// The precondition does not hold (409, 412): look again, then plan again.
    Conflict,
    /// A creation met an object that stands there already (409 AlreadyExists).
    Exists,
    /// What was written to is gone (404).
    Gone,
    /// The server refuses this object and will again: admission, validation, an immutable field (403, 422, 400).
    Refused,
    /// The server says an immutable field was changed (422).
    Immutable,
    /// The caller may not do this (403 by RBAC), or quota forbids it.
    Forbidden,
    /// The server is busy or away (429, 5xx, network, timeout); it may or may not have happened.
    Unavailable {
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// The policy gate forbids it.
    Gate,
    /// Another leader or another installation took over: nothing more is written.
    Fenced,
}

// === impl Admission ===

impl Admission {
    /// Whether it asks for the same as `other`, if perhaps at another commit.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let same = |one: &Arc<DesiredAgent>, other: &Arc<DesiredAgent>| {
            one.release.id == other.release.id
                && one.settings.digest == other.settings.digest
                && one.renamed_from == other.renamed_from
        };
        let wanted = match (&self.wanted, &other.wanted) {
            (Wanted::Run(one), Wanted::Run(other)) => same(one, other),
            (Wanted::Remove, Wanted::Remove) => true,
            (Wanted::Keep(one), Wanted::Keep(other)) => one == other,
            (Wanted::Run(_) | Wanted::Remove | Wanted::Keep(_), _) => false,
        };
        let standing = match (&self.standing, &other.standing) {
            (Some(one), Some(other)) => same(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        wanted
            && standing
            && self.revert == other.revert
            && self.consents == other.consents
            && self.takes == other.takes
            && self.leaves == other.leaves
            && self.write_back == other.write_back
            && self.outside == other.outside
            && self.approvals == other.approvals
            && self.authors == other.authors
    }
}

// === impl LedgerEntry ===

impl LedgerEntry {
    /// The record, if there is an entry.
    pub fn record(&self) -> Option<&Arc<AgentRecord>> {
        match self {
            Self::Present { record, .. } => Some(record),
            Self::Absent => None,
        }
    }
}

// === impl TellGit ===

impl TellGit {
    /// The release that was left.
    pub fn left_release(&self) -> ReleaseId {
        self.left.release
    }
}
