//! The commit that makes Git agree: which commits are taken back, or which paths restored, or a pin.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`write()`] | makes the commit on the tip of the followed branch, and pushes it without force |
//! | [`propose()`] | the same on a branch of its own, with a pull request |
//! | [`Forge`] | the API of GitHub, GitLab, Gitea and Forgejo |
//! | `tell` | either of them, for the core |

mod forge;
mod propose;
mod request;
mod view;
mod write;

pub use forge::{Forge, ForgeError, Host, Opened, Proposal, State};
pub use propose::propose;
pub use request::{CannotTell, Request, Way, Written};
pub use write::write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use propose::propose_with;
use write::write_with;

use super::git::Git;
use crate::desired::{Cache, WriteBack};
use crate::ledger::Clock;
use crate::model::{CommitId, EnvironmentName};
use crate::reconcile::{Failure, FailureKind, TellGit};
use crate::source::Person;

/// How long an agent waits for its turn: meanwhile nothing else is done for it.
const TURN: Duration = Duration::from_secs(20);

/// What writing needs to know of people and of the Git host.
pub(crate) struct WriteBacks {
    pub(crate) git: Arc<Git>,
    pub(crate) people: BTreeMap<String, Person>,
    pub(crate) committer: Person,
    /// What signs commits; read whenever it is needed.
    pub(crate) signing_key: Option<PathBuf>,
    /// Where pull requests are opened.
    pub(crate) forge: Option<Forge>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) turn: Turn,
}

/// One commit at a time is made here: those of several agents would only push each other away.
#[derive(Default)]
pub(crate) struct Turn {
    /// What was read before, while somebody else waits for it.
    cache: Arc<tokio::sync::Mutex<Cache>>,
    waiting: AtomicUsize,
}

/// Tells Git of a rollback, or that a release failed; gives the commit or the address of the pull request that says so,
/// and nothing where Git says it already or asks for something newer.
pub(crate) async fn tell(
    parts: Arc<WriteBacks>,
    environment: EnvironmentName,
    accepted: Option<CommitId>,
    tell: TellGit,
) -> Result<Option<String>, Failure> {
    if tell.write_back == WriteBack::None {
        let message = "`writeBack: none`: a person tells Git".to_owned();
        return Err(Failure { kind: FailureKind::Refused, message });
    }
    let request = asked(&parts, environment, accepted, tell);
    parts.turn.waiting.fetch_add(1, Ordering::AcqRel);
    let Ok(mut cache) = tokio::time::timeout(TURN, Arc::clone(&parts.turn.cache).lock_owned()).await else {
        parts.turn.waiting.fetch_sub(1, Ordering::AcqRel);
        let message = "others have been telling Git for long; it is tried again".to_owned();
        return Err(Failure { kind: FailureKind::Unavailable { retry_after: None }, message });
    };
    let git = Arc::clone(&parts.git);
    let work = tokio::task::spawn_blocking(move || {
        let (mirror, verifier, now) = (&parts.git.mirror, &*parts.git.verifier, parts.clock.now());
        let written = match (request.write_back, &parts.forge) {
            (WriteBack::PullRequest, None) => Err(CannotTell::NoForge),
            (WriteBack::PullRequest, Some(forge)) => propose_with(mirror, verifier, &request, forge, now, &mut cache),
            (WriteBack::Revert | WriteBack::Pin | WriteBack::None, _) => {
                write_with(mirror, verifier, &request, now, &mut cache)
            }
        };
        if parts.turn.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            *cache = Cache::default();
        }
        written
    });
    match work.await {
        Ok(Ok(Written::Commit(commit, _) | Written::Known(commit))) => {
            // So that it comes back at once.
            git.look();
            Ok(Some(commit.to_string()))
        }
        Ok(Ok(Written::Proposed { address, .. })) => Ok(Some(address)),
        Ok(Ok(Written::Nothing | Written::Newer)) => Ok(None),
        Ok(Err(error)) => {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            Err(Failure { kind: error.kind(), message: format!("{error}{hint}") })
        }
        Err(error) => Err(Failure { kind: FailureKind::Unavailable { retry_after: None }, message: error.to_string() }),
    }
}

/// What is to be written, in the terms of Git.
fn asked(parts: &WriteBacks, environment: EnvironmentName, accepted: Option<CommitId>, tell: TellGit) -> Request {
    let what = match &tell.by {
        Some(by) => format!("{by} rolled `{}` back in {environment}", tell.agent),
        None => format!("`{}` failed in {environment} and was taken back", tell.agent),
    };
    let reason = match tell.reason.trim() {
        "" => format!("{what}."),
        reason => format!("{what}: {reason}"),
    };
    let author = tell.by.as_ref().and_then(|by| parts.people.get(by)).unwrap_or(&parts.committer).clone();
    Request {
        agent: tell.agent,
        environment,
        left: tell.left.release,
        left_at: Some(tell.left.revision.commit),
        back_to: tell.back_to,
        author,
        committer: parts.committer.clone(),
        automatic: tell.by.is_none(),
        even_if_newer: false,
        word: tell.word,
        reason,
        evidence: tell.evidence,
        write_back: tell.write_back,
        accepted,
        signing_key: parts.signing_key.clone(),
    }
}
