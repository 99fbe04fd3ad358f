//! The socket: callers, their lines and how long they may take for them. Nobody is waited for.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::here::Here;
use crate::keeper::spec::Spec;
use crate::keeper::wire::{Answer, REQUEST, SOCKET};
use crate::sys::{self, Peer};

/// Callers at once at most. One more, and the one that has been silent for longest has to go.
const MOST: usize = 16;
/// Callers that wait to be taken at most.
const BACKLOG: i32 = 64;
/// How long a caller may take for a line once it began one, for its hello, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a caller may be silent between requests.
const SILENCE: Duration = Duration::from_mins(15);

/// For whom a caller speaks; without an epoch it may only ask.
#[derive(Clone, Copy)]
pub(super) struct Greeted(pub(super) Option<u64>);

/// All callers.
pub(super) struct Server {
    listener: UnixListener,
    callers: Vec<Caller>,
    numbers: u64,
}

/// One connection.
pub(super) struct Caller {
    pub(super) number: u64,
    /// Whether it has said hello, and for which epoch.
    pub(super) greeted: Option<Greeted>,
    /// Whether a request of it is being carried out: its next one waits.
    pub(super) pending: bool,
    /// Whether it has to go once it has its answer.
    pub(super) leaves: bool,
    stream: UnixStream,
    heard: Vec<u8>,
    unsaid: Vec<u8>,
    /// When something last came from it or went to it.
    moved: Instant,
}

// === impl Server ===

impl Server {
    /// Opens the socket in the folder, in place of one that a dead keeper left.
    pub(super) fn bind(here: &Here, spec: &Spec) -> io::Result<Self> {
        let path = here.at(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // By itself it would be thousands, all of whom a keeper that was paused would have to hear first.
        rustix::net::listen(&listener, BACKLOG)?;
        // Who is not trusted is refused by name; where others are trusted, the file must let them in first.
        let mode = if spec.trusted_uids.is_empty() { 0o600 } else { 0o666 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Self::on(listener)
    }

    /// Goes on with a socket that this process has open.
    pub(super) fn on(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, callers: vec![], numbers: 0 })
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(super) fn callers(&self) -> impl Iterator<Item = &Caller> {
        self.callers.iter()
    }

    pub(super) fn caller(&mut self, number: u64) -> Option<&mut Caller> {
        self.callers.iter_mut().find(|caller| caller.number == number)
    }

    /// Takes new callers; those that are not trusted are told so and leave.
    pub(super) fn accept(&mut self, now: Instant, refuse: impl Fn(Peer) -> Option<String>) {
        // More than a few at once are taken in the next round.
        for _ in 0..MOST {
            let Ok((stream, _)) = self.listener.accept() else { return };
            let (Ok(peer), Ok(())) = (sys::peer(&stream), stream.set_nonblocking(true)) else { continue };
            self.numbers += 1;
            let number = self.numbers;
            if self.callers.len() >= MOST {
                let idle = |caller: &&Caller| (caller.greeted.is_some(), caller.pending, caller.moved);
                let longest = self.callers.iter().min_by_key(idle).map(|caller| caller.number);
                self.callers.retain(|caller| Some(caller.number) != longest);
            }
            self.callers.push(Caller {
                number,
                greeted: None,
                pending: false,
                leaves: false,
                stream,
                heard: vec![],
                unsaid: vec![],
                moved: now,
            });
            if let Some(why) = refuse(peer) {
                self.refuse(number, why, None);
            }
        }
    }

    /// Answers a caller, if it is still there.
    pub(super) fn answer(&mut self, number: u64, answer: &Answer) {
        if let Some(caller) = self.caller(number) {
            caller.pending = false;
            caller.unsaid.extend(serde_json::to_vec(answer).unwrap_or_default());
            caller.unsaid.push(b'\n');
            caller.write();
        }
    }

    /// Refuses a caller, who has to go.
    pub(super) fn refuse(&mut self, number: u64, why: String, epoch: Option<u64>) {
        if let Some(caller) = self.caller(number) {
            caller.leaves = true;
        }
        self.answer(number, &Answer::Refused { why, epoch });
    }

    /// Sends those away who have left, or took longer than they may.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.callers.retain(|caller| caller.until() > now && !(caller.leaves && caller.unsaid.is_empty()));
    }

    /// Callers whose next request has come whole and can be carried out.
    pub(super) fn with_lines(&self) -> Vec<u64> {
        self.callers.iter().filter(|caller| caller.has_line()).map(|caller| caller.number).collect()
    }

    /// When the next caller has to go.
    pub(super) fn until(&self) -> Option<Instant> {
        self.callers.iter().map(Caller::until).min()
    }

    /// Whether somebody has an answer to take.
    pub(super) fn has_unsaid(&self) -> bool {
        self.callers.iter().any(|caller| !caller.unsaid.is_empty())
    }
}

// === impl Caller ===

impl Caller {
    pub(super) fn stream(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What is waited for: its next request is read only when the last one is answered.
    pub(super) fn events(&self) -> PollFlags {
        let mut events = PollFlags::empty();
        events.set(PollFlags::OUT, !self.unsaid.is_empty());
        events.set(PollFlags::IN, !self.pending && !self.leaves && self.unsaid.is_empty());
        events
    }

    /// Reads what has come; false if the caller has gone or said too much.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                // A line that trickles in has the time of one line: only its first byte counts.
                if self.heard.is_empty() {
                    self.moved = now;
                }
                self.heard.extend_from_slice(bytes.get(..count).unwrap_or_default());
                self.heard.len() <= REQUEST || self.heard.contains(&b'\n')
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// Takes the next whole line out of what has come.
    pub(super) fn line(&mut self, now: Instant) -> Option<Vec<u8>> {
        if !self.has_line() {
            return None;
        }
        let end = self.heard.iter().position(|byte| *byte == b'\n')?;
        let mut line = self.heard.drain(..=end).collect::<Vec<_>>();
        line.pop();
        self.moved = now;
        Some(line)
    }

    fn has_line(&self) -> bool {
        !self.pending && !self.leaves && self.unsaid.is_empty() && self.heard.contains(&b'\n')
    }

    /// Writes what it has not taken yet, as much as it takes now.
    pub(super) fn write(&mut self) {
        match sys::send(&self.stream, &self.unsaid) {
            Ok(count) => drop(self.unsaid.drain(..count.min(self.unsaid.len()))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => {
                self.unsaid.clear();
                self.leaves = true;
            }
        }
    }

    fn until(&self) -> Instant {
        if self.pending {
            return self.moved + Duration::from_hours(8 * 24);
        }
        let in_a_line = !self.heard.is_empty() || !self.unsaid.is_empty() || self.greeted.is_none();
        self.moved + if in_a_line { PATIENCE } else { SILENCE }
    }
}

// === conversions ===

impl TryFrom<OwnedFd> for Server {
    type Error = io::Error;

    /// Goes on with a listening socket that was handed over.
    fn try_from(listener: OwnedFd) -> io::Result<Self> {
        if !sys::is_listener(&listener)? {
            return Err(io::Error::other("what was handed over is no listening socket"));
        }
        Self::on(UnixListener::from(listener))
    }
}
