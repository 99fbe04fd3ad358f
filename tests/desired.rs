//! The formats of the config repository: what is read, what is refused, and in which words.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "tests read files, tell how long they took, and look at some of many kinds"
)]

#[path = "desired/bombs.rs"]
mod bombs;
#[path = "desired/cache.rs"]
mod cache;
#[path = "desired/compare.rs"]
mod compare;
#[path = "desired/example.rs"]
mod example;
#[path = "desired/golden.rs"]
mod golden;
#[path = "desired/host.rs"]
mod host;
#[path = "desired/ids.rs"]
mod ids;
#[path = "desired/refused.rs"]
mod refused;
#[path = "desired/repository.rs"]
mod repository;
#[path = "desired/schema.rs"]
mod schema;
