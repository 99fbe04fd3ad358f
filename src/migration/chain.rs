//! The files of a folder, as a chain of migrations.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Digest;

/// The comment at the head of an up script that says that there is no way back.
pub const IRREVERSIBLE: &str = "-- backstay: irreversible";

/// Numbers of at least that many digits are times, and may have gaps.
const TIME_DIGITS: usize = 10;

/// One change of an agent's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number: its place in the chain.
    pub version: u64,
    /// Number and name, as the files are called: `0001_episodes`.
    pub name: String,
    /// Makes the change.
    pub up: Arc<str>,
    /// Takes it back; absent only where the up script says that there is no way back.
    pub down: Option<Arc<str>>,
    /// Fails where the change is not there.
    pub verify: Option<Arc<str>>,
}

/// What is wrong with one file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Up,
    Down,
    Verify,
}

/// Reads the files of a folder, by name, as a chain in order of their numbers.
///
/// # Errors
///
/// All that is wrong with them: names, missing parts, numbers used twice or left out, scripts that are empty or no text.
pub fn chain<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<Migration>, Vec<Problem>> {
    let mut problems = vec![];
    let mut by_name: BTreeMap<(u64, &str), BTreeMap<Part, Arc<str>>> = BTreeMap::new();
    let mut refuse = |file: &str, message: String, hint: Option<String>| {
        problems.push(Problem { file: file.to_owned(), message, hint });
    };
    for (file, bytes) in files {
        let Some((version, name, part)) = split(file) else {
            let hint = "call it `<number>_<name>.up.sql`, `.down.sql` or `.verify.sql`: `0001_episodes.up.sql`";
            refuse(file, "the name is not that of a migration".to_owned(), Some(hint.to_owned()));
            continue;
        };
        match std::str::from_utf8(bytes) {
            Err(_) => refuse(file, "the script is not UTF-8 text".to_owned(), None),
            Ok(text) if is_blank(text) => refuse(file, "the script holds no statement".to_owned(), None),
            Ok(text) => {
                by_name.entry((version, name)).or_default().insert(part, text.into());
            }
        }
    }
    let mut before: Option<(u64, &str)> = None;
    for ((version, name), parts) in &by_name {
        let up = format!("{name}.up.sql");
        match before {
            Some((last, other)) if last == *version => {
                refuse(
                    &up,
                    format!("the number {version} is used by `{other}` too"),
                    Some("give each its own number".to_owned()),
                );
            }
            Some((last, _)) if *version != last + 1 && digits(name) < TIME_DIGITS => {
                let message = format!("the number {} is left out before this one", last + 1);
                refuse(&up, message, Some("numbers follow one another, or are times of at least 10 digits".to_owned()));
            }
            _ => {}
        }
        before = Some((*version, name));
        match (parts.get(&Part::Up), parts.get(&Part::Down)) {
            (None, _) => {
                let part = if parts.contains_key(&Part::Down) { "down" } else { "verify" };
                refuse(&format!("{name}.{part}.sql"), format!("`{up}` is missing beside it"), None);
            }
            (Some(script), Some(_)) if is_irreversible(script) => {
                let message = format!("`{up}` says that there is no way back, and here is one");
                refuse(&format!("{name}.down.sql"), message, Some("take the comment or this file away".to_owned()));
            }
            (Some(script), None) if !is_irreversible(script) => {
                let hint = format!("write it, or begin the up script with `{IRREVERSIBLE}`");
                refuse(&up, format!("`{name}.down.sql` is missing: there is no way back"), Some(hint));
            }
            (Some(_), _) => {}
        }
    }
    if !problems.is_empty() {
        problems.sort_by(|a, b| a.file.cmp(&b.file));
        return Err(problems);
    }
    let migration = |((version, name), mut parts): ((u64, &str), BTreeMap<Part, Arc<str>>)| {
        let (down, verify) = (parts.remove(&Part::Down), parts.remove(&Part::Verify));
        parts.remove(&Part::Up).map(|up| Migration { version, name: name.to_owned(), up, down, verify })
    };
    Ok(by_name.into_iter().filter_map(migration).collect())
}

/// Number, number and name, and part of a file's name.
fn split(file: &str) -> Option<(u64, &str, Part)> {
    let stem = file.strip_suffix(".sql")?;
    let (name, part) = stem.rsplit_once('.')?;
    let part = match part {
        "up" => Part::Up,
        "down" => Part::Down,
        "verify" => Part::Verify,
        _ => return None,
    };
    let (number, title) = name.split_once('_')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if title.is_empty() || !title.bytes().all(plain) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, name, part))
}

fn digits(name: &str) -> usize {
    name.bytes().take_while(u8::is_ascii_digit).count()
}

/// Whether a script holds nothing but white space and comments to the end of a line.
fn is_blank(script: &str) -> bool {
    script.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with("--"))
}

/// Whether one of the comments at the head of a script says that there is no way back.
fn is_irreversible(script: &str) -> bool {
    script
        .lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("--"))
        .any(|line| line == IRREVERSIBLE)
}

// === impl Migration ===

impl Migration {
    /// SHA-256 of the up script.
    pub fn up_digest(&self) -> Digest {
        Digest::of(self.up.as_bytes())
    }

    /// SHA-256 of the down script.
    pub fn down_digest(&self) -> Option<Digest> {
        self.down.as_deref().map(|script| Digest::of(script.as_bytes()))
    }

    /// SHA-256 of the verify script.
    pub fn verify_digest(&self) -> Option<Digest> {
        self.verify.as_deref().map(|script| Digest::of(script.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Vec<Migration>, Vec<Problem>> {
        chain(files.iter().map(|(name, text)| (*name, text.as_bytes())))
    }

    fn refused(files: &[(&str, &str)]) -> Vec<String> {
        let problems = read(files).expect_err("a problem");
        problems.into_iter().map(|problem| format!("{}: {}", problem.file, problem.message)).collect()
    }

    #[test]
    fn a_folder_is_a_chain() {
        let chain = read(&[
            ("0002_b.up.sql", "B;"),
            ("0002_b.down.sql", "b;"),
            ("0001_a.up.sql", "A;"),
            ("0001_a.down.sql", "a;"),
            ("0001_a.verify.sql", "SELECT 1;"),
            ("0003_c.up.sql", "-- for good\n-- backstay: irreversible\nDROP TABLE x;"),
        ])
        .expect("a chain");
        let names: Vec<_> = chain.iter().map(|migration| (&*migration.name, migration.down.is_some())).collect();
        assert_eq!(names, [("0001_a", true), ("0002_b", true), ("0003_c", false)]);
        assert_eq!(chain[0].verify_digest(), Some(Digest::of(b"SELECT 1;")));
        assert_eq!(chain[2].down_digest(), None);
        assert_eq!(chain[1].up_digest(), Digest::of(b"B;"));
    }

    #[test]
    fn times_may_have_gaps() {
        let chain = read(&[
            ("20260101120000_a.up.sql", "A;"),
            ("20260101120000_a.down.sql", "a;"),
            ("20260301120000_b.up.sql", "B;"),
            ("20260301120000_b.down.sql", "b;"),
        ]);
        assert_eq!(chain.map(|chain| chain.len()), Ok(2));
    }

    #[test]
    fn what_breaks_the_chain_is_named() {
        assert_eq!(refused(&[("README.md", "x")]), ["README.md: the name is not that of a migration"]);
        assert_eq!(refused(&[("1_a.sideways.sql", "x")]), ["1_a.sideways.sql: the name is not that of a migration"]);
        assert_eq!(refused(&[("1_.up.sql", "x")]), ["1_.up.sql: the name is not that of a migration"]);
        assert_eq!(refused(&[("1_a.up.sql", "A")]), ["1_a.up.sql: `1_a.down.sql` is missing: there is no way back"]);
        assert_eq!(refused(&[("1_a.down.sql", "A")]), ["1_a.down.sql: `1_a.up.sql` is missing beside it"]);
        assert_eq!(refused(&[("1_a.verify.sql", "A")]), ["1_a.verify.sql: `1_a.up.sql` is missing beside it"]);
        let twice = [("1_a.up.sql", "A"), ("1_a.down.sql", "a"), ("01_b.up.sql", "B"), ("01_b.down.sql", "b")];
        assert_eq!(refused(&twice), ["1_a.up.sql: the number 1 is used by `01_b` too"]);
        let gap = [("1_a.up.sql", "A"), ("1_a.down.sql", "a"), ("3_b.up.sql", "B"), ("3_b.down.sql", "b")];
        assert_eq!(refused(&gap), ["3_b.up.sql: the number 2 is left out before this one"]);
        assert_eq!(
            refused(&[("1_a.up.sql", "-- backstay: irreversible\nA"), ("1_a.down.sql", "a")]),
            ["1_a.down.sql: `1_a.up.sql` says that there is no way back, and here is one"]
        );
        assert!(
            refused(&[("1_a.up.sql", "-- nothing\n"), ("1_a.down.sql", "a")])
                .contains(&"1_a.up.sql: the script holds no statement".to_owned())
        );
        let bytes = chain([("1_a.up.sql", &b"\xff"[..])]).expect_err("no text");
        assert_eq!(bytes[0].message, "the script is not UTF-8 text");
    }
}
