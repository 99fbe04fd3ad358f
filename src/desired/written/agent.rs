//! `agents/<name>/agent.yaml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ApiVersion, Keyed, Rollout, SecretRef};
use crate::desired::read::{
    Address, ComponentName, Day, Image, ObjectName, Percent, Period, Quantity, RepoPath, Sha256Text, VariableName,
};
use crate::model::{AgentName, WorkerName};

/// One deployable AI agent: `agents/<name>/agent.yaml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "what the schema has checked is not looked at again")]
pub(in crate::desired) struct Agent {
    /// Version of this format.
    api_version: ApiVersion,
    /// Always `Agent`.
    kind: AgentKind,
    /// Its name.
    pub(in crate::desired) metadata: AgentMetadata,
    /// What it is; the defaults of `backstay.yaml` lie beneath, an environment's overlay lies above.
    pub(in crate::desired) spec: AgentSpec,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
enum AgentKind {
    Agent,
}

/// Names an agent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct AgentMetadata {
    /// The name of its folder.
    pub(in crate::desired) name: AgentName,
    /// The name it had before, so that a rename is one plan instead of a removal and an addition.
    pub(in crate::desired) renamed_from: Option<AgentName>,
}

/// What an agent is: its release, and the settings beside it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct AgentSpec {
    /// What runs.
    #[serde(default)]
    pub(in crate::desired) code: Code,
    /// Prompts by name: `prompts/<name>.md` in the agent's folder of components.
    #[serde(default)]
    pub(in crate::desired) prompts: Keyed<ComponentName, Prompt>,
    /// Models by role.
    #[serde(default)]
    pub(in crate::desired) models: Keyed<ComponentName, Model>,
    /// MCP tools: by name, the file with its definition.
    #[serde(default)]
    pub(in crate::desired) tools: Keyed<ComponentName, RepoPath>,
    /// The agent's database and the migrations of its schema.
    pub(in crate::desired) memory: Option<Memory>,
    /// The agent's own settings, given to it as `config.json`.
    pub(in crate::desired) config: Option<Map<String, Value>>,
    /// How the process is run.
    #[serde(default)]
    pub(in crate::desired) workload: Workload,
    /// Further processes of the same release, without traffic.
    #[serde(default)]
    pub(in crate::desired) workers: Keyed<WorkerName, Worker>,
    /// Pods of the agent; not part of the release, as all that follows.
    #[schemars(range(max = 10000))]
    pub(in crate::desired) replicas: Option<u32>,
    /// How many old releases are kept.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::desired) history: Option<u32>,
    /// How long a release may take to become healthy.
    pub(in crate::desired) progress_deadline: Option<Period>,
    /// How pods are replaced.
    pub(in crate::desired) rolling: Option<Rolling>,
    /// How many pods a drain of nodes leaves.
    pub(in crate::desired) disruption_budget: Option<DisruptionBudget>,
    /// Agents that must be Ready first.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true))]
    pub(in crate::desired) depends_on: Vec<AgentName>,
    /// How requests in flight are ended.
    pub(in crate::desired) drain: Option<Drain>,
    /// A HorizontalPodAutoscaler (`autoscaling/v2`), without `scaleTargetRef`.
    pub(in crate::desired) autoscaling: Option<Autoscaling>,
    /// How requests from outside reach the agent.
    pub(in crate::desired) route: Option<Route>,
    /// How a new release gets the traffic.
    pub(in crate::desired) rollout: Option<Rollout>,
}

/// What runs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Code {
    /// Container image, for Kubernetes: by digest, or by a tag other than `latest` where the environment allows tags.
    pub(in crate::desired) image: Option<Image>,
    /// A file or folder of the repository, or an archive, for a host.
    pub(in crate::desired) artifact: Option<Artifact>,
    /// Command and arguments, instead of the image's own.
    #[schemars(length(min = 1))]
    pub(in crate::desired) command: Option<Vec<String>>,
}

/// A file or folder of the repository, or an archive.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(in crate::desired) enum Artifact {
    /// A file or a folder.
    Path {
        /// In the repository; with `sha256`, beneath the folder of artifacts that the daemon's configuration names.
        path: RepoPath,
        /// Its digest: of a file's bytes, of a folder's listing.
        sha256: Option<Sha256Text>,
    },
    /// A single binary or a `tar.gz` elsewhere.
    Url {
        /// Where it is fetched, over HTTPS.
        url: Address,
        /// Digest of its bytes.
        sha256: Sha256Text,
    },
}

/// A prompt: a file, several that are joined by a blank line, or a file with a syntax.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::desired) enum Prompt {
    /// Opaque bytes.
    Files(OneOrMany),
    /// Checked by its syntax.
    Checked(CheckedPrompt),
}

/// A prompt whose variables are checked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct CheckedPrompt {
    /// One file, or several that are joined by a blank line.
    pub(in crate::desired) file: OneOrMany,
    /// How variables are written in it; absent: opaque bytes.
    pub(in crate::desired) syntax: Option<Syntax>,
    /// The variables that the agent's code fills in: all of them, and no other.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true))]
    pub(in crate::desired) variables: Vec<VariableName>,
}

/// How variables are written in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::desired) enum Syntax {
    /// `{{name}}`, sections and comments included.
    Mustache,
    /// `{{ name }}`, with filters; no statements.
    Jinja,
    /// `{name}`, as Python's `format`.
    Format,
    /// `$name` and `${name}`.
    Dollar,
}

/// One path or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::desired) enum OneOrMany {
    /// One.
    One(RepoPath),
    /// Several, in order.
    Many(#[schemars(length(min = 1))] Vec<RepoPath>),
}

/// A model: an entry of the catalogue (`use`) with changes, or written out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "merged over the catalogue's entry as a tree, and read as one of those")]
pub(in crate::desired) struct Model {
    /// Entry of `shared/models.yaml` that the rest is merged over.
    pub(in crate::desired) r#use: Option<ComponentName>,
    /// Who serves it.
    #[schemars(length(min = 1))]
    provider: Option<String>,
    /// Its name there.
    #[schemars(length(min = 1))]
    model: Option<String>,
    /// Where it is served.
    endpoint: Option<Address>,
    /// The credential; absent where the workload's own identity is enough.
    credentials: Option<SecretRef>,
    /// Given to the provider with each request.
    parameters: Option<Map<String, Value>>,
    /// When the provider takes it away.
    retires: Option<Day>,
    /// Entries of the catalogue to try when this one fails, in order.
    #[serde(default)]
    #[schemars(extend("uniqueItems" = true))]
    pub(in crate::desired) fallbacks: Vec<ComponentName>,
}

/// The agent's database and the migrations of its schema.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Memory {
    /// Where its address is kept.
    pub(in crate::desired) database: SecretRef,
    /// Folder of `<number>_<name>.up.sql`, `.down.sql` and `.verify.sql`.
    pub(in crate::desired) migrations: Option<RepoPath>,
}

/// How the process is run.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct Workload {
    /// Port that the agent listens on; absent: no Service.
    #[schemars(range(min = 1))]
    pub(in crate::desired) port: Option<u16>,
    /// Environment variables; the environment's `variables.yaml` lies beneath.
    #[serde(default)]
    pub(in crate::desired) env: Keyed<VariableName, Variable>,
    /// Requests and limits, as in a container.
    #[schemars(with = "Option<Resources>")]
    pub(in crate::desired) resources: Option<Value>,
    /// Probes.
    pub(in crate::desired) health: Option<Health>,
    /// Strategic merge over the pod template that is generated; the agent's own container is `agent`.
    pub(in crate::desired) pod_template: Option<Map<String, Value>>,
    /// A Deployment of your own, instead: its pod template is run, with the agent's components put in.
    pub(in crate::desired) manifest: Option<RepoPath>,
    /// The container of `manifest` that is the agent.
    pub(in crate::desired) container: Option<ObjectName>,
    /// ServiceAccount that the pods run as, made with the agent.
    pub(in crate::desired) service_account: Option<ObjectName>,
    /// On a host: old and new workers may run at once.
    pub(in crate::desired) overlap: Option<bool>,
}

/// A further process of the same release, without traffic.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct Worker {
    /// Command and arguments.
    #[schemars(length(min = 1))]
    pub(in crate::desired) command: Option<Vec<String>>,
    /// Further environment variables, over the workload's.
    #[serde(default)]
    pub(in crate::desired) env: Keyed<VariableName, Variable>,
    /// Requests and limits, as in a container.
    #[schemars(with = "Option<Resources>")]
    pub(in crate::desired) resources: Option<Value>,
    /// Probes.
    pub(in crate::desired) health: Option<Health>,
    /// Strategic merge over the pod template that is generated.
    pub(in crate::desired) pod_template: Option<Map<String, Value>>,
    /// Pods of the worker; not part of the release.
    #[schemars(range(max = 10000))]
    pub(in crate::desired) replicas: Option<u32>,
}

/// The value of an environment variable, or where it comes from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::desired) enum Variable {
    /// The value itself: text.
    Plain(String),
    /// A key of a Secret.
    Secret(SecretRef),
    /// A field of the pod.
    Field(FieldRef),
}

/// A field of the pod.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct FieldRef {
    /// Its path, as in `fieldRef`: `metadata.name`.
    #[schemars(length(min = 1))]
    pub(in crate::desired) field: String,
}

/// Requests and limits, as in a container.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
struct Resources {
    /// What the scheduler sets aside.
    requests: Option<BTreeMap<String, Amount>>,
    /// What the process may use at most.
    limits: Option<BTreeMap<String, Amount>>,
    /// Claims of dynamic resources.
    claims: Option<Vec<Map<String, Value>>>,
}

/// A quantity, as text or as a number.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "kept as it is declared")]
enum Amount {
    /// `500m`.
    Text(Quantity),
    /// `2`.
    Number(#[schemars(range(min = 0))] f64),
}

/// Probes of a process.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Health {
    /// Restarted when this fails.
    pub(in crate::desired) live: Option<Probe>,
    /// No traffic while this fails.
    pub(in crate::desired) ready: Option<Probe>,
    /// The others wait for this.
    pub(in crate::desired) startup: Option<Probe>,
}

/// A path to get over HTTP on the agent's port, or a whole probe as in a container.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::desired) enum Probe {
    /// A path.
    Path(String),
    /// A whole probe.
    Whole(#[schemars(with = "WholeProbe")] Map<String, Value>),
}

/// A container's probe (`core/v1`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
struct WholeProbe {
    /// A command in the container.
    exec: Option<Exec>,
    /// A request over HTTP.
    http_get: Option<HttpGet>,
    /// A connection.
    tcp_socket: Option<TcpSocket>,
    /// The gRPC health service.
    grpc: Option<Grpc>,
    /// Before the first try.
    initial_delay_seconds: Option<u32>,
    /// Between tries.
    #[schemars(range(min = 1))]
    period_seconds: Option<u32>,
    /// For one try.
    #[schemars(range(min = 1))]
    timeout_seconds: Option<u32>,
    /// Tries in a row that make it healthy.
    #[schemars(range(min = 1))]
    success_threshold: Option<u32>,
    /// Tries in a row that make it unhealthy.
    #[schemars(range(min = 1))]
    failure_threshold: Option<u32>,
    /// Grace of the pod when this probe fails.
    #[schemars(range(min = 1))]
    termination_grace_period_seconds: Option<u32>,
}

/// A command in the container.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
struct Exec {
    /// Command and arguments.
    #[schemars(length(min = 1))]
    command: Vec<String>,
}

/// A request over HTTP.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
struct HttpGet {
    /// Path.
    path: Option<String>,
    /// Port.
    port: PortRef,
    /// Host, instead of the pod's address.
    host: Option<String>,
    /// `HTTP` or `HTTPS`.
    scheme: Option<Scheme>,
    /// Headers.
    http_headers: Option<Vec<HttpHeader>>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
enum Scheme {
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "HTTPS")]
    Https,
}

/// One header.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
struct HttpHeader {
    /// Its name.
    name: String,
    /// Its value.
    value: String,
}

/// A connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
struct TcpSocket {
    /// Port.
    port: PortRef,
    /// Host, instead of the pod's address.
    host: Option<String>,
}

/// The gRPC health service.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
struct Grpc {
    /// Port.
    #[schemars(range(min = 1))]
    port: u16,
    /// Service to ask for.
    service: Option<String>,
}

/// A port's number or name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "kept as it is declared")]
enum PortRef {
    /// Its number.
    Number(#[schemars(range(min = 1))] u16),
    /// Its name.
    Name(#[schemars(length(min = 1))] String),
}

/// A number of pods or a share of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::desired) enum CountOrShare {
    /// Pods.
    Count(u32),
    /// Of all.
    Share(Percent),
}

/// How pods are replaced, as in a Deployment.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::desired) struct Rolling {
    /// Pods above the wanted number.
    pub(in crate::desired) max_surge: Option<CountOrShare>,
    /// Pods below the wanted number.
    pub(in crate::desired) max_unavailable: Option<CountOrShare>,
}

/// How many pods a drain of nodes leaves: one of the two.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
#[expect(dead_code, reason = "kept as it is declared")]
pub(in crate::desired) struct DisruptionBudget {
    /// Pods that stay.
    min_available: Option<CountOrShare>,
    /// Pods that may be missing.
    max_unavailable: Option<CountOrShare>,
}

/// A HorizontalPodAutoscaler (`autoscaling/v2`), without `scaleTargetRef`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "kept as it is declared")]
pub(in crate::desired) struct Autoscaling {
    /// Pods at least.
    #[schemars(range(min = 1))]
    pub(in crate::desired) min_replicas: Option<u32>,
    /// Pods at most.
    #[schemars(range(min = 1))]
    pub(in crate::desired) max_replicas: u32,
    /// What it looks at.
    metrics: Option<Vec<Map<String, Value>>>,
    /// How fast it acts.
    behavior: Option<Map<String, Value>>,
}

/// How requests in flight are ended.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Drain {
    /// Whether they may finish.
    pub(in crate::desired) mode: Option<DrainMode>,
    /// How long.
    pub(in crate::desired) max: Option<Period>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::desired) enum DrainMode {
    Finish,
    Cut,
}

/// How requests from outside reach the agent.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Route {
    /// Host names.
    #[schemars(length(min = 1))]
    pub(in crate::desired) hosts: Vec<String>,
    /// Path prefix.
    pub(in crate::desired) path: Option<String>,
    /// The Gateway.
    pub(in crate::desired) gateway: Option<Gateway>,
}

/// A Gateway (`gateway.networking.k8s.io`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::desired) struct Gateway {
    /// Its name.
    pub(in crate::desired) name: ObjectName,
    /// Its namespace.
    pub(in crate::desired) namespace: Option<ObjectName>,
}
