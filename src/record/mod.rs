//! What there is to remember: operations and their causes, the inventory, quarantine, and what people asked for.

mod agent;
mod environment;
mod operation;
mod request;

pub use agent::{
    AgentRecord, Condition, ConditionKind, Differs, FORMAT, Hold, Inventory, MAX_BYTES, MAX_INVENTORY, MAX_MAKING,
    MAX_OPERATIONS, MAX_QUARANTINE, MAX_SETTINGS, Owned, Phase, Quarantined, Standing, Told, Truth,
};
pub use environment::{EnvironmentRecord, EnvironmentRequests, RefusedMove, SyncRequest};
pub use operation::{Cause, Evidence, Operation, OperationId, OperationKind, Outcome, ShortId};
pub use request::{Request, Requests, RetryRequest, RollbackRequest};
