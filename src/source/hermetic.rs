//! The settings of libgit2 that hold for the whole process: nobody else's configuration, and a deadline on every wait.

use std::ffi::{CString, c_int};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use git2::{ConfigLevel, opts};

use super::SourceError;

/// The most memory that libgit2 keeps for objects it has read.
const CACHE: isize = 64 << 20;

static SEALED: OnceLock<Result<(), String>> = OnceLock::new();

/// Only one SSH connection at a time is being opened: libgit2 finds `known_hosts` in a home folder of the process.
static HOME: Mutex<()> = Mutex::new(());

/// Shuts out the configuration of system and user, once per process; every way into this room calls it first.
///
/// The owner of a repository is not compared with the user of the process: that protects programs which run what a
/// repository's configuration names, and nothing here does.
pub(super) fn seal() -> Result<(), SourceError> {
    let sealed = SEALED.get_or_init(|| shut_out().map_err(|error| error.message().to_owned()));
    sealed.clone().map_err(|why| SourceError::Setup { deed: "shut out the system's Git configuration", why })
}

#[expect(unsafe_code, reason = "settings of the whole process; called once, before any other use of libgit2")]
fn shut_out() -> Result<(), git2::Error> {
    // SAFETY: under the lock of `SEALED`, before any repository is opened by this process.
    unsafe {
        for level in [ConfigLevel::ProgramData, ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global] {
            opts::set_search_path(level, "")?;
        }
        opts::set_verify_owner_validation(false)?;
        opts::set_cache_max_size(CACHE)?;
    }
    opts::strict_hash_verification(true);
    super::wire::register()
}

/// Sets how long a connection may take, and how long it may be silent. Holds for the whole process; the last call counts.
#[expect(unsafe_code, reason = "settings of the whole process, which libgit2 offers nowhere else")]
pub(super) fn timeouts(connect: Duration, idle: Duration) -> Result<(), SourceError> {
    let milliseconds = |time: Duration| c_int::try_from(time.as_millis().max(1)).unwrap_or(c_int::MAX);
    // SAFETY: each is one store of an integer, read when a connection is opened.
    let set = unsafe {
        opts::set_server_connect_timeout_in_milliseconds(milliseconds(connect))
            .and_then(|()| opts::set_server_timeout_in_milliseconds(milliseconds(idle)))
    };
    set.map_err(|error| SourceError::Setup { deed: "set the timeouts", why: error.message().to_owned() })
}

/// Trusts the certificates in `file` beside those of the system.
#[expect(unsafe_code, reason = "settings of the whole process, which libgit2 offers nowhere else")]
pub(super) fn trust(file: &Path) -> Result<(), SourceError> {
    // SAFETY: OpenSSL locks its store of certificates.
    let set = unsafe { opts::set_ssl_cert_file(file) };
    set.map_err(|error| SourceError::File {
        deed: "read the certificates",
        path: file.to_owned(),
        why: error.message().to_owned(),
    })
}

/// Makes `home` the folder in whose `.ssh/known_hosts` libgit2 looks, until the guard is dropped.
#[expect(unsafe_code, reason = "git2 does not pass this setting on")]
pub(super) fn home(home: &Path) -> Result<MutexGuard<'static, ()>, SourceError> {
    let guard = HOME.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = |why: String| SourceError::Setup { deed: "set the folder of `known_hosts`", why };
    let path = CString::new(home.as_os_str().as_encoded_bytes()).map_err(|error| refused(error.to_string()))?;
    let option = c_int::try_from(libgit2_sys::GIT_OPT_SET_HOMEDIR).map_err(|error| refused(error.to_string()))?;
    // SAFETY: `path` lives through the call, libgit2 copies it; only SSH connections read it, all under `HOME`.
    let set = unsafe { libgit2_sys::git_libgit2_opts(option, path.as_ptr()) };
    if set == 0 { Ok(guard) } else { Err(refused("libgit2 refuses it".to_owned())) }
}
