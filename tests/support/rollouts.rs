//! What holds of rollouts on every target: the same bodies run behind a gateway, by the number of pods, and on a host.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::print_stdout, reason = "what people read is shown")]

use http::Method;
use serde_json::Value;

use crate::daemon::{Daemon, Repo, River, condition, holds, until};
use crate::lab::Lab;
use crate::users::{Front, Users};

/// What an agent is changed by in the environment that every river serves.
pub(crate) const OVERLAY: &str = "environments/development/support.yaml";
/// Half of the traffic for two seconds, and then all of it, watched for two.
pub(crate) const CANARY: &str = "
rollout:
  strategy: {canary: {steps: [{weight: 50, for: 2s}]}}
  analysis: {errors: {preset: error_rate, max: 0.01, compare: stable, margin: 0.02}}
  rollback: {bake: 2s, cooldown: 0s}
";

/// A second set, looked at by its preview and then switched to; `HOST` is the agent's own.
pub(crate) const BLUE_GREEN: &str = "
rollout:
  strategy: {blueGreen: {preview: {host: preview-HOST}, keepOld: 5s}}
  analysis: {errors: {preset: error_rate, max: 0.3}}
  rollback: {bake: 2s, cooldown: 0s}
";
/// A segment of the users gets the candidate, until a person decides.
pub(crate) const EXPERIMENT: &str = "
rollout:
  strategy: {abTest: {by: {header: x-plan, value: pro}, for: 1h, min: 1s, winner: ask}}
  analysis: {errors: {preset: error_rate, max: 0.3, compare: stable, margin: 0.2}}
  rollback: {bake: 1s, cooldown: 0s}
";

/// The example repository with one agent, whose overlay has these lines too.
pub(crate) fn repo(lines: &str) -> Repo {
    let repo = Repo::small();
    if !lines.trim().is_empty() {
        repo.write(OVERLAY, &format!("{}{lines}", repo.read(OVERLAY).trim_end()));
        repo.commit("Roll out step by step");
    }
    repo
}

/// The short id of the stable release of a record.
pub(crate) fn stable(record: &Value) -> String {
    short(&record["stable"]["release"])
}

/// The short id of a release of a record.
pub(crate) fn short(release: &Value) -> String {
    format!("r-{}", &release.as_str().expect("a release").replace("r-", "")[..12])
}

/// Waits until another release than `before` is stable, and nothing is on its way.
pub(crate) async fn promoted(river: &River, before: &str) -> Value {
    let promoted =
        |record: &Value| record["operation"].is_null() && record["stable"].is_object() && stable(record) != before;
    river.recorded("another release is stable", promoted).await
}

/// A good candidate gets a part, then all of the traffic, and nobody is failed.
pub(crate) async fn good(river: &River, daemon: &Daemon, front: &Front) {
    let first = stable(&river.record("support").await.expect("a record"));
    let users = Users::start(front);
    users.answered(&first, 10).await;
    river.repo.commit_greeting("Ahoy!");
    let record = promoted(river, &first).await;
    let second = stable(&record);
    users.answered(&second, 10).await;
    let got = users.end().await;
    assert!(got.values().all(|got| got.failed == 0), "{got:?}");
    assert!(got[&first].answered > 0 && got[&second].answered > 0, "{got:?}");
    let history = daemon.done(&["history", "support"]);
    assert!(history.contains("succeeded") || history.contains("stable"), "{history}");
    assert!(holds(&record, "Ready", ""), "{record}");
}

/// A bad candidate is taken back, Git says so, and the same content stays out.
pub(crate) async fn bad(river: &River, daemon: &Daemon, front: &Front) {
    let good = stable(&river.record("support").await.expect("a record"));
    let users = Users::start(front);
    users.answered(&good, 100).await;
    river.repo.edit(OVERLAY, "progressDeadline: 60s\n", "progressDeadline: 60s\nconfig: {demo: {failEvery: 2}}\n");
    let bad_commit = river.repo.commit("Fail every second question");
    let record = river.recorded("Git is told", |record| {
        record["quarantine"][0]["git"]["commit"].is_string() && record["operation"].is_null()
    });
    let record = record.await;
    let failed = &record["quarantine"][0];
    let bad = failed["release"].as_str().expect("an id").replace("r-", "");
    assert_eq!(stable(&record), good);
    assert!(matches!(failed["word"].as_str(), Some("error_rate_high" | "circuit_breaker")), "{failed}");
    // What Git says: the very commit, taken back, with evidence and trailers.
    river.repo.git(&["pull", "-q", "origin", "main"]);
    let message = river.repo.git(&["log", "-1", "--format=%B"]);
    for part in [
        "Revert \"Fail every second question\"",
        &format!("This reverts commit {bad_commit}."),
        "Backstay-Agent: support",
        "Backstay-Environment: development",
        &format!("Backstay-Release: {bad}"),
        "Backstay-Reason: ",
    ] {
        assert!(message.contains(part), "`{part}` in:\n{message}");
    }
    // The commit comes back by the poll: nothing new is deployed, and all is well.
    let agrees = |record: &Value| record["differs"].is_null() && holds(record, "Ready", "");
    let settled = river.recorded("Git agrees", agrees).await;
    assert_eq!(settled["operations"].as_array().map(Vec::len), record["operations"].as_array().map(Vec::len));
    let got = users.end().await;
    assert_eq!(got[&good].failed, 0, "{got:?}");
    assert!(!got.contains_key("nobody"), "{got:?}");
    println!("{}", daemon.done(&["history", "support"]));
    println!("{message}");
    // The same content again stays out.
    river.repo.git(&["revert", "--no-edit", "HEAD"]);
    river.repo.push();
    let refused = river.recorded("it stays out", |record| record["differs"]["why"].is_string()).await;
    assert_eq!(stable(&refused), good);
    assert!(refused["operation"].is_null(), "{refused}");
}

/// Waits until a rollout waits for a person.
pub(crate) async fn waits_for_a_person(river: &River) -> Value {
    let waits = |record: &Value| {
        condition(record, "Progressing")
            .is_some_and(|found| found["message"].as_str().is_some_and(|message| message.contains("backstay promote")))
    };
    river.recorded("it waits for a person", waits).await
}

/// People hold a rollout, and abort it.
pub(crate) async fn people(river: &River, daemon: &Daemon) {
    let first = stable(&river.record("support").await.expect("a record"));
    river.repo.edit(OVERLAY, "[{weight: 50, for: 2s}]", "[{pause: {}}, {weight: 50, for: 2s}]");
    river.repo.commit("Ask a person first");
    river.settled(&river.repo.head()).await;
    river.repo.commit_greeting("Ahoy!");
    waits_for_a_person(river).await;
    let status = daemon.done(&["status", "support"]);
    assert!(status.contains("promote"), "{status}");
    daemon.done(&["abort", "support", "--reason", "not today"]);
    let record = river.recorded("it is back", |record| record["operation"].is_null()).await;
    let outcome = record["operations"][0]["outcome"]["failed"].as_str().unwrap_or_default();
    assert!(stable(&record) == first && outcome.contains("not today"), "{record}");
    let again = daemon.run(&["abort", "support", "--reason", "once more"]);
    assert_ne!(again.code, 0, "{again:?}");
}

/// What people take back in Git: a good release at once, a part of a commit as any new release, and where the message names a
/// commit that is not this agent's, the content alone counts.
pub(crate) async fn reverts_by_people(river: &River, daemon: &Daemon, front: &Front) {
    let users = Users::start(front);
    let first = stable(&river.record("support").await.expect("a record"));
    let pushed = river.repo.commit_greeting("Ahoy!");
    let second = stable(&promoted(river, &first).await);
    let steps = async || river.record("support").await.expect("a record")["operations"][0].clone();

    // A good release is taken back: without a canary, and nobody is blamed.
    let head = river.repo.revert(&["HEAD"]);
    let record = river.settled(&head).await;
    assert_eq!((stable(&record), record["quarantine"].as_array().map_or(0, Vec::len)), (first.clone(), 0));
    assert!(record["hold"].is_null() && record["differs"].is_null(), "{record}");
    assert!(daemon.done(&["history", "support"]).contains(&format!("verified revert of {}", &pushed[..8])));
    assert_eq!(river.repo.git(&["ls-remote", "origin", "main"])[..40], head, "Backstay adds nothing");

    // A part of a commit is taken back: that release has never been, so it goes out as any other.
    river.repo.greet("Moin!");
    river.repo.edit(OVERLAY, "env: {LOG_LEVEL: DEBUG}", "env: {LOG_LEVEL: INFO}");
    let both = river.repo.commit("Greet, and log less");
    let third = stable(&promoted(river, &first).await);
    river.repo.greet("Hello!");
    river.repo.commit(&format!("Revert \"Greet, and log less\"\n\nThis reverts commit {both}."));
    let fourth = stable(&promoted(river, &third).await);
    assert!(![&first, &second, &third].contains(&&fourth), "{fourth}");
    assert_eq!(steps().await["cause"], serde_json::json!({"commit": {}}));

    // A message that names somebody else's commit, over the content of before.
    river.repo.write("NOTES.md", "Nothing of an agent's.\n");
    let other = river.repo.commit("Note something");
    river.repo.edit(OVERLAY, "env: {LOG_LEVEL: INFO}", "env: {LOG_LEVEL: DEBUG}");
    let head = river.repo.commit(&format!("Revert \"Note something\"\n\nThis reverts commit {other}."));
    let record = river.settled(&head).await;
    assert_eq!(stable(&record), first);
    let history = daemon.done(&["history", "support"]);
    assert!(!history.contains(&format!("verified revert of {}", &other[..8])), "{history}");
    assert!(steps().await["cause"]["revert"].is_object(), "{history}");
    let got = users.end().await;
    assert!(got.values().all(|got| got.failed == 0), "{got:?}");
}

/// The second set has a preview, is switched to at once, and back by the same switch; nobody is failed.
pub(crate) async fn switched_at_once(river: &River, daemon: &Daemon, front: &Front) {
    let first = stable(&river.record("support").await.expect("a record"));
    let users = Users::start(front);
    // Kept from the switch by a person, so that the preview can be looked at.
    river.repo.commit_greeting("Ahoy!");
    let record = river.recorded("it begins", |record| record["rollout"].is_object()).await;
    let second = short(&record["candidate"]["release"]);
    daemon.done(&["pause", "support"]);
    let Front::Named { address, host } = front else { panic!("a route has a name") };
    let preview = Front::Named { address: address.clone(), host: format!("preview-{host}") };
    let http = preview.client();
    until("the preview answers", async || preview.ask(&http, &[]).await.1.ok()).await;
    preview.only(&second, 50, &[]).await;
    front.only(&first, 50, &[]).await;
    daemon.done(&["promote", "support"]);
    promoted(river, &first).await;
    users.answered(&second, 20).await;
    // The first set is still there, or comes again.
    river.repo.revert(&["HEAD"]);
    let back = |record: &Value| record["operation"].is_null() && stable(record) == first;
    river.recorded("the first is back", back).await;
    front.only(&first, 50, &[]).await;
    let got = users.end().await;
    assert!(got.values().all(|got| got.failed == 0), "{got:?}");
}

/// A segment alone gets the candidate of an experiment; a mirror's candidate gets copies, and its answers nobody.
pub(crate) async fn segment_and_mirror(river: &River, daemon: &Daemon, front: &Front) {
    let first = stable(&river.record("support").await.expect("a record"));
    river.repo.commit_greeting("Ahoy!");
    let runs = |record: &Value| record["rollout"]["state"]["phase"]["experiment"]["since"].is_string();
    let record = river.recorded("the experiment runs", runs).await;
    let second = short(&record["candidate"]["release"]);
    front.only(&second, 200, &[("x-plan", "pro")]).await;
    front.only(&first, 200, &[]).await;
    daemon.done(&["abort", "support", "--reason", "seen enough"]);
    river.recorded("it is back", |record| record["operation"].is_null()).await;
    // Git is told, too: who pushes next has that first.
    let own = river.repo.head();
    let told = async || (river.repo.git(&["ls-remote", "origin", "main"])[..40] != own).then_some(());
    until("Git is told", told).await;
    river.repo.git(&["pull", "-q", "origin", "main"]);
    let strategy = "{abTest: {by: {header: x-plan, value: pro}, for: 1h, min: 1s, winner: ask}}";
    river.repo.edit(OVERLAY, strategy, "{canary: {mirror: {for: 1h}, steps: [{weight: 50, for: 1s}]}}");
    river.repo.commit_greeting("Moin!");
    let mirrors = |record: &Value| record["rollout"]["state"]["phase"]["mirror"]["since"].is_string();
    let record = river.recorded("it mirrors", mirrors).await;
    let third = short(&record["candidate"]["release"]);
    let copied = async || {
        front.only(&first, 50, &[]).await;
        (asked_of(river, &third).await >= 150.0).then_some(())
    };
    until("the candidate got its copies", copied).await;
    assert_eq!(stable(&river.record("support").await.expect("a record")), first);
}

/// How many questions the pods of a release have counted.
async fn asked_of(river: &River, release: &str) -> f64 {
    let path = format!("{}?labelSelector=backstay.dev%2Frelease%3D{release}", river.lab.path("pods"));
    let pods = river.lab.ask(Method::GET, &path, None).await.expect("the pods");
    let mut asked = 0.0;
    for pod in pods["items"].as_array().expect("a list") {
        let Some(address) = Lab::address(pod) else { continue };
        let Ok(answer) = reqwest::get(format!("http://{address}/metrics")).await else { continue };
        let text = answer.text().await.expect("text");
        let counts = text
            .lines()
            .filter(|line| line.starts_with("http_server_request_duration_seconds_count") && line.contains("/chat"));
        asked += counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    asked
}

/// From rolling to canary to blue-green and back to rolling under load: nobody is failed.
pub(crate) async fn every_strategy(river: &River, front: &Front) {
    let canary = CANARY.trim_end();
    let blue_green = canary.replace("{canary: {steps: [{weight: 50, for: 2s}]}}", "{blueGreen: {keepOld: 2s}}");
    let users = Users::start(front);
    let mut before = stable(&river.record("support").await.expect("a record"));
    let rolling = river.repo.read(OVERLAY);
    let rolling = rolling.trim_end();
    for (strategy, greeting) in [(canary, "Ahoy!"), (&*blue_green, "Moin!"), ("", "Servus!")] {
        river.repo.write(OVERLAY, &format!("{rolling}{strategy}\n"));
        river.repo.commit_greeting(greeting);
        let record = promoted(river, &before).await;
        before = stable(&record);
        users.answered(&before, 20).await;
        until("the old one is gone", async || {
            let said = river.ask("support").await;
            said.iter().all(|said| said.release == before).then_some(())
        })
        .await;
    }
    let got = users.end().await;
    assert!(got.values().all(|got| got.failed == 0), "{got:?}");
    assert_eq!(got.len(), 4, "{got:?}");
}
