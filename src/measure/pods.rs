//! The instances of the two releases: where they are, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::told::because;
use crate::judge::{Arms, LAUNCH_ANNOTATION, NoData, is_ready};
use crate::model::{Digest, LiveObject, ReleaseId, Timestamp};
use crate::proxy::{Address, load_table};
use crate::render::{RELEASE_ID_ANNOTATION, RELEASE_LABEL};
use crate::rollout::Question;

/// Instances of one agent that are looked at.
const MOST: usize = 1000;
/// Where figures are, unless a Pod says otherwise.
const PATH: &str = "/metrics";
/// Annotations by which a Pod says where its figures are, as Prometheus' own examples have them.
const PATH_ANNOTATION: &str = "prometheus.io/path";
const PORT_ANNOTATION: &str = "prometheus.io/port";
/// Annotation of a Pod of a host: the port that it was leased.
const LEASED_ANNOTATION: &str = "backstay.dev/port";

/// How Pods are read.
#[derive(Clone)]
pub(super) struct Pods {
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
    pub(super) fn of(&self, question: &Question) -> Result<Arms<Vec<Instance>>, NoData> {
        if question.pods.len() > MOST {
            return Err(because(format!("the agent has more than {MOST} Pods")));
        }
        let sockets = self.sockets();
        Ok(question.releases.map(|release| {
            let own = question.pods.iter().filter(|pod| is_ready(&pod.body) && is_of(pod, &release));
            own.map(|pod| self.instance(pod, &sockets)).collect()
        }))
    }

    /// Where the instances of a host listen, by their names.
    fn sockets(&self) -> BTreeMap<String, Address> {
        let Some(Ok(loaded)) = self.table.as_deref().map(load_table) else { return BTreeMap::new() };
        let arms = loaded.table.agents.into_values().flat_map(|agent| agent.arms);
        arms.flat_map(|arm| arm.instances).map(|instance| (instance.id, instance.address)).collect()
    }

    fn instance(&self, pod: &LiveObject, sockets: &BTreeMap<String, Address>) -> Instance {
        let name = pod.object.name.clone();
        let container = container(pod);
        let said = |key: &str| pod.annotation(key);
        // On a host a port of the repository's choice could be anybody's.
        let at = if self.table.is_some() {
            let leased = said(LEASED_ANNOTATION).and_then(|port| port.parse::<u16>().ok());
            leased.map(|port| Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))).or(sockets.get(&name).cloned())
        } else {
            let port = match said(PORT_ANNOTATION) {
                Some(port) => port.parse::<u16>().ok(),
                None => container.and_then(port),
            };
            let ip = text(&pod.body, "/status/podIP").and_then(|ip| ip.parse().ok());
            ip.zip(port).map(|(ip, port)| Address::Tcp(SocketAddr::new(ip, port)))
        };
        let path = said(PATH_ANNOTATION).filter(|path| path.starts_with('/')).unwrap_or(PATH).to_owned();
        let probes = ["/livenessProbe", "/readinessProbe", "/startupProbe"].into_iter();
        let probed = probes.filter_map(|probe| text(container?, &format!("{probe}/httpGet/path")));
        let probed = probed.map(|path| path.split('?').next().unwrap_or_default().to_owned());
        let probes = probed.chain([path.clone()]).collect();
        Instance { name, started: started(pod), at, path, probes }
    }
}

fn text<'v>(value: &'v Value, at: &str) -> Option<&'v str> {
    value.pointer(at).and_then(Value::as_str)
}

fn list<'v>(value: &'v Value, at: &str) -> &'v [Value] {
    value.pointer(at).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_of(pod: &LiveObject, release: &ReleaseId) -> bool {
    match pod.annotation(RELEASE_ID_ANNOTATION) {
        Some(id) => id.parse::<Digest>().is_ok_and(|id| ReleaseId::from(id) == *release),
        None => pod.label(RELEASE_LABEL).is_some_and(|id| id == release.short()),
    }
}

/// The agent's own container: named `agent`, else the first.
fn container(pod: &LiveObject) -> Option<&Value> {
    let containers = list(&pod.body, "/spec/containers");
    containers.iter().find(|container| text(container, "/name") == Some("agent")).or_else(|| containers.first())
}

/// The port named `metrics`, else the first.
fn port(container: &Value) -> Option<u16> {
    let ports = list(container, "/ports");
    let port = ports.iter().find(|port| text(port, "/name") == Some("metrics")).or_else(|| ports.first())?;
    port.get("containerPort")?.as_u64().and_then(|port| port.try_into().ok())
}

/// When the process began that answers now.
fn started(pod: &LiveObject) -> Option<Timestamp> {
    let name = container(pod).and_then(|container| text(container, "/name"));
    let own = list(&pod.body, "/status/containerStatuses").iter().find(|one| text(one, "/name") == name);
    let time = |text: &str| text.parse::<Timestamp>().ok();
    let running = own.and_then(|one| text(one, "/state/running/startedAt")).and_then(time);
    let launched =
        || pod.annotation(LAUNCH_ANNOTATION)?.parse().ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    running.or_else(launched).or_else(|| text(&pod.body, "/status/startTime").and_then(time))
}
