//! Every operation as one line of an append-only, hash-chained file: what an auditor keeps.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{AgentName, Digest, EnvironmentName, Revision, Timestamp};
use crate::record::{AgentRecord, Cause, Operation, OperationId, OperationKind, Outcome, ShortId};

/// The longest line that is read back.
const MAX_LINE: u64 = 64 * 1024;

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
pub struct Journal {
    out: Box<dyn Write + Send>,
    /// Set where lines must be on disk.
    file: Option<File>,
    number: u64,
    prev: Digest,
    /// The last event that was written, by environment and agent.
    written: HashMap<(EnvironmentName, AgentName), (OperationId, Event)>,
    /// A stream knows nothing of what it was before: what is finished when it is first seen is not written again.
    remembers: bool,
}

// === impl Journal ===

impl Journal {
    /// Goes on with a file, which is made where there is none; a last line that a crash tore is cut off.
    ///
    /// # Errors
    ///
    /// When the chain is broken: nothing is written after a line that is not ours.
    pub fn file(path: &Path) -> Result<Self, JournalError> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut whole = 0;
        let mut journal = Self::stream(Box::new(io::sink()));
        journal.remembers = true;
        chain(&file, |line, digest, end| {
            journal.number = line.number;
            journal.prev = digest;
            whole = end;
            journal.written.insert((line.environment, line.agent), (line.operation, line.event));
        })?;
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        journal.out = Box::new(file.try_clone()?);
        journal.file = Some(file);
        Ok(journal)
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
            if let Some(file) = &self.file {
                file.sync_data()?;
            }
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

/// Checks a whole journal; gives its number of lines and the digest of the last one.
///
/// # Errors
///
/// At the first line that was changed, left out, put in or torn.
pub fn verify(path: &Path) -> Result<(u64, Digest), JournalError> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let (mut last, mut whole) = ((0, Digest::of(b"")), 0);
    chain(&file, |line, digest, end| {
        last = (line.number, digest);
        whole = end;
    })?;
    if whole != length {
        return Err(JournalError::Broken { number: last.0 + 1, why: "is torn" });
    }
    Ok(last)
}

/// Follows the chain from the first line; `seen` gets each line, its digest, and where it ends.
fn chain(file: &File, mut seen: impl FnMut(Line, Digest, u64)) -> Result<(), JournalError> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let (mut number, mut prev, mut end) = (1, Digest::of(b""), 0);
    loop {
        let broken = |why| JournalError::Broken { number, why };
        let mut text = Vec::new();
        let read = io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut text)? as u64;
        if text.last() != Some(&b'\n') {
            // The end of the file, whole or torn; or no line at all.
            return if read < MAX_LINE { Ok(()) } else { Err(broken("is too long")) };
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(&text) else { return Err(broken("is not JSON")) };
        let told = value.as_object_mut().and_then(|fields| fields.remove("digest"));
        let Ok(line) = serde_json::from_value::<Line>(value) else { return Err(broken("is no line of a journal")) };
        let (sealed, digest) = sealed(&line).map_err(io::Error::from)?;
        if sealed.as_bytes() != text || told != Some(digest.to_string().into()) {
            return Err(broken("was changed"));
        }
        if line.number != number || line.prev != prev {
            return Err(broken("does not follow the one before"));
        }
        end += read;
        (number, prev) = (number + 1, digest);
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

    #[test]
    fn a_stream_begins_with_what_is_new() {
        let (environment, agent) = names();
        let mut journal = Journal::stream(Box::new(io::sink()));
        assert_eq!(journal.note(&environment, &agent, &record(&[1, 2], Some(3))).expect("noted"), 1);
        assert_eq!(journal.note(&environment, &agent, &record(&[1, 2, 3], Some(4))).expect("noted"), 2);
    }
}
