//! Requests of the Kubernetes API, answered from the store.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::fields::{applied, updated};
use super::frozen;
use super::kinds::{KINDS, Key, Kind, Place, decoded};
use super::refused::Refused;
use super::store::{Become, Store};
use super::watch::{Selector, follow};
use crate::ledger::GROUP;

/// Bytes of a request's body: an object of a cluster has no more either.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// Time for a body to come.
const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a watch lasts when it does not say.
const WATCH_SECONDS: u64 = 300;

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The daemon itself, in this process.
    Daemon,
    /// A person on this machine, by the name of their account: reads everything, and asks by the `spec` of records, in
    /// their own name.
    Person(String),
    /// Anybody else on this machine, by the name of their account: reads.
    Reader(String),
}

/// The API server of one machine.
///
/// # Guarantees
///
/// As far as its kinds go, it answers as a Kubernetes API server does: preconditions by UID and version, creations that
/// meet something, server-side apply with `managedFields`, strategic facts such as generations, watches from a version on
/// with 410 when that is too old. Nothing else is served. Source: the Kubernetes API concepts and conventions.
#[derive(Clone)]
pub struct HostApi {
    store: Arc<Store>,
}

/// A request, read.
struct Asked {
    caller: Caller,
    method: Method,
    place: Place,
    query: HashMap<String, String>,
    content_type: String,
    body: Value,
}

// === impl Caller ===

impl Caller {
    fn name(&self) -> &str {
        match self {
            Self::Daemon => "backstay",
            Self::Person(name) | Self::Reader(name) => name,
        }
    }

    /// Whether it may change what a path names.
    fn may_change(&self, place: &Place, method: &Method) -> bool {
        match (self, place) {
            (Self::Daemon, _) | (_, Place::Myself) => true,
            (Self::Person(_), Place::Object(key)) => key.kind.group == GROUP && method == Method::PATCH,
            (Self::Person(_) | Self::Reader(_), _) => false,
        }
    }
}

// === impl HostApi ===

impl HostApi {
    /// Answers from `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// A client of it in this process, as the daemon.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.router(Caller::Daemon), "default")
    }

    /// Everything that it answers to one caller.
    pub fn router(&self, caller: Caller) -> Router {
        let answer = |State((api, caller)): State<(Self, Caller)>, request: Request| async move {
            api.answer(caller, request).await
        };
        Router::new().fallback(answer).with_state((self.clone(), caller))
    }

    async fn answer(&self, caller: Caller, request: Request) -> Response {
        match self.asked(caller, request).await {
            Ok(answer) => answer,
            Err(refused) => json(refused.code, &refused.status()),
        }
    }

    async fn asked(&self, caller: Caller, request: Request) -> Result<Response, Refused> {
        let (head, body) = request.into_parts();
        let place = Place::of(head.uri.path()).ok_or_else(Refused::unserved)?;
        let query = query(head.uri.query().unwrap_or_default())?;
        if head.method != Method::GET && !caller.may_change(&place, &head.method) {
            return Err(Refused::forbidden(caller.name(), &head.method, head.uri.path()));
        }
        let bytes = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, MAX_BODY)).await;
        let bytes = bytes.map_err(|_| Refused::bad("the body did not come in time"))?;
        let bytes = bytes.map_err(|_| Refused::bad("the body cannot be read, or is too large"))?;
        let body = if bytes.is_empty() { Value::Null } else { read(&bytes)? };
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let asked = Asked { caller, method: head.method, place, query, content_type, body };
        if asked.method == Method::GET && asked.says("watch") {
            return self.watch(&asked);
        }
        // Commits wait for the disk.
        let store = Arc::clone(&self.store);
        let answered = tokio::task::spawn_blocking(move || asked.answer(&store)).await;
        let (code, answer) = answered.map_err(|_| Refused::unavailable("the request was given up"))??;
        Ok(json(code, &answer))
    }

    fn watch(&self, asked: &Asked) -> Result<Response, Refused> {
        let Place::Collection(kind, namespace) = &asked.place else { return Err(Refused::method()) };
        let selector = Selector::parse(asked.text("labelSelector"))?;
        let from = match asked.text("resourceVersion") {
            "" | "0" => self.store.version()?,
            text => text.parse().map_err(|_| Refused::bad("`resourceVersion` is no version"))?,
        };
        let seconds = asked.text("timeoutSeconds").parse().unwrap_or(WATCH_SECONDS);
        let lines = follow(&self.store, kind, namespace, selector, from, seconds)?;
        Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from_stream(lines))
            .into_response())
    }
}

/// Whether a patch asks something in the caller's own name, and nothing else.
fn asks_by(name: &str, content_type: &str, body: &Value, key: &Key) -> Result<(), Refused> {
    let refused = |why: &str| Err(Refused::not_a_request(name, key, why));
    if content_type != "application/merge-patch+json" {
        return refused("a person asks by a merge patch");
    }
    let Some(fields) = body.as_object() else { return refused("the patch is no object") };
    if fields.keys().any(|field| field != "spec") {
        return refused("a person asks by the `spec` alone");
    }
    let Some(requests) = body.get("spec").and_then(Value::as_object) else { return refused("it asks nothing") };
    let in_own_name = |request: &Value| request.get("by").and_then(Value::as_str) == Some(name);
    if requests.values().all(in_own_name) { Ok(()) } else { refused("nobody asks in another's name: see `by`") }
}

fn json(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}

fn read(bytes: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(bytes).map_err(|error| Refused::bad(format!("the body is no JSON: {error}")))
}

fn query(text: &str) -> Result<HashMap<String, String>, Refused> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = if value.is_empty() { String::new() } else { decoded(value)? };
        Some((decoded(key)?, value))
    });
    pairs.collect::<Option<_>>().ok_or_else(|| Refused::bad("the query cannot be read"))
}

/// A text of `metadata`, where it is there and not empty.
fn metadata<'v>(object: &'v Value, field: &str) -> Option<&'v str> {
    object.get("metadata")?.get(field)?.as_str().filter(|text| !text.is_empty())
}

// === impl Asked ===

impl Asked {
    fn text(&self, parameter: &str) -> &str {
        self.query.get(parameter).map_or("", String::as_str)
    }

    fn says(&self, parameter: &str) -> bool {
        matches!(self.text(parameter), "true" | "1")
    }

    fn manager(&self) -> &str {
        match self.text("fieldManager") {
            "" => self.caller.name(),
            manager => manager,
        }
    }

    fn dry_run(&self) -> bool {
        self.text("dryRun") == "All"
    }

    fn answer(&self, store: &Store) -> Result<(StatusCode, Value), Refused> {
        let (code, mut answer) = self.answer_plainly(store)?;
        if let (Some((why, since)), false) = (store.frozen(), self.caller == Caller::Daemon) {
            frozen::tell(&mut answer, &why, &since);
        }
        Ok((code, answer))
    }

    fn answer_plainly(&self, store: &Store) -> Result<(StatusCode, Value), Refused> {
        let ok = |value| Ok((StatusCode::OK, value));
        match (&self.method, &self.place) {
            (&Method::GET, Place::Group(group)) => ok(group_of(group)?),
            (&Method::GET, Place::Version(group, version)) => ok(kinds_of(group, version)),
            (&Method::GET, Place::Collection(kind, namespace)) => ok(self.list(store, kind, namespace)?),
            (&Method::GET, Place::Object(key) | Place::Status(key)) => {
                ok(store.get(key)?.ok_or_else(|| Refused::not_found(key))?)
            }
            (&Method::POST, Place::Myself) => ok(json!({
                "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
                "status": {"userInfo": {"username": self.caller.name()}},
            })),
            (&Method::POST, Place::Collection(kind, namespace)) => {
                Ok((StatusCode::CREATED, self.create(store, kind, namespace)?))
            }
            (&Method::PUT, Place::Object(key)) => ok(self.replace(store, key, false)?),
            (&Method::PUT, Place::Status(key)) => ok(self.replace(store, key, true)?),
            (&Method::PATCH, Place::Object(key)) => ok(self.patch(store, key)?),
            (&Method::PATCH, Place::Status(key)) => ok(self.patch_status(store, key)?),
            (&Method::DELETE, Place::Object(key)) => ok(self.delete(store, key)?),
            _ => Err(Refused::method()),
        }
    }

    fn list(&self, store: &Store, kind: &'static Kind, namespace: &str) -> Result<Value, Refused> {
        let selector = Selector::parse(self.text("labelSelector"))?;
        let (mut items, version) = store.list(kind, namespace)?;
        items.retain(|item| selector.selects(item));
        Ok(json!({
            "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": version.to_string()}, "items": items,
        }))
    }

    fn create(&self, store: &Store, kind: &'static Kind, namespace: &str) -> Result<Value, Refused> {
        let name = metadata(&self.body, "name").ok_or_else(|| Refused::bad("the object has no name"))?;
        let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        store.change(&key, self.dry_run(), |live| {
            if live.is_some() {
                return Err(Refused::exists(&key));
            }
            let object = as_sent(&key, &self.body)?;
            Ok(Become::Be(self.by_update(store, &key, &bare(&key), object)))
        })
    }

    fn replace(&self, store: &Store, key: &Key, status: bool) -> Result<Value, Refused> {
        store.change(key, self.dry_run(), |live| {
            let live = live.ok_or_else(|| Refused::not_found(key))?;
            let given = as_sent(key, &self.body)?;
            preconditions(key, live, metadata(&self.body, "uid"), metadata(&self.body, "resourceVersion"))?;
            let mut object = live.clone();
            if status {
                put(&mut object, "status", self.body.get("status").cloned());
                return Ok(Become::Be(object));
            }
            object = given;
            keep_server_fields(&mut object, live);
            if key.kind.has_status {
                put(&mut object, "status", live.get("status").cloned());
            }
            Ok(Become::Be(self.by_update(store, key, live, object)))
        })
    }

    fn patch(&self, store: &Store, key: &Key) -> Result<Value, Refused> {
        if let Caller::Person(name) = &self.caller {
            asks_by(name, &self.content_type, &self.body, key)?;
        }
        store.change(key, self.dry_run(), |live| match self.content_type.as_str() {
            "application/apply-patch+yaml" => self.apply(store, key, live),
            "application/merge-patch+json" => {
                let live = live.ok_or_else(|| Refused::not_found(key))?;
                let mut object = live.clone();
                json_patch::merge(&mut object, &self.body);
                self.patched(store, key, live, object)
            }
            "application/json-patch+json" => {
                let live = live.ok_or_else(|| Refused::not_found(key))?;
                let patch: json_patch::Patch = serde_json::from_value(self.body.clone())
                    .map_err(|error| Refused::bad(format!("the body is no JSON patch: {error}")))?;
                let mut object = live.clone();
                json_patch::patch(&mut object, &patch).map_err(|error| Refused::invalid(key, &error.to_string()))?;
                self.patched(store, key, live, object)
            }
            other => Err(Refused::bad(format!("a host does not have patches of type `{other}`"))),
        })
    }

    fn patch_status(&self, store: &Store, key: &Key) -> Result<Value, Refused> {
        if self.content_type != "application/merge-patch+json" {
            return Err(Refused::bad("a host patches a status by a merge"));
        }
        store.change(key, self.dry_run(), |live| {
            let live = live.ok_or_else(|| Refused::not_found(key))?;
            let mut merged = live.clone();
            json_patch::merge(&mut merged, &self.body);
            preconditions(key, live, metadata(&merged, "uid"), metadata(&merged, "resourceVersion"))?;
            let mut object = live.clone();
            put(&mut object, "status", merged.get("status").cloned());
            Ok(Become::Be(object))
        })
    }

    fn apply(&self, store: &Store, key: &Key, live: Option<&Value>) -> Result<Become, Refused> {
        let config = as_sent(key, &self.body)?;
        let (uid, version) = (metadata(&self.body, "uid"), metadata(&self.body, "resourceVersion"));
        match live {
            Some(live) => preconditions(key, live, uid, version)?,
            None if uid.is_some() || version.is_some() => return Err(Refused::not_found(key)),
            None => {}
        }
        let bare = bare(key);
        let live = live.unwrap_or(&bare);
        let api_version = key.kind.api_version();
        let now = store.now();
        applied(live, &config, self.manager(), &api_version, self.says("force"), &now).map(Become::Be).map_err(
            |contested| {
                let fields: Vec<_> =
                    contested.fields.iter().map(|(who, field)| format!("{field} by `{who}`")).collect();
                Refused::conflict(key, &format!("others hold {}", fields.join(", ")))
            },
        )
    }

    /// What a patch made of an object, if it is still the same one.
    fn patched(&self, store: &Store, key: &Key, live: &Value, mut object: Value) -> Result<Become, Refused> {
        preconditions(key, live, metadata(&object, "uid"), metadata(&object, "resourceVersion"))?;
        let managers = object.pointer("/metadata/managedFields").cloned();
        object = as_sent(key, &object)?;
        keep_server_fields(&mut object, live);
        if key.kind.has_status {
            put(&mut object, "status", live.get("status").cloned());
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
            && let Some(managers) = managers
        {
            metadata.insert("managedFields".to_owned(), managers);
        }
        Ok(Become::Be(self.by_update(store, key, live, object)))
    }

    fn delete(&self, store: &Store, key: &Key) -> Result<Value, Refused> {
        let of = |field: &str| self.body.pointer(&format!("/preconditions/{field}")).and_then(Value::as_str);
        store.change(key, self.dry_run(), |live| {
            let live = live.ok_or_else(|| Refused::not_found(key))?;
            preconditions(key, live, of("uid"), of("resourceVersion"))?;
            Ok(Become::End)
        })
    }

    fn by_update(&self, store: &Store, key: &Key, live: &Value, object: Value) -> Value {
        updated(live, object, self.manager(), &key.kind.api_version(), &store.now())
    }
}

/// An object as it was sent, as this kind under this name; without what only the server writes.
fn as_sent(key: &Key, sent: &Value) -> Result<Value, Refused> {
    let mut object = sent.clone();
    let is = |field: &str, wanted: &str| sent.get(field).and_then(Value::as_str).is_none_or(|text| text == wanted);
    if !is("kind", key.kind.kind) || !is("apiVersion", &key.kind.api_version()) {
        return Err(Refused::bad("the object is of another kind than its path"));
    }
    if metadata(sent, "name").is_some_and(|name| name != key.name)
        || metadata(sent, "namespace").is_some_and(|namespace| namespace != key.namespace)
    {
        return Err(Refused::bad("the object has another name than its path"));
    }
    let Some(fields) = object.as_object_mut() else { return Err(Refused::bad("the body is no object")) };
    if key.kind.has_status {
        fields.remove("status");
    }
    let bare = bare(key);
    for field in ["apiVersion", "kind"] {
        fields.insert(field.to_owned(), bare[field].clone());
    }
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else { return Err(Refused::bad("`metadata` is no object")) };
    for server in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
        metadata.remove(server);
    }
    for field in ["name", "namespace"] {
        metadata.insert(field.to_owned(), bare["metadata"][field].clone());
    }
    Ok(object)
}

/// An object of which only its name is known.
fn bare(key: &Key) -> Value {
    json!({
        "apiVersion": key.kind.api_version(), "kind": key.kind.kind,
        "metadata": {"name": key.name, "namespace": key.namespace},
    })
}

fn put(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
    }
}

/// What a client cannot change stays.
fn keep_server_fields(object: &mut Value, live: &Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
            if let Some(value) = live.pointer(&format!("/metadata/{field}")) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
    }
}

fn preconditions(key: &Key, live: &Value, uid: Option<&str>, version: Option<&str>) -> Result<(), Refused> {
    let differs =
        |wanted: Option<&str>, field: &str| wanted.is_some_and(|wanted| metadata(live, field) != Some(wanted));
    if differs(uid, "uid") {
        return Err(Refused::conflict(key, "Precondition failed: another object of that name stands there"));
    }
    if differs(version, "resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Refused::conflict(key, why));
    }
    Ok(())
}

fn group_of(group: &str) -> Result<Value, Refused> {
    let kind = KINDS.iter().find(|kind| kind.group == group).ok_or_else(Refused::unserved)?;
    let version = json!({"groupVersion": kind.api_version(), "version": kind.version});
    Ok(
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": [version], "preferredVersion": version}),
    )
}

fn kinds_of(group: &str, version: &str) -> Value {
    let served = KINDS.iter().filter(|kind| kind.group == group && kind.version == version);
    let resources = served.flat_map(|kind| {
        let of = |name: String| json!({"name": name, "kind": kind.kind, "namespaced": true, "singularName": "", "verbs": []});
        let status = kind.has_status.then(|| of(format!("{}/status", kind.plural)));
        [Some(of(kind.plural.to_owned())), status].into_iter().flatten()
    });
    json!({"kind": "APIResourceList", "apiVersion": "v1", "resources": resources.collect::<Vec<_>>()})
}
