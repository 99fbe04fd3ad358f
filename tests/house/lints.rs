//! The lints that keep panics out: on where they must be, and nowhere taken back.

use super::{code, files, read, root, shown};

/// What no room says: it would end the process.
const PANICS: [&str; 6] = [
    "clippy::unwrap_used",
    "clippy::expect_used",
    "clippy::panic",
    "clippy::unreachable",
    "clippy::todo",
    "clippy::unimplemented",
];

/// Rooms that decide and remember: they take nothing by its place either.
const CORE: [&str; 6] = ["model", "flag", "migration", "record", "rollout", "reconcile"];

/// Without what stands between its words.
fn joined(text: &str) -> String {
    text.split_whitespace().collect()
}

// R5
#[test]
fn nothing_may_panic_on_purpose() {
    let manifest: toml::Table = read(&root().join("Cargo.toml")).parse().unwrap();
    let lints = |of: &str| manifest["lints"][of].as_table().unwrap().clone();
    assert_eq!(lints("rust")["unsafe_code"].as_str(), Some("deny"));
    assert_eq!(lints("clippy")["unwrap_used"].as_str(), Some("warn"));
    assert_eq!(lints("clippy")["pedantic"]["level"].as_str(), Some("warn"));
    // A warning stops a change.
    assert!(read(&root().join(".ci/run")).contains("cargo clippy --locked --all-targets -- -D warnings"));

    let all = joined(&format!("#![cfg_attr(not(test), deny({}))]", PANICS.join(",")));
    assert!(joined(&code(&read(&root().join("src/lib.rs")))).contains(&all), "src/lib.rs denies what panics");
    let places = joined("#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]");
    for room in CORE {
        let door = root().join("src").join(room).join("mod.rs");
        assert!(joined(&code(&read(&door))).contains(&places), "{} denies what may panic", shown(&door));
    }
}

// R5
#[test]
fn no_room_takes_back_what_the_lints_say() {
    let lib = root().join("src/lib.rs");
    let mut wrong = vec![];
    for file in files(&root().join("src"), "rs").into_iter().filter(|file| *file != lib) {
        let text = code(&read(&file));
        let core = CORE.iter().any(|room| file.starts_with(root().join("src").join(room)));
        let ways = ["#[allow(", "#![allow(", "#[expect(", "#![expect(", "#[warn(", "#![warn("];
        for (at, way) in ways.iter().flat_map(|way| text.match_indices(way)) {
            let rest = &text[at + way.len()..];
            let attribute = &rest[..rest.find(")]").unwrap_or(rest.len())];
            let taken = PANICS.iter().find(|lint| attribute.contains(*lint)).copied();
            let placed = ["clippy::indexing_slicing", "clippy::string_slice"];
            let taken = taken.or_else(|| placed.into_iter().find(|lint| core && attribute.contains(lint)));
            wrong.extend(taken.map(|lint| format!("{} takes `{lint}` back", shown(&file))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
