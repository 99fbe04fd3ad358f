//! What somebody changes behind Git's back.

use http::Method;
use serde_json::json;

use crate::daemon::{Repo, River, holds, until};
use crate::lab::lab;

// K8
#[tokio::test]
async fn another_image_set_by_hand_is_taken_back_and_said() {
    let Some(lab) = lab("image").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    river.at_rest().await;

    // As `kubectl set image` does.
    let deployments = "apps/v1/deployments";
    let deployment = river.lab.see(deployments, "support").await.expect("the Deployment");
    let template = &deployment["spec"]["template"];
    let mut containers = template["spec"]["containers"].clone();
    containers[0]["image"] = json!("registry.example.com/research-agent:evil");
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    river.lab.merge(deployments, "support", "kubectl-set", &patch).await;

    until("the template is as it was", async || {
        let now = river.lab.see(deployments, "support").await?;
        (now["spec"]["template"] == *template).then_some(())
    })
    .await;
    let record = river.recorded("it is said and all is well", |record| {
        record["driftHealed"] == 1 && holds(record, "Ready", "") && record["operation"].is_null()
    });
    let record = record.await;
    assert_eq!(record["operations"].as_array().map(Vec::len), Some(1), "healing is no operation: {record}");
    assert_eq!(river.greets("Hello!").await, first);
    let status = daemon.done(&["status", "support"]);
    assert!(status.contains("healed 1 times"), "{status}");
    assert!((daemon.metric("backstay_drift_healed_total{environment=\"development\"}").await - 1.0).abs() < 0.5);
    let events = until("an Event says so", async || {
        let events = river.lab.ask(Method::GET, &river.lab.path("events"), None).await.expect("events");
        let healed = |event: &serde_json::Value| event["reason"] == "DriftHealed";
        events["items"].as_array()?.iter().find(|event| healed(event)).cloned()
    });
    assert!(events.await["message"].as_str().is_some_and(|text| text.contains("support")));
}

/// Where only one of several things may be, a server-side apply leaves the other one standing, and is refused.
// K8
#[tokio::test]
async fn another_source_of_a_variable_and_another_kind_of_probe_are_taken_back() {
    let Some(lab) = lab("union").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let _daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    river.greets("Hello!").await;
    river.at_rest().await;

    let deployments = "apps/v1/deployments";
    let deployment = river.lab.see(deployments, "support").await.expect("the Deployment");
    let template = &deployment["spec"]["template"];
    let mut containers = template["spec"]["containers"].clone();
    let env = containers[0]["env"].as_array_mut().expect("variables");
    let (mut plain, mut referred) = (0, 0);
    for variable in env {
        if variable.get("valueFrom").is_some() {
            *variable = json!({"name": variable["name"], "value": "by hand"});
            plain += 1;
        } else {
            *variable = json!({"name": variable["name"], "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
            referred += 1;
        }
    }
    assert!(plain > 0 && referred > 0, "{containers}");
    let probe = containers[0]["readinessProbe"].as_object_mut().expect("a probe");
    probe.remove("httpGet").expect("an HTTP probe");
    probe.insert("tcpSocket".to_owned(), json!({"port": 8000}));
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    river.lab.merge(deployments, "support", "kubectl-set", &patch).await;

    until("the template is as it was", async || {
        let now = river.lab.see(deployments, "support").await?;
        (now["spec"]["template"] == *template).then_some(())
    })
    .await;
    river.recorded("all is well", |record| holds(record, "Ready", "") && record["driftHealed"] == 1).await;
}
