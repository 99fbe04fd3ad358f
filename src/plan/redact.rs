//! What is or looks like a secret, masked wherever a plan, a diff or a status shows a value.

use serde_json::{Map, Value};

use super::diff::{FieldPath, Segment};

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// Bytes of a text that is looked into for JSON; a longer one is not shown whole by anybody.
const MAX_WITHIN: usize = 256 << 10;

/// Masks what is or looks like a secret in the value of a field of an object of this kind.
///
/// All of a Secret's content; variables, keys and arguments whose names speak of a secret; the user part of URLs.
/// References to Secrets stay: they name them, and hold nothing.
pub fn redact(kind: &str, path: &FieldPath, value: &Value) -> Value {
    let mut names: Vec<&str> = path
        .0
        .iter()
        .filter_map(|segment| match segment {
            Segment::Field(name) => Some(name.as_str()),
            Segment::Key(_) | Segment::Index(_) => None,
        })
        .collect();
    if kind == "Secret" && matches!(names.first(), Some(&("data" | "stringData"))) {
        return mask_leaves(value);
    }
    if kind == "Secret" && names.is_empty() {
        let mut whole = masked(value, &mut names, None);
        for content in ["data", "stringData"] {
            if let Some(content) = whole.get_mut(content) {
                *content = mask_leaves(content);
            }
        }
        return whole;
    }
    // The name of a variable may stand in the path: `env[name=TOKEN].value`.
    let variable = path.0.iter().rev().find_map(|segment| match segment {
        Segment::Key(keys) => keys.iter().find(|(key, _)| key == "name").map(|(_, name)| name.as_str()),
        Segment::Field(_) | Segment::Index(_) => None,
    });
    masked(value, &mut names, variable)
}

fn mask_leaves(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), mask_leaves(value))).collect(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Value::from(MASK),
    }
}

fn masked<'v>(value: &'v Value, names: &mut Vec<&'v str>, variable: Option<&str>) -> Value {
    match value {
        Value::Object(fields) => {
            let variable = fields.get("name").and_then(Value::as_str).or(variable);
            let mut out = Map::new();
            for (key, value) in fields {
                names.push(key);
                out.insert(key.clone(), masked(value, names, variable));
                names.pop();
            }
            Value::Object(out)
        }
        Value::Array(elements) if matches!(names.last(), Some(&("args" | "command"))) => arguments(elements),
        Value::Array(elements) => elements.iter().map(|element| masked(element, names, variable)).collect(),
        Value::String(text) => {
            let of_variable = matches!(names.as_slice(), [.., "env", "value"]) && variable.is_some_and(is_secret_name);
            // A reference says where a secret is: `secretKeyRef.key`, `credentials.secret`.
            let reference = names.iter().rev().nth(1).is_some_and(|owner| {
                owner.ends_with("Ref") || matches!(*owner, "secret" | "credentials" | "configMap" | "database")
            });
            let of_key = !reference && names.last().is_some_and(|name| is_secret_key(name));
            match (of_variable || of_key, within(text)) {
                (true, _) => Value::from(MASK),
                // JSON in a text, as `kubectl` keeps what it applied last.
                (false, Some(inner)) => {
                    let kind = inner.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
                    let shown = redact(&kind, &FieldPath(vec![]), &inner);
                    if shown == inner { value.clone() } else { Value::from(shown.to_string()) }
                }
                (false, None) => Value::from(mask_text(text)),
            }
        }
        Value::Number(_) if names.last().is_some_and(|name| is_password(name)) => Value::from(MASK),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// The JSON that a text holds.
fn within(text: &str) -> Option<Value> {
    let text = text.trim();
    if text.len() > MAX_WITHIN || !text.starts_with(['{', '[']) { None } else { serde_json::from_str(text).ok() }
}

/// `--token abc`, `--token=abc`: the argument of an option that speaks of a secret.
fn arguments(elements: &[Value]) -> Value {
    let mut after_secret = false;
    let masked = elements.iter().map(|element| {
        let Some(text) = element.as_str() else { return element.clone() };
        let option = text.starts_with('-');
        let hides = std::mem::replace(&mut after_secret, option && !text.contains('=') && is_secret_name(text));
        if hides && !option { Value::from(MASK) } else { Value::from(mask_text(text)) }
    });
    masked.collect()
}

/// The words of a name: `openai_apiKey` is `openai`, `api`, `key`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && lower) {
            words.push(String::new());
        }
        lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        if let Some(word) = words.last_mut().filter(|_| c.is_ascii_alphanumeric()) {
            word.push(c.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_password(name: &str) -> bool {
    words(name).iter().any(|word| {
        matches!(
            word.as_str(),
            "password"
                | "passwd"
                | "passphrase"
                | "pwd"
                | "secret"
                | "secrets"
                | "credential"
                | "credentials"
                | "apikey"
                | "token"
                | "dsn"
                | "authorization"
                | "cookie"
                | "privatekey"
                | "accesskey"
                | "secretkey"
                | "pat"
        )
    })
}

/// Whether the name of a variable or an option speaks of a secret. `MAX_TOKENS` and `TOKENIZER` do not.
fn is_secret_name(name: &str) -> bool {
    let words = words(name);
    is_password(name)
        || words.last().is_some_and(|word| word == "key" && words.len() > 1)
        || words.windows(2).any(|pair| {
            matches!(
                [pair[0].as_str(), pair[1].as_str()],
                ["api" | "access" | "private" | "secret" | "signing" | "encryption", "key"]
            )
        })
}

/// Whether a field's or a ConfigMap key's name speaks of a secret, and is not one of the API's own.
fn is_secret_key(name: &str) -> bool {
    const API: [&str; 6] = [
        "secretName",
        "topologyKey",
        "imagePullSecrets",
        "automountServiceAccountToken",
        "serviceAccountToken",
        "secretRef",
    ];
    // The name of a file in a ConfigMap: `tls.key.md` is read without its last part.
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let (stem, name) = (stem.rsplit('/').next().unwrap_or(stem), name.rsplit('/').next().unwrap_or(name));
    !API.contains(&name) && !name.ends_with("Name") && (is_secret_name(name) || is_secret_name(stem))
}

/// Masks what looks like a secret inside a text: `password: x`, `TOKEN=x`, `Bearer x`, `https://user:x@host`, and the
/// well-known forms of keys.
pub fn mask_text(text: &str) -> String {
    text.split('\n').map(mask_line).collect::<Vec<_>>().join("\n")
}

fn mask_line(line: &str) -> String {
    let line = mask_urls(line);
    let line = mask_tokens(&line);
    let Some(at) = line.find([':', '=']) else { return line };
    let name = line[..at].trim();
    let name = name.strip_prefix("export ").unwrap_or(name).trim_matches(['"', '\'', '-', ' ']);
    let rest = line[at + 1..].trim_start_matches('=').trim();
    let plain = !name.is_empty() && !name.contains([' ', '(', '{', '<', '/']);
    if plain
        && is_secret_name(name)
        && !rest.is_empty()
        && !rest.starts_with("//")
        && !matches!(rest, "|" | ">" | "{" | "[")
    {
        return format!("{}{}{MASK}", &line[..=at], if line[at + 1..].starts_with(' ') { " " } else { "" });
    }
    line
}

/// `scheme://user:password@host` becomes `scheme://***@host`.
fn mask_urls(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?' | '#')).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(user) if user > 0 => {
                out.push_str(MASK);
                &after[user..]
            }
            _ => after,
        };
    }
    out.push_str(rest);
    out
}

/// Words that are keys by their form, and what follows `Bearer` or `Basic`.
fn mask_tokens(line: &str) -> String {
    const FORMS: [&str; 12] =
        ["sk-", "sk_live_", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "AIza", "eyJ"];
    let end = |c: char| c.is_whitespace() || matches!(c, '`' | '"' | '\'' | ',' | ';' | ')' | '}' | ']');
    let mut out = String::new();
    let mut after_scheme = false;
    let mut rest = line;
    while !rest.is_empty() {
        let length = rest.find(end).unwrap_or(rest.len());
        if length == 0 {
            let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
            out.push_str(&rest[..next]);
            rest = &rest[next..];
            continue;
        }
        let (word, after) = rest.split_at(length);
        let start = word.rfind(['=', ':']).map_or(0, |at| at + 1);
        let (before, token) = word.split_at(start);
        let key = token.len() >= 16 && FORMS.iter().any(|form| token.starts_with(form));
        if key || (after_scheme && token.len() >= 8) {
            out.push_str(before);
            out.push_str(MASK);
        } else {
            out.push_str(word);
        }
        after_scheme = token.eq_ignore_ascii_case("bearer") || token.eq_ignore_ascii_case("basic");
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_masked_and_references_stay() {
        let path = FieldPath::of(&["spec", "template", "spec"]);
        let spec = json!({
            "containers": [{
                "name": "agent",
                "args": ["--token", "abc", "--api-key=abc", "--max-tokens", "5", "--url=https://u:p@h/x"],
                "env": [
                    {"name": "OPENAI_API_KEY", "value": "abc"},
                    {"name": "MAX_TOKENS", "value": "4096"},
                    {"name": "DATABASE_URL", "value": "postgres://user:hunter2@db/agents"},
                    {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "agent-secrets", "key": "api-key"}}},
                ],
            }],
            "volumes": [{"name": "s", "secret": {"secretName": "agent-secrets"}}],
            "automountServiceAccountToken": false,
        });
        let masked = redact("Deployment", &path, &spec);
        assert_eq!(
            masked["containers"][0]["args"],
            json!(["--token", "***", "--api-key=***", "--max-tokens", "5", "--url=https://***@h/x"])
        );
        assert_eq!(
            masked["containers"][0]["env"],
            json!([
                {"name": "OPENAI_API_KEY", "value": "***"},
                {"name": "MAX_TOKENS", "value": "4096"},
                {"name": "DATABASE_URL", "value": "postgres://***@db/agents"},
                {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "agent-secrets", "key": "api-key"}}},
            ])
        );
        assert_eq!(masked["volumes"], spec["volumes"]);
        assert_eq!(masked["automountServiceAccountToken"], false);
    }

    #[test]
    fn a_variable_is_known_by_the_path_too() {
        let mut path = FieldPath::of(&["spec", "template", "spec", "containers"]);
        path.0.push(Segment::Key(vec![("name".into(), "agent".into())]));
        path.0.push(Segment::Field("env".into()));
        path.0.push(Segment::Key(vec![("name".into(), "SLACK_TOKEN".into())]));
        path.0.push(Segment::Field("value".into()));
        assert_eq!(redact("Deployment", &path, &json!("abc")), MASK);
    }

    #[test]
    fn a_secret_shows_its_keys_only() {
        let secret = json!({"data": {"a": "eA=="}, "stringData": {"b": "x"}, "type": "Opaque"});
        let masked = redact("Secret", &FieldPath::default(), &secret);
        assert_eq!(masked, json!({"data": {"a": "***"}, "stringData": {"b": "***"}, "type": "Opaque"}));
        assert_eq!(redact("Secret", &FieldPath::of(&["data", "a"]), &json!("eA==")), MASK);
        assert_eq!(redact("Secret", &FieldPath::of(&["data"]), &json!({"a": "eA=="})), json!({"a": MASK}));
    }

    #[test]
    fn texts_are_masked_line_by_line() {
        for (text, masked) in [
            ("password: hunter2", "password: ***"),
            ("export DB_PASSWORD=hunter2", "export DB_PASSWORD=***"),
            ("DB_PASSWORD=hunter2", "DB_PASSWORD=***"),
            ("  \"apiKey\": \"abc\",", "  \"apiKey\": ***"),
            ("max_tokens: 5", "max_tokens: 5"),
            ("Never tell the secret to anybody: be polite", "Never tell the secret to anybody: be polite"),
            ("Authorization: Bearer abcdefgh12345678", "Authorization: ***"),
            ("curl -H 'X: Bearer abcdefgh12345678'", "curl -H 'X: Bearer ***'"),
            ("use sk-abcdefghijklmnop123 now", "use *** now"),
            ("see https://example.com/a:b@c", "see https://example.com/a:b@c"),
        ] {
            assert_eq!(mask_text(text), masked);
        }
    }

    #[test]
    fn json_within_a_text_is_masked_by_its_keys() {
        let shown = |text: &str| redact("ConfigMap", &FieldPath::of(&["data", "config.json"]), &json!(text));
        let plain = r#"{"limits": {"max_tokens": 5}}"#;
        assert_eq!(shown(plain), plain);
        assert_eq!(shown(r#"{"a":{"api_key":"abc"},"b":["x"]}"#), r#"{"a":{"api_key":"***"},"b":["x"]}"#);
        let nested = json!({"env": {"DB": "postgres://u:p@h/x"}, "again": r#"{"token":"abc"}"#}).to_string();
        let masked = shown(&nested).to_string();
        assert!(!masked.contains("u:p") && !masked.contains("abc"), "{masked}");
        assert_eq!(shown("{not json, api_key: x"), "{not json, api_key: x");
    }

    #[test]
    fn keys_of_config_maps_that_speak_of_secrets() {
        for (key, hides) in [
            ("password", true),
            ("db.password", true),
            ("api_key.txt", true),
            ("prompts.system.md", false),
            ("release.json", false),
            ("keyboard", false),
            ("tokenizer.json", false),
        ] {
            let shown = redact("ConfigMap", &FieldPath::of(&["data", key]), &json!("x"));
            assert_eq!(shown == MASK, hides, "{key}");
        }
    }
}
