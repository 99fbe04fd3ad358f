//! Why something in this room did not work, and the way out.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::{CommitId, one_line};

/// Why something in this room did not work. `Display` says what, [`SourceError::hint`] the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The configuration does not fit together.
    #[error("the source cannot be used: {why}")]
    Config {
        /// What does not fit.
        why: String,
        /// The way out.
        hint: &'static str,
    },
    /// libgit2 does not take a setting.
    #[error("cannot {deed}: {why}")]
    Setup {
        /// What was tried.
        deed: &'static str,
        /// What it said.
        why: String,
    },
    /// A file or folder of this machine.
    #[error("cannot {deed} `{}`: {why}", path.display())]
    File {
        /// What was tried.
        deed: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Another process keeps this mirror.
    #[error("the mirror `{}` is kept by another process", folder.display())]
    Busy {
        /// Its folder.
        folder: PathBuf,
    },
    /// No connection.
    #[error("cannot reach `{url}`: {why}")]
    Unreachable {
        /// The remote.
        url: String,
        /// What happened.
        why: String,
    },
    /// The remote was silent, or a fetch took too long.
    #[error("`{url}` took longer than {} s {what}", limit.as_secs_f32())]
    Timeout {
        /// The remote.
        url: String,
        /// To do what.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The remote shows no repository there.
    #[error("there is no Git repository at `{url}`: {why}")]
    NoRepository {
        /// The remote.
        url: String,
        /// What it said.
        why: String,
    },
    /// The remote does not let us in.
    #[error("`{url}` does not let us in: {why}")]
    Refused {
        /// The remote.
        url: String,
        /// What it said.
        why: String,
    },
    /// The remote's SSH host key is not in `known_hosts`.
    #[error("the host key of `{host}` is not known: it shows {kind} {fingerprint}")]
    HostKey {
        /// The host.
        host: String,
        /// The kind of key, as in `known_hosts`.
        kind: String,
        /// `SHA256:…`, as `ssh-keygen -l` shows it.
        fingerprint: String,
        /// Where it should be.
        known_hosts: PathBuf,
        /// Whether the file says that this very key is revoked.
        revoked: bool,
    },
    /// The remote's TLS certificate is not trusted.
    #[error("the certificate of `{url}` is not trusted: {why}")]
    Certificate {
        /// The remote.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The remote sends us to another host.
    #[error("`{url}` sends us elsewhere: {why}")]
    Redirect {
        /// The remote.
        url: String,
        /// Where to.
        why: String,
    },
    /// The remote has or sends more than is taken.
    #[error("`{url}` has more than {limit} {what}")]
    TooMuch {
        /// The remote.
        url: String,
        /// What is too much.
        what: &'static str,
        /// How much is taken.
        limit: usize,
    },
    /// The remote says something that is not understood.
    #[error("cannot {deed} `{url}`: {why}")]
    Remote {
        /// What was tried.
        deed: &'static str,
        /// The remote.
        url: String,
        /// What it said.
        why: String,
    },
    /// An object that should be there is missing or damaged; the mirror is made anew at the next poll.
    #[error("the mirror is damaged: {why}")]
    Damaged {
        /// What was found.
        why: String,
    },
    /// A name points at nothing, or at something that is no commit.
    #[error("`{name}` is no commit here: {why}")]
    NoCommit {
        /// The name or id.
        name: String,
        /// Why not.
        why: String,
    },
    /// The accepted commit is gone from the remote and the mirror.
    #[error("the accepted commit {commit} of `{reference}` is neither in the mirror nor at the remote any more")]
    Lost {
        /// Where it was.
        reference: String,
        /// The commit.
        commit: CommitId,
    },
    /// libgit2 ended in a way it should not.
    #[error("cannot {deed}: {why}")]
    Internal {
        /// What was tried.
        deed: &'static str,
        /// What happened.
        why: String,
    },
}

// === impl SourceError ===

impl SourceError {
    /// The kind of it as one word, for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } | Self::Setup { .. } => "InvalidSource",
            Self::File { .. } => "FileUnusable",
            Self::Busy { .. } => "MirrorBusy",
            Self::Unreachable { .. } => "Unreachable",
            Self::Timeout { .. } => "Timeout",
            Self::NoRepository { .. } => "NoRepository",
            Self::Refused { .. } => "AccessRefused",
            Self::HostKey { .. } => "UnknownHostKey",
            Self::Certificate { .. } => "UntrustedCertificate",
            Self::Redirect { .. } => "RedirectRefused",
            Self::TooMuch { .. } => "TooLarge",
            Self::Remote { .. } => "RemoteFailed",
            Self::Damaged { .. } => "MirrorDamaged",
            Self::NoCommit { .. } => "NoCommit",
            Self::Lost { .. } => "CommitLost",
            Self::Internal { .. } => "Internal",
        }
    }

    /// The way out, in one sentence without a full stop.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Config { hint, .. } => (*hint).to_owned(),
            Self::File { .. } => {
                "look at the path, at who may read and write there, and at the room on its disk".to_owned()
            }
            Self::Busy { .. } => "stop the other process, or give this one a state folder of its own".to_owned(),
            Self::Unreachable { .. } => {
                "what runs stays as it is; it is tried again, and `git ls-remote` from this machine shows more"
                    .to_owned()
            }
            Self::Timeout { .. } => "what runs stays as it is; it is tried again".to_owned(),
            Self::NoRepository { .. } => {
                "look at `[source] url`, and whether this account may see the repository".to_owned()
            }
            Self::Refused { .. } => {
                "look at the token, password or key, and whether it may read the repository".to_owned()
            }
            Self::HostKey { revoked: true, known_hosts, .. } => {
                format!("`{}` says that this key is revoked: somebody may be in between", known_hosts.display())
            }
            Self::HostKey { host, known_hosts, .. } => format!(
                "compare the fingerprint with the one the host publishes; if it is right: `ssh-keyscan {host} >> {}`",
                known_hosts.display()
            ),
            Self::Certificate { .. } => "name the certificate authority in `[source] ca_file`".to_owned(),
            Self::Redirect { .. } => "give the address it leads to as `[source] url`, if you trust it".to_owned(),
            Self::TooMuch { .. } => "raise the limit in `[source]`, or look what was pushed".to_owned(),
            Self::Damaged { .. } => "nothing: it is made anew from the remote at the next poll".to_owned(),
            Self::Lost { commit, .. } => format!(
                "push a branch or tag that holds it, or accept what the remote has: `backstay sync --accept-rewind` \
                 with the commit that shall take the place of {}",
                commit.short()
            ),
            Self::NoCommit { .. } => "`git log --all` shows what there is".to_owned(),
            Self::Setup { .. } | Self::Remote { .. } | Self::Internal { .. } => return None,
        };
        Some(hint)
    }
}

/// Text of a remote, without what could steer a terminal, and short.
pub(super) fn plain(text: &str) -> String {
    let mut plain = one_line(text.trim(), 500, ' ');
    plain.truncate(plain.trim_end().len());
    plain
}
