//! Which names of files are used, and how those that are not are shown.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::TreeError;

/// Folders within folders.
pub(super) const LEVELS: usize = 32;
/// Entries of one folder.
pub(super) const FOLDER: usize = 20_000;
/// Entries of all folders that are listed in one commit.
pub(super) const ENTRIES: usize = 500_000;
/// Bytes of a path.
pub(super) const PATH: usize = 4096;
/// Bytes of a name.
pub(super) const NAME: usize = 255;

/// What is wrong with the name of a file, or nothing.
pub(super) fn refuse(name: &[u8]) -> Option<&'static str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if let [first, rest @ ..] = name
        && name.len() <= NAME
        && plain(first)
        && rest.iter().all(|byte| plain(byte) || *byte == b'.')
    {
        return None;
    }
    let Ok(text) = std::str::from_utf8(name) else { return Some("it is not UTF-8") };
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > NAME {
        Some("it is longer than 255 bytes")
    } else if text.chars().any(char::is_control) {
        Some("it has control characters")
    } else if text.chars().any(turns) {
        Some("it has characters that change the direction of text")
    } else if text.contains(['\\', '/']) {
        Some("it has a slash or backslash in it")
    } else if text == "." || text == ".." {
        Some("it leaves its folder")
    } else if is_git(text) {
        Some("it is Git's own")
    } else {
        None
    }
}

/// Whether a character turns the text around it, so that a name reads as another one.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether a character takes no room, so that a name with it reads as one without.
fn unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{e0000}'..='\u{e007f}')
}

/// `.git` in any case, and the forms that some file systems take for it.
fn is_git(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}')).collect();
    let cut = plain.trim_end_matches(['.', ' ']);
    cut.eq_ignore_ascii_case(".git") || cut.eq_ignore_ascii_case("git~1")
}

/// The names in a folder that differ from another one by case alone, in lower case.
pub(super) struct Collisions(BTreeSet<String>);

impl Collisions {
    pub(super) fn among<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            let folded = name.to_lowercase();
            if let Some(folded) = seen.replace(folded) {
                twice.insert(folded);
            }
        }
        Self(twice)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&name.to_lowercase())
    }
}

/// A name as it is shown: anything that is not plain text is escaped.
pub(super) fn shown(name: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || turns(c) || unseen(c) || c == '\\' {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a text does not fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    if shown.len() > NAME + 45 {
        let cut = (0..=NAME).rev().find(|&at| shown.is_char_boundary(at)).unwrap_or_default();
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

/// A folder's path and a name within it.
pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Splits a path that the caller made; refuses what is too long or too deep, or is no path of a tree.
pub(super) fn split(path: &str) -> Result<Vec<&str>, TreeError> {
    if path.len() > PATH {
        return Err(TreeError::Budget { path: shown(path.as_bytes()), what: "bytes in its path", limit: PATH });
    }
    let names: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
    if names.len() > LEVELS {
        return Err(TreeError::Budget { path: shown(path.as_bytes()), what: "levels", limit: LEVELS });
    }
    match names.iter().find_map(|name| refuse(name.as_bytes())) {
        Some(why) => Err(TreeError::Name { path: shown(path.as_bytes()), why }),
        None => Ok(names),
    }
}

/// Whether a blob is a Git LFS pointer: the file itself is elsewhere.
pub(super) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.len() < 1024
        && [&b"version https://git-lfs.github.com/spec/"[..], b"version https://hawser.github.com/spec/"]
            .iter()
            .any(|start| bytes.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_read_as_something_else_are_refused() {
        for good in ["a", "ä.md", ".gitignore", ".github", "a b", "…", "0001_x.up.sql", "日本"] {
            assert_eq!(refuse(good.as_bytes()), None, "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".git",
            ".GIT",
            ".Git",
            ".git.",
            ".git ",
            "git~1",
            "a\\b",
            "a/b",
            "a\nb",
            "a\u{7f}",
            "a\u{85}",
            "a\u{202e}b",
            ".g\u{200b}it",
            &"x".repeat(256),
        ] {
            assert!(refuse(bad.as_bytes()).is_some(), "{bad:?}");
        }
        assert!(refuse(b"a\xffb").is_some());
    }

    #[test]
    fn what_is_shown_is_plain() {
        assert_eq!(shown(b"a\xff\n\x1b[31m\xe2\x80\xaeb"), "a\\xff\\n\\u{1b}[31m\\u{202e}b");
        assert!(shown(&[b'x'; 5000]).len() < 300);
        assert!(shown("ä".repeat(5000).as_bytes()).len() < 300);
    }

    #[test]
    fn collisions_are_by_case_alone() {
        let collisions = Collisions::among(["a", "A", "b", "straße"].into_iter());
        assert!(collisions.has("a") && collisions.has("A") && !collisions.has("b") && !collisions.has("straße"));
    }

    #[test]
    fn paths_have_bounds() {
        assert_eq!(split("").map(|names| names.len()), Ok(0));
        assert_eq!(split("a/b").map(|names| names.len()), Ok(2));
        for bad in ["/a", "a/", "a//b", "a/../b", "./a"] {
            assert!(matches!(split(bad), Err(TreeError::Name { .. })), "{bad}");
        }
        assert!(split(&["a"; 32].join("/")).is_ok());
        assert!(matches!(split(&["a"; 33].join("/")), Err(TreeError::Budget { limit: LEVELS, .. })));
        assert!(matches!(split(&"a".repeat(5000)), Err(TreeError::Budget { limit: PATH, .. })));
    }
}
