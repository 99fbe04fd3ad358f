//! What a keeper is told: one file in the folder of its instance.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sys::{Limit, Listen};

/// The newest form of the file that this program reads.
pub const FORMAT: u32 = 1;
/// Name of the file in the folder.
pub const FILE: &str = "spec.json";
/// Bytes of the file at most.
pub const LONGEST: u64 = 1 << 20;
/// Bytes of a command with its arguments at most: the kernel gives one argument 128 KiB.
const COMMAND: usize = 64 << 10;
/// Longest time that may be asked for, in milliseconds: a week.
const LONGEST_TIME: u64 = 7 * 24 * 3_600_000;

/// Everything that one instance of an agent is run with. Written before its keeper starts; read again by each keeper of that folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// [`FORMAT`].
    pub format: u32,
    /// The instance, unique on this machine: letters, digits, `-`, `_`, `.`, at most 64.
    pub instance: String,
    /// Chance that tells this launch from every other one of the same name: letters and digits, 8 to 64.
    pub nonce: String,
    /// The agent (and worker) that this is an instance of, for people.
    pub agent: String,
    /// The release it runs, whole id.
    pub release: String,
    /// Who launched it: callers with a lower epoch are refused.
    pub epoch: u64,
    /// The program, an absolute path.
    pub command: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// The environment, whole: nothing is inherited. Added are only `BACKSTAY_INSTANCE`, and where they are missing `HOME`, `TMPDIR` and
    /// `XDG_CACHE_HOME`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables whose values stand in files that only the agent may read: they are read before each start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_files: BTreeMap<String, EnvFile>,
    /// Variables with such values in their text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_texts: BTreeMap<String, Vec<EnvPart>>,
    /// Where it starts, an absolute path.
    pub working_dir: PathBuf,
    /// Folders that are its own to write.
    pub writable: Writable,
    /// Permissions that its new files do not get.
    #[serde(default = "Spec::mask")]
    pub umask: u32,
    /// Limits of each of its processes.
    #[serde(default)]
    pub limits: BTreeMap<Limit, u64>,
    /// A cgroup (version 2) of its own, where the account of the keeper owns one.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Where it listens, if it does. A socket left there by an earlier run is removed before each start.
    #[serde(default)]
    pub listen: Option<Listen>,
    /// How it is stopped.
    pub stop: Stop,
    /// What happens when it ends.
    pub restart: Restart,
    /// What becomes of what it writes to its standard output and error.
    pub log: Log,
    /// Whether it is killed at once when its keeper dies, instead of being taken over by the next one.
    #[serde(default)]
    pub dies_with_keeper: bool,
    /// Whether only its first process is its own: what that starts goes on when it ends. So is a daemon held, which starts
    /// keepers of agents.
    #[serde(default)]
    pub alone: bool,
    /// Users that may command the keeper, beside its own and root.
    #[serde(default)]
    pub trusted_uids: BTreeSet<u32>,
}

/// A file that holds the value of a variable: text, at most 1 MiB; one line's end at its end is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvFile {
    /// The file, an absolute path.
    pub path: PathBuf,
    /// Whether the agent starts without the variable where there is no such file.
    #[serde(default)]
    pub optional: bool,
}

/// A part of a variable's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum EnvPart {
    /// As it is.
    Text(String),
    /// What stands in a file that only the agent may read.
    File {
        /// The file.
        file: EnvFile,
        /// What stands here where there is no such file, and need not be one.
        otherwise: String,
    },
}

/// Folders that are made before the first start, mode 0700, and are the instance's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Writable {
    /// `HOME`.
    pub home: PathBuf,
    /// `TMPDIR`.
    pub tmp: PathBuf,
    /// `XDG_CACHE_HOME`.
    pub cache: PathBuf,
}

/// How an agent is stopped: the command first, then SIGTERM, and SIGKILL to all that is left when the grace is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stop {
    /// Run as the agent and in its cage before SIGTERM. Its time is part of the grace; SIGTERM has two seconds at least.
    #[serde(default)]
    pub pre_stop: Option<Vec<String>>,
    /// Milliseconds from the beginning of a stop to SIGKILL.
    pub grace_ms: u64,
}

/// When an agent that ended is started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restart {
    /// After which ends.
    pub policy: Policy,
    /// Milliseconds before the first start after an end; each further one in a row waits twice as long.
    pub first_ms: u64,
    /// Milliseconds that are never exceeded.
    pub most_ms: u64,
    /// An agent that ran for so many milliseconds was well: counting begins anew.
    pub stable_ms: u64,
}

/// After which ends an agent is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// After each.
    Always,
    /// After each but status 0.
    OnFailure,
    /// Never.
    Never,
}

/// What is kept of an agent's output.
///
/// At most `files` × `maxBytes` lie on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Log {
    /// Its folder, made where it is missing.
    pub folder: PathBuf,
    /// Bytes after which a new file is begun, at least 4096.
    pub max_bytes: u64,
    /// Seconds after which a new file is begun; 0: never for that reason.
    pub max_age_s: u64,
    /// Files that are kept, at least 2.
    pub files: u32,
}

/// Why a spec cannot be used.
#[derive(Debug, Error)]
pub enum SpecError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what a keeper can read.
    #[error("`{}` is not a spec of a keeper", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A field has a value that cannot be.
    #[error("the keeper's spec: {0}")]
    Wrong(String),
}

// === impl Spec ===

impl Spec {
    /// Reads and checks the spec in a folder.
    pub fn read(folder: &Path) -> Result<Self, SpecError> {
        let path = folder.join(FILE);
        let text = super::file::read(&path, LONGEST);
        let text = text.map_err(|source| SpecError::Unreadable { path: path.clone(), source })?;
        let spec: Self = serde_json::from_slice(&text).map_err(|source| SpecError::Malformed { path, source })?;
        spec.check()?;
        Ok(spec)
    }

    /// Checks a spec and writes it into a folder, mode 0600, whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<(), SpecError> {
        self.check()?;
        let path = folder.join(FILE);
        let text =
            serde_json::to_vec_pretty(self).map_err(|source| SpecError::Malformed { path: path.clone(), source })?;
        super::file::replace(&path, &text).map_err(|source| SpecError::Unreadable { path, source })
    }

    /// The variable by which all processes of this launch are known, `NAME=value`.
    pub fn mark(&self) -> String {
        format!("BACKSTAY_INSTANCE={}", self.mark_value())
    }

    /// The whole environment of the agent.
    ///
    /// # Errors
    ///
    /// A file of a variable cannot be read, or is no text.
    pub fn environment(&self) -> io::Result<BTreeMap<String, String>> {
        let mut env = self.env.clone();
        for (name, file) in &self.env_files {
            if let Some(value) = file.read(name)? {
                env.insert(name.clone(), value);
            }
        }
        for (name, parts) in &self.env_texts {
            let text = parts.iter().map(|part| part.read(name)).collect::<io::Result<String>>()?;
            env.insert(name.clone(), text);
        }
        let folders =
            [("HOME", &self.writable.home), ("TMPDIR", &self.writable.tmp), ("XDG_CACHE_HOME", &self.writable.cache)];
        for (name, folder) in folders {
            env.entry(name.to_owned()).or_insert_with(|| folder.display().to_string());
        }
        env.insert("BACKSTAY_INSTANCE".to_owned(), self.mark_value());
        Ok(env)
    }

    /// Checks what the types do not say.
    pub fn check(&self) -> Result<(), SpecError> {
        let wrong = |what: String| Err(SpecError::Wrong(what));
        if self.format != FORMAT {
            return wrong(format!("format {} is not known; this keeper reads {FORMAT}", self.format));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=64).contains(&self.instance.len()) || !self.instance.chars().all(plain) {
            return wrong("`instance` has 1 to 64 letters, digits, `-`, `_` and `.`".to_owned());
        }
        if !(8..=64).contains(&self.nonce.len()) || !self.nonce.chars().all(|c| c.is_ascii_alphanumeric()) {
            return wrong("`nonce` has 8 to 64 letters and digits".to_owned());
        }
        let paths = [
            ("command", &self.command),
            ("workingDir", &self.working_dir),
            ("writable.home", &self.writable.home),
            ("writable.tmp", &self.writable.tmp),
            ("writable.cache", &self.writable.cache),
            ("log.folder", &self.log.folder),
        ];
        if let Some((field, path)) = paths.into_iter().find(|(_, path)| !path.is_absolute()) {
            return wrong(format!("`{field}` is `{}`, and must be an absolute path", path.display()));
        }
        let parts = self.env_texts.values().flatten().map(EnvPart::written);
        let texts = self.args.iter().chain(self.env.values()).chain(self.stop.pre_stop.iter().flatten()).chain(parts);
        if texts.into_iter().any(|text| text.contains('\0')) {
            return wrong("no argument and no variable can hold a zero byte".to_owned());
        }
        let names = self.env.keys().chain(self.env_files.keys()).chain(self.env_texts.keys());
        if names.into_iter().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return wrong("`env` has a name that is empty or holds `=`".to_owned());
        }
        if self.args.iter().map(|arg| arg.len() + 1).sum::<usize>() + self.command.as_os_str().len() > COMMAND {
            return wrong(format!("the command is longer than {COMMAND} bytes"));
        }
        if self.stop.pre_stop.as_ref().is_some_and(Vec::is_empty) {
            return wrong("`stop.preStop` has no program".to_owned());
        }
        let restart = &self.restart;
        let times = [self.stop.grace_ms, restart.first_ms, restart.most_ms, restart.stable_ms];
        if times.into_iter().any(|time| time > LONGEST_TIME)
            || restart.first_ms == 0
            || restart.first_ms > restart.most_ms
        {
            return wrong("times are at most a week, and `restart.firstMs` is 1 to `restart.mostMs`".to_owned());
        }
        if self.log.max_bytes < 4096 || self.log.files < 2 {
            return wrong("`log` keeps 2 files or more, of 4096 bytes or more".to_owned());
        }
        Ok(())
    }

    fn mark_value(&self) -> String {
        format!("{}:{}", self.instance, self.nonce)
    }

    fn mask() -> u32 {
        0o077
    }
}

// === impl EnvFile ===

impl EnvFile {
    /// The value of the variable `name`; none where there need not be one.
    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let cannot = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot read `{name}` from `{}`: {error}", self.path.display()))
        };
        let bytes = match super::file::read(&self.path, LONGEST) {
            Err(error) if self.optional && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(cannot)?,
        };
        let text = String::from_utf8(bytes).map_err(|_| cannot(io::Error::other("it is no text")))?;
        Ok(Some(text.strip_suffix('\n').map_or_else(|| text.clone(), str::to_owned)))
    }
}

// === impl EnvPart ===

impl EnvPart {
    /// What of it stands in the spec.
    fn written(&self) -> &String {
        match self {
            Self::Text(text) | Self::File { otherwise: text, .. } => text,
        }
    }

    /// What it is in the variable `name`.
    fn read(&self, name: &str) -> io::Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File { file, otherwise } => Ok(file.read(name)?.unwrap_or_else(|| otherwise.clone())),
        }
    }
}

// === impl Restart ===

impl Restart {
    /// How long to wait before the next start, after so many ends in a row (1 for the first); in milliseconds.
    pub fn delay_ms(&self, ends: u32) -> u64 {
        let doubled = 1_u64.checked_shl(ends.saturating_sub(1)).unwrap_or(u64::MAX);
        self.first_ms.saturating_mul(doubled).min(self.most_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_text_of_its_file_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let file = |optional| EnvFile { path: path.clone(), optional };
        assert_eq!(file(true).read("KEY").unwrap(), None);
        let why = file(false).read("KEY").unwrap_err().to_string();
        assert!(why.starts_with("cannot read `KEY` from `/"), "{why}");
        std::fs::write(&path, "one\n\n").unwrap();
        assert_eq!(file(false).read("KEY").unwrap().as_deref(), Some("one\n"));
    }

    #[test]
    fn a_text_has_what_stands_in_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let part = |path: &Path, optional| EnvPart::File {
            file: EnvFile { path: path.to_owned(), optional },
            otherwise: "$(KEY)".to_owned(),
        };
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(part(&path, false).read("URL").unwrap(), "one");
        let gone = folder.path().join("gone");
        assert_eq!(part(&gone, true).read("URL").unwrap(), "$(KEY)", "as on a cluster");
        let why = part(&gone, false).read("URL").unwrap_err().to_string();
        assert!(why.starts_with("cannot read `URL` from `/"), "{why}");
    }

    #[test]
    fn each_start_in_a_row_waits_twice_as_long_up_to_the_most() {
        let restart = Restart { policy: Policy::Always, first_ms: 100, most_ms: 1500, stable_ms: 1 };
        let delays = (0..=6).map(|ends| restart.delay_ms(ends)).collect::<Vec<_>>();
        assert_eq!(delays, [100, 100, 200, 400, 800, 1500, 1500]);
        assert_eq!(restart.delay_ms(u32::MAX), 1500);
    }
}
