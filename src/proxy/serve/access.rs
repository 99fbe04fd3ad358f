//! The access log: one line of JSON for each request, written beside the traffic and never before it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Lines that wait to be written; more are dropped and counted.
const WAITING: usize = 8192;

/// Time between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);

/// One request.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) agent: String,
    pub(crate) release: String,
    pub(crate) instance: String,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    #[serde(rename = "first_byte_us")]
    pub(crate) first_byte: Option<u64>,
    #[serde(rename = "us")]
    pub(crate) micros: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) why: &'static str,
}

/// Takes lines, and drops them rather than wait.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    lines: SyncSender<(jiff::Timestamp, Entry)>,
    dropped: Arc<AtomicU64>,
}

#[derive(Serialize)]
struct Line {
    at: jiff::Timestamp,
    #[serde(flatten)]
    entry: Entry,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_before: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

// === impl Log ===

impl Log {
    /// Writes to `path`, or to standard output where that is `stdout`; a file that was moved away is made anew.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = dropped.clone();
        if path == Path::new("stdout") {
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
                write(&waiting, &count, &mut || Ok(Box::new(io::stdout())), None);
            })?;
        } else {
            let path = path.to_owned();
            open(&path)?;
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
                write(&waiting, &count, &mut || Ok(Box::new(open(&path)?)), Some(&path));
            })?;
        }
        Ok(Self { lines, dropped })
    }

    /// Takes a line.
    pub(crate) fn write(&self, entry: Entry) {
        if self.lines.try_send((jiff::Timestamp::now(), entry)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

type Make<'m> = dyn FnMut() -> io::Result<Box<dyn Write>> + 'm;

fn write(waiting: &Receiver<(jiff::Timestamp, Entry)>, dropped: &AtomicU64, make: &mut Make<'_>, path: Option<&Path>) {
    let inode = || path.and_then(|path| path.metadata().ok()).map(|file| (file.dev(), file.ino()));
    let mut out = make().ok().map(BufWriter::new);
    let (mut known, mut looked) = (inode(), Instant::now());
    loop {
        match waiting.recv_timeout(LOOK) {
            Ok((at, entry)) => {
                let line = Line { at, entry, dropped_before: dropped.swap(0, Ordering::Relaxed) };
                let written = out
                    .as_mut()
                    .is_some_and(|out| serde_json::to_writer(&mut *out, &line).is_ok() && out.write_all(b"\n").is_ok());
                if !written {
                    dropped.fetch_add(1 + line.dropped_before, Ordering::Relaxed);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if looked.elapsed() >= LOOK {
            let flushed = out.as_mut().is_some_and(|out| out.flush().is_ok());
            if !flushed || inode() != known {
                out = make().ok().map(BufWriter::new);
                known = inode();
            }
            looked = Instant::now();
        }
    }
}
