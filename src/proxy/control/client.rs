//! The daemon's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{Active, Ask, Metrics, Question, Refused, Reply, State, VERSION};

/// Time for one question, unless another is said.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that an answer may have.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Times that a question is asked when the proxy leaves without an answer, as it does while it is replaced.
const TRIES: u32 = 4;

/// Speaks to the proxy as one daemon, with one epoch.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    epoch: u64,
    patience: Duration,
}

/// The proxy did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It cannot be reached, or leaves without an answer: nothing is known of what it did.
    #[error("cannot reach the proxy at `{}`", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It refuses.
    #[error("the proxy refuses: {}", .0.message)]
    Refused(Refused),
    /// It says something that is no answer to this.
    #[error("the proxy at `{}` answers what was not asked", path.display())]
    Other {
        /// The socket.
        path: PathBuf,
    },
}

// === impl Client ===

impl Client {
    /// For the proxy whose control socket is `path`.
    pub fn new(path: impl Into<PathBuf>, epoch: u64) -> Self {
        Self { path: path.into(), epoch, patience: PATIENCE }
    }

    /// Waits no longer than `patience` for each answer.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Has the table of `generation`, which stands in the file, used.
    ///
    /// # Guarantees
    ///
    /// After `Ok`, every new request is assigned by it, in every process of the proxy, and each earlier one is counted in
    /// [`Client::state`]. After an error, either table may be in use.
    pub async fn load(&self, generation: u64) -> Result<Active, ControlError> {
        match self.ask(Ask::Load { generation }).await? {
            Reply::Active(active) => Ok(active),
            Reply::State(_) | Reply::Metrics(_) | Reply::Drained { .. } | Reply::Refused(_) => Err(self.other()),
        }
    }

    /// Which table is used, and what is open where.
    ///
    /// Where [`State::silent`] is not empty, no instance may be taken for idle.
    pub async fn state(&self) -> Result<State, ControlError> {
        match self.ask(Ask::State).await? {
            Reply::State(state) => Ok(state),
            Reply::Active(_) | Reply::Metrics(_) | Reply::Drained { .. } | Reply::Refused(_) => Err(self.other()),
        }
    }

    /// What was measured after the second `since`.
    pub async fn metrics(&self, since: u64) -> Result<Metrics, ControlError> {
        match self.ask(Ask::Metrics { since }).await? {
            Reply::Metrics(metrics) => Ok(metrics),
            Reply::Active(_) | Reply::State(_) | Reply::Drained { .. } | Reply::Refused(_) => Err(self.other()),
        }
    }

    /// Gives an instance no new requests, and ends what is open there if `cut`; gives how many are open.
    pub async fn drain(&self, instance: &str, generation: u64, cut: bool) -> Result<u64, ControlError> {
        match self.ask(Ask::Drain { instance: instance.to_owned(), generation, cut }).await? {
            Reply::Drained { in_flight } => Ok(in_flight),
            Reply::Active(_) | Reply::State(_) | Reply::Metrics(_) | Reply::Refused(_) => Err(self.other()),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, ControlError> {
        let question = Question { version: VERSION, epoch: self.epoch, ask, alone: false };
        let unreachable = |source| ControlError::Unreachable { path: self.path.clone(), source };
        let mut tries = 0;
        loop {
            tries += 1;
            match exchange(&self.path, &question, self.patience).await {
                Ok(Reply::Refused(refused)) => return Err(ControlError::Refused(refused.plain())),
                Ok(reply) => return Ok(reply),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && tries < TRIES => {
                    tokio::time::sleep(Duration::from_millis(20) * tries).await;
                }
                Err(error) => return Err(unreachable(error)),
            }
        }
    }

    fn other(&self) -> ControlError {
        ControlError::Other { path: self.path.clone() }
    }
}

/// One question and its answer on a connection of its own.
pub(super) async fn exchange(path: &Path, question: &Question, patience: Duration) -> io::Result<Reply> {
    let exchanged = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        let read = BufReader::new(stream).take(LONGEST).read_until(b'\n', &mut answer).await;
        match read {
            Ok(_) if answer.last() == Some(&b'\n') => Ok(serde_json::from_slice(&answer)?),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        }
    };
    tokio::time::timeout(patience, exchanged).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
