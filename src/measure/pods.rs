//! The instances of the two releases: where they are, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};

use super::told::{because, quote};
use crate::judge::{Arms, LAUNCH_ANNOTATION, NoData};
use crate::model::{AgentName, Digest, ReleaseId, Timestamp};
use crate::proxy::{Address, load_table};
use crate::render::{AGENT_LABEL, PROCESS_LABEL, RELEASE_ID_ANNOTATION, RELEASE_LABEL};

/// Instances of one agent that are looked at.
const MOST: u32 = 1000;
/// Where figures are, unless a Pod says otherwise.
const PATH: &str = "/metrics";
/// Annotations by which a Pod says where its figures are, as Prometheus' own examples have them.
const PATH_ANNOTATION: &str = "prometheus.io/path";
const PORT_ANNOTATION: &str = "prometheus.io/port";
/// Annotation of a Pod of a host: the port that it was leased.
const LEASED_ANNOTATION: &str = "backstay.dev/port";

/// Where Pods are told of.
#[derive(Clone)]
pub(super) struct Pods {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// Of a host: the proxy's table, which knows the sockets of its instances.
    pub(super) table: Option<PathBuf>,
}

/// One ready instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instance {
    pub(super) name: String,
    /// When its process started, where that is known.
    pub(super) started: Option<Timestamp>,
    /// Where its figures are; nothing: it has no port.
    pub(super) at: Option<Address>,
    pub(super) path: String,
    /// Paths that only probes and scrapes ask for.
    pub(super) probes: BTreeSet<String>,
}

// === impl Pods ===

impl Pods {
    /// The ready instances of both releases that answer requests.
    pub(super) async fn of(
        &self,
        agent: &AgentName,
        releases: &Arms<ReleaseId>,
    ) -> Result<Arms<Vec<Instance>>, NoData> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let asked = ListParams::default().labels(&format!("{AGENT_LABEL}={agent},{PROCESS_LABEL}=main")).limit(MOST);
        let listed = pods.list(&asked).await;
        let listed = listed.map_err(|error| because(format!("cannot list the Pods: {}", quote(&error.to_string()))))?;
        if listed.metadata.continue_.as_deref().is_some_and(|more| !more.is_empty()) {
            return Err(because(format!("the agent has more than {MOST} Pods")));
        }
        let sockets = self.sockets();
        Ok(releases.map(|release| {
            let own = listed.items.iter().filter(|pod| is_ready(pod) && is_of(pod, &release));
            own.map(|pod| self.instance(pod, &sockets)).collect()
        }))
    }

    /// Where the instances of a host listen, by their names.
    fn sockets(&self) -> BTreeMap<String, Address> {
        let Some(Ok(loaded)) = self.table.as_deref().map(load_table) else { return BTreeMap::new() };
        let arms = loaded.table.agents.into_values().flat_map(|agent| agent.arms);
        arms.flat_map(|arm| arm.instances).map(|instance| (instance.id, instance.address)).collect()
    }

    fn instance(&self, pod: &Pod, sockets: &BTreeMap<String, Address>) -> Instance {
        let name = pod.name_any();
        let container = container(pod);
        let said = |key: &str| pod.annotations().get(key);
        // On a host a port of the repository's choice could be anybody's.
        let at = if self.table.is_some() {
            let leased = said(LEASED_ANNOTATION).and_then(|port| port.parse::<u16>().ok());
            leased.map(|port| Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))).or(sockets.get(&name).cloned())
        } else {
            let port = match said(PORT_ANNOTATION) {
                Some(port) => port.parse::<u16>().ok(),
                None => container.and_then(port),
            };
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
            ip.zip(port).map(|(ip, port)| Address::Tcp(SocketAddr::new(ip, port)))
        };
        let path = said(PATH_ANNOTATION).filter(|path| path.starts_with('/')).map_or(PATH, String::as_str).to_owned();
        let probes =
            container.into_iter().flat_map(|one| [&one.liveness_probe, &one.readiness_probe, &one.startup_probe]);
        let probed = probes.flatten().filter_map(|probe| probe.http_get.as_ref()?.path.clone());
        let probes =
            probed.map(|path| path.split('?').next().unwrap_or_default().to_owned()).chain([path.clone()]).collect();
        Instance { name, started: started(pod), at, path, probes }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

fn is_of(pod: &Pod, release: &ReleaseId) -> bool {
    match pod.annotations().get(RELEASE_ID_ANNOTATION) {
        Some(id) => id.parse::<Digest>().is_ok_and(|id| ReleaseId::from(id) == *release),
        None => pod.labels().get(RELEASE_LABEL).is_some_and(|id| *id == release.short()),
    }
}

/// The agent's own container: named `agent`, else the first.
fn container(pod: &Pod) -> Option<&Container> {
    let containers = &pod.spec.as_ref()?.containers;
    containers.iter().find(|container| container.name == "agent").or_else(|| containers.first())
}

/// The port named `metrics`, else the first.
fn port(container: &Container) -> Option<u16> {
    let ports = container.ports.as_deref().unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some("metrics")).or_else(|| ports.first())?;
    u16::try_from(port.container_port).ok()
}

/// When the process began that answers now.
fn started(pod: &Pod) -> Option<Timestamp> {
    let name = container(pod).map(|container| container.name.as_str());
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let own = containers.into_iter().flatten().find(|one| Some(one.name.as_str()) == name);
    let running = own.and_then(|one| one.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    let launched =
        || pod.annotations().get(LAUNCH_ANNOTATION)?.parse().ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    running.map(|time| time.0).or_else(launched).or_else(|| Some(status?.start_time.as_ref()?.0))
}
