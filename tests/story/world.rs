//! A target, a ledger and a Git word of plain values, with the core of a whole environment between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay::desired::{Allow, Consent, DesiredAgent, ReleaseSpec, Settings};
use backstay::model::{AgentName, GroupKind, LiveState, ObjectRef, Origin, ResourceVersion, Timestamp};
use backstay::plan::GatePolicy;
use backstay::reconcile::{
    Action, Admission, AgentConfig, AgentState, Done, EnvironmentInput, Failure, FailureKind, LedgerEntry, Observation,
    PruneLimits, admit, returns, step,
};
use backstay::record::{AgentRecord, ConditionKind, Evidence, Requests, Truth};
use backstay::rollout::{Answer, Closed, GateQuestion, Smoked};
use jiff::SignedDuration;
use serde_json::Value;

pub(crate) use super::cluster::NAMESPACE;
use super::cluster::{Cluster, No};
use super::git::Git;
pub(crate) use super::git::{agent, desired, revision, start};
use super::oracle::{self, Oracle};
use super::plane::{Class, Past, Plane};
use super::traffic::Traffic;

#[path = "strike.rs"]
mod strike;

/// How much of the time that the core asks for passes before a world counts as at rest.
const PATIENCE: SignedDuration = SignedDuration::from_mins(8);

/// One environment's world.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) cluster: Cluster,
    pub(crate) ledger: BTreeMap<AgentName, Entry>,
    pub(crate) git: Git,
    machines: BTreeMap<AgentName, Machine>,
    config: Arc<AgentConfig>,
    pub(crate) plane: Plane,
    pub(crate) oracle: Oracle,
    pub(crate) limits: PruneLimits,
    /// What was written to the target and the ledger, in order.
    pub(crate) writes: Vec<String>,
    /// What people were told.
    pub(crate) told: Vec<String>,
    /// Every effect that the core asked for so far.
    pub(crate) effects: usize,
    /// Everything else that it asked for: news, questions, and to be woken.
    pub(crate) asides: usize,
    /// The effects themselves, while a scenario is learnt.
    pub(crate) log: Option<Vec<Action>>,
    /// And all else.
    pub(crate) aside_log: Option<Vec<Action>>,
    /// Answers that effects on this kind, or on this `Kind/name`, get instead of happening.
    pub(crate) refuse: BTreeMap<String, FailureKind>,
    /// Kinds that cannot be listed.
    pub(crate) unseen: BTreeSet<String>,
    /// What a leader that was replaced made.
    late: BTreeSet<ObjectRef>,
    /// Versions of the ledger up to here were given before it was lost.
    given: u64,
    /// Observations so far.
    observed: usize,
    /// How long the core has worked.
    pub(crate) worked: Duration,
    /// Who asks, and what is measured of it.
    pub(crate) traffic: Traffic,
    /// What the preview of a second set answers.
    pub(crate) preview: Smoked,
    /// What comes of a write is seen before its answer is.
    pub(crate) fast_watch: bool,
    /// What the gate `load` answers; nothing: its answer gets lost.
    pub(crate) gate: Option<Answer>,
    /// Until then it answers that it is closed.
    pub(crate) gate_opens: Option<Timestamp>,
    /// When it was asked, and what.
    pub(crate) gate_asked: Vec<(Timestamp, GateQuestion)>,
}

/// What the ledger holds of one agent.
#[derive(Clone, Default)]
pub(crate) struct Entry {
    pub(crate) record: Option<AgentRecord>,
    pub(crate) requests: Requests,
    version: u64,
    generation: i64,
}

/// The machine of one agent, and what it was told last: a watch tells only what changed.
#[derive(Clone)]
struct Machine {
    state: AgentState,
    wake: Option<Timestamp>,
    ledger: Option<LedgerEntry>,
    live: Option<LiveState>,
    admission: Option<Arc<Admission>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: start(),
            cluster: Cluster::new(),
            ledger: BTreeMap::new(),
            git: Git::default(),
            machines: BTreeMap::new(),
            config: config(),
            plane: Plane::default(),
            oracle: Oracle::default(),
            limits: PruneLimits { max_objects: 20, max_percent: 50 },
            writes: vec![],
            told: vec![],
            effects: 0,
            asides: 0,
            log: None,
            aside_log: None,
            refuse: BTreeMap::new(),
            unseen: BTreeSet::new(),
            late: BTreeSet::new(),
            given: 0,
            observed: 0,
            worked: Duration::ZERO,
            traffic: Traffic::default(),
            preview: Smoked::Answers,
            fast_watch: false,
            gate: Some(Answer::Open),
            gate_opens: None,
            gate_asked: vec![],
        }
    }

    // === what people do ===

    pub(crate) fn git(self, prompt: &str) -> Self {
        self.git_with(prompt, |_, _| {})
    }

    pub(crate) fn git_with(mut self, prompt: &str, edit: impl FnOnce(&mut ReleaseSpec, &mut Settings)) -> Self {
        self.commit(desired(&agent(), prompt, edit));
        self
    }

    /// A commit that asks for this of one agent.
    pub(crate) fn commit(&mut self, desired: DesiredAgent) {
        self.plane.before_the_word = Some(self.past());
        self.git.says(desired);
    }

    pub(crate) fn git_removes(mut self) -> Self {
        self.remove(&agent());
        self
    }

    pub(crate) fn remove(&mut self, agent: &AgentName) {
        self.plane.before_the_word = Some(self.past());
        self.git.removes(agent);
    }

    /// The daemon starts again, and neither Git nor the mirror is there until the next commit.
    pub(crate) fn git_lost(mut self) -> Self {
        self.restart();
        self.git.lost = true;
        self
    }

    pub(crate) fn git_is_bad(mut self) -> Self {
        self.git.is_bad(&agent());
        self
    }

    pub(crate) fn consent(mut self, allow: Allow) -> Self {
        self.allow(&agent(), allow);
        self
    }

    pub(crate) fn allow(&mut self, agent: &AgentName, allow: Allow) {
        self.git.consents.push(Consent {
            agent: agent.clone(),
            environment: "production".parse().expect("a name"),
            allow,
            expires: start() + SignedDuration::from_hours(1000),
            origin: Origin::file("consent/x.yaml"),
        });
    }

    /// What people ask for in the ledger.
    pub(crate) fn requests(&mut self) -> &mut Requests {
        self.requests_of(&agent())
    }

    pub(crate) fn requests_of(&mut self, agent: &AgentName) -> &mut Requests {
        let entry = self.ledger.entry(agent.clone()).or_default();
        entry.version = entry.version.max(self.given) + 1;
        entry.generation += 1;
        &mut entry.requests
    }

    /// Somebody changes an object behind our back.
    pub(crate) fn edit(&mut self, kind: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let object = self.find(kind, name).expect("an object to edit");
        self.cluster.edit(&object, edit);
    }

    /// Somebody makes an object that is not ours.
    pub(crate) fn foreign(mut self, body: Value) -> Self {
        self.make_foreign(body);
        self
    }

    pub(crate) fn make_foreign(&mut self, body: Value) {
        let object = ObjectRef::of(&body, NAMESPACE).expect("an identity");
        self.cluster.put(&object, body);
        let uid = self.cluster.objects[&object].uid.0.clone();
        self.oracle.foreign.insert(uid, object);
    }

    pub(crate) fn delete(&mut self, kind: &str, name: &str) {
        let object = self.find(kind, name).expect("an object to delete");
        self.cluster.remove(&object);
    }

    pub(crate) fn later(mut self, time: SignedDuration) -> Self {
        self.now = self.now.checked_add(time).expect("a time");
        self
    }

    /// A restore from a backup drops the status; the requests stay.
    pub(crate) fn lose_ledger(&mut self) {
        for entry in self.ledger.values_mut() {
            entry.record = None;
            entry.version += 1;
            self.given = self.given.max(entry.version);
        }
        self.ledger.retain(|_, entry| entry.requests != Requests::default());
    }

    /// The daemon is killed and starts again: everything it knew is gone.
    pub(crate) fn restart(&mut self) {
        self.machines.clear();
        self.oracle.not_before.clear();
    }

    // === what is looked at ===

    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<ObjectRef> {
        self.cluster.find(kind, name)
    }

    pub(crate) fn body(&self, kind: &str, name: &str) -> &Value {
        self.cluster.body(&self.find(kind, name).expect("an object"))
    }

    pub(crate) fn uid(&self, kind: &str, name: &str) -> Option<String> {
        Some(self.cluster.objects[&self.find(kind, name)?].uid.0.clone())
    }

    pub(crate) fn record(&self) -> &AgentRecord {
        self.record_of(&agent()).expect("a record")
    }

    pub(crate) fn record_of(&self, agent: &AgentName) -> Option<&AgentRecord> {
        self.ledger.get(agent)?.record.as_ref()
    }

    pub(crate) fn stable(&self) -> Option<String> {
        Some(self.record_of(&agent())?.stable.as_ref()?.release.short())
    }

    /// The release that the main Deployment runs.
    pub(crate) fn running(&self) -> Option<String> {
        self.running_of(&agent())
    }

    pub(crate) fn running_of(&self, agent: &AgentName) -> Option<String> {
        let object = self.find("Deployment", agent.as_str())?;
        let label = self.cluster.body(&object).pointer("/spec/template/metadata/labels/backstay.dev~1release")?;
        label.as_str().map(str::to_owned)
    }

    /// The share of the traffic that each release has, in percent, by its short id.
    pub(crate) fn weights(&self, agent: &AgentName) -> BTreeMap<String, f64> {
        let Some(route) = self.find("HTTPRoute", agent.as_str()) else { return self.shares(agent) };
        let backends = self.cluster.body(&route).pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
        let backends = backends.filter_map(|rule| rule.get("backendRefs")?.as_array()).next_back();
        let share = |backend: &Value| {
            let (service, weight) = (backend["name"].as_str()?, backend["weight"].as_f64()?);
            let set = service.rsplit("--").next()?;
            let release = if set == "rolling" { self.running_of(agent)? } else { set.to_owned() };
            Some((release, weight))
        };
        backends.into_iter().flatten().filter_map(share).collect()
    }

    /// The share of the ready pods behind the agent's Service that each release has, in percent.
    fn shares(&self, agent: &AgentName) -> BTreeMap<String, f64> {
        let Some(service) = self.find("Service", agent.as_str()) else { return BTreeMap::new() };
        let pods = self.cluster.behind(&self.cluster.body(&service)["spec"]["selector"]);
        let releases: Vec<_> = pods.iter().filter_map(|pod| pod.label("backstay.dev/release")).collect();
        let part = 100.0 / f64::from(u32::try_from(releases.len()).expect("few"));
        let mut shares = BTreeMap::new();
        releases.iter().for_each(|release| *shares.entry((*release).to_owned()).or_default() += part);
        shares
    }

    pub(crate) fn holds(&self, kind: ConditionKind) -> bool {
        self.record().condition(kind).is_some_and(|condition| condition.status == Truth::True)
    }

    pub(crate) fn message(&self, kind: ConditionKind) -> String {
        self.record().condition(kind).map(|condition| condition.message.clone()).unwrap_or_default()
    }

    /// Everything that counts at the end, without UIDs, versions and times.
    pub(crate) fn end(&self) -> String {
        oracle::end(self)
    }

    /// Everything that can be listed, as it is.
    pub(crate) fn past(&self) -> Past {
        Past { objects: self.cluster.objects.clone(), ledger: self.ledger.clone() }
    }

    /// How much the daemon holds in memory of all agents, as text that shows every part of it.
    pub(crate) fn held(&self) -> usize {
        self.machines.values().map(|machine| format!("{:?}", machine.state).len()).sum()
    }

    /// Drops what this world alone remembers, and the daemon does not.
    pub(crate) fn forget_the_past(&mut self) {
        self.writes.clear();
        self.told.clear();
        self.gate_asked.clear();
        (self.effects, self.asides, self.plane.before_the_word) = (0, 0, None);
        self.git.forget();
        self.cluster.forget();
    }

    // === the world goes on ===

    /// Runs until nothing happens any more without time passing.
    pub(crate) fn settle(mut self) -> Self {
        self.run();
        self
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..300 {
            if !self.round() {
                return;
            }
        }
        panic!("it does not settle: {:?}", self.writes.iter().rev().take(12).collect::<Vec<_>>());
    }

    /// Runs on, lets the time pass that the core asks for, and ends what hides the truth, until all is at rest.
    pub(crate) fn converge(&mut self) {
        let patience = self.now + PATIENCE;
        for _ in 0..600 {
            self.run();
            if std::mem::take(&mut self.plane.fenced) {
                // The new leader knows nothing yet.
                self.restart();
                continue;
            }
            if self.plane.until.is_some_and(|until| until <= self.now) {
                self.plane.clear_up();
                continue;
            }
            let next = self.machines.values().filter_map(|machine| machine.wake).min();
            if let Some(next) = next.filter(|next| *next <= patience) {
                self.wake(next);
                continue;
            }
            let late = matches!(self.plane.fault, Some((Class::Late | Class::Timeout, _)));
            let landed = late && self.land();
            if !self.arrive_late() && !self.plane.clear_up() && !self.git.arrive() && !landed {
                return;
            }
        }
        panic!("it is never at rest: {:?}", self.writes.iter().rev().take(12).collect::<Vec<_>>());
    }

    /// Lets more time pass than any release may take to become healthy.
    pub(crate) fn past_the_deadline(mut self) -> Self {
        let at = self.now + SignedDuration::from_mins(11);
        self.wake(at);
        self.settle()
    }

    /// Lets time pass until the core asked to be woken, and runs on.
    pub(crate) fn until_woken(mut self) -> Self {
        let at = self.machines.values().filter_map(|machine| machine.wake).min();
        self.wake(at.expect("the core waits for a time"));
        self.settle()
    }

    pub(crate) fn wake(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
        let names: Vec<_> = self.machines.keys().cloned().collect();
        for name in names {
            let due = self.machines.get_mut(&name).and_then(|machine| machine.wake.take_if(|at| *at <= self.now));
            if due.is_some() {
                self.observe(&name, Observation::Woken);
                if self.plane.wakes_twice.take_if(|twice| *twice == name).is_some() {
                    self.observe(&name, Observation::Woken);
                }
            }
        }
    }

    /// Tells every machine what is new; says whether anything was.
    fn round(&mut self) -> bool {
        let before = (self.effects, self.cluster.clock);
        self.cluster.controllers();
        let mut new = false;
        let known: BTreeSet<_> = self.git.agents.keys().chain(self.ledger.keys()).cloned().collect();
        for name in known {
            let state = || AgentState::new(name.clone(), Arc::clone(&self.config));
            let machine = || Machine { state: state(), wake: None, ledger: None, live: None, admission: None };
            self.machines.entry(name.clone()).or_insert_with(machine);
        }
        let names: Vec<_> = self.machines.keys().cloned().collect();
        for name in &names {
            new |= self.show(name);
        }
        let mut admitted = self.admitted();
        for name in &names {
            let admission = admitted.remove(name);
            let Some(machine) = self.machines.get_mut(name) else { return true };
            if let Some(admission) = admission.filter(|admission| machine.admission.as_ref() != Some(admission)) {
                machine.admission = Some(Arc::clone(&admission));
                self.observe(name, Observation::Admitted(admission));
                new = true;
            }
        }
        new || before != (self.effects, self.cluster.clock)
    }

    /// Tells one machine what is new for it.
    fn show(&mut self, name: &AgentName) -> bool {
        let mut new = false;
        if let Some(old) = self.plane.swap.take_if(|_| !self.plane.dropping) {
            // What came later is told first.
            let past = (self.entry(&self.ledger, name), self.live_in(&self.cluster.objects, name));
            let was = (self.entry(&old.ledger, name), self.live_in(&old.objects, name));
            self.plane.hit |= past.0 != was.0 || !alike(&past.1, &was.1);
            for (entry, live) in [past, was] {
                self.tell_ledger(name, entry);
                self.tell_live(name, live);
            }
            new = true;
        }
        let past = self.plane.stale.as_ref();
        let entry = self.entry(past.map_or(&self.ledger, |past| &past.ledger), name);
        let live = self.live_in(past.map_or(&self.cluster.objects, |past| &past.objects), name);
        if self.plane.unseen.is_some_and(|kind| self.cluster.objects.keys().any(|object| object.kind == kind)) {
            self.plane.hit = true;
        }
        if past.is_some() {
            let truth = (self.entry(&self.ledger, name), self.live_in(&self.cluster.objects, name));
            self.plane.hit |= entry != truth.0 || !alike(&live, &truth.1);
        }
        let Some(machine) = self.machines.get(name) else { return true };
        let (other_entry, other_live) =
            (machine.ledger.as_ref() != Some(&entry), !machine.live.as_ref().is_some_and(|old| alike(old, &live)));
        // A first list is never lost.
        if self.plane.dropping && machine.ledger.is_some() {
            self.plane.hit |= other_entry || other_live;
        } else {
            if other_entry {
                self.tell_ledger(name, entry);
                new = true;
            }
            if other_live {
                self.tell_live(name, live);
                new = true;
            }
        }
        new
    }

    fn tell_ledger(&mut self, name: &AgentName, entry: LedgerEntry) {
        if let Some(machine) = self.machines.get_mut(name) {
            machine.ledger = Some(entry.clone());
            self.observe(name, Observation::Ledger(entry));
        }
    }

    fn tell_live(&mut self, name: &AgentName, live: LiveState) {
        if let Some(machine) = self.machines.get_mut(name) {
            machine.live = Some(live.clone());
            self.observe(name, Observation::Live(live));
        }
    }

    /// What the environment's machine admits, by what it was told.
    fn admitted(&self) -> BTreeMap<AgentName, Arc<Admission>> {
        if !self.git.has_spoken() {
            return BTreeMap::new();
        }
        let told =
            |(name, machine): (&AgentName, &Machine)| Some((name.clone(), machine.ledger.as_ref()?.record()?.clone()));
        let records: BTreeMap<_, _> = self.machines.iter().filter_map(told).collect();
        let desired = self.git.state();
        let back = returns(&desired, &records).map(|(back, ..)| back.name.clone());
        let reverts = back.map(|name| (name, (Evidence::Verified, vec![revision("bad").commit]))).collect();
        let standing = records.iter().filter_map(|(name, record)| {
            let stands = record.stable.as_ref()?;
            Some((name.clone(), self.git.at(name, stands)?))
        });
        let input = EnvironmentInput {
            desired: &desired,
            records: &records,
            standing: &standing.collect(),
            reverts: &reverts,
            held: &BTreeMap::new(),
            authors: &BTreeMap::new(),
            namespace: NAMESPACE,
            limits: self.limits,
            now: self.now,
        };
        admit(&input).agents
    }

    pub(crate) fn observe(&mut self, name: &AgentName, observation: Observation) {
        let mut queue = VecDeque::from([observation]);
        while let Some(observation) = queue.pop_front() {
            if self.fast_watch && matches!(observation, Observation::Done(Done::Written(_))) {
                // Kubernetes' own controllers go as far as they can.
                (0..8).for_each(|_| self.cluster.controllers());
                self.tell_live(name, self.live_in(&self.cluster.objects, name));
            }
            if self.plane.twice && self.plane.hit {
                // Told once more before anything else.
                self.step(name, observation.clone(), &mut queue);
            }
            self.step(name, observation, &mut queue);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "what the core costs is measured")]
    fn step(&mut self, name: &AgentName, observation: Observation, queue: &mut VecDeque<Observation>) {
        let Some(machine) = self.machines.get_mut(name) else { return };
        let blank = AgentState::new(name.clone(), Arc::clone(&self.config));
        let mut state = std::mem::replace(&mut machine.state, blank);
        self.observed += 1;
        // Who rests and is roused does what it would have done anyway: every other time, so that both are told.
        if self.observed.is_multiple_of(2) && state.doze() {
            state.rouse(machine.live.clone().unwrap_or_default());
        }
        let begun = Instant::now();
        let (state, actions) = step(state, observation, self.now, 7);
        self.worked += begun.elapsed();
        machine.state = state;
        let (asides, effects): (Vec<_>, Vec<_>) = actions.into_iter().partition(is_aside);
        assert!(effects.len() < 2, "more than one effect at once: {effects:?}");
        for aside in asides {
            if !self.aside(name, aside, queue) {
                return;
            }
        }
        for effect in effects {
            self.effect(name, effect, queue);
        }
    }

    /// What is not waited for: news are told, a time is noted, a question is answered.
    fn say(&mut self, name: &AgentName, aside: Action) -> Option<Observation> {
        match aside {
            Action::Announce(news) => self.told.push(format!("{}: {}", news.reason, news.message)),
            Action::Wake(at) => self.wake_later(name, at),
            Action::Measure(question) => {
                let weights = self.weights(name);
                let measured = self.traffic.answer(&question, &weights, self.now);
                return Some(Observation::Measured(Box::new(measured)));
            }
            Action::Smoke(look) => return Some(Observation::Smoked(look.release, self.preview.clone())),
            Action::Gate(question) => {
                self.gate_asked.push((self.now, (*question).clone()));
                let closed = self.gate_opens.is_some_and(|opens| self.now < opens);
                let closed = closed.then(|| Answer::Closed(Closed::Because("a load test runs".to_owned())));
                return closed.or_else(|| self.gate.clone()).map(|answer| Observation::Gate(question, answer));
            }
            effect => unreachable!("an effect: {effect:?}"),
        }
        None
    }

    fn wake_later(&mut self, name: &AgentName, at: Timestamp) {
        if let Some(machine) = self.machines.get_mut(name) {
            machine.wake = Some(at);
        }
    }

    // === what is seen ===

    fn entry(&self, ledger: &BTreeMap<AgentName, Entry>, name: &AgentName) -> LedgerEntry {
        match ledger.get(name) {
            None => LedgerEntry::Absent,
            Some(entry) => LedgerEntry::Present {
                record: Arc::new(entry.record.clone().unwrap_or_default()),
                requests: entry.requests.clone(),
                generation: entry.generation,
                version: ResourceVersion(entry.version.to_string()),
            },
        }
    }

    /// What a watch by label shows of one agent.
    fn live_in(&self, objects: &BTreeMap<ObjectRef, Arc<backstay::model::LiveObject>>, name: &AgentName) -> LiveState {
        let hidden = |kind: &str| self.unseen.contains(kind) || self.plane.unseen == Some(kind);
        let seen = objects.iter().filter(|(object, live)| {
            !hidden(&object.kind)
                && live.label("app.kubernetes.io/managed-by") == Some("backstay")
                && live.label("backstay.dev/agent") == Some(name.as_str())
        });
        let unseen = self.unseen.iter().map(String::as_str).chain(self.plane.unseen);
        LiveState {
            objects: seen.map(|(object, live)| (object.clone(), Arc::clone(live))).collect(),
            unseen: unseen.map(|kind| (group_kind(kind), "forbidden".to_owned())).collect(),
            synced: true,
        }
    }

    // === what is done ===

    fn act(&mut self, name: &AgentName, effect: Action) -> Observation {
        let truth = oracle::Truth {
            agent: name,
            cluster: &self.cluster,
            ledger: &self.ledger,
            consents: &self.git.consents,
            shown: self.machines.get(name).and_then(|machine| machine.live.as_ref()),
        };
        self.oracle.arrives(&effect, &truth);
        self.carry_out(name, effect)
    }

    fn carry_out(&mut self, name: &AgentName, effect: Action) -> Observation {
        let stale = self.plane.stale.clone().filter(|_| {
            let reads = matches!(effect, Action::Read(_) | Action::ReadLedger);
            reads && self.plane.stale_reads > 0
        });
        if stale.is_some() {
            self.plane.stale_reads -= 1;
        }
        match effect {
            Action::Record { expected, record } => {
                let entry = self.ledger.get(name);
                if let Some(kind) = self.refuse.get("record") {
                    return failed(kind.clone(), "the ledger says no");
                }
                if expected != entry.and_then(Entry::version) {
                    let kind = if expected.is_none() { FailureKind::Exists } else { FailureKind::Conflict };
                    return failed(kind, "the record changed");
                }
                self.writes.push("record".to_owned());
                let entry = self.ledger.entry(name.clone()).or_default();
                entry.record = Some(Arc::unwrap_or_clone(record));
                entry.version = entry.version.max(self.given) + 1;
                Observation::Done(Done::Recorded(ResourceVersion(entry.version.to_string())))
            }
            Action::ReadLedger => {
                Observation::Ledger(self.entry(stale.as_ref().map_or(&self.ledger, |past| &past.ledger), name))
            }
            Action::Read(object) => {
                let objects = stale.as_ref().map_or(&self.cluster.objects, |past| &past.objects);
                let live = objects.get(&object).cloned();
                Observation::Done(Done::Seen(object, live))
            }
            Action::Delete { object, uid, version } => match self.cluster.delete(&object, &uid, &version) {
                Ok(()) => {
                    self.writes.push(format!("- {}/{}", object.kind, object.name));
                    Observation::Done(Done::Deleted(object))
                }
                Err(No::Gone) => Observation::Done(Done::Deleted(object)),
                Err(No::Conflict | No::Exists) => failed(FailureKind::Conflict, "it is another one now"),
            },
            Action::Write(write) => {
                let answer = self.write(name, &write, true);
                answer.map_or_else(|kind| failed(kind, "the server says no"), Observation::Done)
            }
            Action::DryRun(write) => {
                let cluster = self.cluster.clone();
                let answer = self.write(name, &write, false);
                self.cluster = cluster;
                match answer {
                    Ok(Done::Written(live)) => Observation::Done(Done::WouldBe(live)),
                    Ok(other) => Observation::Done(other),
                    Err(kind) => failed(kind, "the server says no"),
                }
            }
            Action::TellGit(tell) => {
                let by = tell.by.as_deref().unwrap_or("backstay");
                self.writes.push(format!("tell git: {by} left {}", tell.left.release));
                Observation::Done(Done::Told(self.git.told(&tell)))
            }
            Action::Announce(_) | Action::Wake(_) | Action::Measure(_) | Action::Smoke(_) | Action::Gate(_) => {
                unreachable!("not an effect")
            }
        }
    }

    fn write(&mut self, name: &AgentName, write: &backstay::reconcile::Write, real: bool) -> Result<Done, FailureKind> {
        use backstay::reconcile::How;
        let object = &write.manifest.object;
        let named = format!("{}/{}", object.kind, object.name);
        if let Some(kind) = self.refuse.get(&object.kind).or_else(|| self.refuse.get(&named)) {
            return Err(kind.clone());
        }
        let live = self.cluster.write(name.as_str(), write).map_err(|no| match no {
            No::Conflict => FailureKind::Conflict,
            No::Exists => FailureKind::Exists,
            No::Gone => FailureKind::Gone,
        })?;
        if real {
            let mark = match write.how {
                How::Create { .. } => "+",
                How::Handover { .. } => "=",
                How::Adopt { .. } => "±",
                How::Apply { .. } => "~",
            };
            self.writes.push(format!("{mark} {}/{}", object.kind, object.name));
        }
        Ok(Done::Written(live))
    }
}

// === impl Entry ===

impl Entry {
    /// What a write of it must expect.
    pub(crate) fn version(&self) -> Option<ResourceVersion> {
        Some(ResourceVersion(self.version.to_string()))
    }

    /// Somebody of another version wrote it.
    pub(crate) fn rewrite(&mut self, edit: impl FnOnce(&mut AgentRecord)) {
        edit(self.record.get_or_insert_default());
        self.version += 1;
    }
}

/// Whether the core does not wait for it.
pub(crate) fn is_aside(action: &Action) -> bool {
    matches!(action, Action::Announce(_) | Action::Wake(_) | Action::Measure(_) | Action::Smoke(_) | Action::Gate(_))
}

/// Whether two lists show the same, by versions.
fn alike(one: &LiveState, other: &LiveState) -> bool {
    let versions = |live: &LiveState| {
        live.objects.values().map(|live| (live.uid.clone(), live.version.clone())).collect::<Vec<_>>()
    };
    one.unseen == other.unseen && versions(one) == versions(other)
}

fn failed(kind: FailureKind, message: &str) -> Observation {
    Observation::Done(Done::Failed(Failure { kind, message: message.to_owned() }))
}

fn group_kind(kind: &str) -> GroupKind {
    let group = if matches!(kind, "Deployment" | "ReplicaSet") { "apps" } else { "" };
    GroupKind { group: group.to_owned(), kind: kind.to_owned() }
}

fn config() -> Arc<AgentConfig> {
    Arc::new(AgentConfig {
        environment: "production".parse().expect("a name"),
        namespace: NAMESPACE.to_owned(),
        target: backstay::desired::TargetKind::Kubernetes,
        installation: "story".to_owned(),
        gate: GatePolicy::of(NAMESPACE),
        observe: false,
        gates: BTreeMap::from([("load".to_owned(), SignedDuration::from_secs(11))]),
    })
}
