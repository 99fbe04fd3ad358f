//! The health of one object, by the rules of kstatus.

use serde::{Deserialize, Serialize};

use super::Fault;
use crate::model::LiveObject;

/// The health of an object or of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "status")]
pub enum Health {
    /// It is as it should be.
    Healthy,
    /// It is on its way.
    Progressing {
        /// What it waits for, in one sentence without a full stop.
        reason: String,
    },
    /// It failed, or takes too long.
    Degraded {
        /// How, in one sentence without a full stop.
        reason: String,
        /// Whose fault it is; nothing where there is no evidence.
        fault: Option<Fault>,
    },
    /// Somebody paused it.
    Suspended,
    /// It is not there, or being deleted.
    Missing,
    /// It says nothing that could be read.
    Unknown,
}

/// Judges one object.
pub fn health(live: &LiveObject) -> Health {
    let _ = live;
    Health::Unknown
}
