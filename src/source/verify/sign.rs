//! Commits signed here, so that a verifier lets them through.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair,
};
use ssh_key::private::KeypairData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, Mpint, PrivateKey, Signature, SshSig};

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
    /// Reads a private key in OpenSSH's format: `ssh-ed25519` or `ecdsa-sha2-nistp…`, without a passphrase.
    pub fn read(path: &Path) -> Result<Self, SignError> {
        let wrong = |why: String| SignError { path: path.to_owned(), why };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        file.take(MAX).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
        let key = PrivateKey::from_openssh(text.as_bytes())
            .map_err(|_| wrong("it is no private key in OpenSSH's format; `ssh-keygen -t ed25519` makes one".to_owned()))?;
        if key.is_encrypted() {
            return Err(wrong("it has a passphrase, which nobody could enter; give a key of its own without".to_owned()));
        }
        match key.key_data() {
            KeypairData::Ed25519(_) | KeypairData::Ecdsa(_) => Ok(Self { path: path.to_owned(), key }),
            _ => {
                let kind = key.algorithm();
                Err(wrong(format!("a key of the kind `{kind}` does not sign here; `ssh-keygen -t ed25519` makes one")))
            }
        }
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
        let refused = |error: &dyn std::fmt::Display| format!("the key is refused: {error}");
        let (kind, bytes) = match self.key.key_data() {
            KeypairData::Ed25519(pair) => {
                let (seed, public) = (pair.private.to_bytes(), pair.public.0);
                let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &public).map_err(|error| refused(&error))?;
                (Algorithm::Ed25519, pair.sign(signed).as_ref().to_vec())
            }
            KeypairData::Ecdsa(pair) => {
                let (method, curve) = match pair.curve() {
                    EcdsaCurve::NistP256 => (&ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaCurve::NistP256),
                    EcdsaCurve::NistP384 => (&ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaCurve::NistP384),
                    EcdsaCurve::NistP521 => (&ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaCurve::NistP521),
                };
                let (private, public) = (pair.private_key_bytes(), pair.public_key_bytes());
                let pair = EcdsaKeyPair::from_private_key_and_public_key(method, private, public)
                    .map_err(|error| refused(&error))?;
                let made = pair.sign(&SystemRandom::new(), signed).map_err(|error| refused(&error))?;
                let made = made.as_ref();
                let (r, s) = made.split_at(made.len() / 2);
                let mut bytes = vec![];
                for number in [r, s] {
                    let number = Mpint::from_positive_bytes(number).map_err(|error| refused(&error))?;
                    let number = number.as_bytes();
                    let length = u32::try_from(number.len()).map_err(|error| refused(&error))?;
                    bytes.extend_from_slice(&length.to_be_bytes());
                    bytes.extend_from_slice(number);
                }
                (Algorithm::Ecdsa { curve }, bytes)
            }
            _ => return Err("it is of a kind that does not sign here".to_owned()),
        };
        Signature::new(kind, bytes).map_err(|error| error.to_string())
    }
}
