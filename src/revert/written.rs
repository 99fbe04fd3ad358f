//! The message of a commit that is written here, and how such a commit is known again.

use std::fmt::Write as _;

use super::message::subject;
use crate::model::{AgentName, Digest, EnvironmentName, ReleaseId};
use crate::source::CommitInfo;

/// Lines of evidence that a message holds.
const LINES: usize = 10;
/// Characters of one of them.
const WIDTH: usize = 120;
/// Characters of the reason, and of a subject that is repeated.
const SENTENCE: usize = 300;
/// Bytes of a paragraph that trailers are looked for in.
const PARAGRAPH: usize = 4096;

/// The commit that makes Git agree, for [`WriteBackMessage::text`].
#[derive(Debug, Clone, Copy)]
pub struct WriteBackMessage<'a> {
    /// The commits that are taken back, the newest first; none where the paths were restored or a pin was written.
    pub commits: &'a [CommitInfo],
    /// Where no commit is taken back: those that changed the release, the newest first.
    pub instead_of: &'a [CommitInfo],
    /// Whose release it is about.
    pub agent: &'a AgentName,
    /// Where.
    pub environment: &'a EnvironmentName,
    /// The release that is left.
    pub left: ReleaseId,
    /// The release that is gone back to.
    pub back_to: ReleaseId,
    /// `manual`, `health_check_failed`, …
    pub word: &'a str,
    /// Who asked or what failed, and why, in a sentence.
    pub reason: &'a str,
    /// The figures behind it; beyond ten lines the rest is counted.
    pub evidence: &'a [String],
}

/// What the trailers of a message say that Backstay wrote. Free text: only what the commit does is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers {
    /// Whose release was taken back.
    pub agent: AgentName,
    /// Where.
    pub environment: EnvironmentName,
    /// The release that was left.
    pub release: Digest,
    /// `manual`, `health_check_failed`, …
    pub reason: String,
}

// === impl WriteBackMessage ===

impl WriteBackMessage<'_> {
    /// Git's own form where commits are reverted, then the reason and the evidence, then the trailers.
    ///
    /// # Guarantees
    ///
    /// Nobody's words make a trailer or name a commit that is not taken back: they stand on lines of their own, each of
    /// bounded width, and never in the last paragraph.
    pub fn text(&self) -> String {
        let mut text = match self.commits {
            [] => format!("{}: back to {} in {}\n", self.agent, self.back_to, self.environment),
            [one] => format!("Revert \"{}\"\n", plain(subject(&one.message), SENTENCE)),
            [newest, others @ ..] => {
                format!("Revert \"{}\" and {} more\n", plain(subject(&newest.message), SENTENCE), others.len())
            }
        };
        for commit in self.commits {
            let merge = if commit.parents.len() > 1 {
                format!(", reversing\nchanges made to {}", commit.parents[0])
            } else {
                String::new()
            };
            let _ = write!(text, "\nThis reverts commit {}{merge}.", commit.id);
        }
        let gap = if self.commits.is_empty() { "\n" } else { "\n\n" };
        let _ = writeln!(text, "{gap}{}", plain(self.reason, SENTENCE));
        listed(&mut text, "", self.evidence.iter().map(|line| plain(line, WIDTH)));
        let changes = self.instead_of.iter().map(|commit| {
            format!("{} {}", commit.id.short(), plain(subject(&commit.message), WIDTH - commit.id.short().len() - 1))
        });
        listed(&mut text, "What changed it, and could not simply be taken back:\n", changes);
        let _ = write!(
            text,
            "\nLeft {} for {}.\n\nBackstay-Agent: {}\nBackstay-Environment: {}\nBackstay-Release: {}\nBackstay-Reason: {}\n",
            self.left,
            self.back_to,
            self.agent,
            self.environment,
            self.left.digest(),
            plain(self.word, WIDTH),
        );
        text
    }
}

/// A paragraph of lines, if there are any: as many as a message holds, the last of which may count the rest.
fn listed(text: &mut String, head: &str, lines: impl ExactSizeIterator<Item = String>) {
    let all = lines.len();
    let shown = if all > LINES { LINES - 1 } else { all };
    for (at, line) in lines.take(shown).enumerate() {
        let _ = writeln!(text, "{}- {line}", if at == 0 { format!("\n{head}") } else { String::new() });
    }
    if all > shown {
        let _ = writeln!(text, "- … and {} more", all - shown);
    }
}

/// One line of visible text, and no words that read as those of a revert.
fn plain(text: &str, width: usize) -> String {
    let visible = |c: char| {
        let steers =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        // Every space is one by which words are told apart again.
        if c.is_control() || c.is_whitespace() || steers { ' ' } else { c }
    };
    let line: String = text.chars().take(2 * width).map(visible).collect();
    let words = line.split(' ').map(|word| match word {
        "reverts" | "Reverts" => format!("`{word}`"),
        word => word.to_owned(),
    });
    let line = words.collect::<Vec<_>>().join(" ");
    let line = line.trim();
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let cut: String = line.chars().take(width - 1).collect();
    format!("{}…", cut.trim_end())
}

/// What a message says that Backstay wrote it; nothing, where it is somebody else's.
pub fn trailers(message: &str) -> Option<Trailers> {
    // Who squashes may put a paragraph of trailers of their own beneath.
    message.trim_end().rsplit("\n\n").take(2).find_map(paragraph).filter(|_| message.contains("\n\n"))
}

fn paragraph(text: &str) -> Option<Trailers> {
    if text.len() > PARAGRAPH {
        return None;
    }
    let value = |key: &str| {
        let mut found = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        // Said twice, it says nothing.
        let value = found.next().map(str::trim);
        value.filter(|_| found.next().is_none())
    };
    Some(Trailers {
        agent: value("Backstay-Agent")?.parse().ok()?,
        environment: value("Backstay-Environment")?.parse().ok()?,
        release: value("Backstay-Release")?.parse().ok()?,
        reason: value("Backstay-Reason")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revert::named;

    const A: &str = "3f9c2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0";
    const B: &str = "aaaa2ab1d03f9c2ab1d03f9c2ab1d03f9c2ab1d0";

    fn info(id: &str, message: &str) -> CommitInfo {
        let id = id.parse().expect("a commit id");
        CommitInfo { id, parents: vec![], author: "Alice <alice@example.com>".to_owned(), message: message.to_owned() }
    }

    fn text(commits: &[CommitInfo], instead_of: &[CommitInfo], reason: &str, evidence: &[String]) -> String {
        let (agent, environment) = ("support".parse().expect("a name"), "production".parse().expect("a name"));
        let message = WriteBackMessage {
            commits,
            instead_of,
            agent: &agent,
            environment: &environment,
            left: ReleaseId::of(b"bad"),
            back_to: ReleaseId::of(b"good"),
            word: "error_rate_high",
            reason,
            evidence,
        };
        message.text()
    }

    #[test]
    fn the_message_reads_back() {
        let evidence = ["errors 4.1 % of 2,000 requests".to_owned(), "stable 0.2 % of 38,000".to_owned()];
        let text = text(&[info(A, "Ship it\n\nbody")], &[], "support failed: too many errors", &evidence);
        let digest = ReleaseId::of(b"bad").digest();
        let (left, back_to) = (ReleaseId::of(b"bad"), ReleaseId::of(b"good"));
        let expected = format!(
            "Revert \"Ship it\"\n\nThis reverts commit {A}.\n\nsupport failed: too many errors\n\n\
             - errors 4.1 % of 2,000 requests\n- stable 0.2 % of 38,000\n\nLeft {left} for {back_to}.\n\n\
             Backstay-Agent: support\nBackstay-Environment: production\nBackstay-Release: {digest}\n\
             Backstay-Reason: error_rate_high\n"
        );
        assert_eq!(text, expected);
        assert_eq!(named(&text).commits, [A]);
        let read = trailers(&text).expect("ours");
        assert_eq!((read.agent.as_str(), read.environment.as_str()), ("support", "production"));
        assert_eq!((read.release, &*read.reason), (digest, "error_rate_high"));
    }

    #[test]
    fn several_commits_are_named_and_other_ways_say_what_they_stand_for() {
        let commits = [info(A, "Be louder"), info(B, "Be loud")];
        let several = text(&commits, &[], "why", &[]);
        assert!(several.starts_with("Revert \"Be louder\" and 1 more\n\nThis reverts commit"), "{several}");
        assert_eq!(named(&several).commits, [A, B]);
        let pinned = text(&[], &commits, "why", &[]);
        assert!(pinned.starts_with("support: back to r-"), "{pinned}");
        assert!(pinned.contains("- 3f9c2ab1 Be louder\n- aaaa2ab1 Be loud\n"), "{pinned}");
        assert!(named(&pinned).is_empty() && trailers(&pinned).is_some(), "it takes no commit back: {pinned}");
    }

    #[test]
    fn nobodys_words_forge_anything() {
        let hostile = "x\n\nBackstay-Agent: other\nThis reverts commit aaaa2ab1d0\u{202e}\u{1b}[31m";
        let evidence: Vec<_> = (0..30).map(|n| format!("{hostile} {n} {}", "w".repeat(400))).collect();
        let text = text(&[info(A, &format!("Ship\u{1b}[2J it {}", "x".repeat(900)))], &[], hostile, &evidence);
        assert_eq!(named(&text).commits, [A], "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("Backstay-Agent:")).count(), 1, "{text}");
        assert_eq!(trailers(&text).expect("ours").agent.as_str(), "support");
        assert!(text.lines().all(|line| line.chars().count() <= SENTENCE + 20), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("- ")).count(), LINES, "{text}");
        assert!(text.contains("- … and 21 more\n"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }

    #[test]
    fn a_reason_names_no_commit() {
        for reason in ["aaaa2ab1d0 broke the login", "x\u{a0}reverts\u{3000}commit aaaa2ab1d0"] {
            let message = text(&[info(A, "Ship it")], &[], reason, &[reason.to_owned()]);
            assert_eq!(named(&message).commits, [A], "{message}");
        }
    }

    #[test]
    fn only_a_whole_paragraph_at_the_end_is_ours() {
        let good = text(&[info(A, "Ship it")], &[], "why", &[]);
        assert!(trailers(&good).is_some());
        assert!(
            trailers(&format!("{good}\nSigned-off-by: Alice <alice@example.com>\n")).is_some(),
            "others may follow"
        );
        for foreign in [
            "",
            "Ship it",
            "Backstay-Agent: support",
            &format!("{good}\nBut not so.\n\nIt is not.\n"),
            &good.replace("Backstay-Release: ", "Backstay-Release: x"),
            &good.replace("Backstay-Agent: support", "Backstay-Agent: support\nBackstay-Agent: other"),
        ] {
            assert_eq!(trailers(foreign), None, "{foreign}");
        }
    }
}
