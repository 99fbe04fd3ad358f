//! What a person or a machine types: one file for each verb.

#![allow(clippy::disallowed_methods, reason = "a shell room: it reads files and has a clock")]

pub mod example_agent;
