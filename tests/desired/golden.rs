//! Golden vectors: what these files are called must never change, or every agent in the world would roll once.

use std::path::{Path, PathBuf};

use crate::repository::{folder, good};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/desired/golden").join(name)
}

/// Each folder holds a repository, and beside it the canonical form of the agent `a` in `prod`, its id and its settings'.
#[test]
fn releases_keep_their_names() {
    let mut found = 0;
    for entry in std::fs::read_dir(path("")).expect("the golden vectors") {
        let case = entry.expect("an entry").path();
        let agent = good(&folder(&case.join("repository")), "prod", "a");
        let canonical = String::from_utf8(agent.release.canonical.to_vec()).expect("UTF-8");
        let ids = format!("release {}\nsettings {}\n", agent.release.id.digest(), agent.settings.digest);
        for (file, text) in [("release.json", canonical), ("ids.txt", ids)] {
            if std::env::var_os("BACKSTAY_NEW_GOLDEN").is_some() && !case.join(file).exists() {
                std::fs::write(case.join(file), &text).expect("a new vector");
            }
            let expected = std::fs::read_to_string(case.join(file)).expect("a vector");
            assert_eq!(text, expected, "{} of {}", file, case.display());
        }
        found += 1;
    }
    assert!(found >= 3, "{found} vectors");
}
