//! Whether a hint is genuine: the signature headers and event names of Git hosts.

use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::daemon::config::Secret;

/// A kind of Git host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    GitHub,
    GitLab,
    Gitea,
    Generic,
}

/// What a hint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Genuine, and something may have been pushed.
    Taken,
    /// Genuine, and about something else.
    Ignored,
    /// Not shown to be genuine.
    Refused,
}

// === impl Door ===

impl Door {
    /// The path that it is knocked at.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::GitHub => "/hooks/github",
            Self::GitLab => "/hooks/gitlab",
            Self::Gitea => "/hooks/gitea",
            Self::Generic => "/hooks/generic",
        }
    }

    /// Its name, as in the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Generic => "generic",
        }
    }

    /// Whether the event may have moved a branch or a tag; a host that names none is believed.
    fn concerns_us(self, headers: &HeaderMap) -> bool {
        let (name, events): (&str, &[&str]) = match self {
            Self::GitHub => ("x-github-event", &["push", "create", "delete"]),
            Self::GitLab => ("x-gitlab-event", &["Push Hook", "Tag Push Hook", "System Hook"]),
            Self::Gitea => ("x-gitea-event", &["push", "create", "delete"]),
            Self::Generic => return true,
        };
        only(headers, name).is_none_or(|event| events.contains(&event))
    }

    /// Whether the body carries the secret's signature, or, for GitLab, the request the secret itself.
    fn is_genuine(self, headers: &HeaderMap, body: &[u8], secret: &Secret) -> bool {
        let prefixed = |name| only(headers, name).and_then(|value| value.strip_prefix("sha256="));
        let signature = match self {
            Self::GitHub => prefixed("x-hub-signature-256"),
            Self::Gitea => only(headers, "x-gitea-signature"),
            Self::Generic => prefixed("x-backstay-signature").or_else(|| prefixed("x-signature-256")),
            Self::GitLab => {
                return only(headers, "x-gitlab-token").is_some_and(|token| same(token, secret.expose()));
            }
        };
        signature.is_some_and(|signature| signed(secret.expose(), body, signature))
    }
}

/// What a hint is: the body is hashed whole, and not read.
pub(super) fn judge(door: Door, headers: &HeaderMap, body: &[u8], secret: &Secret) -> Fate {
    match (door.is_genuine(headers, body, secret), door.concerns_us(headers)) {
        (false, _) => Fate::Refused,
        (true, false) => Fate::Ignored,
        (true, true) => Fate::Taken,
    }
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Whether `signature`, in hex, is the HMAC-SHA-256 of `body`. Takes the same time whatever differs.
fn signed(secret: &str, body: &[u8], signature: &str) -> bool {
    let (Some(tag), Some(mac)) = (unhex(signature), mac(secret)) else { return false };
    mac.chain_update(body).verify_slice(&tag).is_ok()
}

/// Whether two texts are the same. Takes the same time whatever differs.
fn same(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (mac(one), mac(other)) else { return false };
    one.chain_update(b"same").verify_slice(&other.chain_update(b"same").finalize().into_bytes()).is_ok()
}

/// An empty secret signs nothing.
fn mac(secret: &str) -> Option<Hmac<Sha256>> {
    if secret.is_empty() { None } else { Hmac::new_from_slice(secret.as_bytes()).ok() }
}

/// 32 bytes from 64 hex digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digest: crate::model::Digest = text.parse().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digest.to_string().as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GitHub's documentation on validating deliveries.
    const BODY: &[u8] = b"Hello, World!";
    const SECRET: &str = "It's a Secret to Everybody";
    const TAG: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(*name, value.parse().expect("a header"));
        }
        headers
    }

    fn judged(door: Door, of: &[(&'static str, &str)]) -> Fate {
        judge(door, &headers(of), BODY, &Secret::new(SECRET))
    }

    #[test]
    fn a_signed_push_is_taken_and_another_event_ignored() {
        let github = format!("sha256={TAG}");
        let github = github.as_str();
        for (door, signature, value, event, push, other) in [
            (Door::GitHub, "x-hub-signature-256", github, "x-github-event", "push", "ping"),
            (Door::GitLab, "x-gitlab-token", SECRET, "x-gitlab-event", "Push Hook", "Issue Hook"),
            (Door::Gitea, "x-gitea-signature", TAG, "x-gitea-event", "push", "issues"),
        ] {
            assert_eq!(judged(door, &[(signature, value), (event, push)]), Fate::Taken);
            assert_eq!(judged(door, &[(signature, value), (event, other)]), Fate::Ignored);
            assert_eq!(judged(door, &[(signature, value)]), Fate::Taken, "an event without a name is believed");
            assert_eq!(judged(door, &[(event, push)]), Fate::Refused);
            assert_eq!(judged(door, &[(signature, value), (signature, value)]), Fate::Refused, "twice is not once");
        }
        assert_eq!(judged(Door::Generic, &[("x-backstay-signature", github)]), Fate::Taken);
        assert_eq!(judged(Door::Generic, &[("x-signature-256", github)]), Fate::Taken);
    }

    #[test]
    fn a_wrong_signature_is_refused_for_every_byte() {
        for at in 0..TAG.len() {
            let mut tag = TAG.as_bytes().to_vec();
            tag[at] = if tag[at] == b'0' { b'1' } else { b'0' };
            let tag = String::from_utf8(tag).expect("text");
            assert_eq!(judged(Door::Gitea, &[("x-gitea-signature", &tag)]), Fate::Refused);
        }
        for tag in ["", "sha256=", TAG, "sha1=757107ea", &format!("sha256={TAG}00"), &format!("sha256={}", &TAG[1..])] {
            assert_eq!(judged(Door::GitHub, &[("x-hub-signature-256", tag)]), Fate::Refused, "{tag}");
        }
        assert_eq!(judged(Door::GitLab, &[("x-gitlab-token", "It's a Secret to Everyone")]), Fate::Refused);
    }

    #[test]
    fn an_empty_secret_signs_nothing() {
        let empty = Secret::new("");
        assert_eq!(judge(Door::GitLab, &headers(&[("x-gitlab-token", "")]), BODY, &empty), Fate::Refused);
        assert_eq!(judge(Door::Gitea, &headers(&[("x-gitea-signature", TAG)]), BODY, &empty), Fate::Refused);
    }
}
