//! The commit on the followed branch: made, checked, pushed, and looked for where the answer was lost.

use super::view::{DraftError, View};
use super::{CannotTell, Request, Way, Written};
use crate::desired::Cache;
use crate::model::{CommitId, Revision, Timestamp};
use crate::revert::WriteBackMessage;
use crate::source::{Followed, Mirror, PushError, SigningKey, Track, Verify, WriteError};

/// Looks at the remote before it gives up on a branch that keeps moving.
pub(super) const ROUNDS: usize = 5;

const NO_KEY: &str = "name a key that `[source.verify]` trusts as `[source] signing_key` (a person: `--signing-key FILE`, \
                      or `git revert -S`)";
const UNTRUSTED_KEY: &str = "list the key of `[source] signing_key` among the allowed signers, or name another one";

/// One request at work: what it writes with, and where to.
pub(super) struct Desk<'a> {
    pub(super) mirror: &'a Mirror,
    verifier: &'a dyn Verify,
    pub(super) request: &'a Request,
    now: Timestamp,
    key: Option<SigningKey>,
    pub(super) branch: String,
}

/// A commit that is in the mirror and nowhere else.
pub(super) struct Made {
    pub(super) commit: CommitId,
    pub(super) way: Way,
    pub(super) message: String,
}

/// Makes the commit on the tip of the followed branch and pushes it, without force.
///
/// The commits that changed the agent's release since `back_to` are reverted; if that conflicts, would change another
/// agent, or would not give exactly `back_to`, the agent's own paths are restored; if that would not either, it is pinned.
///
/// # Guarantees
///
/// What `verifier` would not accept is not pushed. Later commits of people are kept. A branch that moves meanwhile is
/// looked at again, at most five times, and may need nothing any more. What was written before and whose answer was lost
/// is known again: there is never a second commit for one try of a release. Without a person who asks, a commit that was
/// written here is not taken back.
///
/// # Errors
///
/// When the remote refuses or cannot be reached, or none of the ways gives exactly the release.
pub fn write(mirror: &Mirror, verifier: &dyn Verify, request: &Request, now: Timestamp) -> Result<Written, CannotTell> {
    write_with(mirror, verifier, request, now, &mut Cache::default())
}

/// The same, with what was read before.
pub(super) fn write_with(
    mirror: &Mirror,
    verifier: &dyn Verify,
    request: &Request,
    now: Timestamp,
    cache: &mut Cache,
) -> Result<Written, CannotTell> {
    let desk = Desk::new(mirror, verifier, request, now)?;
    let mut view = desk.view(cache);
    let mut sent: Option<(Made, PushError)> = None;
    for _ in 0..ROUNDS {
        let tip = match desk.look(&Followed::default()) {
            Ok(tip) => tip,
            Err(error) => return Err(sent.map_or(error, |(_, error)| error.into())),
        };
        if let Some((made, error)) = sent.take() {
            let arrived = mirror.store().is_ancestor(&made.commit, &tip.commit)?;
            return if arrived { Ok(Written::Commit(made.commit, made.way)) } else { Err(error.into()) };
        }
        if let Some(done) = desk.already(&mut view, &tip)? {
            return Ok(done);
        }
        let made = desk.make(&mut view, &tip)?;
        match mirror.push(&made.commit, &desk.branch, Some(&tip.commit)) {
            Ok(()) => return Ok(Written::Commit(made.commit, made.way)),
            Err(PushError::Moved { .. }) => {}
            // It may have arrived, and only its answer not.
            Err(error @ PushError::Source(_)) => sent = Some((made, error)),
            Err(error @ PushError::Refused { .. }) => return Err(error.into()),
        }
    }
    Err(sent.map_or_else(|| CannotTell::Restless(desk.branch.clone()), |(_, error)| error.into()))
}

// === impl Desk ===

impl<'a> Desk<'a> {
    pub(super) fn new(
        mirror: &'a Mirror,
        verifier: &'a dyn Verify,
        request: &'a Request,
        now: Timestamp,
    ) -> Result<Self, CannotTell> {
        let key = request.signing_key.as_deref().map(SigningKey::read).transpose().map_err(WriteError::from)?;
        let desk = Self { mirror, verifier, request, now, key, branch: mirror.config().branch.clone() };
        if desk.key.is_none() && verifier.is_strict() {
            let why = "commits must be signed, and there is no key to sign with".to_owned();
            return Err(desk.not_accepted(why, NO_KEY));
        }
        Ok(desk)
    }

    /// Fetches; gives the tip of the followed branch.
    pub(super) fn look(&self, also: &Followed) -> Result<Revision, CannotTell> {
        let mut followed = also.clone();
        followed.branches.insert(self.branch.clone());
        followed.tags.insert("*".to_owned());
        self.mirror.poll(&followed)?;
        let tip = self.mirror.store().resolve(&Track::Branch(self.branch.clone()))?;
        tip.ok_or_else(|| self.no_way("the branch is not there".to_owned()))
    }

    pub(super) fn view<'v>(&'v self, cache: &'v mut Cache) -> View<'v> {
        View::new(self.mirror.store(), self.request, &self.branch, self.now, cache)
    }

    /// What needs no commit: Git says it, or said it, or asks for something else by now.
    pub(super) fn already(&self, view: &mut View<'_>, tip: &Revision) -> Result<Option<Written>, CannotTell> {
        let asked = view.asks_for(&tip.commit)?;
        let earlier = view.written_before(tip)?;
        if asked == Some(self.request.back_to.release) {
            return Ok(Some(earlier.map_or(Written::Nothing, Written::Known)));
        }
        if asked != Some(self.request.left) && !self.request.even_if_newer {
            return Ok(Some(Written::Newer));
        }
        match earlier.filter(|_| !self.request.even_if_newer) {
            Some(commit) => Err(CannotTell::AskedAgain {
                branch: self.branch.clone(),
                agent: self.request.agent.clone(),
                left: self.request.left,
                commit,
            }),
            None => Ok(None),
        }
    }

    /// Makes the commit, in the mirror only, and asks the verifier about it.
    pub(super) fn make(&self, view: &mut View<'_>, tip: &Revision) -> Result<Made, CannotTell> {
        let request = self.request;
        let (draft, way, changing) = view.draft(tip).map_err(|error| match error {
            DraftError::Source(error) => CannotTell::Source(error),
            DraftError::Write(error) => CannotTell::Write(error),
            DraftError::NoWay(why) => self.no_way(why),
            DraftError::OwnCommit(commit) => CannotTell::OwnCommit { commit },
        })?;
        let (commits, instead_of) = if way == Way::Reverted { (&*changing, &[][..]) } else { (&[][..], &*changing) };
        let message = WriteBackMessage {
            commits,
            instead_of,
            agent: &request.agent,
            environment: &request.environment,
            left: request.left,
            back_to: request.back_to.release,
            word: &request.word,
            reason: &request.reason,
            evidence: &request.evidence,
        };
        let message = message.text();
        let commit = draft.signed_commit(&request.author, &request.committer, self.now, &message, self.key.as_ref())?;
        let revision = Revision { reference: self.branch.clone(), commit: commit.clone() };
        let store = self.mirror.store();
        let made = store.checkout(&revision)?;
        if let Err(error) = self.verifier.verify(store, &made, request.accepted.as_ref()) {
            return Err(if error.commit == commit {
                self.not_accepted(error.why, UNTRUSTED_KEY)
            } else {
                self.not_accepted(error.to_string(), "`backstay status` says how that commit is mended")
            });
        }
        Ok(Made { commit, way, message })
    }

    pub(super) fn no_way(&self, why: String) -> CannotTell {
        CannotTell::NoWay {
            branch: self.branch.clone(),
            agent: self.request.agent.clone(),
            back_to: self.request.back_to.release,
            why,
        }
    }

    fn not_accepted(&self, why: String, hint: &'static str) -> CannotTell {
        CannotTell::NotAccepted { branch: self.branch.clone(), why, hint }
    }
}
