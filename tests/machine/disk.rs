//! The disk of a host is full or cannot be written: what runs goes on, the status says so, and it heals by itself.
//!
//! A file system of one's own takes root; without it there is nothing to try here.

use std::path::Path;
use std::process::Command;

use crate::asker::User;
use crate::daemon::{BACKSTAY, holds, until};
use crate::files::Strace;
use crate::golden;
use crate::lab::lab;
use crate::serving::{CODE, OVERLAY, knock, serving};

/// A mount, until it is dropped.
struct Mount<'m>(&'m Path);

impl<'m> Mount<'m> {
    fn new(at: &'m Path, arguments: &[&str]) -> Self {
        let mounted = Command::new("mount").args(arguments).arg(at).status().expect("mount runs");
        assert!(mounted.success(), "{arguments:?} at {}", at.display());
        Self(at)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

fn is_root() -> bool {
    backstay::sys::own_uid() == 0
}

#[tokio::test]
async fn an_agent_that_fills_the_disk_is_said_and_all_heals_when_there_is_room() {
    if !is_root() {
        return;
    }
    let lab = lab("full").await;
    let state = lab.at("state");
    std::fs::create_dir_all(&state).expect("a folder");
    let _small = Mount::new(&state, &["-t", "tmpfs", "-o", "size=40m,mode=755", "none"]);
    let (river, daemon) = serving(lab).await;
    let (now, filler) = (river.lab.at("now"), state.join("filler"));
    let script = format!(
        "{BACKSTAY} example-agent & while ! [ -e {} ]; do sleep 0.1; done; cat /dev/zero > {}; wait",
        now.display(),
        filler.display()
    );
    river.repo.edit(OVERLAY, CODE, &format!("code: {{command: [sh, -c, '{script}']}}\n"));
    let pushed = river.repo.commit("Fill the disk");
    river.settled(&pushed).await;
    std::fs::write(&now, "").expect("written");
    until("it is said", async || daemon.run(&["status", "support"]).out.contains("is full").then_some(())).await;
    golden::says("disk-full", &river, &daemon).await;
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    assert_eq!(knock(&river).await, Some(200), "what serves goes on");
    std::fs::remove_file(&filler).expect("removed");
    until("it is written again", async || {
        let said = daemon.run(&["status", "support"]).out;
        said.contains("Ready=True").then_some(())
    })
    .await;
    let pushed = river.repo.revert(&["HEAD"]);
    river.settled(&pushed).await;
    golden::says("disk-was-full", &river, &daemon).await;
    river.greets("Hello!").await;
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_written_is_said_at_the_start_and_what_runs_goes_on() {
    if !is_root() {
        return;
    }
    let (river, daemon) = serving(lab("readonly").await).await;
    let before = river.lab.instances();
    daemon.kill();
    let state = river.lab.at("state");
    let text = state.display().to_string();
    let own = Mount::new(&state, &["--bind", &text]);
    let read_only = Mount::new(&state, &["-o", "remount,bind,ro"]);
    let daemon = river.spawn("one", "");
    until("it says so", async || daemon.log().contains("Read-only file system").then_some(())).await;
    let said = daemon.log();
    for word in ["cannot serve `development` on this host", "state/host", "a `[state] folder` that it may write"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let asked = daemon.run(&["status"]);
    assert!(asked.err.contains("is not running") && asked.err.contains("agents go on without it"), "{asked:?}");
    assert_eq!(knock(&river).await, Some(200), "what serves goes on");
    std::mem::forget(read_only);
    drop(own);
    let daemon = river.start().await;
    river.recorded("it is Ready", |record| holds(record, "Ready", "")).await;
    golden::says("folder-was-read-only", &river, &daemon).await;
    assert_eq!(river.lab.instances(), before);
    let pushed = river.repo.commit_greeting("Ahoy!");
    river.settled(&pushed).await;
}

/// What a kernel lets nobody do in a file system that it has made read-only, with files open in it.
const CHANGES: &str = "pwrite64,ftruncate,fallocate,mkdir,rmdir,rename,unlink,unlinkat,link,symlink,chmod,fchmod";

#[tokio::test]
async fn a_state_folder_that_becomes_read_only_is_said_and_all_heals_when_it_can_be_written() {
    if !is_root() {
        return;
    }
    let (river, daemon) = serving(lab("becomes").await).await;
    let user = User::start(&river.lab.front);
    let log = river.folder().join("strace");
    let arguments =
        ["-f", "-q", "-b", "execve", "-e", &format!("inject={CHANGES}:error=EROFS"), "-o"].map(str::to_owned);
    let read_only = Strace::attach(daemon.id(), &log, &[&arguments[..], &[log.display().to_string()]].concat());
    let pushed = river.repo.commit_greeting("Ahoy!");
    until("it is said", async || {
        daemon.run(&["status", "support"]).out.contains("the state folder cannot be written").then_some(())
    })
    .await;
    golden::says("folder-becomes-read-only", &river, &daemon).await;
    assert_eq!(daemon.run(&["status", "--exit-code"]).code, 1);
    assert!(daemon.log().contains("nothing is written on this host; what runs goes on"), "{}", daemon.log());
    river.greets("Hello!").await;
    drop(read_only);
    river.settled(&pushed).await;
    river.greets("Ahoy!").await;
    golden::says("folder-is-written-again", &river, &daemon).await;
    let got = user.end();
    assert!(got.failed.is_empty() && got.answers > 0, "{got:?}");
}
