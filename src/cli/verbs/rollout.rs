//! `backstay promote AGENT -e ENV`, `backstay abort AGENT -e ENV --reason …`, `backstay pause AGENT -e ENV`

use crate::cli::client::place;
use crate::cli::wait::{self, WaitArgs};
use crate::cli::{CliError, Exit, Globals, Out};
use crate::ledger::Ask;
use crate::model::AgentName;
use crate::record::AgentRecord;
use crate::rollout::Rollout;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PromoteArgs {
    /// The agent
    agent: AgentName,

    /// Why, in your words: kept in the ledger
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AbortArgs {
    /// The agent
    agent: AgentName,

    /// Why, in your words: kept in the ledger and in the commit that tells Git
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PauseArgs {
    /// The agent
    agent: AgentName,

    /// Why, in your words: shown while it lasts
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(in crate::cli) async fn promote(args: &PromoteArgs, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    ask(&args.agent, Ask::Promote, &args.reason, &args.wait, globals, out).await
}

pub(in crate::cli) async fn abort(args: &AbortArgs, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    if args.reason.trim().is_empty() {
        return Err(CliError::usage("`--reason` is empty").hint("say why: it is kept for whoever looks later"));
    }
    ask(&args.agent, Ask::Abort, &args.reason, &args.wait, globals, out).await
}

pub(in crate::cli) async fn pause(args: &PauseArgs, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    ask(&args.agent, Ask::Pause, &args.reason, &args.wait, globals, out).await
}

async fn ask(
    agent: &AgentName,
    ask: Ask,
    reason: &str,
    wait: &WaitArgs,
    globals: &Globals,
    out: &mut Out,
) -> Result<Exit, CliError> {
    let place = place(globals).await?;
    let record = place.agent(agent).await?.record;
    if !is_on_its_way(&record) {
        let message = format!("nothing is rolling out of `{agent}` in `{}`", place.environment);
        return Err(CliError::new(Exit::Refused, message).hint(way_out(agent, &record)));
    }
    wait::ask(&place, agent, ask, reason, wait, out).await
}

/// Whether there is a rollout that can still move. One of a newer version may: its daemon knows.
fn is_on_its_way(record: &AgentRecord) -> bool {
    record.rollout.as_ref().is_some_and(|saved| !Rollout::read(saved).is_ok_and(|rollout| rollout.is_over()))
}

/// What there is to do where nothing is rolling out.
fn way_out(agent: &AgentName, record: &AgentRecord) -> String {
    if record.operation.is_some() {
        return format!("its strategy has no steps: `backstay status {agent}` shows how far it is");
    }
    let before = record.stable.as_ref().and_then(|stable| {
        record.history.iter().map(|standing| standing.release).find(|release| *release != stable.release)
    });
    match before {
        Some(before) => {
            format!("`backstay history {agent}` tells what was done; `backstay rollback {agent}` goes back to {before}")
        }
        None => format!("`backstay history {agent}` tells what was done"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RolloutRecord;

    #[test]
    fn a_rollout_of_a_newer_version_may_be_asked_to_move() {
        assert!(!is_on_its_way(&AgentRecord::default()));
        let newer = RolloutRecord { version: 99, ..RolloutRecord::default() };
        assert!(is_on_its_way(&AgentRecord { rollout: Some(newer), ..AgentRecord::default() }));
    }
}
