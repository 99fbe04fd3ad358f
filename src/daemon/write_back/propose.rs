//! The same commit on a branch of its own, and the pull request that asks for it.

use super::forge::{Forge, ForgeError, Opened, Proposal, State};
use super::write::{Desk, ROUNDS};
use super::{CannotTell, Request, Written};
use crate::desired::Cache;
use crate::model::{CommitId, Digest, Timestamp};
use crate::revert::trailers;
use crate::source::{Followed, Mirror, PushError, Track, Verify};

/// Commits of the branch that our own is looked for among.
const OWN: usize = 50;

/// Makes the commit of [`write`](super::write()) on the branch `backstay/revert-<agent>-<id>`, and opens a pull request.
///
/// # Guarantees
///
/// Those of [`write`](super::write()). The branch is named after the try of the release, so that branch and pull request
/// are found again, and never made twice. A pull request that a person closed is not opened again.
///
/// # Errors
///
/// Those of [`write`](super::write()); when the Git host does not open it.
pub fn propose(
    mirror: &Mirror,
    verifier: &dyn Verify,
    request: &Request,
    forge: &Forge,
    now: Timestamp,
) -> Result<Written, CannotTell> {
    propose_with(mirror, verifier, request, forge, now, &mut Cache::default())
}

/// The same, with what was read before.
pub(super) fn propose_with(
    mirror: &Mirror,
    verifier: &dyn Verify,
    request: &Request,
    forge: &Forge,
    now: Timestamp,
    cache: &mut Cache,
) -> Result<Written, CannotTell> {
    let desk = Desk::new(mirror, verifier, request, now)?;
    let mut view = desk.view(cache);
    let branch = branch_of(request);
    let mut lost: Option<PushError> = None;
    for _ in 0..ROUNDS {
        let tip = desk.look(&Followed::branch(&branch))?;
        if let Some(done) = desk.already(&mut view, &tip)? {
            return Ok(done);
        }
        let opened = forge.find(&branch, &desk.branch)?;
        match &opened {
            Some(Opened { state: State::Closed, address }) => {
                return Err(ForgeError::Closed { address: address.clone() }.into());
            }
            Some(Opened { state: State::Merged, address }) => {
                return Err(ForgeError::Merged { address: address.clone() }.into());
            }
            Some(Opened { state: State::Open, .. }) | None => {}
        }
        let there = mirror.store().resolve(&Track::Branch(branch.clone()))?;
        let (commit, message) = match there {
            Some(there) => own(&desk, &there.commit, &branch)?,
            None => {
                if let Some(error) = lost.take() {
                    return Err(error.into());
                }
                let made = desk.make(&mut view, &tip)?;
                match mirror.push(&made.commit, &branch, None) {
                    Ok(()) => (made.commit, made.message),
                    Err(PushError::Moved { .. }) => continue,
                    Err(error @ PushError::Source(_)) => {
                        lost = Some(error);
                        continue;
                    }
                    Err(error @ PushError::Refused { .. }) => return Err(error.into()),
                }
            }
        };
        if let Some(Opened { address, .. }) = opened {
            return Ok(Written::Proposed { commit, address });
        }
        let (title, body) = message.split_once('\n').unwrap_or((&message, ""));
        let body = fenced(body.trim());
        let proposal = Proposal { title, body: &body, head: &branch, base: &desk.branch };
        let Opened { address, .. } = forge.open(&proposal)?;
        return Ok(Written::Proposed { commit, address });
    }
    Err(lost.map_or(CannotTell::Restless(branch), Into::into))
}

/// The name of the branch: the same for one try of a release in one environment, another for the next.
fn branch_of(request: &Request) -> String {
    let at = request.left_at.as_ref().map_or("", CommitId::as_str);
    let what = format!("{}\n{}\n{at}\n", request.environment, request.left.digest());
    let id = Digest::of(what.as_bytes()).to_string();
    format!("backstay/revert-{}-{}", request.agent, &id[..12])
}

/// Our commit on the branch, which people may have gone on with.
fn own(desk: &Desk<'_>, tip: &CommitId, branch: &str) -> Result<(CommitId, String), CannotTell> {
    let store = desk.mirror.store();
    let mut at = Some(tip.clone());
    for _ in 0..OWN {
        let Some(id) = at else { break };
        let commit = store.commit(&id)?;
        let ours = trailers(&commit.message).is_some_and(|said| {
            said.agent == desk.request.agent
                && said.environment == desk.request.environment
                && said.release == desk.request.left.digest()
        });
        if ours {
            return Ok((id, commit.message));
        }
        at = commit.parents.first().cloned();
    }
    Err(desk.no_way(format!("the branch `{branch}` is there, and holds something else")))
}

/// The text as it is, whatever a host makes of names, numbers and marks in it.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}text\n{text}\n{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::fenced;

    #[test]
    fn no_text_ends_its_own_fence() {
        assert_eq!(fenced("a\n````\nb"), "`````text\na\n````\nb\n`````\n");
        assert!(fenced("plain").starts_with("```text\n"));
    }
}
