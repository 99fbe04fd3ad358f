//! The daemon's own configuration: `backstay.toml`, every key also as `BACKSTAY_…`.
//!
//! The Rust types are the one source: the published JSON Schema, the names of the environment variables, and the
//! check with line and column are all derived from them. Secrets never stand in the file: they come from files that
//! it names, or from the environment.

mod nearest;
mod pull_request;
mod reader;
mod schema;
mod target;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

pub use nearest::nearest;
pub use pull_request::{ForgeKind, PullRequest};
pub use schema::{schema, variables};
pub use target::{At, Host, Kubernetes, Launcher, Place, Prune, Target};
pub use value::{Allowance, GitIdentity, Label, Listen, Period, PortRange, Remote, Secret};

use crate::model::{Diagnostics, EnvironmentName};
use crate::source::{
    self, Auth, NoVerification, Signers, SignersError, SourceConfig, SshKey, SystemClock, Trusted, Verify,
};
use crate::sys;

/// Where the file is when nobody names another.
pub const DEFAULT_PATH: &str = "/etc/backstay/backstay.toml";

/// Bytes that the file may have.
const MAX_BYTES: u64 = 1024 * 1024;

/// The daemon's own configuration: where Git is, which environments are served where, and by which door people come in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "backstay.toml", inline)]
pub struct Config {
    /// Names this installation: another one that finds its objects only reads.
    #[serde(default = "value::default_installation")]
    pub installation: Label,
    /// The config repository.
    pub source: Source,
    /// The environments that are served, each bound to one place.
    #[schemars(with = "Vec<target::Written>")]
    pub target: Vec<Target>,
    /// People, and as whom they commit.
    #[serde(default)]
    pub person: Vec<Person>,
    /// The HTTP server.
    #[serde(default)]
    pub http: Http,
    /// Doors for hints from Git hosts; one without a secret does not exist.
    #[serde(default)]
    pub webhooks: Webhooks,
    /// How the daemon speaks.
    #[serde(default)]
    pub log: Log,
    /// Where every operation is written as one line that an auditor keeps.
    #[serde(default)]
    pub journal: Journal,
    /// Where the daemon keeps what it can do without.
    #[serde(default)]
    pub state: State,
    /// Who measures, by the names that agents may use.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, crate::measure::WrittenSettings>")]
    pub metrics: BTreeMap<String, crate::measure::Settings>,
    /// Who is asked at the steps of a canary that wait for a gate, by the names that agents may use.
    #[serde(default)]
    pub gates: BTreeMap<String, crate::measure::GateSettings>,
    /// The data plane of a host, which is a process of its own: `backstay proxy` reads this section.
    #[serde(default)]
    pub proxy: Option<crate::proxy::Settings>,
}

/// The config repository: where it is, how it is read, and what is accepted of it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Source {
    /// `ssh://…`, `https://…`, `http://…`, `git@host:path`, or an absolute path.
    pub url: Remote,
    /// The followed branch: environments' files and consents are read from it.
    #[serde(default = "value::default_branch")]
    pub branch: String,
    /// Time between two looks at the remote; hints only bring a look forward.
    #[serde(default = "value::default_interval")]
    pub interval: Period,
    /// Longest time that the remote may be silent.
    #[serde(default = "value::default_timeout")]
    pub timeout: Period,
    /// Private key for SSH.
    #[serde(default)]
    pub ssh_key: Option<PathBuf>,
    /// File that holds the passphrase of the key.
    #[serde(default)]
    pub ssh_passphrase_file: Option<PathBuf>,
    /// The passphrase of the key.
    #[serde(default)]
    #[schemars(extend("writeOnly" = true))]
    pub ssh_passphrase: Option<Secret>,
    /// Host keys that are trusted, as in OpenSSH; needed for SSH.
    #[serde(default)]
    pub known_hosts: Option<PathBuf>,
    /// Name for HTTPS.
    #[serde(default)]
    pub username: Option<String>,
    /// File that holds the password for HTTPS.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The password for HTTPS.
    #[serde(default)]
    #[schemars(extend("writeOnly" = true))]
    pub password: Option<Secret>,
    /// File that holds a token for HTTPS.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// A token for HTTPS.
    #[serde(default)]
    #[schemars(extend("writeOnly" = true))]
    pub token: Option<Secret>,
    /// Certificates that HTTPS trusts in place of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What happens when a followed reference moves to a commit that does not descend from the accepted one.
    #[serde(default)]
    pub rewind: Rewind,
    /// Whose commits are accepted; absent: whatever the remote serves.
    #[serde(default)]
    pub verify: Verification,
    /// Private key (OpenSSH, Ed25519, without a passphrase) that signs the commits made here; `verify` must trust it.
    #[serde(default)]
    pub signing_key: Option<PathBuf>,
    /// Where pull requests are opened, for environments with `writeBack: pullRequest`.
    #[serde(default)]
    pub pull_request: Option<PullRequest>,
    /// Writes each operation that ended into `refs/notes/backstay`, beside the commit that it deployed.
    #[serde(default)]
    pub notes: bool,
}

/// Whose commits are accepted.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Verification {
    /// Keys that may sign commits, as `ssh-keygen -Y verify` takes them: every commit on the first-parent path since the
    /// last accepted one must be signed by one of them, for `git`. Read at every look; what was accepted stays.
    #[serde(default)]
    pub ssh_allowed_signers: Option<PathBuf>,
    /// Public keys of `OpenPGP` that may sign commits (`gpg --armor --export`), read as the other file is. Where both are
    /// given, a key of either may.
    #[serde(default)]
    pub openpgp_keys: Option<PathBuf>,
}

/// What happens when a followed reference is rewound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Rewind {
    /// Nothing changes until somebody accepts it.
    #[default]
    Refuse,
    /// It is followed like any other move.
    Accept,
}

/// A person, and as whom they commit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Person {
    /// Their name in the cluster.
    pub username: String,
    /// `Name <address>`: the author of commits made for them.
    pub git: GitIdentity,
}

/// The HTTP server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Http {
    /// Address and port.
    #[serde(default = "value::default_listen")]
    pub listen: Listen,
}

/// Doors for hints from Git hosts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Webhooks {
    /// `POST /hooks/github`.
    #[serde(default)]
    pub github: Hook,
    /// `POST /hooks/gitlab`.
    #[serde(default)]
    pub gitlab: Hook,
    /// `POST /hooks/gitea`: Gitea and Forgejo.
    #[serde(default)]
    pub gitea: Hook,
    /// `POST /hooks/generic`: whoever signs the body with HMAC-SHA-256.
    #[serde(default)]
    pub generic: Hook,
}

/// One door for hints: it exists when it has a secret.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Hook {
    /// File that holds the secret shared with the Git host.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The secret shared with the Git host.
    #[serde(default)]
    #[schemars(extend("writeOnly" = true))]
    pub secret: Option<Secret>,
}

/// How the daemon speaks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Log {
    /// Lines for people, or JSON.
    #[serde(default)]
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,backstay::source=debug`.
    #[serde(default = "value::default_level")]
    pub level: String,
}

/// Lines for people, or JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
    /// For people on a terminal, JSON otherwise.
    #[default]
    Auto,
}

/// Where the journal goes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Journal {
    /// A file, or `stdout`. A file of 16 MiB becomes `<path>.1`; four full ones are kept.
    #[serde(default = "value::default_journal")]
    pub path: PathBuf,
}

/// Where the daemon keeps what it can do without: the mirror of the repository.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct State {
    /// The folder.
    #[serde(default = "value::default_state")]
    pub folder: PathBuf,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("there is no configuration at `{}`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It was read, and is wrong.
    #[error("the configuration is not valid")]
    Invalid(#[source] Diagnostics),
    /// A file that it names for a secret cannot be read.
    #[error("cannot read the secret in `{}`", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Nothing of it is on this machine.
    #[error("no environment of `{}` is of this machine, `{machine}`", path.display())]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// The name of this machine.
        machine: String,
    },
    /// A file that it names for a secret is empty.
    #[error("the secret in `{}` is empty", path.display())]
    EmptySecret {
        /// The file.
        path: PathBuf,
    },
}

/// What one door for hints needs, secrets read.
#[derive(Debug, Clone, Default)]
pub struct HookSecrets {
    /// GitHub's.
    pub github: Option<Secret>,
    /// GitLab's.
    pub gitlab: Option<Secret>,
    /// Gitea's and Forgejo's.
    pub gitea: Option<Secret>,
    /// Whoever else's.
    pub generic: Option<Secret>,
}

// === impl Config ===

impl Config {
    /// Reads the text of a `backstay.toml` (absent: none) and `variables`, which win over it.
    ///
    /// `file` names the text in errors.
    ///
    /// # Errors
    ///
    /// All that is wrong, each with file, line, column and a way out; a variable is named in place of the file.
    pub fn parse(file: &str, text: Option<&str>, variables: &BTreeMap<String, String>) -> Result<Self, Diagnostics> {
        reader::read(file, text.unwrap_or_default(), variables)
    }

    /// Reads the file at `path` and `variables`, which win over it.
    ///
    /// A missing file is an error unless the variables alone are enough. Of several hosts, only what this machine serves is
    /// kept: every machine may have the same file.
    pub fn load(path: &Path, variables: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        match read_bounded(path) {
            Ok(text) => {
                let config = Self::parse(&file, Some(&text), variables).map_err(ConfigError::Invalid)?;
                config.of_machine(sys::machine_name(), path)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if variables.keys().any(|name| name == "BACKSTAY_SOURCE_URL") {
                    Self::parse(&file, None, variables).map_err(ConfigError::Invalid)
                } else {
                    Err(ConfigError::Missing { path: path.to_owned() })
                }
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    fn of_machine(mut self, machine: String, path: &Path) -> Result<Self, ConfigError> {
        self.target.retain(|target| match target.place() {
            Place::Kubernetes(_) => true,
            Place::Host(host) => host.is_served_by(&machine),
        });
        if self.target.is_empty() {
            return Err(ConfigError::Elsewhere { path: path.to_owned(), machine });
        }
        Ok(self)
    }

    /// The target that serves `environment`.
    pub fn target(&self, environment: &EnvironmentName) -> Option<&Target> {
        self.target.iter().find(|target| target.environment == *environment)
    }

    /// Everything of the agents of this machine.
    pub fn host_folder(&self) -> PathBuf {
        self.state.folder.join("host")
    }

    /// Where the API of this machine is served to its people.
    pub fn host_socket(&self) -> PathBuf {
        self.host_folder().join("api.sock")
    }

    /// The author of commits made for `username`.
    pub fn person(&self, username: &str) -> Option<&Person> {
        self.person.iter().find(|person| person.username == username)
    }
}

// === impl Source ===

impl Source {
    /// What decides whether a commit may be used.
    ///
    /// # Errors
    ///
    /// The file of allowed signers cannot be used.
    pub fn verifier(&self) -> Result<Arc<dyn Verify>, SignersError> {
        let Verification { ssh_allowed_signers: ssh, openpgp_keys: openpgp } = self.verify.clone();
        let trusted = Trusted { ssh, openpgp };
        if trusted == Trusted::default() {
            return Ok(Arc::new(NoVerification));
        }
        Ok(Arc::new(Signers::open(trusted, Arc::new(SystemClock))?))
    }

    /// As the mirror wants it. Secrets in files are read by it, whenever it needs them.
    pub fn remote(&self) -> SourceConfig {
        let given = |secret: Option<&Secret>, file: Option<&PathBuf>| match (secret, file) {
            (Some(secret), _) => Some(source::Secret::Value(secret.expose().to_owned())),
            (None, Some(file)) => Some(source::Secret::File(file.clone())),
            (None, None) => None,
        };
        let password = given(self.password.as_ref(), self.password_file.as_ref());
        let auth = if let Some(token) = given(self.token.as_ref(), self.token_file.as_ref()) {
            Auth::Token(token)
        } else if let (Some(username), Some(password)) = (self.username.clone(), password) {
            Auth::Basic { username, password }
        } else if let (Some(key), Some(known_hosts)) = (self.ssh_key.clone(), self.known_hosts.clone()) {
            let passphrase = given(self.ssh_passphrase.as_ref(), self.ssh_passphrase_file.as_ref());
            Auth::Ssh(SshKey { key, passphrase, known_hosts })
        } else {
            Auth::None
        };
        let limits = source::Limits { idle: self.timeout.0, ..source::Limits::default() };
        SourceConfig {
            url: self.url.0.clone(),
            branch: self.branch.clone(),
            interval: self.interval.0,
            auth,
            ca_file: self.ca_file.clone(),
            rewind: match self.rewind {
                Rewind::Refuse => source::Rewind::Refuse,
                Rewind::Accept => source::Rewind::Accept,
            },
            limits,
        }
    }
}

// === impl Webhooks ===

impl Webhooks {
    /// Reads the secrets of all doors that have one.
    pub fn secrets(&self) -> Result<HookSecrets, ConfigError> {
        let read = |hook: &Hook| secret(hook.secret.as_ref(), hook.secret_file.as_deref());
        Ok(HookSecrets {
            github: read(&self.github)?,
            gitlab: read(&self.gitlab)?,
            gitea: read(&self.gitea)?,
            generic: read(&self.generic)?,
        })
    }
}

// === impl ConfigError ===

impl ConfigError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some(format!(
                "name another with `--config FILE`, or write one: `[source] url`, and a `[[target]]` per environment; \
                 the default is `{DEFAULT_PATH}`"
            )),
            Self::Elsewhere { .. } => Some(
                "`[target.host] names` says which machines serve it: their host names up to the first dot, or `HOSTNAME`"
                    .to_owned(),
            ),
            Self::EmptySecret { .. } => Some("write the secret into the file, or take the key out".to_owned()),
            Self::Read { .. } | Self::Invalid(_) | Self::SecretFile { .. } => None,
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Human => "human",
            Self::Json => "json",
            Self::Auto => "auto",
        })
    }
}

/// A secret that was given, or the content of its file without the line's end.
fn secret(given: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let Some(path) = file else { return Ok(given.cloned()) };
    if let Some(given) = given {
        return Ok(Some(given.clone()));
    }
    let text = read_bounded(path).map_err(|source| ConfigError::SecretFile { path: path.to_owned(), source })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(ConfigError::EmptySecret { path: path.to_owned() }),
        text => Ok(Some(Secret::new(text))),
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
