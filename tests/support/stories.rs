//! What holds of every target: the same bodies run against a cluster and against a host.

use serde_json::{Value, json};

use crate::daemon::{Daemon, River};

/// The ConfigMaps of `support` that hold a release, by name, with their UIDs.
async fn release_objects(river: &River) -> Vec<(String, String)> {
    let list = river.lab.ask(http::Method::GET, &river.lab.path("configmaps"), None).await.expect("a list");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let of = |object: &&Value| object["metadata"]["labels"]["backstay.dev/agent"] == "support";
    let named = |object: &Value| (text(&object["metadata"]["name"]), text(&object["metadata"]["uid"]));
    list["items"].as_array().expect("a list").iter().filter(of).map(named).collect()
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
