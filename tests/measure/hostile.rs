//! Servers of the configuration that are slow, endless, wrong or elsewhere.

use std::time::Duration;

use crate::ask::{now, providers, question, value, why};
use crate::server::{Reply, Server};

const JSON: &str = "application/json";

/// Why a server with this answer measures nothing, asked as each of the four kinds.
async fn asked(reply: Reply) -> [String; 4] {
    let server = Server::start(move |_| reply.clone());
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "k").unwrap();
    let (url, wait) = (format!("url = \"http://{}/\"", server.address), "timeout = \"1s\"");
    let key = key.display();
    let toml = format!(
        "[a.prometheus]\n{url}\n{wait}\n[b.json]\n{url}\n{wait}\n\
         [c.datadog]\n{url}\n{wait}\napi_key_file = \"{key}\"\napplication_key_file = \"{key}\"\n\
         [d.cloudwatch]\nregion = \"x\"\n{url}\n{wait}\naccess_key_id_file = \"{key}\"\naccess_key_file = \"{key}\"\n"
    );
    let names = ["a", "b", "c", "d"];
    let question = question(names.map(|name| (name.to_owned(), value(name, "$.a"))));
    let told = tokio::time::timeout(Duration::from_secs(20), providers(&toml).measure(&question, now())).await;
    let told = told.expect("an answer in time");
    names.map(|name| why(&told, name))
}

#[tokio::test]
async fn a_hostile_server_is_no_data_within_bounds() {
    for (reply, expected) in [
        (Reply::Silent, "no answer within 1000 ms"),
        (Reply::Endless(JSON), "longer than 4 MiB"),
        (Reply::Head, "cannot be asked"),
        (Reply::Claims(1 << 30), "longer than 4 MiB"),
        (Reply::Sends("http://127.0.0.1:1/".to_owned()), "sends elsewhere"),
        (Reply::Says(500, JSON, "oh\u{1b}[31m".to_owned()), "answers 500: oh\\u{1b}[31m"),
        (Reply::Says(200, JSON, "<html>".to_owned()), "not JSON"),
        (Reply::Says(200, JSON, "[".repeat(100_000)), "not JSON"),
    ] {
        for told in asked(reply.clone()).await {
            assert!(told.contains(expected), "{reply:?}: {told}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_another_form_is_no_data() {
    for body in [
        "{}",
        "[]",
        "null",
        "{\"a\":\"1\"}",
        "{\"a\":{}}",
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[]}}",
        "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[{\"metric\":{},\"value\":[0,\"1\"]}]}}",
        "{\"status\":\"ok\",\"series\":[{\"pointlist\":[[1]]}]}",
        "{\"MetricDataResults\":[{\"StatusCode\":\"Complete\",\"Timestamps\":[1],\"Values\":[]}]}",
    ] {
        for told in asked(Reply::Says(200, JSON, body.to_owned())).await {
            assert!(!told.is_empty(), "{body}");
        }
    }
}

#[tokio::test]
async fn nobody_there_is_no_data() {
    let toml = "[a.json]\nurl = \"http://127.0.0.1:1/x\"\n";
    let told = providers(toml).measure(&question([("a".to_owned(), value("a", "$.a"))]), now()).await;
    let why = why(&told, "a");
    assert!(why.starts_with("`a`: cannot be asked") && !why.contains("/x"), "{why}");
}
