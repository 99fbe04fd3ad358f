//! Desired, live and record become a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    FieldChange, FieldPath, GatePolicy, Inverse, Plan, PruneReason, Segment, Step, WaitingOn, admit, admit_deletion,
    check, drift, dropped,
};
use crate::desired::{Allow, Consent};
use crate::model::{AgentName, Digest, GroupKind, LiveObject, LiveState, Manifest, ObjectRef, Uid};
use crate::record::AgentRecord;
use crate::render::OPERATION_ANNOTATION;

/// Kinds that are never deleted, nor dragged along, without a consent that names the object.
const PROTECTED: [&str; 5] =
    ["PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition", "Secret"];

/// All that a plan depends on: plain values.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// Whose plan it is.
    pub agent: &'a AgentName,
    /// What shall stand, in the order in which it is written; empty: the agent goes.
    pub desired: &'a [Manifest],
    /// What was rendered before: tells which fields are no longer ours; nothing where that is not known.
    pub previous: Option<&'a [Manifest]>,
    /// What stands.
    pub live: &'a LiveState,
    /// What is remembered.
    pub record: &'a AgentRecord,
    /// Objects that move here from another agent.
    pub takes: &'a BTreeMap<ObjectRef, Uid>,
    /// Objects that move to another agent.
    pub leaves: &'a BTreeMap<ObjectRef, bool>,
    /// Deeds that somebody allowed.
    pub consents: &'a [Consent],
    /// Old releases' objects that the history keeps.
    pub kept: &'a BTreeSet<ObjectRef>,
    /// Differences that the server was asked about and that it would not change, by digest.
    pub accepted: &'a BTreeMap<ObjectRef, Digest>,
    /// Objects that were refused as they are asked for now, with why, and whether by an immutable field.
    pub refused: &'a BTreeMap<ObjectRef, (String, bool)>,
    /// Objects whose replicas were handed over by this operation.
    pub handed_over: &'a BTreeSet<ObjectRef>,
    /// Objects whose former fields were dropped by this operation.
    pub dropped: &'a BTreeSet<ObjectRef>,
    /// What the new release still lacks to be healthy; nothing: it is.
    pub unhealthy: Option<&'a str>,
    /// What may be written at all.
    pub gate: &'a GatePolicy,
}

/// Names a set of differences, so that an answer about them can be remembered.
pub fn differences(changes: &[FieldChange]) -> Digest {
    let lines = changes.iter().map(|change| format!("{}\0{}\0{:?}\n", change.path, change.ours, change.live));
    Digest::of(lines.collect::<String>().as_bytes())
}

/// Plans what brings `input.live` to `input.desired`.
///
/// # Guarantees
///
/// Pure and total: the same input gives the same plan, and a plan carried out whole leaves an empty one. Nothing is
/// changed that is neither in the inventory, nor made by the newest operation, nor allowed by consent; nothing is deleted
/// before everything else is written and healthy, nor while a kind was not seen whole.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut whole = true;
    // What moves to another agent is that one's to write, even while this one still asks for it.
    for manifest in input.desired.iter().filter(|manifest| !input.leaves.contains_key(&manifest.object)) {
        if !whole && is_late(&manifest.object) {
            break;
        }
        match stand(input, manifest) {
            Ok(steps) => plan.steps.extend(steps),
            Err(waiting) => {
                whole = false;
                plan.waiting.push(waiting);
            }
        }
    }
    let (prunes, blocked) = prunes(input);
    if let (true, Some(lack)) = (whole && !input.desired.is_empty(), input.unhealthy) {
        plan.waiting.push(WaitingOn::Healthy(lack.to_owned()));
    }
    if plan.waiting.is_empty() {
        if plan.steps.is_empty() || input.unhealthy.is_none() && plan.steps.iter().all(|step| !restarts(step)) {
            plan.steps.extend(prunes);
        } else {
            let what = plan.steps.iter().find(|step| restarts(step)).map_or("it", |step| &*step.object().name);
            plan.waiting.push(WaitingOn::Healthy(format!("{what} to become ready")));
            plan.then = prunes;
        }
        plan.waiting.extend(blocked);
    } else {
        plan.then = prunes;
    }
    plan.notes = check(&plan, input);
    plan
}

/// Whether pods run by it: written after everything that pods need.
fn is_late(object: &ObjectRef) -> bool {
    matches!(object.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob")
        || matches!(object.kind.as_str(), "HorizontalPodAutoscaler" | "PodDisruptionBudget")
}

/// Whether pods are started or replaced by `step`.
fn restarts(step: &Step) -> bool {
    match step {
        Step::Create { manifest } => manifest.object.kind == "Deployment",
        Step::Update { manifest, changes, .. } | Step::Adopt { manifest, changes, .. } => {
            manifest.object.kind == "Deployment"
                && changes
                    .iter()
                    .any(|change| change.path.to_string().trim_start_matches('.').starts_with("spec.template"))
        }
        Step::Handover { .. } | Step::Prune { .. } => false,
    }
}

/// Whether this very object, which `record` asks for by name, is ours.
pub(super) fn is_ours(input: &PlanInput<'_>, live: &LiveObject) -> bool {
    owns(input.agent, input.record, input.takes, live)
}

/// Whether an object that `agent` asks for by name is its own: by the inventory, by a move from another agent, or made
/// by one of its recorded operations before the inventory could say so.
///
/// The mark of an operation counts only for names that are asked for: a copy under another name carries it too.
pub fn owns(agent: &AgentName, record: &AgentRecord, takes: &BTreeMap<ObjectRef, Uid>, live: &LiveObject) -> bool {
    let made = || {
        let (maker, number) = live.annotation(OPERATION_ANNOTATION)?.split_once('/')?;
        let number: u64 = number.parse().ok()?;
        let mut recorded = record.operation.iter().chain(&record.operations);
        (maker == agent.as_str()).then(|| recorded.any(|operation| operation.id.0 == number))
    };
    record.inventory.owns(&live.object, &live.uid)
        || takes.get(&live.object) == Some(&live.uid)
        || made().unwrap_or(false)
}

/// What must be done to one object that shall stand; or what must be waited for.
fn stand(input: &PlanInput<'_>, manifest: &Manifest) -> Result<Vec<Step>, WaitingOn> {
    let object = &manifest.object;
    let mended = |why: &str| WaitingOn::Mended { object: object.clone(), why: why.to_owned() };
    if let Err(forbidden) = admit(manifest, input.gate) {
        return Err(mended(&forbidden.to_string()));
    }
    let Some(live) = input.live.objects.get(object) else {
        if let Some(why) = input.live.unseen.get(&object.group_kind()) {
            return Err(WaitingOn::Sight { kind: object.group_kind(), why: why.clone() });
        }
        if is_completed_job(input, manifest) {
            return Ok(vec![]);
        }
        return match input.refused.get(object) {
            Some((why, _)) => Err(mended(why)),
            None => Ok(vec![Step::Create { manifest: manifest.clone() }]),
        };
    };
    if live.is_terminating() {
        return Err(WaitingOn::Gone(object.clone()));
    }
    let changes = drift(&manifest.body, &live.body);
    if !is_ours(input, live) {
        return adopt(input, manifest, live, changes).map(|step| vec![step]);
    }
    let drops = drops_fields(input, manifest, live);
    let accepted = || input.accepted.get(object).is_some_and(|accepted| *accepted == differences(&changes));
    if (changes.is_empty() || accepted()) && !drops {
        return Ok(vec![]);
    }
    // Where nobody knows what was rendered before, fields of ours may be left over.
    let drops = drops || input.previous.is_none();
    if let Some((why, immutable)) = input.refused.get(object) {
        return if *immutable && allows(input.consents, "replace", object) {
            let (uid, version) = (live.uid.clone(), live.version.clone());
            Ok(vec![Step::Prune { object: object.clone(), uid, version, why: PruneReason::Replace }])
        } else if *immutable {
            Err(WaitingOn::Consent { allow: "replace", object: object.clone(), why: why.clone() })
        } else {
            Err(mended(why))
        };
    }
    if let Some(handover) = handover(input, manifest, live) {
        return Ok(vec![handover, update(manifest, live, changes, true)]);
    }
    Ok(vec![update(manifest, live, changes, drops)])
}

fn update(manifest: &Manifest, live: &LiveObject, changes: Vec<FieldChange>, drops_fields: bool) -> Step {
    let (uid, version) = (live.uid.clone(), live.version.clone());
    Step::Update { manifest: manifest.clone(), uid, version, changes, drops_fields }
}

/// A Job that ran to its end and was cleaned up is no drift: going back runs none again.
fn is_completed_job(input: &PlanInput<'_>, manifest: &Manifest) -> bool {
    manifest.object.kind == "Job" && input.record.inventory.0.contains_key(&manifest.object)
}

/// What was rendered before for one object.
fn previous<'a>(input: &PlanInput<'a>, object: &ObjectRef) -> Option<&'a Manifest> {
    input.previous?.iter().find(|previous| previous.object == *object)
}

/// Fields that were rendered before, are no longer, and still stand.
fn drops_fields(input: &PlanInput<'_>, manifest: &Manifest, live: &LiveObject) -> bool {
    if input.dropped.contains(&manifest.object) {
        return false;
    }
    previous(input, &manifest.object)
        // What was rendered once for both drops nothing.
        .filter(|previous| !Arc::ptr_eq(&previous.body, &manifest.body))
        .is_some_and(|previous| dropped(&previous.body, &manifest.body).iter().any(|path| stands(path, &live.body)))
}

/// Whether there is a value at `path`.
fn stands(path: &FieldPath, body: &Value) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let is = |element: &Value, (key, wanted): &(String, String)| element.get(key).map(text).as_ref() == Some(wanted);
    let found = path.0.iter().try_fold(body, |at, segment| match segment {
        Segment::Field(name) => at.get(name),
        Segment::Index(index) => at.get(index),
        Segment::Key(keys) => at.as_array()?.iter().find(|element| keys.iter().all(|key| is(element, key))),
    });
    found.is_some_and(|value| !value.is_null())
}

/// Replicas were ours and shall be an autoscaler's: never a moment with one pod.
fn handover(input: &PlanInput<'_>, manifest: &Manifest, live: &LiveObject) -> Option<Step> {
    previous(input, &manifest.object)?.body.pointer("/spec/replicas")?;
    if manifest.body.pointer("/spec/replicas").is_some() || input.handed_over.contains(&manifest.object) {
        return None;
    }
    let replicas = live.body.pointer("/spec/replicas")?;
    let identity = |field: &str| manifest.body.get(field).cloned().unwrap_or(Value::Null);
    let object = &manifest.object;
    let body = json!({
        "apiVersion": identity("apiVersion"), "kind": identity("kind"),
        "metadata": {"name": object.name, "namespace": object.namespace},
        "spec": {"replicas": replicas},
    });
    let manifest = Manifest { object: object.clone(), body: Arc::new(body), origin: manifest.origin.clone() };
    Some(Step::Handover { manifest, uid: live.uid.clone(), version: live.version.clone() })
}

/// Somebody else's object stands where ours shall: taken over by consent, never from Flux or Argo CD.
fn adopt(
    input: &PlanInput<'_>,
    manifest: &Manifest,
    live: &LiveObject,
    changes: Vec<FieldChange>,
) -> Result<Step, WaitingOn> {
    let object = &manifest.object;
    if let Some(manager) = other_gitops(live) {
        let why = format!("{manager} manages it: take it out of {manager} first");
        return Err(WaitingOn::Mended { object: object.clone(), why });
    }
    if !allows(input.consents, "adopt", object) {
        let why = "it exists and was not made by Backstay for this agent".to_owned();
        return Err(WaitingOn::Consent { allow: "adopt", object: object.clone(), why });
    }
    let selector = |body: &Value| body.pointer("/spec/selector").cloned();
    if object.kind == "Deployment" && selector(&manifest.body) != selector(&live.body) {
        let why = "its selector cannot be taken over: delete it, or rename the agent to build beside it".to_owned();
        return Err(WaitingOn::Mended { object: object.clone(), why });
    }
    let (uid, version) = (live.uid.clone(), live.version.clone());
    Ok(Step::Adopt { manifest: manifest.clone(), uid, version, changes })
}

/// Flux or Argo CD, when one of them manages the object.
fn other_gitops(live: &LiveObject) -> Option<&'static str> {
    let has = |map: &str, prefix: &str| {
        let fields = live.body.get("metadata")?.get(map)?.as_object()?;
        fields.keys().find(|key| key.starts_with(prefix)).map(|_| ())
    };
    if has("labels", "kustomize.toolkit.fluxcd.io/").or_else(|| has("labels", "helm.toolkit.fluxcd.io/")).is_some() {
        Some("Flux")
    } else if has("annotations", "argocd.argoproj.io/tracking-id")
        .or_else(|| has("labels", "argocd.argoproj.io/"))
        .is_some()
    {
        Some("Argo CD")
    } else {
        None
    }
}

/// What is deleted once all else is done, and what is kept back and why.
fn prunes(input: &PlanInput<'_>) -> (Vec<Step>, Vec<WaitingOn>) {
    let desired: BTreeSet<_> = input.desired.iter().map(|manifest| &manifest.object).collect();
    let goes = |object: &ObjectRef| {
        !desired.contains(object) && !input.kept.contains(object) && !input.leaves.contains_key(object)
    };
    let (mut steps, mut blocked) = (vec![], vec![]);
    let blind = blind(input);
    for (object, uid) in input.record.inventory.0.iter().rev().filter(|(object, _)| goes(object)) {
        if let Some(why) = input.live.unseen.get(&object.group_kind()) {
            blocked.push(WaitingOn::Sight { kind: object.group_kind(), why: why.clone() });
            continue;
        }
        let Some(live) = input.live.objects.get(object).filter(|live| live.uid == *uid && !live.is_terminating())
        else {
            continue;
        };
        if let Err(why) = admit_deletion(object, input.gate) {
            blocked.push(WaitingOn::Mended { object: object.clone(), why });
            continue;
        }
        if let Some((kind, why)) = &blind {
            blocked.push(WaitingOn::Sight { kind: (*kind).clone(), why: (*why).clone() });
            continue;
        }
        if let Some(why) = protected(input, live) {
            blocked.push(WaitingOn::Consent { allow: "prune", object: object.clone(), why });
            continue;
        }
        if let Some((why, _)) = input.refused.get(object) {
            blocked.push(WaitingOn::Mended { object: object.clone(), why: why.clone() });
            continue;
        }
        let why = match object.kind.as_str() {
            "ConfigMap" if !input.desired.is_empty() && live.body.get("immutable") == Some(&Value::Bool(true)) => {
                PruneReason::Retention
            }
            _ => PruneReason::NotDesired,
        };
        steps.push(Step::Prune { object: object.clone(), uid: uid.clone(), version: live.version.clone(), why });
    }
    (steps, blocked)
}

/// A kind that was not seen whole and that deletions depend on: what is owned, what every agent has, what it drags along.
fn blind<'a>(input: &PlanInput<'a>) -> Option<(&'a GroupKind, &'a String)> {
    let asked = input.desired.iter().map(|manifest| &manifest.object);
    let ours: BTreeSet<_> = input.record.inventory.0.keys().chain(asked).map(ObjectRef::group_kind).collect();
    let counts = |kind: &GroupKind| {
        let name = kind.kind.as_str();
        ours.contains(kind)
            || matches!(name, "ConfigMap" | "Service" | "Deployment" | "ReplicaSet" | "Pod")
            || PROTECTED.contains(&name)
    };
    input.live.unseen.iter().find(|(kind, _)| counts(kind))
}

/// Why deleting `live` needs a consent that names it, if it does and there is none.
fn protected(input: &PlanInput<'_>, live: &LiveObject) -> Option<String> {
    let guarded = |object: &ObjectRef| PROTECTED.contains(&object.kind.as_str());
    if guarded(&live.object) && !allows(input.consents, "prune", &live.object) {
        return Some("deleting it may lose data".to_owned());
    }
    let owner = |dependant: &LiveObject| {
        let owners = dependant.body.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        owners.is_some_and(|owners| {
            owners.iter().any(|owner| owner.get("uid").and_then(Value::as_str) == Some(&live.uid.0))
        })
    };
    let dragged = input.live.objects.values().find(|other| guarded(&other.object) && owner(other))?;
    let named = allows(input.consents, "prune", &dragged.object);
    (!named).then(|| format!("{} would be deleted with it", dragged.object))
}

/// Whether somebody allowed this deed on this object.
fn allows(consents: &[Consent], deed: &str, object: &ObjectRef) -> bool {
    let name = format!("{}/{}", object.kind, object.name);
    consents.iter().any(|consent| match &consent.allow {
        Allow::Adopt(named) => deed == "adopt" && *named == name,
        Allow::Prune(named) => deed == "prune" && *named == name,
        Allow::Replace(named) => deed == "replace" && *named == name,
        Allow::Retry(_) | Allow::LossyDown(_) => false,
    })
}

// === impl Plan ===

impl Plan {
    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_empty()
    }

    /// How each step is taken back, the last first; known before the first effect.
    pub fn inverse(&self, live: &LiveState) -> Vec<Inverse> {
        self.steps.iter().rev().map(|step| inverse(step, live)).collect()
    }
}

fn inverse(step: &Step, live: &LiveState) -> Inverse {
    match step {
        Step::Create { manifest } => Inverse::Delete(manifest.object.clone()),
        Step::Update { manifest, changes, .. } | Step::Adopt { manifest, changes, .. } => {
            Inverse::Restore { object: manifest.object.clone(), changes: changes.clone() }
        }
        Step::Handover { manifest, .. } => Inverse::Nothing(manifest.object.clone()),
        Step::Prune { object, .. } => match live.objects.get(object) {
            Some(live) => Inverse::Remake(Box::new((**live).clone())),
            None => Inverse::Nothing(object.clone()),
        },
    }
}
