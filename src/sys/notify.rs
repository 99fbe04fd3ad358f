//! What systemd is told (`sd_notify(3)`): a datagram to the socket that it names.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Tells systemd `state` (lines of `NAME=value`); does nothing where no systemd asked for it.
///
/// # Errors
///
/// When the socket of `NOTIFY_SOCKET` cannot be written.
pub fn notify(state: &str) -> io::Result<()> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let sender = UnixDatagram::unbound()?;
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => super::send_to_name(&sender, name, state.as_bytes()),
        None => sender.send_to(state.as_bytes(), socket).map(drop),
    }
}

/// How often systemd wants to hear `WATCHDOG=1`, with half of its patience to spare; none where it does not ask this process.
pub fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let asked = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && asked)?;
    Some(Duration::from_micros(micros) / 2)
}
