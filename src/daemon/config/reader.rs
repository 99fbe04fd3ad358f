//! Text and variables to [`Config`], with every error at its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{is_open, leaves, shape, variable};
use super::value::{check_format, default_state};
use super::{Config, Label, Remote, nearest};
use crate::measure::Settings;
use crate::model::{Diagnostic, Diagnostics, Origin};

/// Keys of the format that this version does not deliver.
const NOT_DELIVERED: &[(&str, &str)] = &[("source.verify.openpgp", "verification of signatures of OpenPGP")];
/// Variables with our prefix that are no keys: what an agent is given, and what the command line takes.
const OTHERS: &[&str] = &["BACKSTAY_CONFIG", "BACKSTAY_AGENT_DIR", "BACKSTAY_RELEASE", "BACKSTAY_LISTEN"];
/// Keys that only a repository over HTTP has a use for.
const HTTP_KEYS: [&str; 6] = ["username", "password", "password_file", "token", "token_file", "ca_file"];
/// Keys that only a repository over SSH has a use for.
const SSH_KEYS: [&str; 4] = ["ssh_key", "ssh_passphrase", "ssh_passphrase_file", "known_hosts"];
/// More tables than this in one list are refused.
const MAX_TABLES: usize = 1024;

/// A value as it was written, and where.
struct Node {
    key: Place,
    at: Place,
    raw: Raw,
}

enum Raw {
    Table(BTreeMap<String, Node>),
    List(Vec<Node>),
    Text(String),
    /// From a variable: text that becomes what the key needs.
    Loose(String),
    Number(Number),
    Bool(bool),
    Date,
}

#[derive(Clone)]
struct Place {
    origin: Origin,
    snippet: Option<String>,
    /// The variable it came from.
    variable: bool,
}

struct Reader<'a> {
    file: Arc<str>,
    text: &'a str,
    found: Vec<Diagnostic>,
}

pub(super) fn read(file: &str, text: &str, variables: &BTreeMap<String, String>) -> Result<Config, Diagnostics> {
    let mut reader = Reader { file: file.into(), text, found: Vec::new() };
    let shape = shape();
    let mut root = reader.document()?;
    reader.variables(&mut root, &shape, variables);
    let value = reader.check(&root, &shape, &mut Vec::new());
    reader.places(&root);
    reader.metrics(&root);
    reader.gates(&root);
    if reader.found.is_empty() {
        reader.agreement(&root);
    }
    if !reader.found.is_empty() {
        reader.found.sort_by(|a, b| a.origin.cmp(&b.origin));
        return Err(Diagnostics(reader.found));
    }
    let config: Config = serde_json::from_value(value)
        .map_err(|error| Diagnostic::error(Origin::file(file), format!("the configuration cannot be used: {error}")))?;
    if let (Err((key, why, hint)), Some(table)) = (config.source.forge(), root.at(["source", "pull_request"])) {
        let place = table.field(key).map_or(&table.key, |field| &field.at);
        return Err(complain(place, why).hint(hint).into());
    }
    Ok(config)
}

// === impl Reader ===

impl Reader<'_> {
    /// The text as a tree.
    fn document(&self) -> Result<Node, Diagnostics> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        if !errors.is_empty() {
            let syntax = errors.iter().map(|error| {
                let place = self.place(error.span().unwrap_or(0..0));
                complain(
                    &place,
                    format!("this is not TOML: {}", error.message().trim_end_matches('.').replace('\n', ", ")),
                )
            });
            return Err(Diagnostics(syntax.collect()));
        }
        let whole = Place { origin: Origin::file(Arc::clone(&self.file)), snippet: None, variable: false };
        Ok(Node { key: whole.clone(), at: whole, raw: self.table(table.into_inner()) })
    }

    fn table(&self, table: DeTable<'_>) -> Raw {
        let entry = |(key, value): (Spanned<_>, _)| {
            let place = self.place(key.span());
            let name: std::borrow::Cow<'_, str> = key.into_inner();
            (name.into_owned(), self.node(Some(place), value))
        };
        Raw::Table(table.into_iter().map(entry).collect())
    }

    fn node(&self, key: Option<Place>, value: Spanned<DeValue<'_>>) -> Node {
        let at = self.place(value.span());
        let raw = match value.into_inner() {
            DeValue::String(text) => Raw::Text(text.into_owned()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Raw::Number(number.into()),
                Err(_) => Raw::Text(number.to_string()),
            },
            DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => Raw::Number(number),
                None => Raw::Text(number.to_string()),
            },
            DeValue::Boolean(truth) => Raw::Bool(truth),
            DeValue::Datetime(_) => Raw::Date,
            DeValue::Array(items) => Raw::List(items.into_iter().map(|item| self.node(None, item)).collect()),
            DeValue::Table(table) => self.table(table),
        };
        Node { key: key.unwrap_or_else(|| at.clone()), at, raw }
    }

    /// Line, column and text of a place in the file.
    fn place(&self, span: Range<usize>) -> Place {
        let start = (0..=span.start.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let origin = Origin {
            file: Arc::clone(&self.file),
            line: number(before.matches('\n').count() + 1),
            column: number(before[line_start..].chars().count() + 1),
        };
        Place { origin, snippet: (!may_hold_secret(line)).then(|| line.to_owned()), variable: false }
    }

    /// Puts what variables say over what the file says.
    fn variables(&mut self, root: &mut Node, shape: &Value, variables: &BTreeMap<String, String>) {
        let keys = leaves(shape);
        for (name, text) in variables {
            let Some(word) = name.strip_prefix("BACKSTAY_") else { continue };
            if OTHERS.contains(&name.as_str()) || is_service_link(word) {
                continue;
            }
            let place = Place { origin: Origin::file(name.as_str()), snippet: None, variable: true };
            let matched = keys.iter().find_map(|(path, _)| matches(name, path));
            match matched {
                Some(path) => {
                    let leaf = Node { key: place.clone(), at: place.clone(), raw: Raw::Loose(text.clone()) };
                    if let Err(why) = put(root, &path, leaf, &place) {
                        self.found.push(
                            complain(&place, why)
                                .hint("indices continue where the file's tables end, from 0, without a gap"),
                        );
                    }
                }
                None => self.unknown_variable(name, &place, &keys),
            }
        }
    }

    /// A variable that no key has: refused when somebody may have meant one.
    fn unknown_variable(&mut self, name: &str, place: &Place, keys: &[(Vec<String>, Value)]) {
        let plain = generalise(name);
        let known: Vec<String> = keys.iter().map(|(path, _)| variable(path)).collect();
        let near = nearest(&plain, known.iter().map(String::as_str));
        let section = |path: &Vec<String>| {
            path.first().is_some_and(|first| {
                let prefix = format!("BACKSTAY_{}", first.to_uppercase());
                name == prefix || name.starts_with(&format!("{prefix}_"))
            })
        };
        if near.is_none() && !keys.iter().any(|(path, _)| section(path)) {
            return;
        }
        let complaint = complain(place, format!("no key of the configuration has the variable `{name}`"));
        self.found.push(match near {
            Some(near) => complaint.hint(format!("`{near}` is one")),
            None => complaint.hint("`backstay schema config` prints all keys"),
        });
    }

    /// The value of `node`, as `schema` wants it; what does not fit is complained about.
    fn check(&mut self, node: &Node, schema: &Value, path: &mut Vec<String>) -> Value {
        let wanted = schema.get("type").and_then(Value::as_str).unwrap_or("string");
        match (&node.raw, wanted) {
            (Raw::Table(fields), "object") => self.object(node, fields, schema, path),
            (Raw::List(items), "array") => {
                let nothing = Value::Null;
                let schema = schema.get("items").unwrap_or(&nothing);
                let one = |(n, item): (usize, &Node)| {
                    path.push(n.to_string());
                    let value = self.check(item, schema, path);
                    path.pop();
                    value
                };
                Value::Array(items.iter().enumerate().map(one).collect())
            }
            (Raw::Loose(text), "array") => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                words.map(Value::from).collect()
            }
            (Raw::Loose(text), "object") => self.pairs(node, text, path),
            (Raw::Loose(text), "integer") => match text.trim().parse::<i64>() {
                Ok(number) => self.number(node, &number.into(), schema, path),
                Err(_) => self.wrong_type(node, "a whole number", path),
            },
            (Raw::Loose(text), "boolean") => match text.trim() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => self.wrong_type(node, "`true` or `false`", path),
            },
            (Raw::Text(text) | Raw::Loose(text), "string") => self.text(node, text, schema, path),
            (Raw::Number(number), "integer") => self.number(node, number, schema, path),
            (Raw::Bool(truth), "boolean") => Value::Bool(*truth),
            (_, "object") => self.wrong_type(node, "a table", path),
            (_, "array") => self.wrong_type(node, "a list", path),
            (_, "integer") => self.wrong_type(node, "a whole number", path),
            (_, "boolean") => self.wrong_type(node, "`true` or `false`", path),
            (_, _) => self.wrong_type(node, "a text in quotes", path),
        }
    }

    fn object(
        &mut self,
        node: &Node,
        fields: &BTreeMap<String, Node>,
        schema: &Value,
        path: &mut Vec<String>,
    ) -> Value {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let mut value = Map::new();
        for (name, field) in fields {
            path.push(name.clone());
            match properties.get(name) {
                Some(property) if property.get("writeOnly") == Some(&Value::Bool(true)) && !field.at.variable => {
                    let plain = Place { snippet: None, ..field.key.clone() };
                    let shown = shown(path);
                    self.found.push(
                        complain(&plain, format!("`{shown}` is a secret, which has no place in this file")).hint(
                            format!("write it to a file and name that as `{name}_file`, or set `{}`", variable(path)),
                        ),
                    );
                }
                Some(property) => {
                    let checked = self.check(field, property, path);
                    value.insert(name.clone(), checked);
                }
                None => match schema.get("additionalProperties").filter(|every| every.is_object()) {
                    Some(every) => {
                        let checked = self.check(field, every, path);
                        value.insert(name.clone(), checked);
                    }
                    None => self.unknown_key(name, field, properties, path),
                },
            }
            path.pop();
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.missing(node, name, path);
            }
        }
        Value::Object(value)
    }

    /// A variable's `name=value, name=value`.
    fn pairs(&mut self, node: &Node, text: &str, path: &[String]) -> Value {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let mut pairs = Map::new();
        for word in words {
            match word.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                    pairs.insert(name.to_owned(), value.into());
                }
                Some(_) | None => return self.wrong_type(node, "`name=value, name=value`", path),
            }
        }
        Value::Object(pairs)
    }

    fn missing(&mut self, node: &Node, name: &str, path: &[String]) {
        let mut whole = path.to_vec();
        whole.push(name.to_owned());
        let complaint = complain(&node.key, format!("`{}` is missing", shown(&whole)));
        self.found.push(match shown(&whole).as_str() {
            "source" => complaint.hint("add `[source]` with the `url` of the config repository"),
            "target" => {
                complaint.hint("bind an environment: `[[target]]` with `environment`, and `kubernetes` or `host`")
            }
            _ => complaint.hint(format!("add `{name}`, or set `{}`", variable(&whole))),
        });
    }

    fn unknown_key(&mut self, name: &str, field: &Node, properties: &Map<String, Value>, path: &[String]) {
        if let Some((_, what)) = NOT_DELIVERED.iter().find(|(key, _)| *key == general(path)) {
            let complaint = complain(&field.key, format!("`{}`: {what} is not delivered by this version", shown(path)));
            self.found.push(complaint.hint("take it out; a later version brings it"));
            return;
        }
        let complaint = complain(&field.key, format!("there is no key `{}`", shown(path)));
        let known = properties.iter().filter(|(_, property)| property.get("writeOnly").is_none()).map(|(name, _)| name);
        let hint = match nearest(name, known.clone().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        };
        self.found.push(complaint.hint(hint));
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value, path: &[String]) -> Value {
        let choices: Vec<&str> = match (schema.get("enum"), schema.get("oneOf")) {
            (Some(Value::Array(choices)), _) => choices.iter().filter_map(Value::as_str).collect(),
            (_, Some(Value::Array(choices))) => {
                choices.iter().filter_map(|choice| choice.get("const")).filter_map(Value::as_str).collect()
            }
            (_, _) => Vec::new(),
        };
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        if !choices.is_empty() && !choices.contains(&text) {
            let known = choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
            self.found.push(
                complain(&node.at, format!("`{}` cannot be `{text}`", shown(path))).hint(format!("one of {known}")),
            );
        } else if text.trim().is_empty() {
            self.found.push(complain(&node.at, format!("`{}` is empty", shown(path))));
        } else if let Err(why) = check_format(format, text) {
            let plain = Place {
                snippet: if format == "git-remote" { None } else { node.at.snippet.clone() },
                ..node.at.clone()
            };
            let why = crate::plan::mask_text(&why);
            let complaint = complain(&plain, format!("`{}` cannot be used: {why}", shown(path)));
            self.found.push(match format {
                "git-remote" => complaint.hint(
                    "`ssh://git@host/path`, `https://host/path`, `git@host:path`, or an absolute path; a password goes \
                     into `password_file` or `token_file`",
                ),
                _ => complaint,
            });
        }
        Value::from(text)
    }

    fn number(&mut self, node: &Node, number: &Number, schema: &Value, path: &[String]) -> Value {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (least, most) = (bound("minimum").unwrap_or(0.0), bound("maximum").unwrap_or(f64::from(u32::MAX)));
        if number.as_i64().is_none() {
            return self.wrong_type(node, "a whole number", path);
        }
        if number.as_f64().is_none_or(|number| number < least || number > most) {
            let complaint = complain(&node.at, format!("`{}` is out of bounds: {least} to {most}", shown(path)));
            self.found.push(complaint);
        }
        Value::Number(number.clone())
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, path: &[String]) -> Value {
        let found = match &node.raw {
            Raw::Table(_) => "a table",
            Raw::List(_) => "a list",
            Raw::Text(_) | Raw::Loose(_) => "a text",
            Raw::Number(_) => "a number",
            Raw::Bool(_) => "`true` or `false`",
            Raw::Date => "a date",
        };
        self.found.push(complain(&node.at, format!("`{}` is {found}, {wanted} is expected", shown(path))));
        Value::Null
    }

    /// What no schema says: that the parts fit each other.
    fn agreement(&mut self, root: &Node) {
        let Some(source) = root.field("source") else { return };
        let remote = source.field("url").and_then(Node::text).and_then(|url| url.parse::<Remote>().ok());
        let url = source.field("url").map_or(&source.key, |url| &url.at).clone();
        if remote.as_ref().is_some_and(Remote::is_ssh) {
            for (name, hint) in [
                ("ssh_key", "name the private key of the deploy key: `ssh_key = \"/etc/backstay/ssh/id_ed25519\"`"),
                ("known_hosts", "pin the host's key: `ssh-keyscan HOST > known_hosts`, compare it, and name that file"),
            ] {
                if source.field(name).is_none() {
                    let complaint =
                        complain(&url, format!("`source.{name}` is missing: the repository is read over SSH"));
                    self.found.push(complaint.hint(hint));
                }
            }
        }
        let unfit: &[&str] = match &remote {
            Some(remote) if remote.is_ssh() => &HTTP_KEYS,
            Some(remote) if remote.is_http() => &SSH_KEYS,
            Some(_) | None => &[],
        };
        for name in unfit {
            if let Some(field) = source.field(name) {
                let other = if SSH_KEYS.contains(name) { "SSH" } else { "HTTPS" };
                let complaint = complain(&field.key, format!("`source.{name}` is for {other}, which the URL is not"));
                self.found.push(complaint.hint("take it out, or change `source.url`"));
            }
        }
        let password = source.field("password").or_else(|| source.field("password_file"));
        if let (Some(password), None) = (password, source.field("username")) {
            let complaint = complain(&password.key, "`source.username` is missing: there is a password".to_owned());
            self.found.push(complaint.hint("add `username`, or give an access token as `token_file`"));
        }
        for (one, other) in [("token", "password"), ("token_file", "password_file"), ("token_file", "password")] {
            if let (Some(_), Some(second)) = (source.field(one), source.field(other)) {
                let both = format!("`source.{one}` and `source.{other}` exclude each other");
                self.found.push(complain(&second.key, both).hint("keep one of them"));
            }
        }
        // A table without keys would look as if something were verified.
        let is_empty =
            |verify: &&Node| ["ssh_allowed_signers", "openpgp_keys"].iter().all(|keys| verify.field(keys).is_none());
        if let Some(verify) = source.field("verify").filter(is_empty) {
            let complaint = complain(&verify.key, "`source.verify` names nobody whose commits are accepted".to_owned());
            self.found.push(complaint.hint("add `ssh_allowed_signers` or `openpgp_keys`, or take the table out"));
        }
        self.targets(root);
    }

    /// That each target has exactly one place.
    fn places(&mut self, root: &Node) {
        let Some(Node { raw: Raw::List(targets), .. }) = root.field("target") else { return };
        for target in targets.iter().filter(|target| matches!(target.raw, Raw::Table(_))) {
            match (target.field("kubernetes"), target.field("host")) {
                (Some(_), Some(host)) => {
                    let both = "`target.kubernetes` and `target.host` exclude each other".to_owned();
                    let hint = "keep one of them; an environment that runs in both places is two environments";
                    self.found.push(complain(&host.key, both).hint(hint));
                }
                (None, None) => {
                    let complaint = complain(&target.key, "the target does not say where it runs".to_owned());
                    let hint = "add `kubernetes = { namespace = \"…\" }`, or `host = {}` for this machine";
                    self.found.push(complaint.hint(hint));
                }
                (Some(_), None) | (None, Some(_)) => {}
            }
        }
    }

    /// That each section of metrics has a name that agents can use, and exactly one kind of server.
    fn metrics(&mut self, root: &Node) {
        let Some(Node { raw: Raw::Table(sections), .. }) = root.field("metrics") else { return };
        let kinds = Settings::KINDS.map(|kind| format!("`{kind}`")).join(", ");
        for (name, section) in sections.iter().filter(|(_, section)| matches!(section.raw, Raw::Table(_))) {
            if Settings::OWN.contains(&name.as_str()) {
                let complaint =
                    complain(&section.key, format!("`metrics.{name}` is what the target measures by itself"));
                self.found.push(complaint.hint("choose another name"));
            } else if name.parse::<Label>().is_err() {
                let message = format!("`metrics.{}` is not a name", name.escape_debug());
                self.found.push(complain(&section.key, message).hint("1 to 63 lower-case letters, digits and `-`"));
            }
            let given: Vec<&Node> = Settings::KINDS.iter().filter_map(|kind| section.field(kind)).collect();
            match given.as_slice() {
                [_] => {}
                [] => {
                    let complaint = complain(&section.key, format!("`metrics.{name}` does not say who measures"));
                    self.found.push(complaint.hint(format!("add one of {kinds}")));
                }
                [_, second, ..] => {
                    let both = format!("`metrics.{name}` has several kinds of servers");
                    self.found.push(complain(&second.key, both).hint("keep one of them; give each a name of its own"));
                }
            }
        }
    }

    /// That each gate has a name that a step can use.
    fn gates(&mut self, root: &Node) {
        let Some(Node { raw: Raw::Table(sections), .. }) = root.field("gates") else { return };
        for (name, section) in sections {
            let plain = |byte: u8| byte.is_ascii_alphanumeric();
            let ends = name.bytes().next().is_some_and(plain) && name.bytes().last().is_some_and(plain);
            let all = name.len() <= 63 && name.bytes().all(|byte| plain(byte) || b"-_".contains(&byte));
            if !(ends && all) {
                let message = format!("`gates.{}` is not a name", name.escape_debug());
                self.found
                    .push(complain(&section.key, message).hint("1 to 63 letters, digits, `-` and `_` in between"));
            }
        }
    }

    fn targets(&mut self, root: &Node) {
        let Some(Node { raw: Raw::List(targets), .. }) = root.field("target") else { return };
        let (mut environments, mut places) = (BTreeMap::new(), BTreeMap::new());
        for target in targets {
            let Some(environment) = target.field("environment") else { continue };
            if let Some(first) = environments.insert(environment.text(), &environment.at) {
                let name = environment.text().unwrap_or_default();
                let complaint = complain(&environment.at, format!("the environment `{name}` is bound twice"));
                self.found.push(complaint.hint(format!("it is bound at {} already", first.origin)));
            }
            match (target.field("kubernetes"), target.field("host")) {
                (Some(kubernetes), None) => {
                    let word = |name| kubernetes.field(name).and_then(Node::text);
                    let place = (word("namespace"), word("context"), word("kubeconfig"));
                    let at = kubernetes.field("namespace").map_or(&kubernetes.at, |namespace| &namespace.at);
                    if let Some(first) = places.insert(place, at) {
                        let namespace = word("namespace").unwrap_or_default();
                        let complaint = complain(at, format!("two environments share the namespace `{namespace}`"));
                        let hint = format!("it is taken at {} already; give each its own", first.origin);
                        self.found.push(complaint.hint(hint));
                    }
                }
                (None, Some(host)) => self.host(host, root),
                // Told by `places`.
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        if targets.is_empty() {
            let complaint = complain(&root.key, "no environment is bound".to_owned());
            self.found.push(complaint.hint("add `[[target]]` with `environment`, and `kubernetes` or `host`"));
        }
    }

    /// What no schema says of a host: paths are absolute, a folder of state is told apart from those that are given.
    fn host(&mut self, host: &Node, root: &Node) {
        let path = |node: &Node| node.text().map(PathBuf::from);
        for name in ["secrets", "artifacts", "keeper"] {
            let Some(node) = host.field(name) else { continue };
            if path(node).is_some_and(|path| path.is_relative()) {
                let complaint = complain(&node.at, format!("`target.host.{name}` is not an absolute path"));
                self.found.push(complaint.hint("begin it with `/`: the daemon's own folder is nobody's business"));
            }
        }
        let state = root.field("state").and_then(|state| state.field("folder")).and_then(path);
        let state = state.unwrap_or_else(default_state);
        for name in ["secrets", "artifacts"] {
            let Some(node) = host.field(name) else { continue };
            if path(node).is_some_and(|path| path.starts_with(&state) || state.starts_with(&path)) {
                let message = format!("`target.host.{name}` and `state.folder` lie within each other");
                self.found
                    .push(complain(&node.at, message).hint("the daemon writes to one of them; give each its own"));
            }
        }
        let Some(Node { raw: Raw::Table(programs), .. }) = host.field("interpreters") else {
            if let Some(node) = host.field("interpreters") {
                for (name, program) in node.text().unwrap_or_default().split(',').filter_map(|one| one.split_once('='))
                {
                    self.interpreter(name.trim(), &PathBuf::from(program.trim()), node);
                }
            }
            return;
        };
        for (name, node) in programs {
            self.interpreter(name, &path(node).unwrap_or_default(), node);
        }
    }

    fn interpreter(&mut self, name: &str, program: &Path, node: &Node) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        if !name.bytes().all(plain) || name.starts_with(['.', '-']) || name.is_empty() {
            let message = format!("`target.host.interpreters`: `{name}` cannot be the first word of a command");
            self.found
                .push(complain(&node.key, message).hint("letters, digits, `.`, `_`, `+`, `-`, such as `python3`"));
        }
        if program.is_relative() {
            let message = format!("`target.host.interpreters.{name}` is not an absolute path");
            let hint = format!("`{name} = \"/usr/bin/{name}\"`");
            self.found.push(complain(&node.at, message).hint(hint));
        }
    }
}

// === impl Node ===

impl Node {
    fn at<const N: usize>(&self, path: [&str; N]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.field(name))
    }

    fn field(&self, name: &str) -> Option<&Self> {
        match &self.raw {
            Raw::Table(fields) => fields.get(name),
            Raw::List(_) | Raw::Text(_) | Raw::Loose(_) | Raw::Number(_) | Raw::Bool(_) | Raw::Date => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match &self.raw {
            Raw::Text(text) | Raw::Loose(text) => Some(text),
            Raw::Table(_) | Raw::List(_) | Raw::Number(_) | Raw::Bool(_) | Raw::Date => None,
        }
    }
}

/// Puts `leaf` at `path` below `node`, making tables on the way.
fn put(node: &mut Node, path: &[String], leaf: Node, place: &Place) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *node = leaf;
        return Ok(());
    };
    let fresh = |rest: &[String]| {
        let list = rest.first().is_some_and(|next| next.parse::<usize>().is_ok());
        let raw = if list { Raw::List(Vec::new()) } else { Raw::Table(BTreeMap::new()) };
        Node { key: place.clone(), at: place.clone(), raw }
    };
    match &mut node.raw {
        Raw::Table(fields) => put(fields.entry(first.clone()).or_insert_with(|| fresh(rest)), rest, leaf, place),
        Raw::List(items) => {
            let index: usize = first.parse().map_err(|_| format!("`{first}` is not an index"))?;
            if index > items.len() || index >= MAX_TABLES {
                return Err(format!("the index {index} leaves a gap: {} would be next", items.len()));
            }
            if index == items.len() {
                items.push(fresh(rest));
            }
            put(&mut items[index], rest, leaf, place)
        }
        Raw::Text(_) | Raw::Loose(_) | Raw::Number(_) | Raw::Bool(_) | Raw::Date => {
            *node = fresh(path);
            put(node, path, leaf, place)
        }
    }
}

/// The path that the variable `name` stands for, if it is the one of `pattern`.
fn matches(name: &str, pattern: &[String]) -> Option<Vec<String>> {
    let Some(at) = pattern.iter().position(|word| is_open(word)) else {
        return (variable(pattern) == name).then(|| pattern.to_vec());
    };
    let rest = name.strip_prefix(&variable(&pattern[..at]))?.strip_prefix('_')?;
    let (index, rest) = rest.split_once('_')?;
    let rest_pattern: Vec<String> = pattern[at + 1..].iter().map(|word| word.to_uppercase()).collect();
    let place = if pattern[at] == "{n}" {
        index.parse::<usize>().ok()?.to_string()
    } else {
        // A name that began with a digit would be taken for an index.
        Some(index.to_lowercase()).filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase()))?
    };
    (rest == rest_pattern.join("_")).then(|| {
        let mut path = pattern.to_vec();
        path[at] = place;
        path
    })
}

/// `BACKSTAY_TARGET_3_…` with `{n}` in place of the number.
fn generalise(name: &str) -> String {
    name.split('_').map(|word| if is_index(word) { "{n}" } else { word }).collect::<Vec<_>>().join("_")
}

/// What Kubernetes puts into every pod for a Service whose name begins with `backstay`.
fn is_service_link(word: &str) -> bool {
    let words: Vec<&str> = word.split('_').collect();
    let last_of = |part: &str| words.iter().rposition(|word| *word == part);
    word.ends_with("SERVICE_HOST")
        || word.contains("SERVICE_PORT")
        || word == "PORT"
        || word.ends_with("_PORT")
        || last_of("PORT").is_some_and(|at| {
            words.get(at + 1).is_some_and(|number| number.parse::<u16>().is_ok())
                && words.get(at + 2).is_some_and(|protocol| matches!(*protocol, "TCP" | "UDP" | "SCTP"))
        })
}

/// Whether a line's key says that its value may be a secret: such a line is never shown.
fn may_hold_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    let named = |word: &str| line.match_indices(word).any(|(at, _)| !line[at + word.len()..].starts_with("_file"));
    ["secret", "password", "token"].into_iter().any(named)
        || line.split_once("://").is_some_and(|(_, rest)| {
            rest.split('/').next().is_some_and(|host| host.contains('@') && host.contains(':'))
        })
}

/// A path as people write it: without indices.
fn shown(path: &[String]) -> String {
    path.iter().filter(|word| !is_index(word)).map(String::as_str).collect::<Vec<_>>().join(".")
}

/// A path with `{n}` in place of indices.
fn general(path: &[String]) -> String {
    path.iter().map(|word| if is_index(word) { "{n}" } else { word }).collect::<Vec<_>>().join(".")
}

fn is_index(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn complain(place: &Place, message: String) -> Diagnostic {
    let complaint = Diagnostic::error(place.origin.clone(), message);
    match &place.snippet {
        Some(line) => complaint.snippet(line),
        None => complaint,
    }
}
