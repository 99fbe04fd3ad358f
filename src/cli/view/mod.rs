//! Records as people read them: plain functions from values to lines.

mod history;
mod next;
pub(super) mod rollout;

pub(super) use history::told;
pub(super) use next::logs_command;

use crate::daemon::config::Launcher;
use crate::model::{AgentName, EnvironmentName, Revision, Timestamp};
use crate::record::{
    AgentRecord, Cause, Condition, ConditionKind, Differs, EnvironmentRecord, Operation, OperationKind, Outcome, Phase,
    Requests, Standing, Told, Truth,
};

use super::output::ago;
use super::screen;

/// What to do about a rollout of another version.
const UNREADABLE: &str = "this version cannot read it: ask with the version of the daemon";

/// Head of the table of agents.
pub(super) const AGENTS: [&str; 5] = ["AGENT", "RELEASE", "READY", "SINCE", "WHY"];
/// Whether the agent is what Git asks for, whole and healthy, by the daemon's last word.
pub(super) fn is_ready(record: &AgentRecord) -> bool {
    record.phase == Phase::Removed
        || record.condition(ConditionKind::Ready).is_some_and(|condition| condition.status == Truth::True)
}

/// One row of the table of agents.
pub(super) fn agent_row(name: &AgentName, record: &AgentRecord, requests: &Requests, now: Timestamp) -> Vec<String> {
    let standing = record.stable.as_ref();
    let release = match (&record.candidate, standing) {
        (Some(candidate), Some(stable)) => format!("{} -> {}", stable.release, candidate.release),
        (Some(candidate), None) => format!("-> {}", candidate.release),
        (None, Some(stable)) => stable.release.to_string(),
        (None, None) => "-".to_owned(),
    };
    let ready = match record.condition(ConditionKind::Ready).map(|condition| condition.status) {
        _ if record.phase == Phase::Removed => "Removed",
        Some(Truth::True) => "True",
        Some(Truth::False) => "False",
        Some(Truth::Unknown) | None => "Unknown",
    };
    let since = standing.map_or_else(|| "-".to_owned(), |standing| ago(now, standing.since));
    vec![name.to_string(), release, ready.to_owned(), since, why(record, requests)]
}

/// Why it is as it is: what most needs somebody's eye.
fn why(record: &AgentRecord, requests: &Requests) -> String {
    let holds = |kind| record.condition(kind).filter(|condition| condition.status == Truth::True);
    if let Some(suspended) = requests.suspended() {
        return with_reason(format!("suspended by {}", suspended.by), &suspended.reason);
    }
    for kind in [ConditionKind::Stalled, ConditionKind::Degraded, ConditionKind::Contested, ConditionKind::PruneBlocked]
    {
        if let Some(condition) = holds(kind) {
            return with_reason(format!("{kind:?}"), said(condition));
        }
    }
    if let Some(differs) = &record.differs {
        return format!("Git asks for {}: {}", differs.desired, differs.why);
    }
    if let Some(condition) = holds(ConditionKind::Progressing) {
        return with_reason("Progressing".to_owned(), said(condition));
    }
    if let Some(condition) = record.condition(ConditionKind::Ready).filter(|condition| condition.status != Truth::True)
    {
        return with_reason(condition.reason.clone(), &condition.message);
    }
    match record.operations.first() {
        Some(operation) => {
            let at = operation.revision.as_ref().map_or_else(String::new, |revision| format!(" {}", short(revision)));
            format!("{}{at}", operation.cause)
        }
        None => String::new(),
    }
}

fn said(condition: &Condition) -> &str {
    if condition.message.is_empty() { &condition.reason } else { &condition.message }
}

fn with_reason(what: String, reason: &str) -> String {
    if reason.is_empty() { what } else { format!("{what}: {reason}") }
}

/// What stands above the agents of an environment.
pub(super) fn environment_lines(
    environment: &EnvironmentName,
    namespace: &str,
    record: Option<&EnvironmentRecord>,
    now: Timestamp,
) -> Vec<String> {
    let Some(record) = record else {
        return vec![format!("{environment}  namespace {namespace}: the daemon has not been here yet")];
    };
    let accepted =
        record.accepted.values().map(|revision| format!("{}@{}", revision.reference, revision.commit.short()));
    let accepted: Vec<_> = accepted.collect();
    let accepted = if accepted.is_empty() { "no commit yet".to_owned() } else { accepted.join(", ") };
    let mut lines = vec![format!("{environment}  {accepted}  namespace {namespace}")];
    if let Some(refused) = &record.refused {
        let to = refused.to.as_ref().map_or_else(|| "gone".to_owned(), |to| format!("at {}", to.short()));
        let since = ago(now, refused.since);
        lines.push(format!("  `{}` is {to} since {since} and is not followed: {}", refused.reference, refused.why));
    }
    for condition in &record.conditions {
        let as_it_should = (condition.kind == ConditionKind::Ready) == (condition.status == Truth::True);
        if !as_it_should {
            lines.push(format!("  {}", condition_line(condition, now)));
        }
    }
    lines.extend(record.errors.iter().map(|error| format!("  {error}")));
    lines
}

/// What keeps the agents of this machine from each other, and from what is the daemon's.
pub(super) fn isolation(launcher: Launcher) -> &'static str {
    match launcher {
        Launcher::Fork => "none",
        Launcher::Systemd => "unit",
    }
}

/// The same, for people.
pub(super) fn isolation_line(launcher: Launcher) -> String {
    let why = match launcher {
        Launcher::Fork => "every agent has the daemon's account",
        Launcher::Systemd => "every agent has an account, secrets and a sandbox of its own",
    };
    format!("  isolation: {} ({why})", isolation(launcher))
}

/// All that is known of one agent. `logs` is the command that shows what it wrote.
pub(super) fn agent_lines(
    name: &AgentName,
    environment: &EnvironmentName,
    record: &AgentRecord,
    requests: &Requests,
    logs: &str,
    now: Timestamp,
) -> Vec<String> {
    let mut lines = vec![format!("{name}  in {environment}")];
    let mut pair = |key: &str, value: String| lines.push(format!("  {key:<12}{value}"));
    if record.phase == Phase::Removed {
        pair("phase", "removed: nothing of it runs".to_owned());
    }
    if let Some(stable) = &record.stable {
        pair("stable", standing(stable, now));
    }
    if let Some(candidate) = &record.candidate {
        pair("candidate", standing(candidate, now));
    }
    if let Some(differs) = &record.differs {
        pair(
            "Git wants",
            format!("{}, which differs since {}: {}", differs.desired, ago(now, differs.since), differs.why),
        );
    }
    if let Some(suspended) = requests.suspended() {
        pair("suspended", with_reason(format!("by {}", suspended.by), &suspended.reason));
    }
    if let Some(hold) = &record.hold {
        let git = git(&hold.git);
        pair("held back", format!("{} was left by {} {} ago; {git}", hold.left, hold.by, ago(now, hold.since)));
    }
    if let Some(operation) = &record.operation {
        let to = operation.to.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
        let started = ago(now, operation.started);
        pair(
            "operation",
            format!("{} {}{to}, begun {started} ago: {}", operation.id, kind(operation.kind), operation.cause),
        );
    } else if let Some(operation) = record.operations.first() {
        pair("last", operation_sentence(operation, record.differs.as_ref(), now));
    }
    if let Some(shown) = rollout::shown(record, now) {
        let wide = rollout::Wide { columns: None, sparks: &|_, _| String::new() };
        lines.extend(match shown {
            Ok(shown) => rollout::lines(&shown, now, &wide).iter().map(screen::Line::plain).collect(),
            Err(why) => vec![format!("  {:<12}{why}", "rollout"), format!("  {:<12}{UNREADABLE}", "to do")],
        });
    }
    let mut pair = |key: &str, value: String| lines.push(format!("  {key:<12}{value}"));
    for entry in &record.quarantine {
        let failed = format!("{} failed {} ago", entry.release, ago(now, entry.since));
        // A reason is told once, however often it is the reason.
        let known = record.differs.as_ref().is_some_and(|differs| differs.why.contains(&entry.reason));
        let failed = if known { failed } else { with_reason(failed, &entry.reason) };
        pair("quarantine", if entry.git.is_by_hand() { failed } else { format!("{failed}; {}", git(&entry.git)) });
    }
    if !record.history.is_empty() {
        let before = record.history.iter().map(|standing| standing.release.to_string());
        pair("before", before.collect::<Vec<_>>().join(", "));
    }
    if !record.inventory.is_empty() {
        pair("objects", record.inventory.0.len().to_string());
    }
    if record.drift_healed > 0 {
        pair("drift", format!("healed {} times", record.drift_healed));
    }
    let mut told: Vec<&str> = record.differs.iter().map(|differs| &*differs.why).collect();
    for condition in &record.conditions {
        let known = told.iter().any(|told| told.contains(&condition.message));
        let line = if known { condition_head(condition, now) } else { condition_line(condition, now) };
        lines.push(format!("  {line}"));
        told.push(&condition.message);
    }
    lines.extend(next::lines(name, record, logs).into_iter().map(|(key, text)| format!("  {key:<12}{text}")));
    lines
}

/// Whether Git was told.
fn git(told: &Told) -> String {
    match told {
        Told::ByHand => "telling Git is left to a person".to_owned(),
        Told::Pending => "Git is still to be told".to_owned(),
        Told::Commit(commit) => format!("Git was told by {}", commit.get(..8).unwrap_or(commit)),
        Told::Refused(why) => format!("Git cannot be told: {why}"),
    }
}

fn operation_sentence(operation: &Operation, differs: Option<&Differs>, now: Timestamp) -> String {
    let cause = match &operation.cause {
        Cause::Failed { why } if differs.is_some_and(|differs| differs.why.contains(why)) => {
            "back from a failed release".to_owned()
        }
        cause @ (Cause::Commit { .. }
        | Cause::Revert { .. }
        | Cause::Rollback { .. }
        | Cause::Failed { .. }
        | Cause::Retry { .. }
        | Cause::Rename { .. }
        | Cause::Rebuilt { .. }) => cause.to_string(),
    };
    let to = operation.to.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
    let ended = operation.finished.unwrap_or(operation.started);
    format!("{} {}{to}, {} {} ago: {cause}", operation.id, kind(operation.kind), outcome(operation), ago(now, ended))
}

fn standing(standing: &Standing, now: Timestamp) -> String {
    format!("{} from {}, since {}", standing.release, short(&standing.revision), ago(now, standing.since))
}

fn short(revision: &Revision) -> String {
    format!("{}@{}", revision.reference, revision.commit.short())
}

fn condition_line(condition: &Condition, now: Timestamp) -> String {
    with_reason(condition_head(condition, now), &condition.message)
}

fn condition_head(condition: &Condition, now: Timestamp) -> String {
    let Condition { kind, status, reason, last_transition_time, .. } = condition;
    format!("{kind:?}={status:?} since {} ({reason})", ago(now, *last_transition_time))
}

fn kind(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Release => "release",
        OperationKind::Settings => "settings",
        OperationKind::Removal => "removal",
    }
}

fn outcome(operation: &Operation) -> String {
    match &operation.outcome {
        None => "open".to_owned(),
        Some(Outcome::Succeeded) => "succeeded".to_owned(),
        Some(Outcome::Failed(why)) => format!("failed: {why}"),
        Some(Outcome::Superseded) => "superseded".to_owned(),
    }
}

#[cfg(test)]
mod tests;
