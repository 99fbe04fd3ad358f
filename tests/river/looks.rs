//! `observe = true`: beside whatever deploys there today, and without a single write.

use std::process::{Command, Stdio};

use http::Method;

use crate::daemon::{ENVIRONMENT, Repo, River, until};
use crate::lab::lab;

#[tokio::test]
async fn who_only_observes_says_what_would_be_done_and_writes_nothing() {
    let Some(lab) = lab("looks").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    river.greets("Hello!").await;
    daemon.kill();
    river.at_rest().await;

    let state = tempfile::tempdir().expect("a temporary folder");
    let (config, log) = (state.path().join("observe.toml"), state.path().join("log"));
    let text = format!(
        "installation = \"river\"\n[source]\nurl = \"{}\"\ninterval = \"1s\"\n[[target]]\nenvironment = \
         \"{ENVIRONMENT}\"\nobserve = true\nkubernetes = {{ namespace = \"{}\" }}\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [state]\nfolder = \"{}\"\n",
        river.repo.bare().display(),
        river.lab.namespace,
        state.path().display(),
    );
    std::fs::write(&config, text).expect("a configuration");
    let everything = async || {
        let leases = river.lab.ask(Method::GET, &river.lab.path("coordination.k8s.io/v1/leases"), None).await;
        let events = river.lab.ask(Method::GET, &river.lab.path("events"), None).await.expect("events");
        let ours = |event: &&serde_json::Value| event["source"]["component"] == "backstay";
        let events = events["items"].as_array().expect("a list").iter().filter(ours).count();
        let leases = leases.expect("leases")["items"].take();
        (river.versions().await, leases.to_string(), events)
    };
    river.repo.commit_greeting("Ahoy!");
    let before = everything().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
    command.arg("run").arg("--config").arg(&config).env("HOME", state.path());
    let file = std::fs::File::create(&log).expect("a log");
    let mut observer = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("the daemon");
    let said = until("it says what would be done", async || {
        let said = std::fs::read_to_string(&log).expect("a log");
        assert!(observer.try_wait().expect("a process").is_none(), "it ended: {said}");
        said.lines().find(|line| line.contains("would be done") && line.contains("Deployment/")).map(str::to_owned)
    })
    .await;
    assert!(said.contains("support"), "{said}");
    let after = everything().await;
    observer.kill().expect("killed");
    observer.wait().expect("gone");
    assert_eq!(after, before);
    river.greets("Hello!").await;
}
