//! How the daemon speaks to the proxy: one JSON object per line over a Unix socket.

mod answer;
mod client;
mod server;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use client::{Client, ControlError};
pub(crate) use server::{Control, draining_path};

use super::figures::{Counts, Second};
use crate::model::{AgentName, Digest, ReleaseId, one_line};

/// The version of what is said here.
pub const VERSION: u32 = 1;

/// Characters of a message at most.
const MESSAGE: usize = 2000;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// Of the daemon; deeds of a lower one than was seen are refused.
    pub epoch: u64,
    /// What is wanted.
    pub ask: Ask,
    /// Answered for this process alone, not for those that still drain beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Use the table of this generation, which stands in the file.
    Load {
        /// Of the table.
        generation: u64,
    },
    /// Which table is used, and what is open where.
    State,
    /// What was measured in the seconds after `since` (seconds since 1970).
    Metrics {
        /// The last second that is known already.
        since: u64,
    },
    /// Give an instance no new requests, whatever the table says; an instance stays drained until it leaves the table.
    Drain {
        /// Its id.
        instance: String,
        /// Of its launch.
        generation: u64,
        /// End what is open there.
        #[serde(default)]
        cut: bool,
    },
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Every new request is assigned by this table.
    Active(Active),
    /// What is open where.
    State(State),
    /// What was measured.
    Metrics(Metrics),
    /// The instance takes no new requests.
    Drained {
        /// Requests that are open there.
        in_flight: u64,
    },
    /// It was not done.
    Refused(Refused),
}

/// The table in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// Of its writer.
    pub epoch: u64,
    /// Of the table.
    pub generation: u64,
    /// Of its content.
    pub digest: Digest,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For a program.
    pub why: Why,
    /// For a person.
    pub message: String,
}

/// Why something was not done, for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Another version, or not understood.
    Protocol,
    /// A later daemon has spoken.
    Fenced,
    /// The account may not speak here.
    Forbidden,
    /// The file holds no good table of that generation; the one in use stays.
    Table,
    /// There is no such instance.
    Unknown,
    /// A proxy that drains beside this one did not do it: ask again.
    Partial,
}

/// Which table is used, and what is open where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of the process that takes new connections.
    pub pid: u32,
    /// Of the program.
    pub version: String,
    /// The table in use.
    pub active: Active,
    /// The table is of another boot: nothing is sent anywhere until a new one is loaded.
    pub stale: bool,
    /// Why the table in use is not the one in the file, if so.
    pub fallback: Option<String>,
    /// Every instance that the table names or that has open requests, by id and generation.
    pub instances: Vec<InstanceState>,
    /// Every release that had requests, since the start of the processes that live.
    pub releases: Vec<ReleaseState>,
    /// Processes that were replaced and still have open connections.
    pub draining: Vec<u32>,
    /// Those of them that do not answer: what is open there is not known, and not counted above.
    pub silent: Vec<u32>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// Its id.
    pub id: String,
    /// Of its launch.
    pub generation: u64,
    /// Whose it is.
    pub agent: AgentName,
    /// What it runs.
    pub release: ReleaseId,
    /// Open requests, those of all tables together.
    pub in_flight: u64,
    /// The same by the generation of the table that assigned them.
    pub by_table: BTreeMap<u64, u64>,
    /// The table in use names it.
    pub listed: bool,
    /// It takes no new requests.
    pub drained: bool,
    /// It failed so often that it is left alone for a while.
    pub ejected: bool,
}

/// One release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseState {
    /// Whose it is.
    pub agent: AgentName,
    /// The release.
    pub release: ReleaseId,
    /// Since the start.
    pub counts: Counts,
    /// Open requests.
    pub in_flight: u64,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// The seconds up to this one are whole: the next question's `since`.
    pub until: u64,
    /// By release; a second without requests is left out.
    pub releases: Vec<ReleaseSeconds>,
}

/// The seconds of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSeconds {
    /// Whose it is.
    pub agent: AgentName,
    /// The release.
    pub release: ReleaseId,
    /// In their order.
    pub seconds: Vec<Second>,
}

// === impl Refused ===

impl Refused {
    pub(super) fn new(why: Why, message: impl Into<String>) -> Self {
        Self { why, message: message.into() }.plain()
    }

    /// The same with a message for a terminal: in one line, and cut. What it quotes may be anything.
    fn plain(self) -> Self {
        Self { message: one_line(&self.message, MESSAGE, '\u{fffd}'), ..self }
    }
}
