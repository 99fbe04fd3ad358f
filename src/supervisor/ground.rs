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
            Launcher::Systemd { .. } => Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde_json::json;

    fn ground(launcher: Launcher, labels: &serde_json::Value) -> Result<Ground, Trouble> {
        let settings = Settings {
            state: "/state".into(),
            launcher,
            secrets: "/secrets".into(),
            interpreters: BTreeMap::new(),
            ports: 20_000..=20_001,
            keep_old: Duration::ZERO,
            table: "/table".into(),
            control: "/control".into(),
        };
        let pod = json!({"metadata": {"name": "support-0a1b-0", "labels": labels}});
        Ground::of(&settings, &serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn an_instance_of_a_unit_has_what_its_account_can_reach() {
        let labels = json!({"backstay.dev/agent": "support", "backstay.dev/process": "indexer"});
        let one = ground(Launcher::Systemd { keeper: "/k".into() }, &labels).unwrap();
        assert_eq!(one.place, Path::new("/run/backstay-agents/support-0a1b-0"));
        assert_eq!(one.logs, Path::new("/var/log/backstay-agents/support-0a1b-0"));
        assert!(one.writable.home.starts_with("/tmp") && one.trusted.contains(&sys::own_uid()));
        let secret = one.secret("keys", "api", true).unwrap();
        let place = "/run/credentials/backstay-agent-support@support-0a1b-0.service/secrets_keys_api";
        assert_eq!(secret, EnvFile { path: place.into(), optional: true });
        assert_eq!((one.umask(true), one.umask(false)), (0, 0o077), "the proxy connects to its socket");
    }

    #[test]
    fn an_instance_of_the_daemons_account_has_all_in_its_folder() {
        let one = ground(Launcher::Fork { keeper: "/k".into() }, &json!({"backstay.dev/agent": "support"})).unwrap();
        let folder = Path::new("/state/instances/support-0a1b-0");
        assert_eq!((one.place.as_path(), &one.writable.home), (folder, &folder.join("home")));
        assert_eq!(one.logs, Path::new("/state/logs/support/support-0a1b-0"));
        assert!(one.secret("keys", "api", false).is_none(), "the daemon reads it");
        assert_eq!((one.umask(true), one.trusted.len()), (0o077, 0));
    }

    #[test]
    fn a_pod_without_an_agent_has_no_unit() {
        let why = ground(Launcher::Systemd { keeper: "/k".into() }, &json!({})).err().unwrap();
        assert!(why.message.contains("names no agent"), "{why:?}");
    }
}
