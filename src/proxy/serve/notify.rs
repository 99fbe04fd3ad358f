//! What systemd is told (`sd_notify(3)`): a datagram to the socket that it names.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Sends `state`; without systemd nothing happens.
pub(super) fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "cannot tell systemd `{}`", state.replace('\n', " "));
    }
}

/// How often systemd wants to hear that all is well; none where it does not ask this process.
pub(super) fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let asked = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && asked)?;
    Some(Duration::from_micros(micros) / 2)
}

fn send(socket: &std::ffi::OsStr, state: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return sender.send_to_addr(state.as_bytes(), &address).map(drop);
    }
    sender.send_to(state.as_bytes(), socket).map(drop)
}
