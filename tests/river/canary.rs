//! Law 11: a secret that lies wherever it may is searched for in all that the daemon leaves behind.

use serde_json::json;

use crate::daemon::{Repo, River, Server, until};
use crate::lab::lab;

/// Put together here, so that no scanner takes this file for a leak.
fn canary() -> String {
    ["sk", "C4n4ryTh4tMustNeverBeSeen", "987"].join("-")
}

#[tokio::test]
async fn a_secret_is_found_nowhere_that_words_are_kept() {
    let Some(lab) = lab("canary").await else { return };
    let repo = Repo::small();
    let server = Server::http(repo.parent());
    let file = |name: &str| {
        let path = repo.parent().join(name);
        std::fs::write(&path, canary()).expect("a secret");
        path
    };
    // The token that opens Git, and the secret of the webhooks.
    let (token, hook) = (file("token"), file("hook"));
    let source = format!(
        "url = \"http://{}/repo.git\"\ninterval = \"1s\"\ntoken_file = \"{}\"\n",
        server.address,
        token.display()
    );
    // What agents read, and what lies beside it.
    let secret = json!({"metadata": {"name": "canary"}, "stringData": {"key": canary(), "url": format!("postgres://u:{}@db/x", canary())}});
    lab.make("secrets", secret).await;
    let river = River::with_source(lab, repo, source).await;
    let daemon = river.start_as("one", &format!("webhooks.github.secret_file = \"{}\"", hook.display())).await;
    river.settled(&river.repo.head()).await;

    // Somebody writes it onto a live object by hand: it is drift, and told of.
    let drift = json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "env": [{"name": "LOG_LEVEL", "value": canary()}]}]}}}});
    let path = format!("{}/support?fieldManager=somebody", river.lab.path("apps/v1/deployments"));
    let request = http::Request::patch(path).header("content-type", "application/strategic-merge-patch+json");
    let request = request.body(drift.to_string().into_bytes()).expect("a request");
    river.lab.client.request::<serde_json::Value>(request).await.expect("changed by hand");
    let plan = daemon.run(&["plan"]);
    let diff = daemon.run(&["diff", "support"]);
    until("the drift is healed", async || {
        let live = river.lab.see("apps/v1/deployments", "support").await?;
        (!live.to_string().contains(&canary())).then_some(())
    })
    .await;

    // A commit that holds it in plain text is refused, and told of.
    let overlay = "environments/development/support.yaml";
    let from = "env: {LOG_LEVEL: DEBUG}";
    river.repo.edit(overlay, from, &format!("env: {{LOG_LEVEL: DEBUG, OPENAI_API_KEY: {}}}", canary()));
    river.repo.commit("Write a secret down");
    let status = until("the status names the place", async || {
        Some(daemon.done(&["status"])).filter(|status| status.contains(&format!("{overlay}:")))
    })
    .await;
    // A hook that is not signed, with it in the body and in a header.
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = http.post(format!("http://127.0.0.1:{}/hooks/github", daemon.port)).body(canary());
    let answer = request.header("x-hub-signature-256", format!("sha256={}", canary())).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 401);
    let answer = answer.text().await.expect("text");
    river.repo.revert(&["HEAD"]);
    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
    river.repo.revert(&["HEAD"]);
    river.settled(&river.repo.head()).await;

    let mut words = vec![
        ("plan", format!("{plan:?}")),
        ("diff", format!("{diff:?}")),
        ("status of the bad commit", status),
        ("the hook's answer", answer),
    ];
    for arguments in [
        &["status"][..],
        &["status", "-o", "json"],
        &["status", "support", "-o", "json"],
        &["history", "support", "-o", "json"],
        &["plan", "-o", "json"],
        &["diff", "support", "-o", "json"],
    ] {
        words.push(("a command", format!("{arguments:?} {:?}", daemon.run(arguments))));
    }
    for page in ["/metrics", "/readyz", "/healthz"] {
        words.push(("a page", daemon.get(page).await.expect("a page").1));
    }
    for collection in [
        "events",
        "events.k8s.io/v1/events",
        "backstay.dev/v1alpha1/agentreleases",
        "backstay.dev/v1alpha1/agentenvironments",
        "configmaps",
        "coordination.k8s.io/v1/leases",
    ] {
        let list = river.lab.ask(http::Method::GET, &river.lab.path(collection), None).await.expect("a list");
        assert!(list["items"].is_array(), "{collection}");
        words.push((collection, list.to_string()));
    }
    let bare = river.repo.bare();
    words.push((
        "messages of commits",
        river.repo.git(&["--git-dir", bare.to_str().expect("a path"), "log", "--all", "--format=%B%an%cn"]),
    ));
    let journal = daemon.config.with_extension("journal");
    words.push(("the journal", std::fs::read_to_string(journal).expect("a journal")));
    words.push(("the log", daemon.log()));
    for (what, text) in &words {
        assert!(!text.contains("C4n4ryTh4tMust"), "{what}: {text}");
    }
    assert!(words.iter().all(|(_, text)| !text.is_empty()), "all of it says something");
}
