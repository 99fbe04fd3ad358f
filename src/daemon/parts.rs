//! What the task of one environment is made of, and how far it says that it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::git::Git;
use super::notes::Notes;
use super::smoke::Front;
use super::write_back::WriteBacks;
use super::{Metrics, Status};
use crate::apply;
use crate::ledger::{Clock, Journal, LeaseFence, Ledger, Role};
use crate::measure::{Gates, Providers};
use crate::model::EnvironmentName;
use crate::observe::Observer;
use crate::reconcile::{AgentConfig, PruneLimits};
use crate::record::Records;

/// Records of all environments that this daemon serves, for `after`.
pub(crate) type Shared = Arc<std::sync::Mutex<BTreeMap<EnvironmentName, Records>>>;

/// What the task of one environment needs.
pub(crate) struct Parts {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) limits: PruneLimits,
    pub(crate) git: Arc<Git>,
    pub(crate) ledger: Ledger,
    pub(crate) target: Arc<apply::Target>,
    pub(crate) observer: Observer,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) fence: LeaseFence,
    pub(crate) journal: Arc<std::sync::Mutex<Journal>>,
    /// Where ended operations are written beside their commits, too.
    pub(crate) notes: Option<Notes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: Status,
    pub(crate) shared: Shared,
    pub(crate) write_backs: Arc<WriteBacks>,
    pub(crate) providers: Arc<Providers>,
    /// Who is asked at the steps of a canary that wait for a gate.
    pub(crate) gates: Arc<Gates>,
    /// Where the preview of a second set is reached.
    pub(crate) front: Option<Front>,
    pub(crate) instance: String,
    /// Requests that are asked for before the next agent gets its turn.
    pub(crate) at_work: usize,
    /// Says how far this environment is, for `--once`.
    pub(crate) settled: watch::Sender<Settled>,
}

/// How far an environment is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Settled {
    /// Something is still going on, or nothing was decided yet.
    #[default]
    No,
    /// Everything is as Git asks for, and Ready.
    Ready,
    /// Nothing goes on, but not all of it is Ready.
    Stuck,
}
