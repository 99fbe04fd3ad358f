//! What a person or a machine types: one file for each verb.
//!
//! Data goes to standard output and talk to standard error; a command ends with one of the six codes of [`Exit`].

#![allow(clippy::disallowed_methods, reason = "a shell room: it reads files and has a clock")]

mod client;
pub mod example_agent;
mod exit;
mod output;
mod screen;
mod verbs;
mod view;
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use exit::{CliError, Exit};
pub use output::{Color, Format, Out};

use crate::daemon::{Serve, config};
use crate::model::EnvironmentName;

/// A GitOps daemon for AI agents: `git push` deploys a whole release, `git revert` takes it back
#[derive(Debug, Parser)]
#[command(
    name = "backstay",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done or yes; 1 the answer is no; 2 usage; 3 refused; 4 still waiting; 5 broken."
)]
struct Args {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb can be told.
#[derive(Debug, clap::Args)]
struct Globals {
    /// The daemon's configuration [default: /etc/backstay/backstay.toml, where it exists]
    #[arg(long, global = true, env = "BACKSTAY_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,

    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,

    /// An environment
    #[arg(short, long, global = true, value_name = "NAME")]
    environment: Option<EnvironmentName>,

    /// The namespace of an environment, where there is no configuration that says so
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// A context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,

    /// The kubeconfig [default: KUBECONFIG, or ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Whether words are coloured
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a starter config repository
    Init(verbs::init::Args),
    /// Check a config repository: a folder, or a commit of a Git repository
    Validate(verbs::validate::Args),
    /// Show what would be done next, or what the later of two commits changes
    Plan(verbs::plan::Args),
    /// Run the daemon
    Run(verbs::run::Args),
    /// Look at Git now
    Sync(verbs::sync::Args),
    /// Show what runs where, since when and why
    Status(verbs::status::Args),
    /// Show what was done to an agent, and why
    History(verbs::history::Args),
    /// Show what an agent of this machine wrote to its standard output and error
    Logs(verbs::logs::Args),
    /// Show where the cluster differs from Git, or two releases from each other
    Diff(verbs::diff::Args),
    /// Write and push the commit that brings an agent back to a release that was stable before
    Revert(verbs::revert::Args),
    /// Move an agent back to a release that was stable before, now
    Rollback(verbs::rollback::Args),
    /// Let a release that failed be tried again
    Retry(verbs::retry::Args),
    /// Let a rollout go on: agree to its start, or end what it waits at
    Promote(verbs::rollout::PromoteArgs),
    /// Take a rollout back, now
    Abort(verbs::rollout::AbortArgs),
    /// Hold a rollout where it is, until it is promoted
    Pause(verbs::rollout::PauseArgs),
    /// Leave an agent as it is until it is resumed
    Suspend(verbs::suspend::SuspendArgs),
    /// End a suspension
    Resume(verbs::suspend::ResumeArgs),
    /// Print the JSON Schema of a file format
    Schema(verbs::schema::Args),
    /// Print a completion script for a shell
    Completions(verbs::completions::Args),
    /// Print a manual page
    Man(verbs::man::Args),
    /// Carry the traffic of this machine's agents
    Proxy(verbs::proxy::Args),
    /// What root does once on a machine that runs agents
    Host(verbs::host::Args),
    /// Show the whole promise on this machine: a push, a bad prompt, a revert, a killed daemon
    Demo(verbs::demo::Args),
    /// Ask the daemon of this machine whether it is alive
    Healthcheck(verbs::healthcheck::Args),
    /// Run the agent of the example repository, which needs no model
    ExampleAgent(example_agent::Args),
}

/// Verbs of other tools, and of later versions, with what to do here.
const OTHER_WORDS: &[(&[&str], &str)] = &[
    (
        &["deploy", "apply", "release", "upgrade", "install", "push"],
        "a commit on the followed branch deploys: `git push`, then `backstay sync` to have it seen at once",
    ),
    (
        &["undo", "back"],
        "`backstay revert` writes the commit that takes it back; `backstay rollback` moves the target now",
    ),
    (&["get", "list", "ls", "ps", "show", "describe", "agents"], "`backstay status` shows what runs"),
    (&["log", "events", "operations"], "`backstay history AGENT` shows what was done, and why"),
    (&["check", "lint", "test", "verify"], "`backstay validate PATH` checks a config repository"),
    (&["new", "create"], "`backstay init FOLDER` writes a starter repository"),
    (&["reconcile", "refresh", "fetch", "pull"], "`backstay sync` looks at Git now"),
    (&["start", "serve", "daemon"], "`backstay run --config FILE` runs the daemon"),
    (&["delete", "remove", "rm", "uninstall"], "an agent goes when a commit takes its folder away"),
    (&["approve", "continue", "advance", "unpause"], "`backstay promote AGENT` lets a rollout go on"),
    (&["cancel", "stop"], "`backstay abort AGENT` takes a rollout back, `backstay pause AGENT` holds it"),
    (&["watch", "top"], "`backstay status --watch AGENT` shows a rollout as it happens"),
    (&["import", "drill", "flag", "memory", "backup"], "this version does not deliver it yet"),
];

/// Does what `args` say, and gives the code to end with.
///
/// `serve` is the HTTP server of the daemon, for the verb that runs it.
pub fn main(args: impl IntoIterator<Item = OsString>, serve: Serve) -> ExitCode {
    let args = match parse(args) {
        Ok(args) => args,
        Err(exit) => return exit.into(),
    };
    let mut out = Out::standard(args.globals.output, args.globals.color);
    let done = dispatch(args, serve, &mut out).and_then(|exit| out.flush().map(|()| exit));
    match done {
        Ok(exit) => exit.into(),
        Err(error) if error.is_closed_pipe() => Exit::Done.into(),
        Err(error) => {
            out.error(&error);
            error.exit().into()
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, Exit> {
    let matches = Args::command().try_get_matches_from(args).and_then(|matches| Args::from_arg_matches(&matches));
    matches.map_err(|error| {
        // Nobody listening is no error.
        let _ = error.print();
        let typed = match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(typed)) => Some(typed.as_str()),
            Some(_) | None => None,
        };
        let other = OTHER_WORDS.iter().find(|(words, _)| typed.is_some_and(|typed| words.contains(&typed)));
        if let Some((_, hint)) = other {
            Out::standard(Format::Text, Color::Auto).hint(hint);
        }
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            Exit::Done
        } else {
            Exit::Usage
        }
    })
}

fn dispatch(Args { globals, verb }: Args, serve: Serve, out: &mut Out) -> Result<Exit, CliError> {
    match verb {
        Verb::Init(args) => verbs::init::run(&args, &globals, out),
        Verb::Validate(args) => verbs::validate::run(&args, out),
        Verb::Plan(args) => verbs::plan::run(&args, &globals, out),
        Verb::Run(args) => verbs::run::run(&args, &globals, serve, out),
        Verb::Sync(args) => wait::on(verbs::sync::run(&args, &globals, out)),
        Verb::Status(args) => wait::on(verbs::status::run(&args, &globals, out)),
        Verb::History(args) => wait::on(verbs::history::run(&args, &globals, out)),
        Verb::Logs(args) => verbs::logs::run(&args, &globals, out),
        Verb::Demo(args) => verbs::demo::run(&args, out),
        Verb::Diff(args) => wait::on(verbs::diff::run(&args, &globals, out)),
        Verb::Revert(args) => wait::on(verbs::revert::run(&args, &globals, out)),
        Verb::Rollback(args) => wait::on(verbs::rollback::run(&args, &globals, out)),
        Verb::Retry(args) => wait::on(verbs::retry::run(&args, &globals, out)),
        Verb::Promote(args) => wait::on(verbs::rollout::promote(&args, &globals, out)),
        Verb::Abort(args) => wait::on(verbs::rollout::abort(&args, &globals, out)),
        Verb::Pause(args) => wait::on(verbs::rollout::pause(&args, &globals, out)),
        Verb::Suspend(args) => wait::on(verbs::suspend::suspend(&args, &globals, out)),
        Verb::Resume(args) => wait::on(verbs::suspend::resume(&args, &globals, out)),
        Verb::Schema(args) => verbs::schema::run(&args, out),
        Verb::Completions(args) => verbs::completions::run(&args, Args::command(), out),
        Verb::Man(args) => verbs::man::run(&args, Args::command(), out),
        Verb::Proxy(args) => verbs::proxy::run(&args, &globals),
        Verb::Host(args) => verbs::host::run(&args, &globals, out),
        Verb::Healthcheck(args) => wait::on(verbs::healthcheck::run(&args, &globals, out)),
        Verb::ExampleAgent(args) => wait::on(async {
            let ran = example_agent::run(args).await;
            ran.map(|()| Exit::Done).map_err(|error| CliError::new(Exit::Broken, "the agent ended").because(error))
        }),
    }
}

// === impl Globals ===

impl Globals {
    /// The configuration that was named, or the usual one where it exists.
    fn config(&self) -> Result<Option<config::Config>, CliError> {
        let variables = variables();
        let usual = PathBuf::from(config::DEFAULT_PATH);
        let named_by_variables = variables.contains_key("BACKSTAY_SOURCE_URL");
        match &self.config {
            Some(path) => Ok(Some(config::Config::load(path, &variables)?)),
            None if named_by_variables || usual.exists() => Ok(Some(config::Config::load(&usual, &variables)?)),
            None => Ok(None),
        }
    }

    /// The configuration, which must be there.
    fn needed_config(&self) -> Result<config::Config, CliError> {
        let path = self.config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
        Ok(config::Config::load(&path, &variables())?)
    }
}

/// The variables of this process that are text.
fn variables() -> std::collections::BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn no_word_of_others_is_a_verb_of_ours() {
        let command = Args::command();
        for (words, _) in OTHER_WORDS {
            for word in *words {
                assert!(command.get_subcommands().all(|verb| verb.get_name() != *word), "{word}");
            }
        }
    }
}
