//! What there is to remember: operations and their causes, the inventory, quarantine, and what people asked for.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod agent;
mod environment;
mod operation;
mod request;
mod rollout;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::AgentName;

pub use agent::{
    AgentRecord, Condition, ConditionKind, Differs, FORMAT, Hold, Inventory, MAX_BYTES, MAX_EVIDENCE, MAX_INVENTORY,
    MAX_MAKING, MAX_OPERATIONS, MAX_QUARANTINE, MAX_SETTINGS, Owned, Phase, Quarantined, ROLLOUT_FORMAT, Standing,
    Told, Truth,
};
pub use environment::{EnvironmentRecord, EnvironmentRequests, RefusedMove, SyncRequest};
pub use operation::{Cause, Evidence, Operation, OperationId, OperationKind, Outcome, ShortId};
pub use request::{Request, Requests, RetryRequest, RollbackRequest};
pub use rollout::RolloutRecord;

/// What is remembered of every agent of an environment, removed ones included.
pub type Records = BTreeMap<AgentName, Arc<AgentRecord>>;
