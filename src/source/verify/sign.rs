//! Commits signed here, so that a verifier lets them through.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use ssh_key::private::KeypairData;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, Signature, SshSig};

use super::NAMESPACE;
use super::allowed::fingerprint;

/// The most bytes of a file with a key.
const MAX: u64 = 64 * 1024;

/// A private key of SSH that signs commits.
#[derive(Debug)]
pub struct SigningKey {
    path: PathBuf,
    key: PrivateKey,
}

/// A commit cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot sign with the key in `{}`: {why}", path.display())]
pub struct SignError {
    /// The file of the key.
    pub path: PathBuf,
    /// Why not, with the way out.
    pub why: String,
}

// === impl SigningKey ===

impl SigningKey {
    /// Reads a private key in OpenSSH's format: `ssh-ed25519`, without a passphrase.
    pub fn read(path: &Path) -> Result<Self, SignError> {
        let wrong = |why: String| SignError { path: path.to_owned(), why };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        file.take(MAX).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        let key = PrivateKey::from_openssh(text.as_bytes()).map_err(|_| {
            wrong("it is no private key that can be read; `ssh-keygen -t ed25519` makes one".to_owned())
        })?;
        if key.is_encrypted() {
            return Err(wrong(
                "it has a passphrase, which nobody could enter; give a key of its own without".to_owned(),
            ));
        }
        if let KeypairData::Ed25519(_) = key.key_data() {
            return Ok(Self { path: path.to_owned(), key });
        }
        let kind = key.algorithm();
        Err(wrong(format!("a key of the kind `{kind}` does not sign here; `ssh-keygen -t ed25519` makes one")))
    }

    /// The key's name, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.key.public_key().key_data())
    }

    /// The public half.
    pub(super) fn public(&self) -> &ssh_key::public::KeyData {
        self.key.public_key().key_data()
    }

    /// The armoured signature over a commit's bytes.
    pub(in crate::source) fn sign(&self, payload: &[u8]) -> Result<String, SignError> {
        let wrong = |why: String| SignError { path: self.path.clone(), why };
        let hash = HashAlg::Sha512;
        let made = SshSig::signed_data(NAMESPACE, hash, payload)
            .map_err(|error| error.to_string())
            .and_then(|signed| self.raw(&signed))
            .and_then(|raw| {
                let signature = SshSig::new(self.public().clone(), NAMESPACE, hash, raw);
                signature.and_then(|signature| signature.to_pem(LineEnding::LF)).map_err(|error| error.to_string())
            });
        made.map_err(wrong)
    }

    fn raw(&self, signed: &[u8]) -> Result<Signature, String> {
        let KeypairData::Ed25519(pair) = self.key.key_data() else {
            return Err("it is of a kind that does not sign here".to_owned());
        };
        let made = Ed25519KeyPair::from_seed_and_public_key(&pair.private.to_bytes(), &pair.public.0);
        let made = made.map_err(|error| format!("the key is refused: {error}"))?.sign(signed);
        Signature::new(Algorithm::Ed25519, made.as_ref()).map_err(|error| error.to_string())
    }
}
