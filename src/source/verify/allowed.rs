//! The file of allowed signers, as `ssh-keygen(1)` describes it under `ALLOWED SIGNERS`, but strict: one line that
//! cannot be used makes the whole file unusable, where `ssh-keygen` passes it over.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey};

use super::NAMESPACE;
use crate::model::Timestamp;

/// Keys that may sign commits, with the times in which they may.
#[derive(Debug, Clone, Default)]
pub struct AllowedSigners {
    lines: Vec<Line>,
}

/// A line that cannot be used. `Display` names file and line, what is wrong and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}; {hint}")]
pub struct InvalidSigners {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// The way out.
    pub hint: &'static str,
}

#[derive(Debug, Clone)]
struct Line {
    number: usize,
    principals: String,
    namespaces: Option<String>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    key: KeyData,
}

/// What is wrong with a line, and the way out.
type Wrong = (String, &'static str);

const FORM: &str = "a line is `alice@example.com namespaces=\"git\" ssh-ed25519 AAAA…`";

// === impl AllowedSigners ===

impl AllowedSigners {
    /// Reads the text of the file; `file` names it in errors.
    ///
    /// Times without `Z` are of this machine's time zone, as for `ssh-keygen`.
    ///
    /// # Errors
    ///
    /// The first line that cannot be used. `cert-authority` and keys of a kind that is not verified here are refused.
    pub fn parse(file: &str, text: &str) -> Result<Self, InvalidSigners> {
        let mut lines = vec![];
        for (at, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let number = at + 1;
            let line = Line::parse(number, text).map_err(|(what, hint)| InvalidSigners {
                file: file.to_owned(),
                line: number,
                what,
                hint,
            })?;
            lines.push(line);
        }
        if lines.is_empty() {
            let what = "it lists no key, so that no commit could be accepted".to_owned();
            return Err(InvalidSigners { file: file.to_owned(), line: 1, what, hint: FORM });
        }
        Ok(Self { lines })
    }

    /// Whom a key belongs to, if it may sign commits that were made at `made` and are looked at `now`.
    ///
    /// The time that a commit gives is its signer's own word. So a key must be allowed by that time and by the present
    /// one: a key that has expired signs nothing new, whatever time it writes.
    ///
    /// # Errors
    ///
    /// Why not, in words that follow the name of the key.
    pub(super) fn who(&self, key: &KeyData, made: Timestamp, now: Timestamp) -> Result<&str, String> {
        let mut why = "is not among those that may sign".to_owned();
        for line in self.lines.iter().filter(|line| line.key == *key) {
            match line.allows(made, now) {
                Ok(()) => return Ok(&line.principals),
                Err(no) => why = format!("{no} (line {} of the allowed signers)", line.number),
            }
        }
        Err(why)
    }
}

// === impl Line ===

impl Line {
    fn parse(number: usize, text: &str) -> Result<Self, Wrong> {
        let form = |what: &str| (what.to_owned(), FORM);
        let (principals, rest) = word(text).ok_or_else(|| form("the principals' quotes do not end"))?;
        let principals = principals.trim_matches('"').to_owned();
        if principals.split(',').any(|one| one.trim_start_matches('!').is_empty()) {
            return Err(form("a principal is empty"));
        }
        let mut line = Self {
            number,
            principals,
            namespaces: None,
            after: None,
            before: None,
            key: KeyData::Ed25519(ssh_key::public::Ed25519PublicKey([0; 32])),
        };
        if rest.is_empty() {
            return Err(form("there is no key"));
        }
        let (first, after_first) = word(rest).ok_or_else(|| form("the options' quotes do not end"))?;
        let rest = if is_kind_of_key(first) {
            rest
        } else {
            line.options(first)?;
            after_first
        };
        line.key = key(rest)?;
        Ok(line)
    }

    fn options(&mut self, text: &str) -> Result<(), Wrong> {
        for option in split(text) {
            let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            let value = value.map(|value| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')));
            let value = match value {
                None => None,
                Some(Some(value)) if !value.is_empty() => Some(value),
                Some(_) => return Err((format!("`{}` has no value in quotes", shown(name)), FORM)),
            };
            let twice = || (format!("`{}` stands twice", shown(name)), "keep one of them");
            match (name.to_ascii_lowercase().as_str(), value) {
                ("cert-authority", _) => {
                    return Err((
                        "`cert-authority`: certificates are not verified by this version".to_owned(),
                        "list the keys themselves",
                    ));
                }
                ("namespaces", Some(value)) => {
                    if self.namespaces.replace(value.to_owned()).is_some() {
                        return Err(twice());
                    }
                }
                ("valid-after", Some(value)) => {
                    if self.after.replace(time(value)?).is_some() {
                        return Err(twice());
                    }
                }
                ("valid-before", Some(value)) => {
                    if self.before.replace(time(value)?).is_some() {
                        return Err(twice());
                    }
                }
                (_, _) => {
                    return Err((
                        format!("`{}` is neither an option nor a kind of key", shown(option)),
                        "options are `namespaces=\"…\"`, `valid-after=\"…\"`, `valid-before=\"…\"`",
                    ));
                }
            }
        }
        match (self.after, self.before) {
            (Some(after), Some(before)) if after >= before => {
                Err(("`valid-before` is not later than `valid-after`".to_owned(), "look at the two times"))
            }
            (_, _) => Ok(()),
        }
    }

    fn allows(&self, made: Timestamp, now: Timestamp) -> Result<(), String> {
        if self.namespaces.as_ref().is_some_and(|namespaces| !matches(namespaces, NAMESPACE)) {
            return Err("may not sign commits: its `namespaces` leave `git` out".to_owned());
        }
        if let Some(after) = self.after.filter(|after| made < *after) {
            return Err(format!("was not valid yet: the commit says {made}, the key is valid from {after}"));
        }
        if let Some(before) = self.before {
            if made >= before {
                return Err(format!("had expired: the commit says {made}, the key was valid before {before}"));
            }
            if now >= before {
                return Err(format!("has expired meanwhile: it was valid before {before}, and signs nothing new"));
            }
        }
        Ok(())
    }
}

fn is_kind_of_key(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|prefix| word.starts_with(prefix))
}

/// `kind base64 [comment]`
fn key(text: &str) -> Result<KeyData, Wrong> {
    let mut words = text.split_whitespace();
    let (Some(kind), Some(coded)) = (words.next(), words.next()) else {
        return Err(("there is no key".to_owned(), FORM));
    };
    let unfit = |why: &str| (format!("a key of the kind `{}` {why}", shown(kind)), "use `ssh-ed25519`");
    if kind.contains("-cert-v0") {
        let why = format!("`{}` is a certificate, which is not verified by this version", shown(kind));
        return Err((why, "list the key itself"));
    }
    let key = PublicKey::from_openssh(&format!("{kind} {coded}"))
        .map_err(|_| ("the key cannot be read".to_owned(), "copy the whole line of the `.pub` file"))?;
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) => Ok(key.key_data().clone()),
        KeyData::Rsa(rsa) if rsa.n.as_positive_bytes().is_some_and(|n| n.len() >= 256) => Ok(key.key_data().clone()),
        KeyData::Rsa(_) => Err(unfit("has less than 2048 bits")),
        KeyData::Dsa(_) => Err(unfit("proves nothing any more")),
        KeyData::SkEcdsaSha2NistP256(_) | KeyData::Other(_) | _ => Err(unfit("is not verified by this version")),
    }
}

/// `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, with a `Z` behind it for UTC.
fn time(text: &str) -> Result<Timestamp, Wrong> {
    let wrong = || {
        let hint = "write `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, with a `Z` behind it for UTC";
        (format!("`{}` is no time", shown(text)), hint)
    };
    let (digits, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(digits) => (digits, TimeZone::UTC),
        None => (text, TimeZone::system()),
    };
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let part = |at: usize, length: usize| digits.get(at..at + length).map_or(Some(0), |part| part.parse::<i8>().ok());
    let year = digits.get(..4).and_then(|year| year.parse::<i16>().ok());
    let parts = (year, part(4, 2), part(6, 2), part(8, 2), part(10, 2), part(12, 2));
    let (Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) = parts else {
        return Err(wrong());
    };
    let civil = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| wrong())?;
    civil.to_zoned(zone).map(|zoned| zoned.timestamp()).map_err(|_| wrong())
}

/// The first word, with its quoted parts, and what follows it; nothing when a quote does not end.
fn word(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => return Some((&text[..at], text[at..].trim_start())),
            _ => {}
        }
    }
    (!quoted).then_some((text, ""))
}

/// Parts between commas that are in no quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut quoted) = (vec![], 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Whether a list of patterns holds a name: `*` and `?` stand for anything, and `!` before a pattern keeps it out.
fn matches(patterns: &str, name: &str) -> bool {
    let mut found = false;
    for pattern in patterns.split(',').map(str::trim) {
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(pattern.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= glob(pattern.as_bytes(), name.as_bytes()),
        }
    }
    found
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the last `*` must take one more.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((after, taken)) => {
                    (p, n) = (after, taken + 1);
                    star = Some((after, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

fn shown(text: &str) -> String {
    crate::source::error::plain(text).chars().take(60).collect()
}

/// A key as `ssh-keygen -l` shows it.
pub(super) fn fingerprint(key: &KeyData) -> String {
    format!("{} ({})", key.fingerprint(HashAlg::Sha256), key.algorithm())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3BOlfE0L8wXfRGHm7s1fQ3pI1yqPsQ4q1VQ0bQkGUh";

    fn wrong(line: &str) -> String {
        match AllowedSigners::parse("signers", &format!("# people\n\n{line}\n")) {
            Ok(_) => panic!("`{line}` is taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_line_that_cannot_be_used_is_named_with_the_way_out() {
        let cases = [
            ("alice", "there is no key"),
            ("alice ssh-ed25519", "there is no key"),
            ("alice ssh-ed25519 AAAA", "the key cannot be read"),
            ("\"alice ssh-ed25519 AAAA", "quotes do not end"),
            (&format!("alice, {KEY}"), "a principal is empty"),
            (&format!("alice namespace=\"git\" {KEY}"), "neither an option nor a kind of key"),
            (&format!("alice namespaces=git {KEY}"), "no value in quotes"),
            (&format!("alice namespaces=\"\" {KEY}"), "no value in quotes"),
            (&format!("alice namespaces=\"git\",namespaces=\"git\" {KEY}"), "stands twice"),
            (&format!("alice valid-before=\"2027\" {KEY}"), "`2027` is no time"),
            (&format!("alice valid-before=\"20271301\" {KEY}"), "is no time"),
            (&format!("alice valid-after=\"20270101Z\",valid-before=\"20260101Z\" {KEY}"), "not later"),
            (&format!("* cert-authority {KEY}"), "list the keys themselves"),
            ("alice ssh-ed25519-cert-v01@openssh.com AAAA", "list the key itself"),
            ("alice ssh-dss AAAA", "the key cannot be read"),
        ];
        for (line, what) in cases {
            let found = wrong(line);
            assert!(found.starts_with("signers:3: ") && found.contains(what), "{line}: {found}");
        }
        let empty = AllowedSigners::parse("signers", "# nobody\n").expect_err("nobody");
        assert!(empty.to_string().contains("lists no key"), "{empty}");
    }

    #[test]
    fn what_ssh_keygen_takes_is_taken() {
        for line in [
            format!("alice@example.com {KEY}"),
            format!("alice@example.com,*@example.org {KEY} a comment"),
            format!("\"alice example\" namespaces=\"git,file\" {KEY}"),
            format!("* NAMESPACES=\"*\",valid-after=\"20200101\",valid-before=\"209912312359Z\"  {KEY}"),
            format!("!mallory,* valid-after=\"20200101000000Z\"\t{KEY}"),
        ] {
            let signers = AllowedSigners::parse("signers", &line).unwrap_or_else(|error| panic!("{error}"));
            let now = "2026-11-24T00:00:00Z".parse().expect("a time");
            assert!(signers.who(&signers.lines[0].key, now, now).is_ok(), "{line}");
        }
    }

    #[test]
    fn times_are_those_of_the_commit_and_of_now() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let line = format!("alice valid-after=\"20260201Z\",valid-before=\"202603011200Z\" {KEY}");
        let signers = AllowedSigners::parse("signers", &line).expect("signers");
        let key = &signers.lines[0].key;
        let who = |made: &str, now: &str| signers.who(key, at(made), at(now)).map(str::to_owned);
        assert_eq!(who("2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z").as_deref(), Ok("alice"));
        assert!(who("2026-01-31T23:59:59Z", "2026-02-02T00:00:00Z").is_err_and(|why| why.contains("not valid yet")));
        assert!(who("2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z").is_err_and(|why| why.contains("had expired")));
        let back_dated = who("2026-02-15T00:00:00Z", "2026-03-02T00:00:00Z");
        assert!(back_dated.as_ref().is_err_and(|why| why.contains("line 1")), "{back_dated:?}");
    }

    #[test]
    fn namespaces_are_lists_of_patterns() {
        for (patterns, is) in [
            ("git", true),
            ("file,git", true),
            ("g?t", true),
            ("*", true),
            ("file", false),
            ("*,!git", false),
            ("gi", false),
        ] {
            assert_eq!(matches(patterns, "git"), is, "{patterns}");
        }
        assert!(glob(b"a*b*c", b"axxbyyc") && !glob(b"a*b*c", b"axxbyy") && glob(b"", b"") && glob(b"**", b"x"));
    }
}
