//! One signature of SSH over some bytes: `PROTOCOL.sshsig` of OpenSSH.
//!
//! Formats are read by `ssh-key`; what is computed is computed by aws-lc, as everywhere in this program.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use sha2::{Digest as _, Sha256};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, Mpint, SshSig};

use super::NAMESPACE;
use super::allowed::fingerprint;

/// The most bytes of a signature.
const MAX: usize = 32 * 1024;
/// The flag of a security key that says that somebody touched it.
const TOUCHED: u8 = 1;

/// What kind of signature a commit has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of SSH.
    Ssh,
    /// Of `OpenPGP`.
    OpenPgp,
}

/// The kind of a signature, by its first line.
///
/// # Errors
///
/// For a kind that is not verified here.
pub(super) fn kind(armoured: &[u8]) -> Result<Kind, String> {
    let first = armoured.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match String::from_utf8_lossy(first).trim() {
        "-----BEGIN SSH SIGNATURE-----" => Ok(Kind::Ssh),
        "-----BEGIN PGP SIGNATURE-----" | "-----BEGIN PGP MESSAGE-----" => Ok(Kind::OpenPgp),
        "-----BEGIN SIGNED MESSAGE-----" => Err("its signature is of X.509, which is not verified: sign with an SSH \
                                                 key (`git config gpg.format ssh`)"
            .to_owned()),
        _ => Err("its signature is of no kind that is known here: sign with an SSH key".to_owned()),
    }
}

/// Whether `armoured` is a signature of SSH over `payload`, made for Git; gives the key that made it.
///
/// # Errors
///
/// Why not.
pub(super) fn verify(armoured: &[u8], payload: &[u8]) -> Result<KeyData, String> {
    let text = String::from_utf8_lossy(armoured.get(..MAX.min(armoured.len())).unwrap_or_default());
    if armoured.len() > MAX {
        return Err(format!("its signature has more than {MAX} bytes"));
    }
    let signature = SshSig::from_pem(text.trim_end().as_bytes());
    let signature = signature.map_err(|error| {
        format!("its signature cannot be read ({})", crate::source::error::plain(&error.to_string()))
    })?;
    // Lengths that do not fit are passed over by the reader: what is written back is what must have stood there.
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    if signature.to_pem(LineEnding::LF).map(|written| plain(&written)) != Ok(plain(&text)) {
        return Err("its signature cannot be read (it is not in the form that it should have)".to_owned());
    }
    if signature.version() != SshSig::VERSION {
        return Err(format!("its signature is of version {}, which is not known", signature.version()));
    }
    if signature.namespace() != NAMESPACE {
        let namespace = crate::source::error::plain(signature.namespace());
        return Err(format!("its signature was made for `{namespace}` and not for `{NAMESPACE}`"));
    }
    let signed = SshSig::signed_data(NAMESPACE, signature.hash_alg(), payload).map_err(|error| error.to_string())?;
    let key = signature.public_key();
    if holds(key, &signature, &signed)? {
        Ok(key.clone())
    } else {
        Err(format!("its signature by {} is not of this content", fingerprint(key)))
    }
}

/// Whether the raw signature is the key's over `signed`.
fn holds(key: &KeyData, signature: &SshSig, signed: &[u8]) -> Result<bool, String> {
    let raw = signature.signature_bytes();
    let plain = |kind: &Algorithm| crate::source::error::plain(kind.as_str());
    let other =
        || Err(format!("its signature is of the kind `{}`, which is not the key's", plain(&signature.algorithm())));
    match (key, signature.algorithm()) {
        (KeyData::Ed25519(key), Algorithm::Ed25519) => Ok(check(&ED25519, &key.0, signed, raw)),
        (KeyData::Ecdsa(key), Algorithm::Ecdsa { curve }) if key.curve() == curve => {
            let (method, size): (&dyn VerificationAlgorithm, _) = match curve {
                EcdsaCurve::NistP256 => (&ECDSA_P256_SHA256_FIXED, 32),
                EcdsaCurve::NistP384 => (&ECDSA_P384_SHA384_FIXED, 48),
                EcdsaCurve::NistP521 => (&ECDSA_P521_SHA512_FIXED, 66),
            };
            let fixed = fixed(raw, size).ok_or("its signature cannot be read")?;
            Ok(check(method, key.as_sec1_bytes(), signed, &fixed))
        }
        (KeyData::Rsa(key), Algorithm::Rsa { hash: Some(hash) }) => {
            let (Some(n), Some(e)) = (key.n.as_positive_bytes(), key.e.as_positive_bytes()) else { return Ok(false) };
            let method = match hash {
                HashAlg::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                HashAlg::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                _ => return other(),
            };
            // Zeros at the front may have been left out.
            let mut whole = vec![0; n.len().saturating_sub(raw.len())];
            whole.extend_from_slice(raw);
            Ok(RsaPublicKeyComponents { n, e }.verify(method, signed, &whole).is_ok())
        }
        (KeyData::SkEd25519(key), Algorithm::SkEd25519) => {
            let Some((raw, [flags, counter @ ..])) = raw.split_at_checked(64) else { return Ok(false) };
            if flags & TOUCHED == 0 {
                return Err("its signature was made without a touch of the security key".to_owned());
            }
            let mut message = Sha256::digest(key.application().as_bytes()).to_vec();
            message.push(*flags);
            message.extend_from_slice(counter);
            message.extend_from_slice(&Sha256::digest(signed));
            Ok(check(&ED25519, &key.public_key().0, &message, raw))
        }
        (KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::Rsa(_) | KeyData::SkEd25519(_), _) => other(),
        (_, kind) => {
            Err(format!("it is signed by a key of the kind `{}`, which is not verified by this version", plain(&kind)))
        }
    }
}

fn check(method: &'static dyn VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(method, key).verify(message, signature).is_ok()
}

/// Two numbers of any length as two of `size` bytes each.
fn fixed(raw: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut fixed = vec![];
    let mut rest = raw;
    for _ in 0..2 {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (number, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let number = Mpint::from_bytes(number).ok()?;
        let number = number.as_positive_bytes()?;
        fixed.extend(std::iter::repeat_n(0, size.checked_sub(number.len())?));
        fixed.extend_from_slice(number);
        rest = after;
    }
    rest.is_empty().then_some(fixed)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use ssh_key::Signature;
    use ssh_key::public::{Ed25519PublicKey, SkEd25519};

    use super::*;

    /// What a security key of this kind would make: OpenSSH has no such key without its hardware.
    fn touched(flags: u8) -> (KeyData, String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
        let public = Ed25519PublicKey(pair.public_key().as_ref().try_into().expect("32 bytes"));
        let key = KeyData::SkEd25519(SkEd25519::new(public, "ssh:"));
        let signed = SshSig::signed_data("git", HashAlg::Sha512, b"content").expect("what is signed");
        let tail = [flags, 0, 0, 0, 9];
        let message = [&Sha256::digest(b"ssh:")[..], &tail, &Sha256::digest(&signed)].concat();
        let raw = [pair.sign(&message).as_ref(), &tail].concat();
        let raw = Signature::new(Algorithm::SkEd25519, raw).expect("a signature");
        let signature = SshSig::new(key.clone(), "git", HashAlg::Sha512, raw).expect("a signature");
        (key, signature.to_pem(LineEnding::LF).expect("an armour"))
    }

    #[test]
    fn a_security_key_must_have_been_touched() {
        let (key, armoured) = touched(1);
        assert_eq!(verify(armoured.as_bytes(), b"content"), Ok(key));
        assert!(verify(armoured.as_bytes(), b"another").is_err_and(|why| why.contains("not of this content")));
        let (_, untouched) = touched(0);
        assert!(verify(untouched.as_bytes(), b"content").is_err_and(|why| why.contains("without a touch")));
    }

    #[test]
    fn whatever_stands_there_is_no_panic() {
        let (_, armoured) = touched(1);
        for end in 0..armoured.len() {
            assert!(verify(&armoured.as_bytes()[..end], b"content").is_err() || armoured[end..].trim().is_empty());
            let mut broken = armoured.clone().into_bytes();
            broken[end] ^= 0x11;
            assert!(verify(&broken, b"content").is_err() || armoured[end..].trim().is_empty(), "byte {end}");
        }
        assert!(verify(&vec![b'x'; 1 << 20], b"").is_err() && verify(b"", b"").is_err());
        for raw in
            [&[][..], &[0, 0, 0, 1, 1], &[0, 0, 0, 1, 1, 0xff, 0xff, 0xff, 0xff], &[0, 0, 0, 1, 0x80, 0, 0, 0, 1, 1]]
        {
            assert_eq!(fixed(raw, 32), None, "{raw:?}");
        }
        // Numbers that are shorter, and one with the zero that keeps it positive.
        assert_eq!(fixed(&[0, 0, 0, 1, 7, 0, 0, 0, 3, 0, 0x80, 1], 2), Some(vec![0, 7, 0x80, 1]));
        assert_eq!(fixed(&[0, 0, 0, 1, 7, 0, 0, 0, 3, 1, 0x80, 1], 2), None, "too long");
    }
}
