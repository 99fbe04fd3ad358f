//! Agents as units of systemd: how everything of them is named. Pure.
//!
//! | name | what it is |
//! | --- | --- |
//! | `backstay-agent-<agent>@<instance>.service` | the keeper of one instance, and beneath it the agent |
//! | `bs-<hash>` | the account of all instances of one agent, which exists while one of them runs |
//! | `/run/backstay-agents/<instance>` | the folder in which the keeper is reached |
//! | `/var/log/backstay-agents/<instance>` | what the agent wrote |
//! | `/run/credentials/<unit>/secrets_<secret>_<key>` | a secret, as systemd gives it to the agent alone |
//!
//! The daemon writes no unit: it may start and stop those that root enrolled ([`Enrolment`]), and nothing else.

mod enrolment;

pub(super) use enrolment::FOLDER as UNITS;
pub use enrolment::{Enrolment, EnrolmentError};

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::model::AgentName;

/// Beneath this lie the folders in which keepers are reached.
const PLACES: &str = "/run/backstay-agents";
/// Beneath this lie the logs of instances, as their own units see them.
const LOGS: &str = "/var/log/backstay-agents";
/// What an agent's folder of secrets is called among its credentials.
const SECRETS: &str = "secrets";

/// The file of all instances of an agent.
///
/// The agent's name stands in it literally: what `%j` gives is cut at dashes, which names have.
pub(super) fn template(agent: &AgentName) -> String {
    format!("backstay-agent-{agent}@.service")
}

/// The unit of one instance.
pub(super) fn unit(agent: &AgentName, instance: &str) -> String {
    format!("backstay-agent-{agent}@{instance}.service")
}

/// The account of an agent: 19 characters of the 31 that one may have, whatever the agent's name.
pub(super) fn account(agent: &AgentName) -> String {
    let digest = Sha256::digest(agent.as_str());
    digest.iter().take(8).fold("bs-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Where the keeper of an instance is reached.
pub(super) fn place(instance: &str) -> PathBuf {
    Path::new(PLACES).join(instance)
}

/// The logs of an instance.
pub(super) fn logs(instance: &str) -> PathBuf {
    Path::new(LOGS).join(instance)
}

/// Where an instance finds a secret. A secret's name has no `_`, so that no two keys share a file.
pub(super) fn secret(unit: &str, name: &str, key: &str) -> PathBuf {
    Path::new("/run/credentials").join(unit).join(format!("{SECRETS}_{name}_{key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_short_and_its_agents_own() {
        let account = |name: &str| account(&name.parse().unwrap());
        let long = "a-name-as-long-as-one-may-be-and-no-longer";
        assert!(account(long).len() <= 31 && account(long).starts_with("bs-"));
        assert_ne!(account("support"), account("support-2"));
        assert_eq!(account("support"), account("support"), "the same at every enrolment");
    }

    #[test]
    fn an_instance_has_a_unit_and_its_secrets_beneath() {
        let unit = unit(&"support".parse().unwrap(), "support-0a1b2c3d4e-0");
        assert_eq!(unit, "backstay-agent-support@support-0a1b2c3d4e-0.service");
        let path = secret(&unit, "agent-secrets", "database_url");
        assert!(
            path.ends_with("backstay-agent-support@support-0a1b2c3d4e-0.service/secrets_agent-secrets_database_url")
        );
    }
}
