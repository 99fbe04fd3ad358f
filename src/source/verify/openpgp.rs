//! One signature of `OpenPGP` over some bytes, and the keys that may make it: RFC 9580.
//!
//! Which keys are trusted is the file's alone: user ids, certifications by others and servers of keys decide nothing.

use jiff::SignedDuration;
use pgp::armor::BlockType;
use pgp::composed::{Deserializable as _, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

use super::signers::{AHEAD, Lack};
use crate::model::Timestamp;
use crate::source::error::plain;

/// The most bytes of a signature.
const MAX: usize = 32 * 1024;
/// The most keys in a file.
const KEYS: usize = 1000;
const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// The keys of `OpenPGP` that may sign: exported public keys, armoured, one block after the other.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

/// A file of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {why}")]
pub struct InvalidKeyring {
    /// The file.
    pub file: String,
    /// The line of the block, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// One key that can sign, and whose.
struct Signer<'k, K> {
    key: &'k K,
    /// The newest signature that says what the key may do.
    says: &'k Signature,
    revoked: bool,
    may_sign: bool,
}

// === impl Keyring ===

impl Keyring {
    /// Reads a file of keys.
    ///
    /// # Errors
    ///
    /// A block that is no public key, one that its own key does not vouch for, or no block at all.
    pub fn parse(file: &str, text: &str) -> Result<Self, InvalidKeyring> {
        let wrong =
            |line: usize, why: &str| InvalidKeyring { file: file.to_owned(), line: line + 1, why: why.to_owned() };
        let (mut keys, mut block) = (vec![], None::<(usize, String)>);
        for (number, line) in text.lines().enumerate() {
            let trimmed = line.trim_end();
            match &mut block {
                None if trimmed == BEGIN => block = Some((number, format!("{BEGIN}\n"))),
                None if trimmed.starts_with("-----BEGIN") => {
                    return Err(wrong(number, "this is no block of public keys"));
                }
                // Between blocks people write whose they are.
                None => {}
                Some((begun, inner)) => {
                    inner.push_str(trimmed);
                    inner.push('\n');
                    if trimmed == END {
                        let begun = *begun;
                        let found = SignedPublicKey::from_armor_many(inner.as_bytes());
                        let found = found.and_then(|(found, _)| found.collect::<Result<Vec<_>, _>>());
                        let found = found.map_err(|_| wrong(begun, "this block cannot be read as public keys"))?;
                        if found.is_empty() {
                            return Err(wrong(begun, "this block cannot be read as public keys"));
                        }
                        for key in found {
                            if self_signature(&key).is_none() {
                                let why =
                                    format!("the key {} has no signature of its own that counts", fingerprint(&key));
                                return Err(wrong(begun, &why));
                            }
                            keys.push(key);
                        }
                        block = None;
                    }
                }
            }
            if keys.len() > KEYS {
                return Err(wrong(number, "there are more than 1000 keys"));
            }
        }
        if let Some((begun, _)) = block {
            return Err(wrong(begun, "this block has no end"));
        }
        if keys.is_empty() {
            return Err(wrong(0, "there is no key (`gpg --armor --export KEY` prints one)"));
        }
        Ok(Self { keys })
    }

    /// Who signed `payload`: the fingerprint of the key that the file has, and its first user id, for people to read.
    ///
    /// # Errors
    ///
    /// What is wrong, and whether with the signature or with its key.
    pub(super) fn who(&self, armoured: &[u8], payload: &[u8], now: Timestamp) -> Result<String, Lack> {
        let signature = one(armoured).map_err(Lack::Signature)?;
        let made = made(&signature)
            .ok_or_else(|| Lack::Signature("its signature does not say when it was made".to_owned()))?;
        if made.duration_since(now) > SignedDuration::try_from(AHEAD).unwrap_or_default() {
            return Err(Lack::Signature(format!(
                "its signature was made at {made}, which is not yet: a clock is wrong"
            )));
        }
        for key in &self.keys {
            if let Some(verdict) = signed_by(key, &signature, payload, made, now) {
                let named = || named(key);
                return verdict.map(|()| named()).map_err(|lack| match lack {
                    Lack::Key(why) => Lack::Key(format!("it is signed by the OpenPGP key {}, which {why}", named())),
                    Lack::Signature(why) => {
                        Lack::Signature(format!("its signature by the OpenPGP key {} {why}", named()))
                    }
                });
            }
        }
        let issuer = signature.issuer_fingerprint().first().map(|issuer| format!("{issuer:X}"));
        let issuer = issuer.or_else(|| signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase()));
        let issuer = issuer.map_or_else(|| "that is not named".to_owned(), |issuer| plain(&issuer));
        Err(Lack::Key(format!("it is signed by the OpenPGP key {issuer}, which is not among the allowed ones")))
    }
}

/// The signature, if it is one alone, over bytes, and by a hash that can be trusted.
fn one(armoured: &[u8]) -> Result<Signature, String> {
    if armoured.len() > MAX {
        return Err(format!("its signature has more than {MAX} bytes"));
    }
    let unreadable = || "its signature cannot be read".to_owned();
    let mut dearmored = pgp::armor::Dearmor::new(armoured);
    dearmored.read_header().map_err(|_| unreadable())?;
    if dearmored.typ != Some(BlockType::Signature) {
        return Err(unreadable());
    }
    let (all, _) = DetachedSignature::from_armor_many(armoured).map_err(|_| unreadable())?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|_| unreadable())?;
    let [DetachedSignature { signature }] = all.as_slice() else {
        return Err(format!("it has {} signatures of OpenPGP, where one is read", all.len()));
    };
    if signature.typ() != Some(SignatureType::Binary) {
        return Err("its signature is of another kind than one over bytes".to_owned());
    }
    if !is_strong(signature) {
        return Err("its signature uses a hash that is not trusted any more: sign with SHA-256 or better".to_owned());
    }
    Ok(signature.clone())
}

fn is_strong(signature: &Signature) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
    matches!(signature.hash_alg(), Some(Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512))
}

fn made(signature: &Signature) -> Option<Timestamp> {
    signature.created().and_then(at)
}

/// `OpenPGP` counts seconds since 1970 in 32 bits.
fn at(time: pgp::types::Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(i64::from(time.as_secs())).ok()
}

/// Whether this key, or one beneath it, made the signature, and may have; nothing where it did not.
fn signed_by(
    key: &SignedPublicKey,
    signature: &Signature,
    payload: &[u8],
    made: Timestamp,
    now: Timestamp,
) -> Option<Result<(), Lack>> {
    let primary = primary(key)?;
    let by_primary = signature.verify(primary.key, payload).is_ok();
    if by_primary {
        return Some(primary.may(signature, made, now));
    }
    let mut named_here = is_issuer(&key.primary_key, signature);
    for sub in &key.public_subkeys {
        named_here |= is_issuer(&sub.key, signature);
        if signature.verify(&sub.key, payload).is_err() {
            continue;
        }
        let revoked = sub.signatures.iter().any(|one| {
            one.typ() == Some(SignatureType::SubkeyRevocation)
                && one.verify_subkey_binding(&key.primary_key, &sub.key).is_ok()
        });
        let bindings = sub.signatures.iter().filter(|one| {
            one.typ() == Some(SignatureType::SubkeyBinding)
                && is_strong(one)
                && one.verify_subkey_binding(&key.primary_key, &sub.key).is_ok()
        });
        let Some(says) = bindings.max_by_key(|one| one.created().map(pgp::types::Timestamp::as_secs)) else {
            return Some(Err(Lack::Key("is not bound to its primary key".to_owned())));
        };
        // A subkey that signs must say itself that it belongs to the primary key, or anybody could claim it.
        let back = says
            .embedded_signature()
            .is_some_and(|back| back.verify_primary_key_binding(&sub.key, &key.primary_key).is_ok());
        let signer = Signer { key: &sub.key, says, revoked, may_sign: says.key_flags().sign() && back };
        return Some(primary.is_valid(made, now).and_then(|()| signer.may(signature, made, now)));
    }
    named_here.then(|| Err(Lack::Signature("is not of this content".to_owned())))
}

fn is_issuer(key: &impl KeyDetails, signature: &Signature) -> bool {
    let (fingerprint, id) = (key.fingerprint(), key.legacy_key_id());
    signature.issuer_fingerprint().contains(&&fingerprint) || signature.issuer_key_id().contains(&&id)
}

/// The newest signature by which the primary key says what it is.
fn self_signature(key: &SignedPublicKey) -> Option<&Signature> {
    let primary = &key.primary_key;
    let direct = key.details.direct_signatures.iter().filter(|one| one.verify_key(primary).is_ok());
    let of_users = key.details.users.iter().flat_map(|user| {
        let own = |one: &&Signature| one.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        // A user id that was taken back says nothing any more.
        let revoked = user.signatures.iter().filter(own).any(|one| one.typ() == Some(SignatureType::CertRevocation));
        user.signatures.iter().filter(own).filter(move |_| !revoked)
    });
    direct
        .chain(of_users)
        .filter(|one| is_strong(one))
        .max_by_key(|one| one.created().map(pgp::types::Timestamp::as_secs))
}

fn primary(key: &SignedPublicKey) -> Option<Signer<'_, pgp::packet::PublicKey>> {
    let says = self_signature(key)?;
    let revoked = key.details.revocation_signatures.iter().any(|one| one.verify_key(&key.primary_key).is_ok());
    Some(Signer { key: &key.primary_key, says, revoked, may_sign: says.key_flags().sign() })
}

fn fingerprint(key: &SignedPublicKey) -> String {
    format!("{:X}", key.primary_key.fingerprint())
}

/// The key for people: its fingerprint, and its first user id.
fn named(key: &SignedPublicKey) -> String {
    let user = key.details.users.first().map(|user| plain(&String::from_utf8_lossy(user.id.id())));
    user.map_or_else(|| fingerprint(key), |user| format!("{} ({user})", fingerprint(key)))
}

// === impl Signer ===

impl<K: VerifyingKey + KeyDetails> Signer<'_, K> {
    /// Whether the key was good when the signature was made, and still is.
    fn is_valid(&self, made: Timestamp, now: Timestamp) -> Result<(), Lack> {
        let no = |why: String| Err(Lack::Key(why));
        if self.revoked {
            return no("is revoked".to_owned());
        }
        let created = at(self.key.created_at()).unwrap_or(Timestamp::MAX);
        if made < created {
            return no(format!("was made at {created}, after its signature"));
        }
        let seconds = self.says.key_expiration_time().map_or(0, |lasts| i64::from(lasts.as_secs()));
        if seconds > 0 {
            let ends = created.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
            if made >= ends || now >= ends {
                return no(format!("expired at {ends}"));
            }
        }
        Ok(())
    }

    fn may(&self, signature: &Signature, made: Timestamp, now: Timestamp) -> Result<(), Lack> {
        self.is_valid(made, now)?;
        if !self.may_sign {
            return Err(Lack::Key("may not sign by its own flags".to_owned()));
        }
        let seconds = signature.signature_expiration_time().map_or(0, |lasts| i64::from(lasts.as_secs()));
        let ends = made.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        if seconds > 0 && now >= ends {
            return Err(Lack::Signature(format!("expired at {ends}")));
        }
        Ok(())
    }
}
