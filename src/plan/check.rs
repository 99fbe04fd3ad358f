//! A linter for plans: run on every plan before its first effect, and shown by `plan`.

use std::collections::BTreeSet;

use super::planner::is_ours;
use super::{Note, NoteKind, Plan, PlanInput, PruneReason, Step, admit, admit_deletion};
use crate::model::Severity;

/// What a careful reader would point at; an error among it means that the plan must not be carried out.
pub(super) fn check(plan: &Plan, input: &PlanInput<'_>) -> Vec<Note> {
    let mut notes = vec![];
    notes.extend(check_nothing_unowned_is_touched(plan, input));
    notes.extend(check_one_step_an_object(plan));
    notes.extend(check_the_gate(plan, input));
    notes.extend(check_what_cannot_be_undone(plan));
    notes
}

fn error(kind: NoteKind) -> Note {
    Note { severity: Severity::Error, kind }
}

fn warning(kind: NoteKind) -> Note {
    Note { severity: Severity::Warning, kind }
}

fn check_nothing_unowned_is_touched<'a>(plan: &'a Plan, input: &'a PlanInput<'_>) -> impl Iterator<Item = Note> + 'a {
    plan.steps.iter().chain(&plan.then).filter_map(|step| match step {
        Step::Prune { object, uid, why: PruneReason::NotDesired | PruneReason::Retention, .. } => {
            (!input.record.inventory.owns(object, uid)).then(|| error(NoteKind::UnownedPrune(object.clone())))
        }
        Step::Update { manifest, .. } | Step::Handover { manifest, .. } => {
            let ours = input.live.objects.get(&manifest.object).is_some_and(|live| is_ours(input, live));
            (!ours).then(|| error(NoteKind::UnownedUpdate(manifest.object.clone())))
        }
        Step::Create { .. } | Step::Adopt { .. } | Step::Prune { .. } => None,
    })
}

fn check_one_step_an_object(plan: &Plan) -> impl Iterator<Item = Note> + '_ {
    let mut seen = BTreeSet::new();
    let steps = plan.steps.iter().filter(|step| !matches!(step, Step::Handover { .. }));
    let again = steps.filter(move |step| !seen.insert(step.object()));
    again.map(|step| error(NoteKind::Twice(step.object().clone())))
}

fn check_the_gate<'a>(plan: &'a Plan, input: &'a PlanInput<'_>) -> impl Iterator<Item = Note> + 'a {
    plan.steps.iter().chain(&plan.then).filter_map(|step| match step {
        Step::Create { manifest } | Step::Update { manifest, .. } | Step::Adopt { manifest, .. } => {
            admit(manifest, input.gate).err().map(|forbidden| error(NoteKind::Forbidden(forbidden.to_string())))
        }
        Step::Prune { object, .. } => {
            admit_deletion(object, input.gate).err().map(|why| error(NoteKind::Forbidden(why)))
        }
        Step::Handover { .. } => None,
    })
}

fn check_what_cannot_be_undone(plan: &Plan) -> impl Iterator<Item = Note> + '_ {
    plan.steps.iter().chain(&plan.then).filter_map(|step| match step {
        Step::Prune { object, .. } if matches!(object.kind.as_str(), "PersistentVolumeClaim" | "Secret") => {
            let why = "what it holds is lost with it";
            Some(warning(NoteKind::NoWayBack { object: object.clone(), why }))
        }
        Step::Adopt { manifest, .. } => {
            let why = "what its former manager would have written is not known";
            Some(warning(NoteKind::NoWayBack { object: manifest.object.clone(), why }))
        }
        Step::Create { .. } | Step::Update { .. } | Step::Handover { .. } | Step::Prune { .. } => None,
    })
}
