//! S7, S8, S9: trees that somebody made by hand.

use std::time::{Duration, Instant};

use backstay::source::{EntryKind, FolderTree, Store, Tree, TreeError};

use crate::at;
use crate::git::TestRepo;

const FILE: &str = "100644";
const FOLDER: &str = "40000";

/// The folder `evil/` of a new commit, with these entries.
fn evil(repo: &TestRepo, entries: &[(&str, &[u8], git2::Oid)]) -> std::sync::Arc<dyn Tree> {
    let inner = repo.tree(entries);
    let fine = repo.blob(b"fine\n");
    let root = repo.tree(&[(FOLDER, b"evil", inner), (FILE, b"fine", fine)]);
    root_of(repo, root)
}

fn root_of(repo: &TestRepo, root: git2::Oid) -> std::sync::Arc<dyn Tree> {
    let commit = repo.commit_tree(root);
    let store = Store::open(&repo.path()).expect("a repository");
    store.checkout(&at("main", &commit)).expect("a checkout").tree
}

fn is_name(result: &Result<Vec<backstay::source::Entry>, TreeError>) -> bool {
    matches!(result, Err(TreeError::Name { .. }))
}

// S8
#[test]
fn evil_names_are_refused_and_shown_escaped() {
    let repo = TestRepo::new();
    let blob = repo.blob(b"content\n");
    let long = [b'x'; 256];
    let names: [&[u8]; 12] = [
        b"not\xffutf8",
        b"line\nbreak",
        b"\x1b[31mred",
        b"back\\slash",
        b".git",
        b".GIT",
        b".",
        b"..",
        b"a/b",
        "turn\u{202e}ed".as_bytes(),
        "\u{85}".as_bytes(),
        &long,
    ];
    for name in names {
        let tree = evil(&repo, &[(FILE, b"good", blob), (FILE, name, blob)]);
        let listed = tree.list("evil");
        assert!(is_name(&listed), "{name:?}: {listed:?}");
        let shown = listed.expect_err("refused").to_string();
        assert!(!shown.chars().any(char::is_control) && shown.contains("evil/"), "{shown:?}");
        assert_eq!(tree.list("").expect("the rest stays").len(), 2);
        assert_eq!(tree.read("evil/good", 100).expect("a file").as_deref(), Some(&b"content\n"[..]));
    }
    let twice = evil(&repo, &[(FILE, b"a", blob), (FILE, b"a", blob)]);
    assert!(is_name(&twice.list("evil")), "one name twice");
    for (one, other) in [("Support", "support"), ("ÄPFEL", "äpfel")] {
        let tree = evil(&repo, &[(FILE, one.as_bytes(), blob), (FILE, b"b", blob), (FILE, other.as_bytes(), blob)]);
        assert!(is_name(&tree.list("evil")));
        assert!(matches!(tree.find(&format!("evil/{one}")), Err(TreeError::Name { .. })));
        assert!(tree.find("evil/b").expect("the others stay").is_some());
    }
    for path in ["/fine", "evil/", "../fine", ".git/config", "a//b"] {
        assert!(matches!(twice.find(path), Err(TreeError::Name { .. })), "{path}");
    }
}

// S9
#[test]
fn links_submodules_and_pointers_are_refused_where_they_are_read() {
    let repo = TestRepo::new();
    let target = repo.blob(b"/etc/passwd");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let pointer = repo.blob(pointer);
    let prose = repo.blob(format!("about version https://git-lfs.github.com/spec/v1\n{}", "x".repeat(10)).as_bytes());
    let tree = evil(
        &repo,
        &[
            ("120000", b"link", target),
            ("160000", b"module", target),
            (FILE, b"pointer", pointer),
            (FILE, b"prose", prose),
            ("100755", b"run", target),
            ("100664", b"shared", target),
        ],
    );
    let kinds: Vec<_> = tree.list("evil").expect("a listing").iter().map(|entry| entry.kind).collect();
    let files = [EntryKind::File; 4];
    assert_eq!(kinds, [&[EntryKind::Link, EntryKind::Submodule][..], &files].concat());
    for (path, found) in [("evil/link", "a symbolic link"), ("evil/module", "a submodule"), ("evil", "a folder")] {
        let error = tree.read(path, 100).expect_err(path);
        assert!(matches!(&error, TreeError::Kind { found: is, .. } if *is == found), "{error:?}");
    }
    for path in ["evil/link/x", "evil/module/x"] {
        assert!(matches!(tree.find(path), Err(TreeError::Kind { .. })), "{path}");
    }
    assert!(matches!(tree.list("evil/link"), Err(TreeError::Kind { .. })));
    assert!(matches!(tree.list("fine"), Err(TreeError::Kind { .. })));
    assert_eq!(tree.read("evil/pointer", 1000), Err(TreeError::LfsPointer { path: "evil/pointer".to_owned() }));
    assert!(tree.read("evil/prose", 1000).is_ok());
    assert_eq!(tree.read("evil/run", 1000).expect("a file").as_deref(), Some(&b"/etc/passwd"[..]));
    assert_eq!(tree.find("fine/deeper"), Ok(None), "beneath a file is nothing");
    assert_eq!(tree.read("nothing", 10), Ok(None));
    assert_eq!(tree.list("nothing"), Ok(vec![]));
}

// S9: line ends and byte order marks are content, whatever attributes say.
#[test]
fn bytes_are_those_of_the_blob() {
    let repo = TestRepo::new();
    let crlf = b"\xef\xbb\xbfa\r\nb\r\n$Id$\n";
    let (crlf_id, attributes) = (repo.blob(crlf), repo.blob(b"* text=auto eol=lf ident filter=lfs\n"));
    let tree = root_of(&repo, repo.tree(&[(FILE, b".gitattributes", attributes), (FILE, b"a.md", crlf_id)]));
    assert_eq!(tree.read("a.md", 100).expect("a file").as_deref(), Some(&crlf[..]));
    assert_eq!(&*tree.find("a.md").expect("found").expect("there").id.0, crlf_id.to_string());
}

// S7
#[test]
fn budgets_hold() {
    let repo = TestRepo::new();
    let blob = repo.blob(b"0123456789");
    let mut deep = repo.tree(&[(FILE, b"f", blob)]);
    for _ in 0..40 {
        deep = repo.tree(&[(FOLDER, b"d", deep)]);
    }
    let tree = root_of(&repo, deep);
    let path = |levels: usize| vec!["d"; levels].join("/");
    assert!(tree.list(&path(32)).is_ok());
    assert!(matches!(tree.list(&path(33)), Err(TreeError::Budget { what: "levels", limit: 32, .. })));
    assert!(matches!(tree.find(&"x/".repeat(3000)), Err(TreeError::Budget { limit: 4096, .. })));

    let names: Vec<String> = (0..20_001).map(|n| format!("{n:05}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (FILE, name.as_bytes(), blob)).collect();
    let full = root_of(&repo, repo.tree(&entries[..20_000]));
    assert_eq!(full.list("").expect("as many as allowed").len(), 20_000);
    let over = root_of(&repo, repo.tree(&entries));
    assert!(matches!(over.list(""), Err(TreeError::Budget { what: "entries", limit: 20_000, .. })));
    assert_eq!(full.read("00000", 10).expect("a file").as_deref(), Some(&b"0123456789"[..]));
    assert!(matches!(full.read("00000", 9), Err(TreeError::Budget { what: "bytes", limit: 9, .. })));
}

/// Lists everything there is beneath a path.
fn walk(tree: &dyn Tree, path: &str, seen: &mut usize) -> Result<(), TreeError> {
    for entry in tree.list(path)? {
        *seen += 1;
        if entry.kind == EntryKind::Folder {
            let path = if path.is_empty() { entry.name.to_string() } else { format!("{path}/{}", entry.name) };
            walk(tree, &path, seen)?;
        }
    }
    Ok(())
}

// S7
#[test]
fn a_bomb_of_twelve_objects_is_refused_in_time() {
    let repo = TestRepo::new();
    let mut tree = repo.tree(&[(FILE, b"f", repo.blob(b"x"))]);
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    for _ in 0..10 {
        let entries: Vec<_> = names.iter().map(|name| (FOLDER, name.as_bytes(), tree)).collect();
        tree = repo.tree(&entries);
    }
    let bomb = root_of(&repo, tree);
    let began = Instant::now();
    let mut seen = 0;
    let error = walk(&*bomb, "", &mut seen).expect_err("ten to the tenth paths");
    assert!(matches!(error, TreeError::Budget { what: "entries in the commit", .. }), "{error:?}");
    assert!(seen <= 500_000 && began.elapsed() < Duration::from_secs(30), "{seen} in {:?}", began.elapsed());
    assert!(bomb.list("").is_ok(), "what was listed once is listed again");
}

#[test]
fn damaged_objects_are_said() {
    let repo = TestRepo::new();
    let missing = git2::Oid::from_str(&"12".repeat(20)).expect("an id");
    let tree =
        root_of(&repo, repo.tree(&[(FILE, b"a", missing), (FOLDER, b"b", missing), (FOLDER, b"c", repo.blob(b"x"))]));
    for error in [tree.read("a", 10).map(drop), tree.list("b").map(drop), tree.list("c").map(drop)] {
        assert!(matches!(error, Err(TreeError::Store { .. })), "{error:?}");
    }
    let malformed = repo.raw().odb().expect("objects").write(git2::ObjectType::Tree, b"100644 a\0short");
    if let Ok(malformed) = malformed {
        let tree = root_of(&repo, repo.tree(&[(FOLDER, b"m", malformed)]));
        assert!(matches!(tree.list("m"), Err(TreeError::Store { .. })));
    }
}

// S8, S9
#[test]
fn a_plain_folder_has_the_same_rules() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("agents/a/.git")).expect("a folder");
    std::fs::create_dir_all(at(".git/refs")).expect("a folder");
    std::fs::write(at("agents/agent.yaml"), "a: 1\r\n").expect("a file");
    std::fs::write(at("pointer"), "version https://git-lfs.github.com/spec/v1\n").expect("a file");
    std::os::unix::fs::symlink("/etc", at("link")).expect("a link");
    std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
    let tree = FolderTree::new(folder.path()).expect("a folder");
    let names: Vec<_> = tree.list("").expect("a listing").iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["agents", "link", "pointer", "socket"], "`.git` at the top is passed over");
    assert_eq!(tree.read("agents/agent.yaml", 10).expect("a file").as_deref(), Some(&b"a: 1\r\n"[..]));
    std::fs::write(at("agents/agent.yaml"), "changed").expect("a file");
    assert_eq!(tree.read("agents/agent.yaml", 10).expect("a file").as_deref(), Some(&b"a: 1\r\n"[..]), "seen once");
    assert!(matches!(tree.read("agents/agent.yaml", 3), Err(TreeError::Budget { .. })));
    assert!(is_name(&tree.list("agents/a")), "`.git` further down is refused");
    for path in ["link", "link/passwd", "socket"] {
        assert!(matches!(tree.read(path, 10_000), Err(TreeError::Kind { .. })), "{path}");
    }
    assert!(matches!(tree.read("pointer", 100), Err(TreeError::LfsPointer { .. })));
    assert!(matches!(tree.read("agents", 100), Err(TreeError::Kind { .. })));
    assert_eq!(
        (tree.read("nothing", 1), tree.find("pointer/x"), tree.list("nothing/x")),
        (Ok(None), Ok(None), Ok(vec![]))
    );
    let collide = at("collide");
    std::fs::create_dir(&collide).expect("a folder");
    for name in ["A", "a"] {
        std::fs::write(collide.join(name), "").expect("a file");
    }
    let two = std::fs::read_dir(&collide).expect("a folder").count() == 2;
    assert_eq!(is_name(&tree.list("collide")), two, "where the system keeps both");
    let ids: Vec<_> = [&tree, &FolderTree::new(folder.path()).expect("a folder")]
        .iter()
        .map(|tree| tree.find("pointer").expect("found").expect("there").id)
        .collect();
    assert_ne!(ids[0], ids[1], "what was read at different times may differ");
    assert!(FolderTree::new(at("pointer")).is_err() && FolderTree::new(at("nothing")).is_err());
}

// S6
#[test]
fn ten_thousand_agents_are_read_quickly_and_a_small_commit_at_once() {
    let repo = TestRepo::new();
    let raw = repo.raw();
    let shared: Vec<git2::Oid> = (0..9).map(|n| repo.blob(format!("shared {n}\n").as_bytes())).collect();
    // All in memory, then one pack: 60,000 files of their own would take minutes.
    let odb = raw.odb().expect("objects");
    let pack = odb.add_new_mempack_backend(1000).expect("objects in memory");
    let agent = |text: &str| {
        let own = raw.blob(text.as_bytes()).expect("a blob");
        let mut builder = raw.treebuilder(None).expect("a tree");
        builder.insert("agent.yaml", own, 0o100_644).expect("a file");
        for (file, id) in shared.iter().enumerate() {
            builder.insert(format!("prompt{file}.md"), *id, 0o100_644).expect("a file");
        }
        builder.write().expect("a tree")
    };
    let when = git2::Time::new(1_790_000_000, 0);
    let who = git2::Signature::new("Alice Example", "alice@example.com", &when).expect("a signature");
    let commit = |agents: git2::Oid, parents: &[&git2::Commit<'_>]| {
        let mut root = raw.treebuilder(None).expect("a tree");
        root.insert("agents", agents, 0o040_000).expect("a folder");
        let root = raw.find_tree(root.write().expect("a tree")).expect("a tree");
        raw.commit(None, &who, &who, "all\n", &root, parents).expect("a commit")
    };
    let mut agents = raw.treebuilder(None).expect("a tree");
    for n in 0..10_000 {
        agents.insert(format!("a{n:05}"), agent(&format!("agent {n}\n")), 0o040_000).expect("a folder");
    }
    let first = commit(agents.write().expect("a tree"), &[]);
    agents.insert("a04711", agent("changed\n"), 0o040_000).expect("a folder");
    let parent = raw.find_commit(first).expect("a commit");
    let second = commit(agents.write().expect("a tree"), &[&parent]);
    let mut buffer = git2::Buf::new();
    pack.dump(&raw, &mut buffer).expect("a pack");
    let onto_disk = repo.raw();
    let onto_disk = onto_disk.odb().expect("objects");
    let mut writer = onto_disk.packwriter().expect("a writer");
    std::io::Write::write_all(&mut writer, &buffer).expect("a pack");
    writer.commit().expect("a pack");

    let [first, second] = [first, second].map(|id| id.to_string().parse().expect("an id"));
    let store = Store::open(&repo.path()).expect("a repository");
    let read_all = |commit| {
        let began = Instant::now();
        let tree = store.checkout(&at("main", commit)).expect("a checkout").tree;
        let mut files = 0;
        for agent in tree.list("agents").expect("a listing") {
            files += tree.list(&format!("agents/{}", agent.name)).expect("a listing").len();
        }
        assert_eq!(files, 100_000);
        began.elapsed()
    };
    let (cold, warm) = (read_all(&first), read_all(&second));
    println!("10,000 agents, 100,000 files: {cold:?} at first, {warm:?} after a commit");
    assert!(cold < Duration::from_secs(30) && warm < Duration::from_secs(5));
}
