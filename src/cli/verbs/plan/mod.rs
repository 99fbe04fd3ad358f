//! `backstay plan`: what the daemon would do next; and, of two commits, what the later one changes.

mod between;
mod markdown;
mod next;
mod rollout;

use std::path::PathBuf;

use crate::cli::{CliError, Exit, Globals, Out};
use crate::model::AgentName;

pub(in crate::cli) use next::schema;
pub(super) use next::{look_at, object_lines, unknown};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// One agent alone
    agent: Option<AgentName>,

    /// What two commits differ in, with no cluster: the earlier one
    #[arg(long, value_name = "REVISION", requires = "to")]
    from: Option<String>,

    /// The later one
    #[arg(long, value_name = "REVISION", requires = "from")]
    to: Option<String>,

    /// The Git repository of the two commits
    #[arg(long, value_name = "FOLDER", default_value = ".", requires = "from")]
    repo: PathBuf,

    /// End with 1 if anything would change
    #[arg(long)]
    exit_code: bool,
}

pub(in crate::cli) fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let changes = match (&args.from, &args.to) {
        (Some(from), Some(to)) => {
            let found = between::between(&args.repo, from, to, args.agent.as_ref(), globals.environment.as_ref())?;
            between::print(&found, out)?;
            if found.is_invalid() {
                return Ok(Exit::No);
            }
            found.is_change()
        }
        (_, _) => crate::cli::wait::on(next::run(args.agent.as_ref(), globals, out))?,
    };
    Ok(if changes && args.exit_code { Exit::No } else { Exit::Done })
}
