//! One proxy replaces another without a lost connection.
//!
//! The old one starts the new binary through a helper that ends at once, so that the new one is nobody's child (systemd
//! takes a main process only that is no child of another), and hands it the listening sockets over a socket pair on its
//! standard input. The new one says `prepared` when nothing can fail any more; the old one holds the control socket still
//! and says `go`; the new one reads the table again, serves, and says `serving`; only then the old one stops accepting.
//! A new one that fails before that changes nothing.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::listen::{Listener, Purpose};
use crate::proxy::live::InstanceKey;

/// The variable that tells a process its part.
const PART: &str = "BACKSTAY_HANDOVER";

/// Time for each word of the other side.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sockets that can be handed over.
const MOST: usize = 64;

/// What this process is to another proxy.
pub(super) enum Part {
    /// The first one.
    First,
    /// It only starts the new one.
    Helper,
    /// It takes over.
    Next(Next),
}

/// The side that takes over.
pub(super) struct Next {
    pub(super) listeners: Vec<Listener>,
    words: Words,
}

/// The side that is replaced.
pub(super) struct Before {
    words: Words,
}

/// What the new one is told with `go`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Go {
    /// The order of the table that is in use: it must not go behind it.
    pub(super) order: (u64, u64),
    /// Instances that take no new requests.
    pub(super) drained: Vec<InstanceKey>,
}

struct Words(BufReader<UnixStream>);

/// Which part this process has.
pub(super) fn part() -> io::Result<Part> {
    match std::env::var(PART).as_deref() {
        Ok("help") => Ok(Part::Helper),
        Ok("next") => take().map(Part::Next),
        Ok(_) | Err(_) => Ok(Part::First),
    }
}

/// Starts the new one, and ends: its child becomes an orphan, which is the point.
pub(super) fn help() -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(PART, "next").stdin(Stdio::inherit());
    command.spawn().map(drop)
}

/// Starts the new one from `program` and hands it `listeners`; blocks.
pub(super) fn begin(program: &PathBuf, listeners: &[Listener]) -> io::Result<Before> {
    let (own, theirs) = UnixStream::pair()?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(PART, "help").stdin(Stdio::from(OwnedFd::from(theirs)));
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    let status = command.spawn()?.wait()?;
    // The command holds the other end, and its end must be seen.
    drop(command);
    if !status.success() {
        return Err(io::Error::other(format!("the new program ended with {status}")));
    }
    let purposes: Vec<Purpose> = listeners.iter().map(Listener::purpose).collect();
    let mut line = serde_json::to_vec(&purposes)?;
    line.push(b'\n');
    let sockets: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("too many sockets to hand over"));
    }
    let sent = sendmsg(&own, &[IoSlice::new(&line)], &mut message, SendFlags::empty())?;
    (&own).write_all(line.get(sent..).unwrap_or_default())?;
    let mut words = Words::new(own)?;
    words.expect("prepared")?;
    Ok(Before { words })
}

fn take() -> io::Result<Next> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Standard input is the pair's end too: it is closed with ours.
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(nothing)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut line = vec![0; 4096];
    let mut receive = || recvmsg(&stream, &mut [IoSliceMut::new(&mut line)], &mut message, RecvFlags::empty());
    let received = retry_on_intr(&mut receive)?.bytes;
    line.truncate(received);
    let mut sockets = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(given) = part {
            // No other thread is there yet that could start a program in between.
            for socket in given {
                rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
                sockets.push(socket);
            }
        }
    }
    let purposes: Vec<Purpose> = serde_json::from_slice(&line)?;
    if purposes.len() != sockets.len() {
        return Err(io::Error::other("the proxy before handed over other sockets than it named"));
    }
    let listeners = purposes.into_iter().zip(sockets).map(|(purpose, socket)| Listener::handed(purpose, socket));
    Ok(Next { listeners: listeners.collect(), words: Words::new(stream)? })
}

// === impl Next ===

impl Next {
    /// Says that nothing can fail any more, and waits for the word to go.
    pub(super) fn prepared(&mut self) -> io::Result<Go> {
        self.words.say("prepared")?;
        Ok(serde_json::from_str(&self.words.hear()?)?)
    }

    /// Says that requests are served.
    pub(super) fn serving(&mut self) -> io::Result<()> {
        self.words.say("serving")
    }
}

// === impl Before ===

impl Before {
    /// Says go, and waits until the new one serves.
    pub(super) fn go(&mut self, go: &Go) -> io::Result<()> {
        self.words.say(&serde_json::to_string(go)?)?;
        self.words.expect("serving")
    }
}

// === impl Words ===

impl Words {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn say(&mut self, word: &str) -> io::Result<()> {
        self.0.get_mut().write_all(format!("{word}\n").as_bytes())
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other proxy ended"));
        }
        Ok(line.trim_end().to_owned())
    }

    fn expect(&mut self, word: &str) -> io::Result<()> {
        let heard = self.hear()?;
        if heard == word {
            Ok(())
        } else {
            Err(io::Error::other(format!("the other proxy said `{heard}`, not `{word}`")))
        }
    }
}
