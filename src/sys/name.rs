//! What this machine is called.

use std::fs;

/// The name of this machine, up to the first dot: `HOSTNAME` where it is set, else what the system says.
pub fn machine_name() -> String {
    let named = |text: String| Some(text.trim().to_owned()).filter(|name| !name.is_empty());
    let read = |path: &str| fs::read_to_string(path).ok().and_then(named);
    let name = std::env::var("HOSTNAME").ok().and_then(named);
    let name = name.or_else(|| read("/proc/sys/kernel/hostname")).or_else(|| read("/etc/hostname"));
    let name = name.unwrap_or_else(|| "localhost".to_owned());
    name.split('.').next().unwrap_or_default().to_owned()
}
