//! The routing table: which request goes to which instance, as one value that is checked whole.
//!
//! Nothing here reads or writes: [`store`](super::store) keeps tables in files. A table is only used when it passed
//! [`Table::check`], so the data plane never meets a weight without an instance behind it.

mod check;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{AgentName, Digest, ReleaseId};

pub use check::{InvalidTable, Problem};

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// What the weights of an agent's arms sum to: a hundredth of a percent is the smallest share.
pub const WHOLE: u32 = 10_000;

/// All that the data plane of a host needs to know.
///
/// `epoch` fences writers, `generation` orders the tables of one epoch, `boot_id` says for which boot of the machine the
/// addresses hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Version of the format: [`FORMAT`].
    pub format: u32,
    /// Of the writer; one with a lower epoch is refused.
    pub epoch: u64,
    /// Order of the tables of one epoch.
    pub generation: u64,
    /// `/proc/sys/kernel/random/boot_id` when it was written; empty where the system has none.
    pub boot_id: String,
    /// By host and path to an agent.
    pub routes: Vec<Route>,
    /// Where the requests of each agent go.
    pub agents: BTreeMap<AgentName, Agent>,
}

/// Sends a host and a path prefix to an agent.
///
/// The most specific host wins (a name, then the longest `*.` suffix, then none), then the longest path; when no path of
/// a host fits, less specific hosts are asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Lower-case names, or `*.suffix`; empty: every host.
    pub hosts: Vec<String>,
    /// Prefix of the path, by whole segments: `/api` takes `/api` and `/api/x`, not `/apix`.
    pub path: String,
    /// Whose it is.
    pub agent: AgentName,
    /// Always this release, whatever the weights say: the host of a preview. While nothing of a [`Role::Preview`] is ready,
    /// it is answered 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseId>,
}

/// Where the requests of one agent go.
///
/// Without arms nothing is ready, and every request is answered 503.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// One for each release that serves; their weights sum to [`WHOLE`].
    pub arms: Vec<Arm>,
    /// Asked in order before the weights; the first that fits decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// What keeps a person in one arm; absent: every request is drawn anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// Which release gets a copy of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// What happens to open requests of an instance that leaves the table.
    #[serde(default)]
    pub drain: Drain,
    /// Every response names its release in `Backstay-Release`, not only those that were asked to.
    #[serde(default)]
    pub show_release: bool,
}

/// The instances of one release, and their share of the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// What runs there.
    pub release: ReleaseId,
    /// Its part in the rollout.
    pub role: Role,
    /// Share of the traffic, of [`WHOLE`].
    pub weight: u32,
    /// Ready processes; where there is weight there is at least one.
    pub instances: Vec<Instance>,
}

/// The part of a release in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the traffic: at most one.
    Stable,
    /// On its way.
    Candidate,
    /// Reached by match or route alone; its weight is zero, and it may have no instance.
    Preview,
}

/// One process that answers.
///
/// Known by `id` and `generation` together: the same id with a higher generation is another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Lower-case letters, digits, `-`, `_` and `.`; at most 64.
    pub id: String,
    /// Of its launch.
    pub generation: u64,
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Address {
    /// A Unix socket, at most 107 bytes.
    Unix(PathBuf),
    /// Address and port.
    Tcp(SocketAddr),
}

/// What an instance speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, with a pool of connections.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge: one connection for all.
    H2c,
}

/// Sends requests with a header or a cookie to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Lower-case name of the header.
    pub header: String,
    /// The name of the one cookie that is looked at, where the header is `cookie`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Its whole value; absent: any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where it goes.
    pub release: ReleaseId,
}

/// What keeps a person in one arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// What is hashed.
    pub by: StickyBy,
    /// Stands before what is hashed; two agents with the same salt give a person the same place.
    #[serde(default)]
    pub salt: String,
    /// With a cookie: whoever has none is given one.
    #[serde(default)]
    pub issue: bool,
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StickyBy {
    /// The value of this header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The user that this header names.
    User(String),
}

/// Copies requests to a release whose answers nobody sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Who gets the copies.
    pub to: ReleaseId,
    /// Of all requests; at most 100.
    pub percent: u8,
}

/// What happens to open requests of an instance that leaves the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drain {
    /// They end by themselves.
    #[default]
    Finish,
    /// They are ended at once.
    Cut,
}

// === impl Table ===

impl Table {
    /// A table with nothing in it.
    pub fn empty(epoch: u64, generation: u64, boot_id: impl Into<String>) -> Self {
        let (routes, agents) = (Vec::new(), BTreeMap::new());
        Self { format: FORMAT, epoch, generation, boot_id: boot_id.into(), routes, agents }
    }

    /// The bytes that are hashed: compact JSON with the fields in their order and the agents sorted.
    pub fn canonical(&self) -> Vec<u8> {
        // Only a map with keys that are no text cannot be written, and there is none.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// SHA-256 of [`Table::canonical`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// Which of two tables is the later: by epoch, then by generation.
    pub fn order(&self) -> (u64, u64) {
        (self.epoch, self.generation)
    }
}

// === impl Agent ===

impl Agent {
    /// The arm of `release`.
    pub fn arm(&self, release: &ReleaseId) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.release == *release)
    }
}

// === impl Address ===

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// How long a client is told to wait when nothing is ready.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
