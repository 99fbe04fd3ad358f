//! Records, kept: two custom resources, an election, a journal, and Kubernetes Events.
#![allow(clippy::disallowed_methods, reason = "this room keeps records in API servers and files, and has the clock")]

mod announce;
mod clock;
mod crd;
mod election;
mod entry;
mod follow;
mod journal;
mod request;
mod store;

pub use announce::Herald;
pub use clock::{Clock, SystemClock};
pub use crd::{GROUP, VERSION, crds};
pub use election::{Election, LeaseFence, Role, Terms};
pub use entry::{EnvironmentEntry, UNREADABLE};
pub use follow::LedgerChange;
pub use journal::{Event, Journal, JournalError, Line, verify};
pub use request::{Ask, Asker, whoami};
pub use store::{Claim, Ledger};
