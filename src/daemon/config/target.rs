//! Where an environment runs: a namespace of a cluster, or this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::value::{self, Allowance, Label, Period, PortRange};
use crate::desired::TargetKind;
use crate::model::EnvironmentName;
use crate::observe::Cluster;
use crate::plan::GatePolicy;
use crate::reconcile::PruneLimits;

/// Binds an environment to the place where it runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct Target {
    /// The environment: the stem of its file in `environments/`.
    pub environment: EnvironmentName,
    /// Where it runs.
    pub at: At,
    /// Writes nothing at all: plans, drift and status only.
    pub observe: bool,
    /// How much may be pruned at once before a person is asked.
    pub prune: Prune,
}

/// A [`Target`] as it is written: exactly one of its places is given.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline, extend("oneOf" = [{"required": ["kubernetes"]}, {"required": ["host"]}]))]
pub(super) struct Written {
    /// The environment: the stem of its file in `environments/`.
    #[schemars(with = "value::EnvironmentText")]
    environment: EnvironmentName,
    /// A namespace of a cluster.
    #[serde(default)]
    kubernetes: Option<Kubernetes>,
    /// This machine: `{}`.
    #[serde(default)]
    host: Option<Host>,
    /// Writes nothing at all: plans, drift and status only.
    #[serde(default)]
    observe: bool,
    /// How much may be pruned at once before a person is asked.
    #[serde(default)]
    prune: Prune,
}

/// Where an environment runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A namespace of a cluster.
    Kubernetes(Kubernetes),
    /// This machine.
    Host(Host),
}

/// Where an environment runs, to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// A namespace of a cluster.
    Kubernetes(&'a Kubernetes),
    /// This machine.
    Host(&'a Host),
}

/// This machine, and what agents may use of it.
///
/// What is named here is never named in the repository: who may push there gets no more of the machine than this.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Host {
    /// Names of the machines that serve it; none: every machine whose daemon reads this file.
    #[serde(default)]
    pub names: Vec<Label>,
    /// The folder of secrets, each key in a file of its own: `<secret>/<key>`. Absent: agents have none.
    #[serde(default)]
    pub secrets: Option<PathBuf>,
    /// The folder that artifacts from outside the repository come from. Absent: none do.
    #[serde(default)]
    pub artifacts: Option<PathBuf>,
    /// Programs that a command without `/` may name: `python3 = "/usr/bin/python3"`.
    #[serde(default)]
    pub interpreters: BTreeMap<String, PathBuf>,
    /// Ports for agents, `first-last`. They must lie outside `net.ipv4.ip_local_port_range`: a connection of anybody's
    /// may take any port of that.
    #[serde(default = "value::default_ports")]
    pub ports: PortRange,
    /// How long the instances of the release before are kept, for an instant way back.
    #[serde(default = "value::default_keep_old")]
    pub keep_old: Period,
    /// Who starts the processes of agents.
    #[serde(default)]
    pub launcher: Launcher,
    /// The program that holds an agent's process; absent: `backstay-keeper` beside the running program.
    #[serde(default)]
    pub keeper: Option<PathBuf>,
}

/// Who starts the processes of agents on a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Launcher {
    /// The daemon, with its own account: nothing keeps agents from each other.
    #[default]
    Fork,
    /// systemd, as a unit for each instance with an account of its own: `backstay host enrol AGENT` lets an agent run.
    Systemd,
}

/// A namespace of a cluster, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Kubernetes {
    /// The namespace; no two environments share one.
    pub namespace: Label,
    /// The account that is impersonated for every write; absent: the daemon's own.
    #[serde(default)]
    pub service_account: Option<Label>,
    /// The context of the kubeconfig; absent: the cluster that the daemon runs in, or the current context.
    #[serde(default)]
    pub context: Option<String>,
    /// A kubeconfig; absent: `KUBECONFIG` or `~/.kube/config`.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// What the policy gate lets through beyond its defaults.
    #[serde(default)]
    pub allow: Vec<Allowance>,
    /// Agents that are worked on at the same time, at most.
    #[serde(default = "value::default_in_flight")]
    #[schemars(range(min = 1, max = 1024))]
    pub in_flight: u32,
}

/// How much may be pruned at once: beyond either limit it stops and asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Prune {
    /// Objects.
    #[serde(default = "value::default_max_objects")]
    pub max_objects: u32,
    /// Of all objects of the environment, in percent.
    #[serde(default = "value::default_max_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub max_percent: u32,
}

// === impl Target ===

impl Target {
    /// Whether it is this machine.
    pub fn is_host(&self) -> bool {
        matches!(self.place(), Place::Host(_))
    }

    /// Where it runs.
    pub fn place(&self) -> Place<'_> {
        match &self.at {
            At::Kubernetes(kubernetes) => Place::Kubernetes(kubernetes),
            At::Host(host) => Place::Host(host),
        }
    }

    /// The same, without what is said of it.
    pub fn kind(&self) -> TargetKind {
        match &self.at {
            At::Kubernetes(_) => TargetKind::Kubernetes,
            At::Host(_) => TargetKind::Host,
        }
    }

    /// The namespace of its objects: on a host, the environment's name.
    pub fn namespace(&self) -> &str {
        match &self.at {
            At::Kubernetes(kubernetes) => kubernetes.namespace.as_str(),
            At::Host(_) => self.environment.as_str(),
        }
    }

    /// The policy gate: the namespace, and what is allowed here beyond the defaults.
    ///
    /// The names of Backstay's own objects are not among what it knows.
    pub fn gate(&self) -> GatePolicy {
        match &self.at {
            At::Kubernetes(kubernetes) => kubernetes.gate(),
            At::Host(_) => GatePolicy::of(self.namespace()),
        }
    }

    /// Agents that are worked on at the same time, at most.
    pub fn in_flight(&self) -> usize {
        match &self.at {
            At::Kubernetes(kubernetes) => kubernetes.in_flight as usize,
            At::Host(_) => value::default_in_flight() as usize,
        }
    }
}

impl TryFrom<Written> for Target {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { environment, kubernetes, host, observe, prune } = written;
        let at = match (kubernetes, host) {
            (Some(kubernetes), None) => At::Kubernetes(kubernetes),
            (None, Some(host)) => At::Host(host),
            (Some(_), Some(_)) | (None, None) => return Err("a target has either `kubernetes` or `host`"),
        };
        Ok(Self { environment, at, observe, prune })
    }
}

// === impl Host ===

impl Default for Host {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            secrets: None,
            artifacts: None,
            interpreters: BTreeMap::new(),
            ports: value::default_ports(),
            keep_old: value::default_keep_old(),
            launcher: Launcher::default(),
            keeper: None,
        }
    }
}

impl Host {
    /// Whether a machine of that name serves it.
    pub fn is_served_by(&self, machine: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name.as_str() == machine)
    }
}

// === impl Kubernetes ===

impl Kubernetes {
    /// The policy gate of this target: its namespace, what is allowed here, and the account that we impersonate.
    ///
    /// The names of Backstay's own objects are not among what it knows.
    pub fn gate(&self) -> GatePolicy {
        let mut gate = GatePolicy::of(self.namespace.as_str());
        gate.accounts.extend(self.service_account.iter().map(Label::to_string));
        for allowance in &self.allow {
            match allowance.clone() {
                Allowance::Kind(kind) => drop(gate.kinds.insert(kind)),
                Allowance::HostNamespaces => gate.host_namespaces = true,
                Allowance::HostPaths => gate.host_paths = true,
                Allowance::Privileged => gate.privileged = true,
                Allowance::Capability(name) => drop(gate.capabilities.insert(name)),
                Allowance::ServiceType(kind) => drop(gate.service_types.insert(kind)),
            }
        }
        gate
    }

    /// How its API server is reached: the configuration is the daemon's own, so its kubeconfig may name programs.
    pub fn cluster(&self) -> Cluster {
        Cluster { kubeconfig: self.kubeconfig.clone(), context: self.context.clone(), own: true }
    }
}

// === impl Prune ===

impl Prune {
    /// The limits in the terms of the core.
    pub fn limits(&self) -> PruneLimits {
        PruneLimits { max_objects: self.max_objects as usize, max_percent: self.max_percent as usize }
    }
}
