//! The keeper of one agent process: real processes, real pipes, real signals.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: it reads and writes files, and a panic is its failure"
)]

mod keeper {
    mod life;
    mod log;
    mod memory;
    mod stop;
    mod support;
    mod take_over;
    mod talk;
}
