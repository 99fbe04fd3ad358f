//! A target, a ledger and a Git word of plain values, with the core between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backstay::desired::{Code, Consent, DesiredAgent, Release, ReleaseSpec, Rolling, Settings, Workload, WriteBack};
use backstay::model::{AgentName, Diagnostics, Digest, LiveObject, LiveState, ObjectRef, Origin, Revision, Timestamp};
use backstay::plan::GatePolicy;
use backstay::reconcile::{
    Action, Admission, AgentConfig, AgentState, Done, Failure, FailureKind, How, LedgerEntry, Observation, Reason,
    Wanted, Write, step,
};
use backstay::record::{AgentRecord, ConditionKind, Evidence, Requests, Truth};
use jiff::SignedDuration;
use serde_json::{Value, json};

/// The namespace of all stories.
pub(crate) const NAMESPACE: &str = "agents";

/// One agent's world.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) objects: BTreeMap<ObjectRef, Value>,
    pub(crate) record: Option<AgentRecord>,
    observed: usize,
    pub(crate) requests: Requests,
    ledger_version: u64,
    clock: u64,
    state: AgentState,
    admission: Option<Arc<Admission>>,
    /// Releases whose pods never get ready, with the reason a container waits for.
    pub(crate) sick: BTreeMap<String, &'static str>,
    /// What was written to the target and the ledger, in order.
    pub(crate) writes: Vec<String>,
    /// What people were told.
    pub(crate) told: Vec<String>,
    /// Every effect that the core asked for so far.
    pub(crate) effects: usize,
    /// The daemon dies at this effect: before it happens, or after and without its answer.
    pub(crate) crash: Option<(usize, Crash)>,
    /// Answers that the next effects of this kind get instead of happening.
    pub(crate) refuse: BTreeMap<String, FailureKind>,
    /// Kinds that cannot be listed.
    pub(crate) unseen: BTreeSet<String>,
    /// What is shown instead of what is, as an old replica would.
    pub(crate) stale: Option<LiveState>,
    wake: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    Before,
    After,
}

pub(crate) fn agent() -> AgentName {
    "support".parse().expect("a name")
}

pub(crate) fn start() -> Timestamp {
    "2026-03-02T10:00:00Z".parse().expect("a time")
}

pub(crate) fn revision(text: &str) -> Revision {
    let commit = Digest::of(text.as_bytes()).to_string()[..40].parse().expect("a commit id");
    Revision { reference: "main".to_owned(), commit }
}

/// What Git asks for: an agent whose prompt is `prompt`.
pub(crate) fn desired(
    name: &AgentName,
    prompt: &str,
    edit: impl FnOnce(&mut ReleaseSpec, &mut Settings),
) -> DesiredAgent {
    let bytes: Arc<[u8]> = prompt.as_bytes().into();
    let mut spec = ReleaseSpec {
        format: 1,
        code: Code { image: Some("registry.example.com/agent:1".to_owned()), artifact: None, command: None },
        prompts: BTreeMap::from([("system".to_owned(), Digest::of(&bytes))]),
        models: BTreeMap::new(),
        tools: BTreeMap::new(),
        memory: None,
        config: None,
        workload: Workload { port: Some(8000), ..Workload::default() },
        workers: BTreeMap::new(),
    };
    let mut settings = Settings {
        digest: Digest::of(b""),
        replicas: Some(2),
        worker_replicas: BTreeMap::new(),
        history: 3,
        progress_deadline: Duration::from_mins(10),
        rolling: Rolling::default(),
        disruption_budget: None,
        depends_on: vec![],
        autoscaling: None,
        deployment: None,
        manifests: vec![],
        flags: None,
    };
    edit(&mut spec, &mut settings);
    let settings = settings.named().expect("settings");
    DesiredAgent {
        name: name.clone(),
        revision: revision(prompt),
        release: Arc::new(Release::new(spec, BTreeMap::from([("system".to_owned(), bytes)])).expect("a release")),
        settings: Arc::new(settings),
        renamed_from: None,
        origin: Origin::file("agents/support/agent.yaml"),
        warnings: Diagnostics::default(),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: start(),
            objects: BTreeMap::new(),
            record: None,
            observed: 0,
            requests: Requests::default(),
            ledger_version: 0,
            clock: 100,
            state: AgentState::new(agent(), config()),
            admission: None,
            sick: BTreeMap::new(),
            writes: vec![],
            told: vec![],
            effects: 0,
            crash: None,
            refuse: BTreeMap::new(),
            unseen: BTreeSet::new(),
            stale: None,
            wake: None,
        }
    }

    // === what people do ===

    pub(crate) fn git(self, prompt: &str) -> Self {
        self.git_with(prompt, |_, _| {})
    }

    pub(crate) fn git_with(mut self, prompt: &str, edit: impl FnOnce(&mut ReleaseSpec, &mut Settings)) -> Self {
        let desired = Arc::new(desired(&agent(), prompt, edit));
        self.admit(Wanted::Run(desired));
        self
    }

    pub(crate) fn git_removes(mut self) -> Self {
        self.admit(Wanted::Remove);
        self
    }

    /// The daemon starts again, and neither Git nor the mirror is there.
    pub(crate) fn git_lost(mut self) -> Self {
        self.restart();
        self.admission = None;
        self
    }

    pub(crate) fn git_is_bad(mut self) -> Self {
        let message = "agents/support/agent.yaml:3:1: error: unknown field".to_owned();
        self.admit(Wanted::Keep(Reason { word: "Invalid", message, stalled: true }));
        self
    }

    pub(crate) fn admit(&mut self, wanted: Wanted) {
        let standing = match self.admission.as_deref().map(|admission| &admission.wanted) {
            Some(Wanted::Run(desired)) => Some(Arc::clone(desired)),
            _ => self.admission.as_deref().and_then(|admission| admission.standing.clone()),
        };
        self.admission = Some(Arc::new(Admission {
            wanted,
            standing,
            revert: Some((Evidence::Verified, vec![revision("bad").commit])),
            consents: self.admission.as_deref().map(|old| old.consents.clone()).unwrap_or_default(),
            takes: BTreeMap::new(),
            leaves: BTreeMap::new(),
            write_back: WriteBack::Revert,
        }));
    }

    pub(crate) fn consent(mut self, allow: backstay::desired::Allow) -> Self {
        let mut admission = (*self.admission.clone().expect("Git spoke before")).clone();
        admission.consents.push(Consent {
            agent: agent(),
            environment: "production".parse().expect("a name"),
            allow,
            expires: start() + SignedDuration::from_hours(1000),
            origin: Origin::file("consent/x.yaml"),
        });
        self.admission = Some(Arc::new(admission));
        self
    }

    /// Somebody changes an object behind our back.
    pub(crate) fn edit(&mut self, kind: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let object = self.find(kind, name).expect("an object to edit");
        let version = self.tick();
        let body = self.objects.get_mut(&object).expect("it is there");
        edit(body);
        body["metadata"]["resourceVersion"] = json!(version);
    }

    /// Somebody makes an object that is not ours.
    pub(crate) fn foreign(mut self, body: Value) -> Self {
        let object = ObjectRef::of(&body, NAMESPACE).expect("an identity");
        self.store(object, body);
        self
    }

    pub(crate) fn delete(&mut self, kind: &str, name: &str) {
        let object = self.find(kind, name).expect("an object to delete");
        self.objects.remove(&object);
    }

    pub(crate) fn later(mut self, time: SignedDuration) -> Self {
        self.now = self.now.checked_add(time).expect("a time");
        self
    }

    /// The daemon is killed and starts again: everything it knew is gone.
    pub(crate) fn restart(&mut self) {
        self.state = AgentState::new(agent(), config());
        self.wake = None;
    }

    // === what is looked at ===

    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<ObjectRef> {
        self.objects.keys().find(|object| object.kind == kind && object.name == name).cloned()
    }

    pub(crate) fn uid(&self, kind: &str, name: &str) -> Option<String> {
        let object = self.find(kind, name)?;
        self.objects[&object]["metadata"]["uid"].as_str().map(str::to_owned)
    }

    pub(crate) fn record(&self) -> &AgentRecord {
        self.record.as_ref().expect("a record")
    }

    pub(crate) fn stable(&self) -> Option<String> {
        Some(self.record.as_ref()?.stable.as_ref()?.release.short())
    }

    /// The release that the main Deployment runs.
    pub(crate) fn running(&self) -> Option<String> {
        let object = self.find("Deployment", "support")?;
        let label = self.objects[&object].pointer("/spec/template/metadata/labels/backstay.dev~1release")?;
        label.as_str().map(str::to_owned)
    }

    pub(crate) fn holds(&self, kind: ConditionKind) -> bool {
        self.record().condition(kind).is_some_and(|condition| condition.status == Truth::True)
    }

    pub(crate) fn message(&self, kind: ConditionKind) -> String {
        self.record().condition(kind).map(|condition| condition.message.clone()).unwrap_or_default()
    }

    /// Everything that counts at the end, without UIDs, versions and times.
    pub(crate) fn end(&self) -> String {
        let mut text = String::new();
        for (object, body) in &self.objects {
            let mut body = body.clone();
            let operation = body.pointer("/metadata/annotations/backstay.dev~1operation").is_some();
            for field in ["uid", "resourceVersion", "generation", "annotations"] {
                body["metadata"].as_object_mut().expect("metadata").remove(field);
            }
            body.as_object_mut().expect("an object").remove("status");
            text += &format!("{object} ours={operation} {}\n", Digest::of(body.to_string().as_bytes()));
        }
        if let Some(record) = &self.record {
            let standing: Vec<_> = record.stable.iter().chain(&record.history).map(|at| at.release).collect();
            let failed: Vec<_> = record.quarantine.iter().map(|entry| entry.release).collect();
            let owned: Vec<_> = record.inventory.0.keys().map(ToString::to_string).collect();
            let conditions: Vec<_> =
                record.conditions.iter().map(|condition| (condition.kind, condition.status)).collect();
            text += &format!("{:?} {standing:?} {failed:?} {owned:?} {conditions:?}\n", record.phase);
            text += &format!("open={}\n", record.operation.is_some());
        }
        text
    }

    // === the world goes on ===

    /// Runs until nothing happens any more without time passing; `at most` bounds a story that would not end.
    pub(crate) fn settle(mut self) -> Self {
        self.run();
        self
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..200 {
            let before = (self.effects, self.objects.clone());
            self.controllers();
            let entry = self.entry();
            self.observe(Observation::Ledger(entry));
            let live = self.stale.clone().unwrap_or_else(|| self.live());
            self.observe(Observation::Live(live));
            if let Some(admission) = self.admission.clone() {
                self.observe(Observation::Admitted(admission));
            }
            if before == (self.effects, self.objects.clone()) {
                return;
            }
        }
        panic!("it does not settle: {:?}", self.writes.iter().rev().take(12).collect::<Vec<_>>());
    }

    /// Lets more time pass than any release may take to become healthy.
    pub(crate) fn past_the_deadline(mut self) -> Self {
        self.now = self.now.checked_add(SignedDuration::from_mins(11)).expect("a time");
        self.observe(Observation::Woken);
        self.settle()
    }

    /// Lets time pass until the core asked to be woken, and runs on.
    pub(crate) fn until_woken(mut self) -> Self {
        let at = self.wake.take().expect("the core waits for a time");
        self.now = self.now.max(at);
        self.observe(Observation::Woken);
        self.settle()
    }

    fn observe(&mut self, observation: Observation) {
        let mut queue = vec![observation];
        while let Some(observation) = queue.pop() {
            let mut state = self.state.clone();
            self.observed += 1;
            // Who rests and is roused does what it would have done anyway: every other time, so that both are told.
            if self.observed.is_multiple_of(2) && state.doze() {
                state.rouse(self.stale.clone().unwrap_or_else(|| self.live()));
            }
            let (state, actions) = step(state, observation, self.now, 7);
            self.state = state;
            for action in actions {
                match action {
                    Action::Announce(news) => self.told.push(format!("{}: {}", news.reason, news.message)),
                    Action::Wake(at) => self.wake = Some(at),
                    effect @ (Action::Record { .. }
                    | Action::Write(_)
                    | Action::DryRun(_)
                    | Action::Delete { .. }
                    | Action::Read(_)
                    | Action::ReadLedger
                    | Action::TellGit(_)) => {
                        self.effects += 1;
                        assert!(self.effects < 2000, "effects without end: {:?}", self.writes.last());
                        let dies = self.crash.filter(|(at, _)| *at == self.effects).map(|(_, crash)| crash);
                        if dies == Some(Crash::Before) {
                            return self.restart();
                        }
                        let answer = self.act(effect);
                        if dies == Some(Crash::After) {
                            return self.restart();
                        }
                        queue.push(answer);
                    }
                }
            }
        }
    }

    fn entry(&self) -> LedgerEntry {
        match &self.record {
            None if self.requests == Requests::default() => LedgerEntry::Absent,
            record => LedgerEntry::Present {
                record: Arc::new(record.clone().unwrap_or_default()),
                requests: self.requests.clone(),
                generation: 1,
                version: backstay::model::ResourceVersion(self.ledger_version.to_string()),
            },
        }
    }

    pub(crate) fn live(&self) -> LiveState {
        let seen = |object: &ObjectRef| !self.unseen.contains(&object.kind);
        let show =
            |(object, body): (&ObjectRef, &Value)| Some((object.clone(), Arc::new(LiveObject::of(body.clone())?)));
        LiveState {
            objects: self
                .objects
                .iter()
                .filter(|(object, _)| seen(object) && is_labelled(&self.objects[*object]))
                .filter_map(show)
                .collect(),
            unseen: self.unseen.iter().map(|kind| (group_kind(kind), "forbidden".to_owned())).collect(),
            synced: true,
        }
    }

    fn act(&mut self, effect: Action) -> Observation {
        let failed =
            |kind, message: &str| Observation::Done(Done::Failed(Failure { kind, message: message.to_owned() }));
        match effect {
            Action::Record { expected, record } => {
                let current = self.record.as_ref().map(|_| self.ledger_version.to_string());
                if self.requests == Requests::default() && expected.map(|version| version.0) != current {
                    return failed(FailureKind::Conflict, "the record changed");
                }
                self.writes.push("record".to_owned());
                self.record = Some(Arc::unwrap_or_clone(record));
                self.ledger_version += 1;
                Observation::Done(Done::Recorded(backstay::model::ResourceVersion(self.ledger_version.to_string())))
            }
            Action::ReadLedger => Observation::Ledger(self.entry()),
            Action::Read(object) => {
                let live = self.objects.get(&object).and_then(|body| LiveObject::of(body.clone())).map(Arc::new);
                Observation::Done(Done::Seen(object, live))
            }
            Action::Delete { object, uid, version } => {
                let Some(body) = self.objects.get(&object) else { return Observation::Done(Done::Deleted(object)) };
                if body["metadata"]["uid"] != uid.0 || body["metadata"]["resourceVersion"] != version.0 {
                    return failed(FailureKind::Conflict, "it is another one now");
                }
                self.writes.push(format!("- {}/{}", object.kind, object.name));
                self.objects.remove(&object);
                Observation::Done(Done::Deleted(object))
            }
            Action::Write(write) => self.write(&write),
            Action::DryRun(write) => {
                let mut other = self.clone();
                let answer = other.write(&write);
                if let Observation::Done(Done::Written(live)) = answer {
                    Observation::Done(Done::WouldBe(live))
                } else {
                    answer
                }
            }
            Action::TellGit(tell) => {
                self.writes.push(format!("tell git: {} left {}", tell.by, tell.left.release));
                Observation::Done(Done::Told(Some("c0ffee".to_owned())))
            }
            Action::Announce(_) | Action::Wake(_) => unreachable!("not an effect"),
        }
    }

    fn write(&mut self, write: &Write) -> Observation {
        let failed = |kind: FailureKind, message: &str| {
            Observation::Done(Done::Failed(Failure { kind, message: message.to_owned() }))
        };
        let object = write.manifest.object.clone();
        let name = format!("{}/{}", object.kind, object.name);
        if let Some(kind) = self.refuse.get(&object.kind).cloned() {
            return failed(kind, "refused by a story");
        }
        let mut body = (*write.manifest.body).clone();
        match &write.how {
            How::Create { operation } => {
                if self.objects.contains_key(&object) {
                    return failed(FailureKind::Exists, "it exists");
                }
                body["metadata"]["annotations"]["backstay.dev/operation"] = json!(format!("{}/{operation}", agent()));
                self.writes.push(format!("+ {name}"));
            }
            How::Apply { uid, version, .. } | How::Adopt { uid, version } | How::Handover { uid, version } => {
                let Some(old) = self.objects.get(&object) else { return failed(FailureKind::Gone, "it is gone") };
                if old["metadata"]["uid"] != uid.0 || old["metadata"]["resourceVersion"] != version.0 {
                    return failed(FailureKind::Conflict, "it is another one now");
                }
                let (uid, operation) =
                    (old["metadata"]["uid"].clone(), old["metadata"]["annotations"]["backstay.dev/operation"].clone());
                if let How::Handover { .. } = write.how {
                    body = old.clone();
                } else if body.pointer("/spec/replicas").is_none() && object.kind == "Deployment" {
                    body["spec"]["replicas"] = old["spec"]["replicas"].clone();
                }
                body["metadata"]["uid"] = uid;
                if !operation.is_null() {
                    body["metadata"]["annotations"]["backstay.dev/operation"] = operation;
                }
                let mark = match write.how {
                    How::Handover { .. } => "=",
                    How::Adopt { .. } => "±",
                    How::Apply { .. } | How::Create { .. } => "~",
                };
                self.writes.push(format!("{mark} {name}"));
            }
        }
        self.store(object.clone(), body);
        let live = LiveObject::of(self.objects[&object].clone()).expect("a live object");
        Observation::Done(Done::Written(Arc::new(live)))
    }

    fn tick(&mut self) -> String {
        self.clock += 1;
        self.clock.to_string()
    }

    fn store(&mut self, object: ObjectRef, mut body: Value) {
        let version = self.tick();
        if body.pointer("/metadata/uid").is_none() {
            body["metadata"]["uid"] = json!(format!("uid-{version}"));
        }
        body["metadata"]["namespace"] = json!(NAMESPACE);
        body["metadata"]["resourceVersion"] = json!(version);
        body["metadata"]["generation"] = json!(self.clock);
        self.objects.insert(object, body);
    }

    /// What Kubernetes' own controllers would do: one ReplicaSet a template, pods, and the Deployment's status.
    fn controllers(&mut self) {
        let gone = |body: &Value, objects: &BTreeMap<ObjectRef, Value>| {
            let owner = body.pointer("/metadata/ownerReferences/0/uid").and_then(Value::as_str);
            owner.is_some_and(|uid| !objects.values().any(|other| other["metadata"]["uid"] == uid))
        };
        loop {
            let objects = self.objects.clone();
            let before = self.objects.len();
            self.objects.retain(|_, body| !gone(body, &objects));
            if before == self.objects.len() {
                break;
            }
        }
        let deployments: Vec<_> = self
            .objects
            .iter()
            .filter(|(object, _)| object.kind == "Deployment")
            .map(|(object, body)| (object.clone(), body.clone()))
            .collect();
        for (object, body) in deployments {
            self.roll(&object, &body);
        }
    }

    fn roll(&mut self, object: &ObjectRef, body: &Value) {
        let template = &body["spec"]["template"];
        let hash = &Digest::of(template.to_string().as_bytes()).to_string()[..8].to_owned();
        let release = template.pointer("/metadata/labels/backstay.dev~1release").and_then(Value::as_str);
        let sick = release.and_then(|release| self.sick.get(release)).copied();
        let replicas = body.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
        let set =
            ObjectRef { kind: "ReplicaSet".to_owned(), name: format!("{}-{hash}", object.name), ..object.clone() };
        let owner = |kind: &str, name: &str, uid: &Value| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
        if !self.objects.contains_key(&set) {
            let meta = json!({
                "name": set.name, "labels": template["metadata"]["labels"],
                "ownerReferences": owner("Deployment", &object.name, &body["metadata"]["uid"]),
            });
            let new = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta,
                "spec": {"replicas": replicas, "template": template}, "status": {"replicas": replicas}});
            self.store(set.clone(), new);
        }
        // Old pods go when new ones are ready; sick new ones stay beside the old.
        if sick.is_none() {
            let others: Vec<_> = self
                .objects
                .iter()
                .filter(|(other, other_body)| {
                    other.kind == "ReplicaSet"
                        && **other != set
                        && other_body.pointer("/metadata/ownerReferences/0/uid") == Some(&body["metadata"]["uid"])
                })
                .map(|(other, _)| other.clone())
                .collect();
            for other in others {
                let uid = self.objects[&other]["metadata"]["uid"].clone();
                self.objects.retain(|_, pod| pod.pointer("/metadata/ownerReferences/0/uid") != Some(&uid));
                let old = self.objects.get_mut(&other).expect("a set");
                old["spec"]["replicas"] = json!(0);
                old["status"]["replicas"] = json!(0);
            }
        }
        let set_uid = self.objects[&set]["metadata"]["uid"].clone();
        let restored = self.objects.get_mut(&set).expect("a set");
        restored["spec"]["replicas"] = json!(replicas);
        restored["status"]["replicas"] = json!(replicas);
        for n in 0..replicas {
            let name = format!("{}-{n}", set.name);
            let pod = ObjectRef { group: String::new(), kind: "Pod".to_owned(), namespace: NAMESPACE.to_owned(), name };
            let status = match sick {
                None => json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
                Some(reason) => json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
                    "containerStatuses": [{"name": "agent", "ready": false, "restartCount": 4,
                        "state": {"waiting": {"reason": reason, "message": "back-off 10s"}},
                        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            };
            let meta = json!({"name": pod.name, "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": owner("ReplicaSet", &set.name, &set_uid)});
            let new = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"], "status": status});
            if self.objects.get(&pod).is_none_or(|old| old["status"] != new["status"]) {
                self.store(pod, new);
            }
        }
        let ready = if sick.is_some() { 0 } else { replicas };
        let status = json!({"observedGeneration": body["metadata"]["generation"], "replicas": replicas,
            "updatedReplicas": replicas, "readyReplicas": ready, "availableReplicas": ready,
            "unavailableReplicas": replicas - ready,
            "conditions": [{"type": "Available", "status": if sick.is_some() {"False"} else {"True"}},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]});
        let version = self.clock + 1;
        let deployment = self.objects.get_mut(object).expect("a Deployment");
        if deployment["status"] != status {
            deployment["status"] = status;
            deployment["metadata"]["resourceVersion"] = json!(version.to_string());
            self.clock = version;
        }
    }
}

fn is_labelled(body: &Value) -> bool {
    body.pointer("/metadata/labels/app.kubernetes.io~1managed-by") == Some(&json!("backstay"))
}

fn group_kind(kind: &str) -> backstay::model::GroupKind {
    let group = if matches!(kind, "Deployment" | "ReplicaSet") { "apps" } else { "" };
    backstay::model::GroupKind { group: group.to_owned(), kind: kind.to_owned() }
}

fn config() -> Arc<AgentConfig> {
    Arc::new(AgentConfig {
        environment: "production".parse().expect("a name"),
        namespace: NAMESPACE.to_owned(),
        installation: "story".to_owned(),
        gate: GatePolicy::of(NAMESPACE),
        observe: false,
    })
}
