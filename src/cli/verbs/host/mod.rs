//! `backstay host …`: what root does once on a machine.

mod enrol;

use clap::Subcommand;

use crate::cli::{CliError, Exit, Globals, Out};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Let an agent run as units of systemd, with an account, secrets and a sandbox of its own
    Enrol(enrol::Args),
}

pub(in crate::cli) fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    match &args.deed {
        Deed::Enrol(args) => enrol::run(args, globals, out),
    }
}
