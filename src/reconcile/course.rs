//! Where to steer: what the ledger's record, Git's word and people's requests together ask for.

use std::sync::Arc;

use super::state::AgentState;
use super::{Admission, Wanted};
use crate::desired::{Allow, DesiredAgent};
use crate::model::{ReleaseId, Timestamp};
use crate::record::{
    AgentRecord, Cause, Differs, Evidence, Hold, Operation, OperationKind, Phase, RollbackRequest, ShortId, Standing,
    Told,
};
use crate::render::RendererVersion;

/// Where a record keeps the operation that was the newest when a retry was handled.
pub(super) const RETRIED_AFTER: &str = "retry/after";

/// An operation that ought to be begun.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Begin {
    pub(super) kind: OperationKind,
    pub(super) cause: Cause,
    /// Where it goes; nothing for a removal.
    pub(super) to: Option<Standing>,
}

/// What Git asks for that is not done, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refused {
    pub(super) desired: ReleaseId,
    pub(super) why: String,
}

/// What Git and the record together ask for: an operation, or none and perhaps why not.
pub(super) fn wanted(
    state: &AgentState,
    admission: &Admission,
    record: &AgentRecord,
    now: Timestamp,
) -> (Option<Begin>, Option<Refused>) {
    match &admission.wanted {
        Wanted::Keep(_) => (None, None),
        Wanted::Remove => {
            let there = record.phase == Phase::Active && (record.format > 0 || !record.inventory.is_empty());
            let removal = Begin { kind: OperationKind::Removal, cause: Cause::Commit {}, to: None };
            (there.then_some(removal), None)
        }
        Wanted::Run(desired) => run(state, admission, desired, record, now),
    }
}

fn run(
    state: &AgentState,
    admission: &Admission,
    desired: &Arc<DesiredAgent>,
    record: &AgentRecord,
    now: Timestamp,
) -> (Option<Begin>, Option<Refused>) {
    let id = desired.release.id;
    // Git asks again for what is stable while another release is on its way: that one is left, unless a person sent it.
    let leaves = record.candidate.as_ref().is_some_and(|candidate| candidate.release != id)
        && record.hold.as_ref().is_none_or(|hold| hold.left != id);
    let is_stable = record.stable.as_ref().is_some_and(|stable| stable.release == id);
    if is_stable && record.phase == Phase::Active && !leaves {
        return (settings_only(desired, record, now), None);
    }
    if let Some(failed) = record.quarantined(id) {
        let why = format!("{id} failed here: {}", failed.reason);
        return (None, Some(Refused { desired: id, why }));
    }
    if let Some(hold) = record.hold.as_ref().filter(|hold| hold.left == id) {
        let why = format!("{} moved the target back from {id}", hold.by);
        // Settings still follow Git while a release is held.
        return (settings_only(desired, record, now), Some(Refused { desired: id, why }));
    }
    let renderer = record.stood(id).map_or_else(|| RendererVersion::CURRENT.number(), |stood| stood.renderer);
    let to = Standing {
        release: id,
        revision: desired.revision.clone(),
        settings: desired.settings.digest,
        renderer,
        since: now,
        own_set: false,
    };
    let cause = cause(state, admission, desired, record);
    (Some(Begin { kind: OperationKind::Release, cause, to: Some(to) }), None)
}

/// The settings alone differ from those that stand.
fn settings_only(desired: &DesiredAgent, record: &AgentRecord, now: Timestamp) -> Option<Begin> {
    let stable = record.stable.as_ref()?;
    if stable.settings == desired.settings.digest {
        return None;
    }
    let to = Standing { settings: desired.settings.digest, since: now, ..stable.clone() };
    let to =
        if stable.release == desired.release.id { Standing { revision: desired.revision.clone(), ..to } } else { to };
    Some(Begin { kind: OperationKind::Settings, cause: Cause::Commit {}, to: Some(to) })
}

fn cause(state: &AgentState, admission: &Admission, desired: &DesiredAgent, record: &AgentRecord) -> Cause {
    if let Some(by) = retried(state, desired.release.id, record) {
        return Cause::Retry { by };
    }
    if record.stood(desired.release.id).is_some() {
        let (evidence, of) = admission.revert.clone().unwrap_or((Evidence::KnownRelease, vec![]));
        return Cause::Revert { evidence, of };
    }
    match &desired.renamed_from {
        Some(from) if record.stable.is_none() && *from != state.agent => Cause::Rename { from: from.clone() },
        Some(_) | None => Cause::Commit {},
    }
}

/// Who asked that a release be tried again, if that is why it is begun: nothing else was begun since they asked.
fn retried(state: &AgentState, release: ReleaseId, record: &AgentRecord) -> Option<String> {
    let asked = state.ledger.as_ref()?.requests.retry.as_ref()?;
    let short = release.short();
    let tried = record.operations.iter().any(|operation| operation.to.as_ref().is_some_and(|to| to.0 == short));
    let whole = release.digest().to_string();
    let meant = asked.release.as_ref().is_none_or(|named| *named == short || *named == whole);
    let handled = record.handled.get("retry") == Some(&asked.request.id);
    let newest = record.operations.first()?.id.to_string();
    let since = record.handled.get(RETRIED_AFTER) == Some(&newest);
    (tried && meant && handled && since).then(|| asked.request.by.clone())
}

/// Whether the open operation still goes where it should; a way back goes on until Git asks for something new.
pub(super) fn still_wanted(
    open: &Operation,
    record: &AgentRecord,
    admission: &Admission,
    begin: Option<&Begin>,
) -> bool {
    let Some(begin) = begin else {
        // Nothing else is asked for: what was begun goes on, except a removal of what shall run again.
        return !(open.kind == OperationKind::Removal && matches!(admission.wanted, Wanted::Run(_)));
    };
    let same = match (&begin.to, &record.candidate) {
        (Some(to), Some(candidate)) => to.release == candidate.release && to.settings == candidate.settings,
        (None, None) => open.kind == OperationKind::Removal && begin.kind == OperationKind::Removal,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let going_back = match &open.cause {
        Cause::Rollback { .. } | Cause::Failed { .. } => begin.kind == OperationKind::Settings,
        Cause::Commit {} | Cause::Revert { .. } | Cause::Retry { .. } | Cause::Rename { .. } | Cause::Rebuilt {} => {
            false
        }
    };
    same || going_back
}

/// The operation that a person's rollback begins; or why it cannot.
pub(super) fn rollback(
    request: &RollbackRequest,
    record: &AgentRecord,
    now: Timestamp,
) -> Result<(Begin, Option<Hold>), String> {
    // An agent on its way to a release leaves that one; at rest, it leaves what is stable.
    let leaves = record.candidate.as_ref().or(record.stable.as_ref()).ok_or("nothing has run here yet")?;
    let known = record.stable.iter().chain(&record.history);
    let target = match &request.to {
        Some(to) => {
            let named =
                |standing: &&Standing| *to == standing.release.short() || *to == standing.release.digest().to_string();
            let found = known.clone().find(named);
            found.ok_or_else(|| format!("`{to}` was never stable here: `backstay history` lists what was"))?
        }
        None => {
            let mut others = known.filter(|standing| standing.release != leaves.release);
            others.next().ok_or("no other release was ever stable here")?
        }
    };
    if record.quarantined(target.release).is_some() {
        return Err(format!("{} failed here: `backstay retry` lets it try again", target.release));
    }
    if target.release == leaves.release && record.candidate.is_none() {
        return Err(format!("{} already is what runs", target.release));
    }
    let settings = record.stable.as_ref().map_or(target.settings, |stable| stable.settings);
    let to = Standing { settings, since: now, ..target.clone() };
    let cause = Cause::Rollback {
        by: request.request.by.clone(),
        reason: request.request.reason.clone(),
        tell_git: !request.no_git,
    };
    let hold = (leaves.release != target.release).then(|| Hold {
        left: leaves.release,
        by: request.request.by.clone(),
        since: now,
        git: if request.no_git { Told::ByHand } else { Told::Pending },
    });
    Ok((Begin { kind: OperationKind::Release, cause, to: Some(to) }, hold))
}

/// Quarantined releases that a consent file lets try again.
pub(super) fn consented_retries(admission: &Admission, record: &AgentRecord) -> Vec<ReleaseId> {
    let named = |id: &ReleaseId| {
        admission.consents.iter().any(|consent| match &consent.allow {
            Allow::Retry(release) => release.names(id),
            Allow::Adopt(_) | Allow::Prune(_) | Allow::Replace(_) | Allow::LossyDown(_) => false,
        })
    };
    record.quarantine.iter().map(|entry| entry.release).filter(named).collect()
}

// === changes of a record ===

/// Ends what is open as superseded and opens `begin`.
pub(super) fn open(record: &mut AgentRecord, begin: Begin, now: Timestamp) {
    let id = record.next_operation();
    if record.operation.is_some() {
        record.finish(crate::record::Outcome::Superseded, now);
    }
    record.format = crate::record::FORMAT;
    record.operation = Some(Operation {
        id,
        kind: begin.kind,
        cause: begin.cause,
        from: record.stable.as_ref().map(|stable| ShortId::from(stable.release)),
        to: begin.to.as_ref().map(|to| ShortId::from(to.release)),
        revision: begin.to.as_ref().map(|to| to.revision.clone()),
        started: now,
        finished: None,
        evidence: vec![],
        outcome: None,
    });
    record.candidate = begin.to;
    record.rollout = None;
    if begin.kind != OperationKind::Removal {
        record.phase = Phase::Active;
    }
}

/// Says where Git and the target differ; `since` stays while the same release is asked for.
///
/// Where Git's word cannot be used (`asked` is false), what was said stays.
pub(super) fn differ(record: &mut AgentRecord, refused: Option<&Refused>, asked: bool, now: Timestamp) {
    if !asked {
        return;
    }
    record.differs = refused.map(|refused| {
        let since = record.differs.as_ref().filter(|old| old.desired == refused.desired).map_or(now, |old| old.since);
        Differs { desired: refused.desired, since, why: refused.why.clone() }
    });
}

/// Puts what was stable first into the history, once.
pub(super) fn remember(record: &mut AgentRecord, standing: Standing) {
    record.history.retain(|known| known.release != standing.release);
    record.history.insert(0, standing);
}
