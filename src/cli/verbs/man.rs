//! `backstay man [VERB]`

use crate::cli::verbs::Known;
use crate::cli::{CliError, Exit, Out};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A verb, for its own page
    verb: Option<String>,
}

pub(in crate::cli) fn run(args: &Args, mut command: clap::Command, out: &mut Out) -> Result<Exit, CliError> {
    // Flags that all verbs share reach the verbs' own commands.
    command.build();
    let page = match &args.verb {
        None => command,
        Some(verb) => command.find_subcommand(verb).cloned().ok_or_else(|| {
            let known: Known = command.get_subcommands().map(clap::Command::get_name).collect();
            CliError::usage(format!("there is no verb `{verb}`")).hint(known.hint(verb))
        })?,
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff)?;
    out.raw(&roff)?;
    Ok(Exit::Done)
}
