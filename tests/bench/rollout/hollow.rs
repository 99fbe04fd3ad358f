//! A node without machines: its pods say that they are ready, and one program answers for all of them.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use futures::StreamExt as _;
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::lab::Lab;

/// Where its pods answer.
pub(crate) const PORT: u16 = 9464;
const NODE: &str = "hollow";
/// The addresses of its pods, which all are this machine's.
const NETWORK: &str = "10.244.0.0/16";
/// Between two signs of life, well within a node's lease.
const BEAT: Duration = Duration::from_secs(10);

/// A node that all new pods of the lab go to, as long as the lab stands.
pub(crate) struct Hollow {
    asked: Arc<AtomicU64>,
}

// === impl Hollow ===

impl Hollow {
    /// Joins the lab; its other node takes no new pods from here on.
    pub(crate) async fn join(lab: &Lab) -> Self {
        let route = Command::new("ip").args(["route", "add", "local", NETWORK, "dev", "lo"]).status();
        assert!(route.expect("ip runs").success(), "an address for each pod");
        let nodes = lab.ask(Method::GET, "/api/v1/nodes", None).await.expect("the nodes");
        for node in nodes["items"].as_array().expect("a list") {
            let path = format!("/api/v1/nodes/{}", node["metadata"]["name"].as_str().expect("a name"));
            patch(lab, &path, &json!({"spec": {"unschedulable": true}})).await;
        }
        let node = json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}});
        lab.ask(Method::POST, "/api/v1/nodes", Some(node)).await.expect("a node");
        let asked = Arc::new(AtomicU64::new(0));
        tokio::spawn(beat(lab.client.clone()));
        tokio::spawn(be_ready(lab.client.clone()));
        tokio::spawn(answer(Arc::clone(&asked)));
        Self { asked }
    }

    /// How often its pods were asked for their figures.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn patch(lab: &Lab, path: &str, body: &Value) {
    lab.send(Method::PATCH, path, "application/merge-patch+json", body.to_string()).await.expect("patched");
}

/// Says again and again that the node lives.
async fn beat(client: kube::Client) {
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let now = || jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let spec = || json!({"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": now()});
    let made = json!({"metadata": {"name": NODE}, "spec": spec()});
    let _ = send(&client, Method::POST, lease, "application/json", &made).await;
    loop {
        let condition = json!({"type": "Ready", "status": "True", "reason": "Hollow", "lastHeartbeatTime": now()});
        let room = json!({"cpu": "10000", "memory": "10000Gi", "pods": "10000"});
        let status = json!({"capacity": room, "allocatable": room, "conditions": [condition]});
        let patched = json!({"status": status});
        let merge = "application/merge-patch+json";
        send(&client, Method::PATCH, &format!("/api/v1/nodes/{NODE}/status"), merge, &patched).await;
        send(&client, Method::PATCH, &format!("{lease}/{NODE}"), merge, &json!({"spec": spec()})).await;
        tokio::time::sleep(BEAT).await;
    }
}

async fn send(client: &kube::Client, method: Method, path: &str, content_type: &str, body: &Value) -> Option<Value> {
    let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
    client.request(request.body(body.to_string().into_bytes()).expect("a request")).await.ok()
}

/// Gives each pod of the node an address, and says that it is ready.
async fn be_ready(client: kube::Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let wanted = WatchParams::default().fields(&format!("spec.nodeName={NODE}"));
    let mut number: u16 = 0;
    loop {
        let Ok(watch) = pods.watch(&wanted, "0").await else { continue };
        let mut watch = watch.boxed();
        while let Some(Ok(event)) = watch.next().await {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
            if pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()) {
                continue;
            }
            number += 1;
            let [high, low] = number.to_be_bytes();
            let client = client.clone();
            tokio::spawn(async move { ready(&client, &pod, &format!("10.244.{high}.{low}")).await });
        }
    }
}

async fn ready(client: &kube::Client, pod: &Pod, address: &str) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}));
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| {
        json!({
            "name": container.name, "image": container.image, "imageID": container.image, "ready": true, "started": true,
            "restartCount": 0, "state": {"running": {"startedAt": now}},
        })
    });
    let status = json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.0.0.1", "startTime": now,
        "conditions": conditions, "containerStatuses": containers.collect::<Vec<_>>(),
    });
    let (name, namespace) = (pod.metadata.name.as_deref(), pod.metadata.namespace.as_deref());
    let path = format!("/api/v1/namespaces/{}/pods/{}/status", namespace.unwrap_or_default(), name.unwrap_or_default());
    let status = json!({"status": status});
    // As long as the server is too busy; nothing else tells of this pod again.
    while send(client, Method::PATCH, &path, "application/merge-patch+json", &status).await.is_none() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Answers for every pod: two requests a second since the node joined, one in a hundred of them slow.
async fn answer(asked: Arc<AtomicU64>) {
    let began = Instant::now();
    let figures = move || {
        asked.fetch_add(1, Ordering::Relaxed);
        std::future::ready(exposition(2 * began.elapsed().as_secs()))
    };
    let app = Router::new().route("/metrics", get(figures)).fallback(|| async { "ok" });
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", PORT)).await.expect("a port");
    axum::serve(listener, app).await.expect("it serves");
}

/// What the example agent's library says of so many requests.
fn exposition(requests: u64) -> String {
    let name = "http_server_request_duration_seconds";
    let labels = "http_request_method=\"POST\",http_route=\"/chat\",http_response_status_code=\"200\"";
    let mut text = format!("# TYPE {name} histogram\n# UNIT {name} seconds\n");
    for (limit, share) in
        [("0.005", 0), ("0.01", 20), ("0.025", 70), ("0.05", 90), ("0.1", 96), ("0.25", 99), ("0.5", 100)]
    {
        text.push_str(&format!("{name}_bucket{{le=\"{limit}\",{labels}}} {}\n", requests * share / 100));
    }
    for limit in ["1.0", "2.5", "5.0", "10.0", "+Inf"] {
        text.push_str(&format!("{name}_bucket{{le=\"{limit}\",{labels}}} {requests}\n"));
    }
    text.push_str(&format!("{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {requests}\n# EOF\n", requests / 40));
    text
}
