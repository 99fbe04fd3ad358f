//! The data plane of a host: a process of its own that carries the traffic.
//!
//! It splits requests between the releases of an agent by a routing table, passes streams through, and measures each
//! release. The daemon writes the table ([`write_table`]) and speaks to it over a socket ([`Client`]); without the daemon
//! it goes on with the last table.

#![allow(clippy::disallowed_methods, reason = "a shell room: it serves, reads files and has a clock")]

mod assign;
mod control;
mod figures;
mod forward;
mod live;
mod serve;
mod settings;
mod store;
mod table;

pub use assign::{Routes, arm_of, place, scale};
pub use control::{
    Active, Ask, Client, ControlError, InstanceState, Metrics, Question, Refused, ReleaseSeconds, ReleaseState, Reply,
    State, VERSION, Why,
};
pub use figures::{Counted, Counts, Histogram, KEPT_SECONDS, Second};
pub use serve::{ServeError, TlsError, run};
pub use settings::{InvalidSettings, Limits, ListenOn, Settings, Span, Tls};
pub use store::{Loaded, StoreError, load_table, previous_path, write_table};
pub use table::{
    Address, Agent, Arm, Drain, FORMAT, Instance, InvalidTable, Match, Mirror, Problem, Protocol, Role, Route, Sticky,
    StickyBy, Table, WHOLE,
};
