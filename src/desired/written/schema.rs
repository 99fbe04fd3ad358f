//! The JSON Schemas of our formats, from the types that they are read into.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::{Agent, Catalogue, CatalogueEntry, Consent, Environment, Variables, repository::Repository};

/// A format that `backstay schema` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    /// `agents/<name>/agent.yaml`.
    Agent,
    /// `environments/<name>.yaml`.
    Environment,
    /// `backstay.yaml`.
    Repository,
    /// `shared/models.yaml`.
    Models,
    /// `environments/<name>/variables.yaml`.
    Variables,
    /// A file in `consent/`.
    Consent,
}

/// There is no format of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no schema `{0}`: agent, environment, repository, models, variables or consent is expected")]
pub struct UnknownSchema(String);

/// The JSON Schema (2020-12) of a format.
pub fn schema(kind: SchemaKind) -> &'static Value {
    match kind {
        SchemaKind::Agent => agent(),
        SchemaKind::Environment => environment(),
        SchemaKind::Repository => repository(),
        SchemaKind::Models => catalogue(),
        SchemaKind::Variables => variables(),
        SchemaKind::Consent => consent(),
    }
}

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $type:ty;)*) => {$(
        $(#[$doc])*
        pub(in crate::desired) fn $name() -> &'static Value {
            static SCHEMA: OnceLock<Value> = OnceLock::new();
            SCHEMA.get_or_init(generate::<$type>)
        }
    )*};
}

schemas! {
    agent = Agent;
    environment = Environment;
    repository = Repository;
    catalogue = Catalogue;
    /// One model of the catalogue.
    catalogue_entry = CatalogueEntry;
    variables = Variables;
    consent = Consent;
}

fn generate<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(NoNull));
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Absent is the only way to say nothing: what may be left out may not be `null`.
#[derive(Debug, Clone)]
struct NoNull;

impl Transform for NoNull {
    fn transform(&mut self, schema: &mut Schema) {
        let Some(object) = schema.as_object_mut() else { return };
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|word| word != "null");
            if let [only] = &**types {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
            branches.retain(|branch| branch.get("type") != Some(&"null".into()));
            if let [only] = &**branches
                && let Some(only) = only.as_object().cloned()
            {
                object.remove("anyOf");
                for (key, value) in only {
                    object.entry(key).or_insert(value);
                }
            }
        }
        object.remove("default");
    }
}

// === impl SchemaKind ===

impl std::str::FromStr for SchemaKind {
    type Err = UnknownSchema;

    fn from_str(name: &str) -> Result<Self, UnknownSchema> {
        match name {
            "agent" => Ok(Self::Agent),
            "environment" => Ok(Self::Environment),
            "repository" => Ok(Self::Repository),
            "models" => Ok(Self::Models),
            "variables" => Ok(Self::Variables),
            "consent" => Ok(Self::Consent),
            other => Err(UnknownSchema(other.to_owned())),
        }
    }
}
