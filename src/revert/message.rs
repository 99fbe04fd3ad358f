//! What commit messages say of reverts.

use crate::model::CommitId;
use crate::source::CommitInfo;

/// What a message says that it takes back. Free text: it says why, and is checked against the diff.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// `This reverts commit <id>.`, in the order of the message; also abbreviated ids.
    pub commits: Vec<String>,
    /// GitHub's `Reverts owner/repo#12`, GitLab's `This reverts merge request !12`.
    pub requests: Vec<u64>,
    /// The subject of what is taken back: `<subject>` for `Revert "<subject>"`, and `Revert "<subject>"` for the
    /// `Reapply "<subject>"` of git 2.43 and later. Also read in the title under `Merge pull request …`.
    pub subject: Option<String>,
}

// === impl Named ===

impl Named {
    /// Whether it names anything.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.requests.is_empty() && self.subject.is_none()
    }

    /// The named commits among `earlier`, by id, by the number of their merge or squash, or else by their subject.
    pub fn among(&self, earlier: &[CommitInfo]) -> Vec<CommitId> {
        let by_id = self.commits.iter().filter_map(|id| {
            earlier.iter().find(|commit| commit.id.as_str().starts_with(id.as_str())).map(|commit| commit.id.clone())
        });
        let by_number = self.requests.iter().filter_map(|number| {
            earlier.iter().find(|commit| merges(&commit.message, *number)).map(|commit| commit.id.clone())
        });
        let mut found: Vec<_> = by_id.chain(by_number).collect();
        if found.is_empty() && self.commits.is_empty() {
            let wanted = self.subject.as_deref();
            let same =
                earlier.iter().find(|commit| wanted.is_some_and(|subject| has_subject(&commit.message, subject)));
            found.extend(same.map(|commit| commit.id.clone()));
        }
        found.dedup();
        found
    }
}

pub(super) fn subject(message: &str) -> &str {
    message.lines().next().unwrap_or_default().trim()
}

/// What a commit is about: its subject; of the merge of a request, the title that GitHub and GitLab put under it.
fn title(message: &str) -> &str {
    let first = subject(message);
    let merges = ["Merge pull request #", "Merge branch '"].iter().any(|form| first.starts_with(form));
    let under = message.lines().skip(1).map(str::trim).find(|line| !line.is_empty());
    under.filter(|_| merges).unwrap_or(first)
}

/// The subject or title itself, or with the number that a squash puts behind it.
fn has_subject(message: &str, wanted: &str) -> bool {
    let is = |text: &str| text == wanted || text.strip_prefix(wanted).is_some_and(|rest| rest.trim().starts_with("(#"));
    is(subject(message)) || is(title(message))
}

/// Whether this is the merge or squash of a pull or merge request.
fn merges(message: &str, number: u64) -> bool {
    let subject = subject(message);
    subject.ends_with(&format!("(#{number})"))
        || subject.starts_with(&format!("Merge pull request #{number} "))
        || message.lines().any(|line| {
            line.strip_prefix("See merge request ").is_some_and(|what| what.trim().ends_with(&format!("!{number}")))
        })
}

/// Reads what a commit message says that it takes back.
///
/// Knows git's own forms (`This reverts commit …`, `Revert "…"`, `Reapply "…"`), GitHub's `Reverts owner/repo#N` and
/// GitLab's `This reverts merge request !N`.
pub fn named(message: &str) -> Named {
    let mut named = Named::default();
    let quoted = |prefix: &str| title(message).strip_prefix(prefix)?.rsplit_once('"').map(|(text, _)| text.to_owned());
    let reapplied = || quoted("Reapply \"").map(|subject| format!("Revert \"{subject}\""));
    named.subject = quoted("Revert \"").or_else(reapplied).or_else(|| quoted("revert \""));
    for words in paragraphs(message) {
        for (at, word) in words.iter().enumerate() {
            let after = |n: usize| words.get(at + n).copied().unwrap_or_default();
            match *word {
                "reverts" | "Reverts" if after(1) == "commit" || after(1) == "commits" => {
                    named.commits.extend(commits(&words[at + 2..]));
                }
                "reverts" | "Reverts" if after(1) == "merge" && after(2) == "request" => {
                    named.requests.extend(number(after(3), '!'));
                }
                "reverts" | "Reverts" => named.requests.extend(number(after(1), '#')),
                _ => {}
            }
        }
    }
    named
}

/// The words of each paragraph: what the next one begins with is no more of the sentence before.
fn paragraphs(message: &str) -> Vec<Vec<&str>> {
    let mut all = vec![vec![]];
    for line in message.lines() {
        let mut words = line.split_whitespace().peekable();
        match all.last_mut() {
            Some(last) if words.peek().is_some() => last.extend(words),
            Some(_) | None => all.push(vec![]),
        }
    }
    all
}

/// The ids that words begin with, up to the end of their sentence.
fn commits(words: &[&str]) -> Vec<String> {
    let mut all = vec![];
    for word in words {
        let Some(id) = commit(word) else { break };
        all.push(id);
        if word.ends_with('.') {
            break;
        }
    }
    all
}

fn commit(word: &str) -> Option<String> {
    let id = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let hex = id.len() >= 7 && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| id.to_ascii_lowercase())
}

fn number(word: &str, sign: char) -> Option<u64> {
    let (_, number) = word.rsplit_once(sign)?;
    number.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0";
    const B: &str = "aaaa2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0";

    fn info(id: &str, message: &str) -> CommitInfo {
        let id = id.parse().expect("a commit id");
        CommitInfo { id, parents: vec![], author: "Alice <alice@example.com>".to_owned(), message: message.to_owned() }
    }

    #[test]
    fn the_forms_of_git() {
        let one = named(&format!("Revert \"Ship it\"\n\nThis reverts commit {A}.\n"));
        assert_eq!(one.commits, [A]);
        assert_eq!(one.subject.as_deref(), Some("Ship it"));
        let again = named(&format!("Reapply \"Ship it\"\n\nThis reverts commit {A}.\n"));
        assert_eq!((again.commits.len(), again.subject.as_deref()), (1, Some("Revert \"Ship it\"")));
        let merge = named(&format!("Revert \"Merge x\"\n\nThis reverts commit {A}, reversing\nchanges made to {B}.\n"));
        assert_eq!(merge.commits, [A]);
        let several = named(&format!("Undo\n\nThis reverts commits {A} {B}.\n"));
        assert_eq!(several.commits, [A, B]);
    }

    #[test]
    fn the_forms_of_github_and_gitlab() {
        let github = named("Revert \"Ship it\" (#13)\n\nReverts acme/agents#12");
        assert_eq!(github.requests, [12]);
        let earlier = [info(B, "Other (#11)"), info(A, "Ship it (#12)")];
        assert_eq!(github.among(&earlier), [A.parse().expect("an id")]);
        let gitlab = named("Revert \"Ship it\"\n\nThis reverts merge request !12\n");
        assert_eq!(gitlab.requests, [12]);
        let earlier = [info(A, "Merge branch 'x' into 'main'\n\nShip it\n\nSee merge request acme/agents!12")];
        assert_eq!(gitlab.among(&earlier), [A.parse().expect("an id")]);
        let bare = named("Revert \"Ship it\"");
        assert_eq!(bare.among(&[info(A, "Ship it")]), [A.parse().expect("an id")]);
    }

    #[test]
    fn the_merge_of_a_revert_says_what_it_takes_back() {
        for merge in [
            "Merge pull request #13 from acme/revert-12-topic\n\nRevert \"Ship it\"",
            "Merge branch 'revert-3f9c2ab1' into 'main'\n\nRevert \"Ship it\"\n\nSee merge request acme/agents!13",
        ] {
            let shipped = info(A, "Merge pull request #12 from acme/topic\n\nShip it");
            assert_eq!(named(merge).among(&[info(B, merge), shipped]), [A.parse().expect("an id")], "{merge}");
        }
        assert!(named("Merge branch 'topic'\n\nShip \"it\"").is_empty());
    }

    #[test]
    fn what_names_nothing() {
        assert!(named("Improve the prompt").is_empty());
        assert!(named("This reverts commit soon").commits.is_empty());
        assert!(named("").is_empty());
        for more in ["\n\n3f9c2ab1 broke the login.", ". 3f9c2ab1 broke the login."] {
            assert_eq!(named(&format!("This reverts commit {B}{more}")).commits, [B], "a sentence ends");
        }
    }
}
