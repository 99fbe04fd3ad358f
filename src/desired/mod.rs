//! What Git asks for: a [`Checkout`](crate::source::Checkout) becomes releases and settings.
//!
//! Strict: what is not understood is an error with file, line and a way out. Pure: the same trees give the same
//! releases, whatever was read before.

pub mod canonical;
mod read;
mod release;
mod secrets;
mod settings;
mod state;
mod written;

pub use release::{
    Code, EnvValue, FORMAT, ForeignTemplate, Health, InvalidRelease, Memory, MigrationRef, Probe, Release, ReleaseSpec,
    SecretKey, Worker, Workload,
};
pub use settings::{Rolling, Settings};
pub use state::{
    After, Allow, Consent, DesiredAgent, DesiredState, EnvironmentSpec, ImagePolicy, ReleaseRef, Track, WriteBack,
};
pub use written::{SchemaKind, UnknownSchema, schema};
