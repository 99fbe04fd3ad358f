//! A disk that is full, and one that can only be read.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use backstay::ledger::verify;
use serde_json::Value;

use crate::daemon::{Repo, River, condition, holds, until};
use crate::lab::lab;

/// A small disk of its own beneath a folder; gone at the end.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(folder: &'a Path) -> Self {
        let disk = Self(folder);
        disk.run(&["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
        disk
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.0.join("ballast")).expect("ballast");
        for size in [4096, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("removed");
    }

    fn may_write(&self, may: bool) {
        self.run(&["mount", "-o", if may { "remount,rw" } else { "remount,ro" }]);
    }

    fn run(&self, command: &[&str]) {
        let status = Command::new(command[0]).args(&command[1..]).arg(self.0).status();
        assert!(status.expect("a command").success(), "{command:?}");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

// R3
#[tokio::test]
async fn a_full_disk_stops_what_needs_it_and_nothing_else() {
    let Some(lab) = lab("full").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let disk = Disk::mount(river.folder());
    let daemon = river.start().await;
    river.settled(&river.repo.head()).await;
    let first = river.greets("Hello!").await;
    let bad = river.repo.commit_greeting("Ahoy!");
    river.settled(&bad).await;
    river.greets("Ahoy!").await;

    disk.fill();
    river.repo.write("NOTES.md", &noise());
    river.repo.commit("Add notes");
    told(&river, "space").await;
    let status = daemon.done(&["status"]);
    assert!(status.contains("space"), "{status}");
    // Going back needs no disk.
    daemon.done(&["rollback", "support", "--reason", "three in the morning"]);
    assert_eq!(river.greets("Hello!").await, first);

    disk.empty();
    until("Git is told", async || {
        river.repo.git(&["fetch", "-q", "origin", "main"]);
        let message = river.repo.git(&["log", "-1", "--format=%B", "FETCH_HEAD"]);
        message.contains(&format!("This reverts commit {bad}")).then_some(())
    })
    .await;
    let agrees = |record: &Value| holds(record, "Ready", "") && record["differs"].is_null();
    river.recorded("Git agrees", |record| agrees(record) && condition(record, "GitBehind").is_none()).await;
    assert_eq!(river.greets("Hello!").await, first);
    daemon.kill();
    // Nothing is torn in the journal, and a start brings what it missed.
    let daemon = river.start().await;
    river.greets("Hello!").await;
    daemon.kill();
    let lines = std::fs::read_to_string(river.folder().join("one.journal")).expect("the journal");
    verify(&river.folder().join("one.journal")).expect("a whole journal");
    assert!(lines.lines().any(|line| line.contains("three in the morning")), "{lines}");
}

// R3
#[tokio::test]
async fn a_disk_that_can_only_be_read_is_told_and_recovered_from() {
    let Some(lab) = lab("readonly").await else { return };
    let river = River::new(lab, Repo::small()).await;
    let state = river.folder().join("one");
    std::fs::create_dir(&state).expect("a folder");
    let disk = Disk::mount(&state);
    disk.may_write(false);
    let daemon = river.spawn("one", "");
    told(&river, "ead-only").await;
    let status = daemon.done(&["status"]);
    assert!(status.contains("ead-only"), "{status}");
    disk.may_write(true);
    river.settled(&river.repo.head()).await;
    river.greets("Hello!").await;
}

/// Waits until the environment's record says in its `Ready` that something is wrong with the disk.
async fn told(river: &River, word: &str) {
    until(&format!("the record says {word}"), async || {
        let record = river.environment().await?;
        let ready = condition(&record, "Ready")?;
        (ready["status"] == "False" && ready["message"].as_str()?.contains(word)).then_some(())
    })
    .await;
}

/// Text that needs its room on a disk, however it is packed.
fn noise() -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap_or(0))
    };
    (0..100_000).map(|_| next()).collect()
}
