//! What an instance has of the machine: folders, secrets, and who may command its keeper. Launchers differ in this.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::instance::Trouble;
use super::launch::{agent_name, folder, log_folder};
use super::launcher::Launcher;
use super::run::Settings;
use super::unit;
use crate::keeper::spec::{EnvFile, Writable};
use crate::sys;

/// What one instance has.
pub(super) struct Ground {
    /// Where its keeper is reached, and where its socket is.
    pub(super) place: PathBuf,
    /// The logs.
    pub(super) logs: PathBuf,
    pub(super) writable: Writable,
    /// Accounts that may command its keeper, beside the keeper's own.
    pub(super) trusted: BTreeSet<u32>,
    /// Its unit, where it has an account of its own.
    unit: Option<String>,
}

// === impl Ground ===

impl Ground {
    pub(super) fn of(settings: &Settings, pod: &Pod) -> Result<Self, Trouble> {
        let folder = folder(settings, &pod.name_any());
        let place = settings.launcher.place(&folder);
        let beneath = |folder: &Path| Writable {
            home: folder.join("home"),
            tmp: folder.join("tmp"),
            cache: folder.join("cache"),
        };
        Ok(match settings.launcher {
            Launcher::Fork { .. } => Self {
                place,
                logs: log_folder(settings, pod),
                writable: beneath(&folder),
                trusted: BTreeSet::new(),
                unit: None,
            },
            Launcher::Systemd => Self {
                place,
                logs: unit::logs(&pod.name_any()),
                // Its unit's own, and gone with it.
                writable: beneath(Path::new("/tmp")),
                trusted: BTreeSet::from([sys::own_uid()]),
                unit: Some(unit::unit(&agent_name(pod)?, &pod.name_any())),
            },
        })
    }

    /// The file of a secret that only the agent can read; none where the daemon gives it the value.
    pub(super) fn secret(&self, name: &str, key: &str, optional: bool) -> Option<EnvFile> {
        let unit = self.unit.as_ref()?;
        Some(EnvFile { path: unit::secret(unit, name, key), optional })
    }

    /// What new files of the agent are not given. Who may connect to a socket is decided by the mode that it is made with, and
    /// beside an agent's account the proxy has one; whatever else such an agent can write, nobody else sees.
    pub(super) fn umask(&self, has_socket: bool) -> u32 {
        if has_socket && self.unit.is_some() { 0 } else { 0o077 }
    }
}
