//! The agent's HTTP face.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::rejection::JsonRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream::{self, Stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::metrics::Metrics;
use super::release::Folder;
use super::rules::{Answer, Rules, fill};

/// The paths that are counted by name; every other one is `other`, so that callers cannot make series.
const ROUTES: [&str; 5] = ["/chat", "/health/live", "/health/ready", "/metrics", "/release"];

/// What every request shares.
pub(super) struct Agent {
    release: Folder,
    metrics: Metrics,
    started: Instant,
    asked: AtomicU64,
}

type Shared = State<Arc<Agent>>;

#[derive(Deserialize)]
struct Message {
    message: String,
    #[serde(default)]
    customer: Option<String>,
}

// === impl Agent ===

impl Agent {
    /// An agent that starts now.
    pub(super) fn new(release: Folder) -> Self {
        let metrics = Metrics::new(&release.id.short(), release.model());
        Self { release, metrics, started: Instant::now(), asked: AtomicU64::new(0) }
    }

    /// Whether it takes traffic.
    fn is_ready(&self) -> bool {
        let demo = &self.release.demo;
        !demo.not_ready && self.started.elapsed() >= Duration::from_millis(demo.startup_delay_ms)
    }

    /// Whether this question is one that fails on purpose.
    fn fails(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        self.release.demo.fail_every > 0 && asked.is_multiple_of(self.release.demo.fail_every)
    }

    /// Answers by the prompts, `system` first, with the customer's name filled in.
    fn answer(&self, asked: &Message) -> Answer {
        let mut prompts: Vec<_> =
            self.release.prompts.iter().map(|(name, (text, _))| (name != "system", text)).collect();
        prompts.sort_by_key(|(later, _)| *later);
        let filled = prompts.into_iter().map(|(_, text)| match &asked.customer {
            Some(customer) => fill(text, "customer", customer),
            None => text.clone(),
        });
        let filled: Vec<String> = filled.collect();
        Rules::read(filled.iter().map(String::as_str)).answer(&asked.message, &self.release.tools)
    }
}

/// The routes; a worker has no `/chat`.
pub(super) fn router(agent: Arc<Agent>, worker: bool) -> Router {
    let routes = Router::new()
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/release", get(release));
    let routes = if worker { routes } else { routes.route("/chat", post(chat)) };
    routes.layer(middleware::from_fn_with_state(Arc::clone(&agent), count)).with_state(agent)
}

async fn count(State(agent): Shared, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.uri().path();
    let route = ROUTES.into_iter().find(|route| *route == path).unwrap_or("other");
    let method = if request.method().as_str().len() > 7 { "other".to_owned() } else { request.method().to_string() };
    agent.metrics.begin();
    let response = next.run(request).await;
    agent.metrics.end(&method, route, response.status().as_u16(), begun.elapsed());
    response
}

async fn ready(State(agent): Shared) -> (StatusCode, &'static str) {
    if agent.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(State(agent): Shared) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match agent.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn release(State(agent): Shared) -> Json<Value> {
    let Folder { id, prompts, tools, models, .. } = &agent.release;
    let prompts: serde_json::Map<String, Value> =
        prompts.iter().map(|(name, (_, digest))| (name.clone(), json!(digest))).collect();
    Json(json!({"id": id.short(), "digest": id.digest(), "prompts": prompts, "tools": tools, "models": models}))
}

async fn chat(
    State(agent): Shared,
    uri: Uri,
    headers: HeaderMap,
    asked: Result<Json<Message>, JsonRejection>,
) -> Response {
    let asked = match asked {
        Ok(Json(asked)) => asked,
        Err(rejection) => {
            let error = format!("cannot read the message: {}", rejection.body_text());
            return (rejection.status(), Json(json!({"error": error}))).into_response();
        }
    };
    if agent.fails() {
        let error = "it fails on purpose: `demo.failEvery` of its config";
        let whole = json!({"error": error, "release": agent.release.id.short()});
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(whole)).into_response();
    }
    let begun = Instant::now();
    let answer = agent.answer(&asked);
    agent.metrics.answered(&asked.message, &answer, begun.elapsed());
    tracing::debug!(outcome = answer.outcome.as_str(), injection = answer.injection, "answered");
    let whole = json!({"reply": answer.text, "release": agent.release.id.short()});
    if wants_stream(&uri, &headers) {
        Sse::new(chunks(agent, answer.text, whole, begun)).into_response()
    } else {
        Json(whole).into_response()
    }
}

/// Whether the reply shall come word by word.
fn wants_stream(uri: &Uri, headers: &HeaderMap) -> bool {
    let asked = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "stream=true"));
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    asked || accepts.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// One event `{"delta": "word "}` for each word, then the event `done` with the whole reply.
fn chunks(
    agent: Arc<Agent>,
    text: String,
    whole: Value,
    begun: Instant,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
    let pause = Duration::from_millis(agent.release.demo.chunk_delay_ms);
    let events = words.into_iter().enumerate().map(move |(n, word)| (n, Some(word)));
    let events = events.chain([(usize::MAX, None)]);
    stream::unfold((events, None), move |(mut events, first)| {
        let (agent, text, whole) = (Arc::clone(&agent), text.clone(), whole.clone());
        async move {
            let (n, word) = events.next()?;
            if n > 0 && word.is_some() {
                tokio::time::sleep(pause).await;
            }
            let first = first.or_else(|| Some(begun.elapsed()));
            let event = if let Some(word) = word {
                Event::default().data(json!({"delta": word}).to_string())
            } else {
                agent.metrics.streamed(&text, first.unwrap_or_default(), begun.elapsed());
                Event::default().event("done").data(whole.to_string())
            };
            Some((Ok(event), (events, first)))
        }
    })
}
