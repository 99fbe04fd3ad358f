//! One kind, listed and then watched for ever: whatever breaks, it goes on.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::Request;
use kube::core::WatchEvent;
use serde_json::Value;
use tokio::time::Instant;

use super::api::{Api, Call, Refusal};
use super::lean::Lean;
use super::limiter::Jitter;
use crate::model::ResourceVersion;

/// How often a list whose `continue` expired is begun again before it fails.
const LIST_ATTEMPTS: usize = 3;
/// A watch that ends sooner than this without an event counts as a failure, so that no loop is tight.
const SHORTEST: Duration = Duration::from_secs(1);

/// How a watch keeps time.
#[derive(Debug, Clone)]
pub struct Pace {
    /// The server ends each watch after so many seconds; events go on with the next one.
    pub watch: Duration,
    /// Silence after that: the connection is dead.
    pub grace: Duration,
    /// The first wait after a failure; doubled each time, half of it by chance.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
}

/// What a watch tells of objects that were read as `T`.
#[derive(Debug)]
pub(crate) enum Told<T> {
    /// All objects there are, at a version.
    Listed(Vec<T>, ResourceVersion),
    /// One object was made or changed.
    Changed(T),
    /// One object is gone, or has left the selection; as it was last, at the version of its end.
    Gone(T),
    /// Nothing older than this will come.
    At(ResourceVersion),
    /// It could not be listed or watched, so many times in a row; it is tried again by itself.
    Trouble(Refusal, u32),
}

/// How a watch reads objects.
///
/// A page of a list is read object by object as it comes, so that the objects of a large list need not all be in memory
/// as JSON at once.
#[derive(Clone, Copy)]
pub(crate) struct Read<T> {
    /// An object of a list; nothing: it is left out.
    pub(crate) listed: fn(Value) -> Option<T>,
    /// An object of an event.
    pub(crate) told: fn(Value) -> Option<T>,
}

type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent<Lean>, kube::Error>> + Send>>;

/// One list and its endless watch.
pub(crate) struct Watch<T> {
    api: Api,
    read: Read<T>,
    path: String,
    selector: String,
    per_page: u32,
    pace: Pace,
    jitter: Arc<Jitter>,
    state: State,
    /// Failures in a row: until a watch has told something, or has lasted.
    failures: u32,
    wait: Option<Duration>,
}

enum State {
    List,
    Open(ResourceVersion),
    Flow { events: Events, at: ResourceVersion, began: Instant, silent: bool },
}

// === impl Pace ===

impl Default for Pace {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(45),
            grace: Duration::from_secs(10),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// Lists all objects of a path, in pages; a list whose `continue` expired is begun again.
///
/// Items carry no kind of their own; they get the list's. `managedFields` are left out.
pub(crate) async fn listed<T>(
    api: &Api,
    path: &str,
    selector: &str,
    page: u32,
    read: fn(Value) -> Option<T>,
) -> Result<(Vec<T>, ResourceVersion), Refusal> {
    let mut attempt = 1;
    loop {
        match pages(api, path, selector, page, read).await {
            Err(refusal) if refusal.code() == Some(410) && attempt < LIST_ATTEMPTS => attempt += 1,
            answer => return answer,
        }
    }
}

async fn pages<T>(
    api: &Api,
    path: &str,
    selector: &str,
    page: u32,
    read: fn(Value) -> Option<T>,
) -> Result<(Vec<T>, ResourceVersion), Refusal> {
    let mut objects = Vec::new();
    let mut next = String::new();
    loop {
        let mut call = Call::get(path.to_owned()).query("limit", page.to_string());
        if !selector.is_empty() {
            call = call.query("labelSelector", selector);
        }
        if !next.is_empty() {
            call = call.query("continue", next.clone());
        }
        let mut answer = api.call(call).await?;
        let text = |at: &str| answer.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, list) = (text("/apiVersion"), text("/kind"));
        let (version, more) = (text("/metadata/resourceVersion"), text("/metadata/continue"));
        let kind = list.strip_suffix("List").unwrap_or(&list).to_owned();
        let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) else {
            return Err(Refusal::Unreachable("the answer is no list".to_owned()));
        };
        objects.extend(items.into_iter().filter_map(|mut item| {
            if let Some(item) = item.as_object_mut() {
                item.entry("apiVersion").or_insert_with(|| api_version.clone().into());
                item.entry("kind").or_insert_with(|| kind.clone().into());
            }
            read(item)
        }));
        if more.is_empty() {
            return Ok((objects, ResourceVersion(version)));
        }
        // A server that gives the same page for ever is not followed for ever.
        if more == next {
            return Err(Refusal::Unreachable("the list does not go on".to_owned()));
        }
        next = more;
    }
}

// === impl Watch ===

impl<T: Send + 'static> Watch<T> {
    pub(crate) fn new(
        api: Api,
        path: String,
        selector: &str,
        per_page: u32,
        read: Read<T>,
        pace: Pace,
        jitter: Arc<Jitter>,
    ) -> Self {
        let selector = selector.to_owned();
        Self { api, read, path, selector, per_page, pace, jitter, state: State::List, failures: 0, wait: None }
    }

    /// All that it tells, for ever.
    pub(crate) fn stream(self) -> impl Stream<Item = Told<T>> + Send {
        futures::stream::unfold(self, |mut watch| async {
            let told = watch.next().await;
            Some((told, watch))
        })
    }

    /// What comes next; waits by itself after a failure.
    ///
    /// A call that is dropped loses its place: the next one lists again.
    pub(crate) async fn next(&mut self) -> Told<T> {
        loop {
            if let Some(wait) = self.wait.take() {
                tokio::time::sleep(wait).await;
            }
            match std::mem::replace(&mut self.state, State::List) {
                State::List => match self.list().await {
                    Ok((objects, version)) => {
                        self.state = State::Open(version.clone());
                        return Told::Listed(objects, version);
                    }
                    Err(refusal) => return self.trouble(refusal),
                },
                State::Open(at) => match self.open(&at).await {
                    Ok(events) => {
                        self.state = State::Flow { events, at, began: Instant::now(), silent: true };
                    }
                    Err(refusal) if refusal.code() == Some(410) => self.list_again(),
                    Err(refusal) => {
                        // Another list tells more than another watch when it keeps failing.
                        if self.failures == 0 {
                            self.state = State::Open(at);
                        }
                        return self.trouble(refusal);
                    }
                },
                State::Flow { events, at, began, silent } => {
                    if let Some(told) = self.flow(events, at, began, silent).await {
                        return told;
                    }
                }
            }
        }
    }

    /// One event, or nothing where the stream has ended and the state says how to go on.
    async fn flow(&mut self, mut events: Events, at: ResourceVersion, began: Instant, silent: bool) -> Option<Told<T>> {
        let deadline = began + self.pace.watch + self.pace.grace;
        let Ok(event) = tokio::time::timeout_at(deadline, events.next()).await else {
            // Not even the server's own end came through.
            self.state = State::Open(at);
            return None;
        };
        let go_on = |at: &ResourceVersion| {
            self.failures = 0;
            self.state = State::Flow { events, at: at.clone(), began, silent: false };
        };
        match event {
            Some(Ok(WatchEvent::Added(Lean(object)) | WatchEvent::Modified(Lean(object)))) => {
                let at = version(&object).unwrap_or(at);
                go_on(&at);
                (self.read.told)(object).map(Told::Changed)
            }
            Some(Ok(WatchEvent::Deleted(Lean(object)))) => {
                let at = version(&object).unwrap_or(at);
                go_on(&at);
                (self.read.told)(object).map(Told::Gone)
            }
            Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                let at = ResourceVersion(bookmark.metadata.resource_version);
                go_on(&at);
                Some(Told::At(at))
            }
            Some(Ok(WatchEvent::Error(status))) => self.broken(Refusal::of(&kube::Error::Api(status)), at),
            Some(Err(error)) => self.broken(Refusal::of(&error), at),
            None => {
                self.state = State::Open(at);
                if silent && began.elapsed() < SHORTEST {
                    return Some(self.trouble(Refusal::Unreachable("the watch ended at once".to_owned())));
                }
                self.failures = 0;
                None
            }
        }
    }

    /// The stream said what is wrong: 410 is listed again at once, all else is watched again after a wait.
    fn broken(&mut self, refusal: Refusal, at: ResourceVersion) -> Option<Told<T>> {
        if refusal.code() == Some(410) {
            self.list_again();
            return None;
        }
        if self.failures == 0 {
            self.state = State::Open(at);
        }
        Some(self.trouble(refusal))
    }

    /// The version is too old: what happened since is lost. A server that says so at every watch is asked ever slower.
    fn list_again(&mut self) {
        self.state = State::List;
        self.failures += 1;
        if self.failures > 1 {
            self.wait = Some(self.pause(None));
        }
    }

    fn trouble(&mut self, refusal: Refusal) -> Told<T> {
        self.failures += 1;
        self.wait = Some(self.pause(refusal.retry_after()));
        Told::Trouble(refusal, self.failures)
    }

    /// Doubled with every failure in a row, half of it by chance, and never shorter than the server asks.
    fn pause(&self, asked: Option<u64>) -> Duration {
        let doubled = self.pace.first_wait.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        let wait = doubled.min(self.pace.longest_wait);
        let wait = wait / 2 + self.jitter.up_to(wait / 2);
        wait.max(Duration::from_secs(asked.unwrap_or_default().min(60)))
    }

    async fn list(&mut self) -> Result<(Vec<T>, ResourceVersion), Refusal> {
        listed(&self.api, &self.path, &self.selector, self.per_page, self.read.listed).await
    }

    async fn open(&mut self, at: &ResourceVersion) -> Result<Events, Refusal> {
        let mut call = Call::get(self.path.clone())
            .query("watch", "true")
            .query("allowWatchBookmarks", "true")
            .query("timeoutSeconds", self.pace.watch.as_secs().max(1).to_string())
            .query("resourceVersion", at.0.clone());
        if !self.selector.is_empty() {
            call = call.query("labelSelector", self.selector.clone());
        }
        let request: Request<Vec<u8>> = call.empty()?;
        let opening = self.api.client().request_events::<Lean>(request);
        match tokio::time::timeout(self.api.timeout(), opening).await {
            Ok(Ok(events)) => Ok(Box::pin(events)),
            Ok(Err(error)) => Err(Refusal::of(&error)),
            Err(_) => Err(Refusal::Unreachable("no answer to a watch".to_owned())),
        }
    }
}

fn version(object: &Value) -> Option<ResourceVersion> {
    Some(ResourceVersion(object.pointer("/metadata/resourceVersion")?.as_str()?.to_owned()))
}
