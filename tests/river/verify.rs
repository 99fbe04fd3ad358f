//! Only what is signed by somebody who is trusted is deployed, and what Backstay writes back is signed too.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Repo, River, condition, holds, until};
use crate::lab::lab;

/// Keys of a person, of the daemon and of a stranger, and the file in which the first two stand.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        let keys = Self(tempfile::tempdir().expect("a temporary folder"));
        for name in ["alice", "daemon", "mallory"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(keys.path(name));
            assert!(keygen.status().expect("ssh-keygen runs").success());
        }
        keys.allow(&["alice", "daemon"]);
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn allow(&self, names: &[&str]) {
        let line = |name: &&str| {
            let key = std::fs::read_to_string(self.path(&format!("{name}.pub"))).expect("a key");
            format!("{name}@example.com namespaces=\"git\" {key}")
        };
        let next = self.path("next");
        std::fs::write(&next, names.iter().map(line).collect::<String>()).expect("written");
        std::fs::rename(next, self.path("allowed_signers")).expect("renamed");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

// S3
#[tokio::test]
async fn only_what_is_signed_is_deployed_and_what_is_written_back_is_signed() {
    let Some(lab) = lab("verify").await else { return };
    let (repo, keys) = (Repo::small(), Keys::new());
    let alice = keys.path("alice");
    for (key, value) in [("gpg.format", "ssh"), ("user.signingkey", text(&alice))] {
        repo.git(&["config", key, value]);
    }
    repo.git(&["commit", "-q", "-S", "--allow-empty", "-m", "Signed from here on"]);
    let first = repo.push();
    let source = format!(
        "url = \"{}\"\ninterval = \"1s\"\nsigning_key = \"{}\"\n[source.verify]\nssh_allowed_signers = \"{}\"\n",
        repo.bare().display(),
        keys.path("daemon").display(),
        keys.path("allowed_signers").display()
    );
    let river = River::with_source(lab, repo, source).await;
    let daemon = river.start().await;
    river.settled(&first).await;
    let hello = river.greets("Hello!").await;

    // An unsigned push changes nothing, and the status says which commit it is, why, and what to do.
    let unsigned = river.repo.commit_greeting("Ahoy!");
    let lacks = |record: &Value| {
        let ready = condition(record, "Ready");
        let says = |text: &str| text.contains(&unsigned) && text.contains("no signature") && text.contains("rebase");
        ready
            .is_some_and(|ready| ready["reason"] == "Unverified" && says(ready["message"].as_str().unwrap_or_default()))
            && record["errors"].as_array().is_some_and(|errors| errors.iter().any(|error| says(&error.to_string())))
    };
    until("it says what is missing", async || river.environment().await.filter(|record| lacks(record))).await;
    let status = daemon.done(&["status"]);
    assert!(status.contains(&unsigned) && status.contains("no signature"), "{status}");
    let series = "backstay_source_polls_total{result=\"success\"}";
    let looks = daemon.metric(series).await;
    until("more looks at Git", async || (daemon.metric(series).await >= looks + 3.0).then_some(())).await;
    assert_eq!(river.greets("Hello!").await, hello);
    let record = river.environment().await.expect("a record");
    assert!(record["accepted"].to_string().contains(&first), "{record}");

    // The same, signed.
    river.repo.git(&["commit", "-q", "--amend", "--no-edit", "-S"]);
    river.repo.git(&["push", "-q", "--force-with-lease", "origin", "main"]);
    let signed = river.repo.head();
    river.settled(&signed).await;
    river.greets("Ahoy!").await;
    let record = until("nothing is missing", async || {
        river.environment().await.filter(|record| condition(record, "Ready").is_some_and(|at| at["status"] == "True"))
    });
    assert!(record.await["errors"].as_array().is_none_or(Vec::is_empty));

    // What the daemon writes back is signed by its key, and accepted.
    daemon.done(&["rollback", "support", "--reason", "too nautical"]);
    assert_eq!(river.greets("Hello!").await, hello);
    until("Git is told", async || {
        (!river.repo.git(&["ls-remote", "origin", "main"]).starts_with(&signed)).then_some(())
    })
    .await;
    river.repo.git(&["pull", "-q", "--ff-only", "origin", "main"]);
    let told = river.repo.head();
    assert!(river.repo.git(&["log", "-1", "--format=%B"]).contains(&format!("This reverts commit {signed}")));
    let allowed = format!("gpg.ssh.allowedSignersFile={}", keys.path("allowed_signers").display());
    let signer = river.repo.git(&["-c", &allowed, "log", "-1", "--format=%G? %GS"]);
    assert_eq!(signer, "G daemon@example.com");
    river.recorded("Git agrees", |record| holds(record, "Ready", "") && record["differs"].is_null()).await;
    until("it is accepted", async || {
        river.environment().await.filter(|record| record["accepted"].to_string().contains(&told))
    })
    .await;

    // A person's revert is signed by the person, or refused before it is pushed.
    let revert = ["revert", "support", "--author", "Alice Example <alice@example.com>", "--signing-key"];
    let mallory = keys.path("mallory");
    let refused = daemon.run(&[&revert[..], &[text(&mallory)]].concat());
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("not among those that may sign"), "{refused:?}");
    assert!(river.repo.git(&["ls-remote", "origin", "main"]).starts_with(&told), "nothing was pushed");
    daemon.done(&[&revert[..], &[text(&alice)]].concat());
    river.greets("Ahoy!").await;
    river.repo.git(&["pull", "-q", "--ff-only", "origin", "main"]);
    assert_eq!(river.repo.git(&["-c", &allowed, "log", "-1", "--format=%G? %GS"]), "G alice@example.com");

    // A key that is trusted no more: what stands stays, what it signs next does not come in until it is listed again.
    keys.allow(&["daemon"]);
    river.repo.greet("Servus!");
    river.repo.git(&["commit", "-q", "--all", "-S", "-m", "Southern"]);
    let southern = river.repo.push();
    until("it says who is not trusted", async || {
        let record = river.environment().await?;
        let errors = record["errors"].to_string();
        (errors.contains(&southern) && errors.contains("not among those that may sign")).then_some(())
    })
    .await;
    keys.allow(&["alice", "daemon"]);
    river.settled(&southern).await;
    river.greets("Servus!").await;
}
