//! What a load counts.

use std::time::{Duration, Instant};

use super::load::{Answer, Asked, Load, PATIENCE, RELEASE, Tally};
use axum::Router;
use axum::response::IntoResponse as _;
use http::{StatusCode, header};

fn answer(status: u16, release: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Answer { status, release: Some(release.to_owned()), reply: String::new() }
}

#[test]
fn a_tally_knows_the_last_request_of_each_release_and_every_failure() {
    let since = Instant::now();
    let at = |ms| since + Duration::from_millis(ms);
    let (mut one, mut other) = (Tally::default(), Tally::default());
    one.count(at(5), "hello", &answer(200, "r-bad"));
    other.count(at(9), "hello", &answer(200, "r-bad"));
    other.count(at(30), "hello", &answer(200, "r-good"));
    other.count(at(40), "hello", &answer(503, "r-good"));
    one.add(&other);
    assert_eq!((one.answered, one.failed, one.requests()), (3, 1, 4));
    assert_eq!(one.first_failure.as_deref(), Some("status 503"));
    assert_eq!(one.last_after("r-bad", since), Duration::from_millis(9));
    assert_eq!(one.last_after("r-bad", at(20)), Duration::ZERO);
    assert_eq!(one.by_release["r-good"], 1);
    assert_eq!((one.first_sent["r-bad"], one.said["r-bad"]["hello"].as_str()), (at(5), ""));
}

#[tokio::test]
async fn a_load_counts_what_a_server_answers_and_what_it_does_not() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(|request: axum::extract::Request| async move {
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        ([(RELEASE, "r-1")], axum::Json(serde_json::json!({"reply": host}))).into_response()
    });
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let asked = Asked { address, host: "support.localhost".to_owned(), message: "hello".to_owned() };
    let told = asked.once().await.unwrap();
    assert_eq!(told, Answer { reply: "support.localhost".to_owned(), ..answer(200, "r-1") });

    let load = Load::start(&[asked.clone(), asked.asking("and you")], 3);
    tokio::time::timeout(PATIENCE, async {
        while load.tally().answered < 20 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    server.abort();
    let _ = server.await;
    tokio::time::timeout(PATIENCE, async {
        // Connections that are open are served on; whoever must connect anew fails.
        while asked.once().await.is_ok() {}
    })
    .await
    .unwrap();
    let tally = load.stop().await;
    assert!(tally.answered >= 20 && tally.by_release["r-1"] == tally.answered, "{tally:?}");
    assert_eq!(tally.said["r-1"].keys().collect::<Vec<_>>(), ["and you", "hello"]);
}
