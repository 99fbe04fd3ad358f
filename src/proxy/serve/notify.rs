//! What the proxy tells systemd.

use crate::sys;

/// Sends `state`; without systemd nothing happens.
pub(super) fn notify(state: &str) {
    if let Err(error) = sys::notify(state) {
        tracing::warn!(%error, "cannot tell systemd `{}`", state.replace('\n', " "));
    }
}
