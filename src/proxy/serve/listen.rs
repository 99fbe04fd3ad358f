//! The sockets that the proxy listens on: bound here, given by systemd, or handed over by the proxy before.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use listenfd::ListenFd;
use serde::{Deserialize, Serialize};

use super::ServeError;
use crate::proxy::settings::{ListenOn, Settings};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Purpose {
    Plain,
    Tls,
    Metrics,
    Control,
}

/// One socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(Purpose, TcpListener),
    Control(UnixListener),
}

// === impl Listener ===

impl Listener {
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Tcp(purpose, _) => *purpose,
            Self::Control(_) => Purpose::Control,
        }
    }

    pub(super) fn handed(purpose: Purpose, socket: OwnedFd) -> Self {
        match purpose {
            Purpose::Control => Self::Control(socket.into()),
            Purpose::Plain | Purpose::Tls | Purpose::Metrics => Self::Tcp(purpose, socket.into()),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(purpose, listener) => Self::Tcp(*purpose, listener.try_clone()?),
            Self::Control(listener) => Self::Control(listener.try_clone()?),
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(_, listener) => listener.as_fd(),
            Self::Control(listener) => listener.as_fd(),
        }
    }
}

/// All sockets for `settings`: what systemd gives, and for what is missing then, what the settings name.
///
/// systemd's are told apart by `FileDescriptorName=`: `control`, `metrics`, `tls`; every other is for clients.
pub(super) fn all(settings: &Settings) -> Result<Vec<Listener>, ServeError> {
    let mut listeners = given()?;
    let has = |purpose| listeners.iter().any(|listener: &Listener| listener.purpose() == purpose);
    let (clients, metrics, control) =
        (has(Purpose::Plain) || has(Purpose::Tls), has(Purpose::Metrics), has(Purpose::Control));
    if !clients {
        for (purpose, addresses) in [(Purpose::Plain, &settings.listen), (Purpose::Tls, &settings.listen_tls)] {
            for address in addresses {
                listeners.push(bind(purpose, address)?);
            }
        }
    }
    if let (false, Some(address)) = (metrics, &settings.metrics) {
        listeners.push(bind(Purpose::Metrics, address)?);
    }
    if !control {
        listeners.push(Listener::Control(bind_control(&settings.control)?));
    }
    if listeners.iter().all(|listener| matches!(listener.purpose(), Purpose::Metrics | Purpose::Control)) {
        return Err(ServeError::NoListener);
    }
    Ok(listeners)
}

/// Binds the socket at `path`, where nobody may answer.
pub(super) fn bind_control(path: &Path) -> Result<UnixListener, ServeError> {
    let cannot = |source| ServeError::Listen { on: path.display().to_string(), source };
    if UnixStream::connect(path).is_ok() {
        return Err(ServeError::Taken { path: path.to_owned() });
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(cannot)?;
    // Who may speak is decided by the credentials of whoever connects.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(cannot)?;
    Ok(listener)
}

fn bind(purpose: Purpose, address: &ListenOn) -> Result<Listener, ServeError> {
    let cannot = |source| ServeError::Listen { on: address.0.to_string(), source };
    // SO_REUSEADDR is set by std on Unix; SO_REUSEPORT is not, since a closed listener would reset what it had queued.
    Ok(Listener::Tcp(purpose, TcpListener::bind(address.0).map_err(cannot)?))
}

fn given() -> Result<Vec<Listener>, ServeError> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut given = ListenFd::from_env();
    let cannot = |source| ServeError::Listen { on: "a socket of systemd's".to_owned(), source };
    let mut listeners = Vec::new();
    for index in 0..given.len() {
        let purpose = match names.get(index) {
            Some(&"control") => Purpose::Control,
            Some(&"metrics") => Purpose::Metrics,
            Some(&"tls" | &"https") => Purpose::Tls,
            Some(_) | None => Purpose::Plain,
        };
        let listener = if purpose == Purpose::Control {
            given.take_unix_listener(index).map_err(cannot)?.map(Listener::Control)
        } else {
            given.take_tcp_listener(index).map_err(cannot)?.map(|listener| Listener::Tcp(purpose, listener))
        };
        listeners.extend(listener);
    }
    Ok(listeners)
}
