//! This machine as a target: its database, and the supervisor of its processes.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::{self, Config, Host, Target};
use super::git::Git;
use super::run::DaemonError;
use crate::host::{HostApi, ListenError, Opened, Store, StoreError, listen, serve};
use crate::ledger::{Clock, Role};
use crate::supervisor::{ArtifactError, Artifacts, Code, Launcher, Settings, Supervisor, SupervisorError};
use crate::sys::{FolderLock, LockError, lock_folder};

/// The file that is locked.
const LOCK: &str = "lock";
/// The program of keepers, where nobody names another.
const KEEPER: &str = "backstay-keeper";

/// Who asks the API of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Who decides and keeps the ledger.
    Daemon,
    /// Who looks after the processes.
    Supervisor,
}

/// What the clients of a host's API are reached through: nothing, unless somebody stands in between and sees, delays or
/// refuses their calls.
#[derive(Clone, Default)]
pub struct Between(Option<Arc<Through>>);

type Through = dyn Fn(Asks, kube::Client) -> kube::Client + Send + Sync;

/// A host target, opened.
pub(super) struct Opening {
    api: HostApi,
    between: Between,
    settings: Settings,
    code: Code,
    listener: UnixListener,
    people: BTreeSet<String>,
    /// Held as long as this process serves: there is one daemon for a folder.
    lock: FolderLock,
}

/// A host target that is to be run.
pub(super) struct Machine {
    api: HostApi,
    supervisor: Supervisor,
    listener: UnixListener,
    people: BTreeSet<String>,
    _lock: FolderLock,
}

/// A host cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its folder cannot be made.
    #[error("cannot make `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon serves it.
    #[error("another daemon serves this host from `{}`{}", folder.display(), named(*process))]
    Taken {
        /// The folder.
        folder: PathBuf,
        /// That daemon's process, as it wrote it down.
        process: Option<u32>,
    },
    /// Nobody can tell whether another daemon serves it.
    #[error("cannot become the daemon of this folder")]
    Lock(#[source] LockError),
    /// Its database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket by which people ask.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its store of artifacts.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// Its processes.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

fn named(process: Option<u32>) -> String {
    process.map_or_else(String::new, |process| format!(", as process {process}"))
}

/// The claim to be the daemon of a host's folder.
///
/// Who comes second ends, naming the first: all that it could tell, `backstay status` and its page ask of the first
/// already, and one that only reads would be taken for the one that acts.
pub(super) struct Claim {
    state: PathBuf,
    lock: FolderLock,
}

// === impl Claim ===

impl Claim {
    /// Makes the folder where it is missing, and claims it: before anything else of the daemon's is opened.
    pub(super) fn stake(config: &Config) -> Result<Self, HostError> {
        let state = config.host_folder();
        make(&state)?;
        let lock = lock_folder(&state, LOCK).map_err(|error| match error {
            LockError::Held(folder) => {
                let written = std::fs::read_to_string(folder.join(LOCK)).unwrap_or_default();
                HostError::Taken { folder, process: written.trim().parse().ok() }
            }
            error @ (LockError::Network { .. } | LockError::Refused { .. }) => HostError::Lock(error),
        })?;
        // For people; the lock holds without it, on a full disk as well.
        let mut file = lock.file();
        if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
            tracing::warn!(%error, "cannot write down which process serves this host");
        }
        Ok(Self { state, lock })
    }
}

// === impl Between ===

impl Between {
    /// Has each client replaced by what `through` makes of it.
    pub fn new(through: impl Fn(Asks, kube::Client) -> kube::Client + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(through)))
    }

    fn client(&self, asks: Asks, api: &HostApi) -> kube::Client {
        match &self.0 {
            None => api.client(),
            Some(through) => through(asks, api.client()),
        }
    }
}

// === impl Opening ===

impl Opening {
    /// Opens the database of a folder that is claimed.
    ///
    /// Whoever holds the folder knows that the daemon before is gone: its lease need not run out.
    pub(super) async fn new(
        config: &Config,
        target: &Target,
        host: &Host,
        claim: Claim,
        git: &Git,
        clock: &Arc<dyn Clock>,
        between: &Between,
    ) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Host { environment: target.environment.to_string(), source };
        let Claim { state, lock } = claim;
        let store = Store::open(&state.join("host.db"), Arc::clone(clock)).map_err(|error| failed(error.into()))?;
        if let Opened::ReadOnly(why) = store.is_open() {
            tracing::error!(why, "nothing is written on this host; what runs goes on");
        }
        let listener = listen(&config.host_socket()).map_err(|error| failed(error.into()))?;
        let people = config.person.iter().map(|person| person.username.clone()).collect();
        let api = HostApi::new(Arc::new(store));
        let mirror = Some(git.mirror.store().clone());
        let artifacts = Artifacts::new(state.join("artifacts"), host.artifacts.clone(), mirror);
        let artifacts = artifacts.map_err(|error| failed(error.into()))?;
        if let Err(error) = give_back(&api, target.namespace()).await {
            tracing::warn!(%error, "the lease of the daemon before is waited for");
        }
        let code = Arc::new(artifacts).code();
        let (settings, between) = (settings(config, host, state), between.clone());
        Ok(Self { api, between, settings, code, listener, people, lock })
    }

    /// The client of who decides.
    pub(super) fn client(&self) -> kube::Client {
        self.between.client(Asks::Daemon, &self.api)
    }

    /// The supervisor, which acts while `role` says that this daemon leads.
    pub(super) fn supervise(
        self,
        target: &Target,
        role: watch::Receiver<Role>,
        clock: Arc<dyn Clock>,
    ) -> Result<Machine, DaemonError> {
        let namespace = target.namespace().to_owned();
        let client = self.between.client(Asks::Supervisor, &self.api);
        let made = Supervisor::new(client, namespace, self.settings.clone(), Arc::clone(&self.code), role, clock);
        let supervisor = made.map_err(|source| DaemonError::Host {
            environment: target.environment.to_string(),
            source: source.into(),
        })?;
        let Self { api, listener, people, lock, .. } = self;
        Ok(Machine { api, supervisor, listener, people, _lock: lock })
    }
}

// === impl Machine ===

impl Machine {
    /// Supervises and answers until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (supervisor, listener, api, people) = (self.supervisor, self.listener, self.api, self.people);
        let answering = async {
            if let Err(error) = serve(listener, api, people, stop.clone()).await {
                tracing::error!(%error, "nobody can ask this host any more");
                stop.cancelled().await;
            }
        };
        tokio::join!(supervisor.run(stop.clone()), answering);
    }
}

/// Takes every lease from its holder.
async fn give_back(api: &HostApi, namespace: &str) -> kube::Result<()> {
    let leases: Api<Lease> = Api::namespaced(api.client(), namespace);
    for lease in leases.list(&ListParams::default()).await? {
        let free = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
        leases.patch(&lease.name_any(), &PatchParams::default(), &free).await?;
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), HostError> {
    std::fs::create_dir_all(folder).map_err(|source| HostError::Folder { path: folder.to_owned(), source })
}

fn settings(config: &Config, host: &Host, state: PathBuf) -> Settings {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(KEEPER)));
    let keeper = host.keeper.clone().or(beside).unwrap_or_else(|| PathBuf::from(KEEPER));
    let proxy = config.proxy.clone().unwrap_or_default();
    Settings {
        launcher: match host.launcher {
            config::Launcher::Fork => Launcher::Fork { keeper },
            config::Launcher::Systemd => Launcher::Systemd { keeper },
        },
        secrets: host.secrets.clone().unwrap_or_else(|| state.join("secrets")),
        interpreters: host.interpreters.clone(),
        ports: host.ports.ports(),
        keep_old: host.keep_old.0,
        table: proxy.table,
        control: proxy.control,
        state,
    }
}
