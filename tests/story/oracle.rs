//! What must never happen, checked on every effect as it reaches the server, and what must be alike at the end.

use std::collections::BTreeMap;

use backstay::desired::{Allow, Consent};
use backstay::model::{AgentName, Digest, LiveObject, LiveState, ObjectRef, Timestamp};
use backstay::reconcile::{Action, How, Write};
use backstay::record::{AgentRecord, Cause, Operation, OperationKind, Outcome, ROLLOUT_FORMAT};
use serde_json::Value;

use super::cluster::Cluster;
use super::world::{Entry, World};

/// Kinds that hold data, or that take others along.
const PRECIOUS: [&str; 5] =
    ["PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition", "Secret"];

/// What was done wrong so far, each by the promise it breaks.
#[derive(Clone, Default)]
pub(crate) struct Oracle {
    pub(crate) violations: Vec<(&'static str, String)>,
    /// Before that, nothing is asked of the server again.
    pub(crate) not_before: BTreeMap<(AgentName, &'static str), Timestamp>,
    /// Who made each object, for what was made by somebody else.
    pub(crate) foreign: BTreeMap<String, ObjectRef>,
}

/// What an effect is judged by: the truth, never what the daemon sees.
pub(crate) struct Truth<'a> {
    pub(crate) agent: &'a AgentName,
    pub(crate) cluster: &'a Cluster,
    pub(crate) ledger: &'a BTreeMap<AgentName, Entry>,
    pub(crate) consents: &'a [Consent],
    /// What the machine was shown last.
    pub(crate) shown: Option<&'a LiveState>,
}

impl Oracle {
    fn broken(&mut self, promise: &'static str, what: String) {
        if self.violations.len() < 20 {
            self.violations.push((promise, what));
        }
    }

    /// An effect is asked for.
    pub(crate) fn asked(&mut self, agent: &AgentName, effect: &Action, now: Timestamp) {
        let server = if matches!(effect, Action::TellGit(_)) { "git" } else { "api" };
        if let Some(until) = self.not_before.get(&(agent.clone(), server)).filter(|until| now < **until).copied() {
            self.broken("K10", format!("{} before {until}: Retry-After is not respected", name_of(effect)));
        }
    }

    /// Something is asked for that is not waited for.
    pub(crate) fn asides(&mut self, agent: &AgentName, aside: &Action, now: Timestamp, suspended: bool) {
        match aside {
            Action::Wake(at) if *at <= now => {
                self.broken(
                    "K11",
                    format!("{agent} asks to be woken at {at}, and it is {now}: a loop without a pause"),
                );
            }
            Action::Measure(_) | Action::Smoke(_) | Action::Gate(_) if suspended => {
                self.broken("R8", format!("{agent} is suspended and asks: {aside:?}"));
            }
            Action::Announce(news) if news.reason.is_empty() || news.message.contains('\n') => {
                self.broken("R6", format!("news that are no line: {news:?}"));
            }
            _ => {}
        }
    }

    /// An effect of a leader that was replaced reaches the server.
    pub(crate) fn arrives_late(&mut self, effect: &Action, cluster: &Cluster) {
        if let Action::Delete { object, uid, version } = effect
            && cluster.objects.get(object).is_some_and(|live| live.uid == *uid && live.version == *version)
        {
            self.broken("F1", format!("{object} is deleted by a leader that was replaced"));
        }
    }

    /// An effect reaches the server.
    pub(crate) fn arrives(&mut self, effect: &Action, truth: &Truth<'_>) {
        match effect {
            Action::Write(write) => self.write(write, truth),
            Action::Delete { object, uid, version } => {
                if uid.0.is_empty() || version.0.is_empty() {
                    self.broken("K2", format!("{object} is deleted without UID or resourceVersion"));
                }
                let stands = truth.cluster.objects.get(object);
                // What the server refuses anyway does no harm.
                if stands.is_some_and(|live| live.uid == *uid && live.version == *version) {
                    self.delete(object, &uid.0, truth);
                }
            }
            Action::Record { expected, record } => {
                let entry = truth.ledger.get(truth.agent);
                if entry.and_then(Entry::version) == *expected {
                    self.record(entry.and_then(|entry| entry.record.as_ref()), record, truth);
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, write: &Write, truth: &Truth<'_>) {
        let object = &write.manifest.object;
        let entry = truth.ledger.get(truth.agent);
        let record = entry.and_then(|entry| entry.record.as_ref());
        let Some(record) = record.filter(|record| record.operation.is_some() || record.stable.is_some()) else {
            return self.broken("R6", format!("{object} is written, and no record says why"));
        };
        if entry.is_some_and(|entry| entry.requests.suspended().is_some()) && truth.shown.is_some() {
            let told = record.conditions.iter().any(|condition| condition.reason == "Suspended");
            if told {
                self.broken("R8", format!("{object} is written while the agent is suspended"));
            }
        }
        let lands = match &write.how {
            How::Create { .. } => !truth.cluster.objects.contains_key(object),
            How::Apply { uid, version, .. } | How::Adopt { uid, version } | How::Handover { uid, version } => {
                truth.cluster.objects.get(object).is_some_and(|live| live.uid == *uid && live.version == *version)
            }
        };
        if !lands {
            return;
        }
        let newest = record.operation.as_ref().or(record.operations.first()).map(|operation| operation.id);
        if let How::Create { operation } = &write.how
            && Some(*operation) != newest
        {
            self.broken("R6", format!("{object} is made for operation {operation}, the record is at {newest:?}"));
        }
        if record.operation.as_ref().is_some_and(|open| open.kind == OperationKind::Removal) {
            self.broken("R6", format!("{object} is written while the record removes the agent"));
        }
        if object.kind == "HTTPRoute" {
            self.split(&write.manifest.body, truth);
        }
        if object.kind == "Service" {
            self.select(&write.manifest.body, truth);
        }
        if !matches!(write.how, How::Create { .. }) {
            self.somebodys(write, record, truth);
        }
        if let Some(release) = released(&write.manifest.body) {
            let meant = record.operation.as_ref().map_or(record.stable.as_ref(), |_| record.candidate.as_ref());
            // A rollout keeps both its releases as they shall be.
            let other = record.stable.as_ref().filter(|_| record.rollout.is_some());
            if meant.into_iter().chain(other).all(|meant| meant.release.short() != release) {
                let meant = meant.map(|meant| meant.release.short());
                self.broken("K2", format!("{object} goes to {release}, the record means {meant:?}"));
            }
            if record.quarantine.iter().any(|failed| failed.release.short() == release) {
                self.broken("D9", format!("{object} goes to {release}, which is in quarantine"));
            }
        }
    }

    /// A Service of the agent never leaves ready pods for none.
    fn select(&mut self, body: &Value, truth: &Truth<'_>) {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let live =
            truth.cluster.objects.values().find(|live| live.object.kind == "Service" && live.object.name == name);
        let Some(live) = live.filter(|_| name == truth.agent.as_str()) else { return };
        let count = |body: &Value| truth.cluster.behind(&body["spec"]["selector"]).len();
        let (before, after) = (count(&live.body), count(body));
        if before > 0 && after == 0 {
            self.broken("T1", format!("Service/{name} leaves {before} ready pods for none"));
        }
    }

    /// Weights sum to the whole, and none points at a set with nothing ready while another set of the route is.
    fn split(&mut self, body: &Value, truth: &Truth<'_>) {
        let rules = body.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
        let Some(backends) = rules.filter_map(|rule| rule["backendRefs"].as_array()).next_back() else { return };
        let weights: Vec<_> = backends.iter().map(|backend| backend["weight"].as_u64().unwrap_or(1)).collect();
        if weights.iter().sum::<u64>() != 100 {
            self.broken("T1", format!("the weights are {weights:?}"));
        }
        let ready = |service: &str| {
            let set = service.rsplit("--").next();
            let pods = truth.cluster.objects.values().filter(|live| {
                live.object.kind == "Pod"
                    && live.label("backstay.dev/set") == set
                    && live.label("backstay.dev/agent") == Some(truth.agent.as_str())
            });
            pods.filter(|pod| pod.body["status"]["conditions"][0]["status"] == "True").count()
        };
        let ready: Vec<_> = backends.iter().map(|backend| ready(backend["name"].as_str().unwrap_or(""))).collect();
        let dead = weights.iter().zip(&ready).any(|(weight, ready)| *weight > 0 && *ready == 0);
        if dead && ready.iter().any(|ready| *ready > 0) {
            self.broken("T1", format!("weights {weights:?} for {ready:?} ready instances"));
        }
    }

    /// A write to an object that stands: is it ours, or allowed?
    fn somebodys(&mut self, write: &Write, record: &AgentRecord, truth: &Truth<'_>) {
        let object = &write.manifest.object;
        let live = &truth.cluster.objects[object];
        let owned = truth
            .ledger
            .values()
            .filter_map(|entry| entry.record.as_ref())
            .any(|record| record.inventory.owns(object, &live.uid));
        let mark = live.annotation("backstay.dev/operation").and_then(|mark| mark.split_once('/'));
        let known = |number: &str| {
            let all = record.operation.iter().chain(&record.operations);
            number.parse().is_ok_and(|number: u64| all.map(|operation| operation.id.0).any(|id| id == number))
        };
        let made = mark.is_some_and(|(agent, number)| agent == truth.agent.as_str() && known(number));
        let named = format!("{}/{}", object.kind, object.name);
        let allowed = truth.consents.iter().any(|consent| consent.allow == Allow::Adopt(named.clone()));
        if !owned && !made && !allowed {
            self.broken("K9", format!("{object} is not ours and is changed without consent"));
        }
        if self.foreign.contains_key(&live.uid.0) && !allowed {
            self.broken("K9", format!("{object} was made by somebody else and is changed without consent"));
        }
    }

    fn delete(&mut self, object: &ObjectRef, uid: &str, truth: &Truth<'_>) {
        let record = truth.ledger.get(truth.agent).and_then(|entry| entry.record.as_ref());
        let live = &truth.cluster.objects[object];
        if !record.is_some_and(|record| record.inventory.owns(object, &live.uid)) {
            self.broken("K2", format!("{object} is deleted, and the recorded inventory does not own it"));
        }
        if self.foreign.contains_key(uid) {
            let named = format!("{}/{}", object.kind, object.name);
            if !truth.consents.iter().any(|consent| consent.allow == Allow::Adopt(named.clone())) {
                self.broken("K5", format!("{object} was made by somebody else and is deleted"));
            }
        }
        if let Some(shown) = truth.shown.filter(|shown| !shown.unseen.is_empty()) {
            self.broken("K4", format!("{object} is deleted while {:?} cannot be listed", shown.unseen.keys()));
        }
        if record.is_some_and(|record| record.unconfirmed) {
            self.broken("K2", format!("{object} is deleted while nobody has confirmed the rebuilt ledger"));
        }
        let owns = |other: &Value| {
            let owners = other.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
        };
        let dragged = truth.cluster.objects.values().filter(|other| owns(&other.body)).map(|other| &other.object);
        for precious in dragged.chain([object]).filter(|object| PRECIOUS.contains(&object.kind.as_str())) {
            let named = format!("{}/{}", precious.kind, precious.name);
            if !truth.consents.iter().any(|consent| consent.allow == Allow::Prune(named.clone())) {
                self.broken("K5", format!("{precious} is deleted with {object}, and no consent names it"));
            }
        }
        let removal = record.and_then(|record| record.operation.as_ref()).map(|open| open.kind);
        if object.kind == "ConfigMap" && removal != Some(OperationKind::Removal) {
            let mounts = truth.cluster.objects.values().filter(|live| live.object.kind == "ReplicaSet").any(|set| {
                set.body.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(0) > 0
                    && set.body["spec"]["template"].to_string().contains(&format!("\"{}\"", object.name))
            });
            if mounts {
                self.broken("K2", format!("{object} is deleted, and a live ReplicaSet mounts it"));
            }
        }
    }

    fn record(&mut self, old: Option<&AgentRecord>, new: &AgentRecord, truth: &Truth<'_>) {
        if new.format > ROLLOUT_FORMAT || old.is_some_and(|old| old.format > new.format) {
            self.broken("R7", format!("a record of format {:?} is overwritten", old.map(|old| old.format)));
        }
        let Some(old) = old else { return };
        if old.unknown.iter().any(|(key, value)| new.unknown.get(key) != Some(value)) {
            self.broken("R7", "a field of a newer version is dropped".to_owned());
        }
        // The story of operations only grows, and each is begun before it ends.
        let begun = old.operation.iter().chain(&old.operations).map(|operation| operation.id).max();
        for operation in &new.operations {
            match old.operations.iter().find(|known| known.id == operation.id) {
                Some(known) if known != operation => {
                    self.broken("R6", format!("operation {} is told anew", operation.id));
                }
                Some(_) => {}
                None if old.operation.as_ref().is_none_or(|open| open.id != operation.id) => {
                    self.broken("R6", format!("operation {} ended and was never begun", operation.id));
                }
                None => {}
            }
        }
        if let Some(open) = &new.operation
            && old.operation.as_ref().is_none_or(|known| known.id != open.id)
            && begun.is_some_and(|begun| open.id <= begun)
        {
            self.broken("R6", format!("operation {} is begun a second time", open.id));
        }
        // What stands and is ours is not forgotten, unless another agent has it by now.
        for (object, uid) in &old.inventory.0 {
            let stands = truth.cluster.objects.get(object).is_some_and(|live| live.uid == *uid);
            let others = truth.ledger.iter().filter(|(agent, _)| *agent != truth.agent);
            let moved =
                others.filter_map(|(_, entry)| entry.record.as_ref()).any(|record| record.inventory.owns(object, uid));
            if stands && !moved && !new.inventory.owns(object, uid) {
                self.broken("K7", format!("{object} stands and is forgotten by the inventory"));
            }
        }
    }
}

/// The release that a Deployment runs.
fn released(body: &Value) -> Option<&str> {
    body.pointer("/spec/template/metadata/labels/backstay.dev~1release").and_then(Value::as_str)
}

pub(crate) fn name_of(effect: &Action) -> String {
    match effect {
        Action::Record { .. } => "record".to_owned(),
        Action::Write(write) => format!("write {}", write.manifest.object),
        Action::DryRun(write) => format!("dry run {}", write.manifest.object),
        Action::Delete { object, .. } => format!("delete {object}"),
        Action::Read(object) => format!("read {object}"),
        Action::ReadLedger => "read the ledger".to_owned(),
        Action::TellGit(_) => "tell Git".to_owned(),
        Action::Announce(news) => format!("announce {}", news.reason),
        Action::Wake(at) => format!("wake at {at}"),
        Action::Measure(_) => "measure".to_owned(),
        Action::Smoke(_) => "smoke".to_owned(),
        Action::Gate(question) => format!("gate {}", question.gate),
    }
}

// === the end ===

/// Everything that counts at the end, without UIDs, versions and times.
pub(crate) fn end(world: &World) -> String {
    let mut text = String::new();
    // How many empty sets Kubernetes keeps of what ran before is its own affair.
    let empty = |live: &LiveObject| live.object.kind == "ReplicaSet" && live.body["spec"]["replicas"] == 0;
    for live in world.cluster.objects.values().filter(|live| !empty(live)) {
        let mut body = (*live.body).clone();
        for field in ["uid", "resourceVersion", "generation", "ownerReferences"] {
            body["metadata"].as_object_mut().expect("metadata").remove(field);
        }
        let operation = body.pointer_mut("/metadata/annotations/backstay.dev~1operation").map(Value::take);
        body.as_object_mut().expect("an object").remove("status");
        let digest = &Digest::of(body.to_string().as_bytes()).to_string()[..12];
        text += &format!("{} ours={} {digest}\n", live.object, operation.is_some());
    }
    for (agent, entry) in &world.ledger {
        let Some(record) = &entry.record else { continue };
        let standing = |at: &backstay::record::Standing| (at.release.short(), at.revision.to_string(), at.settings);
        let failed: Vec<_> = record.quarantine.iter().map(|entry| entry.release.short()).collect();
        let owned: Vec<_> = record
            .inventory
            .0
            .iter()
            .map(|(object, uid)| {
                let stands = world.cluster.objects.get(object).map(|live| live.uid == *uid);
                format!("{object} {stands:?}")
            })
            .collect();
        let conditions: Vec<_> =
            record.conditions.iter().map(|condition| (condition.kind, condition.status, &condition.reason)).collect();
        let hold = record.hold.as_ref().map(|hold| (hold.left.short(), &hold.git));
        let differs = record.differs.as_ref().map(|differs| differs.desired.short());
        text += &format!("{agent}: {:?} {:?}\n", record.phase, record.stable.as_ref().map(standing));
        text += &format!("  history {:?}\n", record.history.iter().map(standing).collect::<Vec<_>>());
        text += &format!("  failed {failed:?} hold {hold:?} differs {differs:?}\n");
        text += &format!("  owned {owned:#?}\n  {conditions:?} unconfirmed={}\n", record.unconfirmed);
        text += &format!("  open={:?}\n", record.operation.as_ref().map(told));
        // Whether Git had spoken when a lost ledger was made anew decides if its settings are told as a change.
        let rebuilt = record.operations.iter().any(|operation| operation.cause == Cause::Rebuilt {});
        let counts = |key: &str| !rebuilt || key != "retry/after";
        let handled: Vec<_> = record.handled.iter().filter(|(key, _)| counts(key)).collect();
        text += &format!("  handled {handled:?}\n");
        if !rebuilt {
            text += &format!("  told {:?}\n", record.operations.iter().map(told).collect::<Vec<_>>());
        }
    }
    text
}

fn told(operation: &Operation) -> String {
    let outcome = match &operation.outcome {
        None => "open",
        Some(Outcome::Succeeded) => "done",
        Some(Outcome::Failed(_)) => "failed",
        Some(Outcome::Superseded) => "superseded",
    };
    format!("{} {:?} {} to {:?} {outcome}", operation.id, operation.kind, operation.cause, operation.to)
}
