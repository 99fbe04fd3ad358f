//! The database of a host: what outlives a start, and what is never written.

use std::path::Path;
use std::sync::Arc;

use backstay::host::{Caller, HostApi, Opened, Store};
use backstay::ledger::SystemClock;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/production/configmaps";
const PODS: &str = "/api/v1/namespaces/production/pods";
const AGENTS: &str = "/apis/backstay.dev/v1alpha1/namespaces/production/agentreleases";

fn open(path: &Path) -> Arc<Store> {
    Arc::new(Store::open(path, Arc::new(SystemClock::default())).expect("a store"))
}

/// One request to a host, and its answer.
async fn ask(store: &Arc<Store>, caller: Caller, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    use tower::ServiceExt as _;
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = axum::body::Body::from(body.to_string());
    let request =
        Request::builder().method(method).uri(path).header("content-type", kind).body(body).expect("a request");
    let answer = HostApi::new(Arc::clone(store)).router(caller).oneshot(request).await.expect("an answer");
    let code = answer.status();
    let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
    // Of a watch, the first event.
    let first = serde_json::Deserializer::from_slice(&bytes).into_iter().next();
    (code, first.expect("an answer").expect("JSON"))
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test]
async fn what_comes_after_a_list_of_nothing_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("host.db"));
    let (_, list) = ask(&store, Caller::Daemon, Method::GET, MAPS, Value::Null).await;
    assert_eq!(list["items"], json!([]));
    ask(&store, Caller::Daemon, Method::POST, MAPS, map("one")).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let watch = format!("{MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=1");
    let (_, event) = ask(&store, Caller::Daemon, Method::GET, &watch, Value::Null).await;
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("one")));
}

#[tokio::test]
async fn what_was_answered_outlives_the_process_and_versions_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("host.db");
    let store = open(&path);
    let elsewhere = "/api/v1/namespaces/elsewhere/configmaps";
    ask(&store, Caller::Daemon, Method::POST, elsewhere, map("zero")).await;
    let (code, first) = ask(&store, Caller::Daemon, Method::POST, MAPS, map("one")).await;
    assert_eq!(code, StatusCode::CREATED);
    drop(store);
    let store = open(&path);
    assert_eq!(store.is_open(), Opened::Writable);
    let (_, list) = ask(&store, Caller::Daemon, Method::GET, MAPS, Value::Null).await;
    assert_eq!(list["items"], json!([first]));
    let (_, second) = ask(&store, Caller::Daemon, Method::POST, MAPS, map("two")).await;
    let version = |object: &Value| {
        object["metadata"]["resourceVersion"].as_str().expect("a version").parse::<u64>().expect("a number")
    };
    assert!(version(&second) > version(&first));
    let watch = format!("{MAPS}?watch=true&resourceVersion={}&timeoutSeconds=1", version(&first) - 1);
    let (code, _) = ask(&store, Caller::Daemon, Method::GET, &watch, Value::Null).await;
    assert_eq!(code, StatusCode::GONE, "what happened before this start cannot be told again");
}

#[tokio::test]
async fn what_an_object_owned_goes_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("host.db"));
    let (_, owner) = ask(&store, Caller::Daemon, Method::POST, MAPS, map("owner")).await;
    for (name, uid) in [("owned", &owner["metadata"]["uid"]), ("other", &json!("somebody"))] {
        let mut body = map(name);
        body["metadata"]["ownerReferences"] = json!([{"uid": uid}]);
        ask(&store, Caller::Daemon, Method::POST, MAPS, body).await;
    }
    let mut pod = json!({"metadata": {"name": "process"}, "spec": {"containers": [{"name": "agent"}]}});
    pod["metadata"]["ownerReferences"] = json!([{"uid": owner["metadata"]["uid"]}]);
    let (code, said) = ask(&store, Caller::Daemon, Method::POST, PODS, pod).await;
    assert_eq!(code, StatusCode::CREATED, "{said}");
    let (code, _) = ask(&store, Caller::Daemon, Method::DELETE, &format!("{MAPS}/owner"), Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = ask(&store, Caller::Daemon, Method::GET, &format!("{PODS}/process"), Value::Null).await;
    assert_eq!(code, StatusCode::OK, "its process has not ended");
    let (_, list) = ask(&store, Caller::Daemon, Method::GET, MAPS, Value::Null).await;
    let names: Vec<_> =
        list["items"].as_array().expect("a list").iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["other"]);
}

// R7
#[tokio::test]
async fn a_newer_or_damaged_database_is_only_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("host.db");
    ask(&open(&path), Caller::Daemon, Method::POST, MAPS, map("one")).await;
    let db = rusqlite::Connection::open(&path).expect("a database");
    db.pragma_update(None, "user_version", 2).expect("a newer one");
    let store = open(&path);
    assert!(matches!(store.is_open(), Opened::ReadOnly(why) if why.contains("newer format 2")));
    let (code, refused) = ask(&store, Caller::Daemon, Method::POST, MAPS, map("two")).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{refused}");
    let (code, _) = ask(&store, Caller::Daemon, Method::GET, &format!("{MAPS}/one"), Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    db.pragma_update(None, "user_version", 1).expect("ours again");
    db.pragma_update(None, "application_id", 7).expect("another program's");
    assert!(matches!(open(&path).is_open(), Opened::ReadOnly(why) if why.contains("another program")));
    drop(db);

    let other = folder.path().join("torn.db");
    std::fs::write(&other, "no database at all, but long enough to have a header of one hundred bytes".repeat(9))
        .expect("written");
    let error = Store::open(&other, Arc::new(SystemClock::default())).err().expect("an error");
    assert!(error.to_string().contains("torn.db"), "{error}");
}

#[tokio::test]
async fn a_person_reads_and_asks_and_writes_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("host.db"));
    let alice = || Caller::Person("alice".to_owned());
    let agent = json!({"metadata": {"name": "support"}, "spec": {}});
    let (code, refused) = ask(&store, alice(), Method::POST, AGENTS, agent.clone()).await;
    assert_eq!((code, &refused["reason"]), (StatusCode::FORBIDDEN, &json!("Forbidden")));
    ask(&store, Caller::Daemon, Method::POST, AGENTS, agent).await;
    let suspend = json!({"spec": {"suspend": {"id": "1", "by": "alice"}}});
    let mut recorded = suspend.clone();
    recorded["status"] = json!({"format": 9});
    let (code, refused) = ask(&store, alice(), Method::PATCH, &format!("{AGENTS}/support"), recorded).await;
    assert_eq!((code, &refused["reason"]), (StatusCode::FORBIDDEN, &json!("Forbidden")), "a request is no record");
    let (code, asked) = ask(&store, alice(), Method::PATCH, &format!("{AGENTS}/support"), suspend.clone()).await;
    assert_eq!((code, &asked["spec"]["suspend"]["by"]), (StatusCode::OK, &json!("alice")));
    assert!(asked["status"].is_null(), "{asked}");
    for (method, path) in [
        (Method::PATCH, format!("{AGENTS}/support/status")),
        (Method::PUT, format!("{AGENTS}/support/status")),
        (Method::DELETE, format!("{AGENTS}/support")),
        (Method::PATCH, format!("{MAPS}/one")),
    ] {
        let (code, _) = ask(&store, alice(), method.clone(), &path, suspend.clone()).await;
        assert_eq!(code, StatusCode::FORBIDDEN, "{method} {path}");
    }
    let review = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (_, me) = ask(&store, alice(), Method::POST, review, json!({})).await;
    assert_eq!(me["status"]["userInfo"]["username"], "alice");
}

#[tokio::test]
async fn events_are_trimmed_and_the_newest_stay() {
    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/n/events";
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder.path().join("host.db"));
    for number in 0..1001 {
        let event = json!({"metadata": {"name": format!("e{number}")}});
        let (code, said) = ask(&store, Caller::Daemon, Method::POST, EVENTS, event).await;
        assert_eq!(code, StatusCode::CREATED, "{said}");
    }
    let (_, list) = ask(&store, Caller::Daemon, Method::GET, EVENTS, Value::Null).await;
    let names: std::collections::BTreeSet<_> =
        list["items"].as_array().expect("a list").iter().map(|item| item["metadata"]["name"].to_string()).collect();
    assert_eq!(names.len(), 750);
    assert!(names.contains("\"e1000\"") && names.contains("\"e251\"") && !names.contains("\"e250\""));
    let (code, _) = ask(&store, Caller::Daemon, Method::POST, MAPS, map("one")).await;
    assert_eq!(code, StatusCode::CREATED, "other kinds are not counted");
}
