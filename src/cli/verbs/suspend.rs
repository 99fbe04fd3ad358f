//! `backstay suspend AGENT -e ENV`, `backstay resume AGENT -e ENV`

use crate::cli::client::place;
use crate::cli::wait::{self, WaitArgs};
use crate::cli::{CliError, Exit, Globals, Out};
use crate::ledger::Ask;
use crate::model::AgentName;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SuspendArgs {
    /// The agent
    agent: AgentName,

    /// Why, in your words: shown while it lasts
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ResumeArgs {
    /// The agent
    agent: AgentName,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(in crate::cli) async fn suspend(args: &SuspendArgs, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let place = place(globals).await?;
    wait::ask(&place, &args.agent, Ask::Suspend, &args.reason, &args.wait, out).await
}

pub(in crate::cli) async fn resume(args: &ResumeArgs, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let place = place(globals).await?;
    wait::ask(&place, &args.agent, Ask::Resume, "", &args.wait, out).await
}
