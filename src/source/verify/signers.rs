//! The verifier that lets through what allowed signers signed.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::allowed::{AllowedSigners, InvalidSigners, fingerprint};
use super::commit::Signed;
use super::openpgp::{InvalidKeyring, Keyring};
use super::signature::Kind;
use super::{SigningKey, signature};
use crate::model::{CommitId, Timestamp};
use crate::source::{Checkout, Clock, SourceError, Store, Unverified, Verify};

/// The most bytes of a file of keys.
const MAX: u64 = 1 << 20;
/// The most commits on the way from the last good one.
const WAY: usize = 10_000;
/// How far a committer's clock may be ahead of ours.
pub(super) const AHEAD: std::time::Duration = std::time::Duration::from_mins(5);

/// The files of keys that may sign; at least one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Keys of SSH, in the format of allowed signers.
    pub ssh: Option<PathBuf>,
    /// Public keys of `OpenPGP`, armoured.
    pub openpgp: Option<PathBuf>,
}

/// Lets through what a trusted key signed: every commit on the first-parent path since the last
/// good one; where nothing was accepted yet, the newest commit alone, which vouches for what is beneath it.
///
/// # Guarantees
///
/// The files are read whenever something is to be verified, so that they can be changed while running. What was accepted
/// stays accepted. A commit on another parent's side needs no signature: the merge vouches for it. The time that a
/// commit gives counts only up to now, and a key that has expired by now signs nothing new.
///
/// # Assumptions
///
/// A signature does not say for which branch or repository it was made. That a reference goes back to an old commit is
/// refused by its movement ([`super::super::Rewind`]), not here.
pub struct Signers {
    trusted: Trusted,
    clock: Arc<dyn Clock>,
}

/// A file of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignersError {
    /// It cannot be read.
    #[error("cannot read the keys that may sign in `{}`: {why}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It has a line that cannot be used.
    #[error("the allowed signers cannot be used: {0}")]
    Invalid(#[from] InvalidSigners),
    /// It has a block that cannot be used.
    #[error("the keys of OpenPGP cannot be used: {0}")]
    Keyring(#[from] InvalidKeyring),
}

/// The keys of all files.
#[derive(Debug, Default)]
struct Keys {
    ssh: Option<AllowedSigners>,
    openpgp: Option<Keyring>,
}

// === impl Signers ===

impl Signers {
    /// A verifier by these files, which must be usable now.
    pub fn open(trusted: Trusted, clock: Arc<dyn Clock>) -> Result<Self, SignersError> {
        let signers = Self { trusted, clock };
        signers.read()?;
        Ok(signers)
    }

    fn read(&self) -> Result<Keys, SignersError> {
        let mut keys = Keys::default();
        if let Some(file) = &self.trusted.ssh {
            keys.ssh = Some(AllowedSigners::parse(&file.display().to_string(), &text(file)?)?);
        }
        if let Some(file) = &self.trusted.openpgp {
            keys.openpgp = Some(Keyring::parse(&file.display().to_string(), &text(file)?)?);
        }
        Ok(keys)
    }
}

fn text(file: &Path) -> Result<String, SignersError> {
    let failed = |error: std::io::Error| SignersError::Read { file: file.to_owned(), why: error.to_string() };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    let read = opened.take(MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > MAX {
        return Err(SignersError::Read { file: file.to_owned(), why: "it is larger than 1 MiB".to_owned() });
    }
    Ok(text)
}

// === impl AllowedSigners ===

impl AllowedSigners {
    /// Who signed a commit that has these bytes and is looked at `now`: the principals of the key, for people to read.
    ///
    /// # Errors
    ///
    /// What it lacks.
    pub fn signer_of(self, commit: &[u8], now: Timestamp) -> Result<String, String> {
        Keys { ssh: Some(self), openpgp: None }.signer_of(commit, now)
    }
}

// === impl Keyring ===

impl Keyring {
    /// Who signed a commit that has these bytes and is looked at `now`: the key and its user, for people to read.
    ///
    /// # Errors
    ///
    /// What it lacks.
    pub fn signer_of(self, commit: &[u8], now: Timestamp) -> Result<String, String> {
        Keys { ssh: None, openpgp: Some(self) }.signer_of(commit, now)
    }
}

// === impl Keys ===

impl Keys {
    fn signer_of(&self, commit: &[u8], now: Timestamp) -> Result<String, String> {
        self.check(commit, now).map_err(|lack| match lack {
            Lack::Signature(why) | Lack::Key(why) => why,
        })
    }

    /// Who signed a commit.
    fn check(&self, commit: &[u8], now: Timestamp) -> Result<String, Lack> {
        let signed = Signed::parse(commit).map_err(Lack::Signature)?;
        let Some(armoured) = &signed.signature else { return Err(Lack::Signature("it has no signature".to_owned())) };
        if signed.made.duration_since(now) > jiff::SignedDuration::try_from(AHEAD).unwrap_or_default() {
            // Without the present time: a text that stays as it is is recorded once.
            let why = format!("it says that it was made at {}, which is not yet: a clock is wrong", signed.made);
            return Err(Lack::Signature(why));
        }
        match (signature::kind(armoured).map_err(Lack::Signature)?, &self.ssh, &self.openpgp) {
            (Kind::Ssh, Some(signers), _) => {
                let key = signature::verify(armoured, &signed.payload).map_err(Lack::Signature)?;
                let who = signers.who(&key, signed.made, now).map(str::to_owned);
                who.map_err(|why| Lack::Key(format!("it is signed by the key {}, which {why}", fingerprint(&key))))
            }
            (Kind::OpenPgp, _, Some(keyring)) => keyring.who(armoured, &signed.payload, now),
            (Kind::Ssh, None, _) => Err(Lack::Signature(
                "its signature is of SSH, and only keys of OpenPGP may sign here (`git config gpg.format openpgp`)"
                    .to_owned(),
            )),
            (Kind::OpenPgp, _, None) => Err(Lack::Signature(
                "its signature is of OpenPGP, and only keys of SSH may sign here (`git config gpg.format ssh`)"
                    .to_owned(),
            )),
        }
    }
}

/// What a commit lacks, by its way out.
#[derive(Debug)]
pub(super) enum Lack {
    /// Another signature.
    Signature(String),
    /// Trust in its key, or another signature.
    Key(String),
}

impl Verify for Signers {
    fn verify(&self, store: &Store, checkout: &Checkout, last_good: Option<&CommitId>) -> Result<(), Unverified> {
        let tip = &checkout.revision.commit;
        if last_good == Some(tip) {
            return Ok(());
        }
        let unverified = |commit: &CommitId, why: String| Unverified { commit: commit.clone(), why };
        let way = match last_good {
            None => vec![tip.clone()],
            Some(last) => way(store, last, tip).map_err(|why| unverified(tip, why))?,
        };
        let keys = self.read().map_err(|error| unverified(tip, error.to_string()))?;
        let now = self.clock.now();
        for commit in &way {
            let raw = store.raw_commit(commit).map_err(|error| unverified(commit, error.to_string()))?;
            match keys.check(&raw, now) {
                Ok(who) => tracing::debug!(%commit, who, "the signature is good"),
                Err(lack) => return Err(unverified(commit, self.told(lack, tip, last_good))),
            }
        }
        Ok(())
    }

    fn trusts(&self, key: &SigningKey) -> Result<(), String> {
        let now = self.clock.now();
        let keys = self.read().map_err(|error| error.to_string())?;
        let (Some(signers), Some(file)) = (&keys.ssh, &self.trusted.ssh) else {
            return Err(format!("the key {} is of SSH, and `ssh_allowed_signers` is not set", key.fingerprint()));
        };
        let who = signers.who(key.public(), now, now).map(drop);
        who.map_err(|why| format!("the key {} {why}, in `{}`", key.fingerprint(), file.display()))
    }

    fn is_strict(&self) -> bool {
        true
    }
}

impl Signers {
    /// What is missing, and the way out of it.
    fn told(&self, lack: Lack, tip: &CommitId, last_good: Option<&CommitId>) -> String {
        let (why, add) = match lack {
            Lack::Signature(why) => (why, String::new()),
            Lack::Key(why) => {
                let files = self.trusted.ssh.iter().chain(&self.trusted.openpgp);
                let files: Vec<_> = files.map(|file| format!("`{}`", file.display())).collect();
                (why, format!("list the key in {}, if it is trusted; or ", files.join(" or ")))
            }
        };
        let sign = match last_good {
            None => "put a signed commit on top (`git commit --allow-empty -S`) and push it".to_owned(),
            Some(last) => format!(
                "sign what follows {last} again (`git rebase --exec 'git commit --amend --no-edit -S' {last}`) and push \
                 it with `--force-with-lease`; or vouch for it by a signed merge (`git switch --detach {last}`, `git \
                 merge --no-ff -S {tip}`, `git push origin HEAD:BRANCH`)",
                last = last.short(),
                tip = tip.short(),
            ),
        };
        format!("{why}; {add}{sign}")
    }
}

/// The first-parent path from what `last` has in its history to `tip`, the oldest first; the tip is always on it.
fn way(store: &Store, last: &CommitId, tip: &CommitId) -> Result<Vec<CommitId>, String> {
    let failed = |error: SourceError| error.to_string();
    let new = store.not_in(last, tip, usize::MAX).map_err(failed)?;
    let mut way = vec![tip.clone()];
    let mut at = store.commit(tip).map_err(failed)?.parents.first().cloned();
    while let Some(id) = at.filter(|id| new.contains(id)) {
        if way.len() >= WAY {
            return Err(format!(
                "there are more than {WAY} commits since {}: take them in by a signed merge",
                last.short()
            ));
        }
        at = store.commit(&id).map_err(failed)?.parents.first().cloned();
        way.push(id);
    }
    way.reverse();
    Ok(way)
}
