//! Is a commit a revert, and how sure is that.

use std::collections::BTreeMap;

use super::named;
use crate::model::{AgentName, CommitId, EnvironmentName};
use crate::record::Evidence;
use crate::source::{Changed, CommitInfo, PathChange};

/// One commit on the way from what stood to what Git asks for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Who, when, what it says.
    pub info: CommitInfo,
    /// What it changed against its first parent.
    pub changed: Changed,
}

/// The way from what stood to what Git asks for now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The newest first; empty where the new commit does not descend from the old one.
    pub steps: Vec<Step>,
    /// Commits before or among them that messages may name, the newest first.
    pub earlier: Vec<CommitInfo>,
    /// What the named ones changed.
    pub changed: BTreeMap<CommitId, Changed>,
}

/// The files that make an agent's release in an environment: these paths, and everything beneath those that end in `/`.
pub fn paths_of(agent: &AgentName, environment: &EnvironmentName) -> Vec<String> {
    vec![
        format!("agents/{agent}/"),
        format!("environments/{environment}/"),
        format!("environments/{environment}.yaml"),
        "shared/".to_owned(),
        "backstay.yaml".to_owned(),
    ]
}

/// How sure it is that the way takes commits back, and which: for an agent whose release stood here before.
///
/// Content came first: the release is one that was stable here. The message says why, and the diff is checked against
/// it: verified means that every commit on the way that touches `paths` names others and changes `paths` in exactly the
/// inverse way.
pub fn evidence(history: &History, paths: &[String]) -> (Evidence, Vec<CommitId>) {
    let touching: Vec<_> = history.steps.iter().filter(|step| touches(&step.changed, paths)).collect();
    let mut all = vec![];
    let mut verified = !touching.is_empty();
    for step in touching {
        let claims = named(&step.info.message).among(&history.earlier);
        let undone = composed(claims.iter().rev().filter_map(|id| history.changed.get(id)), paths);
        let known = claims.iter().all(|id| history.changed.get(id).is_some_and(|changed| changed.complete));
        let inverse: BTreeMap<_, _> = undone.into_iter().map(|(path, (old, new))| (path, (new, old))).collect();
        let did = composed([&step.changed], paths);
        verified &= !claims.is_empty() && known && step.changed.complete && did == inverse;
        all.extend(claims);
    }
    match (all.is_empty(), verified) {
        (true, _) => (Evidence::KnownRelease, all),
        (false, true) => (Evidence::Verified, all),
        (false, false) => (Evidence::Claimed, all),
    }
}

/// Whether any of `paths`, as [`paths_of`] gives them, was changed.
pub fn touches(changed: &Changed, paths: &[String]) -> bool {
    changed.paths.iter().any(|change| is_among(change, paths))
}

fn is_among(change: &PathChange, paths: &[String]) -> bool {
    paths.iter().any(|path| change.path == *path || path.ends_with('/') && change.path.starts_with(path))
}

type Content = Option<crate::source::ContentId>;

/// What several commits did to `paths` together, the oldest first: content before and after, where they differ.
fn composed<'a>(
    changes: impl IntoIterator<Item = &'a Changed>,
    paths: &[String],
) -> BTreeMap<String, (Content, Content)> {
    let mut all: BTreeMap<String, (Content, Content)> = BTreeMap::new();
    for change in changes.into_iter().flat_map(|changed| &changed.paths).filter(|change| is_among(change, paths)) {
        let entry = all.entry(change.path.clone()).or_insert_with(|| (change.old.clone(), None));
        entry.1.clone_from(&change.new);
    }
    all.retain(|_, (old, new)| old != new);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ContentId;

    fn id(n: u8) -> CommitId {
        format!("{n:040x}").parse().expect("a commit id")
    }

    fn step(n: u8, message: &str, changes: &[(&str, &str, &str)]) -> Step {
        let content = |text: &str| (!text.is_empty()).then(|| ContentId(text.into()));
        let paths = changes.iter().map(|(path, old, new)| PathChange {
            path: (*path).to_owned(),
            old: content(old),
            new: content(new),
        });
        let author = "Alice <alice@example.com>".to_owned();
        let info = CommitInfo { id: id(n), parents: vec![], author, message: message.to_owned() };
        Step { info, changed: Changed { paths: paths.collect(), complete: true } }
    }

    fn way(bad: &[Step], back: &[Step]) -> (Evidence, Vec<CommitId>) {
        let history = History {
            steps: back.to_vec(),
            earlier: back.iter().chain(bad).map(|step| step.info.clone()).collect(),
            changed: bad.iter().chain(back).map(|step| (step.info.id.clone(), step.changed.clone())).collect(),
        };
        evidence(&history, &["agents/support/".to_owned(), "shared/".to_owned()])
    }

    fn reverts(n: u8) -> String {
        format!("Revert \"x\"\n\nThis reverts commit {}.", id(n))
    }

    #[test]
    fn a_revert_that_does_what_it_says_is_verified() {
        let bad = [step(1, "bad", &[("agents/support/prompts/a.md", "old", "new"), ("docs/x", "a", "b")])];
        let back = [step(2, &reverts(1), &[("agents/support/prompts/a.md", "new", "old")])];
        assert_eq!(way(&bad, &back), (Evidence::Verified, vec![id(1)]), "other people's files do not count");
    }

    #[test]
    fn a_revert_that_does_more_is_claimed() {
        let bad = [step(1, "bad", &[("agents/support/a", "old", "new")])];
        let back = [step(2, &reverts(1), &[("agents/support/a", "new", "old"), ("agents/support/b", "x", "y")])];
        assert_eq!(way(&bad, &back), (Evidence::Claimed, vec![id(1)]));
    }

    #[test]
    fn an_edit_by_hand_returns_to_a_known_release() {
        let bad = [step(1, "bad", &[("agents/support/a", "old", "new")])];
        let back = [step(2, "put it back", &[("agents/support/a", "new", "old")])];
        assert_eq!(way(&bad, &back), (Evidence::KnownRelease, vec![]));
        assert_eq!(way(&bad, &[]), (Evidence::KnownRelease, vec![]), "a reset has no commits on its way");
    }

    #[test]
    fn one_commit_may_take_several_back() {
        let bad = [
            step(2, "worse", &[("agents/support/a", "new", "newer"), ("shared/b", "", "made")]),
            step(1, "bad", &[("agents/support/a", "old", "new")]),
        ];
        let message = format!("Undo\n\nThis reverts commits {} {}.", id(2), id(1));
        let back = [step(3, &message, &[("agents/support/a", "newer", "old"), ("shared/b", "made", "")])];
        assert_eq!(way(&bad, &back), (Evidence::Verified, vec![id(2), id(1)]));
    }

    #[test]
    fn every_commit_on_the_way_counts() {
        let bad = [step(1, "bad", &[("agents/support/a", "old", "new")])];
        let back = [
            step(3, "and by hand", &[("agents/support/b", "y", "x")]),
            step(2, &reverts(1), &[("agents/support/a", "new", "old")]),
        ];
        assert_eq!(way(&bad, &back).0, Evidence::Claimed);
    }
}
