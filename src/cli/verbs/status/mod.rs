//! `backstay status [AGENT]`

mod watch;

use serde_json::{Value, json};

use crate::cli::client::{Place, Seen, place, places};
use crate::cli::{CliError, Exit, Format, Globals, Out, view};
use crate::model::{AgentName, Timestamp};
use crate::record::EnvironmentRecord;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// One agent, with all that is known of it
    agent: Option<AgentName>,

    /// End with 1 unless every agent shown is Ready
    #[arg(long)]
    exit_code: bool,

    /// Show what is rolled out as it happens, until it has ended: 0 promoted, 1 gone back
    #[arg(
        short,
        long,
        requires = "agent",
        conflicts_with = "exit_code",
        long_help = "Show what is rolled out as it happens, until it has ended. On a terminal it is drawn in place; \
                     elsewhere, and with `-o json`, each change is a line. Ends with 0 when the candidate is promoted, \
                     with 1 when it went back or something else took its place, and with 3 when nothing is rolling out"
    )]
    watch: bool,
}

/// One environment, with the agents that are shown of it.
type Shown = (Place, Option<EnvironmentRecord>, Vec<(AgentName, Seen)>);

pub(in crate::cli) async fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    if let (true, Some(agent)) = (args.watch, &args.agent) {
        return watch::run(&place(globals).await?, agent, out).await;
    }
    let now = Timestamp::now();
    let places = places(globals).await?;
    let mut shown: Vec<Shown> = Vec::new();
    let mut missing = None;
    for place in places {
        let record = place.ledger().environment().await?.map(|entry| entry.record);
        let agents = match &args.agent {
            None => place.agents().await?,
            Some(agent) => match place.agent(agent).await {
                Ok(seen) => vec![(agent.clone(), seen)],
                // Another environment may have it.
                Err(error) if error.exit() == Exit::Usage => {
                    missing = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        shown.push((place, record, agents));
    }
    if let (true, Some(error)) = (shown.is_empty(), missing) {
        return Err(error);
    }
    match out.format {
        Format::Json => {
            let environments =
                shown.iter().map(|(place, record, agents)| environment(place, record.as_ref(), agents, now));
            out.json(&json!({"environments": environments.collect::<Vec<_>>()}))?;
        }
        Format::Text | Format::Markdown => {
            for (n, (place, record, agents)) in shown.iter().enumerate() {
                if n > 0 {
                    out.line("")?;
                }
                if args.agent.is_some() {
                    for (name, seen) in agents {
                        let (record, requests) = (&seen.record, &seen.requests);
                        let logs = view::logs_command(name, &place.namespace, place.host);
                        let lines = view::agent_lines(name, &place.environment, record, requests, &logs, now);
                        lines.into_iter().try_for_each(|line| out.line(line))?;
                    }
                    continue;
                }
                let lines = view::environment_lines(&place.environment, &place.namespace, record.as_ref(), now);
                lines.into_iter().chain(place.host.map(view::isolation_line)).try_for_each(|line| out.line(line))?;
                if agents.is_empty() {
                    out.line("  no agents yet")?;
                } else {
                    let row =
                        |(name, seen): &(AgentName, Seen)| view::agent_row(name, &seen.record, &seen.requests, now);
                    out.table(&view::AGENTS, agents.iter().map(row).collect())?;
                }
            }
        }
    }
    let ready = shown.iter().flat_map(|(_, _, agents)| agents).all(|(_, seen)| view::is_ready(&seen.record));
    Ok(if args.exit_code && !ready { Exit::No } else { Exit::Done })
}

fn environment(
    place: &Place,
    record: Option<&EnvironmentRecord>,
    agents: &[(AgentName, Seen)],
    now: Timestamp,
) -> Value {
    let agents = agents.iter().map(|(name, seen)| {
        json!({
            "name": name,
            "ready": view::is_ready(&seen.record),
            "rollout": view::rollout::shown(&seen.record, now).and_then(Result::ok),
            "record": seen.record,
            "requests": seen.requests,
        })
    });
    json!({
        "environment": place.environment,
        "namespace": place.namespace,
        "isolation": place.host.map(view::isolation),
        "record": record,
        "agents": agents.collect::<Vec<_>>(),
    })
}
