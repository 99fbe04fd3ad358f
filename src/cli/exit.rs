//! How a command ends, and what is said when it does not end well.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::daemon::config::ConfigError;
use crate::daemon::telemetry::TelemetryError;
use crate::daemon::{DaemonError, GitError, HostError};
use crate::model::Diagnostics;
use crate::observe::ConnectError;
use crate::reconcile::{Failure, FailureKind};
use crate::source::SourceError;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or yes.
    Done = 0,
    /// The answer is no: invalid, different, not Ready.
    No = 1,
    /// It was not asked rightly.
    Usage = 2,
    /// It was asked rightly, and refused.
    Refused = 3,
    /// It was begun, and has not ended in time.
    Waiting = 4,
    /// Something that it needs is broken or away.
    Broken = 5,
}

/// Why a command did not end well: a sentence, its causes, and the way out.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
    diagnostics: Option<Diagnostics>,
}

// === impl Exit ===

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

// === impl CliError ===

impl CliError {
    /// Something that was not asked rightly.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), source: None, hint: None, diagnostics: None }
    }

    /// Files that are wrong, drawn before the message.
    pub(super) fn invalid(exit: Exit, message: impl Into<String>, diagnostics: Diagnostics) -> Self {
        Self { diagnostics: Some(diagnostics), ..Self::new(exit, message) }
    }

    /// Adds the way out.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The way out, if there is one.
    pub(super) fn way_out(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What is wrong with a file, drawn in place of the message.
    pub(super) fn diagnostics(&self) -> Option<&Diagnostics> {
        self.diagnostics.as_ref()
    }

    /// The causes, the nearest first.
    pub(super) fn causes(&self) -> Vec<String> {
        let mut said = self.message.clone();
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some errors repeat in their own words what their source says.
            if !said.contains(&text) {
                causes.push(text.clone());
            }
            said = text;
            next = cause.source();
        }
        causes
    }

    /// Whether whoever read the output went away: nothing to complain about.
    pub(super) fn is_closed_pipe(&self) -> bool {
        let cause = self.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
        cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// Writing to standard output failed.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Broken, "cannot write the output").because(error)
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::Missing { .. } | ConfigError::Invalid(_) | ConfigError::Elsewhere { .. } => Exit::Usage,
            ConfigError::Read { .. } | ConfigError::SecretFile { .. } | ConfigError::EmptySecret { .. } => Exit::Broken,
        };
        let (message, hint) = (error.to_string(), error.hint());
        let own = Self { hint, ..Self::new(exit, message) };
        match error {
            ConfigError::Invalid(diagnostics) => Self { diagnostics: Some(diagnostics), ..own },
            ConfigError::Read { source, .. } | ConfigError::SecretFile { source, .. } => own.because(source),
            ConfigError::Missing { .. } | ConfigError::Elsewhere { .. } | ConfigError::EmptySecret { .. } => own,
        }
    }
}

impl From<TelemetryError> for CliError {
    fn from(error: TelemetryError) -> Self {
        let exit = match error {
            TelemetryError::Level { .. } => Exit::Usage,
            TelemetryError::Twice => Exit::Broken,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Git(GitError::Source(source)) => source.into(),
            DaemonError::Git(GitError::Signers(_) | GitError::Sign(_)) => {
                let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                Self::new(Exit::Refused, why).hint("look at `[source.verify]` and `[source] signing_key`")
            }
            DaemonError::Connect { environment, source } => {
                let of = Self::from(source);
                Self { message: format!("{} (environment `{environment}`)", of.message), ..of }
            }
            DaemonError::Person(_) | DaemonError::PullRequest(_) => Self::new(Exit::Usage, error.to_string()),
            DaemonError::Journal(source) => Self::new(Exit::Broken, "cannot open the journal")
                .because(source)
                .hint("`[journal] path` is a file, or `stdout`"),
            DaemonError::Host { source, environment } => {
                let hint = match source {
                    HostError::Taken { .. } | HostError::Listen(_) => {
                        "one daemon serves a host: stop the other one, or give this one a `[state] folder` of its own"
                    }
                    HostError::Folder { .. }
                    | HostError::Lock(_)
                    | HostError::Store(_)
                    | HostError::Artifacts(_)
                    | HostError::Supervisor(_) => {
                        "the daemon needs a `[state] folder` that it may write, on a local disk"
                    }
                };
                Self::new(Exit::Broken, format!("cannot serve `{environment}` on this host")).because(source).hint(hint)
            }
            DaemonError::SecondHost { .. } => Self::new(Exit::Usage, error.to_string())
                .hint("run a daemon of its own for the other, with its own `[state] folder`, `[proxy]` and `[http]`"),
            DaemonError::Ended(_) => Self::new(Exit::Broken, error.to_string()),
        }
    }
}

impl From<ConnectError> for CliError {
    fn from(error: ConnectError) -> Self {
        let (exit, hint) = match error {
            ConnectError::Kubeconfig { .. } => (
                Exit::Usage,
                "name a kubeconfig with `--kubeconfig FILE` or in KUBECONFIG, and one of its contexts with `--context`",
            ),
            ConnectError::RunsProgram { .. } => (Exit::Refused, "use a kubeconfig with a token or a certificate"),
            ConnectError::InCluster(_) | ConnectError::Client(_) => {
                (Exit::Broken, "check the address and the certificates of the API server")
            }
        };
        let message = error.to_string();
        let own = Self::new(exit, message).hint(hint);
        match std::error::Error::source(&error) {
            Some(_) => own.because(error),
            None => own,
        }
    }
}

impl From<SourceError> for CliError {
    fn from(error: SourceError) -> Self {
        let exit = match error {
            SourceError::NoCommit { .. } | SourceError::NoRepository { .. } | SourceError::Config { .. } => Exit::Usage,
            SourceError::Refused { .. }
            | SourceError::HostKey { .. }
            | SourceError::Certificate { .. }
            | SourceError::Redirect { .. }
            | SourceError::TooMuch { .. } => Exit::Refused,
            SourceError::Setup { .. }
            | SourceError::File { .. }
            | SourceError::Busy { .. }
            | SourceError::Unreachable { .. }
            | SourceError::Timeout { .. }
            | SourceError::Remote { .. }
            | SourceError::Damaged { .. }
            | SourceError::Lost { .. }
            | SourceError::Internal { .. } => Exit::Broken,
        };
        Self { hint: error.hint(), ..Self::new(exit, error.to_string()) }
    }
}

/// An exchange with the API server failed.
impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let (exit, hint) = match failure.kind {
            FailureKind::Gone => (Exit::Usage, None),
            FailureKind::Refused
            | FailureKind::Immutable
            | FailureKind::Gate
            | FailureKind::Fenced
            | FailureKind::Exists => (Exit::Refused, None),
            FailureKind::Forbidden => (
                Exit::Refused,
                Some("the API server decides by your own rights: `kubectl auth can-i update agentreleases` tells"),
            ),
            FailureKind::Conflict => (Exit::Broken, Some("somebody else wrote at the same moment: try again")),
            FailureKind::Unavailable { .. } => {
                (Exit::Broken, Some("is this the right cluster? `--context` and `--kubeconfig` name another"))
            }
        };
        Self { hint: hint.map(str::to_owned), ..Self::new(exit, failure.message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_exit() {
        let exit = |kind| CliError::from(Failure { kind, message: "cannot".to_owned() }).exit();
        assert_eq!(exit(FailureKind::Gone), Exit::Usage);
        assert_eq!(exit(FailureKind::Forbidden), Exit::Refused);
        assert_eq!(exit(FailureKind::Conflict), Exit::Broken);
        assert_eq!(exit(FailureKind::Unavailable { retry_after: None }), Exit::Broken);
        for kind in
            [FailureKind::Refused, FailureKind::Immutable, FailureKind::Gate, FailureKind::Fenced, FailureKind::Exists]
        {
            assert_eq!(exit(kind), Exit::Refused);
        }
    }

    #[test]
    fn a_closed_pipe_is_no_complaint() {
        let closed = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(closed.is_closed_pipe());
        let full = CliError::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!full.is_closed_pipe());
        assert_eq!(full.causes(), ["no storage space"]);
    }

    #[test]
    fn a_hint_is_kept() {
        let error = CliError::usage("no").hint("do this");
        assert_eq!((error.way_out(), error.exit()), (Some("do this"), Exit::Usage));
        assert_eq!(CliError::from(TelemetryError::Twice).exit(), Exit::Broken);
    }
}
