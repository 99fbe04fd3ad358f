//! The repository as one request looks at it: what commits ask for, which of them changed a release, and the way back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Request, Way};
use crate::desired::{At, Cache, Resolve, Track, WriteBack, environment, environments, resolve};
use crate::model::{AgentName, CommitId, EnvironmentName, ReleaseId, Revision, Timestamp};
use crate::revert::{paths_of, pin, touches, trailers};
use crate::source::{CommitInfo, Draft, Edit, Reverted, SourceError, Store, Tree, WriteError};

/// Commits since the stable revision that are looked at.
const WAY: usize = 1000;

/// Why a draft cannot be made.
pub(super) enum DraftError {
    Source(SourceError),
    Write(WriteError),
    NoWay(String),
    /// It would take back a commit that was written here.
    OwnCommit(CommitId),
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
pub(super) struct View<'a> {
    store: &'a Store,
    request: &'a Request,
    /// The followed branch, which environments' files are read from.
    branch: &'a str,
    now: Timestamp,
    cache: &'a mut Cache,
}

/// What every agent of every environment would run.
type Releases = BTreeMap<(EnvironmentName, AgentName), Option<ReleaseId>>;

impl<'a> View<'a> {
    pub(super) fn new(
        store: &'a Store,
        request: &'a Request,
        branch: &'a str,
        now: Timestamp,
        cache: &'a mut Cache,
    ) -> Self {
        Self { store, request, branch, now, cache }
    }

    /// The release that a commit asks for.
    pub(super) fn asks_for(&mut self, commit: &CommitId) -> Result<Option<ReleaseId>, SourceError> {
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
        for name in environments {
            let head = At::unverified_for_display(revision, tree);
            let spec = environment(tree, &name).ok();
            let track = spec.as_ref().and_then(|spec| spec.track.clone());
            let elsewhere = track.filter(|track| *track != Track::Branch(self.branch.to_owned()));
            let tracked = match elsewhere.map(|track| self.store.resolve(&track)) {
                None => None,
                Some(Ok(Some(revision))) => match self.store.checkout(&revision) {
                    Ok(found) => Some(found),
                    Err(_) => continue,
                },
                // What it follows is not there: it asks for nothing.
                Some(Ok(None) | Err(_)) => continue,
            };
            let tracked = tracked.as_ref().map(|found| At::unverified_for_display(&found.revision, &*found.tree));
            let checkouts: BTreeMap<_, _> = spec
                .map(|spec| spec.pins)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(agent, commit)| {
                    let revision = self.store.pinned(&commit).ok()?;
                    Some((agent, self.store.checkout(&revision).ok()?))
                })
                .collect();
            let pinned = checkouts.iter().map(|(agent, checkout)| {
                (agent.clone(), At::unverified_for_display(&checkout.revision, &*checkout.tree))
            });
            let asked = Resolve {
                environment: &name,
                head,
                tracked: tracked.unwrap_or(head),
                pinned: &pinned.collect(),
                now: self.now,
                target: None,
            };
            let Ok(state) = resolve(self.cache, &asked) else { continue };
            releases.extend(
                state
                    .agents
                    .into_iter()
                    .map(|(agent, found)| ((name.clone(), agent), found.ok().map(|found| found.release.id))),
            );
        }
        releases
    }

    /// The commit that was written here for this very try of the release, if it is on the way to `tip`.
    ///
    /// Its trailers say so, and what it does: before it, the commit before it asked for something else.
    pub(super) fn written_before(&mut self, tip: &Revision) -> Result<Option<CommitId>, SourceError> {
        let since = self.request.left_at.as_ref().map(|left| self.store.commits_between(left, &tip.commit, WAY));
        let walk = match since.transpose()?.filter(|walk| walk.reached) {
            Some(walk) => walk,
            None => self.store.commits_between(&self.request.back_to.revision.commit, &tip.commit, WAY)?,
        };
        for commit in walk.commits {
            let Some(said) = trailers(&commit.message) else { continue };
            let Some(parent) = commit.parents.first() else { continue };
            let request = self.request;
            let is_ours = said.agent == request.agent
                && said.environment == request.environment
                && said.release == request.left.digest();
            let wanted = Some(request.back_to.release);
            if is_ours && self.asks_for(&commit.id)? == wanted && self.asks_for(parent)? != wanted {
                return Ok(Some(commit.id));
            }
        }
        Ok(None)
    }

    /// The first of the ways that gives exactly the release and changes no other agent; with the commits that changed it.
    pub(super) fn draft(&mut self, tip: &Revision) -> Result<(Draft, Way, Vec<CommitInfo>), DraftError> {
        let checkout = self.store.checkout(tip)?;
        let all = environments(&*checkout.tree).unwrap_or_default();
        let before = self.releases(tip, &*checkout.tree, all.clone());
        let (commits, complete) = self.changing(tip)?;
        if matches!(self.request.write_back, WriteBack::Revert | WriteBack::PullRequest) {
            let own = commits
                .iter()
                .find(|commit| trailers(&commit.message).is_some_and(|said| said.agent == self.request.agent));
            if let Some(own) = own.filter(|_| self.request.automatic) {
                return Err(DraftError::OwnCommit(own.id.clone()));
            }
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
                return Ok((draft, Way::Restored, commits));
            }
        }
        self.pinned(tip, &*checkout.tree, &before).map(|draft| (draft, Way::Pinned, commits))
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
    ///
    /// Where a release was asked for twice, what led away from it and back is no part of the way: a bad commit that a
    /// person took back is not taken back again, nor is that revert.
    fn changing(&mut self, tip: &Revision) -> Result<(Vec<CommitInfo>, bool), SourceError> {
        let walk = self.store.commits_between(&self.request.back_to.revision.commit, &tip.commit, WAY)?;
        let paths = paths_of(&self.request.agent, &self.request.environment);
        // Releases that were asked for one after the other, and the commit that led to each but the first.
        let (mut asked, mut commits) = (vec![], vec![]);
        for commit in walk.commits.into_iter().rev() {
            let Some(parent) = commit.parents.first() else { continue };
            if !touches(&self.store.changed_paths(&commit.id)?, &paths) {
                continue;
            }
            let (before, after) = (self.asks_for(parent)?, self.asks_for(&commit.id)?);
            if before == after {
                continue;
            }
            if asked.is_empty() {
                asked.push(before);
            }
            match asked.iter().position(|known| after.is_some() && *known == after) {
                Some(known) => {
                    asked.truncate(known + 1);
                    commits.truncate(known);
                }
                None => {
                    asked.push(after);
                    commits.push(commit);
                }
            }
        }
        commits.reverse();
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
