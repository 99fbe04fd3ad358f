//! A rollout on its way, as a record keeps it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A rollout on its way: what a restart needs to go on with it.
///
/// # Guarantees
///
/// The state is as the room `rollout` wrote it, and only that room reads it: a version that it does not know is kept as
/// it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRecord {
    /// The layout of `state`.
    pub version: u32,
    /// The state.
    #[schemars(schema_with = "anything")]
    pub state: Map<String, Value>,
    /// What the judge knows, as it saved it; absent: it begins anew, and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

// === impl RolloutRecord ===

impl RolloutRecord {
    /// Whether it has not started yet, as far as that can be told without reading all of it.
    pub fn is_waiting(&self) -> bool {
        self.state.get("phase").and_then(Value::as_str) == Some("waiting")
    }
}

/// Nothing of the state is pruned by who keeps it.
fn anything(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    true.into()
}
