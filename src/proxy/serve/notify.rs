//! What the proxy tells systemd, and when.

use std::time::Duration;

use crate::sys;

/// Sends `state`; without systemd nothing happens.
pub(super) fn notify(state: &str) {
    if let Err(error) = sys::notify(state) {
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
