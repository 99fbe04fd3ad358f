//! The API of a host on a Unix socket, for the people of the machine: who calls is known by the kernel's word alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api::{Caller, HostApi};
use crate::sys;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 256;
/// Connections of one account at a time; more are closed.
const OF_ONE: usize = 64;
/// From the first byte of a head to its last.
const HEAD: Duration = Duration::from_secs(10);
/// Bytes of a head.
const HEAD_BYTES: usize = 32 * 1024;
/// For open requests to end when the daemon stops; watches are cut.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of the address of a socket on Linux, without the zero at its end.
const LONGEST: usize = 107;

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process answers there.
    #[error("another process serves `{}`", .0.display())]
    Taken(PathBuf),
    /// There is a file that is no socket.
    #[error("`{}` is no socket, and stays as it is", .0.display())]
    NoSocket(PathBuf),
    /// The operating system refused.
    #[error("cannot listen on `{}`", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How a socket is named to the kernel; good while this lives.
pub(super) struct Reached {
    path: PathBuf,
    _folder: Option<File>,
}

/// Connections that are open, by account.
type Open = Arc<Mutex<BTreeMap<u32, usize>>>;

/// One of the connections of an account, counted while it lives.
struct Counted {
    uid: u32,
    open: Open,
}

/// Listens at `path`, mode 0666: whoever can reach the folder can connect. A socket that nobody answers at is replaced.
///
/// # Errors
///
/// Where somebody answers, or something else than a socket lies there; nothing is changed then.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let refused = |source| ListenError::Refused { path: path.to_owned(), source };
    let reached = reached(path).map_err(refused)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NoSocket(path.to_owned())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(reached.path()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                fs::remove_file(path).map_err(refused)?;
            }
            Ok(_) => return Err(ListenError::Taken(path.to_owned())),
            // Nobody can tell whose it is.
            Err(error) => return Err(refused(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
    }
    let listener = UnixListener::bind(reached.path()).map_err(refused)?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(refused)?;
    Ok(listener)
}

/// Answers `api` on `listener` until `stop`.
///
/// A caller is known by the credentials that the kernel gives, and by nothing that they say: root, the account of this
/// process and the accounts in `people` may ask in their own name, everybody else reads.
///
/// # Errors
///
/// When the listener cannot accept any more, for another reason than one connection or a lack of descriptors.
pub async fn serve(
    listener: UnixListener,
    api: HostApi,
    people: BTreeSet<String>,
    stop: CancellationToken,
) -> io::Result<()> {
    let people = Arc::new(people);
    let (slots, open) = (Arc::new(Semaphore::new(CONNECTIONS)), Open::default());
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let ended = loop {
        let accepted = tokio::select! { biased;
            () = stop.cancelled() => break Ok(()),
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => break Err(error),
        };
        let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { continue };
        let Some(counted) = Counted::one_more(uid, &open) else {
            tracing::warn!(uid, "an account has too many connections to the host's API: one more is closed");
            continue;
        };
        let (api, people, watcher) = (api.clone(), Arc::clone(&people), graceful.watcher());
        connections.spawn(async move {
            if let Some(caller) = caller(uid, people).await {
                let service = TowerToHyperService::new(api.router(caller));
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(64).max_buf_size(HEAD_BYTES);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%error, "a connection to the host's API ended early");
                }
            }
            drop((slot, counted));
        });
    };
    drop(listener);
    let mut all = pin!(async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    });
    let _ = tokio::time::timeout(GRACE, &mut all).await;
    ended
}

/// Who an account is to the API; none if that cannot be found out.
async fn caller(uid: u32, people: Arc<BTreeSet<String>>) -> Option<Caller> {
    let name = tokio::task::spawn_blocking(move || sys::account(uid)).await.ok()?;
    let may_ask = uid == 0 || uid == sys::own_uid() || people.contains(&name);
    Some(if may_ask { Caller::Person(name) } else { Caller::Reader(name) })
}

/// The next connection, once there is room for it.
async fn accept(listener: &UnixListener, slots: &Arc<Semaphore>) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok((stream, slot)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // `EMFILE` and `ENFILE`.
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                tracing::warn!(%error, "no more connections can be accepted for now");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// How `socket` is named to the kernel: by itself, or by its folder where its path is longer than an address.
pub(super) fn reached(socket: &Path) -> io::Result<Reached> {
    if socket.as_os_str().len() <= LONGEST {
        return Ok(Reached { path: socket.to_owned(), _folder: None });
    }
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name().and_then(|name| name.to_str())) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no path of a socket"));
    };
    let folder = File::open(folder)?;
    Ok(Reached { path: sys::socket_path(folder.as_fd(), name), _folder: Some(folder) })
}

// === impl Reached ===

impl Reached {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

// === impl Counted ===

impl Counted {
    /// Counts one more connection of an account; none if it has enough.
    fn one_more(uid: u32, open: &Open) -> Option<Self> {
        let mut counts = open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Self { uid, open: Arc::clone(open) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}
