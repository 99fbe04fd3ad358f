//! The command line as a person types it: what is right, and what people get wrong.

#[path = "support/script.rs"]
mod script;

#[test]
fn what_people_type() {
    script::run_all("tests/script", &[], |said| said);
}
