//! Keys of `OpenPGP`: who is not known, or known no more, brings nothing in; who is goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::{Repo, River, condition, until};
use crate::lab::lab;

/// A `GnuPG` that signs, another that only knows what is public, and the file of keys that the second exports.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        let keys = Self(tempfile::tempdir().expect("a temporary folder"));
        for home in ["signs", "knows"] {
            std::fs::create_dir(keys.path(home)).expect("a folder");
            std::fs::set_permissions(keys.path(home), std::fs::Permissions::from_mode(0o700)).expect("a mode");
        }
        for name in ["alice", "bob", "mallory"] {
            let who = format!("{name} <{name}@example.com>");
            keys.gpg("signs", &["--quick-generate-key", &who, "ed25519", "sign", "0"]);
        }
        let public = keys.gpg("signs", &["--armor", "--export", "alice", "bob"]);
        std::fs::write(keys.path("public"), public).expect("written");
        keys.learn("public");
        // What Git runs to sign.
        let home = keys.path("signs").display().to_string();
        let script =
            format!("#!/bin/sh\nexec gpg --homedir {home} --batch --pinentry-mode loopback --passphrase '' \"$@\"\n");
        std::fs::write(keys.path("gpg.sh"), script).expect("a script");
        std::fs::set_permissions(keys.path("gpg.sh"), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn gpg(&self, home: &str, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.path(home)).args(["--batch", "--yes", "--quiet"]);
        command.args(["--pinentry-mode", "loopback", "--passphrase", ""]).args(arguments);
        let output = command.output().expect("gpg runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Imports a file where nobody signs, and lets the daemon know what is known there now.
    fn learn(&self, file: &str) {
        self.gpg("knows", &["--import", &self.path(file).display().to_string()]);
        let known = self.gpg("knows", &["--armor", "--export"]);
        std::fs::write(self.path("next"), known).expect("written");
        std::fs::rename(self.path("next"), self.path("keys.asc")).expect("renamed");
    }

    /// The revocation that was made with the key, for whoever finds it.
    fn revoke(&self, name: &str) {
        let listed = self.gpg("signs", &["--with-colons", "--list-keys", name]);
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).expect("a fingerprint");
        let print = line.split(':').nth(9).expect("a fingerprint");
        let text = std::fs::read_to_string(self.path("signs").join(format!("openpgp-revocs.d/{print}.rev")));
        // With a colon before its first line, against accidents.
        std::fs::write(self.path("revocation"), text.expect("a revocation").replace(":-----", "-----"))
            .expect("written");
        self.learn("revocation");
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // The agent that holds the secret keys ends with its folder.
        let mut ends = Command::new("gpgconf");
        let _ = ends.arg("--homedir").arg(self.path("signs")).args(["--kill", "all"]).status();
    }
}

/// Commits all that changed, or the last commit anew, signed by a key; gives the commit.
fn signed(repo: &Repo, keys: &Keys, by: &str, what: &[&str]) -> String {
    let program = format!("gpg.program={}", keys.path("gpg.sh").display());
    let key = format!("user.signingkey={by}@example.com");
    repo.git(&[&["-c", &program, "-c", &key, "commit", "-q", "--all", "-S"][..], what].concat());
    repo.git(&["push", "-q", "--force-with-lease", "origin", "main"]);
    repo.head()
}

/// Waits until the environment says of a commit why it is not taken, and Git was looked at some times more.
async fn refused(river: &River, daemon: &crate::daemon::Daemon, commit: &str, why: &str) {
    until(&format!("it says `{why}`"), async || {
        let record = river.environment().await?;
        let ready = condition(&record, "Ready")?;
        let says = |text: &str| text.contains(commit) && text.contains(why);
        let told = ready["reason"] == "Unverified" && says(ready["message"].as_str().unwrap_or_default());
        (told && says(&record["errors"].to_string())).then_some(())
    })
    .await;
    let status = daemon.done(&["status"]);
    assert!(status.contains(commit) && status.contains(why), "{status}");
    let series = "backstay_source_polls_total{result=\"success\"}";
    let looks = daemon.metric(series).await;
    until("more looks at Git", async || (daemon.metric(series).await >= looks + 3.0).then_some(())).await;
}

// S3
#[tokio::test]
async fn a_key_of_openpgp_that_is_unknown_or_revoked_leaves_the_last_good_one_running() {
    let Some(lab) = lab("openpgp").await else { return };
    let (repo, keys) = (Repo::small(), Keys::new());
    let first = signed(&repo, &keys, "alice", &["--allow-empty", "-m", "Signed from here on"]);
    let source = format!(
        "url = \"{}\"\ninterval = \"1s\"\n[source.verify]\nopenpgp_keys = \"{}\"\n",
        repo.bare().display(),
        keys.path("keys.asc").display()
    );
    let river = River::with_source(lab, repo, source).await;
    let daemon = river.start().await;
    river.settled(&first).await;
    let hello = river.greets("Hello!").await;

    // Somebody whom nobody knows.
    river.repo.greet("Ahoy!");
    let strange = signed(&river.repo, &keys, "mallory", &["-m", "Nautical"]);
    refused(&river, &daemon, &strange, "not among the allowed ones").await;
    assert_eq!(river.greets("Hello!").await, hello);

    // The same, by somebody who is known: it goes on.
    let known = signed(&river.repo, &keys, "bob", &["--amend", "--no-edit"]);
    river.settled(&known).await;
    let ahoy = river.greets("Ahoy!").await;

    // Whose key is revoked brings nothing new in; what he brought stays.
    keys.revoke("bob");
    river.repo.greet("Servus!");
    let late = signed(&river.repo, &keys, "bob", &["-m", "Southern"]);
    refused(&river, &daemon, &late, "is revoked").await;
    assert_eq!(river.greets("Ahoy!").await, ahoy);
    let again = signed(&river.repo, &keys, "alice", &["--amend", "--no-edit"]);
    river.settled(&again).await;
    river.greets("Servus!").await;
}
