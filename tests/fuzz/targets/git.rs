//! What comes by Git: objects, signatures, keys, messages, and what lies in a mirror.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use backstay::model::{CommitId, ReleaseId, Revision};
use backstay::revert::{self, WriteBackMessage};
use backstay::source::{
    AllowedSigners, CommitInfo, Content, EntryKind, Keyring, Mirror, SourceConfig, Store, Track, Tree,
};
use git2::ObjectType;

use super::{Scratch, assert_plain, commit, scratch};

/// A file of allowed signers.
pub(super) fn signers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = AllowedSigners::parse("signers", text) {
        let told = error.to_string();
        assert!(told.starts_with("signers:"), "{told:?}");
        assert_plain(&told);
    }
}

/// A commit whose signature is looked at; the key is the corpus' own.
pub(super) fn signed(data: &[u8]) {
    const LINE: &str = include_str!("../corpus/signers/one");
    let signers = AllowedSigners::parse("signers", LINE).expect("signers");
    let now = backstay::model::Timestamp::from_second(1_800_000_000).unwrap_or_default();
    match signers.signer_of(data, now) {
        Ok(who) => assert_eq!(who, "alice@example.com"),
        Err(why) => assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}"),
    }
}

pub(super) fn keyring(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Keyring::parse("keys.asc", text) {
        let told = error.to_string();
        assert!(told.starts_with("keys.asc:"), "{told:?}");
        assert_plain(&told);
    }
}

/// A commit whose signature of `OpenPGP` is looked at; the key is the corpus' own.
pub(super) fn openpgp(data: &[u8]) {
    const KEYS: &str = include_str!("../corpus/keyring/one");
    let keyring = Keyring::parse("keys.asc", KEYS).expect("keys");
    let now = backstay::model::Timestamp::from_second(1_800_000_000).unwrap_or_default();
    match keyring.signer_of(data, now) {
        Ok(who) => assert!(who.ends_with("(alice <alice@example.com>)"), "{who}"),
        Err(why) => assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}"),
    }
}

pub(super) fn message(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let named = revert::named(text);
    drop((named.is_empty(), named));
    let Ok(agent) = "support".parse() else { return };
    if let Ok(pinned) = revert::pin(text, &agent, &commit()) {
        assert!(pinned.contains(commit().as_str()), "{pinned}");
    }
}

/// A message of anybody's, and one of ours with anybody's words in it.
pub(super) fn trailers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(revert::trailers(text));
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let theirs = CommitInfo { id: commit(), parents: vec![], author: "a <a@b>".to_owned(), message: text.to_owned() };
    let (agent, environment) = ("support".parse().expect("a name"), "production".parse().expect("a name"));
    let evidence: Vec<String> = rest.lines().take(20).map(str::to_owned).collect();
    for reverts in [true, false] {
        let theirs = std::slice::from_ref(&theirs);
        let message = WriteBackMessage {
            commits: if reverts { theirs } else { &[] },
            instead_of: if reverts { &[] } else { theirs },
            agent: &agent,
            environment: &environment,
            left: ReleaseId::of(b"bad"),
            back_to: ReleaseId::of(b"good"),
            word: "error_rate_high",
            reason: first,
            evidence: &evidence,
        };
        let written = message.text();
        let read = revert::trailers(&written).expect("what was written here is known again");
        assert_eq!(
            (&read.agent, &read.environment, read.release, &*read.reason),
            (&agent, &environment, ReleaseId::of(b"bad").digest(), "error_rate_high")
        );
        // Nobody's words name a commit that is not taken back.
        let named = revert::named(&written).commits;
        assert_eq!(named, if reverts { vec![commit().to_string()] } else { vec![] }, "{written:?}");
        assert!(written.len() < 8192, "{}", written.len());
    }
}

/// An object of the kind that the first byte says, as the source reads it.
pub(super) fn object(data: &[u8]) {
    thread_local! {
        static BARE: RefCell<Option<(Scratch, git2::Repository)>> = const { RefCell::new(None) };
    }
    let Some((first, raw)) = data.split_first() else { return };
    let kind = [ObjectType::Tree, ObjectType::Commit, ObjectType::Tag, ObjectType::Blob][usize::from(first % 4)];
    BARE.with_borrow_mut(|bare| {
        let (folder, repository) = bare.get_or_insert_with(|| {
            let folder = scratch();
            let repository = git2::Repository::init_bare(folder.path()).expect("a repository");
            (folder, repository)
        });
        let Ok(id) = repository.odb().and_then(|odb| odb.write(kind, raw)) else { return };
        let tag = folder.path().join("refs/tags/v1.0.0");
        std::fs::write(&tag, format!("{id}\n")).expect("a tag");
        read(&Store::open(folder.path()).expect("a store"), &id.to_string(), kind, raw);
        let (two, rest) =
            id.to_string().split_at_checked(2).map(|(two, rest)| (two.to_owned(), rest.to_owned())).expect("an id");
        let _ = std::fs::remove_file(tag);
        let _ = std::fs::remove_file(folder.path().join("objects").join(two).join(rest));
    });
}

fn read(store: &Store, id: &str, kind: ObjectType, raw: &[u8]) {
    match store.content(id, 1 << 20) {
        Ok(Content::File(bytes)) => assert!(kind == ObjectType::Blob && &*bytes == raw, "a blob is its bytes"),
        Ok(Content::Folder(tree)) => {
            assert_eq!(kind, ObjectType::Tree);
            folder(&tree, raw);
        }
        Err(error) => assert_plain(&error.to_string()),
    }
    let commit: CommitId = id.parse().expect("an id");
    match store.commit(&commit) {
        Ok(info) => {
            assert!(kind == ObjectType::Commit && info.id == commit);
            let revision = Revision { reference: "main".to_owned(), commit: commit.clone() };
            let checkout = store.checkout(&revision).expect("what was read is read again");
            if let Err(error) = checkout.tree.list("") {
                assert_plain(&error.to_string());
            }
            drop(store.commit_time(&commit));
        }
        Err(error) => assert_plain(&error.to_string()),
    }
    let tags = Track::Tags { pattern: "v*".to_owned(), exclude: BTreeSet::new() };
    for track in [Track::Tag("v1.0.0".to_owned()), tags] {
        match store.resolve(&track) {
            Ok(found) => assert!(found.is_none_or(|found| kind == ObjectType::Tag || found.commit == commit)),
            Err(error) => assert_plain(&error.to_string()),
        }
    }
}

fn folder(tree: &impl Tree, raw: &[u8]) {
    let entries = match tree.list("") {
        Ok(entries) => entries,
        Err(error) => return assert_plain(&error.to_string()),
    };
    assert!(entries.is_sorted_by(|one, other| one.name < other.name), "no name stands twice");
    for entry in entries {
        let name = &*entry.name;
        assert_plain(name);
        assert!(!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\']), "{name}");
        assert!(!name.eq_ignore_ascii_case(".git"), "{name}");
        assert!(raw.windows(name.len() + 1).any(|part| part == [name.as_bytes(), b"\0"].concat()), "{name} is made up");
        assert_eq!(tree.find(name).expect("what is listed is found"), Some(entry.clone()));
        for told in [tree.read(name, 100).map(drop), tree.link(name).map(drop), tree.list(name).map(drop)] {
            if let Err(error) = told {
                assert_plain(&error.to_string());
            }
        }
        assert!(entry.kind == EntryKind::File || !entry.executable);
    }
}

/// Names of files in a mirror, each ended by a zero: what a killed process left goes when it is opened, all else stays.
pub(super) fn leftovers(data: &[u8]) {
    let folder = scratch();
    let git_dir = folder.path().join("mirror.git");
    for made in ["objects/pack", "refs/heads"] {
        std::fs::create_dir_all(git_dir.join(made)).expect("a folder");
    }
    std::fs::write(git_dir.join("HEAD"), "ref: refs/heads/main\n").expect("a file");
    std::fs::write(git_dir.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = true\n").expect("a file");
    let outside = folder.path().join("beside.lock");
    std::fs::write(&outside, "").expect("a file");
    let mut made = BTreeSet::new();
    for name in super::parts(data).take(40) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let is_name = !name.is_empty() && name.len() < 200 && !name.contains('/') && name != "." && name != "..";
        for place in ["refs/heads", "objects", "objects/pack"] {
            let path = git_dir.join(place).join(name);
            if is_name && !path.exists() && std::fs::write(&path, "").is_ok() {
                made.insert((place, name.to_owned()));
            }
        }
    }
    let url = folder.path().join("remote").display().to_string().parse().expect("an address");
    let mirror = Mirror::open(folder.path(), SourceConfig::new(url));
    if let Err(error) = &mirror {
        assert_plain(&error.to_string());
    }
    assert!(outside.exists(), "what is not of the mirror is nobody's to remove");
    for (place, name) in made {
        let is_lock = Path::new(&name).extension().is_some_and(|extension| extension == "lock");
        let is_half = place.starts_with("objects") && (name.starts_with("tmp_") || name.contains("_git2_"));
        if !is_lock && !is_half {
            assert!(git_dir.join(place).join(&name).exists(), "{place}/{name:?} was no leftover");
        } else if is_lock {
            assert!(!git_dir.join(place).join(&name).exists(), "{place}/{name:?} was left");
        }
    }
}
