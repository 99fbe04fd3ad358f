//! The requests that were answered in a namespace, as the API server's audit log has them.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;

use super::counted::Counted;

/// The field manager of the bench's own writes, which are not counted.
pub(crate) const BENCH: &str = "drifter";

/// The audit log of the lab, read on from where it was read last.
pub(crate) struct Requests {
    log: PathBuf,
    read: Cell<u64>,
}

// === impl Requests ===

impl Requests {
    pub(crate) fn of_lab() -> Self {
        let folder = PathBuf::from(std::env::var_os("LAB_DIR").expect("LAB_DIR"));
        Self { log: folder.join("audit.log"), read: Cell::new(0) }
    }

    /// Goes on from the end: what was answered until now is not counted.
    pub(crate) fn skip(&self) {
        self.read.set(std::fs::metadata(&self.log).map_or(0, |log| log.len()));
    }

    /// Writes of anybody since the last look, leases apart.
    pub(crate) fn busy(&self) -> usize {
        let mut log = BufReader::new(File::open(&self.log).expect("the audit log"));
        log.seek(SeekFrom::Start(self.read.get())).expect("a place in the audit log");
        let writes = ["create", "update", "patch", "delete"].map(|verb| format!("\"verb\":\"{verb}\""));
        let is_write = |line: &String| writes.iter().any(|verb| line.contains(verb)) && !line.contains("\"leases\"");
        log.lines().map_while(Result::ok).filter(is_write).count()
    }

    /// What the administrator, as whom the daemon runs, asked of a namespace since the last look.
    pub(crate) fn since(&self, namespace: &str) -> Counted {
        let mut counted = Counted::default();
        let mut log = BufReader::new(File::open(&self.log).expect("the audit log"));
        log.seek(SeekFrom::Start(self.read.get())).expect("a place in the audit log");
        let mark = format!("\"namespace\":\"{namespace}\"");
        let mut line = String::new();
        loop {
            line.clear();
            let read = log.read_line(&mut line).expect("the audit log");
            if read == 0 || !line.ends_with('\n') {
                break;
            }
            self.read.set(self.read.get() + read as u64);
            if !line.contains(&mark) || line.contains(BENCH) {
                continue;
            }
            let Ok(entry) = serde_json::from_str::<Value>(&line) else { continue };
            let text = |at: &str| entry.pointer(at).and_then(Value::as_str).unwrap_or_default();
            if text("/user/username").starts_with("system:") || text("/objectRef/namespace") != namespace {
                continue;
            }
            let mut what = format!("{} {}", text("/verb"), text("/objectRef/resource"));
            if !text("/objectRef/subresource").is_empty() {
                what = format!("{what}/{}", text("/objectRef/subresource"));
            }
            let at = |name: &str| text(name).parse::<Timestamp>().ok();
            let took =
                at("/requestReceivedTimestamp").zip(at("/stageTimestamp")).map(|(from, to)| to.duration_since(from));
            let tally = counted.0.entry(what).or_default();
            tally.count += 1;
            if text("/verb") != "watch" {
                tally.seconds += took.map_or(0.0, |took| took.as_secs_f64());
            }
        }
        counted
    }
}
