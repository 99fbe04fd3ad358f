//! Commits, and references at commits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::shown;

/// A full Git commit id: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

/// The text is no full commit id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a full commit id: 40 lower-case hex digits are expected", shown(.0))]
pub struct InvalidCommitId(String);

/// A branch or tag at a commit, in Flux's notation: `main@sha1:3f9c…`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision {
    /// The branch's or tag's short name; `HEAD` for a commit that was named by its id.
    pub reference: String,
    /// What it points at.
    pub commit: CommitId,
}

/// The text is no revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a revision: `<branch>@sha1:<commit>` is expected", shown(.0))]
pub struct InvalidRevision(String);

// === impl CommitId ===

impl CommitId {
    /// All hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight hex digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }

    /// The id of these bytes, as SHA-1 gives them.
    pub fn of_sha1(bytes: [u8; 20]) -> Self {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
        Self(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect())
    }
}

impl TryFrom<String> for CommitId {
    type Error = InvalidCommitId;

    fn try_from(text: String) -> Result<Self, InvalidCommitId> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if matches!(text.len(), 40 | 64) && text.bytes().all(hex) { Ok(Self(text)) } else { Err(InvalidCommitId(text)) }
    }
}

impl FromStr for CommitId {
    type Err = InvalidCommitId;

    fn from_str(text: &str) -> Result<Self, InvalidCommitId> {
        text.to_owned().try_into()
    }
}

impl From<CommitId> for String {
    fn from(commit: CommitId) -> Self {
        commit.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

// === impl Revision ===

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = if self.commit.0.len() == 64 { "sha256" } else { "sha1" };
        write!(f, "{}@{algorithm}:{}", self.reference, self.commit)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.reference, self.commit.short())
    }
}

impl FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, InvalidRevision> {
        let invalid = || InvalidRevision(text.to_owned());
        let (reference, commit) = text.rsplit_once('@').ok_or_else(invalid)?;
        let commit = commit.strip_prefix("sha1:").or_else(|| commit.strip_prefix("sha256:")).ok_or_else(invalid)?;
        let commit = commit.parse().map_err(|_| invalid())?;
        if reference.is_empty() { Err(invalid()) } else { Ok(Self { reference: reference.to_owned(), commit }) }
    }
}

impl TryFrom<String> for Revision {
    type Error = InvalidRevision;

    fn try_from(text: String) -> Result<Self, InvalidRevision> {
        text.parse()
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> Self {
        revision.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_reads_back() {
        let text = "main@sha1:3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0";
        let revision: Revision = text.parse().expect("a revision");
        assert_eq!(revision.to_string(), text);
        assert_eq!(revision.reference, "main");
        for bad in ["main", "main@sha1:3f9c", "@sha1:3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0", "main@3f9c"] {
            assert!(bad.parse::<Revision>().is_err(), "{bad}");
        }
    }
}
