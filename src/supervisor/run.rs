//! The task of a host: it hears its API, its instances and the clock, and does what was decided.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::care::{GLANCE, Stamp};
use super::decide::{Deed, Known, Main, clear, decide, next_end};
use super::instance::{Handle, Report, Said, Seen, Trouble};
use super::launch;
use super::launcher::Launcher;
use super::ports::Ports;
use super::view::{KEPT_UNTIL, LAUNCH, ORDINAL, PORT, Process, RETIRED, View, container, template_hash};
use super::{status, table};
use crate::judge::HostReason;
use crate::keeper::folder;
use crate::ledger::{Clock, Role};
use crate::model::{AgentName, ReleaseId, Timestamp};
use crate::proxy::{self, Client as Proxy, Table};
use crate::render::{AGENT_LABEL, MANAGED_BY_LABEL};

/// Who writes what the supervisor writes.
const MANAGER: &str = "backstay-supervisor";
/// What is heard within this time is decided about together.
const TOGETHER: Duration = Duration::from_millis(10);
/// Between two looks at what tells nothing: what was drained, the table's file, a proxy that was away.
const LOOK: Duration = Duration::from_millis(250);
/// How long a term may take to hear of every instance that serves.
const FIRST_LOOKS: Duration = Duration::from_secs(15);
/// How long open requests of a retired instance may last where the agent does not say.
const DRAIN: Duration = Duration::from_mins(10);
/// The annotation of a set that counts the templates of its Deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Where a host's processes live, and what they may use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder for everything: `instances/`, `releases/`, `logs/`.
    pub state: PathBuf,
    /// Who starts keepers.
    pub launcher: Launcher,
    /// Secrets: `<name>/<key>`.
    pub secrets: PathBuf,
    /// Programs that a command may begin with.
    pub interpreters: BTreeMap<String, PathBuf>,
    /// Ports that are leased to instances.
    pub ports: RangeInclusive<u16>,
    /// How long what served is kept for a way back.
    pub keep_old: Duration,
    /// The proxy's table.
    pub table: PathBuf,
    /// The proxy's control socket.
    pub control: PathBuf,
}

/// Gives the folder with the code of a Pod: none where it has none of its own. Blocks.
pub type Code = Arc<dyn Fn(&Pod, Option<&Deployment>) -> Result<Option<PathBuf>, CodeError> + Send + Sync>;

/// The code of a release is not there.
#[derive(Debug, Clone)]
pub struct CodeError {
    /// Whether the release itself is to blame: another try gives nothing else.
    pub is_wrong: bool,
    /// Why, in one sentence.
    pub why: String,
}

/// The supervisor cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A folder cannot be made.
    #[error("cannot make `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Keeps the processes of one environment on this machine.
pub struct Supervisor {
    client: kube::Client,
    namespace: String,
    settings: Settings,
    code: Code,
    role: watch::Receiver<Role>,
    clock: Arc<dyn Clock>,
}

/// What all instances share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) client: kube::Client,
    pub(super) namespace: String,
    pub(super) epoch: u64,
    /// Instances that are looked after.
    pub(super) followed: AtomicU64,
    code: Code,
    deployments: Store<Deployment>,
    sets: Store<ReplicaSet>,
}

/// One term of leading.
pub(super) struct Term {
    pub(super) shared: Arc<Shared>,
    pub(super) stores: Stores,
    clock: Arc<dyn Clock>,
    instances: BTreeMap<String, Handle>,
    reports: mpsc::UnboundedSender<Report>,
    ports: Ports,
    pub(super) proxy: Proxy,
    /// The set that the proxy sends every new request of an agent to.
    serving: BTreeMap<AgentName, String>,
    /// The table in use; none until the proxy took one of this term.
    pub(super) active: Option<Table>,
    /// How the table's file was when it was written last; none where it is to be written again.
    pub(super) written: Option<Stamp>,
    /// The table of an earlier term, by which the proxy goes on until it is given one of this.
    last: Option<Table>,
    begun: Instant,
    /// Why the proxy does not take the newest table.
    pub(super) obstacle: Option<String>,
    generation: u64,
    /// When the proxy was asked last in vain.
    tried: Option<Instant>,
    boot: String,
}

pub(super) struct Stores {
    deployments: Store<Deployment>,
    pub(super) sets: Store<ReplicaSet>,
    pub(super) pods: Store<Pod>,
    services: Store<Service>,
}

/// The number of a set among those of its Deployment.
pub(super) fn revision(metadata: &ObjectMeta) -> u64 {
    let text = metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

// === impl Supervisor ===

impl Supervisor {
    /// Makes the folders; starts nothing.
    pub fn new(
        client: kube::Client,
        namespace: String,
        settings: Settings,
        code: Code,
        role: watch::Receiver<Role>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SupervisorError> {
        for name in ["instances", "releases", "logs"] {
            let path = settings.state.join(name);
            std::fs::create_dir_all(&path).map_err(|source| SupervisorError::Folder { path, source })?;
        }
        let opened = settings.launcher.open(&settings.state);
        opened.map_err(|source| SupervisorError::Folder { path: settings.state.clone(), source })?;
        Ok(Self { client, namespace, settings, code, role, clock })
    }

    /// Supervises while this process leads, until `stop`. What runs goes on running.
    pub async fn run(self, stop: CancellationToken) {
        let mut role = self.role.clone();
        loop {
            let leading = match &*role.borrow_and_update() {
                Role::Leading(epoch) => Some(*epoch),
                Role::Following(_) | Role::ReadOnly(_) => None,
            };
            let term = stop.child_token();
            let led = async {
                match leading {
                    Some(epoch) => self.lead(epoch, term.clone()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = role.changed() => if changed.is_err() { return },
                () = led => {}
            }
        }
    }

    async fn lead(&self, epoch: u64, stop: CancellationToken) {
        let (wake, mut woken) = mpsc::channel::<()>(1);
        let deployments = self.follow::<Deployment>(&wake, &stop);
        let sets = self.follow::<ReplicaSet>(&wake, &stop);
        let pods = self.follow::<Pod>(&wake, &stop);
        let services = self.follow::<Service>(&wake, &stop);
        let _guard = stop.clone().drop_guard();
        let read = futures::future::try_join4(
            deployments.wait_until_ready(),
            sets.wait_until_ready(),
            pods.wait_until_ready(),
            services.wait_until_ready(),
        );
        if read.await.is_err() {
            return;
        }
        let shared = Arc::new(Shared {
            settings: self.settings.clone(),
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            epoch,
            followed: AtomicU64::new(0),
            code: Arc::clone(&self.code),
            deployments: deployments.clone(),
            sets: sets.clone(),
        });
        let (reports, mut reported) = mpsc::unbounded_channel();
        let stores = Stores { deployments, sets, pods, services };
        let mut term = Term::new(shared, stores, Arc::clone(&self.clock), reports);
        term.sweep().await;
        let mut glances = tokio::time::interval(GLANCE);
        glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let rest = tokio::time::sleep(term.pass().await);
            let mut rest = std::pin::pin!(rest);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    Some(()) = woken.recv() => break,
                    Some(report) = reported.recv() => break term.heard(report),
                    () = &mut rest => break,
                    _ = glances.tick() => if term.glance().await { break },
                }
            }
            tokio::time::sleep(TOGETHER).await;
            while let Ok(report) = reported.try_recv() {
                term.heard(report);
            }
            let _ = woken.try_recv();
        }
    }

    /// Keeps all objects of a kind, and wakes whenever one changes.
    fn follow<K>(&self, wake: &mpsc::Sender<()>, stop: &CancellationToken) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let (store, writer) = reflector::store();
        let (wake, stop) = (wake.clone(), stop.clone());
        let slim = |mut object: K| {
            object.managed_fields_mut().clear();
            object
        };
        let events = reflector::reflector(
            writer,
            watcher(api, watcher::Config::default())
                .map(move |event| event.map(|event| event.modify(|object| *object = slim(object.clone())))),
        );
        tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
                if let Err(error) = event {
                    tracing::warn!(%error, "the host's own objects cannot be watched");
                    tokio::time::sleep(LOOK).await;
                }
                let _ = wake.try_send(());
            }
        });
        store
    }
}

// === impl Shared ===

impl Shared {
    /// Where the code of a Pod is.
    pub(super) async fn code(&self, pod: &Arc<Pod>) -> Result<Option<PathBuf>, Trouble> {
        let (code, pod, deployment) = (Arc::clone(&self.code), Arc::clone(pod), self.deployment_of(pod));
        let found = tokio::task::spawn_blocking(move || code(&pod, deployment.as_deref())).await;
        match found {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                let reason = if error.is_wrong { HostReason::WrongArtifact } else { HostReason::Artifact };
                Err(Trouble { reason, message: error.why })
            }
            Err(error) => Err(Trouble::machine(format!("the code's preparation was given up: {error}"))),
        }
    }

    /// The Deployment whose set made a Pod.
    fn deployment_of(&self, pod: &Pod) -> Option<Arc<Deployment>> {
        let set = controller(&pod.metadata)?;
        let set = self.sets.state().into_iter().find(|one| one.metadata.uid.as_deref() == Some(set))?;
        let deployment = controller(&set.metadata)?.to_owned();
        self.deployments.state().into_iter().find(|one| one.metadata.uid.as_deref() == Some(&*deployment))
    }
}

fn controller(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

// === impl Term ===

impl Term {
    fn new(shared: Arc<Shared>, stores: Stores, clock: Arc<dyn Clock>, reports: mpsc::UnboundedSender<Report>) -> Self {
        let settings = &shared.settings;
        let mut ports = Ports::new(settings.ports.clone());
        for pod in stores.pods.state() {
            if let Some(port) = pod.annotations().get(PORT).and_then(|text| text.parse().ok()) {
                ports.held(port, &pod.name_any());
            }
        }
        // What the last table sent requests to is what serves, until another one is in use.
        let last = proxy::load_table(&settings.table).ok().map(|loaded| loaded.table);
        let mut serving = BTreeMap::new();
        for (name, agent) in last.iter().flat_map(|table| &table.agents) {
            let ids = agent.arms.iter().flat_map(|arm| &arm.instances);
            let set = ids.filter_map(|instance| instance.id.rsplit_once('-')).map(|(set, _)| set.to_owned()).next();
            serving.extend(set.map(|set| (name.clone(), set)));
        }
        let generation = last.as_ref().filter(|table| table.epoch == shared.epoch).map_or(0, |table| table.generation);
        let boot = crate::sys::boot_id().unwrap_or_default();
        Self {
            proxy: Proxy::new(settings.control.clone(), shared.epoch),
            shared,
            stores,
            clock,
            instances: BTreeMap::new(),
            reports,
            ports,
            serving,
            active: None,
            written: None,
            // After a start of the machine nothing of it runs any more.
            last: last.filter(|table| table.boot_id == boot),
            begun: Instant::now(),
            obstacle: None,
            generation,
            tried: None,
            boot,
        }
    }

    fn heard(&mut self, report: Report) {
        let Some(handle) = self.instances.get_mut(&report.pod).filter(|handle| handle.uid == report.uid) else {
            return;
        };
        match report.said {
            Said::Seen(seen) => handle.seen = *seen,
            Said::Ended => {
                self.instances.remove(&report.pod);
                self.ports.release(&report.pod);
                let (client, namespace) = (self.shared.client.clone(), self.shared.namespace.clone());
                tokio::spawn(async move { remove_pod(&client, &namespace, &report.pod, &report.uid).await });
            }
        }
    }

    fn view(&self) -> View {
        View {
            deployments: self.stores.deployments.state(),
            sets: self.stores.sets.state(),
            pods: self.stores.pods.state(),
            services: self.stores.services.state(),
        }
    }

    fn seen(&self, pod: &Pod) -> Seen {
        let handle = self.instances.get(&pod.name_any());
        let handle = handle.filter(|handle| Some(&handle.uid) == pod.metadata.uid.as_ref());
        handle.map(|handle| handle.seen.clone()).unwrap_or_default()
    }

    /// Decides and does; says when to look again at the latest.
    async fn pass(&mut self) -> Duration {
        let view = self.view();
        self.look_after(&view);
        let now = self.clock.now();
        let processes = view.processes(|pod| self.seen(pod).ready);
        self.route(&view, &processes).await;
        let mut wait = Duration::from_mins(1);
        if self.obstacle.is_some() || self.active.is_none() || self.written.is_none() {
            wait = LOOK;
        }
        let mains: BTreeMap<&AgentName, Main> = processes
            .iter()
            .filter(|process| process.carries_traffic)
            .map(|process| (&process.agent, Main { wanted: process.release, serves: self.serves(process) }))
            .collect();
        let mut deeds = clear(&view, now);
        for process in &processes {
            let known = Known {
                serving: self.serving.get(&process.agent).map(String::as_str).filter(|_| process.carries_traffic),
                main: mains.get(&process.agent).copied(),
                keep_old: SignedDuration::try_from(self.shared.settings.keep_old).unwrap_or(SignedDuration::MAX),
                now,
            };
            deeds.extend(decide(process, &known));
            if let Some(at) = next_end(process, now) {
                wait = wait.min(Duration::try_from(at.duration_since(now)).unwrap_or_default());
            }
        }
        let open = if deeds.iter().any(|deed| matches!(deed, Deed::Stop { .. })) { self.open().await } else { None };
        for deed in deeds {
            if !self.carry_out(&view, &deed, open.as_ref(), now).await {
                wait = wait.min(LOOK);
            }
        }
        wait.min(self.tell(&view, &processes, now).await).max(Duration::from_millis(1))
    }

    fn serves(&self, process: &Process<'_>) -> Option<ReleaseId> {
        process.set(self.serving.get(&process.agent)?)?.release()
    }

    /// Has a task for every Pod.
    fn look_after(&mut self, view: &View) {
        for pod in &view.pods {
            let name = pod.name_any();
            let known = self.instances.get(&name).is_some_and(|handle| Some(&handle.uid) == pod.metadata.uid.as_ref());
            if !known {
                let handle = Handle::begin(Arc::clone(&self.shared), Arc::clone(pod), self.reports.clone());
                self.instances.insert(name, handle);
            }
        }
        self.shared.followed.store(self.instances.len() as u64, Ordering::Relaxed);
    }

    /// Gives the proxy a table of what is ready, where that is another one than it has.
    async fn route(&mut self, view: &View, processes: &[Process<'_>]) {
        let empty = Table::empty(self.shared.epoch, self.generation, self.boot.clone());
        let address = |pod: &str| self.instances.get(pod).and_then(|handle| handle.seen.address.clone());
        let mut chosen = table::choose(view, processes, &self.serving, address, empty);
        let same = |active: &Table| active.routes == chosen.table.routes && active.agents == chosen.table.agents;
        let stands = self.active.as_ref().is_some_and(same);
        if stands && self.obstacle.is_none() && self.written.is_some() {
            return;
        }
        // A term begins without having looked: what serves goes on serving until it was asked how it is.
        let unlooked = self.active.is_none() && self.begun.elapsed() < FIRST_LOOKS;
        if unlooked && self.last.as_ref().is_some_and(|last| table::loses(last, &chosen.table)) {
            return;
        }
        if self.obstacle.is_some() && self.tried.is_some_and(|tried| tried.elapsed() < LOOK) {
            return;
        }
        self.generation += 1;
        chosen.table.generation = self.generation;
        self.tried = Some(Instant::now());
        match self.load(&chosen.table).await {
            Ok(()) => {
                if self.obstacle.take().is_some() {
                    tracing::info!("the proxy answers again");
                }
                tracing::debug!(generation = self.generation, "the proxy uses another table");
                self.serving = chosen.serving;
                self.active = Some(chosen.table);
                self.written = Some(Stamp::of(&self.shared.settings.table));
            }
            Err(why) => {
                if self.obstacle.as_ref() != Some(&why) {
                    tracing::warn!("the proxy does not take the table, and nothing that serves is stopped: {why}");
                }
                self.obstacle = Some(why);
            }
        }
    }

    async fn load(&self, table: &Table) -> Result<(), String> {
        let (path, table) = (self.shared.settings.table.clone(), table.clone());
        let generation = table.generation;
        let written = tokio::task::spawn_blocking(move || proxy::write_table(&path, &table)).await;
        match written {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(folder::told(&error)),
            Err(error) => return Err(error.to_string()),
        }
        self.proxy.load(generation).await.map(drop).map_err(|error| folder::told(&error))
    }

    /// Open requests by instance; none where the proxy does not say.
    async fn open(&self) -> Option<BTreeMap<(String, u64), u64>> {
        let state = self.proxy.state().await.ok().filter(|state| state.silent.is_empty())?;
        let open = state.instances.into_iter().map(|instance| ((instance.id, instance.generation), instance.in_flight));
        Some(open.collect())
    }

    /// Does one thing; false if it is to be tried again soon.
    async fn carry_out(
        &mut self,
        view: &View,
        deed: &Deed,
        open: Option<&BTreeMap<(String, u64), u64>>,
        now: Timestamp,
    ) -> bool {
        let done = match deed {
            Deed::Stop { pod } => return self.stop(view, pod, open, now),
            Deed::MakeSet { deployment, name } => self.make_set(view, deployment, name).await,
            Deed::Launch { set, pod, ordinal } => self.launch(view, set, pod, *ordinal, now).await,
            Deed::Scale { set, replicas } => {
                self.patch::<ReplicaSet>(set, json!({"spec": {"replicas": replicas}})).await
            }
            Deed::Retire { pod, kept_until } => {
                let patch = json!({"metadata": {
                    "labels": {MANAGED_BY_LABEL: null},
                    "annotations": {RETIRED: now.to_string(), KEPT_UNTIL: kept_until.to_string()},
                }});
                self.patch::<Pod>(pod, patch).await
            }
            Deed::Recall { pod } => {
                let patch = json!({"metadata": {
                    "labels": {MANAGED_BY_LABEL: crate::render::MANAGED_BY},
                    "annotations": {RETIRED: null, KEPT_UNTIL: null},
                }});
                self.patch::<Pod>(pod, patch).await
            }
            Deed::DropSet { set } => {
                let api: Api<ReplicaSet> = self.api();
                let dropped = api.delete(set, &DeleteParams::default()).await.map(drop);
                self.tidy(set).await;
                dropped
            }
        };
        match done {
            Ok(()) => true,
            // Done already, or gone: the next look shows it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                tracing::warn!(error = %folder::told(&error), ?deed, "not done");
                false
            }
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.shared.client.clone(), &self.shared.namespace)
    }

    async fn patch<K>(&self, name: &str, patch: Value) -> Result<(), kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.api::<K>().patch(name, &parameters, &Patch::Merge(patch)).await.map(drop)
    }

    async fn create<K>(&self, object: Value) -> Result<(), kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        self.api::<K>().create(&parameters, &object).await.map(drop)
    }

    async fn make_set(&self, view: &View, deployment: &str, name: &str) -> Result<(), kube::Error> {
        let Some(deployment) = view.deployments.iter().find(|one| one.name_any() == deployment) else { return Ok(()) };
        let spec = &deployment.spec;
        let uid = deployment.uid().unwrap_or_default();
        let owned = view.sets.iter().filter(|set| controller(&set.metadata) == Some(&*uid));
        let last = owned.map(|set| revision(&set.metadata)).max().unwrap_or(0);
        let mut template = json!(spec.template);
        let hash = template_hash(&spec.template);
        template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
        let mut labels = template["metadata"]["labels"].clone();
        labels[MANAGED_BY_LABEL] = json!(crate::render::MANAGED_BY);
        let mut selector = json!(spec.selector);
        selector["matchLabels"]["pod-template-hash"] = json!(hash);
        self.create::<ReplicaSet>(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": self.shared.namespace, "labels": labels,
                "annotations": {REVISION: (last + 1).to_string()},
                "ownerReferences": [owner("apps/v1", "Deployment", &deployment.name_any(), &uid)],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        }))
        .await
    }

    async fn launch(
        &mut self,
        view: &View,
        set: &str,
        pod: &str,
        ordinal: u32,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let Some(set) = view.sets.iter().find(|one| one.name_any() == set) else { return Ok(()) };
        let Some(template) = &set.spec.template else { return Ok(()) };
        let Some(spec) = &template.spec else { return Ok(()) };
        let metadata = template.metadata.clone().unwrap_or_default();
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.insert(ORDINAL.to_owned(), ordinal.to_string());
        annotations.insert(LAUNCH.to_owned(), now.as_millisecond().to_string());
        if launch::needs_port(spec) {
            match self.ports.lease(pod) {
                Some(port) => {
                    annotations.insert(PORT.to_owned(), port.to_string());
                }
                None => {
                    tracing::warn!(pod, "no port of `host.ports` is free; it waits for one");
                    return Ok(());
                }
            }
        }
        let mut labels = metadata.labels.unwrap_or_default();
        labels.insert(MANAGED_BY_LABEL.to_owned(), crate::render::MANAGED_BY.to_owned());
        let made = self
            .create::<Pod>(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": pod, "namespace": self.shared.namespace, "labels": labels, "annotations": annotations,
                    "ownerReferences": [owner("apps/v1", "ReplicaSet", &set.name_any(), &set.uid().unwrap_or_default())],
                },
                "spec": spec,
            }))
            .await;
        if made.is_err() && !self.instances.contains_key(pod) {
            self.ports.release(pod);
        }
        made
    }

    /// Ends an instance that no table names and that answers nothing more; false if it does yet.
    fn stop(&mut self, view: &View, pod: &str, open: Option<&BTreeMap<(String, u64), u64>>, now: Timestamp) -> bool {
        let Some(object) = view.pods.iter().find(|one| one.name_any() == pod) else { return true };
        let Some(handle) = self.instances.get_mut(pod) else { return true };
        if handle.is_stopping() {
            return true;
        }
        let agents = self.active.iter().flat_map(|table| &table.agents);
        let listed = agents.flat_map(|(_, agent)| &agent.arms).flat_map(|arm| &arm.instances).any(|one| one.id == pod);
        if listed {
            return false;
        }
        let agent = object.labels().get(AGENT_LABEL);
        let service = view.services.iter().find(|service| Some(&service.name_any()) == agent);
        let carries =
            object.spec.as_ref().and_then(container).is_some() && service.is_some() && handle.seen.address.is_some();
        if carries {
            let launch = table::launch(object.annotations());
            let in_flight = open.map(|open| open.get(&(pod.to_owned(), launch)).copied().unwrap_or(0));
            let retired =
                object.annotations().get(RETIRED).and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now);
            let waited = Duration::try_from(now.duration_since(retired)).unwrap_or_default();
            let most = service.and_then(|service| table::drain_max(service)).unwrap_or(DRAIN);
            // Without an answer nothing is known to be idle.
            if in_flight != Some(0) && waited < most {
                return false;
            }
        }
        handle.stop();
        true
    }

    /// Writes what is known into the status of each object where it says something else; gives the next deadline.
    async fn tell(&self, view: &View, processes: &[Process<'_>], now: Timestamp) -> Duration {
        let mut wait = Duration::from_mins(1);
        for pod in &view.pods {
            let before = serde_json::to_value(&pod.status).ok().filter(Value::is_object);
            let after = status::of_pod(pod, &self.seen(pod), before.as_ref(), now);
            self.write_status::<Pod>(&pod.name_any(), before.as_ref(), after).await;
        }
        for process in processes {
            for set in &process.sets {
                let before = serde_json::to_value(&set.object.status).ok().filter(Value::is_object);
                self.write_status::<ReplicaSet>(&set.object.name_any(), before.as_ref(), status::of_set(set)).await;
            }
            let before = serde_json::to_value(&process.deployment.status).ok().filter(Value::is_object);
            let serving = self.serving.get(&process.agent).map(String::as_str);
            let obstacle = self.obstacle.as_deref().filter(|_| process.carries_traffic);
            let after = status::of_deployment(process, serving, obstacle, before.as_ref(), now);
            if let Some(at) = status::deadline(process.deployment, &after) {
                wait = wait.min(Duration::try_from(at.duration_since(now)).unwrap_or_default().max(LOOK));
            }
            self.write_status::<Deployment>(&process.deployment.name_any(), before.as_ref(), after).await;
        }
        wait
    }

    async fn write_status<K>(&self, name: &str, before: Option<&Value>, after: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        // As the kind's own type writes it, so that equal is equal.
        let typed = json!({"status": after});
        if before.is_some_and(|before| includes(before, &typed["status"])) {
            return;
        }
        let written = self.api::<K>().patch_status(name, &PatchParams::apply(MANAGER), &Patch::Merge(typed)).await;
        match written {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => tracing::warn!(error = %folder::told(&error), name, "cannot write a status"),
        }
    }
}

/// Whether `whole` says all that `part` says.
fn includes(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(name, value)| match whole.get(name) {
            Some(there) => includes(there, value),
            // An empty field is left out.
            None => value.is_null() || value == &json!({}) || value == &json!([]) || value == &json!(""),
        }),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| includes(whole, part))
        }
        (whole, part) => whole == part,
    }
}

fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

async fn remove_pod(client: &kube::Client, namespace: &str, pod: &str, uid: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    match api.delete(pod, &parameters).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(error = %folder::told(&error), pod, "cannot remove the Pod of what has ended"),
    }
}
