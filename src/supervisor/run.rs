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
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::care::{CLEAN, GLANCE, Stamp};
use super::decide::{Deed, Known, Main, Still, clear, decide, left, next_end};
use super::http_route::HttpRoute;
use super::instance::{Handle, Report, Said, Seen, Trouble};
use super::launcher::Launcher;
use super::ports::Ports;
use super::table::{self, Serving, Word};
use super::view::{PORT, Process, View, owner};
use crate::judge::HostReason;
use crate::keeper::folder;
use crate::ledger::{Clock, Role};
use crate::model::{AgentName, ReleaseId};
use crate::proxy::{self, Client as Proxy, Table};

/// Who writes what the supervisor writes.
pub(super) const MANAGER: &str = "backstay-supervisor";
/// What is heard within this time is decided about together.
const TOGETHER: Duration = Duration::from_millis(10);
/// Between two looks at what tells nothing: what was drained, the table's file, a proxy that was away.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// How long a term may take to hear of every instance that serves.
pub(super) const FIRST_LOOKS: Duration = Duration::from_secs(15);
/// The annotation of a set that counts the templates of its Deployment.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";

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
    pub(super) instances: BTreeMap<String, Handle>,
    reports: mpsc::UnboundedSender<Report>,
    pub(super) ports: Ports,
    pub(super) proxy: Proxy,
    /// What the proxy sends every new request to.
    pub(super) serving: Serving,
    /// What became of each HTTPRoute in the table in use.
    pub(super) words: BTreeMap<AgentName, Word>,
    /// The table in use; none until the proxy took one of this term.
    pub(super) active: Option<Table>,
    /// How the table's file was when it was written last; none where it is to be written again.
    pub(super) written: Option<Stamp>,
    /// The table of an earlier term, by which the proxy goes on until it is given one of this.
    last: Option<Table>,
    /// That one could not be read yet.
    unread: bool,
    pub(super) begun: Instant,
    /// Why the proxy does not take the newest table.
    pub(super) obstacle: Option<String>,
    generation: u64,
    /// When the proxy was asked last in vain.
    tried: Option<Instant>,
    boot: String,
    /// Something may be there that nothing has a use for.
    pub(super) untidy: bool,
    /// When that was looked at last.
    pub(super) cleaned: Option<Instant>,
}

pub(super) struct Stores {
    deployments: Store<Deployment>,
    pub(super) sets: Store<ReplicaSet>,
    pub(super) pods: Store<Pod>,
    services: Store<Service>,
    routes: Store<HttpRoute>,
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
        let routes = self.follow::<HttpRoute>(&wake, &stop);
        let _guard = stop.clone().drop_guard();
        let read = tokio::try_join!(
            deployments.wait_until_ready(),
            sets.wait_until_ready(),
            pods.wait_until_ready(),
            services.wait_until_ready(),
            routes.wait_until_ready(),
        );
        if read.is_err() {
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
        let stores = Stores { deployments, sets, pods, services, routes };
        let mut term = Term::new(shared, stores, Arc::clone(&self.clock), reports);
        term.clean().await;
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
        let set = owner(&pod.metadata)?;
        let set = self.sets.state().into_iter().find(|one| one.metadata.uid.as_deref() == Some(set))?;
        let deployment = owner(&set.metadata)?.to_owned();
        self.deployments.state().into_iter().find(|one| one.metadata.uid.as_deref() == Some(&*deployment))
    }
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
        let boot = crate::sys::boot_id().unwrap_or_default();
        let mut term = Self {
            proxy: Proxy::new(settings.control.clone(), shared.epoch),
            shared,
            stores,
            clock,
            instances: BTreeMap::new(),
            reports,
            ports,
            serving: Serving::new(),
            words: BTreeMap::new(),
            active: None,
            written: None,
            last: None,
            unread: true,
            begun: Instant::now(),
            obstacle: None,
            generation: 0,
            tried: None,
            boot,
            untidy: true,
            cleaned: None,
        };
        term.read_last();
        term
    }

    /// Reads the table of before: what it sent requests to is what serves, until another one is in use.
    fn read_last(&mut self) {
        let path = &self.shared.settings.table;
        let loaded = proxy::load_table(path);
        let why = loaded.as_ref().map_or_else(Some, |loaded| loaded.fallback.as_ref());
        if let Some(error) = why.filter(|error| error.is_of_the_disk()) {
            tracing::warn!(error = %folder::told(error), "what serves is not known yet");
            return;
        }
        let last = loaded.ok().map(|loaded| loaded.table);
        self.unread = false;
        self.serving = last.as_ref().map(table::serving_of).unwrap_or_default();
        let own = last.as_ref().filter(|table| table.epoch == self.shared.epoch);
        self.generation = own.map_or(0, |table| table.generation);
        // After a start of the machine nothing of it runs any more.
        self.last = last.filter(|table| table.boot_id == self.boot);
    }

    fn heard(&mut self, report: Report) {
        let Some(handle) = self.instances.get_mut(&report.pod).filter(|handle| handle.uid == report.uid) else {
            return;
        };
        match report.said {
            Said::Seen(seen) => handle.seen = *seen,
            Said::Ended => {
                handle.ended = true;
                self.ports.release(&report.pod);
            }
        }
    }

    fn view(&self) -> View {
        View {
            deployments: self.stores.deployments.state(),
            sets: self.stores.sets.state(),
            pods: self.stores.pods.state(),
            services: self.stores.services.state(),
            routes: self.stores.routes.state(),
        }
    }

    pub(super) fn seen(&self, pod: &Pod) -> Seen {
        let handle = self.instances.get(&pod.name_any());
        let handle = handle.filter(|handle| Some(&handle.uid) == pod.metadata.uid.as_ref());
        let seen = |handle: &Handle| Seen { ready: handle.seen.ready && !handle.is_stopping(), ..handle.seen.clone() };
        handle.map(seen).unwrap_or_default()
    }

    /// Decides and does; says when to look again at the latest.
    async fn pass(&mut self) -> Duration {
        let view = self.view();
        self.look_after(&view);
        if self.unread && self.begun.elapsed() < FIRST_LOOKS {
            self.read_last();
            if self.unread {
                // Whoever does not know what serves would stop it.
                return LOOK;
            }
        }
        self.clean().await;
        let now = self.clock.now();
        let processes = view.processes(|pod| self.seen(pod).ready);
        self.route(&view, &processes).await;
        let mut wait = Duration::from_mins(1);
        if self.obstacle.is_some() || self.active.is_none() || self.written.is_none() {
            wait = LOOK;
        }
        if self.untidy {
            wait = wait.min(CLEAN);
        }
        // Workers of a release that has a Deployment of its own run beside the others', and follow nobody.
        let mains: BTreeMap<&AgentName, Main> = processes
            .iter()
            .filter(|process| process.carries_traffic && !process.per_release)
            .map(|process| (&process.agent, Main { wanted: process.release, serves: self.serves(process) }))
            .collect();
        let keep_old = SignedDuration::try_from(self.shared.settings.keep_old).unwrap_or(SignedDuration::MAX);
        let left = left(&view, &processes);
        let mut deeds = vec![];
        {
            let names = |pod: &str| self.names(pod);
            let still = Still { is_ready: &|pod: &Pod| self.seen(pod).ready, names: &names, keep_old, now };
            deeds.extend(clear(&view, &left, &still));
            for process in &processes {
                let known = Known {
                    serving: self.serving.get(&process.deployment.name_any()).map(String::as_str),
                    names: &names,
                    main: mains.get(&process.agent).copied().filter(|_| !process.per_release),
                    left: left.get(&process.agent).copied().filter(|_| process.carries_traffic),
                    keep_old,
                    now,
                };
                deeds.extend(decide(process, &known));
            }
        }
        if let Some(at) = next_end(&view, &processes, now) {
            wait = wait.min(Duration::try_from(at.duration_since(now)).unwrap_or_default());
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
        process.set(self.serving.get(&process.deployment.name_any())?)?.release()
    }

    /// Whether the table in use names an instance, as far as that is known.
    pub(super) fn names(&self, pod: &str) -> bool {
        self.active.as_ref().or(self.last.as_ref()).is_some_and(|table| table::names(table, pod))
    }

    /// Has a task for every Pod.
    fn look_after(&mut self, view: &View) {
        let is_seen = |name: &str, uid: &str| {
            view.pods.iter().any(|pod| pod.name_any() == name && pod.metadata.uid.as_deref() == Some(uid))
        };
        self.instances.retain(|name, handle| !handle.ended || is_seen(name, &handle.uid));
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
            self.words = chosen.words;
            return;
        }
        // A term begins without having looked: what serves goes on serving until it was asked how it is.
        let unlooked = self.active.is_none() && self.begun.elapsed() < FIRST_LOOKS;
        let loses = |last: &Table| table::loses(last, &chosen.table) || chosen.is_short_of(last);
        if unlooked && self.last.as_ref().is_some_and(loses) {
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
                self.words = chosen.words;
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
}
