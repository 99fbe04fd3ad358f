//! `backstay schema agent|environment|repository|config`

use crate::cli::{CliError, Exit, Out};
use crate::daemon::config;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Which format
    #[arg(value_enum)]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The daemon's own backstay.toml
    Config,
}

pub(in crate::cli) fn run(args: &Args, out: &mut Out) -> Result<Exit, CliError> {
    let schema = match args.kind {
        Kind::Config => config::schema(),
    };
    // JSON in every output format: a schema has no other form.
    out.json(&schema)?;
    Ok(Exit::Done)
}
