//! Desired, live and record become a plan: steps, what it waits for, and the inverse.

mod check;
mod diff;
mod gate;
mod lines;
mod quantity;
mod planner;
mod redact;
mod step;

pub use diff::{Change, FieldChange, FieldPath, Segment, changes, drift, dropped};
pub use gate::{Forbidden, GatePolicy, admit, admit_deletion, violations};
pub use lines::{ChangeLine, FieldView, Mark, created_lines, object_lines};
pub use planner::{PlanInput, differences, owns, plan};
pub use quantity::whole_amount;
pub use redact::{MASK, mask_text, redact};
pub use step::{Inverse, Note, NoteKind, Plan, PruneReason, Step, StepView, WaitingOn};

use check::check;
