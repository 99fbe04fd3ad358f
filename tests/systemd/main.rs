//! What `systemd/` installs, and what `backstay host enrol` writes.
//!
//! The units are judged by `systemd-analyze` in every run. Whether they work is tried on a real machine in a container, which needs root,
//! `debootstrap`, `systemd-container`, and a minute or two more the first time, for a Debian that is kept beneath `~/.cache`:
//!
//! ```text
//! cargo test --test systemd -- --ignored --nocapture
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test: it reads files, starts processes and says what failed, and a panic is its failure"
)]

mod boot;
mod load;
mod machine;
mod units;
