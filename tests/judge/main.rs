//! The judge: its formulas against golden numbers, its order of questions, and its promises by simulation.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "what is counted in a test is small, and a test that meets nothing ends"
)]

mod bench;
mod counters;
mod dice;
mod golden;
mod order;
mod promises;
mod properties;
mod rivals;
mod speed;
mod tables;
mod trials;
