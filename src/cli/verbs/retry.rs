//! `backstay retry AGENT -e ENV`

use super::rollback::release;
use crate::cli::client::place;
use crate::cli::wait::{self, WaitArgs};
use crate::cli::{CliError, Exit, Globals, Out};
use crate::desired::ReleaseRef;
use crate::ledger::Ask;
use crate::model::AgentName;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The agent
    agent: AgentName,

    /// The release in quarantine [default: all of the agent's]
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,

    /// Why, in your words
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(in crate::cli) async fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    if let Some(named) = &args.release {
        release(named)?;
    }
    let place = place(globals).await?;
    let record = place.agent(&args.agent).await?.record;
    let held = record.hold.iter().map(|hold| hold.left);
    let left_out: Vec<_> = record.quarantine.iter().map(|entry| entry.release).chain(held).collect();
    let named = args.release.as_ref().map(|named| ReleaseRef(named.clone()));
    if !left_out.iter().any(|release| named.as_ref().is_none_or(|named| named.names(release))) && !record.unconfirmed {
        let what = named.map_or_else(|| "no release".to_owned(), |named| format!("`{}` is not", named.0));
        let there = left_out.iter().map(|release| format!("`{release}`")).collect::<Vec<_>>();
        let message = match args.release {
            Some(_) => format!("{what} in quarantine for `{}` in `{}`", args.agent, place.environment),
            None => format!("{what} of `{}` is in quarantine in `{}`", args.agent, place.environment),
        };
        let error = CliError::new(Exit::Refused, message);
        return Err(match there.as_slice() {
            [] => error.hint("nothing keeps it from being tried: `backstay status` says what it waits for"),
            _ => error.hint(format!("there is {}", there.join(", "))),
        });
    }
    let ask = Ask::Retry { release: args.release.clone() };
    wait::ask(&place, &args.agent, ask, &args.reason, &args.wait, out).await
}
