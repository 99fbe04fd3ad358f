//! A release: the resolved declaration of one agent, named by its content.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical;
use crate::model::{Digest, ReleaseId, WorkerName};

/// The format of the canonical form that this version writes.
pub const FORMAT: u32 = 1;

/// The resolved declaration of one agent: all components and every field that reaches a process.
///
/// # Guarantees
///
/// `id` is the SHA-256 of `canonical`, `spec` is what `canonical` says, and each prompt has the digest that `spec`
/// gives it: a value of this type can be used without a further check.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The SHA-256 of `canonical`.
    pub id: ReleaseId,
    /// The canonical form (RFC 8785): the very bytes of `release.json`.
    pub canonical: Arc<[u8]>,
    /// `canonical`, read.
    pub spec: ReleaseSpec,
    /// The final bytes of each prompt, by name.
    pub prompts: BTreeMap<String, Arc<[u8]>>,
}

/// The canonical form, read. Absent stays absent: there are no defaults here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseSpec {
    /// [`FORMAT`].
    pub format: u32,
    /// What runs.
    pub code: Code,
    /// SHA-256 of the final bytes of each prompt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prompts: BTreeMap<String, Digest>,
    /// Models by role, with catalogue entries and fallbacks inlined.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Value>,
    /// MCP tools by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, Value>,
    /// Where the memory is and the migrations that made its schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// The agent's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// How the process is run.
    #[serde(default)]
    pub workload: Workload,
    /// Further processes of the same release, without traffic.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<WorkerName, Worker>,
}

/// What runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Container image, for Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A file, folder or archive, for a host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Command and arguments; absent: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

/// An artifact by its content, wherever its bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Of a file's or an archive's bytes, of a folder's listing.
    pub sha256: Digest,
}

/// One key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretKey {
    /// Name of the Secret.
    pub secret: String,
    /// Key in it.
    pub key: String,
}

/// Where the memory is and the migrations that made its schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Where the address of the database is kept.
    pub database: SecretKey,
    /// In order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrations: Vec<MigrationRef>,
}

/// One migration by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationRef {
    /// Number and name: `0001_episodes`.
    pub name: String,
    /// SHA-256 of the up script.
    pub up: Digest,
    /// SHA-256 of the down script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Digest>,
    /// SHA-256 of the verify script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Digest>,
}

/// How the process is run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// Port that the agent listens on; absent: no Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Environment variables, with the environment's merged beneath.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// Requests and limits, as in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Value>,
    /// Probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Strategic merge over the pod template that is generated, as declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Value>,
    /// The pod template of a Deployment of the user's own, in place of one that is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ForeignTemplate>,
    /// ServiceAccount that the pods run as, made with the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// On a host: old and new workers may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<bool>,
}

/// The pod template of a Deployment of the user's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignTemplate {
    /// The container that is the agent.
    pub container: String,
    /// `spec.template` as it was declared.
    pub template: Value,
}

/// Where the value of an environment variable comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EnvValue {
    /// The value itself.
    Plain(String),
    /// A key of a Secret.
    Secret(SecretKey),
    /// A field of the pod, as in `fieldRef`.
    Field {
        /// Its path: `metadata.name`.
        field: String,
    },
}

/// The probes of a process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Restarted when this fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Probe>,
    /// No traffic while this fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Probe>,
    /// The others wait for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
}

/// A path to get over HTTP on the agent's port, or a whole probe as in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Probe {
    /// A path.
    Path(String),
    /// A container's probe.
    Whole(serde_json::Map<String, Value>),
}

/// A further process of the same release, without traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Worker {
    /// Command and arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Further environment variables, over the workload's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// Requests and limits, as in a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Value>,
    /// Probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Strategic merge over the pod template that is generated, as declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Value>,
}

/// The bytes are no release that this version can use.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRelease {
    /// Not the canonical form, or fields of a newer format.
    #[error("the canonical form cannot be read")]
    Form(#[source] serde_json::Error),
    /// A format of a newer version.
    #[error("format {0} is newer than this version of Backstay reads ({FORMAT})")]
    Newer(u32),
    /// Read and written again, it is not the same bytes.
    #[error("the bytes are not in canonical form (RFC 8785)")]
    NotCanonical,
    /// A value that JSON canonicalisation cannot carry.
    #[error(transparent)]
    Number(#[from] canonical::NotCanonical),
    /// A prompt is missing, or its content does not have the digest it is named by.
    #[error("the prompt `{0}` is missing or has another digest")]
    Prompt(String),
}

// === impl Release ===

impl Release {
    /// Makes the release that `spec` and its prompts are.
    ///
    /// # Errors
    ///
    /// When a number cannot be carried exactly, or a prompt lacks the digest that `spec` gives it.
    pub fn new(spec: ReleaseSpec, prompts: BTreeMap<String, Arc<[u8]>>) -> Result<Self, InvalidRelease> {
        for (name, digest) in &spec.prompts {
            if prompts.get(name).is_none_or(|bytes| Digest::of(bytes) != *digest) {
                return Err(InvalidRelease::Prompt(name.clone()));
            }
        }
        if let Some(extra) = prompts.keys().find(|name| !spec.prompts.contains_key(*name)) {
            return Err(InvalidRelease::Prompt(extra.clone()));
        }
        let value = serde_json::to_value(&spec).map_err(InvalidRelease::Form)?;
        let canonical: Arc<[u8]> = canonical::to_bytes(&value)?.into();
        Ok(Self { id: ReleaseId::of(&canonical), canonical, spec, prompts })
    }

    /// Reads a release back from its canonical form and prompts, as a ledger or a ConfigMap holds them.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly what this version would have written for that content.
    pub fn from_parts(canonical: &[u8], prompts: BTreeMap<String, Arc<[u8]>>) -> Result<Self, InvalidRelease> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(canonical).map_err(InvalidRelease::Form)?;
        if format > FORMAT {
            return Err(InvalidRelease::Newer(format));
        }
        let spec = serde_json::from_slice(canonical).map_err(InvalidRelease::Form)?;
        let release = Self::new(spec, prompts)?;
        if *release.canonical == *canonical { Ok(release) } else { Err(InvalidRelease::NotCanonical) }
    }

    /// The agent's folder, the same on every target: `release.json`, `prompts/<name>.md`, `models.json`,
    /// `tools/<name>.json`, `memory.json`, `config.json`, by path.
    pub fn files(&self) -> BTreeMap<String, Arc<[u8]>> {
        let mut files = BTreeMap::from([("release.json".to_owned(), Arc::clone(&self.canonical))]);
        files.extend(self.prompts.iter().map(|(name, bytes)| (format!("prompts/{name}.md"), Arc::clone(bytes))));
        let mut json = |path: String, value: Value| {
            let bytes = serde_json::to_vec_pretty(&value).unwrap_or_default();
            files.insert(path, bytes.into());
        };
        json("models.json".to_owned(), serde_json::json!(self.spec.models));
        for (name, tool) in &self.spec.tools {
            json(format!("tools/{name}.json"), tool.clone());
        }
        if let Some(memory) = &self.spec.memory {
            json("memory.json".to_owned(), serde_json::json!(memory));
        }
        if let Some(config) = &self.spec.config {
            json("config.json".to_owned(), config.clone());
        }
        files
    }
}
