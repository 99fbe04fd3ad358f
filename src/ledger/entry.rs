//! A record as the API server holds it: read with care, written with what people look for.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::model::{AgentName, ResourceVersion, Revision, Uid};
use crate::reconcile::LedgerEntry;
use crate::record::{AgentRecord, EnvironmentRecord, EnvironmentRequests, FORMAT, Operation, Requests};

/// The format of a record that could not be read: newer than all, so that nobody overwrites it.
pub const UNREADABLE: u32 = u32::MAX;

/// A field of the status for printer columns alone: made at every write, left out at every read.
const SHOWN: &str = "shown";
/// Where a record that could not be read says why.
const WHY: &str = "unreadable";

/// What the ledger holds of an environment.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentEntry {
    /// The record; a new one where the object has no status.
    pub record: EnvironmentRecord,
    /// What people ask for.
    pub requests: EnvironmentRequests,
    /// `metadata.generation` of the requests.
    pub generation: i64,
    /// For compare-and-swap.
    pub version: ResourceVersion,
}

/// The parts of a custom resource that the ledger uses.
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) version: ResourceVersion,
    pub(super) generation: i64,
    pub(super) created: String,
    spec: Value,
    status: Map<String, Value>,
}

/// An agent's custom resource, read.
pub(super) struct KeptAgent {
    pub(super) agent: AgentName,
    pub(super) uid: Uid,
    pub(super) version: ResourceVersion,
    pub(super) entry: LedgerEntry,
}

// === impl KeptAgent ===

impl KeptAgent {
    /// Reads an object; nothing when it has no name that an agent can have, no UID or no version.
    pub(super) fn of(body: Value) -> Option<Self> {
        let kept = Kept::of(body)?;
        let agent = kept.name.parse().ok()?;
        Some(Self { agent, uid: kept.uid.clone(), version: kept.version.clone(), entry: kept.agent_entry() })
    }
}

// === impl Kept ===

impl Kept {
    /// Reads an object; nothing when it has no name, UID or version.
    pub(super) fn of(mut body: Value) -> Option<Self> {
        let metadata = body.get("metadata")?;
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            name: text("name")?,
            uid: Uid(text("uid")?),
            version: ResourceVersion(text("resourceVersion")?),
            generation: metadata.get("generation").and_then(Value::as_i64).unwrap_or_default(),
            created: text("creationTimestamp").unwrap_or_default(),
            spec: body.get_mut("spec").map(Value::take).unwrap_or_default(),
            status: match body.get_mut("status").map(Value::take) {
                Some(Value::Object(status)) => status,
                Some(_) | None => Map::new(),
            },
        })
    }

    /// As the core wants it.
    pub(super) fn agent_entry(self) -> LedgerEntry {
        let record = read(self.status, |format, why| AgentRecord {
            format,
            unknown: [(WHY.to_owned(), why.into())].into(),
            ..AgentRecord::default()
        });
        LedgerEntry::Present {
            record: Arc::new(record),
            requests: serde_json::from_value::<Requests>(self.spec).unwrap_or_default(),
            generation: self.generation,
            version: self.version,
        }
    }

    /// As the environment's machine wants it.
    pub(super) fn environment_entry(self) -> EnvironmentEntry {
        let record = read(self.status, |format, why| EnvironmentRecord {
            format,
            unknown: [(WHY.to_owned(), why.into())].into(),
            ..EnvironmentRecord::default()
        });
        EnvironmentEntry {
            record,
            requests: serde_json::from_value(self.spec).unwrap_or_default(),
            generation: self.generation,
            version: self.version,
        }
    }
}

/// Reads a status; one that this version does not understand becomes a record that nobody writes.
fn read<T: DeserializeOwned>(mut status: Map<String, Value>, otherwise: impl Fn(u32, String) -> T) -> T {
    status.remove(SHOWN);
    let format = status
        .get("format")
        .map_or(0, |format| format.as_u64().and_then(|format| u32::try_from(format).ok()).unwrap_or(UNREADABLE));
    serde_json::from_value(Value::Object(status))
        .unwrap_or_else(|error| otherwise(if format > FORMAT { format } else { UNREADABLE }, error.to_string()))
}

/// The status that is written for a record.
pub(super) fn agent_status(record: &AgentRecord) -> Value {
    let latest = record.operation.as_ref().or_else(|| record.operations.first());
    let shown = json!({
        "release": record.stable.as_ref().map(|standing| standing.release.short()),
        "revision": record.stable.as_ref().map(|standing| short(&standing.revision)),
        "operation": latest.map(operation),
    });
    with_shown(json!(record), shown)
}

/// The status that is written for an environment's record.
pub(super) fn environment_status(record: &EnvironmentRecord) -> Value {
    let accepted: Vec<_> = record
        .accepted
        .values()
        .map(|revision| format!("{}@{}", revision.reference, revision.commit.short()))
        .collect();
    with_shown(json!(record), json!({"revision": accepted.join(" ")}))
}

fn short(revision: &Revision) -> String {
    format!("{}@{}", revision.reference, revision.commit.short())
}

fn operation(operation: &Operation) -> String {
    let state = match &operation.outcome {
        None => "open",
        Some(crate::record::Outcome::Succeeded) => "done",
        Some(crate::record::Outcome::Failed(_)) => "failed",
        Some(crate::record::Outcome::Superseded) => "superseded",
    };
    format!("{}:{:?}:{state}", operation.id, operation.kind)
}

fn with_shown(mut status: Value, mut shown: Value) -> Value {
    if let Some(shown) = shown.as_object_mut() {
        shown.retain(|_, value| !value.is_null() && value != "");
    }
    if let Some(status) = status.as_object_mut() {
        status.insert(SHOWN.to_owned(), shown);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ROLLOUT_FORMAT;

    fn kept(status: &Value) -> Kept {
        let metadata = json!({"name": "support", "uid": "u", "resourceVersion": "7", "generation": 2});
        Kept::of(json!({"metadata": metadata, "spec": {"suspend": {"id": "1", "by": "a"}}, "status": status}))
            .expect("an object")
    }

    fn record(status: &Value) -> AgentRecord {
        match kept(status).agent_entry() {
            LedgerEntry::Present { record, .. } => AgentRecord::clone(&record),
            LedgerEntry::Absent => panic!("it is there"),
        }
    }

    #[test]
    fn what_is_shown_is_no_part_of_the_record() {
        let status = agent_status(&AgentRecord { format: FORMAT, drift_healed: 3, ..AgentRecord::default() });
        assert_eq!(status["shown"], json!({}));
        let read = record(&status);
        assert_eq!(read, AgentRecord { format: FORMAT, drift_healed: 3, ..AgentRecord::default() });
    }

    // R7
    #[test]
    fn a_newer_record_is_read_only_even_when_it_cannot_be_read() {
        let newer = json!({"format": ROLLOUT_FORMAT + 1, "phase": "Hovering", "novel": 1});
        assert_eq!(record(&newer).format, ROLLOUT_FORMAT + 1);
        assert!(!record(&newer).is_writable());
        let kept = json!({"format": ROLLOUT_FORMAT + 1, "novel": {"a": 1}});
        assert_eq!(record(&kept).unknown["novel"], json!({"a": 1}));
    }

    // R7
    #[test]
    fn a_record_that_cannot_be_read_is_never_written() {
        for broken in [json!({"format": FORMAT, "phase": 7}), json!({"format": "x"}), json!({"format": -1})] {
            let record = record(&broken);
            assert_eq!(record.format, UNREADABLE, "{broken}");
            assert!(!record.is_writable() && record.unknown.contains_key("unreadable"));
        }
    }

    #[test]
    fn no_status_is_a_new_record() {
        assert_eq!(record(&Value::Null), AgentRecord::default());
        let LedgerEntry::Present { requests, generation, .. } = kept(&Value::Null).agent_entry() else {
            panic!("it is there")
        };
        assert!(requests.suspend.is_some() && generation == 2);
        assert_eq!(kept(&json!({"format": 9, "epoch": "x"})).environment_entry().record.format, 9);
    }
}
