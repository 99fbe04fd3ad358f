//! What root writes once for an agent: the unit of its instances, and the daemon's right to start and stop them. Pure.

use std::path::{Path, PathBuf};

use super::{account, template};
use crate::model::AgentName;

/// Where units of the machine's administrator lie.
pub(in crate::supervisor) const FOLDER: &str = "/etc/systemd/system";
/// Where polkit's rules of the machine's administrator lie.
const RULES: &str = "/etc/polkit-1/rules.d";
/// Beneath this lie the agents' secrets: `<agent>/<secret>/<key>`.
const CREDENTIALS: &str = "/etc/backstay/credentials";

const UNIT: &str = include_str!("agent.service");
const RULE: &str = include_str!("agent.rules");

/// One agent, let run on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    agent: AgentName,
    keeper: String,
    state: String,
    daemon: String,
}

/// A path or an account cannot stand in a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}` cannot stand in a unit of systemd")]
pub struct EnrolmentError {
    what: &'static str,
    text: String,
}

// === impl Enrolment ===

impl Enrolment {
    /// Lets `agent` run, held by the program `keeper`, for the daemon whose account is `daemon` and whose folder is `state`.
    ///
    /// # Errors
    ///
    /// A path is not absolute, or has characters that mean something in a unit.
    pub fn new(agent: AgentName, keeper: &Path, state: &Path, daemon: &str) -> Result<Self, EnrolmentError> {
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
        let path = |what, path: &Path| match path.to_str() {
            Some(text) if path.is_absolute() && is_plain(text) => Ok(text.trim_end_matches('/').to_owned()),
            Some(_) | None => Err(EnrolmentError { what, text: path.display().to_string() }),
        };
        if daemon.is_empty() || !is_plain(daemon) {
            return Err(EnrolmentError { what: "the account", text: daemon.to_owned() });
        }
        let (keeper, state) = (path("the keeper's path", keeper)?, path("the state folder's path", state)?);
        Ok(Self { agent, keeper, state, daemon: daemon.to_owned() })
    }

    /// The files that make it so, with their text.
    pub fn files(&self) -> [(PathBuf, String); 2] {
        [(self.unit_path(), self.filled(UNIT)), (self.rule_path(), self.filled(RULE))]
    }

    /// The unit of all its instances.
    pub fn unit_path(&self) -> PathBuf {
        Path::new(FOLDER).join(template(&self.agent))
    }

    /// The daemon's right to start and stop them.
    pub fn rule_path(&self) -> PathBuf {
        Path::new(RULES).join(format!("50-backstay-agent-{}.rules", self.agent))
    }

    /// The folder of its secrets, mode 0700 and root's. Without it no instance starts.
    pub fn credentials(&self) -> PathBuf {
        Path::new(CREDENTIALS).join(self.agent.as_str())
    }

    /// All its instances, as `systemctl stop` takes them.
    pub fn instances(&self) -> String {
        format!("backstay-agent-{}@*.service", self.agent)
    }

    fn filled(&self, text: &str) -> String {
        let fills = [
            ("{agent}", self.agent.to_string()),
            ("{account}", account(&self.agent)),
            ("{keeper}", self.keeper.clone()),
            ("{state}", self.state.clone()),
            ("{host}", format!("{}/host", self.state)),
            ("{credentials}", self.credentials().display().to_string()),
            ("{daemon}", self.daemon.clone()),
        ];
        fills.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolment(agent: &str) -> Enrolment {
        let (keeper, state) = (Path::new("/usr/bin/backstay-keeper"), Path::new("/var/lib/backstay"));
        Enrolment::new(agent.parse().unwrap(), keeper, state, "backstay").unwrap()
    }

    #[test]
    fn what_is_written_for_the_example_is_what_stands_in_systemd() {
        let [(unit, text), (rules, rule)] = enrolment("support").files();
        assert_eq!(unit, Path::new("/etc/systemd/system/backstay-agent-support@.service"));
        assert_eq!(rules, Path::new("/etc/polkit-1/rules.d/50-backstay-agent-support.rules"));
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/example");
        for (path, text) in [(unit, text), (rules, rule)] {
            let example = examples.join(path.file_name().unwrap());
            let stands = std::fs::read_to_string(&example).unwrap_or_default();
            assert_eq!(stands, text, "{}", example.display());
        }
    }

    #[test]
    fn every_agent_has_files_of_its_own_and_every_name_is_filled_in() {
        let (one, other) = (enrolment("a-b"), enrolment("a"));
        assert_ne!(one.unit_path(), other.unit_path());
        assert_eq!(one.instances(), "backstay-agent-a-b@*.service");
        for (path, text) in one.files() {
            assert!(text.contains("backstay-agent-a-b@") && !text.contains("{a"), "{}:\n{text}", path.display());
            assert!(!text.contains("{host}") && !text.contains("{state}") && !text.contains("{keeper}"));
        }
    }

    #[test]
    fn what_would_mean_something_in_a_unit_is_refused() {
        let new = |keeper: &str, state: &str, daemon: &str| {
            let made = Enrolment::new("a".parse().unwrap(), Path::new(keeper), Path::new(state), daemon);
            made.map_err(|error| error.to_string())
        };
        let refused = |what: &str, text: &str| Err(format!("{what} `{text}` cannot stand in a unit of systemd"));
        assert_eq!(new("keeper", "/s", "d"), refused("the keeper's path", "keeper"));
        assert_eq!(new("/k", "/s %i", "d"), refused("the state folder's path", "/s %i"));
        assert_eq!(new("/k", "/s", "d\" || true"), refused("the account", "d\" || true"));
        assert!(new("/k", "/s", "d").is_ok());
    }
}
