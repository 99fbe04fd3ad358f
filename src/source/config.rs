//! Where the config repository is, how to get in, and how much is taken from it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::SourceError;

/// What the daemon's configuration says of one config repository.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Where it is.
    pub url: RemoteUrl,
    /// The branch that is followed: environments and consents are read from it.
    pub branch: String,
    /// Time between two polls, before jitter.
    pub interval: Duration,
    /// How to get in.
    pub auth: Auth,
    /// Certificates (PEM) that are trusted beside the system's, for this process.
    pub ca_file: Option<PathBuf>,
    /// Whether a reference may move to where its history does not lead.
    pub rewind: Rewind,
    /// How long and how much.
    pub limits: Limits,
}

/// How to get in.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Nothing is asked for.
    #[default]
    None,
    /// HTTPS: an access token, as GitHub, GitLab, Gitea and Bitbucket give them.
    Token(Secret),
    /// HTTPS: a user and a password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// SSH: a key.
    Ssh(SshKey),
}

/// A key for SSH, and the host keys that are trusted.
#[derive(Debug, Clone)]
pub struct SshKey {
    /// The private key.
    pub key: PathBuf,
    /// What it is encrypted with.
    pub passphrase: Option<Secret>,
    /// Host keys, in OpenSSH's format; no other file is looked into.
    pub known_hosts: PathBuf,
}

/// Something that is never shown. A file is read whenever it is needed, so that it can be replaced while running.
#[derive(Clone)]
pub enum Secret {
    /// The value itself.
    Value(String),
    /// A file that holds it; one line break at its end is cut.
    File(PathBuf),
}

/// Whether a reference may move to where its history does not lead: a rewound branch, a moved tag, another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rewind {
    /// The last accepted commit stays until a person accepts the other one.
    #[default]
    Refuse,
    /// The remote decides.
    Accept,
}

/// How long and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection is there.
    pub connect: Duration,
    /// Without a byte from the remote.
    pub idle: Duration,
    /// For one listing of references, one fetch or one push as a whole.
    pub whole: Duration,
    /// References the remote may show, in as many times half a KiB.
    pub refs: usize,
    /// Bytes of one fetch.
    pub bytes: usize,
    /// Objects of one fetch.
    pub objects: usize,
}

/// The address of a repository: `https://`, `http://`, `ssh://`, `user@host:path`, `file://`, or a path.
///
/// Never holds a secret: an address with a password in it is refused.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    text: String,
    kind: Kind,
}

/// The text is no address of a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address of the repository cannot be used: {why}")]
pub struct InvalidUrl {
    /// What is wrong; never the text itself, which may hold a password.
    pub why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Local(PathBuf),
    Http { host: String },
    Https { host: String },
    Ssh { user: Option<String>, host: String },
}

// === impl SourceConfig ===

impl SourceConfig {
    /// A configuration with the defaults: branch `main`, every 30 s, nothing to get in with, rewinds refused.
    pub fn new(url: RemoteUrl) -> Self {
        Self {
            url,
            branch: "main".to_owned(),
            interval: Duration::from_secs(30),
            auth: Auth::None,
            ca_file: None,
            rewind: Rewind::Refuse,
            limits: Limits::default(),
        }
    }

    /// Finds what does not fit together.
    ///
    /// # Errors
    ///
    /// A branch that cannot exist, or a way in that the address has no use for.
    pub fn check(&self) -> Result<(), SourceError> {
        if !git2::Reference::is_valid_name(&format!("refs/heads/{}", self.branch)) {
            return Err(SourceError::Config {
                why: format!("`{}` cannot be the name of a branch", self.branch.escape_debug()),
                hint: "give the branch as `git branch` shows it, without `refs/heads/`",
            });
        }
        let fits = match (&self.url.kind, &self.auth) {
            (Kind::Ssh { .. }, Auth::Ssh(_))
            | (Kind::Local(_) | Kind::Http { .. } | Kind::Https { .. }, Auth::None)
            | (Kind::Http { .. } | Kind::Https { .. }, Auth::Token(_) | Auth::Basic { .. }) => None,
            (Kind::Ssh { .. }, Auth::None | Auth::Token(_) | Auth::Basic { .. }) => {
                Some("an address with SSH needs `ssh_key` and `known_hosts`")
            }
            (Kind::Local(_), Auth::Token(_) | Auth::Basic { .. } | Auth::Ssh(_)) => {
                Some("a path needs nothing to get in with: take the token, password or key out")
            }
            (Kind::Http { .. } | Kind::Https { .. }, Auth::Ssh(_)) => {
                Some("an address with HTTP takes a token or a password, not an SSH key")
            }
        };
        match fits {
            None => Ok(()),
            Some(hint) => {
                Err(SourceError::Config { why: format!("the way in does not fit the address `{}`", self.url), hint })
            }
        }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            whole: Duration::from_mins(15),
            refs: 50_000,
            bytes: 2 << 30,
            objects: 10_000_000,
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Its value, read now.
    pub(crate) fn reveal(&self) -> Result<String, SourceError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| SourceError::File {
                    deed: "read the secret",
                    path: path.clone(),
                    why: error.to_string(),
                })?;
                Ok(text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line)).to_owned())
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Secret(…)"),
            Self::File(path) => write!(f, "Secret({})", path.display()),
        }
    }
}

// === impl RemoteUrl ===

impl RemoteUrl {
    /// The folder, when the address is one.
    pub fn local(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Local(path) => Some(path),
            Kind::Http { .. } | Kind::Https { .. } | Kind::Ssh { .. } => None,
        }
    }

    /// The host, when there is one.
    pub fn host(&self) -> Option<&str> {
        match &self.kind {
            Kind::Local(_) => None,
            Kind::Http { host } | Kind::Https { host } | Kind::Ssh { host, .. } => Some(host),
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// What libgit2 is given.
    pub(super) fn target(&self) -> std::borrow::Cow<'_, str> {
        match &self.kind {
            Kind::Local(path) => path.to_string_lossy(),
            Kind::Http { .. } | Kind::Https { .. } | Kind::Ssh { .. } => (&*self.text).into(),
        }
    }
}

/// User, password and host of the part between `//` and the next `/`.
fn authority(rest: &str) -> Result<(Option<&str>, bool, String), InvalidUrl> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let bare = match host.strip_prefix('[') {
        Some(six) => six.split_once(']').map_or("", |(host, _)| host),
        None => host.split(':').next().unwrap_or_default(),
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if bare.is_empty() || !bare.bytes().all(legal) || bare.starts_with('-') {
        return Err(InvalidUrl { why: "it names no host" });
    }
    let (user, password) = user.map_or((None, false), |user| match user.split_once(':') {
        Some((user, _)) => (Some(user), true),
        None => (Some(user), false),
    });
    Ok((user, password, bare.to_ascii_lowercase()))
}

impl FromStr for RemoteUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        const PASSWORD: InvalidUrl =
            InvalidUrl { why: "it holds a user or password; give them as `username`, `password_file` or `token_file`" };
        let done = |kind| Ok(Self { text: text.to_owned(), kind });
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace() && c != ' ') {
            return Err(InvalidUrl { why: "it is empty or holds a line break" });
        }
        if let Some(path) = text.strip_prefix("file://") {
            let path = path.strip_prefix("localhost").unwrap_or(path);
            return if path.starts_with('/') {
                done(Kind::Local(path.into()))
            } else {
                Err(InvalidUrl { why: "`file://` is followed by an absolute path" })
            };
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme {
                "https" | "http" => {
                    let (user, password, host) = authority(rest)?;
                    if user.is_some() || password {
                        return Err(PASSWORD);
                    }
                    done(if scheme == "https" { Kind::Https { host } } else { Kind::Http { host } })
                }
                "ssh" => {
                    let (user, password, host) = authority(rest)?;
                    if password {
                        return Err(PASSWORD);
                    }
                    done(Kind::Ssh { user: user.map(str::to_owned), host })
                }
                _ => Err(InvalidUrl { why: "only `https://`, `http://`, `ssh://`, `file://` and paths are spoken" }),
            };
        }
        match text.split_once(':') {
            Some((before, after)) if !before.contains('/') => {
                if after.starts_with(':') {
                    return Err(InvalidUrl { why: "helper programs are not run" });
                }
                let (user, password, host) = authority(before)?;
                if password { Err(PASSWORD) } else { done(Kind::Ssh { user: user.map(str::to_owned), host }) }
            }
            _ => done(Kind::Local(text.into())),
        }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_passwords_refused() {
        let host = |text: &str| text.parse::<RemoteUrl>().map(|url| url.host().map(str::to_owned));
        assert_eq!(host("https://Git.example.com/a/b.git"), Ok(Some("git.example.com".to_owned())));
        assert_eq!(host("http://127.0.0.1:8080/a"), Ok(Some("127.0.0.1".to_owned())));
        assert_eq!(host("ssh://git@[::1]:22/a"), Ok(Some("::1".to_owned())));
        assert_eq!(host("git@github.com:acme/agents.git"), Ok(Some("github.com".to_owned())));
        assert_eq!(host("/srv/git/agents.git"), Ok(None));
        assert_eq!(host("file:///srv/git/agents.git"), Ok(None));
        for bad in [
            "",
            "git://host/a",
            "https://user:secret@host/a",
            "https://token@host/a",
            "https:///a",
            "ext::sh -c x",
            "ssh://git:pw@host/a",
            "ssh://-oProxyCommand=x/a",
            "file://host/a",
            "a\nb",
        ] {
            let error = bad.parse::<RemoteUrl>().expect_err(bad);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_way_in_fits_the_address() {
        let config = |url: &str, auth| SourceConfig { auth, ..SourceConfig::new(url.parse().expect("an address")) };
        let token = || Auth::Token(Secret::Value("t".to_owned()));
        let key = || Auth::Ssh(SshKey { key: "k".into(), passphrase: None, known_hosts: "h".into() });
        assert_eq!(config("https://h/a", token()).check(), Ok(()));
        assert_eq!(config("ssh://git@h/a", key()).check(), Ok(()));
        assert_eq!(config("/a", Auth::None).check(), Ok(()));
        for bad in [config("/a", token()), config("ssh://h/a", Auth::None), config("https://h/a", key())] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let branch = SourceConfig { branch: "a..b".to_owned(), ..config("/a", Auth::None) };
        assert!(branch.check().is_err());
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert!(!format!("{:?}", Auth::Token(Secret::Value("hush".to_owned()))).contains("hush"));
    }
}
