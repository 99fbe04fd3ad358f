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
/// crash between record and journal loses no line: the next `note` of that agent brings it. Lines that could not be
/// written whole, because the disk is full or fails, are taken off again: the chain never goes on after a torn one.
///
/// A file of 16 MiB is full: it becomes `<path>.1`, those before it `.2` to `.4`, and the fifth is deleted. The chain goes
/// on from file to file, so that those that are kept prove one another; who needs all of it takes full files away to a
/// place of his own. An agent whose last line went with a deleted file begins with what is new.
pub struct Journal {
    out: Out,
    number: u64,
    prev: Digest,
    /// The last event that was written, by environment and agent.
    written: HashMap<(EnvironmentName, AgentName), (OperationId, Event)>,
    /// A stream knows nothing of what it was before: what is finished when it is first seen is not written again.
    remembers: bool,
}

/// Where lines go.
enum Out {
    /// To somebody who keeps them.
    Stream(Box<dyn Write + Send>),
    /// To a file, and to disk.
    File(Kept),
    /// To a file that could not be opened: it is tried again with each line.
    Shut(PathBuf),
}

/// The file that is written to.
struct Kept {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines that it holds.
    size: u64,
    /// Bytes at which it is full.
    full: u64,
    /// Whether there may be more in it than whole lines.
    torn: bool,
}

// === impl Journal ===

impl Journal {
    /// Goes on with a file, which is made where there is none; a last line that a crash tore is cut off. A file that
    /// cannot be opened now (a full disk, one that can only be read) is tried again with each line.
    ///
    /// # Errors
    ///
    /// When the chain is broken: nothing is written after a line that is not ours.
    pub fn file(path: &Path) -> Result<Self, JournalError> {
        match Self::within(path, MAX_FILE) {
            Err(JournalError::Io(error)) => {
                tracing::error!(path = %path.display(), %error, "the journal cannot be opened");
                Ok(Self::new(Out::Shut(path.to_owned()), false))
            }
            opened => opened,
        }
    }

    /// Writes to a stream: standard output, or a pipe to a collector.
    pub fn stream(out: Box<dyn Write + Send>) -> Self {
        Self::new(Out::Stream(out), false)
    }

    fn new(out: Out, remembers: bool) -> Self {
        Self { out, number: 0, prev: Digest::of(b""), written: HashMap::new(), remembers }
    }

    fn within(path: &Path, full: u64) -> Result<Self, JournalError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let older = older(path);
        let mut link = Link::before(&older);
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut journal = Self::new(Out::Shut(path.to_owned()), true);
        for older in older {
            link = journal.recall(&File::open(older)?, link, true)?.0;
        }
        // Lines that are gone cannot be remembered.
        journal.remembers = !matches!(link, Link::After { first, .. } if first > 1);
        let size = journal.recall(&file, link, false)?.1;
        file.set_len(size)?;
        journal.out = Out::File(Kept { file, path: path.to_owned(), size, full, torn: false });
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
            return Err(JournalError::Broken { number: self.number.saturating_add(1), why: "is torn" });
        }
        Ok((link, whole))
    }

    /// Writes what the record says and the journal does not yet; gives the number of lines.
    ///
    /// # Errors
    ///
    /// When they cannot be written: then none of them is, and the next `note` tries them all again.
    pub fn note(
        &mut self,
        environment: &EnvironmentName,
        agent: &AgentName,
        record: &AgentRecord,
    ) -> Result<usize, JournalError> {
        self.note_all(environment, [(agent, record)])
    }

    /// The same of several agents, each named once: their lines reach the disk together, which waits once for all of them.
    ///
    /// # Errors
    ///
    /// When they cannot be written: then none of them is, and the next `note` of each tries them all again.
    pub fn note_all<'a>(
        &mut self,
        environment: &EnvironmentName,
        records: impl IntoIterator<Item = (&'a AgentName, &'a AgentRecord)>,
    ) -> Result<usize, JournalError> {
        if let Out::Shut(path) = &self.out {
            *self = Self::within(path, MAX_FILE)?;
        }
        let (mut text, mut number, mut prev) = (String::new(), self.number, self.prev);
        let mut noted = vec![];
        for (agent, record) in records {
            let key = (environment.clone(), agent.clone());
            let mut after = self.written.get(&key).copied();
            if after.is_none() && !self.remembers {
                after = record.operations.iter().map(|operation| (operation.id, Event::Ended)).max();
            }
            for operation in record.operations.iter().rev().chain(&record.operation) {
                for event in [Event::Begun, Event::Ended] {
                    let due = event == Event::Begun || operation.outcome.is_some();
                    if !due || after.is_some_and(|after| (operation.id, event) <= after) {
                        continue;
                    }
                    // A file that was made to end the count is not gone on with.
                    let after_the_last = JournalError::Broken { number, why: "is the last that can be counted" };
                    number = number.checked_add(1).ok_or(after_the_last)?;
                    let line = line(environment, agent, operation, event, number, prev);
                    let (sealed, digest) = sealed(&line).map_err(io::Error::from)?;
                    text.push_str(&sealed);
                    prev = digest;
                    after = Some((operation.id, event));
                }
            }
            noted.extend(after.map(|after| (key, after)));
        }
        let lines = number - self.number;
        if lines > 0 {
            self.out.write(&text)?;
        }
        (self.number, self.prev) = (number, prev);
        self.written.extend(noted);
        Ok(usize::try_from(lines).unwrap_or(usize::MAX))
    }
}

// === impl Out ===

impl Out {
    fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Stream(out) => {
                out.write_all(text.as_bytes())?;
                out.flush()
            }
            Self::File(kept) => kept.append(text),
            Self::Shut(path) => Err(io::Error::other(format!("`{}` is not open", path.display()))),
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Writes whole lines, to disk, or nothing.
    fn append(&mut self, text: &str) -> io::Result<()> {
        self.cut()?;
        self.turn()?;
        self.torn = true;
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What cannot be cut off now is cut off before the next line.
            self.cut().ok();
            return Err(error);
        }
        self.size += text.len() as u64;
        self.torn = false;
        Ok(())
    }

    /// Takes off what is no whole line.
    fn cut(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.size)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Begins the next file when the present one is full; a crash in between leaves files that are found again.
    fn turn(&mut self) -> io::Result<()> {
        if self.size < self.full {
            return Ok(());
        }
        let free = (1..=KEPT).find(|n| !nth(&self.path, *n).exists()).unwrap_or(KEPT);
        for n in (1..free).rev() {
            std::fs::rename(nth(&self.path, n), nth(&self.path, n + 1))?;
        }
        let first = nth(&self.path, 1);
        std::fs::rename(&self.path, &first)?;
        match OpenOptions::new().create(true).read(true).append(true).open(&self.path) {
            Ok(next) => self.file = next,
            Err(error) => {
                // No room for the next one: this one stays the last, and a start finds it in either place.
                std::fs::rename(&first, &self.path).ok();
                return Err(error);
            }
        }
        self.size = 0;
        Ok(())
    }
}

fn line(
    environment: &EnvironmentName,
    agent: &AgentName,
    operation: &Operation,
    event: Event,
    number: u64,
    prev: Digest,
) -> Line {
    let ended = event == Event::Ended;
    Line {
        number,
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
        prev,
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
            return Err(JournalError::Broken { number: last.0.saturating_add(1), why: "is torn" });
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

/// Whether a line is the one after that with this number, of which the last one there can be has none.
fn is_next(line: &Line, number: u64) -> bool {
    number.checked_add(1) == Some(line.number)
}

/// Follows the chain through one file; `seen` gets each line, its digest, and where it ends.
fn chain(file: &File, mut link: Link, mut seen: impl FnMut(Line, Digest, u64)) -> Result<Link, JournalError> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let mut end = 0;
    loop {
        let number = match link {
            Link::Unknown => 1,
            Link::After { number, .. } => number.saturating_add(1),
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
            Link::After { number, digest, first } if is_next(&line, number) && line.prev == digest => first,
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
            evidence: vec![],
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

    #[test]
    fn many_are_noted_together_in_one_chain() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (environment, agent) = names();
        let other: AgentName = "research".parse().expect("a name");
        let mut journal = Journal::file(&path).expect("a journal");
        let (one, two) = (record(&[1], Some(2)), record(&[], Some(1)));
        assert_eq!(journal.note_all(&environment, [(&agent, &one), (&other, &two)]).expect("noted"), 4);
        assert_eq!(journal.note_all(&environment, [(&agent, &one), (&other, &two)]).expect("noted"), 0);
        let two = record(&[1], None);
        assert_eq!(journal.note_all(&environment, [(&agent, &one), (&other, &two)]).expect("noted"), 1);
        assert_eq!(verify(&path).expect("a whole journal").0, 5);
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

    // R5
    #[test]
    fn after_the_last_number_nothing_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (environment, agent) = names();
        // As it stands where full files were deleted, and somebody made the oldest that is left.
        let last = line(&environment, &agent, &operation(1, None), Event::Begun, u64::MAX, Digest::of(b"gone"));
        let (sealed, _) = sealed(&last).expect("a line");
        for n in 1..=KEPT {
            std::fs::write(nth(&path, n), if n == KEPT { &sealed } else { "" }).expect("written");
        }
        std::fs::write(&path, "").expect("written");
        let mut journal = Journal::file(&path).expect("a journal");
        let noted = journal.note(&environment, &agent, &record(&[1, 2], None));
        assert!(matches!(noted, Err(JournalError::Broken { number: u64::MAX, .. })), "{noted:?}");
        assert_eq!(verify(&path).expect("what stands there is whole").0, u64::MAX);
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

    // R3
    #[test]
    fn a_file_that_cannot_be_opened_is_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (blocked, path) = (folder.path().join("a"), folder.path().join("a/journal"));
        std::fs::write(&blocked, "in the way").expect("written");
        let (environment, agent) = names();
        let mut journal = Journal::file(&path).expect("one that is opened later");
        let note = |journal: &mut Journal| journal.note(&environment, &agent, &record(&[1, 2], None));
        assert!(matches!(note(&mut journal), Err(JournalError::Io(_))));
        std::fs::remove_file(&blocked).expect("out of the way");
        assert_eq!(note(&mut journal).expect("noted"), 4);
        assert_eq!(note(&mut journal).expect("noted"), 0);
        assert_eq!(verify(&path).expect("a whole journal").0, 4);
    }

    #[test]
    fn a_stream_begins_with_what_is_new() {
        let (environment, agent) = names();
        let mut journal = Journal::stream(Box::new(io::sink()));
        assert_eq!(journal.note(&environment, &agent, &record(&[1, 2], Some(3))).expect("noted"), 1);
        assert_eq!(journal.note(&environment, &agent, &record(&[1, 2, 3], Some(4))).expect("noted"), 2);
    }
}
