//! What goes on in spite of a fault, and what a person can do about it.

use crate::daemon::config::Launcher;
use crate::model::AgentName;
use crate::record::{AgentRecord, ConditionKind, Phase, Truth};
use crate::render::AGENT_LABEL;

/// The command that shows what an agent wrote: ours on this machine, the cluster's in a cluster.
pub(in crate::cli) fn logs_command(name: &AgentName, namespace: &str, host: Option<Launcher>) -> String {
    match host {
        Some(_) => format!("backstay logs {name}"),
        None => format!("kubectl logs --namespace {namespace} --selector {AGENT_LABEL}={name} --tail 100"),
    }
}

/// Keys and sentences; none where all is well, or where nothing is known. `logs` is the command that shows its logs.
pub(super) fn lines(name: &AgentName, record: &AgentRecord, logs: &str) -> Vec<(&'static str, String)> {
    let holds = |kind| record.condition(kind).is_some_and(|condition| condition.status == Truth::True);
    let Some(stable) = record.stable.as_ref().filter(|_| record.phase == Phase::Active) else { return vec![] };
    let still = |text: String| ("still runs", text);
    let to_do = |text: String| ("to do", text);
    let failed = record.differs.as_ref().filter(|differs| record.quarantined(differs.desired).is_some());
    if let Some(failed) = failed {
        let failed = failed.desired;
        return vec![
            still(format!("{} goes on as before", stable.release)),
            to_do(format!(
                "push a commit that mends it, or `git revert` the one that asks for {failed}; `{logs}` tells what it wrote, `backstay retry {name}` lets it try once more"
            )),
        ];
    }
    let candidate = record.candidate.as_ref().filter(|candidate| candidate.release != stable.release);
    if let Some(candidate) = candidate.filter(|_| holds(ConditionKind::Stalled)) {
        return vec![
            still(format!("{} goes on until {} is ready", stable.release, candidate.release)),
            to_do("mend what it waits for, and it goes on by itself; or `git revert` the commit".to_owned()),
        ];
    }
    let degraded = record.condition(ConditionKind::Degraded).filter(|degraded| degraded.status == Truth::True);
    if degraded.is_some_and(|degraded| degraded.reason == "Environment") {
        return vec![
            still(format!("{}, as far as it did before", stable.release)),
            to_do("mend what it names, and it goes on by itself; nothing is to be changed in Git".to_owned()),
        ];
    }
    if degraded.is_some_and(|degraded| degraded.reason == "Unhealthy") {
        let before = record
            .history
            .first()
            .map_or_else(String::new, |before| format!("; `backstay rollback {name}` goes back to {}", before.release));
        return vec![to_do(format!("`{logs}` tells what it wrote{before}"))];
    }
    vec![]
}
