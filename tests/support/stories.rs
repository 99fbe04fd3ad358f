//! What holds of every target: the same bodies run against a cluster and against a host.

use serde_json::{Value, json};

use crate::daemon::{Daemon, River, holds, until};

/// What an agent's process is started with in the environment that every river serves.
const OVERLAY: &str = "environments/development/support.yaml";
/// A deadline that a test can wait for.
const DEADLINE: (&str, &str) = ("progressDeadline: 60s\n", "progressDeadline: 10s\n");

/// The ConfigMaps of `support` that hold a release, by name, with their UIDs.
async fn release_objects(river: &River) -> Vec<(String, String)> {
    let list = river.lab.ask(http::Method::GET, &river.lab.path("configmaps"), None).await.expect("a list");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let of = |object: &&Value| object["metadata"]["labels"]["backstay.dev/agent"] == "support";
    let named = |object: &Value| (text(&object["metadata"]["name"]), text(&object["metadata"]["uid"]));
    list["items"].as_array().expect("a list").iter().filter(of).map(named).collect()
}

/// The reason of the one quarantined release.
fn quarantined(record: &Value) -> Option<&str> {
    match &**record["quarantine"].as_array()? {
        [only] => only["reason"].as_str(),
        _ => None,
    }
}

/// Waits until a release was taken back for a reason that has this word, and nothing is on its way any more.
async fn taken_back(river: &River, word: &str) -> Value {
    let back =
        |record: &Value| quarantined(record).is_some_and(|why| why.contains(word)) && record["operation"].is_null();
    river.recorded(&format!("it is back, and in quarantine for `{word}`"), back).await
}

/// A push deploys whole, and a revert brings back the very release and objects of before.
pub(crate) async fn push_and_revert(river: &River, daemon: &Daemon) {
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let first_objects = release_objects(river).await;

    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
    let second = river.greets("Ahoy!").await;
    assert_ne!(first, second);
    assert_eq!(daemon.newest()["cause"], json!({"commit": {}}));

    let reverted = river.repo.revert(&["HEAD"]);
    river.settled(&reverted).await;
    assert_eq!(river.greets("Hello!").await, first, "the old release has its old id");
    let now = release_objects(river).await;
    for object in &first_objects {
        assert!(now.contains(object), "{object:?} is the same object still, of {now:?}");
    }
    let history = daemon.done(&["history", "support"]);
    let wanted = format!("verified revert of {}", &pushed[..8]);
    assert!(history.contains(&wanted), "`{wanted}` in:\n{history}");
    let status = daemon.done(&["status", "--exit-code"]);
    assert!(status.contains(&first) && status.contains(&wanted), "{status}");
}

/// A commit that cannot be used leaves what runs, and the status says where it is wrong, until it is mended.
pub(crate) async fn bad_commit(river: &River, daemon: &Daemon) {
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;

    let file = "agents/support/agent.yaml";
    river.repo.edit(file, "  prompts:\n", "  promts:\n");
    let line = 1 + river.repo.read(file).lines().position(|line| line == "  promts:").expect("the line");
    river.repo.commit("Mistype");
    let at = format!("{file}:{line}");
    let status = until("the status names the place", async || {
        Some(daemon.done(&["status"])).filter(|status| status.contains(&at))
    });
    let status = status.await;
    assert!(status.contains("promts"), "{status}");
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    assert_eq!(river.greets("Hello!").await, first);

    river.repo.edit(file, "  promts:\n", "  prompts:\n");
    river.repo.greet("Ahoy!");
    let good = river.repo.commit("Mend it");
    river.settled(&good).await;
    river.greets("Ahoy!").await;
    let status = daemon.done(&["status", "--exit-code"]);
    assert!(!status.contains(&at), "{status}");
}

/// A release that ends at its start is taken back, and tried again only when somebody asks.
pub(crate) async fn crash(river: &River, daemon: &Daemon) {
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;

    river.repo.edit(OVERLAY, DEADLINE.0, &format!("{}config: {{demo: {{crash: true}}}}\n", DEADLINE.1));
    river.repo.greet("Crash!");
    river.repo.commit("Crash at start");
    let record = taken_back(river, "").await;
    assert!(record["stable"]["release"].as_str().is_some_and(|id| id.contains(&first[2..])), "{record}");
    assert_eq!(river.greets("Hello!").await, first);
    let status = daemon.run(&["status", "--exit-code"]);
    assert_eq!(status.code, 1, "Git asks for something else: {status:?}");
    let failed = record["operations"].as_array().expect("operations").len();

    daemon.done(&["retry", "support", "--reason", "once more"]);
    let record = river.recorded("it was tried again", |record| {
        let operations = record["operations"].as_array().map_or(0, Vec::len);
        quarantined(record).is_some() && record["operation"].is_null() && operations > failed
    });
    let record = record.await;
    let causes: Vec<_> = record["operations"].as_array().expect("a list").iter().map(|one| &one["cause"]).collect();
    assert!(causes.iter().any(|cause| cause["retry"].is_object()), "{causes:?}");
    assert_eq!(river.greets("Hello!").await, first);

    river.repo.revert(&["HEAD"]);
    let ready = |record: &Value| holds(record, "Ready", "") && record["differs"].is_null();
    river.recorded("Git agrees again", |record| ready(record)).await;
    assert_eq!(river.greets("Hello!").await, first);
}

/// A release that never gets ready gets no traffic, and is taken back.
pub(crate) async fn never_ready(river: &River, daemon: &Daemon) {
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;

    river.repo.edit(
        OVERLAY,
        "ready: {periodSeconds: 1}",
        "ready: {periodSeconds: 1, httpGet: {path: /nothing/here, port: 8000}}",
    );
    river.repo.edit(OVERLAY, DEADLINE.0, DEADLINE.1);
    river.repo.greet("Unready!");
    river.repo.commit("Ask at the wrong door whether it is ready");
    taken_back(river, "ready").await;
    assert_eq!(river.greets("Hello!").await, first);
    // Git and the target differ, and the status says since when and why.
    let status = daemon.done(&["status", "support"]);
    assert!(status.contains("Git wants") && status.contains("failed here"), "{status}");
}

/// An agent whose folder is gone from Git ends whole; its record stays, and the other agent does not notice.
///
/// Both agents of the example repository run when it begins.
pub(crate) async fn removal(river: &River, daemon: &Daemon) {
    let research = async |what: &str, is: &dyn Fn(&Value) -> bool| {
        until(what, async || river.record("research").await.filter(|record| is(record))).await
    };
    research("`research` is Ready", &|record| holds(record, "Ready", "")).await;
    river.greets("Hello!").await;
    assert!(!river.ask("research").await.is_empty(), "it answers");

    for gone in ["agents/research", "consent", "environments/development/research.yaml"] {
        river.repo.git(&["rm", "-r", "-q", gone]);
    }
    for environment in ["staging", "production"] {
        river.repo.edit(&format!("environments/{environment}.yaml"), "[support, research]", "[support]");
    }
    river.repo.git(&["rm", "-q", "environments/production/research.yaml"]);
    river.repo.commit("Let it go");
    research("it is removed", &|record| record["phase"] == "Removed").await;
    until("its pods are gone", async || river.ask("research").await.is_empty().then_some(())).await;
    for (collection, name) in
        [("configmaps", "research-dashboard"), ("apps/v1/deployments", "research"), ("services", "research")]
    {
        assert!(river.lab.see(collection, name).await.is_none(), "{collection}/{name} is gone");
    }
    let history = daemon.done(&["history", "research"]);
    assert!(history.contains("removal"), "its history stays:\n{history}");
    river.greets("Hello!").await;
}
