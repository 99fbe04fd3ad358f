//! Reads what an agent wrote: the files of a log one after the other, also while they are written.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::file;

/// Bytes that [`Reader::tail`] reads from the end of a file at most, to find the beginnings of lines.
const TAIL: u64 = 4 << 20;

/// One file of a log. Its name has its number and the second in which it was begun: `00000012-1764000000.log`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFile {
    /// Its number, one more than that of the file before.
    pub number: u64,
    /// When it was begun, in seconds since 1970.
    pub begun_s: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// Reads a log from one place to its end, and on while it grows.
///
/// # Guarantees
///
/// Bytes come in the order in which they were written and as they are: what they may do to a terminal is for the caller to mind. A file
/// that was removed before it was read is skipped; one that is removed while it is read is read to its end.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    at: Option<(u64, File)>,
}

/// The files of a log, oldest first; none where there is no folder yet. Whatever else lies in the folder is not among them.
pub fn files(folder: &Path) -> io::Result<Vec<LogFile>> {
    let mut found = vec![];
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // The agent may write there: its pipes and links are not for anybody to open.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let parts = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.split_once('-'));
        let numbers = parts.and_then(|(number, begun)| Some((number.parse().ok()?, begun.parse().ok()?)));
        if let Some((number, begun_s)) = numbers {
            found.push(LogFile { number, begun_s, path });
        }
    }
    found.sort();
    Ok(found)
}

// === impl LogFile ===

impl LogFile {
    /// The name of a file with that number, begun in that second.
    pub fn new(folder: &Path, number: u64, begun_s: u64) -> Self {
        Self { number, begun_s, path: folder.join(format!("{number:08}-{begun_s}.log")) }
    }
}

// === impl Reader ===

impl Reader {
    /// Begins with the oldest file that is kept.
    pub fn oldest(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), at: None }
    }

    /// Begins with the last `lines` lines, or later where those are longer than 4 MiB in one file.
    pub fn tail(folder: &Path, lines: usize) -> io::Result<Self> {
        let mut missing = lines;
        let mut reader = Self::oldest(folder);
        if lines == 0 {
            if let Some(newest) = files(folder)?.pop() {
                let mut file = file::open(&newest.path)?;
                file.seek(SeekFrom::End(0))?;
                reader.at = Some((newest.number, file));
            }
            return Ok(reader);
        }
        // From the newest file back, until enough ends of lines are counted.
        for found in files(folder)?.into_iter().rev() {
            let Ok(mut file) = file::open(&found.path) else { break };
            let length = file.metadata()?.len();
            let from = length.saturating_sub(TAIL);
            let (at, counted) = line_from_end(&mut file, from, length, missing)?;
            file.seek(SeekFrom::Start(at))?;
            reader.at = Some((found.number, file));
            missing = missing.saturating_sub(counted);
            if missing == 0 || from > 0 {
                break;
            }
        }
        Ok(reader)
    }

    /// Reads on; 0 means that nothing more is there yet.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // Each file that is passed over was removed or ended, and there are only so many.
        loop {
            let number = match &mut self.at {
                Some((number, file)) => {
                    let read = file.read(into)?;
                    if read > 0 {
                        return Ok(read);
                    }
                    Some(*number)
                }
                None => None,
            };
            let later = |file: &LogFile| number.is_none_or(|number| file.number > number);
            let Some(next) = files(&self.folder)?.into_iter().find(later) else { return Ok(0) };
            // Once a next file is there, nothing is added to this one: what came between the two looks is read now.
            if let Some((_, file)) = &mut self.at {
                let read = file.read(into)?;
                if read > 0 {
                    return Ok(read);
                }
            }
            match file::open(&next.path) {
                Ok(file) => self.at = Some((next.number, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Where the last `lines` lines between two places of a file begin, and how many there are.
fn line_from_end(file: &mut File, from: u64, to: u64, lines: usize) -> io::Result<(u64, usize)> {
    let mut block = vec![0; 16 << 10];
    let (mut at, mut counted) = (to, 0);
    while at > from {
        let length = (at - from).min(block.len() as u64);
        let begin = at - length;
        let Some(part) = block.get_mut(..usize::try_from(length).unwrap_or(0)) else { break };
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        for (offset, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = begin + offset as u64 + 1;
            // The last end of line ends the last line; it begins none.
            if after < to {
                counted += 1;
                if counted >= lines {
                    return Ok((after, counted));
                }
            }
        }
        at = begin;
    }
    Ok((from, counted + usize::from(to > from)))
}
