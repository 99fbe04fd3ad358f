//! The files of the config repository as people write them: one Rust type per format, which is the JSON Schema too.

mod agent;
mod environment;
mod repository;
mod rollout;
mod schema;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

pub(super) use agent::{
    Agent, AgentSpec, Artifact, CountOrShare, DrainMode, Health, Memory, Model, OneOrMany, Probe, Prompt, Syntax,
    Variable, Worker,
};
pub(super) use environment::{Environment, Freeze, TrackSpec, WriteBackSpec};
pub(super) use repository::{Catalogue, CatalogueEntry, Consent, Deed, Variables};
pub(super) use rollout::{
    AbTest, BlueGreen, Bound, Canary, Metric, Query, Reach, Rollout, Segment, Step, Strategy, UserKey,
};
pub use schema::{SchemaKind, UnknownSchema, schema};
pub(super) use schema::{agent, catalogue, catalogue_entry, consent, environment, repository, variables};

use super::read::{SecretKeyName, SecretName};

/// The only version of the formats so far.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) enum ApiVersion {
    /// The first.
    #[serde(rename = "backstay.dev/v1alpha1")]
    V1Alpha1,
}

/// A map whose keys are of one small language.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent, bound = "K: Deserialize<'de> + Ord, V: Deserialize<'de>")]
pub(super) struct Keyed<K, V>(pub(super) BTreeMap<K, V>);

/// A key of a Secret, in place of a value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretRef {
    /// Name of the Secret.
    pub(super) secret: SecretName,
    /// Key in it.
    pub(super) key: SecretKeyName,
}

// === impl Keyed ===

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: JsonSchema, V: JsonSchema> JsonSchema for Keyed<K, V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}_by_{}", V::schema_name(), K::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": generator.subschema_for::<K>(),
            "additionalProperties": generator.subschema_for::<V>(),
        })
    }
}

// === impl SecretRef ===

impl From<SecretRef> for super::SecretKey {
    fn from(SecretRef { secret, key }: SecretRef) -> Self {
        Self { secret: secret.0, key: key.0 }
    }
}
