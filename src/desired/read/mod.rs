//! From text to a tree that knows where every key and value stands: YAML, JSON, merging, and checking by schema.
//!
//! Nothing else in this room parses text. What is read is bounded (bytes, levels, values, documents, aliases) before
//! it is built, so that a hostile file costs little and is named.

mod check;
mod grammar;
mod json;
mod merge;
mod node;
mod yaml;

pub(super) use check::{check, closest, list_of};
pub(super) use grammar::{
    Address, ComponentName, CronText, Day, Expiry, FieldName, HostName, Image, KindAndName, ObjectName, Percent,
    Period, Quantity, Reference, ReleaseIdText, RepoPath, SecretKeyName, SecretName, Sha256Text, TagPattern,
    VariableName, ZoneName,
};
pub(super) use json::parse as parse_json;
pub(super) use merge::{beneath, patch};
pub(super) use node::{Field, Kind, Map, Node, Source, Spot};
pub(super) use yaml::{Flavour, documents, one_document};

/// Bytes that a YAML or JSON file may have.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Levels of lists and maps in one file.
const MAX_DEPTH: usize = 64;
/// Values in one file, aliases expanded.
pub(super) const MAX_NODES: usize = 50_000;
/// Bytes of one key.
const MAX_KEY: usize = 1024;
/// Uses of anchors in one file.
const MAX_ALIASES: usize = 64;
/// Documents in one file of manifests.
const MAX_DOCUMENTS: usize = 64;
/// Errors that are listed for one file; more would not be read.
const MAX_ERRORS: usize = 50;
/// The largest integer that an IEEE 754 double carries exactly.
const LARGEST_INTEGER: u64 = 1 << 53;
