//! What Git asks for: a [`Checkout`](crate::source::Checkout) becomes releases and settings.
//!
//! Strict: what is not understood is an error with file, line and a way out. Pure: the same trees give the same
//! releases, whatever was read before.

mod agent;
mod cache;
pub mod canonical;
mod compare;
mod consent;
mod environment;
mod layer;
mod manifests;
mod models;
mod prompts;
mod read;
mod release;
mod resolve;
mod secrets;
mod settings;
mod state;
mod tools;
mod undelivered;
mod validate;
mod workload;
mod written;

pub use cache::Cache;
pub use compare::{Break, Change, Component, ComponentChanges, Kind as ChangeKind, compare};
pub use consent::consents;
pub use environment::{environment, environments};
pub use release::{
    Code, EnvValue, FORMAT, ForeignTemplate, Health, InvalidRelease, Memory, MigrationRef, Probe, Release, ReleaseSpec,
    SecretKey, Worker, Workload,
};
pub use resolve::{At, Resolve, resolve};
pub use settings::{Rolling, Settings};
pub use state::{
    After, Allow, Consent, DesiredAgent, DesiredState, EnvironmentSpec, ImagePolicy, ReleaseRef, TargetKind, Track,
    WriteBack,
};
pub use validate::validate;
pub use written::{SchemaKind, UnknownSchema, schema};
