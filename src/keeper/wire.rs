//! What is said over a keeper's socket: one JSON value a line, first a [`Hello`], then one [`Request`] after the other.
//!
//! Requests are strict. Answers may grow: who reads one ignores fields that it does not know. Both have a longest line.

use serde::{Deserialize, Serialize};

use crate::sys::{Listening, ProcessId, Word};

/// The version of this protocol.
pub const VERSION: u32 = 1;
/// Name of the socket in the folder: short, for its whole path has 107 bytes where it is used without a descriptor.
pub const SOCKET: &str = "s";
/// Bytes of a request at most, with its end of line.
pub const REQUEST: usize = 16 << 10;
/// Bytes of an answer at most, with its end of line.
pub const ANSWER: usize = 256 << 10;
/// Bytes of the output of a probe that are told at most.
pub const OUTPUT: usize = 16 << 10;

/// The first line of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The protocol it speaks.
    pub version: u32,
    /// For whom it speaks. Lower than the highest that was ever heard: refused. Without one, it may only ask.
    pub epoch: Option<u64>,
}

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// How the agent is.
    Status,
    /// How the agent is, once that is another turn than this one: at once, or when something changes.
    Next {
        /// The turn that the caller knows.
        turn: u64,
    },
    /// Whether the agent listens where it should, and nobody else does.
    Listening,
    /// Ends the agent whole, then the keeper. Answered when nothing is left.
    Stop {
        /// Milliseconds until SIGKILL, instead of those of the spec. A further request can only shorten it.
        #[serde(rename = "graceMs")]
        grace_ms: Option<u64>,
    },
    /// Ends the agent whole and starts it again. Answered when it has started.
    Restart,
    /// Sends a signal to the agent's first process.
    Signal(Word),
    /// Goes on as another program. Answered only if it does not: else the connection ends, and the next hello tells.
    Upgrade {
        /// The program, an absolute path.
        program: String,
    },
    /// Runs a command as the agent and in its cage.
    Probe(Probe),
}

/// A command to run beside the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Milliseconds after which it is killed: 1 to 600,000.
    pub timeout_ms: u64,
}

/// What a keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To a hello.
    Hello(Identity),
    /// To `status` and `next`.
    Status(Box<Status>),
    /// To `listening`; none where the spec names no place.
    Listening(Option<Listening>),
    /// To `stop`: nothing of the agent is left, and the keeper ends.
    Stopped(Box<Status>),
    /// To `restart`.
    Restarted(Box<Status>),
    /// To `signal`: whether there was a process to send it to.
    Signalled(bool),
    /// To `probe`.
    Probed(Probed),
    /// To anything: it was not done.
    Refused {
        /// Why, in a sentence.
        why: String,
        /// The highest epoch that was heard, where the caller's is lower.
        epoch: Option<u64>,
    },
}

/// Who a keeper is. The file `keeper.json` holds the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The protocol it speaks.
    pub version: u32,
    /// Its program's version.
    pub keeper: String,
    /// The file of its program; none where it could not be looked at, or the keeper is older than this field.
    #[serde(default)]
    pub program: Option<Program>,
    /// The instance it keeps.
    pub instance: String,
    /// The launch.
    pub nonce: String,
    /// Its process.
    pub process: ProcessId,
    /// The boot that the process belongs to.
    pub boot: String,
    /// When it began, in milliseconds since 1970. An upgrade begins anew.
    pub since_ms: u64,
    /// The highest epoch it has heard.
    pub epoch: u64,
}

/// A program's file, as it is told from the one that was installed before or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// Its length.
    pub bytes: u64,
    /// Seconds since 1970 when it was last written.
    pub modified: i64,
    /// Nanoseconds of that second.
    pub nanos: i64,
}

/// Where an agent stands. The file `state.json` holds the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The instance.
    pub instance: String,
    /// The launch.
    pub nonce: String,
    /// The boot that processes belong to.
    pub boot: String,
    /// The highest epoch that was heard.
    pub epoch: u64,
    /// Counts the changes of what stands here, over all keepers of a launch.
    pub turn: u64,
    /// What is going on.
    pub phase: Phase,
    /// The first process of the agent, while it lives.
    pub agent: Option<ProcessId>,
    /// When that was started, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Whether it was started by an earlier keeper: how it ends cannot be known.
    pub adopted: bool,
    /// Starts altogether.
    pub starts: u64,
    /// Ends in a row that came too soon.
    pub ends: u32,
    /// How it ended last.
    pub last_end: Option<End>,
    /// When it is started again, in milliseconds since 1970, in phase `waiting`.
    pub next_ms: Option<u64>,
    /// What became of its output.
    pub log: LogStatus,
    /// What the keeper could not do lately.
    pub trouble: Option<String>,
}

/// What is going on with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It runs.
    Running,
    /// It ended by itself; what it left behind is being ended.
    Clearing,
    /// It is started again later.
    Waiting,
    /// It is not started again.
    Ended,
    /// It is being ended because that was asked for.
    Stopping,
    /// Nothing of it is left, and the keeper ends.
    Stopped,
}

/// How an agent ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// In which way.
    pub how: How,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it ran, in milliseconds.
    pub ran_ms: u64,
}

/// In which way a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// With a status.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It could not be started; why.
    NotStarted(String),
    /// An earlier keeper started it, so nobody was told.
    Unknown,
}

/// What became of an agent's output. Counted from the keeper's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogStatus {
    /// Bytes that were kept.
    pub kept: u64,
    /// Bytes that were dropped because they could not be written.
    pub dropped: u64,
    /// Why the last ones were, while that is so.
    pub trouble: Option<String>,
}

/// How a probe went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probed {
    /// How it ended; by signal 9 after its time.
    pub how: How,
    /// Whether its time was over.
    pub timed_out: bool,
    /// What it wrote to standard output and error, at most [`OUTPUT`] bytes; what is not UTF-8 is replaced.
    pub output: String,
    /// Whether it wrote more.
    pub cut: bool,
    /// Milliseconds it took.
    pub took_ms: u64,
}
