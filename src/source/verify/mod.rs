//! Signatures of commits: who may sign, whether a commit is signed by one of them, and commits signed here.
//!
//! The policy is on keys, not on the names of authors or committers, which anybody can write. Nothing outside is run:
//! no `git`, no `gpg.program`, no `ssh-keygen`, and no configuration but the daemon's own is read.

mod allowed;
mod commit;
mod openpgp;
mod sign;
mod signature;
mod signers;

pub use allowed::{AllowedSigners, InvalidSigners};
pub use openpgp::{InvalidKeyring, Keyring};
pub use sign::{SignError, SigningKey};
pub use signers::{Signers, SignersError, Trusted};

/// What signatures of Git are made for.
const NAMESPACE: &str = "git";
