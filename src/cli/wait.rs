//! Waiting until what was asked for has come about.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::Place;
use super::exit::{CliError, Exit};
use super::output::Out;
use crate::daemon::config::Period;
use crate::ledger::{Ask, EnvironmentEntry};
use crate::model::{AgentName, Timestamp};
use crate::reconcile::LedgerEntry;
use crate::record::{AgentRecord, Cause, ConditionKind, Operation, Outcome, Truth};

/// Time between two looks at the ledger.
const PACE: Duration = Duration::from_millis(500);
/// An operation that began this long before the request was made by a clock that is behind ours.
const SKEW: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// Whether and how long a command waits for the effect.
#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Return when the request is written, without waiting for its effect
    #[arg(long)]
    pub(super) no_wait: bool,

    /// How long to wait for the effect
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = str::parse::<Period>)]
    pub(super) timeout: Period,
}

/// How far something is that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    /// Not yet; what is waited for.
    Pending(String),
    /// It is done; what is so now.
    Done(String),
    /// It was refused or failed; why.
    Not(String),
}

/// Runs a command that waits.
pub(super) fn on<T>(deed: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new(Exit::Broken, "cannot wait on this system").because(error))?;
    runtime.block_on(deed)
}

/// Asks for `ask`, and waits for it as `wait` says.
pub(super) async fn ask(
    place: &Place,
    agent: &AgentName,
    ask: Ask,
    reason: &str,
    wait: &WaitArgs,
    out: &mut Out,
) -> Result<Exit, CliError> {
    // Looked for first: a slip gets the nearest name, and nothing is written.
    place.agent(agent).await?;
    let ledger = place.ledger();
    let asker = place.asker(reason).await?;
    let id = ledger.request(agent, &ask, &asker).await.map_err(|failure| place.refused(failure))?;
    let object = format!("AgentRelease/{}/{agent}", place.namespace);
    if wait.no_wait {
        return told(out, &object, &id, &Came::Pending("asked".to_owned()), Exit::Done);
    }
    let look = async || Ok(came(&ask, &id, asker.at, &ledger.agent(agent).await?));
    let came = until(look, wait.timeout, out).await?;
    let refusal = match &ask {
        Ask::Suspend | Ask::Resume | Ask::Rollback { .. } | Ask::Retry { .. } => Exit::Refused,
        // Whether a rollout may move now is a question; the daemon's answer may be no.
        Ask::Promote | Ask::Abort | Ask::Pause => Exit::No,
    };
    end(out, &object, &id, &came, wait.timeout, refusal)
}

/// Says how it ended.
pub(super) fn conclude(out: &mut Out, object: &str, id: &str, came: &Came, timeout: Period) -> Result<Exit, CliError> {
    end(out, object, id, came, timeout, Exit::Refused)
}

fn end(out: &mut Out, object: &str, id: &str, came: &Came, timeout: Period, refusal: Exit) -> Result<Exit, CliError> {
    match came {
        Came::Done(_) => told(out, object, id, came, Exit::Done),
        Came::Not(_) => told(out, object, id, came, refusal),
        Came::Pending(what) => {
            told(out, object, id, came, Exit::Waiting)?;
            let message = format!("still waiting after {:?}: {what}", timeout.0);
            Err(CliError::new(Exit::Waiting, message)
                .hint("the request stands; `backstay status` shows how far it is, `--timeout` waits longer"))
        }
    }
}

fn told(out: &mut Out, object: &str, id: &str, came: &Came, exit: Exit) -> Result<Exit, CliError> {
    let (word, what) = match came {
        Came::Pending(what) => ("pending", what),
        Came::Done(what) => ("done", what),
        Came::Not(what) => ("refused", what),
    };
    match out.format {
        super::Format::Json => {
            out.json(&serde_json::json!({"object": object, "request": id, "result": word, "message": what}))?;
        }
        super::Format::Text | super::Format::Markdown => match came {
            Came::Pending(_) if exit == Exit::Waiting => {}
            Came::Pending(_) | Came::Done(_) => out.line(format!("{object} {what}"))?,
            Came::Not(_) => return Err(CliError::new(exit, what.clone())),
        },
    }
    Ok(exit)
}

/// Looks until something has come about or `timeout` is over.
pub(super) async fn until(
    look: impl AsyncFn() -> Result<Came, CliError>,
    timeout: Period,
    out: &Out,
) -> Result<Came, CliError> {
    let end = Instant::now() + timeout.0;
    let mut progress = out.progress("waiting for the daemon");
    loop {
        let came = look().await?;
        match &came {
            Came::Pending(what) if Instant::now() < end => progress.tick(what),
            Came::Pending(_) | Came::Done(_) | Came::Not(_) => return Ok(came),
        }
        sleep(PACE.min(end.saturating_duration_since(Instant::now()))).await;
    }
}

/// How far `ask` is that was written as request `id`.
fn came(ask: &Ask, id: &str, at: Timestamp, entry: &LedgerEntry) -> Came {
    let record = match entry {
        LedgerEntry::Absent => return Came::Not("the ledger has no such agent any more".to_owned()),
        LedgerEntry::Present { record, .. } => record,
    };
    let daemon = || Came::Pending("waiting for the daemon to take the request".to_owned());
    let is_suspended =
        record.condition(ConditionKind::Suspended).is_some_and(|condition| condition.status == Truth::True);
    match ask {
        Ask::Suspend if is_suspended => Came::Done("suspended".to_owned()),
        Ask::Resume if !is_suspended => Came::Done("resumed".to_owned()),
        Ask::Suspend | Ask::Resume => daemon(),
        Ask::Retry { .. } if !is_handled(record, "retry", id) => daemon(),
        Ask::Retry { .. } => Came::Done("may be tried again".to_owned()),
        Ask::Rollback { .. } if !is_handled(record, "rollback", id) => daemon(),
        Ask::Rollback { .. } => rolled_back(record, at),
        Ask::Promote => moved(record, "promote", id, "may go on"),
        Ask::Abort => moved(record, "abort", id, "goes back"),
        Ask::Pause => moved(record, "pause", id, "is paused"),
    }
}

/// How far a request is that moves a rollout, and what is so once it was taken.
fn moved(record: &AgentRecord, kind: &str, id: &str, done: &str) -> Came {
    if !is_handled(record, kind, id) {
        return Came::Pending("waiting for the daemon to take the request".to_owned());
    }
    match record.handled.get(&format!("{kind}/refused")) {
        Some(why) => Came::Not(why.clone()),
        None => Came::Done(done.to_owned()),
    }
}

fn is_handled(record: &AgentRecord, kind: &str, id: &str) -> bool {
    record.handled.get(kind).is_some_and(|handled| handled == id)
}

/// How far the rollback is that was asked for at `at` and has been taken.
fn rolled_back(record: &AgentRecord, at: Timestamp) -> Came {
    let ours = |operation: &&Operation| {
        matches!(operation.cause, Cause::Rollback { .. })
            && operation.started.saturating_add(SKEW).is_ok_and(|started| started >= at)
    };
    match record.operation.iter().chain(&record.operations).find(ours) {
        None => {
            let why = record.handled.get("rollback/refused").cloned();
            Came::Not(why.unwrap_or_else(|| "the daemon refused it; its events say why".to_owned()))
        }
        Some(operation) => {
            let to = operation.to.as_ref().map_or_else(|| "the release before".to_owned(), ToString::to_string);
            match &operation.outcome {
                None => Came::Pending(waiting_for(record).unwrap_or_else(|| format!("going back to {to}"))),
                Some(Outcome::Succeeded) => Came::Done(format!("rolled back to {to}")),
                Some(Outcome::Failed(why)) => Came::Not(format!("the rollback to {to} failed: {why}")),
                Some(Outcome::Superseded) => {
                    Came::Not(format!("another operation took the place of the rollback to {to}"))
                }
            }
        }
    }
}

/// What the record says it waits for.
pub(super) fn waiting_for(record: &AgentRecord) -> Option<String> {
    let says = |kind| record.condition(kind).filter(|condition| condition.status == Truth::True);
    let condition = says(ConditionKind::Stalled).or_else(|| says(ConditionKind::Progressing))?;
    (!condition.message.is_empty()).then(|| condition.message.clone())
}

/// How far the look at Git is that was asked for as request `id`.
pub(super) fn synced(id: &str, entry: Option<&EnvironmentEntry>) -> Came {
    let Some(entry) = entry else { return Came::Not("the ledger has no such environment any more".to_owned()) };
    if entry.record.handled.get("sync").is_none_or(|handled| handled != id) {
        return Came::Pending("waiting for the daemon to look at Git".to_owned());
    }
    if let Some(refused) = &entry.record.refused {
        return Came::Not(format!("`{}` was moved and is not followed: {}", refused.reference, refused.why));
    }
    if let Some(error) = entry.record.errors.first() {
        return Came::Not(format!("the repository has errors: {error}"));
    }
    let accepted =
        entry.record.accepted.values().map(|revision| format!("{}@{}", revision.reference, revision.commit.short()));
    Came::Done(format!("at {}", accepted.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ResourceVersion;
    use crate::record::{EnvironmentRecord, OperationId, OperationKind, RefusedMove, Requests, ShortId};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn entry(record: AgentRecord) -> LedgerEntry {
        let version = ResourceVersion("1".to_owned());
        LedgerEntry::Present {
            record: std::sync::Arc::new(record),
            requests: Requests::default(),
            generation: 1,
            version,
        }
    }

    fn rollback() -> Ask {
        Ask::Rollback { to: None, no_git: false }
    }

    fn handled(kind: &str) -> AgentRecord {
        AgentRecord { handled: [(kind.to_owned(), "7".to_owned())].into(), ..AgentRecord::default() }
    }

    fn operation(outcome: Option<Outcome>) -> Operation {
        Operation {
            id: OperationId(3),
            kind: OperationKind::Release,
            cause: Cause::Rollback { by: "alice".to_owned(), reason: String::new(), tell_git: true },
            from: None,
            to: Some(ShortId("r-0123456789ab".to_owned())),
            revision: None,
            started: at(1_000),
            finished: None,
            evidence: vec![],
            outcome,
        }
    }

    #[test]
    fn a_request_is_pending_until_the_daemon_takes_it() {
        for ask in [rollback(), Ask::Retry { release: None }, Ask::Suspend] {
            let came = came(&ask, "7", at(1_000), &entry(AgentRecord::default()));
            assert!(matches!(came, Came::Pending(_)), "{ask:?} {came:?}");
        }
        assert!(matches!(came(&Ask::Resume, "7", at(0), &LedgerEntry::Absent), Came::Not(_)));
    }

    #[test]
    fn a_suspension_is_a_condition() {
        let mut record = AgentRecord::default();
        record.set_condition(ConditionKind::Suspended, Truth::True, "Suspended", "", at(0));
        assert_eq!(came(&Ask::Suspend, "7", at(0), &entry(record.clone())), Came::Done("suspended".to_owned()));
        assert!(matches!(came(&Ask::Resume, "7", at(0), &entry(record.clone())), Came::Pending(_)));
        record.set_condition(ConditionKind::Suspended, Truth::False, "Resumed", "", at(0));
        assert_eq!(came(&Ask::Resume, "7", at(0), &entry(record)), Came::Done("resumed".to_owned()));
    }

    #[test]
    fn a_retry_is_done_when_it_is_taken() {
        let ask = Ask::Retry { release: None };
        assert_eq!(came(&ask, "7", at(0), &entry(handled("retry"))), Came::Done("may be tried again".to_owned()));
    }

    #[test]
    fn a_rollback_ends_as_its_operation_ends() {
        let with = |open: Option<Operation>, finished: Vec<Operation>| {
            let record = AgentRecord { operation: open, operations: finished, ..handled("rollback") };
            came(&rollback(), "7", at(1_000), &entry(record))
        };
        assert_eq!(with(Some(operation(None)), vec![]), Came::Pending("going back to r-0123456789ab".to_owned()));
        let succeeded = operation(Some(Outcome::Succeeded));
        assert_eq!(with(None, vec![succeeded.clone()]), Came::Done("rolled back to r-0123456789ab".to_owned()));
        let failed = operation(Some(Outcome::Failed("no quota".to_owned())));
        assert!(matches!(with(None, vec![failed]), Came::Not(why) if why.contains("no quota")));
        assert!(matches!(with(None, vec![operation(Some(Outcome::Superseded))]), Came::Not(_)));
        let long_ago = Operation { started: at(1), ..succeeded };
        assert!(matches!(with(None, vec![long_ago]), Came::Not(_)), "another rollback is not this one");
    }

    #[test]
    fn what_moves_a_rollout_is_done_when_it_is_taken_and_refused_with_a_reason() {
        for (ask, kind, done) in [
            (Ask::Promote, "promote", "may go on"),
            (Ask::Abort, "abort", "goes back"),
            (Ask::Pause, "pause", "is paused"),
        ] {
            let look = |record: AgentRecord| came(&ask, "7", at(0), &entry(record));
            assert!(matches!(look(AgentRecord::default()), Came::Pending(_)), "{kind}");
            let mut other = handled(kind);
            other.handled.insert(kind.to_owned(), "6".to_owned());
            assert!(matches!(look(other), Came::Pending(_)), "{kind}: an older one is not this one");
            assert_eq!(look(handled(kind)), Came::Done(done.to_owned()));
            let mut refused = handled(kind);
            refused.handled.insert(format!("{kind}/refused"), "cannot: alice wrote the commit".to_owned());
            assert_eq!(look(refused), Came::Not("cannot: alice wrote the commit".to_owned()));
        }
    }

    #[test]
    fn a_refused_rollback_says_why() {
        let mut record = handled("rollback");
        record.handled.insert("rollback/refused".to_owned(), "r-0 was never stable here".to_owned());
        assert_eq!(came(&rollback(), "7", at(0), &entry(record)), Came::Not("r-0 was never stable here".to_owned()));
    }

    #[test]
    fn an_open_operation_says_what_it_waits_for() {
        let mut record = AgentRecord { operation: Some(operation(None)), ..handled("rollback") };
        record.set_condition(ConditionKind::Progressing, Truth::True, "Progressing", "waiting for 1 of 3 pods", at(0));
        let came = came(&rollback(), "7", at(1_000), &entry(record));
        assert_eq!(came, Came::Pending("waiting for 1 of 3 pods".to_owned()));
    }

    #[test]
    fn a_look_at_git_ends_with_the_commit_or_with_what_is_wrong() {
        let commit = "main@sha1:3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0";
        let mut seen = EnvironmentEntry {
            record: EnvironmentRecord {
                accepted: [("main".to_owned(), commit.parse().expect("a revision"))].into(),
                ..EnvironmentRecord::default()
            },
            requests: crate::record::EnvironmentRequests::default(),
            generation: 1,
            version: ResourceVersion("1".to_owned()),
        };
        assert!(matches!(synced("7", Some(&seen)), Came::Pending(_)));
        seen.record.handled.insert("sync".to_owned(), "7".to_owned());
        assert_eq!(synced("7", Some(&seen)), Came::Done("at main@3f9c2ab1".to_owned()));
        seen.record.errors = vec!["agents/a/agent.yaml:1:1: error: no".to_owned()];
        assert!(matches!(synced("7", Some(&seen)), Came::Not(why) if why.contains("agent.yaml:1:1")));
        seen.record.refused = Some(RefusedMove {
            reference: "main".to_owned(),
            to: None,
            why: "the branch is gone".to_owned(),
            since: at(0),
        });
        assert!(matches!(synced("7", Some(&seen)), Came::Not(why) if why.contains("the branch is gone")));
        assert!(matches!(synced("7", None), Came::Not(_)));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_timeout() {
        let out = Out::standard(super::super::Format::Text, super::super::Color::Never);
        let timeout: Period = "1s".parse().expect("a span");
        let came = until(async || Ok(Came::Pending("pods".to_owned())), timeout, &out).await.expect("looked");
        assert_eq!(came, Came::Pending("pods".to_owned()));
    }
}
