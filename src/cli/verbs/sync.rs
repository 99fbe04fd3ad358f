//! `backstay sync`

use crate::cli::client::{Place, place, places};
use crate::cli::wait::{self, Came, WaitArgs};
use crate::cli::{CliError, Exit, Globals, Out};
use crate::model::CommitId;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Accept that the followed branch was rewound to this very commit
    #[arg(long, value_name = "COMMIT")]
    accept_rewind: Option<CommitId>,

    /// Why, in your words
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(in crate::cli) async fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    // A rewind is accepted for one environment at a time.
    let meant = match &args.accept_rewind {
        Some(commit) => {
            let place = place(globals).await?;
            check(&place, commit).await?;
            vec![place]
        }
        None => places(globals).await?,
    };
    let mut worst = Exit::Done;
    for place in meant {
        let exit = one(args, &place, out).await?;
        if exit != Exit::Done {
            worst = exit;
        }
    }
    Ok(worst)
}

async fn one(args: &Args, place: &Place, out: &mut Out) -> Result<Exit, CliError> {
    let ledger = place.ledger();
    let asker = place.asker(&args.reason).await?;
    let asked = ledger.request_sync(args.accept_rewind.as_ref(), &asker).await;
    let id = asked.map_err(|failure| place.refused(failure))?;
    let object = format!("AgentEnvironment/{}/{}", place.namespace, place.environment);
    if args.wait.no_wait {
        out.line(format!("{object} asked"))?;
        return Ok(Exit::Done);
    }
    let look = async || Ok(wait::synced(&id, ledger.environment().await?.as_ref()));
    let came: Came = wait::until(look, args.wait.timeout, out).await?;
    wait::conclude(out, &object, &id, &came, args.wait.timeout)
}

/// Only the move that was refused can be accepted, so that nobody accepts another one by an old command line.
async fn check(place: &Place, commit: &CommitId) -> Result<(), CliError> {
    let entry = place.ledger().environment().await?;
    let refused = entry.and_then(|entry| entry.record.refused);
    let Some(refused) = refused else {
        let message = format!("no move of a branch is refused in `{}`", place.environment);
        return Err(CliError::new(Exit::Refused, message).hint("`backstay sync` alone looks at Git now"));
    };
    match refused.to {
        Some(to) if to == *commit => Ok(()),
        Some(to) => {
            Err(CliError::new(Exit::Refused, format!("`{}` was moved to {to}, not to {commit}", refused.reference))
                .hint("look at that commit first; then accept it by its full id"))
        }
        None => {
            Err(CliError::new(Exit::Refused, format!("`{}` is gone: there is nothing to accept", refused.reference))
                .hint("push the branch again, or follow another one"))
        }
    }
}
