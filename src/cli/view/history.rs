//! Operations as sentences: what was done, why, with what evidence, and which commit told Git.

use super::{git, short};
use crate::cli::output::ago;
use crate::record::{AgentRecord, Cause, Operation, OperationKind, Outcome, ShortId};

/// One operation: its sentence behind number and time, then what is known beside it, one line each.
pub(in crate::cli) fn told(operation: &Operation, record: &AgentRecord) -> Vec<String> {
    let started = operation.started.strftime("%Y-%m-%d %H:%M:%SZ");
    let head = format!("{:>3}  {started}  ", operation.id.0);
    let margin = " ".repeat(head.len());
    let mut lines = vec![format!("{head}{}", sentence(operation))];
    lines.extend(beside(operation, record).into_iter().map(|line| format!("{margin}{line}")));
    lines
}

fn sentence(operation: &Operation) -> String {
    let done = |what: &str| match &operation.revision {
        Some(revision) => format!("{what} ({})", short(revision)),
        None => what.to_owned(),
    };
    let asked = match operation.kind {
        OperationKind::Release => format!("for {}", place(operation)),
        OperationKind::Settings => "for other settings".to_owned(),
        OperationKind::Removal => "for its removal".to_owned(),
    };
    let began = match &operation.cause {
        Cause::Commit {} => format!("{} asked {asked}", done("a commit")),
        Cause::Revert { .. } => format!("{} asked {asked}", done(&format!("a {}", operation.cause))),
        Cause::Rollback { by, reason, .. } => {
            let reason = if reason.is_empty() { String::new() } else { format!(" (\"{reason}\")") };
            format!("a rollback by {by}{reason} went to {}", place(operation))
        }
        Cause::Failed { why } => format!("a failed release was left for {}: {why}", place(operation)),
        Cause::Retry { by } => format!("a retry by {by} asked {asked}"),
        Cause::Rename { from } => format!("{} renamed it from {from}", done("a commit")),
        Cause::Rebuilt {} => "the ledger was lost, and rebuilt from what runs".to_owned(),
    };
    format!("{began}; {}", ended(operation))
}

/// Where it goes, and where it comes from.
fn place(operation: &Operation) -> String {
    let shown = |id: &Option<ShortId>| id.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
    match &operation.from {
        Some(from) if operation.to.as_ref() != Some(from) => format!("{} in place of {from}", shown(&operation.to)),
        Some(_) | None => shown(&operation.to),
    }
}

fn ended(operation: &Operation) -> String {
    let took = operation.finished.map(|finished| ago(finished, operation.started)).unwrap_or_default();
    match &operation.outcome {
        None => "it is on its way".to_owned(),
        Some(Outcome::Succeeded) => format!("it succeeded in {took}"),
        Some(Outcome::Failed(why)) => format!("it failed after {took}: {why}"),
        Some(Outcome::Superseded) => format!("another operation took its place after {took}"),
    }
}

/// What is known beside an operation: what an experiment found, the figures behind a failure, and which commit told Git,
/// or why none did.
fn beside(operation: &Operation, record: &AgentRecord) -> Vec<String> {
    operation.evidence.iter().cloned().chain(of_what_was_left(operation, record)).collect()
}

fn of_what_was_left(operation: &Operation, record: &AgentRecord) -> Vec<String> {
    let failed = matches!(operation.outcome, Some(Outcome::Failed(_)));
    let moved = matches!(operation.cause, Cause::Rollback { .. });
    // What was left: the candidate that went back, or what a person moved away from.
    let left = if moved { operation.from.as_ref() } else { operation.to.as_ref().filter(|_| failed) };
    let Some(left) = left else { return vec![] };
    // A later failure of the same release has the later word.
    let newest = record.operations.iter().find(|other| other.to.as_ref() == Some(left) && other.outcome.is_some());
    let entry = record.quarantine.iter().find(|entry| failed && entry.release.short() == left.0);
    if let Some(entry) = entry.filter(|_| newest.is_none_or(|newest| newest.id == operation.id)) {
        return entry.evidence.iter().cloned().chain([git(&entry.git)]).collect();
    }
    let hold = record.hold.as_ref().filter(|hold| hold.left.short() == left.0);
    hold.map(|hold| git(&hold.git)).into_iter().collect()
}
