//! Desired, live and record become a plan: steps, what it waits for, and the inverse.

mod diff;
mod gate;
mod lines;

pub use diff::{Change, FieldChange, FieldPath, Segment, changes, drift, dropped};
pub use gate::{Forbidden, GatePolicy, admit, violations};
pub use lines::{ChangeLine, Mark, object_lines, redact};
