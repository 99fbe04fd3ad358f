//! What the agent writes: from the pipe into files, without ever waiting.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::wall_ms;
use crate::keeper::file;
use crate::keeper::logs::{self, LogFile};
use crate::keeper::spec::Log;
use crate::keeper::wire::LogStatus;
use crate::sys;

/// Bytes of one move: as many as a pipe holds.
const MOVE: usize = 64 << 10;
/// Moves of one round, so that an agent that writes without end does not keep its keeper from everything else.
const ROUND: usize = 16;
/// How long files are left alone after one could not be written; what comes meanwhile is dropped.
const REST: Duration = Duration::from_secs(1);

/// The reading end of an agent's output.
pub(super) struct Sink {
    pipe: File,
    null: File,
    log: Log,
    open: Option<Open>,
    /// Until when files are left alone.
    rest: Option<Instant>,
    /// Bytes dropped that the log does not tell of yet.
    untold: u64,
    /// Whether the files are where the kernel cannot move bytes to by itself.
    copies: bool,
    status: LogStatus,
}

/// The file that is written.
struct Open {
    of: LogFile,
    file: File,
    size: u64,
}

/// What one move came to.
enum Moved {
    Some,
    Nothing,
}

// === impl Sink ===

impl Sink {
    pub(super) fn new(pipe: File, log: Log) -> io::Result<Self> {
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        Ok(Self { pipe, null, log, open: None, rest: None, untold: 0, copies: false, status: LogStatus::default() })
    }

    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    pub(super) fn status(&self) -> &LogStatus {
        &self.status
    }

    /// Takes over the counts of the program that this process was before.
    pub(super) fn count_from(&mut self, status: LogStatus) {
        self.status = status;
    }

    /// Moves what is in the pipe; false if there may be more.
    pub(super) fn drain(&mut self, now: Instant) -> bool {
        for _ in 0..ROUND {
            if self.rest.is_some_and(|rest| rest > now) {
                match sys::spill(&self.pipe, &self.null, MOVE) {
                    Ok(count) if count > 0 => self.dropped(count),
                    _ => return true,
                }
                continue;
            }
            match self.step() {
                Ok(Moved::Some) => (self.rest, self.status.trouble) = (None, None),
                Ok(Moved::Nothing) => return true,
                Err(error) => {
                    (self.open, self.rest) = (None, Some(now + REST));
                    self.status.trouble = Some(format!("cannot write to `{}`: {error}", self.log.folder.display()));
                }
            }
        }
        false
    }

    fn dropped(&mut self, count: usize) {
        self.status.dropped += count as u64;
        self.untold += count as u64;
    }

    fn step(&mut self) -> io::Result<Moved> {
        // An empty pipe begins no file.
        if !has_data(self.pipe.as_fd()) {
            return Ok(Moved::Nothing);
        }
        let untold = self.untold;
        let copies = self.copies;
        let log = self.log.clone();
        let open = match &mut self.open {
            Some(open) if !open.is_over(&log) => open,
            over => over.insert(Open::next(&log)?),
        };
        if untold > 0 {
            let word = format!("\n[backstay] {untold} bytes are missing here: they could not be written\n");
            open.file.write_all_at(word.as_bytes(), open.size)?;
            open.size += word.len() as u64;
            self.untold = 0;
        }
        let most = usize::try_from(log.max_bytes.saturating_sub(open.size)).unwrap_or(MOVE).clamp(1, MOVE);
        if copies {
            return self.copy(most);
        }
        match sys::pour(&self.pipe, &open.file, open.size, most) {
            Ok(count) => {
                open.size += count as u64;
                self.status.kept += count as u64;
                Ok(if count > 0 { Moved::Some } else { Moved::Nothing })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Moved::Some),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.copies = true;
                self.copy(most)
            }
            Err(error) => Err(error),
        }
    }

    /// The way for file systems that take no bytes from a pipe. What is in the buffer when the keeper is killed is lost.
    fn copy(&mut self, most: usize) -> io::Result<Moved> {
        let Some(open) = &mut self.open else { return Ok(Moved::Nothing) };
        let mut buffer = vec![0; most];
        let count = match (&self.pipe).read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::Nothing),
            Err(error) => return Err(error),
        };
        if let Err(error) = open.file.write_all_at(buffer.get(..count).unwrap_or_default(), open.size) {
            self.dropped(count);
            return Err(error);
        }
        open.size += count as u64;
        self.status.kept += count as u64;
        Ok(if count > 0 { Moved::Some } else { Moved::Nothing })
    }
}

// === impl Open ===

impl Open {
    /// Whether a new file is due.
    fn is_over(&self, log: &Log) -> bool {
        let age = (wall_ms() / 1000).saturating_sub(self.of.begun_s);
        self.size >= log.max_bytes || (log.max_age_s > 0 && self.size > 0 && age >= log.max_age_s)
    }

    /// The file to write now: the newest, or a new one after it; then the oldest are removed.
    fn next(log: &Log) -> io::Result<Self> {
        fs::create_dir_all(&log.folder)?;
        let mut kept = logs::files(&log.folder)?;
        let newest = kept.last().cloned();
        if let Some(of) = &newest {
            let file = file::open_to_write(&of.path)?;
            let open = Self { of: of.clone(), size: file.metadata()?.len(), file };
            if !open.is_over(log) {
                return Ok(open);
            }
        }
        // Before the new one, so that the bound holds at each moment, and a full disk gets room.
        while kept.len() >= log.files as usize {
            match fs::remove_file(kept.remove(0).path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let number = newest.map_or(1, |newest| newest.number.saturating_add(1));
        let of = LogFile::new(&log.folder, number, wall_ms() / 1000);
        let file = file::make(&of.path)?;
        Ok(Self { of, file, size: 0 })
    }
}

fn has_data(pipe: BorrowedFd<'_>) -> bool {
    rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0)
}
