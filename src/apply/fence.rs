//! The last look before an effect: whether this process may still write.

/// Whether this process is the one that writes to the target.
///
/// Asked right before each request that has an effect. The epoch and the preconditions of the request guard the time
/// between this look and the server.
pub trait Fence: Send + Sync {
    /// Whether the lease holds for sure.
    fn holds(&self) -> bool;
}

/// For a command of a person, or a target that needs no election: always holds.
#[derive(Debug, Clone, Copy)]
pub struct Unfenced;

// === impl Unfenced ===

impl Fence for Unfenced {
    fn holds(&self) -> bool {
        true
    }
}
