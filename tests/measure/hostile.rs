//! Servers of the configuration that are slow, endless, wrong or elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use backstay::measure::{GateSettings, Gates};

use crate::ask::{now, providers, question, value, values, why};
use crate::server::{Reply, Server};

const JSON: &str = "application/json";

/// Why a server with this answer measures nothing, asked as each of the four kinds.
async fn asked(reply: Reply) -> [String; 4] {
    // Who says nothing is waited for; who says too much is cut before, however slow the machine is.
    let wait = match reply {
        Reply::Silent | Reply::Drips(_) | Reply::DripsHead => 1,
        Reply::Says(..) | Reply::Sends(_) | Reply::Endless(_) | Reply::Head | Reply::Claims(_) | Reply::Whole(..) => 30,
    };
    let server = Server::start(move |_| reply.clone());
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "k").unwrap();
    let (url, wait) = (format!("url = \"http://{}/\"", server.address), format!("timeout = \"{wait}s\""));
    let key = key.display();
    let toml = format!(
        "[a.prometheus]\n{url}\n{wait}\n[b.json]\n{url}\n{wait}\n\
         [c.datadog]\n{url}\n{wait}\napi_key_file = \"{key}\"\napplication_key_file = \"{key}\"\n\
         [d.cloudwatch]\nregion = \"x\"\n{url}\n{wait}\naccess_key_id_file = \"{key}\"\naccess_key_file = \"{key}\"\n"
    );
    let names = ["a", "b", "c", "d"];
    let question = question(names.map(|name| (name.to_owned(), value(name, "$.a"))));
    let told = tokio::time::timeout(Duration::from_mins(1), providers(&toml).measure(&question, now())).await;
    let told = told.expect("an answer in time");
    assert!(server.sent() < 64 << 20, "{} bytes were taken", server.sent());
    names.map(|name| why(&told, name))
}

#[tokio::test]
async fn a_hostile_server_is_no_data_within_bounds() {
    for (reply, expected) in [
        (Reply::Silent, "no answer within 1000 ms"),
        (Reply::Endless(JSON), "longer than 4 MiB"),
        (Reply::Head, "cannot be asked"),
        (Reply::Claims(1 << 30), "longer than 4 MiB"),
        (Reply::Whole(JSON, 1 << 30), "longer than 4 MiB"),
        (Reply::Drips(JSON), "no answer within 1000 ms"),
        (Reply::DripsHead, "no answer within 1000 ms"),
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

/// Paths that are long to read, or find far more than there is, in an answer of this size.
#[test]
fn a_path_that_would_never_end_is_no_data() {
    let nested = |open: &str, close: &str, times: usize| format!("{}{}", open.repeat(times), close.repeat(times));
    let paths = [
        format!("${}", "[0,0]".repeat(500)),
        format!("$[?{}]", nested("count(@[?", "])>0", 300)),
        format!("${}", "..*".repeat(500)),
        format!("${}", "[*,*]".repeat(500)),
        format!("$[?{}]", nested("(", ")", 2000)),
        format!("$[?{}>0]", nested("length(", ")", 500)),
        "$[?$[?$[?$[?$..*]]]]".to_owned(),
        "$..[?@..*]".to_owned(),
        "$[?count($..*) > count($..*)]".to_owned(),
        format!("${}", "[".repeat(4095)),
        "$[?@.a == '".to_owned() + &"\\".repeat(4000),
        "x".repeat(100_000),
    ];
    let (done, end) = std::sync::mpsc::channel();
    let count = paths.len();
    // Nothing can end what does not end by itself: it is left to the end of the process.
    std::thread::spawn(move || {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let body = format!("[{deep}, {}]", vec!["[[1]]"; 20_000].join(","));
        let server = Server::start(move |_| Reply::Says(200, JSON, body.clone()));
        let providers = providers(&format!("[a.json]\nurl = \"http://{}/\"\n", server.address));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for path in paths {
            let asked = question([("a".to_owned(), value("a", &path))]);
            let told = runtime.block_on(providers.measure(&asked, now()));
            done.send((path, why(&told, "a"))).unwrap();
        }
    });
    for n in 0..count {
        let told = end.recv_timeout(Duration::from_mins(2));
        let (path, why) = told.unwrap_or_else(|_| panic!("path {n} does not end"));
        assert!(why.contains("cannot be used"), "{path:.60}: {why}");
        assert!(why.len() < 1000, "{path:.60}: it is repeated whole");
    }
}

/// What people do write is still read.
#[tokio::test]
async fn paths_of_every_day_are_read() {
    let body = r#"{"data": [{"name": "a, b", "values": {"p99": [1, 2.5]}}, {"name": "$", "values": {"p99": [3]}}]}"#;
    let server = Server::start(move |_| Reply::Says(200, JSON, body.to_owned()));
    let providers = providers(&format!("[a.json]\nurl = \"http://{}/\"\n", server.address));
    for (path, expected) in [
        ("$.data[0].values.p99[-1]", 2.5),
        ("$['data'][?@.name == 'a, b'].values['p99'][1]", 2.5),
        ("$.data[?(@.name == \"$\")].values.p99[0]", 3.0),
        ("$..[?@.name == '$'].values.p99[0]", 3.0),
        ("$.data[?length(@.values.p99) > 1].values.p99[0]", 1.0),
    ] {
        let told = providers.measure(&question([("a".to_owned(), value("a", path))]), now()).await;
        assert_eq!(values(&told, "a").candidate, Ok(expected), "{path}");
    }
}

/// Law 11: a server knows what it was asked with; said back, it is not repeated, and what is beside it is.
#[tokio::test]
async fn what_a_server_says_back_of_our_secrets_is_not_repeated() {
    let secret = ["plain", "c4n4ry", "of", "no", "form"].join("");
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{secret}\n")).unwrap();
    let both = ["Ym90OnBsYWluYzRuNHJ5b2Zubw", "Zvcm0="].concat();
    for form in 0..3 {
        let server = Server::start(move |seen| {
            let told: Vec<_> = seen.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            // The password is never sent as such: whoever says it has decoded it.
            let told =
                format!("refused, for {} and {}", told.join(" "), ["plain", "c4n4ry", "of", "no", "form"].join(""));
            let error = serde_json::json!({"status": "error", "error": told, "errorType": "x",
                "MetricDataResults": [{"StatusCode": "x", "Messages": [{"Value": told}]}]});
            match form {
                0 => Reply::Says(500, JSON, told),
                1 => Reply::Says(403, JSON, format!("\n\n{told}")),
                _ => Reply::Says(200, JSON, error.to_string()),
            }
        });
        let (url, key) = (format!("url = \"http://{}/\"", server.address), key.display());
        let toml = format!(
            "[a.prometheus]\n{url}\ntoken_file = \"{key}\"\n[b.json]\n{url}\nusername = \"bot\"\npassword_file = \"{key}\"\n\
             [c.datadog]\n{url}\napi_key_file = \"{key}\"\napplication_key_file = \"{key}\"\n\
             [d.cloudwatch]\nregion = \"x\"\n{url}\naccess_key_id_file = \"{key}\"\naccess_key_file = \"{key}\"\n\
             [e.prometheus]\n{url}\nheader_files = {{ x-key = \"{key}\" }}\n"
        );
        let names = ["a", "b", "c", "d", "e"];
        let question = question(names.map(|name| (name.to_owned(), value(name, "$.a"))));
        let told = providers(&toml).measure(&question, now()).await;
        for name in names {
            let why = why(&told, name);
            assert!(!why.contains("c4n4ry") && !why.contains(&both[..20]), "{name}, {form}: {why}");
            // JSON that is no error to a plain JSON server is a path that finds nothing.
            assert!(why.contains("refused, for") || (name, form) == ("b", 2), "{name}, {form}: {why}");
        }
        assert!(server.seen().len() >= names.len(), "each was asked");
        let gates: BTreeMap<String, GateSettings> =
            toml::from_str(&format!("[g]\n{url}\ntoken_file = \"{key}\"\non_forbidden = \"abort\"\n")).unwrap();
        let asked = Gates::new(gates).ask(&crate::gate::question("g")).await;
        let asked = format!("{asked:?}");
        assert!(!asked.contains("c4n4ry"), "{asked}");
        assert!(asked.contains("refused, for") || form == 2, "{asked}");
    }
}
