//! `backstay revert AGENT -e ENV [--to RELEASE]`

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::rollback::release;
use crate::cli::client::{Place, mirror_folder, place};
use crate::cli::wait::{self, Came, WaitArgs};
use crate::cli::{CliError, Exit, Format, Globals, Out};
use crate::daemon::COMMITTER;
use crate::daemon::config::Config;
use crate::daemon::write_back::{CannotTell, Forge, Request, Way, Written, propose, write};
use crate::desired::{self, ReleaseRef, WriteBack};
use crate::model::{AgentName, CommitId, EnvironmentName, ReleaseId, Timestamp};
use crate::reconcile::{FailureKind, LedgerEntry};
use crate::record::{AgentRecord, Standing};
use crate::source::{Followed, Mirror, NoVerification, Person, PushError, SourceConfig, Track, Verify, WriteError};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The agent
    agent: AgentName,

    /// A release that was stable before [default: the one before what Git asks for]
    #[arg(long, value_name = "RELEASE")]
    to: Option<String>,

    /// Why, in your words: part of the commit's message
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    /// As whom to commit [default: `[[person]] git` of the caller, or `GIT_AUTHOR_NAME` and `GIT_AUTHOR_EMAIL`]
    #[arg(long, value_name = "NAME <ADDRESS>", value_parser = str::parse::<Person>)]
    author: Option<Person>,

    /// The private key that signs the commit, without a passphrase [default: `[source] signing_key`]
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,

    /// The config repository, where there is no configuration that says so
    #[arg(long, value_name = "URL")]
    repo: Option<String>,

    /// Its followed branch, with `--repo`
    #[arg(long, value_name = "NAME", default_value = "main", requires = "repo")]
    branch: String,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(in crate::cli) async fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    if let Some(to) = &args.to {
        release(to)?;
    }
    let config = globals.config()?;
    let source = source(args, config.as_ref())?;
    let place = place(globals).await?;
    let record = place.agent(&args.agent).await?.record;
    let asker = place.asker(&args.reason).await?;
    let author = author(args, config.as_ref(), &asker.by)?;
    let (verifier, signing_key) = signing(args, config.as_ref())?;
    let accepted = accepted(&place, &source.branch).await?;
    let (left, back_to) = way(&args.agent, &record, args.to.as_deref())?;
    let forge = forge(args, config.as_ref())?;
    let reason = match args.reason.trim() {
        "" => format!("{} asked for it.", asker.by),
        reason => format!("{} asked for it: {reason}", asker.by),
    };
    let (agent, environment) = (args.agent.clone(), place.environment.clone());
    let progress = out.progress(format!("reading {}", source.url));
    let now = Timestamp::now();
    let target = back_to.release;
    let work = tokio::task::spawn_blocking(move || {
        let committer: Person = COMMITTER.parse()?;
        let mirror = Mirror::open(mirror_folder(&source), source)?;
        let write_back = write_back(&mirror, &environment, forge.is_some())?;
        let request = Request {
            agent,
            environment,
            left,
            left_at: None,
            back_to,
            author,
            committer,
            automatic: false,
            even_if_newer: true,
            word: "manual".to_owned(),
            reason,
            evidence: vec![],
            write_back,
            accepted,
            signing_key,
        };
        let written = match forge.filter(|_| write_back == WriteBack::PullRequest) {
            Some(forge) => propose(&mirror, &*verifier, &request, &forge, now)?,
            None => write(&mirror, &*verifier, &request, now)?,
        };
        Ok::<_, CliError>(written)
    });
    let written =
        work.await.map_err(|error| CliError::new(Exit::Broken, "the commit was not made").because(error))??;
    drop(progress);
    let (commit, how) = match &written {
        Written::Nothing | Written::Known(_) => (None, "Git asks for it already"),
        Written::Newer => (None, "Git asks for something newer"),
        Written::Proposed { commit, .. } => (Some(commit), "a pull request is open"),
        Written::Commit(commit, Way::Reverted) => (Some(commit), "the commits that changed it are reverted"),
        Written::Commit(commit, Way::Restored) => (Some(commit), "its own files are as they were"),
        Written::Commit(commit, Way::Pinned) => (Some(commit), "it is pinned in the environment's file"),
    };
    let address = match &written {
        Written::Proposed { address, .. } => Some(address),
        Written::Commit(..) | Written::Known(_) | Written::Nothing | Written::Newer => None,
    };
    match out.format {
        Format::Json => out.json(&json!({
            "agent": args.agent,
            "environment": place.environment,
            "from": left.short(),
            "to": target.short(),
            "commit": commit,
            "way": how,
            "pullRequest": address,
        }))?,
        Format::Text | Format::Markdown => match commit {
            Some(commit) => {
                let at = address.map(|address| format!(": {address}")).unwrap_or_default();
                out.line(format!("{} commit {commit} pushed: {how}{at}", args.agent))?;
            }
            None => out.line(format!("{} {how}: {target}", args.agent))?,
        },
    }
    // When it is merged is up to people.
    if args.wait.no_wait || address.is_some() {
        return Ok(Exit::Done);
    }
    let ledger = place.ledger();
    // Only a hint: the daemon looks by itself before long, also where the caller may not ask.
    if let Err(failure) = ledger.request_sync(None, &asker).await {
        out.say(format!("the daemon was not asked to look at once: {}", failure.message));
    }
    let look = async || Ok(returned(target, &ledger.agent(&args.agent).await?));
    match wait::until(look, args.wait.timeout, out).await? {
        Came::Done(what) => {
            out.say(format!("{} {what}", args.agent));
            Ok(Exit::Done)
        }
        Came::Not(why) => Err(CliError::new(Exit::Refused, why)),
        Came::Pending(what) => {
            let message = format!("the commit is pushed; still waiting after {:?}: {what}", args.wait.timeout.0);
            Err(CliError::new(Exit::Waiting, message).hint("`backstay status` shows how far it is"))
        }
    }
}

/// How far the agent is on its way to `target`.
fn returned(target: ReleaseId, entry: &LedgerEntry) -> Came {
    let LedgerEntry::Present { record, .. } = entry else {
        return Came::Not("the ledger has no such agent any more".to_owned());
    };
    let is_back = record.stable.as_ref().is_some_and(|stable| stable.release == target);
    if is_back && record.operation.is_none() && record.differs.is_none() {
        return Came::Done(format!("runs {target}"));
    }
    let waiting = wait::waiting_for(record);
    Came::Pending(waiting.unwrap_or_else(|| "waiting for the daemon to see the commit".to_owned()))
}

/// What Git asks for now, and what it shall ask for.
fn way(agent: &AgentName, record: &AgentRecord, to: Option<&str>) -> Result<(ReleaseId, Standing), CliError> {
    let standing = record.candidate.as_ref().or(record.stable.as_ref()).map(|standing| standing.release);
    let Some(left) = record.differs.as_ref().map(|differs| differs.desired).or(standing) else {
        return Err(CliError::new(Exit::Refused, format!("no release of `{agent}` was deployed here yet")));
    };
    let known: Vec<&Standing> = record.stable.iter().chain(&record.history).collect();
    let found = match to {
        None => {
            known.iter().find(|standing| standing.release != left && record.quarantined(standing.release).is_none())
        }
        Some(to) => {
            let to = ReleaseRef(to.to_owned());
            known.iter().find(|standing| to.names(&standing.release))
        }
    };
    match (found, to) {
        (Some(found), Some(_)) if found.release == left => {
            Err(CliError::new(Exit::Refused, format!("Git asks for `{left}` already")))
        }
        (Some(found), _) => Ok((left, (*found).clone())),
        (None, None) => {
            Err(CliError::new(Exit::Refused, format!("no release of `{agent}` was stable here before this one"))
                .hint("`git revert` takes back any commit"))
        }
        (None, Some(to)) => {
            let known = known.iter().map(|standing| format!("`{}`", standing.release)).collect::<Vec<_>>().join(", ");
            Err(CliError::new(Exit::Refused, format!("`{to}` was never stable for `{agent}` here"))
                .hint(format!("there is {known}")))
        }
    }
}

fn source(args: &Args, config: Option<&Config>) -> Result<SourceConfig, CliError> {
    match (&args.repo, config) {
        (Some(repo), _) => {
            let url = repo.parse().map_err(|error| CliError::usage(format!("`--repo` cannot be used: {error}")))?;
            Ok(SourceConfig { branch: args.branch.clone(), ..SourceConfig::new(url) })
        }
        (None, Some(config)) => Ok(config.source.remote()),
        (None, None) => Err(CliError::usage("which repository is meant?")
            .hint("name the daemon's configuration with `--config FILE`, or the repository with `--repo URL`")),
    }
}

/// Who decides whether the commit will be accepted, and what signs it: the key that the caller names, or the
/// configuration's. With a repository of its own, `--repo`, nobody here knows what the daemon accepts.
fn signing(args: &Args, config: Option<&Config>) -> Result<(Arc<dyn Verify>, Option<PathBuf>), CliError> {
    let source = config.filter(|_| args.repo.is_none()).map(|config| &config.source);
    let nothing = || Ok(Arc::new(NoVerification) as Arc<dyn Verify>);
    let verifier = source.map_or_else(nothing, crate::daemon::config::Source::verifier);
    let verifier = verifier.map_err(|error| {
        CliError::new(Exit::Refused, error.to_string())
            .hint("the file of `[source.verify]` is needed here too; `git revert -S` needs nothing of this")
    })?;
    let key = args.signing_key.clone().or_else(|| source.and_then(|source| source.signing_key.clone()));
    Ok((verifier, key))
}

/// What the branch was accepted at last in this environment.
async fn accepted(place: &Place, branch: &str) -> Result<Option<CommitId>, CliError> {
    let entry = place.ledger().environment().await?;
    let key = Track::Branch(branch.to_owned()).key();
    Ok(entry.and_then(|entry| entry.record.accepted.get(&key).map(|revision| revision.commit.clone())))
}

/// The person that the commit is made for.
fn author(args: &Args, config: Option<&Config>, caller: &str) -> Result<Person, CliError> {
    if let Some(author) = &args.author {
        return Ok(author.clone());
    }
    if let Some(person) = config.and_then(|config| config.person(caller)) {
        return Ok(person.git.to_string().parse::<Person>()?);
    }
    let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    match (variable("GIT_AUTHOR_NAME"), variable("GIT_AUTHOR_EMAIL")) {
        (Some(name), Some(email)) => Ok(format!("{name} <{email}>").parse::<Person>()?),
        (_, _) => Err(CliError::usage(format!("as whom does `{caller}` commit?"))
            .hint("name it with `--author \"Name <address>\"`, or as `[[person]]` in the configuration")),
    }
}

/// Where pull requests are opened; with a repository of its own, `--repo`, nobody here knows.
fn forge(args: &Args, config: Option<&Config>) -> Result<Option<Forge>, CliError> {
    let source = config.filter(|_| args.repo.is_none()).map(|config| &config.source);
    let forge = source.map_or(Ok(None), crate::daemon::config::Source::forge);
    forge.map_err(|(_, why, hint)| CliError::new(Exit::Refused, why).hint(hint))
}

/// How the environment wants Git to be told; who asks for a commit gets one.
fn write_back(mirror: &Mirror, environment: &EnvironmentName, forge: bool) -> Result<WriteBack, CliError> {
    let branch = mirror.config().branch.clone();
    mirror.poll(&Followed::branch(&branch))?;
    let tip = mirror.store().resolve(&Track::Branch(branch.clone()))?;
    let tip = tip.ok_or_else(|| CliError::usage(format!("the repository has no branch `{branch}`")))?;
    let checkout = mirror.store().checkout(&tip)?;
    match desired::environment(&*checkout.tree, environment).map(|spec| spec.write_back) {
        Ok(WriteBack::Pin) => Ok(WriteBack::Pin),
        Ok(WriteBack::PullRequest) if forge => Ok(WriteBack::PullRequest),
        Ok(WriteBack::Revert | WriteBack::None | WriteBack::PullRequest) => Ok(WriteBack::Revert),
        Err(found) => Err(CliError::invalid(
            Exit::Refused,
            format!("`{environment}` cannot be read at {}", tip.commit.short()),
            found,
        )),
    }
}

impl From<CannotTell> for CliError {
    fn from(error: CannotTell) -> Self {
        let (hint, message) = (error.hint(), error.to_string());
        let own = match error {
            CannotTell::Source(source) | CannotTell::Push(PushError::Source(source)) => return source.into(),
            CannotTell::Write(error) => return error.into(),
            CannotTell::Push(PushError::Moved { .. }) | CannotTell::Restless(_) => Self::new(Exit::Broken, message),
            CannotTell::Forge(error) => {
                let away = matches!(error.kind(), FailureKind::Unavailable { .. });
                Self::new(if away { Exit::Broken } else { Exit::Refused }, message)
            }
            CannotTell::Push(PushError::Refused { .. })
            | CannotTell::NoWay { .. }
            | CannotTell::NotAccepted { .. }
            | CannotTell::AskedAgain { .. }
            | CannotTell::OwnCommit { .. }
            | CannotTell::NoForge => Self::new(Exit::Refused, message),
        };
        match hint {
            Some(hint) => own.hint(hint),
            None => own,
        }
    }
}

impl From<WriteError> for CliError {
    fn from(error: WriteError) -> Self {
        let exit = match error {
            WriteError::Person(_) => Exit::Usage,
            WriteError::Source(source) => return source.into(),
            WriteError::Path(_)
            | WriteError::Root(_)
            | WriteError::Empty
            | WriteError::Unchanged
            | WriteError::Sign(_) => Exit::Refused,
        };
        Self::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;
    use crate::record::{Differs, Quarantined};

    fn stood(content: &str) -> Standing {
        Standing {
            release: ReleaseId::of(content.as_bytes()),
            revision: "main@sha1:3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0".parse().expect("a revision"),
            settings: Digest::of(b""),
            renderer: 1,
            own_set: false,
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn found(record: &AgentRecord, to: Option<&str>) -> Result<(ReleaseId, ReleaseId), String> {
        let agent: AgentName = "support".parse().expect("a name");
        way(&agent, record, to).map(|(left, back)| (left, back.release)).map_err(|error| error.to_string())
    }

    #[test]
    fn git_goes_back_to_what_was_stable_before_what_it_asks_for() {
        let id = |content: &str| stood(content).release;
        let stable = AgentRecord {
            stable: Some(stood("bad")),
            history: vec![stood("good"), stood("older")],
            ..AgentRecord::default()
        };
        assert_eq!(found(&stable, None), Ok((id("bad"), id("good"))));
        assert_eq!(found(&stable, Some(&id("older").short())), Ok((id("bad"), id("older"))));
        let rolling = AgentRecord { candidate: Some(stood("new")), ..stable.clone() };
        assert_eq!(found(&rolling, None), Ok((id("new"), id("bad"))), "a candidate goes back to the stable one");
        let differs = Differs { desired: id("worse"), since: Timestamp::UNIX_EPOCH, why: "it failed".to_owned() };
        let failed = AgentRecord { differs: Some(differs), ..stable.clone() };
        assert_eq!(found(&failed, None), Ok((id("worse"), id("bad"))), "Git asks for what failed");
        let entry = Quarantined::new(id("good"), Timestamp::UNIX_EPOCH, "");
        let quarantined = AgentRecord { quarantine: vec![entry], ..stable.clone() };
        assert_eq!(found(&quarantined, None), Ok((id("bad"), id("older"))), "what failed is passed over");
    }

    #[test]
    fn there_may_be_no_way_back() {
        let first = AgentRecord { stable: Some(stood("now")), ..AgentRecord::default() };
        assert!(found(&AgentRecord::default(), None).is_err_and(|why| why.contains("deployed here yet")));
        assert!(found(&first, None).is_err_and(|why| why.contains("before this one")));
        assert!(found(&first, Some("r-0123456789ab")).is_err_and(|why| why.contains("never stable")));
        let now = stood("now").release.short();
        assert!(found(&first, Some(&now)).is_err_and(|why| why.contains("already")));
    }

    #[test]
    fn it_is_back_when_nothing_is_open_and_nothing_differs() {
        use crate::model::ResourceVersion;
        let target = stood("good").release;
        let look = |record: AgentRecord| {
            let version = ResourceVersion("1".to_owned());
            returned(
                target,
                &LedgerEntry::Present {
                    record: std::sync::Arc::new(record),
                    requests: crate::record::Requests::default(),
                    generation: 1,
                    version,
                },
            )
        };
        let back = AgentRecord { stable: Some(stood("good")), ..AgentRecord::default() };
        assert!(matches!(look(back.clone()), Came::Done(_)));
        let differs = Differs { desired: stood("bad").release, since: Timestamp::UNIX_EPOCH, why: String::new() };
        assert!(matches!(look(AgentRecord { differs: Some(differs), ..back }), Came::Pending(_)));
        assert!(matches!(look(AgentRecord::default()), Came::Pending(_)));
        assert!(matches!(returned(target, &LedgerEntry::Absent), Came::Not(_)));
    }
}
