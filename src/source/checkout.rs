//! One commit of the config repository, and the proof that it was verified.

use std::sync::Arc;

use super::{SigningKey, Store, Tree};
use crate::model::{CommitId, Revision};

/// One commit: who, when, what it says, and a view of its files.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// Reference and commit.
    pub revision: Revision,
    /// First line and body of the message, and who wrote it.
    pub commit: CommitInfo,
    /// Its files.
    pub tree: Arc<dyn Tree>,
}

/// What a commit says of itself. Free text: shown, never decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub id: CommitId,
    /// Its parents, the first-parent first.
    pub parents: Vec<CommitId>,
    /// `Name <address>` of the author.
    pub author: String,
    /// The whole message.
    pub message: String,
}

/// Something that passed the verifier, and nothing else can make one: the only input of `desired`.
#[derive(Debug, Clone)]
pub struct Verified<T>(T);

/// Decides whether a commit may be used.
pub trait Verify: Send + Sync {
    /// Checks `checkout` itself and the way to it since `last_good`, the last verified commit of the reference.
    fn verify(&self, store: &Store, checkout: &Checkout, last_good: Option<&CommitId>) -> Result<(), Unverified>;

    /// Whether what this key signs now would pass.
    ///
    /// # Errors
    ///
    /// Why not, in a sentence.
    fn trusts(&self, _: &SigningKey) -> Result<(), String> {
        Ok(())
    }

    /// Whether a commit needs more than to be served by the remote.
    fn is_strict(&self) -> bool {
        false
    }
}

/// The commit may not be used; the last good one stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("commit {commit} is not verified: {why}")]
pub struct Unverified {
    /// The commit that failed.
    pub commit: CommitId,
    /// What it lacks, with the way out.
    pub why: String,
}

/// Takes every commit that the remote serves: the transport is the only proof.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVerification;

// === impl Verified ===

impl Verified<Checkout> {
    /// Lets `checkout` through when `verifier` does.
    ///
    /// # Errors
    ///
    /// What the verifier found.
    pub fn check(
        store: &Store,
        checkout: Checkout,
        last_good: Option<&CommitId>,
        verifier: &dyn Verify,
    ) -> Result<Self, Unverified> {
        verifier.verify(store, &checkout, last_good)?;
        Ok(Self(checkout))
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

// === impl NoVerification ===

impl Verify for NoVerification {
    fn verify(&self, _: &Store, _: &Checkout, _: Option<&CommitId>) -> Result<(), Unverified> {
        Ok(())
    }
}
