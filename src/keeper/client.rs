//! Starts keepers and talks to them. Everything here blocks, for a bounded time: an async caller uses a thread for blocking work.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use thiserror::Error;

use super::command::{Begun, line_of};
use super::file;
use super::wire::{ANSWER, Answer, Hello, Identity, Probe, Probed, Request, SOCKET, Status, VERSION};
use crate::model::one_line;
use crate::sys::{self, Listening, Word};

/// How long a keeper may take for an answer that costs it nothing.
const PROMPT: Duration = Duration::from_secs(5);

/// A connection to the keeper of one folder.
///
/// # Guarantees
///
/// What comes from a keeper is bounded in length and time, and nothing of it is believed that was not asked for. After an error the
/// connection is of no use: connect again.
#[derive(Debug)]
pub struct Client {
    folder: PathBuf,
    stream: UnixStream,
    heard: Vec<u8>,
    identity: Identity,
}

/// One launch of an instance: which keeper is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The instance.
    pub instance: String,
    /// Tells one launch of it from every other.
    pub nonce: String,
}

/// Why a keeper was not started, or did not do what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("cannot reach the keeper of `{}`", folder.display())]
    Unreachable {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its program could not be run.
    #[error("cannot run `{}`", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not begin.
    #[error("no keeper began in `{}`: {why}", folder.display())]
    NotBegun {
        /// The folder.
        folder: PathBuf,
        /// Why, in its own words.
        why: String,
    },
    /// It did not answer in time, or ended.
    #[error("the keeper of `{}` does not answer", folder.display())]
    Silent {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It said something that is no answer to what was asked.
    #[error("the keeper of `{}` answers what was not asked: {what}", folder.display())]
    Nonsense {
        /// The folder.
        folder: PathBuf,
        /// What it said, cut.
        what: String,
    },
    /// It is not the one that was launched.
    #[error("the keeper of `{}` says that it is of instance `{instance}`, launch `{nonce}`, which was not meant", folder.display())]
    Another {
        /// The folder.
        folder: PathBuf,
        /// The instance it names.
        instance: String,
        /// The launch it names.
        nonce: String,
    },
    /// It will not do it.
    #[error("the keeper of `{}` refuses: {why}", folder.display())]
    Refused {
        /// The folder.
        folder: PathBuf,
        /// Why, in its own words.
        why: String,
        /// The highest epoch it has heard, where the caller's is lower.
        epoch: Option<u64>,
    },
}

/// Starts a keeper for a folder that holds a spec, as a process of its own that does not end with this one.
///
/// Returns when the keeper holds the folder; the agent may have started or not. If another keeper holds it, that is an error. Takes at most
/// 12 seconds.
pub fn start(program: &Path, folder: &Path) -> Result<Identity, ClientError> {
    let cannot = |source| ClientError::Program { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.arg("start").arg(folder).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut starter = command.spawn().map_err(cannot)?;
    let line = line_of(&mut starter, Duration::from_secs(12));
    if line.is_err() {
        let _ = starter.kill();
    }
    let _ = starter.wait();
    let failed = |why: String| ClientError::NotBegun { folder: folder.to_owned(), why: plain(&why) };
    let line = line.map_err(|error| failed(error.to_string()))?;
    match serde_json::from_slice(&line) {
        Ok(Begun::Ready(identity)) => Ok(identity),
        Ok(Begun::Failed(why)) => Err(failed(why)),
        Err(error) => Err(failed(format!("`{}` is no keeper: {error}", program.display()))),
    }
}

// === impl Client ===

impl Client {
    /// Connects to the keeper of a folder and says hello. Who names no epoch may only ask.
    pub fn connect(folder: &Path, epoch: Option<u64>) -> Result<Self, ClientError> {
        let unreachable = |source| ClientError::Unreachable { folder: folder.to_owned(), source };
        let open = File::open(folder).map_err(unreachable)?;
        let stream = connect(&sys::socket_path(open.as_fd(), SOCKET)).map_err(unreachable)?;
        let listener = sys::peer(&stream).map_err(unreachable)?;
        let identity = Identity {
            version: 0,
            keeper: String::new(),
            program: None,
            instance: String::new(),
            nonce: String::new(),
            process: sys::ProcessId { pid: listener.pid, start: 0 },
            boot: String::new(),
            since_ms: 0,
            epoch: 0,
        };
        let mut client = Self { folder: folder.to_owned(), stream, heard: vec![], identity };
        let hello = serde_json::to_vec(&Hello { version: VERSION, epoch }).unwrap_or_default();
        let answer = client.exchange(hello, PROMPT)?;
        let Answer::Hello(identity) = answer else { return Err(client.nonsense(&answer)) };
        if identity.process.pid != listener.pid {
            let what = format!("it says that it is process {}, and is {}", identity.process.pid, listener.pid);
            return Err(ClientError::Nonsense { folder: folder.to_owned(), what });
        }
        client.identity = identity;
        Ok(client)
    }

    /// The same, and an error where the keeper is another one than that of this launch of this instance.
    pub fn connect_to(folder: &Path, epoch: Option<u64>, launch: &Launch) -> Result<Self, ClientError> {
        let client = Self::connect(folder, epoch)?;
        let Identity { instance, nonce, .. } = &client.identity;
        if (instance, nonce) != (&launch.instance, &launch.nonce) {
            let folder = folder.to_owned();
            return Err(ClientError::Another { folder, instance: plain(instance), nonce: plain(nonce) });
        }
        Ok(client)
    }

    /// Who the keeper says it is. Whether that is who was launched, is for the caller to compare.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How the agent is.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let answer = self.ask(&Request::Status, PROMPT)?;
        if let Answer::Status(status) = answer { Ok(*status) } else { Err(self.nonsense(&answer)) }
    }

    /// How the agent is once that is another turn than the one named. Waits for `time` at most; an error then, as if it did not answer.
    pub fn next(&mut self, turn: u64, time: Duration) -> Result<Status, ClientError> {
        let answer = self.ask(&Request::Next { turn }, time)?;
        if let Answer::Status(status) = answer { Ok(*status) } else { Err(self.nonsense(&answer)) }
    }

    /// Whether the agent listens at the place that its spec names; none if it names none.
    pub fn listening(&mut self) -> Result<Option<Listening>, ClientError> {
        let answer = self.ask(&Request::Listening, PROMPT)?;
        if let Answer::Listening(listening) = answer { Ok(listening) } else { Err(self.nonsense(&answer)) }
    }

    /// Ends the agent whole, and with it the keeper; returns its last state. Waits for `time` at most: the stop goes on after that, too.
    pub fn stop(&mut self, grace: Option<Duration>, time: Duration) -> Result<Status, ClientError> {
        let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let answer = self.ask(&Request::Stop { grace_ms }, time)?;
        if let Answer::Stopped(status) = answer { Ok(*status) } else { Err(self.nonsense(&answer)) }
    }

    /// Ends the agent whole and starts it again. Waits for `time` at most.
    pub fn restart(&mut self, time: Duration) -> Result<Status, ClientError> {
        let answer = self.ask(&Request::Restart, time)?;
        if let Answer::Restarted(status) = answer { Ok(*status) } else { Err(self.nonsense(&answer)) }
    }

    /// Sends a signal to the agent's first process; false if none lives.
    pub fn signal(&mut self, word: Word) -> Result<bool, ClientError> {
        let answer = self.ask(&Request::Signal(word), PROMPT)?;
        if let Answer::Signalled(sent) = answer { Ok(sent) } else { Err(self.nonsense(&answer)) }
    }

    /// Runs a command as the agent and in its cage.
    pub fn probe(&mut self, command: Vec<String>, timeout: Duration) -> Result<Probed, ClientError> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let answer = self.ask(&Request::Probe(Probe { command, timeout_ms }), timeout.saturating_add(PROMPT))?;
        if let Answer::Probed(probed) = answer { Ok(probed) } else { Err(self.nonsense(&answer)) }
    }

    /// Has the keeper go on as another program; returns who it is then. Its process, its agent and the log stay.
    pub fn upgrade(mut self, program: &Path, epoch: u64) -> Result<Self, ClientError> {
        let program = program.display().to_string();
        match self.ask(&Request::Upgrade { program }, PROMPT * 2) {
            // The connection does not outlive the old program.
            Err(ClientError::Silent { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
            Ok(other) => return Err(self.nonsense(&other)),
        }
        let after = Self::connect(&self.folder, Some(epoch))?;
        if after.identity.process == self.identity.process && after.identity.since_ms >= self.identity.since_ms {
            Ok(after)
        } else {
            let what = format!("after an upgrade it is {:?}, and was {:?}", after.identity, self.identity);
            Err(ClientError::Nonsense { folder: self.folder, what })
        }
    }

    /// Whether the keeper runs another program than the one that is installed at a place. What cannot be told is not another one.
    pub fn is_outdated(&self, program: &Path) -> bool {
        let installed = file::program(program).ok();
        self.identity.program.is_some() && installed.is_some() && self.identity.program != installed
    }

    fn ask(&mut self, request: &Request, time: Duration) -> Result<Answer, ClientError> {
        self.exchange(serde_json::to_vec(request).unwrap_or_default(), time)
    }

    fn exchange(&mut self, mut line: Vec<u8>, time: Duration) -> Result<Answer, ClientError> {
        line.push(b'\n');
        let until = Instant::now() + time;
        let said = self.say(&line, until).and_then(|()| self.hear(until));
        let heard = said.map_err(|source| ClientError::Silent { folder: self.folder.clone(), source })?;
        match serde_json::from_slice(&heard) {
            Ok(Answer::Refused { why, epoch }) => {
                Err(ClientError::Refused { folder: self.folder.clone(), why: plain(&why), epoch })
            }
            Ok(answer) => Ok(answer),
            Err(error) => {
                // It quotes words that are not known.
                Err(ClientError::Nonsense { folder: self.folder.clone(), what: plain(&error.to_string()) })
            }
        }
    }

    fn say(&self, line: &[u8], until: Instant) -> io::Result<()> {
        let mut said = 0;
        while let Some(rest) = line.get(said..).filter(|rest| !rest.is_empty()) {
            match sys::send(&self.stream, rest) {
                Ok(count) => said += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::OUT, until)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It may have told why before it went: that is heard next.
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hear(&mut self, until: Instant) -> io::Result<Vec<u8>> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                return Ok(self.heard.drain(..=end).collect());
            }
            if self.heard.len() > ANSWER {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {ANSWER} bytes")));
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(count) => self.heard.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::IN, until)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // With something of ours unread, that is how the end of the other side looks.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&self, what: PollFlags, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&self.stream, what)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn nonsense(&self, answer: &Answer) -> ClientError {
        let what = plain(&format!("{answer:?}"));
        ClientError::Nonsense { folder: self.folder.clone(), what }
    }
}

/// Connects without waiting for a keeper that takes nobody: it may be paused for ever.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + PROMPT;
    loop {
        match sys::connect(path) {
            // There is no event for room among those who wait to be taken.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

/// What a keeper said, for people: cut, and without what a terminal would obey.
fn plain(said: &str) -> String {
    one_line(said, 500, '\u{fffd}')
}
