//! `backstay completions SHELL`

use clap_complete::Shell;

use crate::cli::{CliError, Exit, Out};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(in crate::cli) fn run(args: &Args, mut command: clap::Command, out: &mut Out) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "backstay", &mut script);
    out.raw(&script)?;
    Ok(Exit::Done)
}
