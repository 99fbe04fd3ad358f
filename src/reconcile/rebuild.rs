//! A lost ledger, made anew from the objects that carry our installation id and hash right.

use std::sync::Arc;

use super::Wanted;
use super::state::{AgentState, read_release, to_keep};
use crate::desired::DesiredAgent;
use crate::model::{CommitId, Digest, LiveObject, Revision, Timestamp};
use crate::record::{AgentRecord, Cause, FORMAT, Operation, OperationId, OperationKind, Outcome, ShortId, Standing};
use crate::render::{
    INSTALLATION_ANNOTATION, OPERATION_ANNOTATION, PROCESS_LABEL, RELEASE_ID_ANNOTATION, RENDERER_ANNOTATION, SET_LABEL,
};

/// What the record would have said, as far as what runs tells it; nothing where nothing of ours runs.
///
/// Objects of another installation or with another controller are not ours. `unconfirmed` keeps everything from being
/// pruned until a person agrees.
pub(super) fn from_what_runs(state: &AgentState, now: Timestamp) -> Option<AgentRecord> {
    let ours = |live: &&Arc<LiveObject>| {
        live.annotation(INSTALLATION_ANNOTATION) == Some(&*state.config.installation) && !has_controller(live)
    };
    let objects: Vec<_> = state.live.objects.values().filter(ours).collect();
    let main = serving(state, &objects)?;
    let running: Digest = main.annotation(RELEASE_ID_ANNOTATION)?.parse().ok()?;
    // What this very daemon began before its record was written is an operation's work, not a lost ledger.
    let desired = match state.admission.as_deref().map(|admission| &admission.wanted) {
        Some(Wanted::Run(desired)) => Some(desired),
        Some(Wanted::Remove | Wanted::Keep(_)) | None => None,
    };
    let standing = |live: &LiveObject| {
        let release = read_release(live)?;
        let known = desired.filter(|desired| desired.release.id == release.id);
        let renderer = main.annotation(RENDERER_ANNOTATION).and_then(|version| version.parse().ok()).unwrap_or(1);
        Some(Standing {
            release: release.id,
            revision: known.map_or_else(lost, |desired| desired.revision.clone()),
            settings: known.map_or_else(|| Digest::of(b""), |desired| desired.settings.digest),
            renderer,
            since: now,
            own_set: has_own_set(main),
        })
    };
    let mut known: Vec<_> =
        objects.iter().filter(|live| live.object.kind == "ConfigMap").filter_map(|live| standing(live)).collect();
    let stable = known.iter().position(|standing| standing.release.digest() == running).map(|at| known.remove(at))?;
    let newest = objects.iter().filter_map(|live| {
        let (agent, number) = live.annotation(OPERATION_ANNOTATION)?.split_once('/')?;
        (agent == state.agent.as_str()).then(|| number.parse::<u64>().ok()).flatten()
    });
    let rebuilt = Operation {
        id: OperationId(newest.max().unwrap_or(0) + 1),
        kind: OperationKind::Release,
        cause: Cause::Rebuilt {},
        from: None,
        to: Some(ShortId::from(stable.release)),
        revision: Some(stable.revision.clone()),
        started: now,
        finished: Some(now),
        evidence: vec![],
        outcome: Some(Outcome::Succeeded),
    };
    let mut record = AgentRecord { format: FORMAT, stable: Some(stable), history: known, ..AgentRecord::default() };
    let stands = |desired: &&Arc<DesiredAgent>| record.stood(desired.release.id) == record.stable.as_ref();
    record.settings = desired.filter(stands).and_then(|desired| to_keep(&desired.settings));
    record.operations.push(rebuilt);
    record.inventory.0 = objects.iter().map(|live| (live.object.clone(), live.uid.clone())).collect();
    record.unconfirmed = true;
    Some(record)
}

/// The Deployment that has the traffic: of several, the one that the route gives most to, else the largest.
fn serving<'l>(state: &AgentState, objects: &[&'l Arc<LiveObject>]) -> Option<&'l Arc<LiveObject>> {
    let is_main = |live: &&&Arc<LiveObject>| {
        live.object.kind == "Deployment" && live.label(PROCESS_LABEL).is_none_or(|process| process == "main")
    };
    let is_route =
        |live: &&&Arc<LiveObject>| live.object.kind == "HTTPRoute" && live.object.name == state.agent.as_str();
    let route = objects.iter().find(is_route);
    let number = |value: Option<&serde_json::Value>| value.and_then(serde_json::Value::as_u64);
    let weight = |live: &LiveObject| {
        let rules = route?.body.pointer("/spec/rules")?.as_array()?;
        let backends = rules.iter().filter_map(|rule| rule.get("backendRefs")?.as_array()).flatten();
        let service = format!("{}--{}", state.agent, live.label(SET_LABEL)?);
        backends
            .filter(|backend| backend.get("name").and_then(serde_json::Value::as_str) == Some(&*service))
            .filter_map(|backend| number(backend.get("weight")))
            .max()
    };
    let mains = objects.iter().copied().filter(|live| is_main(&live));
    mains.max_by_key(|live| (weight(live), number(live.body.pointer("/spec/replicas")).unwrap_or(1)))
}

/// Whether a Deployment is of one release alone.
fn has_own_set(main: &LiveObject) -> bool {
    main.label(SET_LABEL).is_some_and(|set| set != "rolling")
}

/// The revision of a release that nobody knows any more.
fn lost() -> Revision {
    Revision { reference: "lost".to_owned(), commit: CommitId::of_sha1([0; 20]) }
}

fn has_controller(live: &LiveObject) -> bool {
    let owners = live.body.pointer("/metadata/ownerReferences").and_then(serde_json::Value::as_array);
    owners.is_some_and(|owners| owners.iter().any(|owner| owner.get("controller") == Some(&true.into())))
}
