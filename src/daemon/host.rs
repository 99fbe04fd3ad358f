//! This machine as a target: its database, and the supervisor of its processes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::config::{Config, Host, Target};
use super::run::DaemonError;
use crate::host::{HostApi, Opened, Store, StoreError};
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
    lock: FolderLock,
}

/// A host target that is to be run.
pub(super) struct Machine {
    pub(super) supervisor: Supervisor,
    /// The other daemon of this folder, if there is one, waits for it.
    pub(super) lock: FolderLock,
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
        Ok(Self { api: HostApi::new(Arc::new(store)), settings: settings(config, host, state), lock })
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
        let made = Supervisor::new(self.api.client(), namespace, self.settings, code, role, clock);
        let supervisor = made.map_err(|source| DaemonError::Host {
            environment: target.environment.to_string(),
            source: source.into(),
        })?;
        Ok(Machine { supervisor, lock: self.lock })
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
