//! The commit that makes Git agree: which commits are taken back, or which paths restored, or a pin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::git::Git;
use crate::desired::{At, Cache, Resolve, WriteBack, environments, resolve};
use crate::ledger::Clock;
use crate::model::{AgentName, CommitId, EnvironmentName, ReleaseId, Revision, Timestamp};
use crate::reconcile::{Failure, FailureKind, TellGit};
use crate::record::Standing;
use crate::revert::{WriteBackMessage, paths_of, pin, touches};
use crate::source::{
    CommitInfo, Draft, Edit, Followed, Mirror, Person, PushError, Reverted, SigningKey, SourceError, Store, Track,
    Tree, Verify, WriteError,
};

/// Looks at the remote before it gives up on a branch that keeps moving.
const ROUNDS: usize = 5;
/// Commits since the stable revision that are looked at.
const WAY: usize = 1000;

const NO_KEY: &str = "name a key that `[source.verify]` trusts as `[source] signing_key` (a person: `--signing-key FILE`, \
                      or `git revert -S`)";
const UNTRUSTED_KEY: &str = "list the key of `[source] signing_key` among the allowed signers, or name another one";

/// What writing needs to know of people.
pub(crate) struct WriteBacks {
    pub(crate) git: Arc<Git>,
    pub(crate) people: BTreeMap<String, Person>,
    pub(crate) committer: Person,
    /// What signs commits; read whenever it is needed.
    pub(crate) signing_key: Option<PathBuf>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A commit that shall make Git ask for `back_to`.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose release.
    pub agent: AgentName,
    /// Where.
    pub environment: EnvironmentName,
    /// The release that Git asks for now and shall no more.
    pub left: ReleaseId,
    /// Where it shall be.
    pub back_to: Standing,
    /// The person it is made for.
    pub author: Person,
    /// Who writes it.
    pub committer: Person,
    /// Who asked and why, in a sentence.
    pub evidence: String,
    /// How Git is told.
    pub write_back: WriteBack,
    /// What the followed branch was accepted at last, if that is known.
    pub accepted: Option<CommitId>,
    /// The private key that signs the commit.
    pub signing_key: Option<PathBuf>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// This commit, in this way.
    Commit(CommitId, Way),
    /// Nothing: the branch asks for it already.
    Nothing,
}

/// How a commit takes a release back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The commits that changed it are reverted.
    Reverted,
    /// The agent's own paths are as they were.
    Restored,
    /// The agent is pinned in the environment's file.
    Pinned,
}

/// Git could not be told.
#[derive(Debug, thiserror::Error)]
pub enum CannotTell {
    /// It cannot be read or written.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The remote does not take it.
    #[error(transparent)]
    Push(#[from] PushError),
    /// No commit can be made.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What is made would not be accepted.
    #[error("a commit on `{branch}` would not be accepted: {why}")]
    NotAccepted {
        /// The followed branch.
        branch: String,
        /// Why not.
        why: String,
        /// The way out.
        hint: &'static str,
    },
    /// None of the ways gives the release.
    #[error("no commit on `{branch}` can bring `{agent}` back to {back_to}: {why}")]
    NoWay {
        /// The followed branch.
        branch: String,
        /// Whose release.
        agent: AgentName,
        /// Where it shall be.
        back_to: ReleaseId,
        /// Why not.
        why: String,
    },
    /// The branch moved at every try.
    #[error("`{0}` kept moving while a commit was made for it")]
    Restless(String),
}

// === impl CannotTell ===

impl CannotTell {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Source(error) => error.hint(),
            Self::Push(error) => error.hint(),
            Self::NoWay { .. } => Some("restore it by hand, or pin it in the environment's file".to_owned()),
            Self::NotAccepted { hint, .. } => Some((*hint).to_owned()),
            Self::Restless(_) => Some("try again".to_owned()),
            Self::Write(_) => None,
        }
    }
}

/// Tells Git of a rollback; gives the commit, or nothing where Git says so already.
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
    let by = tell.by.as_deref().unwrap_or("Backstay");
    let evidence = match tell.reason.as_str() {
        "" => format!("{by} rolled `{}` back in {environment}.", tell.agent),
        reason => format!("{by} rolled `{}` back in {environment}: {reason}", tell.agent),
    };
    let author = parts.people.get(by).cloned().unwrap_or_else(|| parts.committer.clone());
    let request = Request {
        agent: tell.agent,
        environment,
        left: tell.left.release,
        back_to: tell.back_to,
        author,
        committer: parts.committer.clone(),
        evidence,
        write_back: tell.write_back,
        accepted,
        signing_key: parts.signing_key.clone(),
    };
    let work = tokio::task::spawn_blocking(move || {
        write(&parts.git.mirror, &*parts.git.verifier, &request, parts.clock.now())
    });
    let unavailable = |message: String| Failure { kind: FailureKind::Unavailable { retry_after: None }, message };
    match work.await {
        Ok(Ok(Written::Commit(commit, _))) => Ok(Some(commit.to_string())),
        Ok(Ok(Written::Nothing)) => Ok(None),
        Ok(Err(
            error @ (CannotTell::Push(PushError::Refused { .. })
            | CannotTell::NoWay { .. }
            | CannotTell::NotAccepted { .. }
            | CannotTell::Write(WriteError::Sign(_))),
        )) => {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            Err(Failure { kind: FailureKind::Refused, message: format!("{error}{hint}") })
        }
        Ok(Err(error)) => Err(unavailable(error.to_string())),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

/// Makes the commit on the tip of the followed branch and pushes it, without force.
///
/// The commits that changed the agent's release since `back_to` are reverted; if that conflicts, would change another
/// agent, or would not give exactly `back_to`, the agent's own paths are restored; if that would not either, it is pinned.
///
/// # Guarantees
///
/// What `verifier` would not accept is not pushed. Later commits of people are kept. A branch that moves meanwhile is looked at again, and may need nothing any more.
///
/// # Errors
///
/// When the remote refuses, or none of the ways gives exactly the release.
pub fn write(mirror: &Mirror, verifier: &dyn Verify, request: &Request, now: Timestamp) -> Result<Written, CannotTell> {
    let branch = mirror.config().branch.clone();
    let not_accepted = |why: String, hint| CannotTell::NotAccepted { branch: branch.clone(), why, hint };
    let key = request.signing_key.as_deref().map(SigningKey::read).transpose().map_err(WriteError::from)?;
    if key.is_none() && verifier.is_strict() {
        let why = "commits must be signed, and there is no key to sign with".to_owned();
        return Err(not_accepted(why, NO_KEY));
    }
    for _ in 0..ROUNDS {
        mirror.poll(&Followed::branch(&branch))?;
        let store = mirror.store();
        let no_way = |why: &str| CannotTell::NoWay {
            branch: branch.clone(),
            agent: request.agent.clone(),
            back_to: request.back_to.release,
            why: why.to_owned(),
        };
        let tip = store.resolve(&Track::Branch(branch.clone()))?.ok_or_else(|| no_way("the branch is not there"))?;
        let mut view = View { store, request, now, cache: Cache::default() };
        if view.asks_for(&tip.commit)? == Some(request.back_to.release) {
            return Ok(Written::Nothing);
        }
        let (draft, way, commits) = view.draft(&tip).map_err(|error| match error {
            DraftError::Source(error) => CannotTell::Source(error),
            DraftError::Write(error) => CannotTell::Write(error),
            DraftError::NoWay(why) => no_way(&why),
        })?;
        let message = WriteBackMessage {
            commits: &commits,
            agent: &request.agent,
            environment: &request.environment,
            left: request.left,
            back_to: request.back_to.release,
            reason: "manual",
            evidence: &request.evidence,
        };
        let text = message.text();
        let commit = draft.signed_commit(&request.author, &request.committer, now, &text, key.as_ref())?;
        let made = store.checkout(&Revision { reference: branch.clone(), commit: commit.clone() })?;
        if let Err(error) = verifier.verify(store, &made, request.accepted.as_ref()) {
            return Err(if error.commit == commit {
                not_accepted(error.why, UNTRUSTED_KEY)
            } else {
                not_accepted(error.to_string(), "`backstay status` says how that commit is mended")
            });
        }
        match mirror.push(&commit, &branch, Some(&tip.commit)) {
            Ok(()) => return Ok(Written::Commit(commit, way)),
            Err(PushError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CannotTell::Restless(branch))
}

/// Why a draft cannot be made.
enum DraftError {
    Source(SourceError),
    Write(WriteError),
    NoWay(String),
}

impl From<SourceError> for DraftError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<WriteError> for DraftError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// The repository as one request looks at it.
struct View<'a> {
    store: &'a Store,
    request: &'a Request,
    now: Timestamp,
    cache: Cache,
}

/// What every agent of every environment would run.
type Releases = BTreeMap<(EnvironmentName, AgentName), Option<ReleaseId>>;

impl View<'_> {
    /// The release that a commit asks for.
    fn asks_for(&mut self, commit: &CommitId) -> Result<Option<ReleaseId>, SourceError> {
        let revision = self.store.pinned(commit)?;
        let checkout = self.store.checkout(&revision)?;
        let environment = self.request.environment.clone();
        let releases = self.releases(&revision, &*checkout.tree, [environment.clone()]);
        Ok(releases.get(&(environment, self.request.agent.clone())).copied().flatten())
    }

    fn releases(
        &mut self,
        revision: &Revision,
        tree: &dyn Tree,
        environments: impl IntoIterator<Item = EnvironmentName>,
    ) -> Releases {
        let mut releases = Releases::new();
        for environment in environments {
            let at = At::unverified_for_display(revision, tree);
            let pins = crate::desired::environment(tree, &environment).map(|spec| spec.pins).unwrap_or_default();
            let checkouts: BTreeMap<_, _> = pins
                .iter()
                .filter_map(|(agent, commit)| {
                    let revision = self.store.pinned(commit).ok()?;
                    Some((agent.clone(), self.store.checkout(&revision).ok()?))
                })
                .collect();
            let pinned = checkouts.iter().map(|(agent, checkout)| {
                (agent.clone(), At::unverified_for_display(&checkout.revision, &*checkout.tree))
            });
            let asked = Resolve {
                environment: &environment,
                head: at,
                tracked: at,
                pinned: &pinned.collect(),
                now: self.now,
                target: None,
            };
            let Ok(state) = resolve(&mut self.cache, &asked) else { continue };
            releases.extend(
                state
                    .agents
                    .into_iter()
                    .map(|(agent, found)| ((environment.clone(), agent), found.ok().map(|found| found.release.id))),
            );
        }
        releases
    }

    /// The first of the ways that gives exactly the release, and changes no other agent.
    fn draft(&mut self, tip: &Revision) -> Result<(Draft, Way, Vec<CommitInfo>), DraftError> {
        let checkout = self.store.checkout(tip)?;
        let all = environments(&*checkout.tree).unwrap_or_default();
        let before = self.releases(tip, &*checkout.tree, all.clone());
        if self.request.write_back == WriteBack::Revert {
            let (commits, complete) = self.changing(tip)?;
            let mut draft = self.store.draft(&tip.commit)?;
            let ids: Vec<_> = commits.iter().map(|commit| commit.id.clone()).collect();
            if complete && !ids.is_empty() {
                match draft.revert(&ids) {
                    Ok(Reverted::Clean) if self.gives(tip, &draft, &all, &before, true) => {
                        return Ok((draft, Way::Reverted, commits));
                    }
                    Ok(Reverted::Clean | Reverted::Conflict(_)) | Err(WriteError::Root(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let mut draft = self.store.draft(&tip.commit)?;
            draft.edit(&self.own_paths())?;
            if self.gives(tip, &draft, &all, &before, true) {
                return Ok((draft, Way::Restored, vec![]));
            }
        }
        self.pinned(tip, &*checkout.tree, &before).map(|draft| (draft, Way::Pinned, vec![]))
    }

    fn pinned(&mut self, tip: &Revision, tree: &dyn Tree, before: &Releases) -> Result<Draft, DraftError> {
        let path = format!("environments/{}.yaml", self.request.environment);
        let no_way = |why: String| DraftError::NoWay(why);
        let text = tree.read(&path, 1 << 20).map_err(|error| no_way(error.to_string()))?;
        let text = text.ok_or_else(|| no_way(format!("there is no `{path}`")))?;
        let text = std::str::from_utf8(&text).map_err(|_| no_way(format!("`{path}` is not UTF-8")))?;
        let text = pin(text, &self.request.agent, &self.request.back_to.revision.commit)
            .map_err(|error| no_way(error.to_string()))?;
        let mut draft = self.store.draft(&tip.commit)?;
        draft.edit(&[Edit::Write { path, bytes: text.into_bytes() }])?;
        let here = [self.request.environment.clone()];
        if self.gives(tip, &draft, &here, before, false) {
            Ok(draft)
        } else {
            Err(no_way("neither a revert, nor the agent's own paths, nor a pin gives exactly that release".to_owned()))
        }
    }

    /// Whether the draft asks for the release here, and for the same as before of every other agent.
    fn gives(
        &mut self,
        tip: &Revision,
        draft: &Draft,
        environments: &[EnvironmentName],
        before: &Releases,
        elsewhere_may_follow: bool,
    ) -> bool {
        let after = self.releases(tip, &*draft.tree(), environments.iter().cloned());
        let wanted = Some(Some(self.request.back_to.release));
        let here = after.get(&(self.request.environment.clone(), self.request.agent.clone())).copied() == wanted;
        // The same agent elsewhere goes back with the commits; a pin touches one environment only.
        let others = before.iter().filter(|((environment, agent), _)| {
            environments.contains(environment)
                && (*agent != self.request.agent || *environment != self.request.environment && !elsewhere_may_follow)
        });
        here && others.into_iter().all(|(key, release)| after.get(key) == Some(release))
    }

    /// The commits since the stable revision that changed this agent's release, the newest first.
    fn changing(&mut self, tip: &Revision) -> Result<(Vec<CommitInfo>, bool), SourceError> {
        let walk = self.store.commits_between(&self.request.back_to.revision.commit, &tip.commit, WAY)?;
        let paths = paths_of(&self.request.agent, &self.request.environment);
        let mut commits = vec![];
        for commit in walk.commits {
            let Some(parent) = commit.parents.first() else { continue };
            let changed = self.store.changed_paths(&commit.id)?;
            if touches(&changed, &paths) && self.asks_for(&commit.id)? != self.asks_for(parent)? {
                commits.push(commit);
            }
        }
        Ok((commits, walk.reached))
    }

    /// The agent's folder and its overlays, as they were at the stable revision.
    fn own_paths(&self) -> Vec<Edit> {
        let from = &self.request.back_to.revision.commit;
        let agent = &self.request.agent;
        let paths = BTreeSet::from([
            format!("agents/{agent}"),
            format!("environments/{}/{agent}.yaml", self.request.environment),
        ]);
        paths.into_iter().map(|path| Edit::Restore { path, from: from.clone() }).collect()
    }
}
