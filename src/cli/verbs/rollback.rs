//! `backstay rollback AGENT -e ENV --reason …`

use crate::cli::client::place;
use crate::cli::wait::{self, WaitArgs};
use crate::cli::{CliError, Exit, Globals, Out};
use crate::desired::ReleaseRef;
use crate::ledger::Ask;
use crate::model::{AgentName, ReleaseId};
use crate::record::AgentRecord;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The agent
    agent: AgentName,

    /// A release that was stable before [default: the one before this one]
    #[arg(long, value_name = "RELEASE")]
    to: Option<String>,

    /// Why, in your words: kept in the ledger and in the commit that tells Git
    #[arg(long, value_name = "TEXT")]
    reason: String,

    /// Leave telling Git to a person; the status says so until it is done
    #[arg(long)]
    no_git: bool,

    #[command(flatten)]
    wait: WaitArgs,
}

pub(in crate::cli) async fn run(args: &Args, globals: &Globals, out: &mut Out) -> Result<Exit, CliError> {
    if args.reason.trim().is_empty() {
        return Err(CliError::usage("`--reason` is empty").hint("say why: it is kept for whoever looks later"));
    }
    if let Some(to) = &args.to {
        release(to)?;
    }
    let place = place(globals).await?;
    let record = place.agent(&args.agent).await?.record;
    check(&args.agent, &record, args.to.as_deref())?;
    let ask = Ask::Rollback { to: args.to.clone(), no_git: args.no_git };
    wait::ask(&place, &args.agent, ask, &args.reason, &args.wait, out).await
}

/// Whether `text` is a release as people write it.
pub(super) fn release(text: &str) -> Result<(), CliError> {
    let digits =
        text.strip_prefix("r-").filter(|digits| digits.len() == 12).or_else(|| (text.len() == 64).then_some(text));
    let hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if digits.is_some_and(hex) {
        return Ok(());
    }
    Err(CliError::usage(format!("`{text}` is no release: `r-` and 12 hex digits are expected, or the whole digest"))
        .hint("`backstay history AGENT` lists the releases that were stable; a Git commit is not one of them"))
}

/// What the daemon would refuse is refused before anything is written.
fn check(agent: &AgentName, record: &AgentRecord, to: Option<&str>) -> Result<(), CliError> {
    let stable = record.stable.as_ref().map(|standing| standing.release);
    let before: Vec<ReleaseId> = record.history.iter().map(|standing| standing.release).collect();
    let list = || before.iter().map(|release| format!("`{release}`")).collect::<Vec<_>>().join(", ");
    let Some(to) = to.map(|to| ReleaseRef(to.to_owned())) else {
        if before.iter().any(|release| Some(*release) != stable) {
            return Ok(());
        }
        return Err(CliError::new(Exit::Refused, format!("no release of `{agent}` was stable here before this one"))
            .hint("there is nothing to go back to: push a commit that mends it"));
    };
    if record.candidate.is_none() && stable.is_some_and(|stable| to.names(&stable)) {
        return Err(CliError::new(Exit::Refused, format!("`{}` is the stable release of `{agent}` already", to.0)));
    }
    if let Some(failed) = record.quarantine.iter().find(|entry| to.names(&entry.release)) {
        let message = format!("`{}` is in quarantine: {}", failed.release, failed.reason);
        return Err(CliError::new(Exit::Refused, message)
            .hint(format!("`backstay retry {agent} --release {}` lets it be tried again", failed.release)));
    }
    if stable.iter().chain(&before).any(|release| to.names(release)) {
        return Ok(());
    }
    let hint = if before.is_empty() { "no other was stable here".to_owned() } else { format!("there is {}", list()) };
    Err(CliError::new(Exit::Refused, format!("`{}` was never stable for `{agent}` here", to.0)).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Timestamp};
    use crate::record::{Quarantined, Standing};

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

    fn record() -> AgentRecord {
        let failed = Quarantined::new(stood("failed").release, Timestamp::UNIX_EPOCH, "it crashed at start");
        AgentRecord {
            stable: Some(stood("now")),
            history: vec![stood("before"), stood("failed")],
            quarantine: vec![failed],
            ..AgentRecord::default()
        }
    }

    fn refusal(record: &AgentRecord, to: Option<&str>) -> String {
        let agent: AgentName = "support".parse().expect("a name");
        match check(&agent, record, to) {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                assert_eq!(error.exit(), Exit::Refused);
                error.to_string()
            }
        }
    }

    #[test]
    fn what_the_daemon_would_refuse_is_refused_here() {
        let short = |content: &str| stood(content).release.short();
        assert_eq!(refusal(&record(), None), "ok");
        assert_eq!(refusal(&record(), Some(&short("before"))), "ok");
        assert_eq!(refusal(&record(), Some(&stood("before").release.digest().to_string())), "ok");
        assert!(refusal(&record(), Some(&short("now"))).contains("already"));
        assert!(refusal(&record(), Some(&short("failed"))).contains("in quarantine: it crashed at start"));
        assert!(refusal(&record(), Some(&short("other"))).contains("was never stable"));
        let first = AgentRecord { history: vec![], ..record() };
        assert!(refusal(&first, None).contains("was stable here before this one"));
        assert!(refusal(&first, Some(&short("other"))).contains("was never stable"));
        let moving = AgentRecord { candidate: Some(stood("new")), ..record() };
        assert_eq!(refusal(&moving, Some(&short("now"))), "ok", "back from a candidate to the stable one");
    }

    #[test]
    fn a_release_is_known_by_its_form() {
        assert!(release("r-0123456789ab").is_ok() && release(&"a".repeat(64)).is_ok());
        for bad in ["", "r-", "r-0123456789a", "r-0123456789AB", "0123456789ab", "v1.4.2", "HEAD~1", &"a".repeat(40)] {
            assert!(release(bad).is_err_and(|error| error.exit() == Exit::Usage), "{bad}");
        }
    }
}
