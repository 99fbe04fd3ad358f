//! What is fed with anything: every parser, and the core. None of them may panic.
//!
//! | room | what is read |
//! | --- | --- |
//! | `repository` | the files of a repository |
//! | `git` | objects, signatures, keys, messages, a mirror's leftovers |
//! | `records` | what is kept, and the core |
//! | `ledger` | what an API server answers of the records, journals, rollouts on their way |
//! | `daemon` | configuration, webhooks, the API of a Git host |
//! | `measure` | what whoever measures answers |
//! | `host` | the API of a host, artifacts, the files and the talk of keepers |
//! | `proxy` | tables, settings, the control socket, HTTP |

mod daemon;
mod git;
mod host;
mod ledger;
mod measure;
mod proxy;
mod records;
mod repository;
mod stand;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use backstay::model::{CommitId, Timestamp};

use self::repository::tree;

/// One thing that is fed.
pub(crate) type Target = fn(&[u8]);

/// All of them, by name.
pub(crate) const TARGETS: [(&str, Target); 55] = [
    ("agent", |data| tree("agents/a/agent.yaml", data)),
    ("environment", |data| tree("environments/prod.yaml", data)),
    ("repository", |data| tree("backstay.yaml", data)),
    ("overlay", |data| tree("environments/prod/a.yaml", data)),
    ("catalogue", |data| tree("shared/models.yaml", data)),
    ("variables", |data| tree("environments/prod/variables.yaml", data)),
    ("consent", |data| tree("consent/x.yaml", data)),
    ("manifests", |data| tree("agents/a/manifests/x.yaml", data)),
    ("deployment", |data| tree("agents/a/d.yaml", data)),
    ("tool", |data| tree("agents/a/t.json", data)),
    ("flags", repository::flags),
    ("template", repository::template),
    ("migrations", repository::migrations),
    ("signers", git::signers),
    ("signed", git::signed),
    ("keyring", git::keyring),
    ("openpgp", git::openpgp),
    ("message", git::message),
    ("trailers", git::trailers),
    ("object", git::object),
    ("leftovers", git::leftovers),
    ("names", records::names),
    ("records", records::records),
    ("release", records::release),
    ("live", records::live),
    ("quantity", records::quantity),
    ("reconcile", records::reconcile),
    ("ledger", ledger::ledger),
    ("watch", ledger::watch),
    ("journal", ledger::journal),
    ("rollout", ledger::rollout),
    ("settings", ledger::settings),
    ("config", daemon::config),
    ("variable", daemon::variable),
    ("hook", daemon::hook),
    ("forge", daemon::forge),
    ("exposition", measure::exposition),
    ("prometheus", measure::prometheus),
    ("datadog", measure::datadog),
    ("cloudwatch", measure::cloudwatch),
    ("json", measure::json),
    ("gate", measure::gate),
    ("scrape", measure::scrape),
    ("api", host::api),
    ("artifact", host::artifact),
    ("archive", host::archive),
    ("artifacts", host::artifacts),
    ("instance", host::instance),
    ("keeper", host::keeper),
    ("logs", host::logs),
    ("table", proxy::table),
    ("proxied", proxy::settings),
    ("question", proxy::question),
    ("reply", proxy::reply),
    ("http", proxy::http),
];

/// The target of this name.
#[cfg_attr(not(fuzzing), allow(dead_code, reason = "the fuzzer asks for one by name"))]
pub(crate) fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap_or_default()
}

fn commit() -> CommitId {
    "2c26b46b68ffc68ff99b453c1d30413413422d70".parse().expect("a commit id")
}

/// What people are shown: nothing that a terminal would obey.
#[track_caller]
fn assert_plain(told: &str) {
    assert!(!told.chars().any(char::is_control), "{told:?}");
}

/// A folder that goes with this.
struct Scratch(PathBuf);

impl Scratch {
    fn path(&self) -> &Path {
        &self.0
    }

    /// The folder, for as long as the machine runs.
    fn keep(self) -> PathBuf {
        std::mem::ManuallyDrop::new(self).0.clone()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in a folder for what is temporary.
        let _ = backstay::sys::remove_tree(&self.0);
    }
}

/// A folder of its own, in memory where the machine has such a place.
fn scratch() -> Scratch {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    loop {
        let path = place.join(format!("fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        match std::fs::create_dir(&path) {
            Ok(()) => return Scratch(path),
            // Of an earlier process with this number.
            Err(error) => assert!(error.kind() == std::io::ErrorKind::AlreadyExists, "{error}"),
        }
    }
}

/// Parts, each ended by a zero.
fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == 0)
}
