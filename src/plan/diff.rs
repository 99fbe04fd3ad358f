//! What differs between two objects, field by field, as Kubernetes reads them.
//!
//! Drift is about our fields only: lists are compared by key where the API has one, so that what others add is theirs;
//! atomic lists are compared whole, but for what a server puts into their elements. Quantities are compared by amount.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::quantity::same_amount;
use crate::render::{ListKind, MapKind, base64, key_default, list_kind, map_kind};

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A field of a map.
    Field(String),
    /// The element of a keyed list with these values in its key fields.
    Key(Vec<(String, String)>),
    /// An element of a list by its place, from 0.
    Index(usize),
}

/// Where a field is: `spec.template.spec.containers[name=agent].image`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(pub Vec<Segment>);

/// A rendered field that is otherwise in the cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Which field.
    pub path: FieldPath,
    /// What was rendered.
    pub ours: Value,
    /// What is there; nothing where the field is missing.
    pub live: Option<Value>,
}

/// A field that differs between two rendered objects.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Which field.
    pub path: FieldPath,
    /// Before; nothing where it is new.
    pub from: Option<Value>,
    /// After; nothing where it is gone.
    pub to: Option<Value>,
}

/// Finds the rendered fields that are otherwise in the cluster, sorted by path; none means that nothing need be written.
///
/// `apiVersion` and `kind` are the identity and are not compared. What was rendered as `null`, or as an empty list or map
/// that says no more than its absence, asks for nothing.
pub fn drift(rendered: &Value, live: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    let mut at = At::root(rendered);
    if let Value::Object(fields) = rendered {
        for (key, ours) in fields.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")) {
            if key == "stringData" && at.is("", "Secret") {
                drift_of_string_data(ours, live.get("data"), &mut found);
            } else {
                at.below(key, |at| walk(ours, live.get(key), at, &mut found));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Finds all fields that differ between two rendered forms of one object, sorted by path.
///
/// A map or element that is wholly new or gone is one change.
pub fn changes(old: &Value, new: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(Some(old), Some(new), &mut At::root(new), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Finds the fields that were rendered once and are no longer, sorted by path: the topmost of each.
///
/// The server takes them away only from a manager that it knows to have applied them.
pub fn dropped(old: &Value, new: &Value) -> Vec<FieldPath> {
    let mut found = Vec::new();
    drop_below(old, new, &mut At::root(new), &mut found);
    found.sort();
    found
}

/// Where a walk stands, as people read it and as the API knows it.
///
/// It borrows all it names: most walks find nothing, and no path need be made for them.
struct At<'a> {
    group: &'a str,
    kind: &'a str,
    path: Vec<Place<'a>>,
    names: Vec<&'a str>,
}

/// One step of a walk.
#[derive(Clone, Copy)]
enum Place<'a> {
    Field(&'a str),
    /// This element of a list that is read by these fields.
    Element(&'a Value, &'static [&'static str]),
    Index(usize),
}

impl Place<'_> {
    fn segment(&self) -> Segment {
        match *self {
            Self::Field(name) => Segment::Field(name.to_owned()),
            Self::Element(element, keys) => shown(&key_of(element, keys).unwrap_or_default()),
            Self::Index(index) => Segment::Index(index),
        }
    }
}

impl<'a> At<'a> {
    fn root(body: &'a Value) -> Self {
        let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
        Self { group, kind: text("kind"), path: vec![], names: vec![] }
    }

    fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    fn path(&self) -> FieldPath {
        FieldPath(self.path.iter().map(Place::segment).collect())
    }

    fn list_kind(&self) -> ListKind {
        list_kind(self.group, self.kind, &self.names)
    }

    fn map_kind(&self) -> MapKind {
        map_kind(self.group, self.kind, &self.names)
    }

    fn below<R>(&mut self, key: &'a str, walk: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(Place::Field(key));
        self.names.push(key);
        let result = walk(self);
        self.names.pop();
        self.path.pop();
        result
    }

    fn inside<R>(&mut self, element: Place<'a>, walk: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(element);
        let result = walk(self);
        self.path.pop();
        result
    }

    /// Whether the API server of Kubernetes itself keeps this kind, in Go types that drop zero values.
    fn is_built_in(&self) -> bool {
        const GROUPS: [&str; 7] =
            ["", "apps", "autoscaling", "batch", "networking.k8s.io", "policy", "rbac.authorization.k8s.io"];
        GROUPS.contains(&self.group)
    }

    /// Whether the map that this field is in has names of people's own.
    fn is_free_form(&self) -> bool {
        let owner = self.names.len().checked_sub(2).and_then(|owner| self.names.get(owner));
        let names = ["data", "binaryData", "stringData", "labels", "annotations", "matchLabels", "nodeSelector"];
        owner.is_some_and(|owner| names.contains(owner) || (*owner == "selector" && self.is("", "Service")))
    }

    fn name(&self) -> &'a str {
        self.names.last().copied().unwrap_or_default()
    }

    /// Whether `ours` says no more than the field's absence.
    fn says_nothing(&mut self, ours: &'a Value) -> bool {
        let free_form = self.is_free_form();
        match ours {
            Value::Null => true,
            Value::Array(elements) => elements.is_empty(),
            // These choose among alternatives by being there.
            Value::Object(fields) if fields.is_empty() => {
                !matches!(self.name(), "emptyDir" | "podSelector" | "namespaceSelector")
            }
            Value::Object(fields) => fields.iter().all(|(key, value)| self.below(key, |at| at.says_nothing(value))),
            Value::Bool(true) => false,
            Value::Bool(false) => {
                let dropped = [
                    "hostIPC",
                    "hostNetwork",
                    "hostPID",
                    "paused",
                    "publishNotReadyAddresses",
                    "readOnly",
                    "stdin",
                    "stdinOnce",
                    "tty",
                ];
                !free_form && self.is_built_in() && dropped.contains(&self.name())
            }
            Value::Number(number) => {
                let dropped = ["hostPort", "initialDelaySeconds", "minReadySeconds", "nodePort"];
                number.as_f64() == Some(0.0)
                    && self.is_built_in()
                    && (dropped.contains(&self.name()) || self.defaulted())
            }
            Value::String(text) => {
                let dropped = [
                    "externalName",
                    "fieldPath",
                    "hostIP",
                    "hostname",
                    "priorityClassName",
                    "subPath",
                    "subPathExpr",
                    "subdomain",
                    "value",
                    "workingDir",
                ];
                text.is_empty()
                    && !free_form
                    && self.is_built_in()
                    && (dropped.contains(&self.name()) || self.defaulted())
            }
        }
    }

    /// Whether the server puts a default in place of a zero or an empty text.
    fn defaulted(&self) -> bool {
        let probe = self.names.iter().any(|name| name.ends_with("Probe"));
        match self.name() {
            "failureThreshold" | "periodSeconds" | "successThreshold" | "timeoutSeconds" => probe,
            "clusterIP" | "schedulerName" | "serviceAccountName" | "terminationMessagePath" => true,
            _ => false,
        }
    }

    /// Whether two scalars are one value to the API.
    fn same(&self, ours: &Value, live: &Value) -> bool {
        if ours == live {
            return true;
        }
        if let (Value::Number(ours), Value::Number(live)) = (ours, live) {
            return ours.as_f64() == live.as_f64();
        }
        let quantity = match self.names.as_slice() {
            [
                ..,
                "limits" | "requests" | "default" | "defaultRequest" | "max" | "min" | "hard" | "overhead" | "capacity",
                _,
            ] => !self.is_free_form(),
            [.., "sizeLimit" | "divisor"] | [.., "target", "value" | "averageValue"] => true,
            _ => false,
        };
        if quantity {
            return same_amount(ours, live);
        }
        let int_or_string =
            matches!(self.name(), "maxSurge" | "maxUnavailable" | "minAvailable" | "targetPort" | "port");
        int_or_string && text_of(ours) == text_of(live)
    }
}

/// A scalar as text, for keys and for fields that take both.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The values of an element's key fields, with what the server puts in place of those left out.
///
/// Nothing where the element lacks the first of them.
fn key_of(element: &Value, keys: &[&str]) -> Option<Vec<(String, String)>> {
    element.get(keys.first()?)?;
    let value = |key: &str| element.get(key).map(text_of).or_else(|| key_default(key).map(str::to_owned));
    Some(keys.iter().filter_map(|key| Some(((*key).to_owned(), value(key)?))).collect())
}

/// Whether an element has the first of its key fields, without which it has no key.
fn has_key(element: &Value, keys: &[&str]) -> bool {
    keys.first().is_some_and(|first| element.get(first).is_some())
}

/// Whether two elements have one key: [`key_of`] would give the same of both.
fn same_key(one: &Value, other: &Value, keys: &[&str]) -> bool {
    let same = |key: &&str| match (one.get(key), other.get(key)) {
        (Some(Value::String(one)), Some(Value::String(other))) => one == other,
        (one, other) => {
            let text = |value: Option<&Value>| value.map(text_of).or_else(|| key_default(key).map(str::to_owned));
            text(one) == text(other)
        }
    };
    has_key(one, keys) && has_key(other, keys) && keys.iter().all(same)
}

/// A path shows the key field that people know an element by, and the others only where they are not the default.
fn shown(key: &[(String, String)]) -> Segment {
    let plain = |(n, (field, value)): &(usize, &(String, String))| *n == 0 || key_default(field) != Some(value);
    Segment::Key(key.iter().enumerate().filter(plain).map(|(_, pair)| pair.clone()).collect())
}

// === drift ===

fn walk<'a>(ours: &'a Value, live: Option<&Value>, at: &mut At<'a>, found: &mut Vec<FieldChange>) {
    let live = live.filter(|live| !live.is_null());
    let push = |at: &At, found: &mut Vec<FieldChange>| {
        found.push(FieldChange { path: at.path(), ours: ours.clone(), live: live.cloned() });
    };
    match (ours, live) {
        (Value::Null, _) => {}
        (_, None) => {
            if !at.says_nothing(ours) {
                push(at, found);
            }
        }
        (Value::Object(fields), Some(Value::Object(theirs))) => {
            if at.map_kind() == MapKind::Atomic && theirs.keys().any(|key| !fields.contains_key(key)) {
                push(at, found);
                return;
            }
            for (key, ours) in fields {
                at.below(key, |at| walk(ours, theirs.get(key), at, found));
            }
        }
        (Value::Array(elements), Some(Value::Array(theirs))) => walk_list(elements, theirs, at, found),
        (ours, Some(theirs)) => {
            let left_to_server = at.defaulted() && at.says_nothing(ours);
            if !left_to_server && !at.same(ours, theirs) {
                push(at, found);
            }
        }
    }
}

fn walk_list<'a>(ours: &'a [Value], live: &[Value], at: &mut At<'a>, found: &mut Vec<FieldChange>) {
    match at.list_kind() {
        ListKind::Map(keys) if ours.iter().all(|element| has_key(element, keys)) => {
            for element in ours {
                let theirs = live.iter().find(|theirs| same_key(element, theirs, keys));
                at.inside(Place::Element(element, keys), |at| match theirs {
                    Some(theirs) => walk(element, Some(theirs), at, found),
                    None => found.push(FieldChange { path: at.path(), ours: element.clone(), live: None }),
                });
            }
        }
        ListKind::Set => {
            if ours.iter().any(|element| !live.contains(element)) {
                found.push(FieldChange { path: at.path(), ours: ours.into(), live: Some(live.into()) });
            }
        }
        ListKind::Map(_) | ListKind::Atomic if ours.len() == live.len() => {
            for (n, (ours, live)) in ours.iter().zip(live).enumerate() {
                at.inside(Place::Index(n), |at| walk(ours, Some(live), at, found));
            }
        }
        ListKind::Map(_) | ListKind::Atomic => {
            found.push(FieldChange { path: at.path(), ours: ours.into(), live: Some(live.into()) });
        }
    }
}

/// The server keeps `stringData` as `data`, in base64.
fn drift_of_string_data(ours: &Value, live: Option<&Value>, found: &mut Vec<FieldChange>) {
    for (key, value) in ours.as_object().into_iter().flatten() {
        let live = live.and_then(|data| data.get(key));
        let ours = value.as_str().map(|text| Value::from(base64(text.as_bytes())));
        if ours.is_some() && ours.as_ref() != live {
            let path = FieldPath(["stringData", key].map(|name| Segment::Field(name.to_owned())).into());
            found.push(FieldChange { path, ours: value.clone(), live: live.cloned() });
        }
    }
}

// === changes ===

fn compare<'a>(old: Option<&'a Value>, new: Option<&'a Value>, at: &mut At<'a>, found: &mut Vec<Change>) {
    let present = |value: Option<&'_ Value>| value.is_some_and(|value| !value.is_null());
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for key in keys {
                at.below(key, |at| compare(old.get(key), new.get(key), at, found));
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => compare_lists(old, new, at, found),
        (Some(old), Some(new)) if at.same(old, new) => {}
        (old, new) => {
            if present(old) || present(new) {
                let kept = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
                found.push(Change { path: at.path(), from: kept(old), to: kept(new) });
            }
        }
    }
}

fn compare_lists<'a>(old: &'a [Value], new: &'a [Value], at: &mut At<'a>, found: &mut Vec<Change>) {
    match at.list_kind() {
        ListKind::Map(keys) if old.iter().chain(new).all(|element| key_of(element, keys).is_some()) => {
            let key = |element: &Value| key_of(element, keys).unwrap_or_default();
            let all: BTreeSet<_> = old.iter().chain(new).map(key).collect();
            for wanted in all {
                let of = |list: &'a [Value]| list.iter().find(|element| key(element) == wanted);
                let (old, new) = (of(old), of(new));
                let Some(element) = new.or(old) else { continue };
                at.inside(Place::Element(element, keys), |at| compare(old, new, at, found));
            }
        }
        ListKind::Set if old.len() == new.len() && old.iter().all(|element| new.contains(element)) => {}
        ListKind::Map(_) | ListKind::Atomic if old.len() == new.len() => {
            for (n, (old, new)) in old.iter().zip(new).enumerate() {
                at.inside(Place::Index(n), |at| compare(Some(old), Some(new), at, found));
            }
        }
        ListKind::Map(_) | ListKind::Atomic | ListKind::Set => {
            found.push(Change { path: at.path(), from: Some(old.into()), to: Some(new.into()) });
        }
    }
}

// === dropped ===

fn drop_below<'a>(old: &'a Value, new: &'a Value, at: &mut At<'a>, found: &mut Vec<FieldPath>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if at.map_kind() == MapKind::Granular => {
            drop_fields(old, new, at, found);
        }
        (Value::Array(old), Value::Array(new)) => {
            let ListKind::Map(keys) = at.list_kind() else {
                // An atomic list is applied whole; of a set we know only what is ours.
                if at.list_kind() == ListKind::Set && old.iter().any(|element| !new.contains(element)) {
                    found.push(at.path());
                }
                return;
            };
            for element in old {
                if !has_key(element, keys) {
                    continue;
                }
                let now = new.iter().find(|now| same_key(element, now, keys));
                at.inside(Place::Element(element, keys), |at| match now {
                    Some(now) => drop_below(element, now, at, found),
                    None => found.push(at.path()),
                });
            }
        }
        _ => {}
    }
}

fn drop_fields<'a>(
    old: &'a Map<String, Value>,
    new: &'a Map<String, Value>,
    at: &mut At<'a>,
    found: &mut Vec<FieldPath>,
) {
    for (key, before) in old.iter().filter(|(_, before)| !before.is_null()) {
        at.below(key, |at| match new.get(key).filter(|now| !now.is_null()) {
            Some(now) => drop_below(before, now, at, found),
            None => found.push(at.path()),
        });
    }
}

// === impl FieldChange ===

impl From<FieldChange> for Change {
    /// The change that heals it.
    fn from(drift: FieldChange) -> Self {
        Self { path: drift.path, from: drift.live, to: Some(drift.ours) }
    }
}

// === impl FieldPath ===

impl FieldPath {
    /// The path of a field of a field …: `["spec", "replicas"]`.
    pub fn of(names: &[&str]) -> Self {
        Self(names.iter().map(|name| Segment::Field((*name).to_owned())).collect())
    }

    /// Whether this is `other`, or in it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$');
        let plain = |name: &str| !name.is_empty() && name.bytes().all(plain);
        for (n, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if plain(name) && n == 0 => f.write_str(name)?,
                Segment::Field(name) if plain(name) => write!(f, ".{name}")?,
                Segment::Field(name) => write!(f, "[{name:?}]")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(keys) => {
                    for (n, (key, value)) in keys.iter().enumerate() {
                        write!(f, "{}{key}={}", if n == 0 { '[' } else { ',' }, value.escape_debug())?;
                    }
                    f.write_str("]")?;
                }
            }
        }
        Ok(())
    }
}

impl Serialize for FieldPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
