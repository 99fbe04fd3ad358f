//! The judge: its formulas against golden numbers, its order of questions, and its promises by simulation.

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
