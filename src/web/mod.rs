//! The HTTP server: health, readiness, metrics, and the doors for hints from Git hosts.

#![allow(clippy::disallowed_methods, reason = "the room that serves HTTP: its clock is the connection's")]

mod hook;
mod server;

use axum::body::Bytes;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, extract::rejection::BytesRejection};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

pub use crate::daemon::App;
pub use server::{Limits, serve, start};

use crate::daemon::HintFate;
use crate::daemon::config::Secret;
use hook::{Door, Fate};

/// One door, with what it needs.
#[derive(Clone)]
struct Porch {
    door: Door,
    secret: Secret,
    app: App,
}

impl FromRef<Porch> for App {
    fn from_ref(porch: &Porch) -> Self {
        porch.app.clone()
    }
}

/// All routes, within `limits`.
///
/// # Guarantees
///
/// A door without a secret does not exist. A body is compared with its signature before anything in it is read, and
/// nothing in it ever decides anything: a genuine push brings the next look at Git forward, and no more.
pub fn router(app: &App, limits: &Limits) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(app.clone());
    let secrets = &app.secrets;
    let doors = [
        (Door::GitHub, &secrets.github),
        (Door::GitLab, &secrets.gitlab),
        (Door::Gitea, &secrets.gitea),
        (Door::Generic, &secrets.generic),
    ];
    for (door, secret) in doors {
        if let Some(secret) = secret.clone() {
            let porch = Porch { door, secret, app: app.clone() };
            router = router.merge(Router::new().route(door.path(), post(knock)).with_state(porch));
        }
    }
    router
        .layer(RequestBodyLimitLayer::new(limits.body))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits.request))
}

async fn ready(State(app): State<App>) -> Response {
    let waiting = app.status.waiting();
    if waiting.is_empty() {
        return "ready\n".into_response();
    }
    let lines: Vec<String> = waiting.iter().map(ToString::to_string).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n").into_response()
}

async fn metrics(State(app): State<App>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match app.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written as text\n").into_response(),
    }
}

async fn knock(State(porch): State<Porch>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    let App { metrics, hint, .. } = &porch.app;
    let (fate, status, answer) = match hook::judge(porch.door, &headers, &body, &porch.secret) {
        Fate::Taken => (HintFate::Taken, StatusCode::ACCEPTED, "looking at Git\n"),
        Fate::Ignored => (HintFate::Ignored, StatusCode::OK, "nothing to do\n"),
        Fate::Refused => (HintFate::Refused, StatusCode::UNAUTHORIZED, "the signature is wrong or missing\n"),
    };
    metrics.hinted(porch.door.name(), fate);
    if fate == HintFate::Taken {
        hint();
    }
    (status, answer).into_response()
}
