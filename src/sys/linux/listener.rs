//! Who is at a socket: at its other end, or listening on it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::process::is_gone;
use crate::sys::{Listen, Listening, Peer, ProcessId};

/// Who made the connection.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let said = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer { pid: said.pid.as_raw_nonzero().get().unsigned_abs(), uid: said.uid.as_raw() })
}

/// Connects to a Unix socket without waiting; `WouldBlock` where there is no room among those who wait to be taken.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Sends what the other side takes now; returns how many bytes. One that has gone is an error, and no signal.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

/// Whether a descriptor is a listening socket.
pub fn is_listener(socket: impl AsFd) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_acceptconn(socket)?)
}

/// Sends a datagram to a socket whose name is in no folder (an abstract one).
pub fn send_to_name(sender: &UnixDatagram, name: &[u8], text: &[u8]) -> io::Result<()> {
    sender.send_to_addr(text, &SocketAddr::from_abstract_name(name)?).map(drop)
}

/// A path for a socket in an open folder that always fits into an address (107 bytes), however deep the folder lies.
///
/// It can be bound and connected to by this process while the folder is open.
pub fn socket_path(folder: BorrowedFd<'_>, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// Whether somebody listens there, and whether the listener belongs to one of `processes`.
///
/// # Guarantees
///
/// `Ours` only if every listener of the place is held by one of them. A process of another account cannot be looked into
/// without privileges: what it holds is not ours.
pub fn listening(listen: &Listen, processes: &[ProcessId]) -> io::Result<Listening> {
    // The first of them tells which network they see.
    let net = processes.first().map_or_else(|| "/proc/net".to_owned(), |first| format!("/proc/{}/net", first.pid));
    match listen {
        Listen::Port(port) => {
            let mut sockets = tcp(&format!("{net}/tcp"), *port)?;
            sockets.extend(tcp(&format!("{net}/tcp6"), *port)?);
            let held = |socket: &u64| processes.iter().any(|process| sockets_of(process.pid).contains(socket));
            Ok(judge(&sockets, held))
        }
        Listen::Socket(path) => {
            let Ok(file) = fs::metadata(path) else { return Ok(Listening::Nobody) };
            let bound = unix(&format!("{net}/unix"), path)?;
            // Bound paths stand as they were given: a relative one means something only beside its process.
            let is_it = |pid: u32, given: &Path| {
                let found = fs::metadata(Path::new(&format!("/proc/{pid}/cwd")).join(given));
                found.is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
            };
            for process in processes {
                let held = sockets_of(process.pid);
                if bound.iter().any(|(socket, given)| held.contains(socket) && is_it(process.pid, given)) {
                    return Ok(Listening::Ours);
                }
            }
            let absolute = bound.iter().any(|(_, given)| given.is_absolute() && is_it(std::process::id(), given));
            Ok(if absolute { Listening::Another } else { Listening::Nobody })
        }
    }
}

fn judge(sockets: &BTreeSet<u64>, held: impl Fn(&u64) -> bool) -> Listening {
    if sockets.is_empty() {
        Listening::Nobody
    } else if sockets.iter().all(held) {
        Listening::Ours
    } else {
        Listening::Another
    }
}

/// The sockets that a process has open, by their numbers; what may not be looked at is empty.
fn sockets_of(pid: u32) -> BTreeSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// The listening sockets of a port.
fn tcp(table: &str, port: u16) -> io::Result<BTreeSet<u64>> {
    let suffix = format!(":{port:04X}");
    let listener = |line: &str| {
        let fields = line.split_ascii_whitespace().collect::<Vec<_>>();
        let is = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "0A";
        if is { fields.get(9)?.parse().ok() } else { None }
    };
    lines(table, listener)
}

/// The listening Unix sockets whose path ends like this one, with the path as it was bound.
fn unix(table: &str, path: &Path) -> io::Result<BTreeSet<(u64, PathBuf)>> {
    let listener = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let socket: u64 = fields.nth(2)?.parse().ok()?;
        let given = Path::new(line.split_once(&format!(" {socket} "))?.1);
        (flags & 0x1_0000 != 0 && given.file_name() == path.file_name()).then(|| (socket, given.to_owned()))
    };
    lines(table, listener)
}

/// What `read` makes of the lines of a table; a table that is not there has none.
fn lines<T: Ord>(table: &str, read: impl Fn(&str) -> Option<T>) -> io::Result<BTreeSet<T>> {
    let file = match File::open(table) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut found = BTreeSet::new();
    let mut reader = BufReader::new(file);
    let mut line = vec![];
    while reader.read_until(b'\n', &mut line)? > 0 {
        found.extend(std::str::from_utf8(&line).ok().and_then(|line| read(line.trim_end_matches('\n'))));
        line.clear();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::sys::{ProcessId, own_process};

    #[test]
    fn a_listener_belongs_to_the_process_that_has_it_open() {
        let own = own_process().unwrap();
        let nobody = [ProcessId { pid: 1, start: 0 }];
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Listen::Port(tcp.local_addr().unwrap().port());
        assert_eq!(listening(&port, &[own]).unwrap(), Listening::Ours);
        assert_eq!(listening(&port, &nobody).unwrap(), Listening::Another);
        drop(tcp);
        assert_eq!(listening(&port, &[own]).unwrap(), Listening::Nobody);
    }

    #[test]
    fn a_socket_in_a_folder_with_spaces_is_found_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two words");
        let own = own_process().unwrap();
        assert_eq!(listening(&Listen::Socket(path.clone()), &[own]).unwrap(), Listening::Nobody);
        let socket = UnixListener::bind(&path).unwrap();
        assert_eq!(listening(&Listen::Socket(path.clone()), &[own]).unwrap(), Listening::Ours);
        let other = ProcessId { pid: 1, start: 0 };
        assert_eq!(listening(&Listen::Socket(path.clone()), &[other]).unwrap(), Listening::Another);
        drop(socket);
        assert_eq!(listening(&Listen::Socket(path), &[own]).unwrap(), Listening::Nobody);
    }
}
