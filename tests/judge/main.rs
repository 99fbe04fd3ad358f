//! The judge: its formulas against golden numbers, its order of questions, and its promises by simulation.

mod dice;
mod golden;
mod tables;
mod trials;
