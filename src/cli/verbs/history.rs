//! `backstay history AGENT`

use serde_json::json;

use crate::cli::client::place;
use crate::cli::{CliError, Exit, Format, Globals, Out, view};
use crate::model::AgentName;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The agent
    agent: AgentName,

    /// At most so many operations, the newest
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

pub(in crate::cli) async fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    let place = place(globals).await?;
    let record = place.agent(&args.agent).await?.record;
    let operations = record.operation.iter().chain(&record.operations).take(args.limit.unwrap_or(usize::MAX));
    match out.format {
        Format::Json => out.json(&json!({
            "agent": args.agent,
            "environment": place.environment,
            "operations": operations.collect::<Vec<_>>(),
        }))?,
        Format::Text | Format::Markdown => {
            let lines: Vec<_> = operations.flat_map(|operation| view::told(operation, &record)).collect();
            if lines.is_empty() {
                out.say(format!("nothing was done to `{}` in `{}` yet", args.agent, place.environment));
            }
            lines.into_iter().try_for_each(|line| out.line(line))?;
        }
    }
    Ok(Exit::Done)
}
