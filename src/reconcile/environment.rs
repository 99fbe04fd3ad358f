//! The machine of one environment: it admits what each agent may do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::SignedDuration;

use super::{Admission, Reason, Wanted};
use crate::desired::{After, Allow, Consent, DesiredAgent, DesiredState, Frozen, frozen, next_freeze};
use crate::model::{AgentName, CommitId, Diagnostics, ObjectRef, ReleaseId, Severity, Timestamp, Uid};
use crate::record::{AgentRecord, ConditionKind, Evidence, OperationKind, Phase, Records, RolloutRecord, Truth};
use crate::rollout::{Outside, Person, Room, Wait, WaveStanding};

/// How much may be removed at once without a consent for each agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneLimits {
    /// Objects of all agents together.
    pub max_objects: usize,
    /// Of a hundred objects of the environment, where more than one agent goes.
    pub max_percent: usize,
}

/// All that an environment decides on: plain values.
#[derive(Debug)]
pub struct EnvironmentInput<'a> {
    /// What Git asks for.
    pub desired: &'a DesiredState,
    /// What is remembered of every agent, removed ones included.
    pub records: &'a Records,
    /// What Git asked for at the revision that stands, for agents whose Git word differs from it.
    pub standing: &'a BTreeMap<AgentName, Arc<DesiredAgent>>,
    /// For agents that Git wants back on a release that stood before: how sure, and which commits.
    pub reverts: &'a BTreeMap<AgentName, (Evidence, Vec<CommitId>)>,
    /// Agents that may not follow Git yet, with why.
    pub held: &'a BTreeMap<AgentName, Reason>,
    /// Who wrote the commits that ask for a new release.
    pub authors: &'a BTreeMap<AgentName, BTreeSet<Person>>,
    /// The namespace of the target.
    pub namespace: &'a str,
    /// How much may be removed at once.
    pub limits: PruneLimits,
    /// Now.
    pub now: Timestamp,
}

/// What an environment decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// For every agent that Git or the ledger knows.
    pub agents: BTreeMap<AgentName, Arc<Admission>>,
    /// Why removals wait for a person, if they do.
    pub prune_blocked: Option<String>,
    /// When time alone changes what an agent may do.
    pub again: Option<Timestamp>,
}

/// Decides what each agent of an environment may do.
///
/// # Guarantees
///
/// Pure and total. A bad agent never stops another; an agent is removed only when `desired`, which is verified and whole,
/// does not have it, and never more of them at once than the limits allow.
pub fn admit(input: &EnvironmentInput<'_>) -> Admitted {
    let mut wanted: BTreeMap<AgentName, Wanted> = BTreeMap::new();
    for (name, asked) in &input.desired.agents {
        wanted.insert(name.clone(), follow(input, name, asked));
    }
    let gone: Vec<_> = input
        .records
        .iter()
        .filter(|(name, record)| !wanted.contains_key(*name) && record.phase == Phase::Active)
        .map(|(name, _)| name.clone())
        .collect();
    let prune_blocked = too_many(input, &gone);
    for name in gone {
        let verdict = remove(input, &name, prune_blocked.as_deref());
        wanted.insert(name, verdict);
    }
    // A tombstone learns that what it left to another agent is that one's now.
    let gone = input.records.iter().filter(|(_, record)| record.phase == Phase::Removed);
    for (name, _) in gone {
        wanted.entry(name.clone()).or_insert(Wanted::Remove);
    }
    let moves = moves(input, &wanted);
    let none = Moves::default();
    let start = Start::of(input, &wanted);
    let over = start.freeze.as_ref().map(|freeze| freeze.until);
    let again = next_freeze(&input.desired.spec.freezes, input.now).into_iter().chain(over).min();
    let agents = wanted.iter().map(|(name, wanted)| {
        let record = input.records.get(name);
        let wanted = start.holds(record, wanted, input.now).map_or_else(|| wanted.clone(), Wanted::Keep);
        let outside = start.outside(record, name, input.now);
        (name.clone(), Arc::new(admission(input, name, wanted, moves.get(name).unwrap_or(&none), outside)))
    });
    Admitted { agents: agents.collect(), prune_blocked, again }
}

fn follow(input: &EnvironmentInput<'_>, name: &AgentName, asked: &Result<Arc<DesiredAgent>, Diagnostics>) -> Wanted {
    let desired = match asked {
        Ok(desired) => desired,
        Err(diagnostics) => {
            let first = diagnostics.0.iter().find(|found| found.severity == Severity::Error);
            let message = first.map_or_else(|| "its declaration cannot be used".to_owned(), ToString::to_string);
            return Wanted::Keep(Reason { word: "Invalid", message, stalled: true });
        }
    };
    if let Some(reason) = input.held.get(name) {
        return Wanted::Keep(reason.clone());
    }
    let record = input.records.get(name);
    let stands = record.and_then(|record| record.stable.as_ref()).is_some_and(|at| at.release == desired.release.id);
    let goes_back = record.is_some_and(|record| record.stood(desired.release.id).is_some());
    if stands || goes_back {
        return Wanted::Run(Arc::clone(desired));
    }
    let waits = desired.settings.depends_on.iter().find(|needed| !is_ready(input, needed));
    match waits {
        Some(needed) => {
            let message = format!("it depends on `{needed}`, which is not Ready");
            Wanted::Keep(Reason { word: "DependencyNotReady", message, stalled: false })
        }
        None => Wanted::Run(Arc::clone(desired)),
    }
}

/// Whether an agent runs what Git asks for, and well.
fn is_ready(input: &EnvironmentInput<'_>, name: &AgentName) -> bool {
    let Some(Ok(desired)) = input.desired.agents.get(name) else { return false };
    let Some(record) = input.records.get(name) else { return false };
    let runs = record.stable.as_ref().is_some_and(|stable| stable.release == desired.release.id);
    runs && record.condition(ConditionKind::Ready).is_some_and(|ready| ready.status == Truth::True)
}

fn remove(input: &EnvironmentInput<'_>, name: &AgentName, blocked: Option<&str>) -> Wanted {
    let begun = input.records.get(name).and_then(|record| record.operation.as_ref());
    if begun.is_some_and(|operation| operation.kind == OperationKind::Removal) {
        return Wanted::Remove;
    }
    let renamed = input.desired.agents.values().flatten().find(|desired| desired.renamed_from.as_ref() == Some(name));
    if let Some(renamed) = renamed.filter(|renamed| !is_ready(input, &renamed.name)) {
        let message = format!("it is renamed to `{}`, and goes when that one is Ready", renamed.name);
        return Wanted::Keep(Reason { word: "Renamed", message, stalled: false });
    }
    match blocked {
        Some(why) if renamed.is_none() && !consented(input, name) => {
            Wanted::Keep(Reason { word: "PruneLimit", message: why.to_owned(), stalled: true })
        }
        Some(_) | None => Wanted::Remove,
    }
}

fn consented(input: &EnvironmentInput<'_>, name: &AgentName) -> bool {
    let allowed = Allow::Prune(format!("Agent/{name}"));
    consents(input, name).any(|consent| consent.allow == allowed)
}

fn consents<'a>(input: &'a EnvironmentInput<'_>, name: &'a AgentName) -> impl Iterator<Item = &'a Consent> {
    let environment = &input.desired.environment;
    let now = input.now;
    input
        .desired
        .consents
        .iter()
        .filter(move |consent| consent.agent == *name && consent.environment == *environment && consent.expires > now)
}

/// Why this many removals wait for a person, if they do.
fn too_many(input: &EnvironmentInput<'_>, gone: &[AgentName]) -> Option<String> {
    let size = |name: &AgentName| input.records.get(name).map_or(0, |record| record.inventory.0.len());
    let renamed: BTreeSet<_> =
        input.desired.agents.values().flatten().filter_map(|desired| desired.renamed_from.as_ref()).collect();
    let asked: Vec<_> = gone.iter().filter(|name| !renamed.contains(name) && !consented(input, name)).collect();
    let objects: usize = asked.iter().map(|name| size(name)).sum();
    let all: usize = input.records.keys().map(size).sum();
    let most = asked.len() > 1 && objects * 100 > all * input.limits.max_percent;
    let every = asked.len() > 1 && input.desired.agents.is_empty();
    if !every && !most && objects <= input.limits.max_objects {
        return None;
    }
    Some(format!(
        "the commit takes away {} of {} agents with {objects} of {all} objects, more than is removed without consent: \
         add a consent with `allow: prune` and `object: Agent/<name>` for each that shall go",
        asked.len(),
        input.records.values().filter(|record| record.phase == Phase::Active).count(),
    ))
}

/// Objects that one agent owns and another asks for, as one of the two sees it.
#[derive(Debug, Default)]
struct Moves {
    takes: BTreeMap<ObjectRef, Uid>,
    leaves: BTreeMap<ObjectRef, bool>,
}

/// The objects that an agent asks for by name, beside those that are named after it.
fn asked_objects<'a>(desired: &'a DesiredAgent, namespace: &'a str) -> impl Iterator<Item = ObjectRef> + 'a {
    let account = desired.release.spec.workload.service_account.as_ref().map(|account| ObjectRef {
        group: String::new(),
        kind: "ServiceAccount".to_owned(),
        namespace: namespace.to_owned(),
        name: account.clone(),
    });
    let extra = desired.settings.manifests.iter();
    let extra = extra.map(|manifest| ObjectRef { namespace: namespace.to_owned(), ..manifest.object.clone() });
    extra.chain(account)
}

/// What moves between agents: few objects do, and each is looked up once.
fn moves(input: &EnvironmentInput<'_>, wanted: &BTreeMap<AgentName, Wanted>) -> BTreeMap<AgentName, Moves> {
    let mut asked: HashMap<ObjectRef, &AgentName> = HashMap::new();
    for (name, wanted) in wanted {
        if let Wanted::Run(desired) = wanted {
            asked.extend(asked_objects(desired, input.namespace).map(|object| (object, name)));
        }
    }
    let mut moves: BTreeMap<AgentName, Moves> = BTreeMap::new();
    for (owner, record) in input.records {
        for (object, uid) in &record.inventory.0 {
            let Some(asks) = asked.get(object).filter(|asks| **asks != owner) else { continue };
            let theirs = input.records.get(*asks).is_some_and(|record| record.inventory.0.contains_key(object));
            moves.entry(owner.clone()).or_default().leaves.insert(object.clone(), theirs);
            moves.entry((*asks).clone()).or_default().takes.entry(object.clone()).or_insert_with(|| uid.clone());
        }
    }
    moves
}

/// What the environment says to all that would start.
struct Start<'a> {
    freeze: Option<Frozen>,
    /// Nothing where rollouts are not counted.
    room: Option<Room<'a>>,
}

// === impl Start ===

impl<'a> Start<'a> {
    fn of(input: &EnvironmentInput<'a>, wanted: &'a BTreeMap<AgentName, Wanted>) -> Self {
        let spec = &input.desired.spec;
        let counted = spec.waves.max_agents.is_some() || spec.waves.stop_after_aborts.is_some();
        let room = counted.then(|| {
            let all = wanted.iter().map(|(name, wanted)| (name, standing(input.records.get(name), wanted)));
            let last_abort = |record: &Arc<AgentRecord>| record.quarantine.iter().map(|entry| entry.since).max();
            Room::of(spec.waves, all, input.records.values().filter_map(last_abort))
        });
        Self { freeze: frozen(&spec.freezes, input.now), room }
    }

    /// What it says about the rollout of one agent.
    fn outside(&self, record: Option<&Arc<AgentRecord>>, name: &AgentName, now: Timestamp) -> Outside {
        let since = record.and_then(|record| record.operation.as_ref()).map_or(now, |open| open.started);
        let wave = self.room.as_ref().and_then(|room| room.wave(name, since));
        Outside { freeze: self.freeze.clone(), wave }
    }

    /// Why an agent whose release is on no way with steps, which could wait there, may not start it yet.
    fn holds(&self, record: Option<&Arc<AgentRecord>>, wanted: &Wanted, now: Timestamp) -> Option<Reason> {
        let Wanted::Run(desired) = wanted else { return None };
        let id = desired.release.id;
        let stable = record.and_then(|record| record.stable.as_ref());
        let waits_itself = stable.is_some_and(|stable| stable.own_set || desired.settings.has_sets());
        let stood = record.is_some_and(|record| record.stood(id).is_some());
        let begun =
            record.and_then(|record| record.candidate.as_ref()).is_some_and(|on_its_way| on_its_way.release == id);
        if waits_itself || stood || begun {
            return None;
        }
        let waits = |word, wait: Wait| {
            Some(Reason { word, message: format!("waiting for {wait}"), stalled: wait.is_stalled() })
        };
        if let Some(freeze) = &self.freeze {
            return waits("Frozen", Wait::Freeze(freeze.clone()));
        }
        // A first release takes nothing from anybody.
        stable?;
        let wave = self.room.as_ref()?.wave(&desired.name, now)?;
        waits("Wave", Wait::Wave(wave))
    }
}

/// How the rollout of an agent stands, for those that wait for room.
fn standing(record: Option<&Arc<AgentRecord>>, wanted: &Wanted) -> WaveStanding {
    let Some(record) = record.filter(|record| record.stable.is_some()) else { return WaveStanding::Over };
    match (&record.operation, wanted) {
        (Some(open), _) if open.kind != OperationKind::Release || open.cause.goes_back() => WaveStanding::Over,
        (Some(_), _) if record.rollout.as_ref().is_some_and(RolloutRecord::is_waiting) => WaveStanding::Waits,
        (Some(_), _) => WaveStanding::Runs,
        (None, Wanted::Run(desired)) => {
            let id = desired.release.id;
            let stays = record.quarantined(id).is_some() || record.hold.as_ref().is_some_and(|hold| hold.left == id);
            // What is stable, or was, is in its history.
            if stays || record.stood(id).is_some() { WaveStanding::Over } else { WaveStanding::Waits }
        }
        (None, Wanted::Keep(_) | Wanted::Remove) => WaveStanding::Over,
    }
}

fn admission(
    input: &EnvironmentInput<'_>,
    name: &AgentName,
    wanted: Wanted,
    moves: &Moves,
    outside: Outside,
) -> Admission {
    Admission {
        wanted,
        standing: input.standing.get(name).cloned(),
        revert: input.reverts.get(name).cloned(),
        consents: consents(input, name).cloned().collect(),
        takes: moves.takes.clone(),
        leaves: moves.leaves.clone(),
        write_back: input.desired.spec.write_back,
        outside,
        approvals: input.desired.spec.approvals,
        authors: input.authors.get(name).cloned().unwrap_or_default(),
    }
}

/// Whose record others' admissions depend on, while Git asks for the same.
#[derive(Debug, Default)]
pub struct Ties {
    /// Agents that wait, are waited for, or have another name now.
    agents: BTreeSet<AgentName>,
    /// Agents of one commit wait for each other.
    waves: bool,
    /// Who asks for what by name.
    asked: HashMap<ObjectRef, AgentName>,
}

// === impl Ties ===

impl Ties {
    /// The ties of an environment.
    pub fn of(desired: &DesiredState, namespace: &str) -> Self {
        let waves = &desired.spec.waves;
        let waves = waves.max_agents.is_some() || waves.stop_after_aborts.is_some();
        let mut ties = Self { waves, ..Self::default() };
        for agent in desired.agents.values().flatten() {
            let waits = &agent.settings.depends_on;
            ties.agents.extend(waits.iter().chain(&agent.renamed_from).cloned());
            if !waits.is_empty() || agent.renamed_from.is_some() {
                ties.agents.insert(agent.name.clone());
            }
            ties.asked.extend(asked_objects(agent, namespace).map(|object| (object, agent.name.clone())));
        }
        ties
    }

    /// Whether a record that became another one can change what this agent or others may do: then [`admit`] is asked again.
    ///
    /// What Git does not ask for always can, since how much may be removed is counted over all.
    pub fn concern(
        &self,
        desired: &DesiredState,
        name: &AgentName,
        before: Option<&AgentRecord>,
        after: Option<&AgentRecord>,
    ) -> bool {
        if self.waves || self.agents.contains(name) || !desired.agents.contains_key(name) {
            return true;
        }
        let moves = |record: &AgentRecord, other: Option<&AgentRecord>| {
            record.inventory.0.iter().any(|(object, uid)| {
                let same = other.is_some_and(|other| other.inventory.owns(object, uid));
                !same && self.asked.get(object).is_some_and(|asks| asks != name)
            })
        };
        // What is asked for by this agent and still owned by another: the other's record will say that it moved.
        before.is_some_and(|before| moves(before, after)) || after.is_some_and(|after| moves(after, before))
    }
}

/// Which commit an agent may follow, given what has been stable elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The one at which its release has been stable there long enough, the newest such.
    At(CommitId),
    /// What runs stays; looked at again then, if time alone can change it.
    Held(Reason, Option<Timestamp>),
}

/// Chooses the newest commit at which the agent has been stable in another environment long enough.
///
/// `elsewhere` is the record there; nothing where that environment is neither bound nor observed here.
pub fn after(rule: &After, elsewhere: Option<&AgentRecord>, now: Timestamp) -> Followed {
    let Some(elsewhere) = elsewhere else {
        let message = format!("it follows `{}`, and nothing is known of that environment here", rule.environment);
        return Followed::Held(Reason { word: "AfterUnknown", message, stalled: true }, None);
    };
    let long = SignedDuration::try_from(rule.stable_for).unwrap_or(SignedDuration::MAX);
    // What stood there, the newest first, each with when the next one took its place.
    let mut until = now;
    for standing in elsewhere.stable.iter().chain(&elsewhere.history) {
        if until.duration_since(standing.since) >= long {
            return Followed::At(standing.revision.commit.clone());
        }
        until = standing.since;
    }
    let due = elsewhere.stable.as_ref().and_then(|stable| stable.since.checked_add(long).ok());
    let message = format!("no release has been stable in `{}` for {long:#} yet", rule.environment);
    Followed::Held(Reason { word: "AfterWaiting", message, stalled: false }, due)
}

/// The release that Git asks for, for agents that it wants back on one that stood here before.
pub fn returns<'a>(
    desired: &'a DesiredState,
    records: &'a Records,
) -> impl Iterator<Item = (&'a Arc<DesiredAgent>, &'a AgentRecord, ReleaseId)> {
    desired.agents.iter().filter_map(|(name, asked)| {
        let (desired, record) = (asked.as_ref().ok()?, records.get(name)?);
        let id = desired.release.id;
        let stable = record.stable.as_ref().is_none_or(|stable| stable.release != id);
        // On its way to another one, what is stable is a way back too.
        let elsewhere = stable || record.candidate.as_ref().is_some_and(|candidate| candidate.release != id);
        (elsewhere && record.stood(id).is_some()).then_some((desired, &**record, id))
    })
}
