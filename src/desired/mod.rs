//! What Git asks for: a [`Checkout`](crate::source::Checkout) becomes releases and settings.
//!
//! Strict: what is not understood is an error with file, line and a way out. Pure: the same trees give the same
//! releases, whatever was read before.
//!
//! | file | what it is | shape |
//! | --- | --- | --- |
//! | `backstay.yaml` | defaults beneath the `spec` of every agent | `kind: Repository` |
//! | `agents/<name>/agent.yaml` | one agent | `kind: Agent` |
//! | `environments/<name>.yaml` | one environment | `kind: Environment` |
//! | `environments/<name>/<agent>.yaml` | overlay: a JSON merge patch (RFC 7396) over the agent's `spec` | the fields of a `spec` |
//! | `environments/<name>/variables.yaml` | lies beneath every workload's `env` | name to value |
//! | `shared/models.yaml` | the catalogue of models | name to model |
//! | `environments/<name>/models.yaml` | a JSON merge patch over the catalogue | name to model |
//! | `consent/*.yaml` | allows one deed | the fields of a consent |
//! | `agents/<name>/flags.json` | flagd's definitions, by that name | schema v0 |
//! | `agents/<name>/manifests/*.yaml` | further objects, as `kubectl` reads them | any kind of a namespace |
//!
//! What the formats leave open is decided so:
//!
//! - A field that is empty in `agent.yaml` takes the default of `backstay.yaml` away. Anywhere else a field without a
//!   value is an error, but for what is handed on as it is (`config`, `podTemplate`, `parameters`).
//! - With `use`, all that a model says beside it is merged over the catalogue's entry. Entries use no other entries and
//!   have no fallbacks of their own.
//! - `workload.manifest` is one Deployment. Its pod template enters the release; `replicas` counts where the agent says
//!   none; its metadata is replaced; the rest of its `spec` is settings.
//! - `expires` with a date lasts to the end of that day, in UTC. A model has retired when its day begins, in UTC; in the
//!   30 days before that is a warning.
//! - Manifests name no namespace: where an environment lives is the daemon's configuration.
//! - Two agents that declare one object are both wrong, so that neither is changed before somebody decided.
//! - A migration without a way back says so at the head of its up script (see [`crate::migration::IRREVERSIBLE`]).
//! - No number has more digits than a double carries, so that every release can be read back.

mod agent;
pub mod artifact;
mod cache;
pub mod canonical;
mod compare;
mod consent;
mod environment;
mod freeze;
mod host;
mod layer;
mod manifests;
mod models;
mod prompts;
mod read;
mod release;
mod resolve;
pub mod rollout;
mod route;
mod secrets;
mod settings;
mod state;
mod tools;
mod undelivered;
mod validate;
mod workload;
mod written;

pub use artifact::ArtifactSource;
pub use cache::Cache;
pub use compare::{Break, Change, Component, ComponentChanges, Kind as ChangeKind, compare};
pub use consent::consents;
pub use environment::{environment, environments};
pub use freeze::{Freeze, Frozen, frozen, next_freeze};
pub use host::is_safe as is_safe_address;
pub use release::{
    Artifact, Code, EnvValue, FORMAT, ForeignTemplate, Health, InvalidRelease, Memory, MigrationRef, Probe, Release,
    ReleaseSpec, SecretKey, Worker, Workload,
};
pub use resolve::{At, Resolve, resolve};
pub use rollout::RolloutSpec;
pub use settings::{ArtifactOrigin, Drain, DrainMode, Gateway, HostSettings, Rolling, Route, Settings};
pub use state::{
    After, Allow, Consent, DesiredAgent, DesiredState, EnvironmentSpec, ImagePolicy, ReleaseRef, TargetKind, Track,
    Waves, WriteBack,
};
pub use validate::validate;
pub use written::{SchemaKind, UnknownSchema, schema};
