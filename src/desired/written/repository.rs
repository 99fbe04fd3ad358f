//! `backstay.yaml`, the catalogue of models, variables and consents.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{AgentSpec, ApiVersion, Keyed, SecretRef, agent::Variable};
use crate::desired::read::{Address, ComponentName, Day, Expiry, KindAndName, ReleaseIdText, VariableName};
use crate::model::{AgentName, EnvironmentName};

/// The repository as a whole: `backstay.yaml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the defaults are merged beneath each agent as a tree")]
pub(in crate::desired) struct Repository {
    /// Version of the formats in this repository.
    api_version: ApiVersion,
    /// Always `Repository`.
    kind: RepositoryKind,
    /// What holds for all agents.
    #[serde(default)]
    spec: RepositorySpec,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
enum RepositoryKind {
    Repository,
}

/// What holds for all agents.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "merged beneath each agent as a tree")]
pub(in crate::desired) struct RepositorySpec {
    /// Lies beneath the `spec` of every agent, at every depth of its maps.
    defaults: Option<AgentSpec>,
}

/// The models that agents may `use`: `shared/models.yaml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[expect(dead_code, reason = "entries are taken from the tree")]
pub(in crate::desired) struct Catalogue(Keyed<ComponentName, CatalogueEntry>);

/// One model, written out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
pub(in crate::desired) struct CatalogueEntry {
    /// Who serves it.
    #[schemars(length(min = 1))]
    provider: String,
    /// Its name there.
    #[schemars(length(min = 1))]
    model: String,
    /// Where it is served.
    endpoint: Option<Address>,
    /// The credential; absent where the workload's own identity is enough.
    credentials: Option<SecretRef>,
    /// Given to the provider with each request.
    parameters: Option<Map<String, Value>>,
    /// When the provider takes it away.
    pub(in crate::desired) retires: Option<Day>,
}

/// Lies beneath the environment variables of every workload: `environments/<name>/variables.yaml`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(in crate::desired) struct Variables(pub(in crate::desired) Keyed<VariableName, Variable>);

/// Allows one deed on one thing until a date: a file in `consent/`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Consent {
    /// For which agent.
    pub(in crate::desired) agent: AgentName,
    /// In which environment.
    pub(in crate::desired) environment: EnvironmentName,
    /// What it allows.
    pub(in crate::desired) allow: Deed,
    /// The object that `adopt`, `prune` or `replace` is about.
    pub(in crate::desired) object: Option<KindAndName>,
    /// The release that `retry` or `lossyDown` is about.
    pub(in crate::desired) release: Option<ReleaseIdText>,
    /// Until when: to the end of that day in UTC, or to that moment.
    pub(in crate::desired) expires: Expiry,
}

/// A deed that needs consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::desired) enum Deed {
    /// To try a quarantined release again.
    Retry,
    /// To take over an object that exists already.
    Adopt,
    /// To delete an object that is kept otherwise.
    Prune,
    /// To delete and make anew an object with a changed immutable field.
    Replace,
    /// To run a migration downwards that loses rows.
    LossyDown,
}
