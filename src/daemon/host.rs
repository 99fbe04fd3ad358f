//! This machine as a target: its database, and the supervisor of its processes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::{Config, Host, Target};
use super::run::DaemonError;
use crate::host::{HostApi, ListenError, Opened, Store, StoreError, listen, serve};
use crate::ledger::{Clock, Role};
use crate::supervisor::{Code, Settings, Supervisor, SupervisorError};
use crate::sys::{FolderLock, LockError, lock_folder};

/// The folder of a host beneath the daemon's state.
const FOLDER: &str = "host";
/// The socket by which people ask.
pub(crate) const SOCKET: &str = "api.sock";
/// The program of keepers, where nobody names another.
const KEEPER: &str = "backstay-keeper";

/// A host target, opened.
pub(super) struct Opening {
    pub(super) api: HostApi,
    settings: Settings,
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
    /// Another daemon serves it, or nobody can tell.
    #[error("cannot become the daemon of this folder")]
    Lock(#[source] LockError),
    /// Its database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket by which people ask.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its processes.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

/// Where everything of the host is.
pub(crate) fn folder(config: &Config) -> PathBuf {
    config.state.folder.join(FOLDER)
}

// === impl Opening ===

impl Opening {
    /// Takes the folder of the host and opens its database.
    pub(super) fn new(config: &Config, target: &Target, host: &Host, clock: &Arc<dyn Clock>) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Host { environment: target.environment.to_string(), source };
        let state = folder(config);
        make(&state).map_err(failed)?;
        let lock = lock_folder(&state, "lock").map_err(|error| failed(HostError::Lock(error)))?;
        let store = Store::open(&state.join("host.db"), Arc::clone(clock)).map_err(|error| failed(error.into()))?;
        if let Opened::ReadOnly(why) = store.is_open() {
            tracing::error!(why, "nothing is written on this host; what runs goes on");
        }
        let listener = listen(&state.join(SOCKET)).map_err(|error| failed(error.into()))?;
        let people = config.person.iter().map(|person| person.username.clone()).collect();
        let api = HostApi::new(Arc::new(store));
        Ok(Self { api, settings: settings(config, host, state), listener, people, lock })
    }

    /// The supervisor, which acts while `role` says that this daemon leads.
    pub(super) fn supervise(
        self,
        target: &Target,
        code: Code,
        role: watch::Receiver<Role>,
        clock: Arc<dyn Clock>,
    ) -> Result<Machine, DaemonError> {
        let namespace = target.namespace().to_owned();
        let made = Supervisor::new(self.api.client(), namespace, self.settings.clone(), code, role, clock);
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

fn make(folder: &Path) -> Result<(), HostError> {
    std::fs::create_dir_all(folder).map_err(|source| HostError::Folder { path: folder.to_owned(), source })
}

fn settings(config: &Config, host: &Host, state: PathBuf) -> Settings {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(KEEPER)));
    let proxy = config.proxy.clone().unwrap_or_default();
    Settings {
        keeper: host.keeper.clone().or(beside).unwrap_or_else(|| PathBuf::from(KEEPER)),
        secrets: host.secrets.clone().unwrap_or_else(|| state.join("secrets")),
        interpreters: host.interpreters.clone(),
        ports: host.ports.ports(),
        keep_old: host.keep_old.0,
        table: proxy.table,
        control: proxy.control,
        state,
    }
}
