//! `backstay schema agent|environment|repository|config|…`

use crate::cli::{CliError, Exit, Out};
use crate::daemon::config;
use crate::desired::{SchemaKind, schema};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Which format
    #[arg(value_enum)]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// `agents/<name>/agent.yaml`
    Agent,
    /// `environments/<name>.yaml`
    Environment,
    /// `backstay.yaml`
    Repository,
    /// `shared/models.yaml`
    Models,
    /// `environments/<name>/variables.yaml`
    Variables,
    /// A file in `consent/`
    Consent,
    /// What `plan -o json` prints
    Plan,
    /// The daemon's own `backstay.toml`
    Config,
}

pub(in crate::cli) fn run(args: &Args, out: &mut Out) -> Result<Exit, CliError> {
    let kind = match args.kind {
        Kind::Agent => SchemaKind::Agent,
        Kind::Environment => SchemaKind::Environment,
        Kind::Repository => SchemaKind::Repository,
        Kind::Models => SchemaKind::Models,
        Kind::Variables => SchemaKind::Variables,
        Kind::Consent => SchemaKind::Consent,
        Kind::Plan => {
            out.json(&super::plan::schema())?;
            return Ok(Exit::Done);
        }
        Kind::Config => {
            out.json(&config::schema())?;
            return Ok(Exit::Done);
        }
    };
    // JSON in every output format: a schema has no other form.
    out.json(schema(kind))?;
    Ok(Exit::Done)
}
