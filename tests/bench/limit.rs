//! The limit: a bare client that issues the fewest writes with which an honest ledger can do a case.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::workload::Objects;
use backstay::model::Manifest;

/// How many requests at once are tried; the fastest counts.
pub(crate) const IN_FLIGHT: [usize; 3] = [16, 32, 64];

/// The records of an agent as the daemon wrote them: when an operation of each kind had begun, and when it had ended.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) install: [Value; 2],
    pub(crate) change: [Value; 2],
    pub(crate) revert: [Value; 2],
}

/// How long each case took, and how many writes it was.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) in_flight: usize,
    pub(crate) took: Duration,
    pub(crate) writes: usize,
    /// Until Kubernetes had observed every Deployment as well: the client does not wait for that, the daemon must.
    pub(crate) observed: Duration,
}

/// One agent's writes of one case, one after the other: each is answered before the next is sent.
struct Writer {
    client: kube::Client,
    objects: Objects,
    records: Arc<Records>,
    namespace: String,
    /// What the ledger holds: compare-and-swap needs its version.
    version: String,
    writes: usize,
}

// === impl Records ===

impl Records {
    /// From the records with which the daemon ended an installation, a change and a revert.
    pub(crate) fn of(installed: &Value, changed: &Value, reverted: &Value) -> Self {
        let mut first = begun(installed);
        if let Some(first) = first.as_object_mut() {
            first.remove("inventory");
            if let Some(stable) = first.remove("stable") {
                first.insert("candidate".to_owned(), stable);
            }
        }
        Self {
            install: [first, installed.clone()],
            change: [begun(changed), changed.clone()],
            revert: [begun(reverted), reverted.clone()],
        }
    }
}

/// The record while its newest operation was open.
fn begun(ended: &Value) -> Value {
    let mut begun = ended.clone();
    let newest = begun["operations"].as_array_mut().map(|operations| operations.remove(0));
    begun["operation"] = newest.unwrap_or_default();
    begun
}

/// Runs the three cases one after the other in a namespace, with so many requests in flight.
pub(crate) async fn run(
    client: &kube::Client,
    namespace: &str,
    objects: Vec<Objects>,
    records: &Records,
    in_flight: usize,
    mut rest: impl AsyncFnMut(),
) -> [Limit; 3] {
    let records = Arc::new(records.clone());
    let writer = |objects| Writer {
        client: client.clone(),
        objects,
        records: Arc::clone(&records),
        namespace: namespace.to_owned(),
        version: String::new(),
        writes: 0,
    };
    let mut writers: Vec<_> = objects.into_iter().map(writer).collect();
    let mut limits = vec![];
    for case in 0..3 {
        let turns = Arc::new(Semaphore::new(in_flight));
        let mut tasks = JoinSet::new();
        let begun = Instant::now();
        for mut writer in writers.drain(..) {
            let turns = Arc::clone(&turns);
            tasks.spawn(async move {
                let _turn = turns.acquire().await.expect("never closed");
                writer.writes = 0;
                match case {
                    0 => writer.install().await,
                    1 => writer.change().await,
                    _ => writer.revert().await,
                }
                writer
            });
        }
        let mut writes = 0;
        while let Some(writer) = tasks.join_next().await {
            let writer = writer.expect("no panic");
            writes += writer.writes;
            writers.push(writer);
        }
        let took = begun.elapsed();
        until_observed(client, namespace).await;
        limits.push(Limit { in_flight, took, writes, observed: begun.elapsed() });
        rest().await;
    }
    [limits[0], limits[1], limits[2]]
}

/// Waits until the controller of Deployments has seen the last change of each of them.
async fn until_observed(client: &kube::Client, namespace: &str) {
    // From the server's cache: it costs the others little.
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments?resourceVersion=0");
    super::daemon::until("every Deployment is observed", Duration::from_mins(10), async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let list: Value = client.request(Request::get(&path).body(vec![]).expect("a request")).await.expect("a list");
        let behind = |live: &Value| live["status"]["observedGeneration"] != live["metadata"]["generation"];
        (!list["items"].as_array().expect("a list").iter().any(behind)).then_some(())
    })
    .await;
}

// === impl Writer ===

impl Writer {
    async fn install(&mut self) {
        let made = json!({
            "apiVersion": "backstay.dev/v1alpha1", "kind": "AgentRelease", "spec": {},
            "metadata": {"name": self.objects.name, "namespace": self.namespace},
        });
        let made = self.send(Method::POST, &self.ledger(), "application/json", &made).await;
        self.version = version(&made);
        let records = Arc::clone(&self.records);
        self.record(&records.install[0]).await;
        for manifest in self.objects.installed.clone() {
            self.create(&manifest).await;
        }
        self.record(&records.install[1]).await;
    }

    async fn change(&mut self) {
        let records = Arc::clone(&self.records);
        self.record(&records.change[0]).await;
        for manifest in self.objects.changed.clone() {
            match manifest.object.kind.as_str() {
                "ConfigMap" => self.create(&manifest).await,
                "Deployment" => self.apply(&manifest).await,
                _ => {}
            }
        }
        self.record(&records.change[1]).await;
    }

    async fn revert(&mut self) {
        let records = Arc::clone(&self.records);
        self.record(&records.revert[0]).await;
        for manifest in self.objects.installed.clone() {
            if manifest.object.kind == "Deployment" {
                self.apply(&manifest).await;
            }
        }
        self.record(&records.revert[1]).await;
    }

    fn ledger(&self) -> String {
        format!("/apis/backstay.dev/v1alpha1/namespaces/{}/agentreleases", self.namespace)
    }

    async fn create(&mut self, manifest: &Manifest) {
        let mut body = (*manifest.body).clone();
        body["metadata"]["annotations"]["backstay.dev/operation"] = format!("{}/1", self.objects.name).into();
        let path = format!("{}?fieldManager=backstay&fieldValidation=Strict", self.collection(manifest));
        self.send(Method::POST, &path, "application/json", &body).await;
    }

    async fn apply(&mut self, manifest: &Manifest) {
        let query = "fieldManager=backstay&force=true&fieldValidation=Strict";
        let path = format!("{}/{}?{query}", self.collection(manifest), manifest.object.name);
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", &manifest.body).await;
    }

    async fn record(&mut self, status: &Value) {
        let body = json!({
            "apiVersion": "backstay.dev/v1alpha1", "kind": "AgentRelease", "spec": {}, "status": status,
            "metadata": {"name": self.objects.name, "namespace": self.namespace, "resourceVersion": self.version},
        });
        let path = format!("{}/{}/status?fieldManager=backstay", self.ledger(), self.objects.name);
        let written = self.send(Method::PUT, &path, "application/json", &body).await;
        self.version = version(&written);
    }

    fn collection(&self, manifest: &Manifest) -> String {
        let plural = format!("{}s", manifest.object.kind.to_lowercase());
        match manifest.object.group.as_str() {
            "" => format!("/api/v1/namespaces/{}/{plural}", self.namespace),
            group => format!("/apis/{group}/v1/namespaces/{}/{plural}", self.namespace),
        }
    }

    async fn send(&mut self, method: Method, path: &str, content_type: &str, body: &Value) -> Value {
        self.writes += 1;
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.body(body.to_string().into_bytes()).expect("a request");
        match self.client.request::<Value>(request).await {
            Ok(answer) => answer,
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

fn version(body: &Value) -> String {
    body["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}
