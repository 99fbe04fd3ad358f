//! Every operation as one line of an append-only, hash-chained file: what an auditor keeps.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{AgentName, Digest, EnvironmentName, Revision, Timestamp};
use crate::record::{AgentRecord, Cause, Operation, OperationId, OperationKind, Outcome, ShortId};

/// The longest line that is read back.
const MAX_LINE: u64 = 64 * 1024;
/// Bytes at which a file is full and the next one is begun.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Full files that are kept; the oldest goes when one more is full.
const KEPT: u32 = 4;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Counts from 1.
    pub number: u64,
    /// When the operation began or ended.
    pub time: Timestamp,
    /// Where.
    pub environment: EnvironmentName,
    /// Whose.
    pub agent: AgentName,
    /// Which operation.
    pub operation: OperationId,
    /// Whether it began or ended.
    pub event: Event,
    /// What it does.
    pub kind: OperationKind,
    /// Why it was begun.
    pub cause: Cause,
    /// The release that was stable when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ShortId>,
    /// The release that shall be stable when it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ShortId>,
    /// Where `to` was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The digest of the line before; of nothing for the first one.
    pub prev: Digest,
}

/// Whether an operation began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Its intent was recorded.
    Begun,
    /// Its outcome was recorded.
    Ended,
}

/// The journal is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A line is not one of ours, or not in its place.
    #[error("line {number} of the journal {why}")]
    Broken {
        /// Which line, from 1.
        number: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It cannot be read or written.
    #[error("cannot read or write the journal")]
    Io(#[from] io::Error),
}

/// Writes the journal.
///
/// # Guarantees
///
/// A line of a file is on disk when [`note`](Self::note) returns. What is there already is not written again, so that a
/// crash between record and journal loses no line: the next `note` of that agent brings it.
///
/// A file of 16 MiB is full: it becomes `<path>.1`, those before it `.2` to `.4`, and the fifth is deleted. The chain goes
/// on from file to file, so that those that are kept prove one another; who needs all of it takes full files away to a
/// place of his own. An agent whose last line went with a deleted file begins with what is new.
pub struct Journal {
    out: Box<dyn Write + Send>,
    /// Set where lines must be on disk.
    file: Option<Kept>,
    number: u64,
    prev: Digest,
    /// The last event that was written, by environment and agent.
    written: HashMap<(EnvironmentName, AgentName), (OperationId, Event)>,
    /// A stream knows nothing of what it was before: what is finished when it is first seen is not written again.
    remembers: bool,
}

/// The file that is written to.
struct Kept {
    file: File,
    path: PathBuf,
    /// Bytes that it holds.
    size: u64,
    /// Bytes at which it is full.
    full: u64,
}

// === impl Journal ===

impl Journal {
    /// Goes on with a file, which is made where there is none; a last line that a crash tore is cut off.
    ///
    /// # Errors
    ///
    /// When the chain is broken: nothing is written after a line that is not ours.
    pub fn file(path: &Path) -> Result<Self, JournalError> {
        Self::within(path, MAX_FILE)
    }

    fn within(path: &Path, full: u64) -> Result<Self, JournalError> {
        let mut journal = Self::stream(Box::new(io::sink()));
        let older = older(path);
        let mut link = Link::before(&older);
        for older in older {
            link = journal.recall(&File::open(older)?, link, true)?.0;
        }
        // Lines that are gone cannot be remembered.
        journal.remembers = !matches!(link, Link::After { first, .. } if first > 1);
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let size = journal.recall(&file, link, false)?.1;
        file.set_len(size)?;
        journal.put(Kept { file, path: path.to_owned(), size, full })?;
        Ok(journal)
    }

    /// Remembers the lines of a file; gives what follows, and where the last whole line ends.
    fn recall(&mut self, file: &File, link: Link, full: bool) -> Result<(Link, u64), JournalError> {
        let mut whole = 0;
        let link = chain(file, link, |line, digest, end| {
            self.number = line.number;
            self.prev = digest;
            whole = end;
            self.written.insert((line.environment, line.agent), (line.operation, line.event));
        })?;
        if full && whole != file.metadata()?.len() {
            return Err(JournalError::Broken { number: self.number + 1, why: "is torn" });
        }
        Ok((link, whole))
    }

    /// Writes to `kept` from now on.
    fn put(&mut self, mut kept: Kept) -> io::Result<()> {
        kept.file.seek(SeekFrom::End(0))?;
        self.out = Box::new(kept.file.try_clone()?);
        self.file = Some(kept);
        Ok(())
    }

    /// Begins the next file when the present one is full; a crash in between leaves files that are found again.
    fn turn(&mut self) -> io::Result<()> {
        let Some(kept) = self.file.as_ref().filter(|kept| kept.size >= kept.full) else { return Ok(()) };
        let (path, full) = (kept.path.clone(), kept.full);
        let free = (1..=KEPT).find(|n| !nth(&path, *n).exists()).unwrap_or(KEPT);
        for n in (1..free).rev() {
            std::fs::rename(nth(&path, n), nth(&path, n + 1))?;
        }
        std::fs::rename(&path, nth(&path, 1))?;
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        self.put(Kept { file, path, size: 0, full })
    }

    /// Writes to a stream: standard output, or a pipe to a collector.
    pub fn stream(out: Box<dyn Write + Send>) -> Self {
        Self { out, file: None, number: 0, prev: Digest::of(b""), written: HashMap::new(), remembers: false }
    }

    /// Writes what the record says and the journal does not yet; gives the number of lines.
    pub fn note(
        &mut self,
        environment: &EnvironmentName,
        agent: &AgentName,
        record: &AgentRecord,
    ) -> Result<usize, JournalError> {
        let key = (environment.clone(), agent.clone());
        let mut after = self.written.get(&key).copied();
        if after.is_none() && !self.remembers {
            after = record.operations.iter().map(|operation| (operation.id, Event::Ended)).max();
        }
        let mut lines = 0;
        for operation in record.operations.iter().rev().chain(&record.operation) {
            for event in [Event::Begun, Event::Ended] {
                let due = event == Event::Begun || operation.outcome.is_some();
                if !due || after.is_some_and(|after| (operation.id, event) <= after) {
                    continue;
                }
                self.write(environment, agent, operation, event)?;
                after = Some((operation.id, event));
                lines += 1;
            }
        }
        if let Some(after) = after {
            self.written.insert(key, after);
        }
        if lines > 0 {
            self.out.flush()?;
            if let Some(kept) = &self.file {
                kept.file.sync_data()?;
            }
            self.turn()?;
        }
        Ok(lines)
    }

    fn write(
        &mut self,
        environment: &EnvironmentName,
        agent: &AgentName,
        operation: &Operation,
        event: Event,
    ) -> Result<(), JournalError> {
        let ended = event == Event::Ended;
        let line = Line {
            number: self.number + 1,
            time: operation.finished.filter(|_| ended).unwrap_or(operation.started),
            environment: environment.clone(),
            agent: agent.clone(),
            operation: operation.id,
            event,
            kind: operation.kind,
            cause: operation.cause.clone(),
            from: operation.from.clone(),
            to: operation.to.clone(),
            revision: operation.revision.clone(),
            outcome: operation.outcome.clone().filter(|_| ended),
            prev: self.prev,
        };
        let (text, digest) = sealed(&line).map_err(io::Error::from)?;
        self.out.write_all(text.as_bytes())?;
        if let Some(kept) = &mut self.file {
            kept.size += text.len() as u64;
        }
        self.number = line.number;
        self.prev = digest;
        Ok(())
    }
}

/// The text of a line, with its digest at the end, and the digest.
fn sealed(line: &Line) -> Result<(String, Digest), serde_json::Error> {
    let body = serde_json::to_string(line)?;
    let digest = Digest::of(body.as_bytes());
    let open = body.strip_suffix('}').unwrap_or(&body);
    Ok((format!("{open},\"digest\":\"{digest}\"}}\n"), digest))
}

/// The `n`th full file before the one at `path`.
fn nth(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// The full files, the oldest first.
fn older(path: &Path) -> Vec<PathBuf> {
    (1..=KEPT).rev().map(|n| nth(path, n)).filter(|path| path.exists()).collect()
}

/// Checks a whole journal, its full files included; gives the number of its last line and that line's digest.
///
/// Where the first lines went with a deleted file, what is left proves itself.
///
/// # Errors
///
/// At the first line that was changed, left out, put in or torn.
pub fn verify(path: &Path) -> Result<(u64, Digest), JournalError> {
    let older = older(path);
    let (mut last, mut link) = ((0, Digest::of(b"")), Link::before(&older));
    for path in older.into_iter().chain([path.to_owned()]) {
        let file = File::open(path)?;
        let (length, mut whole) = (file.metadata()?.len(), 0);
        link = chain(&file, link, |line, digest, end| {
            last = (line.number, digest);
            whole = end;
        })?;
        if whole != length {
            return Err(JournalError::Broken { number: last.0 + 1, why: "is torn" });
        }
    }
    Ok(last)
}

/// What a line must follow.
#[derive(Debug, Clone, Copy)]
enum Link {
    /// Nobody knows: the lines before may have gone with a deleted file.
    Unknown,
    /// The line with this number and digest; `first` is the number of the first line that was seen.
    After { number: u64, digest: Digest, first: u64 },
}

// === impl Link ===

impl Link {
    /// What the first line of the oldest file must follow: a file is only deleted when all others are full, and a crash
    /// may come in between.
    fn before(older: &[PathBuf]) -> Self {
        if older.len() + 1 >= KEPT as usize {
            Self::Unknown
        } else {
            Self::After { number: 0, digest: Digest::of(b""), first: 1 }
        }
    }
}

/// Follows the chain through one file; `seen` gets each line, its digest, and where it ends.
fn chain(file: &File, mut link: Link, mut seen: impl FnMut(Line, Digest, u64)) -> Result<Link, JournalError> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let mut end = 0;
    loop {
        let number = match link {
            Link::Unknown => 1,
            Link::After { number, .. } => number + 1,
        };
        let broken = |why| JournalError::Broken { number, why };
        let mut text = Vec::new();
        let read = io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut text)? as u64;
        if text.last() != Some(&b'\n') {
            // The end of the file, whole or torn; or no line at all.
            return if read < MAX_LINE { Ok(link) } else { Err(broken("is too long")) };
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(&text) else { return Err(broken("is not JSON")) };
        let told = value.as_object_mut().and_then(|fields| fields.remove("digest"));
        let Ok(line) = serde_json::from_value::<Line>(value) else { return Err(broken("is no line of a journal")) };
        let (sealed, digest) = sealed(&line).map_err(io::Error::from)?;
        if sealed.as_bytes() != text || told != Some(digest.to_string().into()) {
            return Err(broken("was changed"));
        }
        let first = match link {
            Link::Unknown if line.number > 1 || line.prev == Digest::of(b"") => line.number,
            Link::After { number, digest, first } if line.number == number + 1 && line.prev == digest => first,
            Link::Unknown | Link::After { .. } => return Err(broken("does not follow the one before")),
        };
        end += read;
        link = Link::After { number: line.number, digest, first };
        seen(line, digest, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(id: u64, outcome: Option<Outcome>) -> Operation {
        Operation {
            id: OperationId(id),
            kind: OperationKind::Release,
            cause: Cause::Commit {},
            from: None,
            to: None,
            revision: None,
            started: Timestamp::UNIX_EPOCH,
            finished: None,
            outcome,
        }
    }

    fn record(finished: &[u64], open: Option<u64>) -> AgentRecord {
        AgentRecord {
            operation: open.map(|id| operation(id, None)),
            operations: finished.iter().rev().map(|id| operation(*id, Some(Outcome::Succeeded))).collect(),
            ..AgentRecord::default()
        }
    }

    fn names() -> (EnvironmentName, AgentName) {
        ("production".parse().expect("a name"), "support".parse().expect("a name"))
    }

    #[test]
    fn each_beginning_and_end_is_one_line_whatever_crashes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (environment, agent) = names();
        let mut journal = Journal::file(&path).expect("a journal");
        assert_eq!(journal.note(&environment, &agent, &record(&[], Some(1))).expect("noted"), 1);
        assert_eq!(journal.note(&environment, &agent, &record(&[], Some(1))).expect("noted"), 0);
        assert_eq!(journal.note(&environment, &agent, &record(&[1], Some(2))).expect("noted"), 2);
        drop(journal);
        // Died after the record of 2's end and 3's beginning and end, in the middle of a line.
        let mut torn = OpenOptions::new().append(true).open(&path).expect("a file");
        torn.write_all(b"{\"number\":4,\"ti").expect("written");
        assert!(matches!(verify(&path), Err(JournalError::Broken { number: 4, why: "is torn" })));
        let mut journal = Journal::file(&path).expect("a journal");
        assert_eq!(journal.note(&environment, &agent, &record(&[1, 2, 3], None)).expect("noted"), 3);
        let (lines, _) = verify(&path).expect("a whole journal");
        assert_eq!(lines, 6);
    }

    // R6
    #[test]
    fn a_change_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (environment, agent) = names();
        let mut journal = Journal::file(&path).expect("a journal");
        journal.note(&environment, &agent, &record(&[1, 2, 3], None)).expect("noted");
        let whole = std::fs::read_to_string(&path).expect("read");
        let lines: Vec<_> = whole.lines().collect();
        let spoilt = [
            (whole.replacen("Release", "Removal", 1), 1),
            (format!("{}\n{}\n", lines[0], lines[2]), 2),
            (whole.replacen("\"number\":2", "\"number\":9", 1), 2),
            (format!("{whole}hello\n"), 7),
            (format!("{whole}{{}}\n"), 7),
            (format!("{whole}{}\n", "x".repeat(70_000)), 7),
        ];
        for (text, bad) in spoilt {
            std::fs::write(&path, &text).expect("written");
            match verify(&path) {
                Err(JournalError::Broken { number, .. }) => assert_eq!(number, bad),
                other => panic!("{other:?}"),
            }
            assert!(Journal::file(&path).is_err(), "nothing is written after a line that is not ours");
        }
        assert!(matches!(verify(&folder.path().join("gone")), Err(JournalError::Io(_))));
    }

    /// R2: what is kept is bounded, and what is kept still proves itself.
    #[test]
    fn full_files_are_put_aside_and_the_chain_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (environment, agent) = names();
        let other = "research".parse().expect("a name");
        let open = || Journal::within(&path, 1000).expect("a journal");
        let mut journal = open();
        assert_eq!(journal.note(&environment, &other, &record(&[1], None)).expect("noted"), 2);
        let mut lines = 2;
        for id in 1..=60 {
            let from = id.max(5) - 4;
            let before = lines;
            lines +=
                journal.note(&environment, &agent, &record(&(from..=id).collect::<Vec<_>>(), None)).expect("noted");
            assert_eq!(lines, before + 2, "{id}");
            assert_eq!(verify(&path).expect("a whole chain").0, lines as u64);
            if id % 7 == 0 {
                journal = open();
            }
        }
        let sizes: Vec<u64> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .map(|file| file.expect("a file").metadata().expect("a size").len())
            .collect();
        assert_eq!(sizes.len(), 1 + KEPT as usize, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size < 2000), "{sizes:?}");
        // Who was last heard of in a deleted file is not told of again.
        let mut journal = open();
        assert_eq!(journal.note(&environment, &other, &record(&[1], None)).expect("noted"), 0);
        assert_eq!(journal.note(&environment, &other, &record(&[1, 2], None)).expect("noted"), 2);
        drop(journal);

        // A crash while files are put aside leaves a gap in their numbers, and no gap in the chain.
        std::fs::rename(nth(&path, 4), nth(&path, 9)).expect("put away");
        for n in [3, 2] {
            std::fs::rename(nth(&path, n), nth(&path, n + 1)).expect("put aside");
        }
        assert!(verify(&path).is_ok());
        let mut journal = open();
        let ids: Vec<u64> = (1..=9).collect();
        assert!(journal.note(&environment, &other, &record(&ids, None)).is_ok());
        assert!(verify(&path).is_ok() && Journal::within(&path, 1000).is_ok());

        // A full file that is changed, cut or taken away is found.
        let second = std::fs::read(nth(&path, 2)).expect("a full file");
        for spoilt in [&second[..second.len() - 5], &second[..0]] {
            std::fs::write(nth(&path, 2), spoilt).expect("written");
            assert!(verify(&path).is_err() && Journal::within(&path, 1000).is_err(), "{} bytes", spoilt.len());
        }
        std::fs::remove_file(nth(&path, 2)).expect("removed");
        assert!(verify(&path).is_err(), "a file is missing in between");
    }

    #[test]
    fn a_stream_begins_with_what_is_new() {
        let (environment, agent) = names();
        let mut journal = Journal::stream(Box::new(io::sink()));
        assert_eq!(journal.note(&environment, &agent, &record(&[1, 2], Some(3))).expect("noted"), 1);
        assert_eq!(journal.note(&environment, &agent, &record(&[1, 2, 3], Some(4))).expect("noted"), 2);
    }
}
