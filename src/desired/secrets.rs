//! Values that look like secrets: they are refused where a reference belongs, and never repeated.

use super::read::{Kind, Node};
use crate::model::Diagnostic;

/// Ends of names whose plain value is a secret, in upper case with `_` between words.
const NAMES: [&str; 12] = [
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "SECRET_KEY",
    "PRIVATE_KEY",
    "ACCESS_TOKEN",
    "AUTH_TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "CREDENTIALS",
];

/// Beginnings of tokens that are well known, how many characters follow at least, and what they are.
const SHAPES: [(&str, usize, &str); 22] = [
    ("sk-", 20, "an API key"),
    ("sk_live_", 16, "an API key"),
    ("rk_live_", 16, "an API key"),
    ("ghp_", 30, "a GitHub token"),
    ("gho_", 30, "a GitHub token"),
    ("ghu_", 30, "a GitHub token"),
    ("ghs_", 30, "a GitHub token"),
    ("ghr_", 30, "a GitHub token"),
    ("github_pat_", 30, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("AKIA", 16, "an AWS access key"),
    ("ASIA", 16, "an AWS access key"),
    ("AIza", 30, "a Google API key"),
    ("ya29.", 20, "a Google token"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
    ("xoxa-", 20, "a Slack token"),
    ("xapp-", 20, "a Slack token"),
    ("hf_", 30, "a Hugging Face token"),
    ("npm_", 30, "an npm token"),
    ("pypi-", 50, "a PyPI token"),
    ("SG.", 40, "a SendGrid key"),
];

/// What kind of secret a text looks like, by its content alone.
pub(super) fn shape(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY") {
        return Some("a private key");
    }
    text.split(|c: char| !(c.is_ascii_graphic()) || "\"'`,;(){}[]<>|=".contains(c)).find_map(word)
}

/// The same for one word of a text.
fn word(word: &str) -> Option<&'static str> {
    if let Some((_, rest)) = word.split_once("://")
        && let Some((user, _)) = rest.split('/').next().unwrap_or_default().rsplit_once('@')
        && let Some((_, password)) = user.split_once(':')
        && !password.is_empty()
        && !password.starts_with('$')
    {
        return Some("an address with a password");
    }
    let token = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    // A token may follow something: `Bearer:sk-…`.
    word.split(|c: char| !token(c)).find_map(|part| {
        let known = SHAPES.iter().find(|(start, least, _)| {
            part.strip_prefix(start).is_some_and(|rest| {
                let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                let cloud = matches!(*start, "AKIA" | "ASIA");
                rest.len() >= *least
                    && (!cloud || (rest.len() == *least && rest.bytes().all(upper)))
                    // Words joined by dashes are no token: one has digits or capitals among its letters.
                    && rest.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
            })
        });
        known.map(|(_, _, what)| *what).or_else(|| json_web_token(part).then_some("a JSON web token"))
    })
}

fn json_web_token(part: &str) -> bool {
    let mut parts = part.split('.');
    let header = |part: Option<&str>| part.is_some_and(|part| part.starts_with("eyJ") && part.len() > 10);
    header(parts.next()) && header(parts.next()) && parts.next().is_some()
}

/// Whether the name says that its value is a secret: `OPENAI_API_KEY`, `clientSecret`.
pub(super) fn named(name: &str) -> bool {
    let name = words(name);
    NAMES.iter().any(|end| name == *end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('_')))
}

/// The same for an environment variable, where a bare `…_TOKEN` is a secret too.
pub(super) fn named_variable(name: &str) -> bool {
    let name = words(name);
    named(&name) || name == "TOKEN" || name.ends_with("_TOKEN")
}

/// `camelCase` and `kebab-case` as `UPPER_CASE`.
fn words(name: &str) -> String {
    let mut upper = String::with_capacity(name.len() + 4);
    let mut lower_before = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && lower_before {
            upper.push('_');
        }
        lower_before = c.is_ascii_lowercase() || c.is_ascii_digit();
        upper.push(if c == '-' || c == '.' || c == ' ' { '_' } else { c.to_ascii_uppercase() });
    }
    upper
}

/// Whether a line of a file may hold a secret, where it could not be parsed.
pub(super) fn in_line(line: &str) -> bool {
    if shape(line).is_some() {
        return true;
    }
    let named_value = |(name, value): (&str, &str)| {
        let name = name.trim_end().trim_end_matches(['"', '\'']);
        let name = name.rsplit(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c))).next().unwrap_or_default();
        let value = value.trim_start();
        // `{secret: …, key: …}` is a reference.
        let reference = name == "secret" && line.contains("key:");
        let opens = value.starts_with(['{', '#', '|', '>']) || value.trim_end() == "[";
        named_variable(name) && !reference && !value.is_empty() && !opens
    };
    let ends = line.char_indices().filter(|(_, c)| *c == ':' || *c == '=');
    ends.into_iter().any(|(at, _)| named_value((&line[..at], &line[at + 1..])))
}

/// Adds an error for every value beneath `node` that is a secret by its shape or by the name of its key.
///
/// `{secret, key}` is a reference, and nothing in it is a value.
pub(super) fn refuse(node: &Node, variables: bool, errors: &mut Vec<Diagnostic>) {
    match &node.kind {
        Kind::Text(text) => {
            if let Some(what) = shape(text) {
                errors.push(plain(&node.spot, format!("{what} is written in plain text")));
            }
        }
        Kind::List(items) => items.iter().for_each(|item| refuse(item, variables, errors)),
        Kind::Map(map) => {
            for field in &map.0 {
                let value = &field.value;
                let secret = if variables { named_variable(&field.key) } else { named(&field.key) };
                let plainly = match &value.kind {
                    Kind::Text(text) => !text.is_empty() && text != "true" && text != "false" && !reference(node),
                    Kind::Number(_) => true,
                    Kind::Null | Kind::Bool(_) | Kind::List(_) | Kind::Map(_) => false,
                };
                if variables && value.map().is_some() {
                    // `{secret, key}` or `{field}`: the schema says what may stand there.
                } else if secret && plainly {
                    let message = format!("the value of `{}` is a secret in plain text", field.key.escape_default());
                    errors.push(plain(&value.spot, message));
                } else {
                    refuse(value, variables, errors);
                }
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) => {}
    }
}

/// The same for a whole `spec`, or anything that holds containers: each part by the names that count there.
pub(super) fn refuse_in_spec(node: &Node, errors: &mut Vec<Diagnostic>) {
    match &node.kind {
        Kind::Map(map) => {
            // One variable of a container: `{name: …, value: …}`.
            let item = (node.get("name").and_then(Node::text), node.get("value"));
            if let (Some(name), Some(value)) = item
                && named_variable(name)
                && value.text().is_some_and(|text| !matches!(text, "" | "true" | "false"))
            {
                errors.push(plain(
                    &value.spot,
                    format!("the value of `{}` is a secret in plain text", name.escape_default()),
                ));
                return;
            }
            for field in &map.0 {
                match (&*field.key, &field.value.kind) {
                    ("env", Kind::Map(_)) => refuse(&field.value, true, errors),
                    ("config" | "parameters", _) => refuse(&field.value, false, errors),
                    _ => refuse_in_spec(&field.value, errors),
                }
            }
        }
        Kind::List(items) => items.iter().for_each(|item| refuse_in_spec(item, errors)),
        Kind::Text(_) => refuse(node, false, errors),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) => {}
    }
}

/// Adds what `refuse` finds to `found`, where nothing was said of the same place.
pub(super) fn add(found: &mut Vec<Diagnostic>, refuse: impl FnOnce(&mut Vec<Diagnostic>)) {
    let mut plain = vec![];
    refuse(&mut plain);
    plain.retain(|error| !found.iter().any(|other| other.origin == error.origin));
    found.extend(plain);
}

/// Whether a map is `{secret: …, key: …}` and nothing else.
fn reference(node: &Node) -> bool {
    node.fields().len() == 2 && node.get("secret").is_some() && node.get("key").is_some()
}

fn plain(spot: &super::read::Spot, message: String) -> Diagnostic {
    // Without a snippet, whatever the line holds.
    Diagnostic::error(spot.origin(), message).hint(
        "put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together here, so that no scanner takes this file for a leak.
    fn made(start: &str, rest: &str, times: usize) -> String {
        format!("{start}{}", rest.repeat(times))
    }

    #[test]
    fn tokens_are_known_by_their_shape() {
        for (secret, what) in [
            (made("sk-", "Ab3", 10), "an API key"),
            (made("sk-proj-", "Ab3_", 10), "an API key"),
            (made("ghp_", "aB3d", 9), "a GitHub token"),
            (made("AKIA", "ABCD1234", 2), "an AWS access key"),
            (made("glpat-", "aB3d", 5), "a GitLab token"),
            (made("xoxb-", "1234-", 5), "a Slack token"),
            (format!("Bearer {}", made("sk-", "Ab3", 10)), "an API key"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMII".to_owned(), "a private key"),
            ("postgres://app:hunter2@db:5432/app".to_owned(), "an address with a password"),
            (format!("{}.{}.sig", made("eyJ", "abc", 5), made("eyJ", "def", 5)), "a JSON web token"),
        ] {
            assert_eq!(shape(&secret), Some(what), "{secret}");
        }
        for plain in [
            "sk-learn",
            "sk-this-is-a-long-name-of-words",
            "AKIAfoo",
            "ASIA",
            "postgres://db:5432/app",
            "postgres://app:$(PASSWORD)@db/app",
            "https://example.com/a@b:c",
            "eyJhbGciOi",
            "a text about ghp_ tokens",
        ] {
            assert_eq!(shape(plain), None, "{plain}");
        }
    }

    #[test]
    fn names_say_what_a_value_is() {
        for secret in ["OPENAI_API_KEY", "apiKey", "client-secret", "PASSWORD", "db.password", "authToken"] {
            assert!(named(secret), "{secret}");
        }
        for plain in ["max_tokens", "token", "secretary", "PASSWORD_FILE", "KEYBOARD", "cache_key", "tokenizer"] {
            assert!(!named(plain), "{plain}");
        }
        assert!(named_variable("GITHUB_TOKEN") && named_variable("TOKEN") && !named_variable("TOKEN_BUDGET"));
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_known_without_parsing_it() {
        for secret in
            ["  DB_PASSWORD: hunter2", "env: {API_KEY: [hunter2]}", "{a: 1, apiKey: \"x\"}", "export TOKEN=abc"]
        {
            assert!(in_line(secret), "{secret}");
        }
        for plain in ["  OPENAI_API_KEY: {secret: a, key: b}", "credentials: {secret: a, key: b}", "a: b", "password:"]
        {
            assert!(!in_line(plain), "{plain}");
        }
    }
}
