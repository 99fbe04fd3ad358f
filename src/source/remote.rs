//! Talking to the remote: what it has, its objects, and ours to it. Everything here has a limit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, Oid,
    PushOptions, RemoteCallbacks, RemoteRedirect, Repository,
};

use super::config::Kind;
use super::error::plain;
use super::wire::{Meter, Over};
use super::{Auth, Limits, PushError, Secret, SourceConfig, SourceError, SshKey, hermetic};
use crate::model::CommitId;

/// Times that one connection may ask for a key or password: a refused one is asked for again and again.
const ATTEMPTS: u32 = 2;
/// Bytes that one reference takes in a list, and what is said around the list.
const REFERENCE: usize = 512;
const AROUND: usize = 1 << 20;
/// What is kept of a server's talk during a push.
const TALK: usize = 2048;

/// The references that the remote shows: all of `refs/heads/` and `refs/tags/`, and our notes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Full name and what it points at: a commit, or a tag's own object.
    pub(super) refs: BTreeMap<String, Oid>,
    /// Where our notes are.
    pub(super) notes: Option<Oid>,
    /// References with a name that cannot be used.
    pub(super) ignored: usize,
}

/// What one connection went through, for the words of its failure.
struct Talk<'a> {
    config: &'a SourceConfig,
    meter: Meter,
    began: Instant,
    attempts: u32,
    over: Option<SourceError>,
    host_key: Option<(String, String, bool)>,
    said: Vec<u8>,
    refused: Vec<String>,
    /// What was given to the remote to get in, in each form: it may say it back.
    told: Vec<String>,
}

/// Lists what the remote has, and downloads what `wanted` says of it before the connection is closed.
///
/// `folder` may be written to; `wanted` gets the listing and names references to bring, all of whose objects are then
/// in `repository`.
pub(super) fn fetch(
    repository: &Repository,
    config: &SourceConfig,
    folder: &Path,
    wanted: impl FnOnce(&Listing) -> Result<Vec<String>, SourceError>,
) -> Result<Listing, SourceError> {
    let talk = RefCell::new(Talk::new(config));
    let failed = |deed, error: &git2::Error| talk.borrow_mut().failure(deed, error);
    let _metered = talk.borrow().meter.here();
    guarded("fetch", || {
        let mut remote = open(repository, config)?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(callbacks(&talk))
            .download_tags(AutotagOption::None)
            .follow_redirects(RemoteRedirect::None)
            .update_fetchhead(false);
        let home = prepare(config, folder)?;
        let mut connection = remote
            .connect_auth(Direction::Fetch, Some(callbacks(&talk)), None)
            .map_err(|error| failed("list the references of", &error))?;
        drop(home);
        let listing = listing(&connection, config, &failed)?;
        let wanted = wanted(&listing)?;
        if !wanted.is_empty() {
            talk.borrow_mut().again();
            connection.remote().download(&wanted, Some(&mut options)).map_err(|error| failed("fetch from", &error))?;
        }
        Ok(listing)
    })
}

fn listing(
    connection: &git2::RemoteConnection<'_, '_, '_>,
    config: &SourceConfig,
    failed: &dyn Fn(&'static str, &git2::Error) -> SourceError,
) -> Result<Listing, SourceError> {
    let mut listing = Listing::default();
    let heads = connection.list().map_err(|error| failed("list the references of", &error))?;
    if heads.len() > config.limits.refs {
        let limit = config.limits.refs;
        return Err(SourceError::TooMuch { url: config.url.to_string(), what: "references", limit });
    }
    for head in heads {
        // git2 panics on names that are not UTF-8.
        let Ok(name) = catch_unwind(AssertUnwindSafe(|| head.name().to_owned())) else {
            listing.ignored += 1;
            continue;
        };
        if name == super::notes::NOTES {
            listing.notes = Some(head.oid());
        }
        if name.ends_with("^{}") || !(name.starts_with("refs/heads/") || name.starts_with("refs/tags/")) {
            continue;
        }
        if git2::Reference::is_valid_name(&name) && name.len() <= 512 && !name.chars().any(char::is_control) {
            listing.refs.insert(name, head.oid());
        } else {
            listing.ignored += 1;
        }
    }
    Ok(listing)
}

/// Pushes `commit` to `reference` over the network, if it still points at `expected`.
pub(super) fn push(
    repository: &Repository,
    config: &SourceConfig,
    folder: &Path,
    commit: Oid,
    reference: &str,
    expected: Option<&CommitId>,
) -> Result<(), PushError> {
    let talk = RefCell::new(Talk::new(config));
    let moved = RefCell::new(None);
    let _metered = talk.borrow().meter.here();
    let result = guarded("push", || {
        let mut remote = open(repository, config)?;
        let mut callbacks = callbacks(&talk);
        callbacks.push_update_reference(|_, status| {
            if let Some(why) = status {
                let why = talk.borrow().plain(why);
                talk.borrow_mut().refused.push(why);
            }
            Ok(())
        });
        callbacks.push_negotiation(|updates| {
            let at = updates.first().map(git2::PushUpdate::src);
            let at = at.filter(|at| !at.is_zero()).map(super::store::commit_id);
            if at.as_ref() == expected || at == Some(super::store::commit_id(commit)) {
                return Ok(());
            }
            *moved.borrow_mut() = Some(at);
            Err(git2::Error::from_str("the branch is elsewhere"))
        });
        let mut options = PushOptions::new();
        options.remote_callbacks(callbacks).follow_redirects(RemoteRedirect::None);
        let home = prepare(config, folder)?;
        let pushed = remote.push(&[format!("{commit}:{reference}")], Some(&mut options));
        drop(home);
        match pushed {
            Err(_) if moved.borrow().is_some() => Ok(()),
            Err(error) if error.code() == ErrorCode::NotFastForward => {
                *moved.borrow_mut() = Some(None);
                Ok(())
            }
            pushed => pushed.map_err(|error| talk.borrow_mut().failure("push to", &error)),
        }
    });
    result.map_err(PushError::Source)?;
    if let Some(at) = moved.into_inner() {
        return Err(PushError::Moved { reference: reference.to_owned(), at });
    }
    let talk = talk.borrow();
    if talk.refused.is_empty() {
        return Ok(());
    }
    let why = talk.refused.join("; ");
    let race = [
        "non-fast-forward",
        "fetch first",
        "stale info",
        "cannot lock ref",
        "failed to update ref",
        "incorrect old value",
    ];
    if race.iter().any(|words| why.contains(words)) {
        return Err(PushError::Moved { reference: reference.to_owned(), at: None });
    }
    let said = talk.plain(&String::from_utf8_lossy(&talk.said));
    let message = if said.is_empty() { why } else { format!("{why}: {said}") };
    Err(PushError::Refused { reference: reference.to_owned(), message })
}

/// Turns a panic of git2 on what a remote sent into an error.
fn guarded<T>(deed: &'static str, run: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(SourceError::Internal { deed, why: plain(text.unwrap_or("the remote sent something unreadable")) })
    })
}

fn open<'a>(repository: &'a Repository, config: &SourceConfig) -> Result<git2::Remote<'a>, SourceError> {
    if let Kind::Local(path) = config.url.kind()
        && !path.is_dir()
    {
        let why = "there is no such folder".to_owned();
        return Err(SourceError::NoRepository { url: config.url.to_string(), why });
    }
    repository
        .remote_anonymous(&config.url.target())
        .map_err(|error| SourceError::Internal { deed: "set up the remote", why: plain(error.message()) })
}

/// Sets what libgit2 takes only for the whole process. The guard is held until the connection stands.
fn prepare(config: &SourceConfig, folder: &Path) -> Result<Option<std::sync::MutexGuard<'static, ()>>, SourceError> {
    hermetic::timeouts(config.limits.connect, config.limits.idle)?;
    if let Some(file) = &config.ca_file {
        hermetic::trust(file)?;
    }
    let Auth::Ssh(key) = &config.auth else { return Ok(None) };
    let (home, ssh) = (folder.join("home"), folder.join("home/.ssh"));
    let guard = hermetic::home(&home)?;
    let lines = known_hosts(&key.known_hosts)?.0;
    let write = |path: PathBuf, deed, result: std::io::Result<()>| {
        result.map_err(|error| SourceError::File { deed, path, why: error.to_string() })
    };
    write(ssh.clone(), "create", std::fs::create_dir_all(&ssh))?;
    let copy = ssh.join("known_hosts");
    write(copy.clone(), "write", std::fs::write(&copy, lines))?;
    Ok(Some(guard))
}

/// The lines of `known_hosts` that libgit2 may take, and the keys that are revoked, in base64.
fn known_hosts(path: &Path) -> Result<(String, Vec<String>), SourceError> {
    let text = std::fs::read_to_string(path).map_err(|error| SourceError::File {
        deed: "read the known hosts",
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    let mut lines = String::new();
    let mut revoked = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(line) = line.strip_prefix("@revoked") {
            revoked.extend(line.split_whitespace().nth(2).map(str::to_owned));
        } else if !line.starts_with(['@', '#']) && !line.is_empty() {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    Ok((lines, revoked))
}

fn callbacks<'a>(talk: &'a RefCell<Talk<'a>>) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    callbacks.credentials(|_, user, kinds| talk.borrow_mut().credentials(user, kinds));
    callbacks.certificate_check(|cert, _| {
        if let Some(key) = cert.as_hostkey() {
            talk.borrow_mut().host_key(key)?;
        }
        Ok(CertificateCheckStatus::CertificatePassthrough)
    });
    callbacks
        .transfer_progress(|progress| talk.borrow_mut().within(progress.received_bytes(), progress.total_objects()));
    callbacks.sideband_progress(|said| talk.borrow_mut().said(said));
    callbacks
}

// === impl Talk ===

impl<'a> Talk<'a> {
    fn new(config: &'a SourceConfig) -> Self {
        let Limits { connect, idle, whole, refs, .. } = config.limits;
        let meter = Meter::new(connect, idle);
        meter.allow(refs.saturating_mul(REFERENCE).saturating_add(AROUND), whole);
        Self {
            config,
            meter,
            began: Instant::now(),
            attempts: 0,
            over: None,
            host_key: None,
            said: Vec::new(),
            refused: Vec::new(),
            told: Vec::new(),
        }
    }

    /// A second step of the same connection: it may ask who we are once more.
    fn again(&mut self) {
        self.attempts = 0;
        self.began = Instant::now();
        let limits = &self.config.limits;
        self.meter.allow(limits.bytes.saturating_add(AROUND), limits.whole);
    }

    fn url(&self) -> String {
        self.config.url.to_string()
    }

    fn credentials(&mut self, user: Option<&str>, kinds: CredentialType) -> Result<Cred, git2::Error> {
        let stop = |why: &str| Err(git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, why));
        if kinds.contains(CredentialType::USERNAME) {
            return Cred::username(user.unwrap_or("git"));
        }
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return stop("the token, password or key is refused");
        }
        let mut reveal = |secret: &Secret| {
            secret.reveal().map_err(|error| {
                let stop = git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, error.to_string());
                self.over = Some(error);
                stop
            })
        };
        let (user_name, secret) = match &self.config.auth {
            Auth::Token(token) => ("x-access-token", Some(token)),
            Auth::Basic { username, password } => (username.as_str(), Some(password)),
            Auth::None | Auth::Ssh(_) => ("", None),
        };
        if let (Some(secret), true) = (secret, kinds.contains(CredentialType::USER_PASS_PLAINTEXT)) {
            let secret = reveal(secret)?;
            self.told.extend([base64(format!("{user_name}:{secret}").as_bytes()), secret.clone()]);
            return Cred::userpass_plaintext(user_name, &secret);
        }
        match &self.config.auth {
            Auth::Ssh(SshKey { key, passphrase, .. }) if kinds.contains(CredentialType::SSH_KEY) => {
                let passphrase = passphrase.as_ref().map(reveal).transpose()?;
                Cred::ssh_key(user.unwrap_or("git"), None, key, passphrase.as_deref())
            }
            Auth::None => stop("it asks for a token, a password or a key, and none is configured"),
            Auth::Token(_) | Auth::Basic { .. } | Auth::Ssh(_) => {
                stop("it does not take the kind of token, password or key that is configured")
            }
        }
    }

    /// Remembers the host key for the words of a failure, and refuses a revoked one. What is trusted is decided by
    /// libgit2, from our copy of `known_hosts`.
    fn host_key(&mut self, key: &git2::cert::CertHostkey<'_>) -> Result<(), git2::Error> {
        let Auth::Ssh(ssh) = &self.config.auth else { return Ok(()) };
        let kind = key.hostkey_type().map_or("key", |kind| kind.name());
        let fingerprint = key.hash_sha256().map_or_else(
            || "without SHA-256".to_owned(),
            |hash| format!("SHA256:{}", base64(hash).trim_end_matches('=')),
        );
        let refused = |why: &str| git2::Error::new(ErrorCode::Certificate, ErrorClass::Callback, why);
        let revoked = known_hosts(&ssh.known_hosts).map_err(|error| refused(&error.to_string()))?.1;
        let whole = key.hostkey().map(base64).unwrap_or_default();
        let is_revoked = revoked.contains(&whole);
        self.host_key = Some((kind.to_owned(), fingerprint, is_revoked));
        if is_revoked { Err(refused("the host key is revoked")) } else { Ok(()) }
    }

    /// Whether a transfer may go on.
    fn within(&mut self, bytes: usize, objects: usize) -> bool {
        let limits = &self.config.limits;
        let too_much = |what, limit| SourceError::TooMuch { url: self.config.url.to_string(), what, limit };
        if bytes > limits.bytes {
            self.over = Some(too_much("bytes", limits.bytes));
        } else if objects > limits.objects {
            self.over = Some(too_much("objects", limits.objects));
        } else if self.began.elapsed() > limits.whole {
            self.over = Some(self.late("for one transfer", limits.whole));
        }
        self.over.is_none()
    }

    fn said(&mut self, said: &[u8]) -> bool {
        let room = TALK.saturating_sub(self.said.len());
        self.said.extend_from_slice(&said[..said.len().min(room)]);
        self.within(0, 0)
    }

    /// Text of the remote, plain, and without what we told it to get in.
    fn plain(&self, text: &str) -> String {
        let known = self.told.iter().filter(|told| !told.is_empty());
        plain(&known.fold(text.to_owned(), |text, told| text.replace(told.as_str(), "…")))
    }

    fn late(&self, what: &'static str, limit: Duration) -> SourceError {
        SourceError::Timeout { url: self.url(), what, limit }
    }

    /// What a failure of libgit2 means.
    fn failure(&mut self, deed: &'static str, error: &git2::Error) -> SourceError {
        if let Some(over) = self.over.take() {
            return over;
        }
        match self.meter.over() {
            Some(Over::Time) => return self.late("for one transfer", self.config.limits.whole),
            Some(Over::Bytes) if deed.starts_with("list") => {
                let limit = self.config.limits.refs;
                return SourceError::TooMuch { url: self.url(), what: "references", limit };
            }
            Some(Over::Bytes) => {
                return SourceError::TooMuch { url: self.url(), what: "bytes", limit: self.config.limits.bytes };
            }
            None => {}
        }
        let (url, why) = (self.url(), self.plain(error.message()));
        let has = |words: &[&str]| words.iter().any(|word| why.to_ascii_lowercase().contains(word));
        if error.code() == ErrorCode::Timeout || has(&["timed out", "timeout", "time out"]) {
            return self.late("to answer", self.config.limits.idle);
        }
        if error.code() == ErrorCode::Certificate || has(&["host key", "hostkey"]) {
            return match (self.host_key.take(), &self.config.auth) {
                (Some((kind, fingerprint, revoked)), Auth::Ssh(ssh)) => SourceError::HostKey {
                    host: self.config.url.host().unwrap_or_default().to_owned(),
                    kind,
                    fingerprint,
                    known_hosts: ssh.known_hosts.clone(),
                    revoked,
                },
                _ => SourceError::Certificate { url, why },
            };
        }
        if error.class() == ErrorClass::Ssl && has(&["certificate"]) {
            return SourceError::Certificate { url, why };
        }
        if has(&["redirect"]) {
            return SourceError::Redirect { url, why };
        }
        if error.code() == ErrorCode::Auth || has(&["authenticat", "status code: 401", "status code: 403", "publickey"])
        {
            return SourceError::Refused { url, why };
        }
        if has(&[
            "status code: 404",
            "not found",
            "does not appear to be a git",
            "could not find repository",
            "repository does not exist",
        ]) || error.class() == ErrorClass::Repository
        {
            return SourceError::NoRepository { url, why };
        }
        let net = matches!(error.class(), ErrorClass::Net | ErrorClass::Os);
        if net && has(&["connect", "resolve", "refused", "unreachable", "reset", "broken pipe"]) {
            return SourceError::Unreachable { url, why };
        }
        SourceError::Remote { deed, url, why }
    }
}

/// Base64 with padding (RFC 4648), as host keys are written.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or_default());
        let whole = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4 {
            let digit = (whole >> (18 - 6 * n)) & 63;
            text.push(if n > chunk.len() { '=' } else { char::from(DIGITS[digit as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
