//! What people do past Git: a rollback, a suspension, a change by hand, an object of their own.

use http::Method;
use serde_json::{Value, json};

use crate::daemon::{Repo, River, condition, holds, until};
use crate::lab::lab;
use crate::stories;

#[tokio::test]
async fn a_rollback_tells_git_as_soon_as_it_can() {
    let Some(lab) = lab("rollback").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let north = river.repo.commit_greeting("Moin!");
    river.settled(&north).await;
    river.greets("Moin!").await;

    // Git can be reached: it is told at once.
    daemon.done(&["rollback", "support", "--reason", "too northern"]);
    assert_eq!(river.greets("Hello!").await, first);
    let remote = async || river.repo.git(&["ls-remote", "origin", "main"]);
    until("Git is told", async || (!remote().await.starts_with(&north)).then_some(())).await;
    river.repo.git(&["pull", "-q", "--ff-only", "origin", "main"]);
    let message = river.repo.git(&["log", "-1", "--format=%B"]);
    assert!(message.contains(&format!("This reverts commit {north}")) && message.contains("too northern"), "{message}");
    river.recorded("Git agrees", |record| holds(record, "Ready", "") && record["differs"].is_null()).await;
    assert_eq!(river.greets("Hello!").await, first);

    // Git is away: the target moves, and the status says that Git does not know.
    let south = river.repo.commit_greeting("Servus!");
    river.settled(&south).await;
    river.greets("Servus!").await;
    let (here, away) = (river.repo.bare(), river.repo.parent().join("away.git"));
    std::fs::rename(&here, &away).expect("Git is away");
    daemon.done(&["rollback", "support", "--reason", "too southern"]);
    assert_eq!(river.greets("Hello!").await, first);
    let record = river.recorded("it says that Git asks for something else", |record| !record["differs"].is_null());
    record.await;
    river.recorded("it says that Git is not told", |record| condition(record, "GitBehind").is_some()).await;
    std::fs::rename(&away, &here).expect("Git is back");
    until("Git is told", async || (!remote().await.starts_with(&south)).then_some(())).await;
    let ready = |record: &Value| {
        holds(record, "Ready", "") && record["differs"].is_null() && condition(record, "GitBehind").is_none()
    };
    river.recorded("Git agrees", |record| ready(record)).await;
    river.repo.git(&["pull", "-q", "--ff-only", "origin", "main"]);
    let message = river.repo.git(&["log", "-1", "--format=%B"]);
    assert!(message.contains(&format!("This reverts commit {south}")), "{message}");
}

#[tokio::test]
async fn who_is_suspended_is_left_alone() {
    let Some(lab) = lab("suspend").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    daemon.done(&["suspend", "support", "--reason", "a look inside"]);
    let accepted = river.repo.commit_greeting("Ahoy!");
    until("the commit is seen", async || {
        river.environment().await.filter(|record| record["accepted"].to_string().contains(&accepted))
    })
    .await;
    let record = river.record("support").await.expect("a record");
    assert!(holds(&record, "Suspended", ""), "{record}");
    assert!(daemon.done(&["status"]).contains("suspended by"), "it says so");
    river.greets("Hello!").await;
    daemon.done(&["resume", "support"]);
    river.settled(&accepted).await;
    river.greets("Ahoy!").await;
}

#[tokio::test]
async fn drift_is_healed_until_somebody_insists() {
    let Some(lab) = lab("drift").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let services = river.lab.ask(Method::GET, &river.lab.path("services"), None).await.expect("services");
    let service = services["items"][0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let selector = services["items"][0]["spec"]["selector"].clone();
    let stray = json!({"spec": {"selector": {"backstay.dev/agent": "stray"}}});
    for time in 1..=3 {
        river.lab.merge("services", &service, "somebody", &stray).await;
        until(&format!("it is healed, time {time}"), async || {
            river.lab.see("services", &service).await.filter(|object| object["spec"]["selector"] == selector)
        })
        .await;
    }
    river.lab.merge("services", &service, "somebody", &stray).await;
    let record = river.recorded("it is contested", |record| holds(record, "Contested", "somebody")).await;
    assert!(record["driftHealed"].as_u64().is_some_and(|healed| healed >= 3), "{record}");
    assert!(daemon.done(&["status"]).contains("somebody"), "it says who");
}

#[tokio::test]
async fn what_others_made_is_taken_over_only_with_consent_and_what_is_gone_from_git_goes() {
    let Some(lab) = lab("adopt").await else { return };
    let repo = Repo::whole();
    let river = River::new(lab, repo).await;
    let theirs = json!({"metadata": {"name": "research-dashboard"}, "data": {"title": "By hand"}});
    let theirs = river.lab.make("configmaps", theirs).await;
    let daemon = river.start().await;
    let research = async |what: &str, is: &dyn Fn(&Value) -> bool| {
        until(what, async || river.record("research").await.filter(|record| is(record))).await
    };
    research("it stops at the object", &|record| {
        condition(record, "Stalled")
            .is_some_and(|stalled| stalled["status"] == "True" && stalled.to_string().contains("research-dashboard"))
    })
    .await;
    assert!(daemon.done(&["status", "research"]).contains("research-dashboard"), "it says so");
    let seen = river.lab.see("configmaps", "research-dashboard").await.expect("it is there");
    assert_eq!(seen["metadata"]["resourceVersion"], theirs["metadata"]["resourceVersion"]);

    let consent = "agent: research\nenvironment: development\nallow: adopt\nobject: ConfigMap/research-dashboard\n\
                   expires: 2036-06-30\n";
    river.repo.write("consent/development.yaml", consent);
    river.repo.commit("Let it be taken over");
    research("it is Ready", &|record| holds(record, "Ready", "")).await;
    let seen = river.lab.see("configmaps", "research-dashboard").await.expect("it is there");
    assert_eq!(seen["metadata"]["uid"], theirs["metadata"]["uid"]);
    assert_eq!(seen["data"]["title"], "Research");

    stories::removal(&river, &daemon).await;
}
