//! The effects that the core asks for, each carried out in the room that can.

use std::sync::Arc;

use super::write_back::{self, WriteBacks};
use crate::apply::{self, Fence as _};
use crate::ledger::{LeaseFence, Ledger};
use crate::model::{AgentName, CommitId, EnvironmentName};
use crate::reconcile::{Action, Done, Failure, FailureKind, Observation};

/// The kind of a failure as one word, for metrics.
pub(super) fn word_of(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::Conflict => "conflict",
        FailureKind::Exists => "exists",
        FailureKind::Gone => "gone",
        FailureKind::Refused => "refused",
        FailureKind::Immutable => "immutable",
        FailureKind::Forbidden => "forbidden",
        FailureKind::Unavailable { .. } => "unavailable",
        FailureKind::Gate => "gate",
        FailureKind::Fenced => "fenced",
    }
}

/// Carries out one effect: each in the room that can. `accepted` is what the followed branch was accepted at last.
pub(super) async fn carry_out(
    agent: &AgentName,
    (environment, accepted): (&EnvironmentName, Option<CommitId>),
    effect: Action,
    target: &apply::Target,
    ledger: &Ledger,
    fence: &LeaseFence,
    write_backs: Arc<WriteBacks>,
) -> Observation {
    let done = match effect {
        Action::Record { .. } if !fence.holds() => {
            Err(Failure { kind: FailureKind::Fenced, message: format!("cannot record {agent}: the lease is gone") })
        }
        Action::Record { expected, record } => {
            ledger.record(agent, expected.as_ref(), &record).await.map(Done::Recorded)
        }
        Action::ReadLedger => match ledger.agent(agent).await {
            Ok(entry) => return Observation::Ledger(entry),
            Err(failure) => Err(failure),
        },
        Action::Write(write) => target.write(agent, &write).await,
        Action::DryRun(write) => target.dry_run(agent, &write).await,
        Action::Delete { object, uid, version } => target.delete(&object, &uid, &version).await,
        Action::Read(object) => target.read(&object).await,
        Action::TellGit(tell) => {
            write_back::tell(write_backs, environment.clone(), accepted, tell).await.map(Done::Told)
        }
        Action::Announce(_) | Action::Wake(_) | Action::Measure(_) | Action::Smoke(_) | Action::Gate(_) => {
            return Observation::Woken;
        }
    };
    Observation::Done(done.unwrap_or_else(Done::Failed))
}
