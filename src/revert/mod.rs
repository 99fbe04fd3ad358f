//! Going back: is a commit a revert, and which commit takes an operation back.
//!
//! Pure: commits and their changes are values; `source` reads and writes them, `daemon` and `cli` bring both together.

mod detect;
mod message;
mod pin;
mod written;

pub use detect::{History, Step, evidence, paths_of, touches};
pub use message::{Named, named};
pub use pin::{CannotPin, pin};
pub use written::{Trailers, WriteBackMessage, trailers};
