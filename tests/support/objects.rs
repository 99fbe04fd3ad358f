//! The objects of one namespace, through any client: what tests make, see and change by hand.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::time::{Duration, Instant};

use http::{Method, Request};
use serde_json::Value;

/// A namespace, and a client that may do everything in it.
pub(crate) struct Objects {
    pub(crate) client: kube::Client,
    pub(crate) namespace: String,
}

/// Asks again and again until something is there; fails after 30 s.
pub(crate) async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut look: F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// === impl Objects ===

impl Objects {
    /// The path of a collection of the namespace: `configmaps`, `apps/v1/deployments`.
    pub(crate) fn path(&self, collection: &str) -> String {
        match collection.rsplit_once('/') {
            None => format!("/api/v1/namespaces/{}/{collection}", self.namespace),
            Some((version, plural)) => format!("/apis/{version}/namespaces/{}/{plural}", self.namespace),
        }
    }

    /// One request with a JSON body, and the answer; or the server's status.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Box<kube::core::Status>> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.send(method, path, "application/json", body).await
    }

    /// Makes an object in a collection of the namespace.
    pub(crate) async fn make(&self, collection: &str, body: Value) -> Value {
        self.ask(Method::POST, &self.path(collection), Some(body)).await.expect("made")
    }

    /// Reads an object of the namespace.
    pub(crate) async fn see(&self, collection: &str, name: &str) -> Option<Value> {
        self.ask(Method::GET, &format!("{}/{name}", self.path(collection)), None).await.ok()
    }

    /// Changes an object of the namespace by a merge patch, under a field manager.
    pub(crate) async fn merge(&self, collection: &str, name: &str, manager: &str, patch: &Value) -> Value {
        let object = format!("{}/{name}?fieldManager={manager}", self.path(collection));
        self.send(Method::PATCH, &object, "application/merge-patch+json", patch.to_string()).await.expect("changed")
    }

    /// Deletes an object of the namespace.
    pub(crate) async fn remove(&self, collection: &str, name: &str) {
        let path = format!("{}/{name}", self.path(collection));
        self.ask(Method::DELETE, &path, None).await.expect("deleted");
    }

    /// One request of any kind.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Value, Box<kube::core::Status>> {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.body(body.into_bytes()).expect("a request");
        match self.client.request::<Value>(request).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => Err(status),
            Err(error) => Err(Box::new(kube::core::Status::failure(&error.to_string(), "Unreachable"))),
        }
    }
}
