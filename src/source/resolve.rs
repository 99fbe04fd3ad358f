//! What a name points at: branches, tags, the highest version, and what a person types.

use std::collections::BTreeSet;

use git2::{BranchType, ErrorCode, Repository};
use semver::Version;
use serde::{Deserialize, Serialize};

use super::error::plain;
use super::store::commit_id;
use super::{SourceError, Store};
use crate::model::{CommitId, Revision};

/// What an environment follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    /// The tip of a branch.
    Branch(String),
    /// One tag.
    Tag(String),
    /// The tag of the highest semantic version among those that match.
    ///
    /// The version is what follows the name's last part that is no version: `v1.2.3`, `support-v1.2.3`,
    /// `release/1.2.3`. Pre-releases count only when the pattern has a `-` after its first `*`.
    Tags {
        /// Glob with `*`.
        pattern: String,
        /// Tags that are passed over.
        exclude: BTreeSet<String>,
    },
}

// === impl Track ===

impl Track {
    /// Names it in the ledger and in the mirror: `heads/main`, `tags/v1.4.2`, `tags/v*`.
    pub fn key(&self) -> String {
        match self {
            Self::Branch(name) => format!("heads/{name}"),
            Self::Tag(name) => format!("tags/{name}"),
            Self::Tags { pattern, .. } => format!("tags/{pattern}"),
        }
    }
}

// === impl Store ===

impl Store {
    /// What `track` comes to now; nothing when it points nowhere.
    ///
    /// # Errors
    ///
    /// It points at something that is no commit, or the store cannot be read.
    pub fn resolve(&self, track: &Track) -> Result<Option<Revision>, SourceError> {
        match track {
            Track::Branch(name) => self.named(&format!("refs/heads/{name}"), name),
            Track::Tag(name) => self.named(&format!("refs/tags/{name}"), name),
            Track::Tags { pattern, exclude } => {
                let highest = self
                    .tags()?
                    .into_iter()
                    .filter(|tag| !exclude.contains(tag))
                    .filter_map(|tag| Some((version(pattern, &tag)?, tag)))
                    .max();
                highest.map_or(Ok(None), |(_, tag)| self.named(&format!("refs/tags/{tag}"), &tag))
            }
        }
    }

    /// What a person means: a branch, a tag, a full or short id, `HEAD`, `main~1`.
    ///
    /// The reference of the answer is the branch or tag that was named, `HEAD` for everything else.
    pub fn revision(&self, text: &str) -> Result<Revision, SourceError> {
        for track in [Track::Branch(text.to_owned()), Track::Tag(text.to_owned())] {
            let named = if git2::Reference::is_valid_name(&format!("refs/{}", track.key())) {
                self.resolve(&track)?
            } else {
                None
            };
            if let Some(revision) = named {
                return Ok(revision);
            }
        }
        self.with(|repository| {
            let none = |why: String| SourceError::NoCommit { name: plain(text), why };
            let known = [
                (ErrorCode::NotFound, "there is no such branch, tag or commit"),
                (ErrorCode::Ambiguous, "the short id stands for several commits"),
                (ErrorCode::InvalidSpec, "it cannot be the name of a commit"),
            ];
            let object = repository.revparse_single(text).map_err(|error| {
                let known = known.iter().find(|(code, _)| *code == error.code());
                none(known.map_or_else(|| plain(error.message()), |(_, why)| (*why).to_owned()))
            })?;
            let commit = object.peel_to_commit().map_err(|_| none("it is another kind of object".to_owned()))?;
            let head = (text == "HEAD").then(|| current(repository)).flatten();
            let reference = head.unwrap_or_else(|| "HEAD".to_owned());
            Ok(Revision { reference, commit: commit_id(commit.id()) })
        })
    }

    /// A pinned commit, which must be there.
    pub fn pinned(&self, commit: &CommitId) -> Result<Revision, SourceError> {
        self.commit(commit)?;
        Ok(Revision { reference: "HEAD".to_owned(), commit: commit.clone() })
    }

    /// Short names of all branches.
    pub fn branches(&self) -> Result<Vec<String>, SourceError> {
        self.with(|repository| {
            let failed = |error: git2::Error| self.failed("list branches", &error);
            let branches = repository.branches(Some(BranchType::Local)).map_err(failed)?;
            let names = branches
                .filter_map(Result::ok)
                .filter_map(|(branch, _)| branch.get().name().ok()?.strip_prefix("refs/heads/").map(str::to_owned));
            Ok(names.collect())
        })
    }

    /// Short names of all tags.
    pub fn tags(&self) -> Result<Vec<String>, SourceError> {
        self.with(|repository| {
            let failed = |error: git2::Error| self.failed("list tags", &error);
            let tags = repository.references_glob("refs/tags/*").map_err(failed)?;
            let names = tags
                .filter_map(Result::ok)
                .filter_map(|tag| tag.name().ok()?.strip_prefix("refs/tags/").map(str::to_owned));
            Ok(names.collect())
        })
    }

    fn named(&self, full: &str, short: &str) -> Result<Option<Revision>, SourceError> {
        self.with(|repository| {
            let reference = match repository.find_reference(full) {
                Ok(reference) => reference,
                Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => return Ok(None),
                Err(error) => return Err(self.failed("read a reference", &error)),
            };
            match reference.peel_to_commit() {
                Ok(commit) => Ok(Some(Revision { reference: short.to_owned(), commit: commit_id(commit.id()) })),
                Err(error) if matches!(error.code(), ErrorCode::Peel | ErrorCode::InvalidSpec) => {
                    let why = "it points at something that is no commit".to_owned();
                    Err(SourceError::NoCommit { name: short.to_owned(), why })
                }
                Err(error) => Err(self.failed("read a reference", &error)),
            }
        })
    }
}

/// The branch that a work tree is on.
fn current(repository: &Repository) -> Option<String> {
    let head = repository.head().ok()?;
    head.name().ok()?.strip_prefix("refs/heads/").map(str::to_owned)
}

/// Whether `name` is of the form that `pattern` gives: `*` stands for any text, everything else for itself.
pub(super) fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The semantic version that a tag stands for, when the tag matches and its version counts.
pub(super) fn version(pattern: &str, tag: &str) -> Option<Version> {
    if !glob(pattern, tag) {
        return None;
    }
    let starts = tag.char_indices().filter(|&(at, c)| {
        let before = tag[..at].chars().next_back();
        c.is_ascii_digit() && !before.is_some_and(|c| c.is_ascii_digit() || c == '.')
    });
    let version = starts.map(|(at, _)| at).find_map(|at| Version::parse(&tag[at..]).ok())?;
    let wants_pre = pattern.split_once('*').is_some_and(|(_, after)| after.contains('-'));
    (version.pre.is_empty() || wants_pre).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name) in
            [("v*", "v1"), ("*", ""), ("a*b*c", "axxbyyc"), ("v1.2", "v1.2"), ("*-rc*", "v1-rc2"), ("a*a", "aa")]
        {
            assert!(glob(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("v*", "w1"), ("v", "v1"), ("a*a", "a"), ("a*b*c", "acb"), ("", "a")] {
            assert!(!glob(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn versions_are_read_from_tags() {
        let read = |pattern: &str, tag: &str| version(pattern, tag).map(|version| version.to_string());
        assert_eq!(read("v*", "v1.10.0").as_deref(), Some("1.10.0"));
        assert_eq!(read("support-2-v*", "support-2-v1.2.3").as_deref(), Some("1.2.3"));
        assert_eq!(read("release/*", "release/1.2.3").as_deref(), Some("1.2.3"));
        assert_eq!(read("v1.*", "v1.4.2").as_deref(), Some("1.4.2"));
        assert_eq!(read("v*", "v2.0.0-rc.1"), None);
        assert_eq!(read("v*-rc*", "v2.0.0-rc.1").as_deref(), Some("2.0.0-rc.1"));
        for tag in ["v1", "v1.2", "v01.2.3", "latest", "w1.2.3"] {
            assert_eq!(read("v*", tag), None, "{tag}");
        }
    }
}
