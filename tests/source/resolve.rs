//! What names come to.

use backstay::source::{SourceError, Store, Track};

use crate::git::TestRepo;
use crate::{at, config, main_and_tags, mirror};

#[test]
fn tracks_come_to_revisions() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let second = repo.commit(&[("a.txt", "two\n")], "second");
    repo.tag("v1.9.0", &first);
    repo.annotated_tag("v1.10.0", &second);
    repo.tag("v2.0.0-rc.1", &second);
    repo.tag("support-v3.0.0", &first);
    repo.tag("nightly", &second);
    let blob = repo.blob(b"no commit");
    repo.git(&["update-ref", "refs/tags/blob", &blob.to_string()]);
    let mirror = mirror(config(repo.url()));
    let polled = mirror.poll(&main_and_tags()).expect("a poll");
    assert!(!polled.tips.contains_key("refs/tags/blob"));
    let store = mirror.store();
    let tags = |pattern: &str, exclude: &[&str]| {
        let exclude = exclude.iter().map(|&tag| tag.to_owned()).collect();
        store.resolve(&Track::Tags { pattern: pattern.to_owned(), exclude }).expect("resolved")
    };
    assert_eq!(store.resolve(&Track::Branch("main".to_owned())), Ok(Some(at("main", &second))));
    assert_eq!(store.resolve(&Track::Branch("nope".to_owned())), Ok(None));
    assert_eq!(store.resolve(&Track::Branch("a..b".to_owned())), Ok(None));
    assert_eq!(store.resolve(&Track::Tag("v1.10.0".to_owned())), Ok(Some(at("v1.10.0", &second))), "peeled");
    assert_eq!(tags("v*", &[]), Some(at("v1.10.0", &second)), "by version, not by text");
    assert_eq!(tags("v*", &["v1.10.0"]), Some(at("v1.9.0", &first)));
    assert_eq!(tags("v*-rc*", &[]), Some(at("v2.0.0-rc.1", &second)));
    assert_eq!(tags("support-v*", &[]), Some(at("support-v3.0.0", &first)));
    assert_eq!(tags("none-*", &[]), None);
    assert!(matches!(store.resolve(&Track::Tag("blob".to_owned())), Err(SourceError::NoCommit { .. })));
}

#[test]
fn what_a_person_types_is_found() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let second = repo.commit(&[("a.txt", "two\n")], "second");
    repo.annotated_tag("v1", &first);
    let store = Store::open(&repo.path()).expect("a repository");
    for (text, reference, commit) in [
        ("main", "main", &second),
        ("v1", "v1", &first),
        ("HEAD", "main", &second),
        ("main~1", "HEAD", &first),
        (second.as_str(), "HEAD", &second),
        (&second.as_str()[..10], "HEAD", &second),
    ] {
        assert_eq!(store.revision(text), Ok(at(reference, commit)), "{text}");
    }
    for bad in ["nope", "main~9", "", "main:a.txt", "a..b", "\u{1b}[31m", "ffffffffff"] {
        let error = store.revision(bad).expect_err(bad);
        assert!(matches!(error, SourceError::NoCommit { .. }), "{error:?}");
        assert!(!error.to_string().contains('\u{1b}'));
    }
    assert_eq!(store.branches(), Ok(vec!["main".to_owned()]));
    assert_eq!(store.tags(), Ok(vec!["v1".to_owned()]));
}

#[test]
fn a_pin_must_be_there() {
    let repo = TestRepo::with_one_commit();
    let first = repo.id("main");
    let store = Store::open(&repo.path()).expect("a repository");
    assert_eq!(store.pinned(&first), Ok(at("HEAD", &first)));
    let nowhere = "1234567890123456789012345678901234567890".parse().expect("an id");
    assert!(matches!(store.pinned(&nowhere), Err(SourceError::NoCommit { .. })));
    let tree = repo.git(&["rev-parse", "main^{tree}"]).parse().expect("an id");
    assert!(matches!(store.pinned(&tree), Err(SourceError::NoCommit { .. })), "a folder is no commit");
    let long = "12".repeat(32).parse().expect("an id");
    assert!(matches!(store.pinned(&long), Err(SourceError::NoCommit { .. })), "SHA-256 is not spoken");
}

// S6
#[test]
fn a_persons_repository_is_read_in_place_and_a_shallow_one_refused() {
    let repo = TestRepo::with_one_commit();
    repo.commit(&[("a.txt", "two\n")], "second");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clone = |name: &str, options: &[&str]| {
        let into = folder.path().join(name);
        let from = format!("file://{}", repo.path().display());
        repo.plain(&[&["clone", "-q"], options, &[&*from, into.to_str().expect("a path")]].concat());
        into
    };
    let whole = clone("whole", &[]);
    std::fs::create_dir(whole.join("deep")).expect("a folder");
    let store = Store::open(&whole.join("deep")).expect("found above");
    assert_eq!(store.revision("HEAD").expect("a revision").reference, "main");
    let shallow = Store::open(&clone("shallow", &["--depth", "1"])).expect_err("shallow");
    assert!(shallow.hint().expect("a way out").contains("--unshallow"));
    assert!(matches!(Store::open(folder.path()), Err(SourceError::NoRepository { .. })));
}
