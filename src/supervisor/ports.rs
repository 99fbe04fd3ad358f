//! Leases of TCP ports: what is written on Pods is leased, and what was given back rests.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// How long a port rests after its process ended: a client that still knows it must not reach a stranger.
const REST: Duration = Duration::from_mins(1);

/// The ports of the range that are not free.
pub(super) struct Ports {
    range: RangeInclusive<u16>,
    resting: BTreeMap<u16, Instant>,
    leased: BTreeMap<u16, String>,
}

// === impl Ports ===

impl Ports {
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, resting: BTreeMap::new(), leased: BTreeMap::new() }
    }

    /// A lease that stands already: written on a Pod.
    pub(super) fn held(&mut self, port: u16, pod: &str) {
        self.leased.insert(port, pod.to_owned());
    }

    /// Leases a port that nobody has and nobody listens on.
    pub(super) fn lease(&mut self, pod: &str) -> Option<u16> {
        self.resting.retain(|_, since| since.elapsed() < REST);
        let is_free = |port: &u16| {
            !self.leased.contains_key(port)
                && !self.resting.contains_key(port)
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        };
        let port = self.range.clone().find(is_free)?;
        self.leased.insert(port, pod.to_owned());
        Some(port)
    }

    /// Gives back what a Pod had.
    pub(super) fn release(&mut self, pod: &str) {
        let mine: Vec<u16> = self.leased.iter().filter(|(_, who)| *who == pod).map(|(port, _)| *port).collect();
        for port in mine {
            self.leased.remove(&port);
            self.resting.insert(port, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_leased_once_and_rests() {
        let mut ports = Ports::new(21_480..=21_482);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 21_480));
        ports.held(21_481, "old");
        let first = ports.lease("a");
        assert_eq!(first, Some(21_482), "{taken:?}");
        assert_eq!(ports.lease("b"), None);
        ports.release("a");
        assert_eq!(ports.lease("b"), None, "it rests");
    }
}
