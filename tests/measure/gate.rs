//! Gates that are open, closed, or refuse, and servers that are none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backstay::judge::Arms;
use backstay::measure::{GateSettings, Gates};
use backstay::rollout::{Answer, Closed, GateQuestion};

use crate::ask::{candidate, stable};
use crate::server::{Reply, Server};

const TEXT: &str = "text/plain";

fn gates(toml: &str) -> Gates {
    let named: BTreeMap<String, GateSettings> = toml::from_str(toml).unwrap();
    Gates::new(named)
}

pub(crate) fn question(gate: &str) -> GateQuestion {
    GateQuestion {
        gate: gate.to_owned(),
        agent: "support".parse().unwrap(),
        environment: "production".parse().unwrap(),
        namespace: "agents".to_owned(),
        releases: Arms { candidate: candidate(), stable: stable() },
        revision: format!("main@sha1:{}", "3f9c".repeat(10)).parse().unwrap(),
        step: 2,
    }
}

/// What a server with this answer says as a gate.
async fn says(reply: Reply, more: &str) -> Answer {
    let server = Server::start(move |_| reply.clone());
    let gates = gates(&format!("[load]\nurl = \"http://{}/gate\"\ntimeout = \"1s\"\n{more}", server.address));
    let (began, question) = (Instant::now(), question("load"));
    let answer = tokio::time::timeout(Duration::from_secs(20), gates.ask(&question)).await.expect("an answer");
    assert!(began.elapsed() < Duration::from_secs(5), "{answer:?} after {:?}", began.elapsed());
    answer
}

fn closed(why: &str) -> Answer {
    Answer::Closed(Closed::Because(why.to_owned()))
}

#[tokio::test]
async fn success_alone_opens_403_refuses_and_all_else_holds() {
    let said = |status, body: &str| Reply::Says(status, TEXT, body.to_owned());
    for (reply, expected) in [
        (said(200, ""), Answer::Open),
        (said(202, "anything"), Answer::Open),
        (said(299, ""), Answer::Open),
        (said(403, "\nload test failed\nsee https://ci\n"), Answer::Refused("load test failed".to_owned())),
        (said(403, ""), Answer::Refused("it says no more than 403".to_owned())),
        (said(403, "no\u{1b}[31m"), Answer::Refused("no\\u{1b}[31m".to_owned())),
        (said(403, &"x".repeat(5000)), Answer::Refused(format!("{}…", "x".repeat(200)))),
        (said(404, ""), closed("it answers 404")),
        (said(409, "3 of 5 done\nmore"), closed("it answers 409: 3 of 5 done")),
        (said(500, ""), closed("it answers 500")),
        (said(401, "who are you?"), closed("it answers 401: who are you?")),
        (said(304, ""), closed("it sends elsewhere, where nobody is asked")),
    ] {
        assert_eq!(says(reply.clone(), "").await, expected, "{reply:?}");
    }
    // Made for Flagger, which knows no refusal.
    let not_yet = says(said(403, "Forbidden"), "on_forbidden = \"hold\"\n").await;
    assert_eq!(not_yet, closed("it answers 403: Forbidden"));
    assert_eq!(says(said(200, ""), "on_forbidden = \"hold\"\n").await, Answer::Open);
}

#[tokio::test]
async fn who_is_silent_endless_or_elsewhere_opens_nothing() {
    for (reply, expected) in [
        (Reply::Silent, "no answer within 1000 ms"),
        (Reply::Endless(TEXT), "its answer is longer than 4 MiB"),
        (Reply::Head, "cannot be asked"),
        (Reply::Claims(1 << 30), "its answer is longer than 4 MiB"),
        (Reply::Claims(10), "no answer within 1000 ms"),
        (Reply::Sends("http://127.0.0.1:1/".to_owned()), "it sends elsewhere"),
    ] {
        let answer = says(reply.clone(), "").await;
        assert!(
            matches!(&answer, Answer::Closed(Closed::Because(why)) if why.contains(expected)),
            "{reply:?}: {answer:?}"
        );
    }
    let nobody = gates("[load]\nurl = \"http://127.0.0.1:1/secret-path\"\n").ask(&question("load")).await;
    let Answer::Closed(Closed::Because(why)) = nobody else { panic!("{nobody:?}") };
    assert!(why.contains("cannot be asked") && !why.contains("secret-path"), "{why}");
    assert_eq!(gates("").ask(&question("load")).await, Answer::Closed(Closed::Unnamed));
}

#[tokio::test]
async fn it_is_told_what_is_on_its_way_and_by_whom() {
    let server = Server::start(|_| Reply::Says(200, TEXT, String::new()));
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let gates = gates(&format!(
        "[load]\nurl = \"http://{}/gate?x=1\"\ntoken_file = \"{}\"\nheaders = {{ x-team = \"a\" }}\n",
        server.address,
        token.display()
    ));
    assert_eq!(gates.ask(&question("load")).await, Answer::Open);
    let seen = server.seen().remove(0);
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/gate?x=1"));
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!((seen.header("authorization"), seen.header("x-team")), ("Bearer hunter2", "a"));
    let revision = format!("main@sha1:{}", "3f9c".repeat(10));
    let told: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(
        told,
        serde_json::json!({
            "agent": "support",
            "environment": "production",
            "release": candidate().short(),
            "stable": stable().short(),
            "revision": revision,
            "step": 3,
            "gate": "load",
            "name": "support",
            "namespace": "agents",
            "phase": "Progressing",
            "checksum": candidate().short(),
            "metadata": {"gate": "load", "revision": revision, "step": "3"},
        })
    );
    // Without its secret nobody is asked.
    std::fs::remove_file(&token).unwrap();
    let unread = gates.ask(&question("load")).await;
    assert!(matches!(&unread, Answer::Closed(Closed::Because(why)) if why.contains("cannot read")), "{unread:?}");
    assert_eq!(server.seen().len(), 1);
}
