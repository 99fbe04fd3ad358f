//! The room `source` against real repositories and real servers.
#![allow(clippy::disallowed_methods, reason = "tests have files and clocks of their own")]

#[path = "support/git.rs"]
mod git;

#[path = "source/back.rs"]
mod back;
#[path = "source/between.rs"]
mod between;
#[path = "source/day.rs"]
mod day;
#[path = "source/failed.rs"]
mod failed;
#[path = "source/fetch.rs"]
mod fetch;
#[path = "source/forge.rs"]
mod forge;
#[path = "source/history.rs"]
mod history;
#[path = "source/http.rs"]
mod http;
#[path = "source/incident.rs"]
mod incident;
#[path = "source/movement.rs"]
mod movement;
#[path = "source/notes.rs"]
mod notes;
#[path = "source/poll.rs"]
mod poll;
#[path = "source/propose.rs"]
mod propose;
#[path = "source/push.rs"]
mod push;
#[path = "source/resolve.rs"]
mod resolve;
#[path = "source/same.rs"]
mod same;
#[path = "source/ssh.rs"]
mod ssh;
#[path = "source/tree.rs"]
mod tree;
#[path = "source/openpgp.rs"]
mod openpgp;
#[path = "source/verify.rs"]
mod verify;
#[path = "source/write.rs"]
mod write;

use std::time::Duration;

use backstay::model::{CommitId, Revision};
use backstay::source::{Checkout, Followed, Limits, Mirror, RemoteUrl, SourceConfig};
use tempfile::TempDir;

/// A mirror in a folder of its own.
struct TestMirror {
    mirror: Mirror,
    folder: TempDir,
}

impl std::ops::Deref for TestMirror {
    type Target = Mirror;

    fn deref(&self) -> &Mirror {
        &self.mirror
    }
}

/// A configuration with short limits.
fn config(url: RemoteUrl) -> SourceConfig {
    // Where a test runs beside many others, Git may take its time to start.
    let limits = Limits { connect: Duration::from_secs(20), idle: Duration::from_secs(90), ..Limits::default() };
    SourceConfig { limits, ..SourceConfig::new(url) }
}

fn mirror(config: SourceConfig) -> TestMirror {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mirror = Mirror::open(folder.path().join("mirror"), config).expect("a mirror");
    TestMirror { mirror, folder }
}

/// Follows `main` and all tags.
fn main_and_tags() -> Followed {
    let mut followed = Followed::branch("main");
    followed.tags.insert("*".to_owned());
    followed
}

fn at(reference: &str, commit: &CommitId) -> Revision {
    Revision { reference: reference.to_owned(), commit: commit.clone() }
}

fn checkout(mirror: &Mirror, commit: &CommitId) -> Checkout {
    mirror.store().checkout(&at("main", commit)).expect("a checkout")
}

fn text(checkout: &Checkout, path: &str) -> Option<String> {
    let bytes = checkout.tree.read(path, 1 << 20).expect("a file that can be read")?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[expect(clippy::print_stderr, reason = "a person should see what was not tried")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
